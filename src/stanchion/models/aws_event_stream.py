"""The binary event stream of Amazon Web Services (`application/vnd.amazon.eventstream`), both directions.

Source: the published encoding (AWS documentation, event stream encoding): a message is its length, the length
of its headers and a CRC-32 of the two; headers; a payload; a CRC-32 of everything before.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

import msgspec

from stanchion.core.errors import UnavailableError

HeaderValue = bool | int | bytes | str
_PRELUDE = struct.Struct(">II")
_CRC = struct.Struct(">I")
_SHORTEST = 16
_NUMBERS = {2: struct.Struct(">b"), 3: struct.Struct(">h"), 4: struct.Struct(">i")}
_NUMBERS |= {5: struct.Struct(">q"), 8: struct.Struct(">q")}
_BYTES, _STRING, _UUID = 6, 7, 9
_LOOK = "This is no well-formed event stream: look at what the endpoint sends."


class EventMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message."""

    headers: dict[str, HeaderValue]
    payload: bytes = b""

    def text(self, name: str) -> str:
        """A header that is a text; empty when there is none."""
        value = self.headers.get(name)
        return value if isinstance(value, str) else ""


class EventStreamParser:
    """Feed it bytes as they come; every way of cutting them gives the same messages."""

    def __init__(self, *, max_message_bytes: int = 16 * 1024 * 1024) -> None:
        self._max = max_message_bytes
        self._buffer = bytearray()
        self._wanted = 12

    @property
    def is_clean(self) -> bool:
        """Whether the stream could end here."""
        return not self._buffer

    def feed(self, data: bytes) -> list[EventMessage]:
        """The messages that these bytes complete.

        Raises:
            UnavailableError: for a wrong checksum, a length that cannot be, or a header of no known type.
        """
        self._buffer += data
        messages: list[EventMessage] = []
        while len(self._buffer) >= self._wanted:
            length, header_length = _PRELUDE.unpack_from(self._buffer)
            if self._wanted == 12:
                self._check_prelude(length, header_length)
                self._wanted = length
                continue
            raw = bytes(self._buffer[:length])
            del self._buffer[:length]
            self._wanted = 12
            if zlib.crc32(raw[:-4]) != _CRC.unpack_from(raw, length - 4)[0]:
                raise _wrong("a message with a wrong checksum")
            headers = _decode_headers(raw[12 : 12 + header_length])
            messages.append(EventMessage(headers=headers, payload=raw[12 + header_length : -4]))
        return messages

    def _check_prelude(self, length: int, header_length: int) -> None:
        if zlib.crc32(self._buffer[:8]) != _CRC.unpack_from(self._buffer, 8)[0]:
            raise _wrong("a beginning with a wrong checksum")
        if length < _SHORTEST + header_length:
            raise _wrong("a message shorter than its parts")
        if length > self._max:
            raise _wrong(f"a message longer than {self._max} bytes")


def _wrong(what: str) -> UnavailableError:
    return UnavailableError(f"the event stream holds {what}.", hint=_LOOK, is_retryable=False)


def _decode_headers(raw: bytes) -> dict[str, HeaderValue]:
    headers: dict[str, HeaderValue] = {}
    at = 0
    try:
        while at < len(raw):
            size = raw[at]
            name = raw[at + 1 : at + 1 + size].decode("utf-8")
            kind = raw[at + 1 + size]
            value, at = _decode_value(raw, kind, at + 2 + size)
            if name in headers:
                raise _wrong("a header that is said twice")
            headers[name] = value
    except (IndexError, struct.error, UnicodeDecodeError):
        raise _wrong("a header that cannot be read") from None
    if at != len(raw):
        raise _wrong("a header that is cut off")
    return headers


def _decode_value(raw: bytes, kind: int, at: int) -> tuple[HeaderValue, int]:
    if kind in (0, 1):
        return kind == 0, at
    if kind in _NUMBERS:
        return _NUMBERS[kind].unpack_from(raw, at)[0], at + _NUMBERS[kind].size
    if kind == _UUID:
        return raw[at : at + 16], at + 16
    if kind not in (_BYTES, _STRING):
        raise _wrong(f"a header of the unknown type {kind}")
    size = int.from_bytes(raw[at : at + 2], "big")
    value = raw[at + 2 : at + 2 + size]
    return (value if kind == _BYTES else value.decode("utf-8")), at + 2 + size


def encode_message(headers: Mapping[str, HeaderValue], payload: bytes = b"") -> bytes:
    """One message as bytes; whole numbers are written as 32 bits where they fit, else 64."""
    head = b"".join(_encode_header(name, value) for name, value in headers.items())
    prelude = _PRELUDE.pack(_SHORTEST + len(head) + len(payload), len(head))
    raw = prelude + _CRC.pack(zlib.crc32(prelude)) + head + payload
    return raw + _CRC.pack(zlib.crc32(raw))


def _encode_header(name: str, value: HeaderValue) -> bytes:
    said = name.encode()
    head = bytes([len(said)]) + said
    match value:
        case bool():
            return head + (b"\x00" if value else b"\x01")
        case int():
            kind = 4 if -(2**31) <= value < 2**31 else 5
            return head + bytes([kind]) + _NUMBERS[kind].pack(value)
        case bytes():
            return head + bytes([_BYTES]) + len(value).to_bytes(2, "big") + value
        case str():
            raw = value.encode()
            return head + bytes([_STRING]) + len(raw).to_bytes(2, "big") + raw
