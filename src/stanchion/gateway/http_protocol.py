"""The protocol class for uvicorn: our own on httptools, or uvicorn's on h11 held to the same limits."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

HEAD_TIMEOUT_S = 15.0
HEAD_BYTES = 64 * 1024
UNREAD_TIMEOUT_S = 30.0


class _Bounded:
    """Closes a connection whose request does not get past its head in time, or whose answer nobody reads.

    Mixed into uvicorn's protocol on h11.
    """

    head_timeout_s: float
    max_head_bytes: int
    unread_timeout_s: float
    unread_timer: asyncio.TimerHandle | None = None
    head_timer: asyncio.TimerHandle | None = None
    head_bytes = 0
    cycle: Any
    transport: Any

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[misc]
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_here()
        self._is_read()
        super().connection_lost(exc)  # type: ignore[misc]

    def pause_writing(self) -> None:
        """The buffer is full: from now on the client has so long to take some of it."""
        super().pause_writing()  # type: ignore[misc]
        self.unread_timer = asyncio.get_running_loop().call_later(self.unread_timeout_s, self._abort)

    def resume_writing(self) -> None:
        """The client reads."""
        self._is_read()
        super().resume_writing()  # type: ignore[misc]

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        is_busy = before is not None and not before.response_complete
        super().data_received(data)  # type: ignore[misc]
        if is_busy or self.cycle is not before:
            self._head_is_here()
            return
        self.head_bytes += len(data)
        if self.head_bytes > self.max_head_bytes:
            self._give_up(b"431 Request Header Fields Too Large")
        elif self.head_timer is None:
            self._await_head()

    def _await_head(self) -> None:
        self.head_timer = asyncio.get_running_loop().call_later(
            self.head_timeout_s, self._give_up, b"408 Request Timeout"
        )

    def _head_is_here(self) -> None:
        self.head_bytes = 0
        if self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None

    def _is_read(self) -> None:
        if self.unread_timer is not None:
            self.unread_timer.cancel()
            self.unread_timer = None

    def _abort(self) -> None:
        """Not an orderly end: that would wait for the client to read."""
        if self.transport is not None:
            self.transport.abort()

    def _give_up(self, status: bytes) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        if self.head_bytes:
            head = b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            self.transport.write(head)
        self.transport.close()


def bounded_protocol(
    *,
    timeout_s: float = HEAD_TIMEOUT_S,
    max_bytes: int = HEAD_BYTES,
    unread_timeout_s: float = UNREAD_TIMEOUT_S,
    implementation: Literal["", "httptools", "h11"] = "",
) -> type[Any]:
    """The protocol class for uvicorn: httptools where it is installed, else h11; or the one that is named."""
    bases: tuple[type[Any], ...]
    try:
        if implementation == "h11":
            raise ImportError
        from stanchion.gateway.http_connection import HttpConnection

        bases = (HttpConnection,)
    except ImportError:
        from uvicorn.protocols.http.h11_impl import H11Protocol

        bases = (_Bounded, H11Protocol)
    limits = {
        "head_timeout_s": timeout_s,
        "max_head_bytes": max_bytes,
        "unread_timeout_s": unread_timeout_s,
    }
    return type("BoundedProtocol", bases, limits)
