"""What can go wrong around the gateway, and what happens then: one table, which tests and documentation read.

The provider here is a socket that is told byte for byte what to say. What it says that no client may see
holds CARD (the policy redacts it) or SECRET (prose of the provider: error texts, headers, unknown events).
"""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

CARD = "4111 1111 1111 1111"
SECRET = "hunter2-of-the-provider"
IDLE_S = 0.3
DEADLINE_S = 1.5
Play = Callable[["Line"], Awaitable[None]]


@dataclass(frozen=True)
class Seen:
    """How a request ends under a fault: what the client is told, and what the record says."""

    status: int
    code: str
    outcome: str
    error: str = ""

    def __str__(self) -> str:
        told = f"{self.status} `{self.code}`" if self.code else f"{self.status}"
        return f"{told}; record `{self.outcome}`" + (f", error `{self.error}`" if self.error else "")


@dataclass(frozen=True)
class Fault:
    """One line of the table; `play` is what the provider does, for faults of the provider."""

    id: str
    what: str
    whole: Seen | None
    streamed: Seen | None
    play: Play | None = None


class Line:
    """The provider's side of one connection, with a request that was read."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, streams: bool) -> None:
        self._reader, self._writer = reader, writer
        self.streams = streams

    async def say(self, *pieces: bytes | str) -> None:
        for piece in pieces:
            self._writer.write(piece if isinstance(piece, bytes) else piece.encode())
            await self._writer.drain()

    async def head(self, kind: str = "", *, status: str = "200 OK", more: str = "", size: int | None = None):
        kind = kind or ("text/event-stream" if self.streams else "application/json")
        length = "transfer-encoding: chunked" if size is None else f"content-length: {size}"
        await self.say(f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n{length}\r\n{more}\r\n")

    async def chunk(self, *pieces: bytes) -> None:
        for piece in pieces:
            await self.say(b"%x\r\n%s\r\n" % (len(piece), piece))

    async def end(self) -> None:
        await self.say(b"0\r\n\r\n")

    async def answer(self, body: bytes, **more) -> None:
        """An answer with these bytes as its body, honest about its length."""
        await self.head(size=len(body), **more)
        await self.say(body)

    def reset(self) -> None:
        """Not an end but a reset: what is on its way is lost."""
        linger = struct.pack("ii", 1, 0)
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._writer.transport.abort()

    def close(self) -> None:
        self._writer.close()

    async def nothing(self) -> None:
        """Say nothing until the other side goes away."""
        await self._reader.read()


def whole(text: str = f"It is {CARD}.", **more: object) -> bytes:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop", **more}
    return json.dumps({"id": "1", "model": "m", "choices": [choice]}).encode()


def delta(text: str = "", *, finish: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}
    return b"data: " + json.dumps({"id": "1", "model": "m", "choices": [choice], **more}).encode() + b"\n\n"


STREAM = (delta("It is "), delta(CARD[:9]), delta(CARD[9:] + "."), delta(finish="stop"), b"data: [DONE]\n\n")


def _body(value: bytes, **more: str) -> Play:
    """These bytes as the body, whether a stream was asked for or not."""

    async def play(line: Line) -> None:
        await line.answer(value, **more)

    return play


def _status(line_: str, *, more: str = "") -> Play:
    body = json.dumps(
        {"error": {"message": f"{SECRET} {CARD}", "type": "server_error", "code": None}}
    ).encode()

    async def play(line: Line) -> None:
        await line.answer(body, status=line_, kind="application/json", more=more)

    return play


def _pieces(*pieces: bytes) -> Play:
    """A stream of these pieces, ended well as HTTP goes; not streamed, they are one body."""

    async def play(line: Line) -> None:
        await line.head()
        await line.chunk(*pieces)
        await line.end()

    return play


async def _reset_at_once(line: Line) -> None:
    line.reset()


async def _closes_at_once(line: Line) -> None:
    line.close()


async def _resets_in_head(line: Line) -> None:
    await line.say("HTTP/1.1 200 OK\r\ncontent-ty")
    line.reset()


async def _breaks_off(line: Line) -> None:
    if line.streams:
        await line.head()
        await line.chunk(*STREAM[:2])
    else:
        await line.head(size=500)
        await line.say(whole()[:60])
    await asyncio.sleep(0.02)


async def _resets_midway(line: Line) -> None:
    await _breaks_off(line)
    line.reset()


async def _closes_midway(line: Line) -> None:
    await _breaks_off(line)
    line.close()


async def stalls_at_once(line: Line) -> None:
    await line.nothing()


async def _stalls_midway(line: Line) -> None:
    await _breaks_off(line)
    await line.nothing()


async def _drips_head(line: Line) -> None:
    await line.say("HTTP/1.1 200 OK\r\n")
    while True:
        await line.say("x-more: 1\r\n")
        await asyncio.sleep(0.1)


async def _pings_for_ever(line: Line) -> None:
    await line.head()
    while True:
        await line.chunk(b": ping\n\n" if line.streams else b" ")
        await asyncio.sleep(0.1)


async def one_byte(line: Line) -> None:
    data = b"".join(STREAM) if line.streams else whole()
    await line.head()
    await line.chunk(*(data[at : at + 1] for at in range(len(data))))
    await line.end()


async def slow(line: Line) -> None:
    await line.head()
    for piece in STREAM if line.streams else (whole()[:40], whole()[40:]):
        await asyncio.sleep(0.05)
        await line.chunk(piece)
    await line.end()


def _as_asked(body: bytes, *stream: bytes) -> Play:
    """One body where a whole answer was asked for, a stream of pieces where a stream was."""

    async def play(line: Line) -> None:
        await line.head()
        await line.chunk(*(stream if line.streams else (body,)))
        await line.end()

    return play


async def _huge(line: Line) -> None:
    await line.head()
    piece = b"data: " if line.streams else b'{"a": "'
    await line.chunk(piece, *[CARD.encode() * 55_000] * 18)
    await line.end()


async def _gzip_said(line: Line) -> None:
    data = gzip.compress(b"".join(STREAM) if line.streams else whole())
    await line.answer(data, more="content-encoding: gzip\r\n")


async def _gzip_unsaid(line: Line) -> None:
    await line.answer(gzip.compress(b"".join(STREAM) if line.streams else whole()))


def _kind(kind: str) -> Play:
    async def play(line: Line) -> None:
        await line.answer(b"".join(STREAM) if line.streams else whole(), kind=kind)

    return play


async def _smuggles(line: Line) -> None:
    """Two lengths: what one reader takes for the end is the middle for another."""
    data = whole()
    await line.say(
        f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n"
        f"transfer-encoding: chunked\r\n\r\n"
    )
    await line.chunk(data)
    await line.end()


async def _splits(line: Line) -> None:
    """A second answer behind the first, for whoever uses the connection next."""
    second = json.dumps({"model": "m", "choices": [], "error": SECRET}).encode()
    data = whole()
    await line.say(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
        % (len(data), data, len(second), second)
    )


async def _long_head(line: Line) -> None:
    await line.head(more=f"x-long: {'a' * 100_000}\r\n", size=2)
    await line.say("{}")


async def _no_http(line: Line) -> None:
    await line.say(f"SSH-2.0-OpenSSH {SECRET}\r\n")
    line.close()


async def _nothing_said(line: Line) -> None:
    await line.say("HTTP/1.1 204 Nothing\r\n\r\n")


async def _cookies(line: Line) -> None:
    await line.answer(
        whole() if not line.streams else b"".join(STREAM),
        more=f"set-cookie: a={SECRET}\r\nx-stanchion-guard: {SECRET}\r\nlocation: http://{SECRET}/\r\n",
    )


ERROR = b'data: {"error": {"message": "%s %s", "type": "server_error"}}\n\n' % (
    SECRET.encode(),
    CARD.encode(),
)
UNKNOWN = b'data: {"object": "brand.new", "words": "%s %s"}\n\n' % (SECRET.encode(), CARD.encode())
ALLOWED, REDACTED = Seen(200, "", "allowed"), Seen(200, "", "redacted")


def _broken(error: str = "unavailable", *, status: int = 502, code: str = "upstream_unavailable") -> Seen:
    return Seen(status, code, "upstream_error", error)


DOWN = _broken()
OWN_500 = _broken("http_500", status=500)
OVERDUE = Seen(504, "deadline", "deadline", "deadline")


def _provider(
    id: str, what: str, play: Play, whole: Seen | None = DOWN, streamed: Seen | None = DOWN
) -> Fault:
    return Fault(id=id, what=what, whole=whole, streamed=streamed, play=play)


PROVIDER_FAULTS: tuple[Fault, ...] = (
    _provider("reset-at-once", "resets the connection before a byte", _reset_at_once),
    _provider("closes-at-once", "closes the connection before a byte", _closes_at_once),
    _provider("reset-in-head", "resets in the middle of the headers", _resets_in_head),
    _provider("reset-midway", "resets in the middle of the answer", _resets_midway),
    _provider("closes-midway", "closes in the middle of the answer", _closes_midway),
    _provider("stalls-at-once", "takes the request and says nothing", stalls_at_once),
    _provider("stalls-midway", "stalls in the middle of the answer", _stalls_midway),
    _provider("drips-head", "sends headers without end, one at a time", _drips_head, OVERDUE, OVERDUE),
    _provider("pings-for-ever", "sends keep-alives and never an answer", _pings_for_ever, OVERDUE, OVERDUE),
    _provider("slow", "answers slowly", slow, REDACTED, REDACTED),
    _provider("one-byte-chunks", "sends every byte in a chunk of its own", one_byte, REDACTED, REDACTED),
    _provider("no-http", "speaks another protocol", _no_http),
    _provider("long-head", "sends a header of 100,000 bytes", _long_head),
    _provider("two-lengths", "says the length of the answer in two ways", _smuggles),
    _provider("second-answer", "sends a second answer that nobody asked for", _splits, REDACTED, REDACTED),
    _provider("own-headers", "sets cookies and headers of ours", _cookies, REDACTED, REDACTED),
    _provider("status-500", "answers 500", _status("500 No"), OWN_500, OWN_500),
    _provider(
        "status-429",
        "answers 429",
        _status("429 No", more="retry-after: 3\r\n"),
        _broken("http_429", status=429, code="upstream_rate_limit"),
        _broken("http_429", status=429, code="upstream_rate_limit"),
    ),
    _provider(
        "status-401",
        "answers 401",
        _status("401 No"),
        _broken("http_401", code="upstream_key"),
        _broken("http_401", code="upstream_key"),
    ),
    _provider(
        "redirect",
        "redirects to an address inside",
        _status("307 Go", more="location: http://169.254.169.254/latest/meta-data\r\n"),
        _broken("http_307"),
        _broken("http_307"),
    ),
    _provider("status-204", "answers 204", _nothing_said, _broken("http_204"), _broken("http_204")),
    _provider("empty", "answers 200 without a byte", _body(b"")),
    _provider(
        "cut-json", "sends JSON that breaks off", _as_asked(whole()[:70], b"data: " + whole()[:70] + b"\n\n")
    ),
    _provider(
        "no-json",
        "sends words where JSON belongs",
        _as_asked(CARD.encode(), b"data: " + CARD.encode() + b"\n\n"),
    ),
    _provider(
        "other-json",
        "sends JSON of another shape",
        _as_asked(b'["%s"]' % CARD.encode(), b'data: ["%s"]\n\n' % CARD.encode()),
    ),
    _provider(
        "key-twice",
        "says a key twice",
        _as_asked(
            whole().replace(b'"content"', b'"content": "Hello.", "content"'),
            STREAM[0].replace(b'"content"', b'"content": "Hello.", "content"'),
            *STREAM[1:],
        ),
    ),
    _provider(
        "deep-json",
        "nests JSON ten thousand levels deep",
        _as_asked(b"[" * 10_000 + b"]" * 10_000, b"data: " + b"[" * 10_000 + b"]" * 10_000 + b"\n\n"),
    ),
    _provider(
        "no-utf8",
        "sends bytes that are no UTF-8",
        _as_asked(
            whole().replace(b"It is", b"It \xff\xfe"),
            STREAM[0].replace(b"It is", b"It \xff\xfe"),
            *STREAM[1:],
        ),
    ),
    _provider(
        "half-surrogate",
        "sends half a surrogate pair",
        _as_asked(
            whole().replace(b"It is", b"It \\ud800"), STREAM[0].replace(b"It is", b"It \\ud800"), *STREAM[1:]
        ),
    ),
    _provider("gzip", "compresses the answer, though nobody asked", _gzip_said),
    _provider("gzip-unsaid", "compresses the answer and does not say so", _gzip_unsaid),
    _provider("type-image", "calls the answer an image", _kind("image/png"), REDACTED, REDACTED),
    _provider("type-html", "calls the answer a web page", _kind("text/html")),
    _provider("huge", "sends 17 MiB without an end", _huge),
    _provider("error-object", "answers 200 with an error object", _as_asked(ERROR[6:], ERROR)),
    _provider(
        "error-midway", "sends an error object in mid-stream", _pieces(delta("Hello."), ERROR), None, DOWN
    ),
    _provider("no-end", "ends a stream without its end", _pieces(*STREAM[:3]), None, DOWN),
    _provider("end-twice", "says the end twice", _pieces(*STREAM[:4], *STREAM[3:], ERROR), None, REDACTED),
    _provider(
        "after-the-end", "goes on after the end", _pieces(*STREAM, delta(SECRET), ERROR), None, REDACTED
    ),
    _provider("same-twice", "says a piece twice", _pieces(STREAM[0], STREAM[0], *STREAM[1:]), None, REDACTED),
    _provider(
        "unknown-event",
        "sends events that nobody knows",
        _pieces(STREAM[0], UNKNOWN, *STREAM[1:]),
        None,
        REDACTED,
    ),
)


class FaultyProvider:
    """A provider in a thread of its own; `play` is what it does with every request from then on."""

    def __init__(self) -> None:
        self.play: Play = _reset_at_once
        self.asked: list[tuple[bytes, bytes]] = []
        self.open = 0
        self.port = 0
        self._loop = asyncio.new_event_loop()

    def __enter__(self) -> FaultyProvider:
        ready = threading.Event()

        async def main() -> None:
            self._server = await asyncio.start_server(self._served, "127.0.0.1", 0)
            self.port = self._server.sockets[0].getsockname()[1]
            ready.set()

        starting = self._loop.create_task(main())
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        assert ready.wait(5), starting
        return self

    def __exit__(self, *_: object) -> None:
        async def stop() -> None:
            self._server.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def _served(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                size = int(head.lower().partition(b"content-length:")[2].split(b"\r")[0])
                body = await reader.readexactly(size)
                self.asked.append((head, body))
                line = Line(reader, writer, streams=json.loads(body).get("stream", False))
                await self.play(line)
                if writer.is_closing():
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()
