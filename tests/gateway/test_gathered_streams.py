"""Pieces of a stream are gathered once it has begun, and sent together; the first and the end do not wait."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from stanchion.core.clock import SystemClock
from stanchion.core.errors import UnavailableError
from stanchion.core.interaction import End, Interaction, StreamEvent, TextDelta, user
from stanchion.gateway.http_upstream import DIALECTS, HttpUpstream
from stanchion.gateway.upstream import Question
from stanchion.models.wire import Request

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
WORDS = [f"word{number} " for number in range(12)]
Speak = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Shown:
    """What the client has been sent; the test says when."""

    has_begun = False


def frame(delta: dict[str, str], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    data = b"data: " + json.dumps({"model": "m", "choices": [choice]}).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


LAST = frame({}, "stop") + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


@asynccontextmanager
async def provider(speak: Speak) -> AsyncIterator[str]:
    talks: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.add(asyncio.current_task())
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(HEAD)
            await speak(writer)
            await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()
        for talk in talks:
            if talk is not None:
                talk.cancel()
                await asyncio.wait([talk])


async def paced(writer: asyncio.StreamWriter) -> None:
    for word in WORDS:
        writer.write(frame({"content": word}))
        await asyncio.sleep(0.02)
    writer.write(LAST)


async def batches(
    speak: Speak, *, gather_s: float, begins_at: int = 0, is_streamed: bool = True
) -> list[tuple[float, list[StreamEvent]]]:
    """Each batch with when it came, in seconds; the client has been sent something from `begins_at` on."""
    shown, found = Shown(), []
    async with provider(speak) as url:
        upstream = HttpUpstream(
            url, dialect=DIALECTS["openai"], clock=SystemClock(), gather_s=gather_s, idle_s=2.0
        )
        question = Question(
            request=Request(interaction=Interaction(messages=(user("Hi."),), model="m"), stream=True),
            surface="openai.chat",
            model="m",
            shown=shown if is_streamed else None,
        )
        began = time.monotonic()
        try:
            async for batch in upstream.stream(question):
                found.append((time.monotonic() - began, list(batch)))
                shown.has_begun = len(found) > begins_at
        finally:
            await upstream.aclose()
    return found


def said(found: list[tuple[float, list[StreamEvent]]]) -> str:
    return "".join(one.text for _, batch in found for one in batch if isinstance(one, TextDelta))


async def test_once_it_has_begun_pieces_come_together_and_nothing_is_lost() -> None:
    one_by_one = await batches(paced, gather_s=0)
    gathered = await batches(paced, gather_s=0.1)
    assert said(gathered) == said(one_by_one) == "".join(WORDS)
    assert len(gathered) <= len(one_by_one) / 2
    assert isinstance(gathered[-1][1][-1], End)
    assert len(gathered[0][1]) <= 2, "the first piece waits for nothing"


@pytest.mark.parametrize(("begins_at", "is_streamed"), [(99, True), (0, False)])
async def test_nothing_waits_while_the_client_has_been_sent_nothing(
    begins_at: int, is_streamed: bool
) -> None:
    found = await batches(paced, gather_s=5, begins_at=begins_at, is_streamed=is_streamed)
    assert said(found) == "".join(WORDS)
    assert found[-1][0] < 4


async def test_the_end_of_an_answer_is_not_waited_for() -> None:
    found = await batches(paced, gather_s=30)
    assert said(found) == "".join(WORDS)
    assert found[-1][0] < 20
    assert len(found) == 2


async def test_an_answer_that_breaks_off_while_it_gathers_is_noticed_at_once() -> None:
    async def torn(writer: asyncio.StreamWriter) -> None:
        writer.write(frame({"content": "One "}))
        await asyncio.sleep(0.1)
        writer.write(frame({"content": "two "}))
        await asyncio.sleep(0.1)
        writer.transport.abort()

    began = time.monotonic()
    with pytest.raises(UnavailableError):
        await batches(torn, gather_s=30)
    assert time.monotonic() - began < 20


async def test_no_more_is_gathered_than_a_buffer_holds() -> None:
    large = "x" * 40_000 + " "

    async def flood(writer: asyncio.StreamWriter) -> None:
        for _ in range(20):
            writer.write(frame({"content": large}))
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.3)
        writer.write(LAST)

    found = await batches(flood, gather_s=30)
    assert said(found) == large * 20
    assert max(len(said([one])) for one in found) < 400_000
    assert found[-1][0] < 20


async def test_whoever_gathers_can_be_stopped() -> None:
    async def run() -> None:
        await batches(paced, gather_s=30)

    task = asyncio.create_task(run())
    await asyncio.sleep(0.15)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
