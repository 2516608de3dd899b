"""What our connections do beyond uvicorn's: joined writes, whole answers, word of a client that goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

# in the scope: call it with what to call when the client goes, or None
WHEN_GONE = "stanchion.when_gone"
# in the scope: call it with status, headers and body of a whole answer; False: send it as ASGI says
WHOLE = "stanchion.whole"
Headers = list[tuple[bytes, bytes]]
_CONTROLS = bytes([*range(9), *range(10, 32), 127])  # no value has any; a line of a head ends with two
_NAME_SIGNS = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-")
_NOT_PLAIN = (b"connection", b"content-length", b"transfer-encoding")  # they change how an answer is sent


@lru_cache(maxsize=256)
def _is_plain_name(name: bytes) -> bool:
    """Whether it is a header's name in lower case, of one that says nothing about the length."""
    return bool(name) and _NAME_SIGNS.issuperset(name) and name not in _NOT_PLAIN


@lru_cache(maxsize=64)
def _status_line(status: int) -> bytes:
    from uvicorn.protocols.http.httptools_impl import STATUS_LINE

    return STATUS_LINE[status]


def head_of(status: int, headers: Headers, length: int) -> bytes | None:
    """The head of a whole answer; None for one with a header that cannot be sent as it is."""
    pieces = [_status_line(status)]
    for name, value in headers:
        if not _is_plain_name(name):
            return None
        pieces += (name, b": ", value, b"\r\n")
    pieces.append(b"content-length: %d\r\n\r\n" % length)
    head = b"".join(pieces)
    is_sound = len(head) - len(head.translate(None, _CONTROLS)) == 2 * len(headers) + 6
    return head if is_sound else None


def send_whole(cycle: Any, status: int, headers: Headers, body: bytes) -> bool:
    """Send a whole answer in one write, as uvicorn would in two steps of many; False: it is not a plain one.

    `cycle` is uvicorn's own object of a request and its answer.
    """
    if (
        cycle.response_started
        or cycle.disconnected
        or cycle.access_log
        or not cycle.keep_alive
        or cycle.flow.write_paused
        or cycle.scope["method"] == "HEAD"
        or not 200 <= status < 600
        or status in (204, 304)
    ):
        return False
    head = head_of(status, [*cycle.default_headers, *headers], len(body))
    if head is None:
        return False
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.transport.write(head + body)
    cycle.message_event.set()
    cycle.on_response()
    return True


class JoinedWrites:
    """A transport that writes once in a turn of the event loop; everything else is the transport's own.

    Head and body of an answer, or events that came together, leave in one call to the system.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._loop = asyncio.get_running_loop()
        self._pieces: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def write(self, data: bytes) -> None:
        """Write at the end of this turn, behind what was written before in it."""
        if not self._pieces:
            self._loop.call_soon(self._flush)
        self._pieces.append(data)

    def close(self) -> None:
        """Write what waits, and close."""
        self._flush()
        self._inner.close()

    def is_closing(self) -> bool:
        """Whether nothing more can be written."""
        return bool(self._inner.is_closing())

    def _flush(self) -> None:
        if not self._pieces:
            return
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._inner.write(data)


class WatchedConnection:
    """Tells when its client goes, so that no task has to wait for it; mixed into a protocol of uvicorn."""

    cycle: Any
    flow: Any
    scope: Any
    transport: Any
    gone: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A connection begins; what is written to it is joined."""
        super().connection_made(JoinedWrites(transport))  # type: ignore[misc]

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        super().connection_lost(exc)  # type: ignore[misc]
        gone, self.gone = self.gone, None
        if gone is not None:
            gone()

    def on_message_begin(self) -> None:
        """A request begins; httptools says so, with h11 the scope never gets `WHEN_GONE`."""
        super().on_message_begin()  # type: ignore[misc]
        self.scope[WHEN_GONE] = self.when_gone

    def on_headers_complete(self) -> None:
        """The head of a request is here."""
        super().on_headers_complete()  # type: ignore[misc]
        cycle = self.cycle
        if cycle is not None and cycle.scope is self.scope:
            self.scope[WHOLE] = partial(send_whole, cycle)

    def when_gone(self, call: Callable[[], None] | None) -> None:
        """Call this once when the client goes away, at once when it has gone; None: nobody cares any more."""
        self.gone = call
        if call is None:
            return
        if self.transport.is_closing():
            self.gone = None
            call()
        else:
            self.flow.resume_reading()  # a large body stops it, and with it the news of an end


class KeptAlive:
    """Closes a connection that is idle for too long; mixed into uvicorn's protocol on httptools.

    One timer serves all its requests: to start and to end one for each costs more than to look again.
    """

    flow: Any
    loop: asyncio.AbstractEventLoop
    pipeline: Any
    server_state: Any
    timeout_keep_alive: float
    timeout_keep_alive_task: asyncio.TimerHandle | None
    transport: Any
    idle_since: float | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
        super().connection_lost(exc)  # type: ignore[misc]

    def on_response_complete(self) -> None:
        """An answer is over: the next request of those that came at once begins, or the wait for one."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())  # type: ignore[attr-defined]
            return
        self.idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._look_in(self.timeout_keep_alive)

    def _unset_keepalive_if_required(self) -> None:
        self.idle_since = None

    def timeout_keep_alive_handler(self) -> None:
        """Close it when it is idle for so long; look again when it is not."""
        self.timeout_keep_alive_task = None
        if self.idle_since is None:
            return
        left = self.idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._look_in(left)
        else:
            super().timeout_keep_alive_handler()  # type: ignore[misc]

    def _look_in(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)
