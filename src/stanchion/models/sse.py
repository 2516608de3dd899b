"""Server-sent events, incrementally: bytes in any pieces -> events.

Source: HTML Living Standard, section 9.2.6 (interpreting an event stream), with two tightenings: bytes that
are not UTF-8 are an error rather than replaced, and lines and events have a size limit.
"""

from __future__ import annotations

import re

import msgspec

from stanchion.core.errors import UnavailableError

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class ServerSentEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event; `event` is empty when the stream named none."""

    data: str
    event: str = ""
    id: str = ""
    retry_ms: int | None = None


class SseLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a stream may ask us to hold in memory."""

    max_line_bytes: int = 4 * 1024 * 1024
    max_event_bytes: int = 16 * 1024 * 1024


DEFAULT_LIMITS = SseLimits()


class SseParser:
    """Feed it bytes as they come; every way of cutting them gives the same events."""

    def __init__(self, limits: SseLimits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._buffer = bytearray()
        self._scanned = 0
        self._skip_newline = False
        self._is_start = True
        self._data: list[str] = []
        self._data_bytes = 0
        self._event = ""
        self._id = ""
        self._retry_ms: int | None = None

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """The events that these bytes complete.

        Raises:
            UnavailableError: for bytes that are not UTF-8, and for a line or event beyond its limit.
        """
        if self._skip_newline and data:
            data = data.removeprefix(b"\n")
            self._skip_newline = False
        self._buffer += data
        events: list[ServerSentEvent] = []
        for line in self._lines():
            event = self._line(line)
            if event is not None:
                events.append(event)
        return events

    @property
    def is_clean(self) -> bool:
        """Whether the stream could end here: no line and no event is half said."""
        return not self._buffer and not self._data

    def _lines(self) -> list[bytes]:
        lines: list[bytes] = []
        start = 0
        for end in _LINE_END.finditer(self._buffer, self._scanned):
            self._check(end.start() - start, self._limits.max_line_bytes, "line")
            lines.append(bytes(self._buffer[start : end.start()]))
            start = end.end()
        if start:
            self._skip_newline = start == len(self._buffer) and self._buffer.endswith(b"\r")
            del self._buffer[:start]
        self._scanned = len(self._buffer)
        self._check(len(self._buffer), self._limits.max_line_bytes, "line")
        return lines

    def _line(self, raw: bytes) -> ServerSentEvent | None:
        if self._is_start:
            self._is_start = False
            raw = raw.removeprefix(_BOM)
        if not raw:
            return self._dispatch()
        if raw.startswith(b":"):
            return None
        try:
            name, _, value = raw.decode("utf-8").partition(":")
        except UnicodeDecodeError as error:
            raise UnavailableError("the event stream is not UTF-8.", hint=_HINT) from error
        self._field(name, value.removeprefix(" "))
        return None

    def _field(self, name: str, value: str) -> None:
        match name:
            case "data":
                self._data.append(value)
                self._data_bytes += len(value)
                self._check(self._data_bytes, self._limits.max_event_bytes, "event")
            case "event":
                self._event = value
            case "id" if "\0" not in value:
                self._id = value
            case "retry" if value.isascii() and value.isdigit():
                self._retry_ms = int(value[:9])
            case _:
                pass  # the standard: any other field is ignored

    def _dispatch(self) -> ServerSentEvent | None:
        event = ServerSentEvent(
            data="\n".join(self._data), event=self._event, id=self._id, retry_ms=self._retry_ms
        )
        has_data = bool(self._data)
        self._data, self._data_bytes, self._event, self._retry_ms = [], 0, "", None
        return event if has_data else None

    def _check(self, size: int, limit: int, what: str) -> None:
        if size > limit:
            raise UnavailableError(f"the event stream has a {what} longer than {limit} bytes.", hint=_HINT)


_HINT = "This is no well-formed event stream: look at what the endpoint sends."


def encode_sse(data: bytes | str, *, event: str = "") -> bytes:
    """One event as bytes; several lines of data become several `data` fields."""
    raw = data.encode() if isinstance(data, str) else data
    head = f"event: {event}\n".encode() if event else b""
    return head + b"".join(b"data: " + line + b"\n" for line in _LINE_END.split(raw)) + b"\n"
