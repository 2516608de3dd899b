"""JSON of the other side, read in one way only: an object that says a key twice is refused.

Two readers could take the two values of such a key for each other, and only one of them would be checked. The
check is quick: what was read is written again and the colons are counted. A colon follows each key or stands
in a string, and what is written holds each key once. So where no string hides a colon behind an escape, as
many colons mean that no key is said twice. Otherwise the keys are counted exactly.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from stanchion.core.errors import UnavailableError

_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"([ \t\r\n]*+:)?', re.DOTALL)
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_HINT = "Check the base URL and `api`, and look at what the endpoint sends."


def decode_strict(data: bytes, *, what: str) -> Any:
    """The value; `what` says in errors what was read, such as `the stream holds an event`.

    Raises:
        UnavailableError: for bytes that are no JSON in UTF-8, nested too deep, or that say a key twice.
    """
    try:
        value = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UnavailableError(f"{what} that is not JSON.", hint=_HINT, is_retryable=False) from None
    if not is_said_once(data, value):
        raise UnavailableError(f"{what} that says a key twice.", hint=_HINT, is_retryable=False)
    return value


def has_as_many_colons(data: bytes, value: Any) -> bool:
    """Whether a JSON text has as many colons as what was read from it: then it says no key twice.

    `value` holds everything that the text says, as JSON values or as a struct that forbids unknown fields.
    False says nothing.
    """
    if b"\\" in data and _ESCAPED in data:  # looking for a single byte is much quicker
        return False
    try:
        return _colons(data) == _colons(_encode(value))
    except (OverflowError, ValueError, RecursionError):  # a number that cannot be written in the same way
        return False


_ESCAPED = b"\\u003"  # the colon is \u003a


def _colons(data: bytes) -> int:
    """How many there are; taking them out finds each one quicker than `count`, which looks at every byte."""
    return len(data) - len(data.replace(b":", b""))


def is_said_once(data: bytes, value: Any) -> bool:
    """Whether no object in a JSON text says a key twice; `value` is what was read from the text."""
    return has_as_many_colons(data, value) or _said_keys(data) == _count_keys(value)


def _count_keys(value: Any) -> int:
    """The keys of all objects in a value; equal keys of one object count once."""
    kind = type(value)
    if kind is dict:
        waiting = [value]
    elif kind is list:
        waiting = list(value)
    else:
        return 0
    count = 0
    while waiting:
        item = waiting.pop()
        kind = type(item)
        if kind is dict:
            count += len(item)
            waiting += [inner for inner in item.values() if type(inner) in _NESTED]
        elif kind is list:
            waiting += item
    return count


_NESTED = frozenset({dict, list})


def _said_keys(data: bytes) -> int:
    """The keys as they are written: strings before a colon."""
    return sum(1 for match in _STRINGS.finditer(data) if match.group(1) is not None)
