"""A request body as a JSON value: what two parsers could read in two ways is refused."""

from __future__ import annotations

import json
import re
from math import isinf
from typing import Any

import msgspec

from stanchion.gateway.ports import Outcome, Refused
from stanchion.models.strict_json import has_as_many_colons

MAX_DEPTH = 64
MAX_NUMBER_DIGITS = 400


class _Twice(ValueError):
    """An object says a key twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Twice
    return found


def _constant(name: str) -> Any:
    raise ValueError(name)


def _integer(digits: str) -> int:
    if len(digits) > MAX_NUMBER_DIGITS:
        raise ValueError("digits")
    return int(digits)


def _finite(digits: str) -> float:
    """`1e999` would be infinity here, null to the next reader, and an error to a third."""
    number = float(digits)
    if isinf(number):
        raise ValueError("infinite")
    return number


_decoder = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_constant, parse_int=_integer, parse_float=_finite
)
_quick = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_constant, parse_float=_finite)


def decode_body(raw: bytes, *, max_depth: int = MAX_DEPTH) -> Any:
    """The value of a JSON text (RFC 8259, UTF-8) of at most so many levels.

    Raises:
        Refused: `invalid` with status 400 for anything else: an object that says a key twice, NaN, a lone
            surrogate, an endless number. Nothing of the body is repeated.
    """
    if raw.count(b"[") + raw.count(b"{") > max_depth and _depth(raw) > max_depth:
        raise invalid("nested_too_deep", f"the body is nested more than {max_depth} levels deep.")
    try:
        value = _read_quickly(raw)
        if value is not _UNREAD:
            return value
        text = raw.decode("utf-8")
        decoder = _quick if len(raw) < MAX_NUMBER_DIGITS else _decoder
        value = decoder.decode(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate cannot be sent on
    except UnicodeEncodeError:
        raise invalid("lone_surrogate", "the body holds half a surrogate pair, which no text is.") from None
    except UnicodeDecodeError:
        raise invalid("not_utf8", "the body is not UTF-8.") from None
    except _Twice:
        message = "an object in the body says a key twice, and it is not clear which one counts."
        raise invalid("duplicate_key", message) from None
    except (ValueError, RecursionError):
        raise invalid("not_json", "the body is not JSON.", "Send one JSON object.") from None
    return value


_UNREAD = object()
_LONG_NUMBER = re.compile(rb"[0-9]{%d}" % (MAX_NUMBER_DIGITS - 1))


def _read_quickly(raw: bytes) -> Any:
    """The same value by a quicker reader, where nothing about the text is in doubt; else `_UNREAD`."""
    if len(raw) >= MAX_NUMBER_DIGITS and _LONG_NUMBER.search(raw):
        return _UNREAD
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return _UNREAD
    return value if has_as_many_colons(raw, value) else _UNREAD


def _depth(raw: bytes) -> int:
    """The deepest level of brackets outside strings; linear."""
    depth = deepest = 0
    is_string = is_escaped = False
    for byte in raw:
        if is_string:
            if is_escaped:
                is_escaped = False
            elif byte == 0x5C:
                is_escaped = True
            elif byte == 0x22:
                is_string = False
        elif byte == 0x22:
            is_string = True
        elif byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def invalid(code: str, message: str, hint: str = "", *, status: int = 400) -> Refused:
    """The refusal of a request that cannot be understood."""
    return Refused(Outcome.INVALID, status=status, code=code, message=message, hint=hint)
