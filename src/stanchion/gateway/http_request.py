"""One request of a connection and its answer, as ASGI has them, and what our server can do beyond ASGI."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from stanchion.gateway.http_head import Framing, Headers, Heads

# in the scope: call it with what to call when the client goes, or None
WHEN_GONE = "stanchion.when_gone"
# in the scope: call it with status, headers and body of a whole answer; False: send it as ASGI says
WHOLE = "stanchion.whole"
# in the scope: call it for the body, once; None where it is not all here: receive it as ASGI says
BODY = "stanchion.body"
HIGH_WATER_BYTES = 64 * 1024
_BODYLESS = (204, 304)
_log = logging.getLogger("uvicorn.error")
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
App = Callable[[Any, Any, Any], Awaitable[Any]]


class Line(Protocol):
    """What a request needs of its connection."""

    heads: Heads
    is_write_paused: bool

    @property
    def is_closing(self) -> bool:
        """Whether nothing more can be written."""

    def write(self, data: bytes) -> None:
        """Write at the end of this turn of the event loop, together with what else is written in it."""

    def close(self) -> None:
        """Write what waits, and close."""

    def resume_reading(self) -> None:
        """Read on, where a large body had stopped it."""

    async def drained(self) -> None:
        """Wait until the client has read enough."""

    def answered(self, request: HttpRequest) -> None:
        """The answer is over."""

    def ended(self, task: asyncio.Task[None] | None) -> None:
        """The task of a request is over."""


class HttpRequest:
    """One request. The connection fills in the body; the application receives it, and sends the answer.

    Args:
        line: its connection.
        headers: its headers, names in lower case.
        is_head: whether its answer has no body.
        keeps: whether another request may follow it.
    """

    __slots__ = (
        "_expects",
        "_framing",
        "_headers",
        "_is_head",
        "_is_told",
        "_line",
        "_news",
        "_when_gone",
        "body",
        "has_begun",
        "is_gone",
        "is_old",
        "is_over",
        "is_whole",
        "keeps",
        "task",
    )

    def __init__(self, line: Line, headers: Headers, *, is_head: bool, keeps: bool) -> None:
        self._line = line
        self._headers = headers
        self._is_head = is_head
        self._is_told = False  # the application was given the end of the body
        self._expects: bool | None = None
        self._framing: Framing | None = None
        self._news: asyncio.Event | None = None
        self._when_gone: Callable[[], None] | None = None
        self.body: bytes | bytearray = b""
        self.keeps = keeps
        self.is_whole = self.has_begun = self.is_over = self.is_gone = False
        self.is_old = False  # HTTP/1.0: no chunks, and nothing to wait for before a body
        self.task: asyncio.Task[None] | None = None

    # --- the side of the connection ---

    def take(self, data: bytes) -> None:
        """More of the body."""
        if not self.body:
            self.body = data
        else:
            if isinstance(self.body, bytes):
                self.body = bytearray(self.body)
            self.body += data
        if self._news is not None:
            self._news.set()

    def end(self) -> None:
        """All of the body is here."""
        self.is_whole = True
        if self._news is not None:
            self._news.set()

    def leave(self) -> None:
        """The client went, or is let go: nothing is read any more, nothing written."""
        self.is_gone = True
        if self._news is not None:
            self._news.set()
        call, self._when_gone = self._when_gone, None
        if call is not None:
            call()

    async def run(self, app: App, scope: Scope) -> None:
        """Let the application answer; whatever it does, there is an answer or an end of the connection."""
        try:
            await app(scope, self.receive, self.send)
        except (Exception, asyncio.CancelledError) as error:
            _log.error("Exception in ASGI application\n", exc_info=error)
            await self._give_up()
        else:
            if not self.is_over and not self.is_gone:
                _log.error("ASGI callable returned without completing response.")
                await self._give_up()
        finally:
            self._line.ended(self.task)

    # --- the side of the application ---

    async def receive(self) -> Message:
        """See ASGI, `receive`."""
        line = self._line
        while not (self.is_gone or self.is_over or self.body or (self.is_whole and not self._is_told)):
            if self._is_asked_for():
                self._expects = False
                line.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            line.resume_reading()
            if self._news is None:
                self._news = asyncio.Event()
            self._news.clear()
            await self._news.wait()
        if self.is_gone or self.is_over:
            return {"type": "http.disconnect"}
        body, self.body = bytes(self.body), b""
        self._is_told = self.is_whole
        return {"type": "http.request", "body": body, "more_body": not self.is_whole}

    def body_here(self) -> bytes | None:
        """The body, where all of it is here and none was received yet."""
        if not self.is_whole or self._is_told or self.is_gone:
            return None
        body, self.body = self.body, b""
        self._is_told = True
        return bytes(body)

    def when_gone(self, call: Callable[[], None] | None) -> None:
        """Call this once when the client goes away, at once when it has gone; None: nobody cares any more."""
        self._when_gone = call
        if call is None:
            return
        if self.is_gone or self._line.is_closing:
            self._when_gone = None
            call()
        else:
            self._line.resume_reading()  # a large body stops it, and with it the news of an end

    def whole(self, status: int, headers: Headers, body: bytes) -> bool:
        """Send a whole answer in one write; False where it is not a plain one."""
        line = self._line
        if (
            self.has_begun
            or self.is_gone
            or self._is_head
            or not self.keeps
            or not self.is_whole
            or line.is_write_paused
            or not 200 <= status < 600
            or status in _BODYLESS
        ):
            return False
        head = line.heads.whole(status, headers, len(body))
        if head is None:
            return False
        self.has_begun = True
        line.write(head + body)
        self._answered()
        return True

    async def send(self, message: Message) -> None:
        """See ASGI, `send`.

        Raises:
            RuntimeError: for what ASGI or HTTP do not allow.
        """
        if self._line.is_write_paused and not self.is_gone:
            await self._line.drained()
        if self.is_gone:
            return
        expected = "http.response.body" if self.has_begun else "http.response.start"
        if self.is_over or message["type"] != expected:
            raise RuntimeError(f"Unexpected ASGI message {message['type']!r}.")
        if self.has_begun:
            self._write(message.get("body", b""), is_last=not message.get("more_body", False))
        else:
            self._begin(message["status"], list(message.get("headers", ())))

    # --- inside ---

    def _is_asked_for(self) -> bool:
        """Whether the client sends its body only when it is told to."""
        if self._expects is None:
            self._expects = not self.is_old and any(
                name == b"expect" and value.lower() == b"100-continue" for name, value in self._headers
            )
        return self._expects and not self.is_whole and not self.is_gone

    def _begin(self, status: int, headers: Headers) -> None:
        self.has_begun = True
        if not self.is_whole and self._is_asked_for():
            self.keeps = False  # whether its body still comes, the client alone knows
        head, self._framing = self._line.heads.begin(
            status, headers, keeps=self.keeps, has_body=not self._is_head, is_old=self.is_old
        )
        self.keeps = not self._framing.closes
        self._line.write(head)

    def _write(self, data: bytes, *, is_last: bool) -> None:
        framing = self._framing
        assert framing is not None  # noqa: S101 - set with `has_begun`
        if self._is_head:
            framing.left = 0
        elif framing.is_chunked:
            end = b"0\r\n\r\n" if is_last else b""
            if data or end:
                self._line.write(b"%x\r\n%b\r\n%b" % (len(data), data, end) if data else end)
        else:
            if not framing.ends_with_connection:
                left = (framing.left or 0) - len(data)
                if left < 0:
                    raise RuntimeError("Response content longer than Content-Length")
                framing.left = left
            if data:
                self._line.write(data)
        if is_last:
            if framing.left:
                raise RuntimeError("Response content shorter than Content-Length")
            self._answered()

    def _answered(self) -> None:
        self.is_over = True
        self._when_gone = None
        if self._news is not None:
            self._news.set()
        self._line.answered(self)

    async def _give_up(self) -> None:
        """The application left without an answer: say so where nothing was said yet, else break it off."""
        if self.has_begun:
            self._line.close()
            return
        said = b"Internal Server Error"
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(said)),
            (b"connection", b"close"),
        ]
        await self.send({"type": "http.response.start", "status": 500, "headers": headers})
        await self.send({"type": "http.response.body", "body": said})
