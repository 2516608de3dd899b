"""One HTTP exchange as ASGI sees it: a body read within limits, an answer sent whole or in pieces."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any

from stanchion.gateway.json_body import invalid
from stanchion.gateway.ports import Outcome, Refused

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
RawHeaders = list[tuple[bytes, bytes]]
AtOnce = Callable[[int, RawHeaders, bytes], bool]
_ONCE = frozenset(
    {b"authorization", b"content-length", b"content-type", b"host", b"transfer-encoding", b"x-api-key"}
)
_CODINGS = (b"", b"identity")
DRAIN_BYTES = 32 * 1024 * 1024
DRAIN_PAUSE_S = 0.25


class ClientGone(Exception):
    """The client went away while its body was read."""


def read_headers(raw: Iterable[tuple[bytes, bytes]], *, max_bytes: int) -> Mapping[bytes, bytes]:
    """Headers by lower-case name; of a name that may come often, the first value holds.

    Raises:
        Refused: `invalid` for headers beyond the limit (431), for one that decides who asks or how long the
            body is and comes twice, for both a length and a transfer coding, and for a body that is coded.
    """
    headers: dict[bytes, bytes] = {}
    size = 0
    for name, value in raw:
        size += len(name) + len(value)
        if name not in headers:
            headers[name] = value
        elif name in _ONCE or name.startswith(b"x-stanchion-"):
            raise invalid("duplicate_header", f"the header {name.decode('latin-1')!r} came twice.")
    if size > max_bytes:
        raise invalid("headers_too_large", f"the headers have more than {max_bytes} bytes.", status=431)
    if b"transfer-encoding" in headers and b"content-length" in headers:
        raise invalid("ambiguous_length", "the request says its length in two ways.")
    if headers.get(b"content-encoding", b"").lower() not in _CODINGS:
        raise invalid("coded_body", "coded request bodies are not accepted.", "Send it as it is.", status=415)
    return headers


async def read_body(
    receive: Receive,
    headers: Mapping[bytes, bytes],
    *,
    max_bytes: int,
    here: Callable[[], bytes | None] | None = None,
) -> bytes:
    """The whole body; `here` gives it at once where the server has it (see `http_request.BODY`).

    Raises:
        Refused: `invalid` with status 413 beyond the limit; what its length says is believed at once. Of the
            rest a bounded part is read and dropped: a client that still writes could not read the refusal.
        ClientGone: when the client went away.
    """
    said = headers.get(b"content-length", b"")
    if said and (not said.isdigit() or len(said) > 18):
        raise invalid("bad_length", "the length of the body is no number.")
    if said and int(said) > max_bytes:
        if int(said) <= max_bytes + DRAIN_BYTES and b"expect" not in headers:
            await _drain(receive)
        raise _too_large(max_bytes)
    if here is not None and (whole := here()) is not None:
        if len(whole) > max_bytes:
            raise _too_large(max_bytes)
        return whole
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece: bytes = message.get("body", b"")
        size += len(piece)
        if size > max_bytes:
            if message.get("more_body", False):
                await _drain(receive)
            raise _too_large(max_bytes)
        if not message.get("more_body", False):
            return piece if not pieces else b"".join([*pieces, piece])
        pieces.append(piece)


async def _drain(receive: Receive) -> None:
    """Read and drop what still comes, up to a limit and until nothing comes for a moment."""
    size = 0
    with contextlib.suppress(TimeoutError):
        while size <= DRAIN_BYTES:
            async with asyncio.timeout(DRAIN_PAUSE_S):
                message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            size += len(message.get("body", b""))
            if not message.get("more_body", False):
                return


def _too_large(limit: int) -> Refused:
    return Refused(
        Outcome.INVALID,
        status=413,
        code="body_too_large",
        message=f"the body has more than {limit} bytes.",
        hint="Send less at a time.",
    )


class Answer:
    """What is sent back; remembers whether it has begun.

    `at_once` sends a whole answer where the server can (see `http_request.WHOLE`).
    """

    __slots__ = ("_at_once", "_send", "has_begun", "is_over")

    def __init__(self, send: Send, *, at_once: AtOnce | None = None) -> None:
        self._send = send
        self._at_once = at_once
        self.has_begun = False
        self.is_over = False

    async def whole(self, status: int, headers: RawHeaders, body: bytes) -> None:
        """Send all of it."""
        self.has_begun = self.is_over = True
        if self._at_once is not None and self._at_once(status, headers, body):
            return
        headers.append((b"content-length", b"%d" % len(body)))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def begin(self, status: int, headers: RawHeaders) -> None:
        """Send the head of an answer that comes in pieces."""
        self.has_begun = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def piece(self, data: bytes) -> None:
        """Send a piece; waits while the client reads too slowly."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        """Send the last piece."""
        if not self.is_over:
            self.is_over = True
            await self._send({"type": "http.response.body", "body": data})
