"""Clouds from the gateway file: asked in their own way, whatever API the request came by."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from stanchion.core.clock import SystemClock
from stanchion.core.errors import FilesError, UsageError
from stanchion.core.interaction import FinishReason
from stanchion.files.schema import load_file
from stanchion.gateway.building import make_models
from stanchion.gateway.gateway_file import GatewayModel
from stanchion.gateway.upstream import Question, Route
from stanchion.models.surfaces import SURFACES

CHAT = {
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello"}}]
}
CONVERSED = {
    "output": {"message": {"role": "assistant", "content": [{"text": "Hello"}]}},
    "stopReason": "end_turn",
    "usage": {"inputTokens": 1, "outputTokens": 2},
}
CLAUDE = {"model": "c", "content": [{"type": "text", "text": "Hello"}], "stop_reason": "end_turn"}
ASKED: dict[str, dict[str, Any]] = {
    "openai.chat": {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "seed": 1},
    "openai.responses": {"model": "m", "input": "Hi"},
    "anthropic.messages": {
        "model": "m",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "Hi"}],
    },
}


class Cloud:
    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[tuple[str, dict[str, str], dict[str, Any]]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append((request.raw_path, headers, await request.json()))
        return web.json_response(self.answer)


@asynccontextmanager
async def served(cloud: Cloud) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", cloud.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def written(tmp_path: Path, provider: str) -> Path:
    (tmp_path / "key").write_text("a-secret")
    path = tmp_path / "gateway.yaml"
    path.write_text(f"""
providers:
  cloud:
    key: "${{file:key}}"
{provider}
models:
  m: {{provider: cloud, model: there-v1}}
""")
    return path


def route(tmp_path: Path, provider: str) -> Route:
    loaded = load_file(written(tmp_path, provider), GatewayModel)
    models = make_models(loaded.value, folder=tmp_path, clock=SystemClock())
    return models.find("m", vendor="openai")


CASES = [
    ("    api: azure\n    azure: {endpoint: URL}", CHAT, "/openai/v1/chat/completions", "api-key"),
    ("    api: bedrock\n    bedrock: {region: eu-central-1, access_key: AK, endpoint: URL}", CONVERSED,
        "/model/there-v1/converse", "x-amz-date"),
    ("    api: vertex\n    vertex: {project: p, location: l, endpoint: URL}", CLAUDE,
        "/v1/projects/p/locations/l/publishers/anthropic/models/there-v1:rawPredict", "authorization"),
]  # fmt: skip


@pytest.mark.parametrize("surface", list(ASKED))
@pytest.mark.parametrize(("provider", "answer", "path", "header"), CASES, ids=["azure", "bedrock", "vertex"])
async def test_any_request_is_asked_of_a_cloud(
    tmp_path: Path, surface: str, provider: str, answer: Any, path: str, header: str
) -> None:
    cloud = Cloud(answer)
    async with served(cloud) as url:
        there = route(tmp_path, provider.replace("URL", url))
        request = SURFACES[surface].decode_request(ASKED[surface])
        question = Question(request=request, surface=surface, model=there.model)
        upstream = there.provider.upstream
        reply = await upstream.ask(question)
        batches = [batch async for batch in upstream.stream(question)]
        await upstream.aclose()
    assert reply.message.text == "Hello"
    assert reply.finish_reason is FinishReason.STOP
    assert len(batches) == 1
    [(said, headers, body), (again, _, _)] = cloud.asked
    assert said == path
    assert again.startswith(path.rpartition("/")[0])
    assert header in headers
    assert "a-secret" not in json.dumps(body)
    assert ("seed" in question.lost) is (surface == "openai.chat" and "azure" not in provider)


async def test_a_clients_own_key_goes_to_no_cloud(tmp_path: Path) -> None:
    there = route(tmp_path, "    api: azure\n    azure: {endpoint: http://127.0.0.1:1}")
    request = SURFACES["openai.chat"].decode_request(ASKED["openai.chat"])
    with pytest.raises(UsageError, match="own key"):
        await there.provider.upstream.ask(
            Question(request=request, surface="openai.chat", model="m", key="sk-client")
        )
    assert not there.provider.takes_keys


@pytest.mark.parametrize(
    "provider",
    ["    api: azure", "    api: bedrock\n    bedrock: {region: x}", "    api: vertex\n    azure: {endpoint: http://x}"],
)  # fmt: skip
def test_a_cloud_without_its_section_is_told_where(tmp_path: Path, provider: str) -> None:
    with pytest.raises(FilesError, match=r"gateway\.yaml:\d"):
        load_file(written(tmp_path, provider), GatewayModel)
