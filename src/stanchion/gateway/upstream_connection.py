"""One connection to a provider: HTTP/1.1 as a client, one request at a time, parsed by llhttp.

llhttp (through `httptools`, with every leniency off) decides what an answer is; on top of it we refuse what
two readers could take in two ways, and bound what is not body: heads, trailers, chunk framing. After a fault,
and after a byte that no answer explains, a connection is never used again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from stanchion.gateway.upstream_faults import LinkBroken, LinkFault, MalformedAnswer, TooLongAnswer

FRAMING_BYTES = 64 * 1024
FRAMING_BYTES_A_PIECE = 64
MAX_HEADERS = 256
MAX_INTERIM = 8
BUFFERED_BYTES = 64 * 1024
LINGER_BYTES = 64 * 1024
LINGER_S = 0.25
_ONCE = frozenset({b"content-length", b"content-type", b"content-encoding", b"transfer-encoding"})
_H = ord("H")
_IDLE, _HEAD, _BODY, _DONE, _CLOSED = range(5)


class Connection(asyncio.Protocol):
    """One connection of a pool.

    Args:
        on_idle: called when it can take the next request.
        on_closed: called once, when it is gone.
        idle_s: how long the other side may say nothing while it is waited for.
        keep_s: how long it is kept without a request.
    """

    def __init__(
        self,
        *,
        on_idle: Callable[[Connection], None],
        on_closed: Callable[[Connection], None],
        idle_s: float,
        keep_s: float,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_idle, self._on_closed = on_idle, on_closed
        self._idle_s, self._keep_s = idle_s, keep_s
        self._parser = HttpResponseParser(self)
        self._transport: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._state = _IDLE
        self._since = self._loop.time()
        self.is_fresh = True
        self._unsent = 0
        self._has_extra = False
        self._pieces: list[bytes] = []
        self._headers: dict[bytes, bytes] = {}
        self._fault: LinkFault | None = None
        self._status = self._lines = self._interim = self._piece_count = 0
        self._raw_bytes = self._body_bytes = self._buffered = self._max_bytes = 0
        self._is_chunked = self._until_close = self._is_paused = self._keeps = self._has_head = False
        self._collects = self._gathers = False
        self._tail = b""

    # --- the side of the pool ---

    @property
    def quiet_s(self) -> float:
        """Seconds since we last asked, or the other side last said something."""
        return self._loop.time() - self._since

    @property
    def is_closed(self) -> bool:
        """Whether its end was noticed."""
        return self._state == _CLOSED

    @property
    def is_idle(self) -> bool:
        """Whether it can take a request."""
        return self._state == _IDLE and not self._transport.is_closing()

    def abort(self) -> None:
        """Close at once; what is on its way is dropped."""
        if self._transport is not None:
            self._transport.abort()

    async def ask(self, request: bytes, body: bytes, *, collect: int) -> Incoming:
        """Write a request, and wait for the head of its answer.

        Args:
            request: the head of the request, with the empty line at its end.
            body: its body.
            collect: where it is not 0, an answer of status 200 is waited for to its end, and may have that
                many bytes of body.

        Raises:
            LinkFault: when there is no sound answer; the connection is closed then.
        """
        transport = self._transport
        if not self.is_idle:
            raise LinkBroken("it closed", had_bytes=False)
        self._begin(collect)
        self._state = _HEAD
        if len(body) <= BUFFERED_BYTES:
            transport.write(request + body)
        else:
            transport.writelines((request, body))
            self._unsent = transport.get_write_buffer_size()
        self._since = self._loop.time()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        except BaseException:
            self.abort()
            raise
        finally:
            self._waiter = None
        if self._fault is not None and (self._collects or not self._has_head):
            raise self._fault
        return Incoming(self, self._status, self._headers)

    async def some(self) -> bytes:
        """The next bytes of the body; empty at its end.

        Raises:
            LinkFault: when it does not end as it should.
        """
        while not self._pieces and self._state == _BODY and self._fault is None:
            await self._news()
        if not self._pieces and self._fault is not None:
            raise self._fault
        return self.taken()

    async def rest(self, seconds: float) -> None:
        """Let what comes of the body gather for a moment; its end, a fault and a full buffer end that."""
        if self._pieces or self._state != _BODY or self._fault is not None:
            return
        self._gathers = True
        timer = self._loop.call_later(seconds, self._wake)
        try:
            await self._news()
        finally:
            self._gathers = False
            timer.cancel()

    def taken(self) -> bytes:
        """What is here of the body, without waiting: all of an answer that was collected."""
        pieces, self._pieces, self._buffered = self._pieces, [], 0
        self._resume()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def finish(self, *, may_linger: bool) -> None:
        """The answer is done with: the connection goes back where it ended well, and is closed otherwise.

        With `may_linger` a little that still comes is read and dropped first, for a moment.
        """
        if self._state == _DONE:
            self._give_back()
        elif self._state == _BODY and may_linger and not self._until_close and self._fault is None:
            self._linger_timer = self._loop.call_later(LINGER_S, self.abort)
            self._resume()
        else:
            self.abort()

    # --- the side of the transport ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = transport
        self._timer = self._loop.call_later(min(self._idle_s, self._keep_s), self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        for timer in (self._timer, self._linger_timer):
            if timer is not None:
                timer.cancel()
        if self._state == _BODY and self._until_close and exc is None:
            self._state = _DONE
        elif self._state in (_HEAD, _BODY):
            self._fail(LinkBroken(type(exc).__name__ if exc else "it closed", had_bytes=self._raw_bytes > 0))
        if self._state != _DONE:  # what is here of an answer can still be taken
            self._state = _CLOSED
        self._wake()
        self._on_closed(self)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._state not in (_HEAD, _BODY):  # nobody asked: not ours, and not the next one's
            self._has_extra = True
            self.abort()
            return
        if self._fault is not None:
            return
        self._since = self._loop.time()
        if not self._raw_bytes and data[0] != _H:
            self._fail(MalformedAnswer("it does not begin as HTTP does"))
            return
        self._raw_bytes += len(data)
        self._tail = data[-6:] if len(data) > 5 else (self._tail + data)[-6:]
        if not self._fed(data):
            return
        framing = self._raw_bytes - self._body_bytes
        if framing > FRAMING_BYTES + FRAMING_BYTES_A_PIECE * self._piece_count:
            self._fail(MalformedAnswer(f"more than {FRAMING_BYTES} bytes of headers or framing"))
        elif self._state == _DONE:
            self._has_extra = self._has_extra or self._has_blank_lines(data)
            if self._linger_timer is not None:
                self._give_back()
            self._wake()
        elif self._state == _BODY:
            self._go_on()

    def _go_on(self) -> None:
        """Some of the body is here, and more will come."""
        if self._linger_timer is not None:
            self._pieces.clear()
            if self._buffered > LINGER_BYTES:
                self.abort()
        elif not self._collects:
            if not self._gathers or self._buffered > BUFFERED_BYTES:
                self._wake()
            if self._buffered > BUFFERED_BYTES and not self._is_paused and not self._transport.is_closing():
                self._is_paused = True
                self._transport.pause_reading()

    def _fed(self, data: bytes) -> bool:
        """Give it to the parser; whether it is sound so far."""
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self._fail(MalformedAnswer("it changes the protocol"))
        except HttpParserError as error:
            if self._state == _DONE:
                self._has_extra = True  # what follows an answer is not part of it
                return True
            self._fail(self._fault or MalformedAnswer(str(error)))
        else:
            return True
        return False

    # --- the side of the parser ---

    def on_message_begin(self) -> None:
        """The first byte of an answer, or of one too many."""
        if self._state != _HEAD:
            raise ValueError("an answer that nobody asked for")

    def on_status(self, reason: bytes) -> None:
        """The words of the status line, which nobody needs."""
        if b"\0" in reason:
            self._refuse("a NUL in the status line")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer."""
        self._lines += 1
        if self._lines > MAX_HEADERS:
            self._refuse(f"more than {MAX_HEADERS} headers")
        if self._state != _HEAD:
            return
        name = name.lower()
        if name not in self._headers:
            self._headers[name] = value
        elif name in _ONCE:
            self._refuse(f"{name.decode('ascii')} twice")

    def on_headers_complete(self) -> None:
        """The head is whole: what it says about the length must have one meaning."""
        self._status = status = self._parser.get_status_code()
        if status < 200:
            self._interim += 1
            if status < 100 or self._interim > MAX_INTERIM:
                self._refuse("no status that ends a request")
            return
        headers = self._headers
        version = self._parser.get_http_version()
        coding, length = headers.get(b"transfer-encoding"), headers.get(b"content-length")
        if version not in ("1.1", "1.0") or status > 599:
            self._refuse("a version or a status that HTTP/1.1 does not have")
        if coding is not None:
            if coding.strip().lower() != b"chunked" or length is not None or version != "1.1":
                self._refuse("a transfer coding other than chunked alone")
            self._is_chunked = True
        elif length is not None:
            if self._collects and int(length) > self._max_bytes and status == 200:
                self._fault = TooLongAnswer()
                raise self._fault
        elif status not in (204, 304):
            self._until_close = True
        if status != 200:
            self._collects = False
        self._keeps = self._parser.should_keep_alive()  # it forgets at the end
        self._state, self._has_head = _BODY, True

    def on_body(self, data: bytes) -> None:
        """Bytes of the body."""
        size = len(data)
        self._body_bytes += size
        self._buffered += size
        self._piece_count += 1
        if self._collects and self._buffered > self._max_bytes:
            self._fault = TooLongAnswer()
            raise self._fault
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        """The end of an answer, or of an interim one that promises another."""
        if self._state == _BODY:
            self._state = _DONE
        else:
            self._headers, self._lines = {}, 0

    # --- inside ---

    def _begin(self, collect: int) -> None:
        """Nothing is known of the answer to the next request."""
        self._pieces, self._headers, self._fault, self._tail = [], {}, None, b""
        self._status = self._lines = self._interim = self._piece_count = 0
        self._raw_bytes = self._body_bytes = self._buffered = 0
        self._is_chunked = self._until_close = self._is_paused = self._keeps = self._has_head = False
        self._collects, self._max_bytes = collect > 0, collect

    def _refuse(self, why: str) -> None:
        self._fault = MalformedAnswer(why)
        raise self._fault

    def _fail(self, fault: LinkFault) -> None:
        self._fault = self._fault or fault
        self._wake()
        self.abort()

    async def _news(self) -> None:
        """Wait until there is something that whoever asks must know."""
        self._since = self._loop.time()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _give_back(self) -> None:
        if (
            self._has_extra
            or self._until_close
            or self._transport.is_closing()
            or not self._keeps
            or self._transport.get_write_buffer_size()  # it answered without reading all that we said
        ):
            self.abort()
            return
        if self._linger_timer is not None:
            self._linger_timer.cancel()
            self._linger_timer = None
        self._state = _IDLE
        self.is_fresh = False
        self._since = self._loop.time()
        self._on_idle(self)

    def _resume(self) -> None:
        if self._is_paused:
            self._is_paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def _has_blank_lines(self, data: bytes) -> bool:
        """Whether line breaks follow the answer; llhttp passes over them, anything else it reports."""
        if self._is_chunked or not self._pieces:
            return self._tail == b"\r\n\r\n\r\n"
        return not data.endswith(self._pieces[-1])

    def _look(self) -> None:
        """The one timer: closes what nobody asked for too long, and fails what says nothing for too long."""
        now = self._loop.time()
        unsent, self._unsent = self._unsent, self._transport.get_write_buffer_size()
        if self._state == _IDLE:
            due = self._since + self._keep_s
        elif self._waiter is None or self._waiter.done() or self._unsent < unsent:
            due = now + self._idle_s  # nobody waits, or a long request is on its way
        else:
            due = self._since + self._idle_s
        if due > now:
            self._timer = self._loop.call_later(
                min(due - now, self._idle_s, self._keep_s) + 0.001, self._look
            )
        elif self._state == _IDLE:
            self.abort()
        else:
            self._fail(LinkBroken(f"nothing came for {self._idle_s:g} s", had_bytes=True))


class Incoming:
    """An answer on its way: status and headers (lower-case names), and the body that follows."""

    __slots__ = ("_connection", "headers", "status")

    def __init__(self, connection: Connection, status: int, headers: dict[bytes, bytes]) -> None:
        self._connection: Connection | None = connection
        self.status = status
        self.headers = headers

    async def some(self) -> bytes:
        """See `Connection.some`."""
        return b"" if self._connection is None else await self._connection.some()

    async def rest(self, seconds: float) -> None:
        """See `Connection.rest`."""
        if self._connection is not None:
            await self._connection.rest(seconds)

    def taken(self) -> bytes:
        """See `Connection.taken`."""
        return b"" if self._connection is None else self._connection.taken()

    def close(self, *, may_linger: bool = False) -> None:
        """See `Connection.finish`; safe to call twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.finish(may_linger=may_linger)
