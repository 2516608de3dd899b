"""A provider that is a socket: it reads requests and says, byte for byte, what a test tells it."""

from __future__ import annotations

import asyncio
import functools
import inspect
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from stanchion.gateway.upstream_pool import Origin, Pool, PoolLimits

Speak = Callable[["Talk"], Awaitable[None]]
REQUEST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: here\r\ncontent-length: 2\r\n\r\n"
BODY = b"{}"
MOST = 1 << 20


def _new_loop(name: str) -> asyncio.AbstractEventLoop:
    if name == "asyncio":
        return asyncio.new_event_loop()
    return pytest.importorskip("uvloop").new_event_loop()


def on_both_loops(test):
    """Run an asynchronous test on the loop of the standard library, and on uvloop where it is installed."""

    def run(loop_name, **fixtures):
        with asyncio.Runner(loop_factory=functools.partial(_new_loop, loop_name)) as runner:
            runner.run(test(**fixtures))

    run.__name__, run.__doc__, run.__module__ = test.__name__, test.__doc__, test.__module__
    own = inspect.Parameter("loop_name", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    run.__signature__ = inspect.Signature([own, *inspect.signature(test).parameters.values()])
    run.pytestmark = list(getattr(test, "pytestmark", ()))
    return pytest.mark.parametrize("loop_name", ["asyncio", "uvloop"])(run)


class Talk:
    """One connection, with the request that was just read."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.reader, self.writer, self.number = reader, writer, number
        self.requests = 0

    async def say(self, *pieces: bytes, pause_s: float | None = None) -> None:
        """Write these; with a pause (0 counts) each in a packet of its own, as far as a socket allows."""
        for piece in pieces:
            self.writer.write(piece)
            if pause_s is not None:
                await self.writer.drain()
                await asyncio.sleep(pause_s)

    async def answer(self, body: bytes = b"hello", *headers: bytes, status: bytes = b"200 OK") -> None:
        await self.say(whole(body, *headers, status=status))

    def reset(self) -> None:
        self.writer.transport.abort()

    def close(self) -> None:
        self.writer.close()


def whole(body: bytes = b"hello", *headers: bytes, status: bytes = b"200 OK") -> bytes:
    """An honest answer of a known length."""
    lines = b"".join(line + b"\r\n" for line in headers)
    return b"HTTP/1.1 %s\r\n%scontent-length: %d\r\n\r\n%s" % (status, lines, len(body), body)


def chunked(*pieces: bytes, extension: bytes = b"", trailers: bytes = b"") -> bytes:
    """An honest answer in chunks."""
    chunks = b"".join(b"%x%s\r\n%s\r\n" % (len(piece), extension, piece) for piece in pieces)
    return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n" + trailers + b"\r\n"


class RawProvider:
    """What a test tells `speak` to do with every request; counts connections and keeps what it read."""

    def __init__(self) -> None:
        self.speak: Speak = Talk.answer
        self.connections = self.open = 0
        self.requests: list[bytes] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        talk = Talk(reader, writer, self.connections)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                size = int(re.search(rb"content-length: (\d+)", head)[1])
                self.requests.append(head + await reader.readexactly(size))
                talk.requests += 1
                await self.speak(talk)
                if writer.is_closing():
                    break
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def raw_provider(
    speak: Speak | None = None, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[RawProvider]:
    provider = RawProvider()
    if speak is not None:
        provider.speak = speak
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader, writer):
        tasks.add(asyncio.current_task())
        try:
            await provider.serve(reader, writer)
        except asyncio.CancelledError:
            pass  # the end of the test
        finally:
            tasks.discard(asyncio.current_task())

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls, backlog=4096)
    provider.port = server.sockets[0].getsockname()[1]
    try:
        yield provider
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)


@asynccontextmanager
async def pool_to(provider: RawProvider | int, *, scheme="http", host="127.0.0.1", tls=None, **limits):
    port = provider if isinstance(provider, int) else provider.port
    more = {} if tls is None else {"tls": tls}
    pool = Pool(
        Origin(scheme=scheme, host=host, port=port),
        PoolLimits(**{"connect_s": 5.0, "idle_s": 5.0, **limits}),
        **more,
    )
    try:
        yield pool
    finally:
        pool.close()
        for _ in range(50):
            if not pool.open:
                break
            await asyncio.sleep(0.01)
        assert pool.open == 0, "every connection is gone"


async def told(pool: Pool, *, collect: int = MOST, body: bytes = BODY) -> tuple[int, bytes]:
    """Status and body of an answer."""
    head = REQUEST.replace(b"length: 2", b"length: %d" % len(body))
    incoming = await pool.ask(head, body, collect=collect)
    pieces = []
    try:
        while piece := await incoming.some():
            pieces.append(piece)
    finally:
        incoming.close()
    return incoming.status, b"".join(pieces)


async def until(condition: Callable[[], bool], *, seconds: float = 5.0) -> None:
    end = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < end
        await asyncio.sleep(0.01)
