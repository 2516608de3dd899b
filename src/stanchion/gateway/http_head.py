"""Heads of answers: the bytes before a body, of headers that can neither break a line nor say two lengths."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus
from typing import Any

Headers = list[tuple[bytes, bytes]]
_CONTROLS = bytes([*range(9), *range(10, 32), 127])  # no value has any; a line of a head ends with two
_NAME_SIGNS = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")  # RFC 9110, 5.6.2
_NOT_PLAIN = (b"connection", b"content-length", b"transfer-encoding")  # they change how an answer is sent
_BODYLESS = (204, 304)


@lru_cache(maxsize=256)
def _line_start(name: bytes) -> bytes | None:
    """The end of the line before and the name; None where it is no name in lower case, or no plain one."""
    if not name or name in _NOT_PLAIN or not _NAME_SIGNS.issuperset(name):
        return None
    return b"\r\n" + name + b": "


@lru_cache(maxsize=64)
def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase.encode()
    except ValueError:
        phrase = b""
    return b"HTTP/1.1 %d %s" % (status, phrase)


def _is_sound(head: bytes, lines: int) -> bool:
    """Whether a head has no more controls than the ends of its lines and the empty one behind them."""
    return len(head) - len(head.translate(None, _CONTROLS)) == 2 * lines + 2


class Framing:
    """How a body is sent: in chunks, in as many bytes as were said, up to the end, or not at all."""

    __slots__ = ("closes", "ends_with_connection", "is_chunked", "left")

    def __init__(self) -> None:
        self.is_chunked = self.ends_with_connection = False
        self.left: int | None = None
        self.closes = False

    def take(self, name: bytes, value: bytes) -> None:
        """Heed a header that says how the answer is sent.

        Raises:
            RuntimeError: for two lengths, a length that is none, and a coding other than `chunked` alone.
        """
        if name == b"connection":
            self.closes = self.closes or b"close" in [part.strip().lower() for part in value.split(b",")]
        elif self.is_chunked or self.left is not None:
            raise RuntimeError("the answer says its length twice")
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked":
                raise RuntimeError("the answer has a transfer coding other than chunked")
            self.is_chunked = True
        elif not value.isdigit():
            raise RuntimeError("the answer has a length that is no number")
        else:
            self.left = int(value)


class Heads:
    """Makes heads for a server.

    Args:
        state: uvicorn's state of a server; it puts another list of default headers into it every second.
    """

    __slots__ = ("_defaults", "_starts", "_state")

    def __init__(self, state: Any) -> None:
        self._state = state
        self._defaults: Headers | None = None
        self._starts: dict[int, tuple[bytes, int]] = {}

    def whole(self, status: int, headers: Headers, length: int) -> bytes | None:
        """The head of a whole answer; None for one with a header that cannot be sent as it is."""
        start, lines = self._start(status)
        pieces = [start]
        for name, value in headers:
            line = _line_start(name)
            if line is None:
                return None
            pieces += (line, value)
        pieces.append(b"\r\ncontent-length: %d\r\n\r\n" % length)
        head = b"".join(pieces)
        return head if _is_sound(head, lines + len(headers) + 1) else None

    def begin(
        self,
        status: int,
        headers: Iterable[tuple[bytes, bytes]],
        *,
        keeps: bool,
        has_body: bool,
        is_old: bool = False,
    ) -> tuple[bytes, Framing]:
        """The head of an answer in pieces, and how they are sent; to HTTP/1.0 (`is_old`) never in chunks.

        Raises:
            RuntimeError: for what cannot be sent.
        """
        if not 200 <= status < 600:
            raise RuntimeError(f"an answer has no status {status}")
        framing = Framing()
        start, lines = self._start(status)
        pieces = [start]
        for said, value in headers:
            name = said.lower()
            line = _line_start(name)
            if line is None:
                if name not in _NOT_PLAIN:
                    raise RuntimeError("Invalid HTTP header name.")
                framing.take(name, value)
                line = b"\r\n" + name + b": "
            pieces += (line, value)
            lines += 1
        if not keeps and not framing.closes:
            framing.closes = True
            pieces.append(b"\r\nconnection: close")
            lines += 1
        is_open = has_body and not framing.is_chunked and framing.left is None and status not in _BODYLESS
        if is_open and is_old:
            framing.ends_with_connection = framing.closes = True
        elif is_open:
            framing.is_chunked = True
            pieces.append(b"\r\ntransfer-encoding: chunked")
            lines += 1
        pieces.append(b"\r\n\r\n")
        head = b"".join(pieces)
        if not _is_sound(head, lines):
            raise RuntimeError("Invalid HTTP header value.")
        return head, framing

    def _start(self, status: int) -> tuple[bytes, int]:
        """Status line and default headers without the end of the last line, and how many lines they are."""
        if self._state.default_headers is not self._defaults:
            self._defaults = self._state.default_headers
            self._starts = {}
        start = self._starts.get(status)
        if start is None:
            defaults: Headers = self._defaults or []
            lines = [b"\r\n" + name.lower() + b": " + value for name, value in defaults]
            start = self._starts[status] = _status_line(status) + b"".join(lines), 1 + len(lines)
        return start
