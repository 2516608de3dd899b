"""Fixtures of providers, and a loopback upstream that keeps what it was asked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web

from stanchion.core.clock import ManualClock
from stanchion.core.interaction import (
    Interaction,
    Reply,
    Sampling,
    StreamEvent,
    user,
)
from stanchion.models.aws_signature import AwsCredentials
from stanchion.models.events import Assembler
from stanchion.models.providers import Provider, UpstreamClient

FIXTURES = Path(__file__).parent / "fixtures"
ASKED = Interaction(messages=(user("Hi"),), sampling=Sampling(max_output_tokens=9))
AZURE = json.loads((FIXTURES / "azure_chat.json").read_text())
CONVERSE = json.loads((FIXTURES / "bedrock_converse.json").read_text())
CLAUDE = json.loads((FIXTURES / "anthropic_stream.json").read_text())
CLOCK = ManualClock(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
EVENT_STREAM = "application/vnd.amazon.eventstream"


class Shown:
    def __init__(self, value: str) -> None:
        self.value = value

    def reveal(self) -> str:
        return self.value


class Upstream:
    """Keeps what it was asked and gives one answer."""

    def __init__(self, body: Any, *, status: int = 200, kind: str = "application/json") -> None:
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.status = status
        self.kind = kind
        self.asked: list[tuple[str, dict[str, str], bytes]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append((request.raw_path, headers, await request.read()))
        return web.Response(status=self.status, body=self.body, content_type=self.kind)


@asynccontextmanager
async def asking(provider: Provider) -> AsyncIterator[UpstreamClient]:
    client = UpstreamClient(provider)
    try:
        yield client
    finally:
        await client.aclose()


async def whole(provider: Provider, model: str = "m", **further: Any) -> Reply:
    async with asking(provider) as client:
        return await client.ask(ASKED, model=model, **further)


async def streamed(provider: Provider, model: str = "m") -> tuple[Reply, list[StreamEvent]]:
    async with asking(provider) as client:
        events = [event async for batch in client.stream(ASKED, model=model) for event in batch]
    assembler = Assembler()
    for event in events:
        assembler.feed(event)
    return assembler.reply(), events


def sse(values: list[Any], *, named: bool = False, done: bool = True) -> bytes:
    frames = [
        (f"event: {value['type']}\n" if named else "") + f"data: {json.dumps(value)}\n\n" for value in values
    ]
    return "".join([*frames, *(["data: [DONE]\n\n"] if done else [])]).encode()


CREDENTIALS = AwsCredentials(access_key="AKIDEXAMPLE", secret_key=Shown("secret"))
