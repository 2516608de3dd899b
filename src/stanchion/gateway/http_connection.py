"""What our connections do beyond uvicorn's: joined writes, and a word to whoever asked when a client goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

WHEN_GONE = "stanchion.when_gone"  # in the scope: call it with what to call when the client goes, or None


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
