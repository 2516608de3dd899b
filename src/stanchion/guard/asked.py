"""What a caller hands to a guard, checked before any detector sees it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, TypeVar

from stanchion.core.decision import Surface
from stanchion.core.errors import UnknownNameError, UsageError
from stanchion.core.origin import Origin

_E = TypeVar("_E", bound=StrEnum)
# Who speaks on a surface, when a caller does not say.
SPEAKER_OF = {
    Surface.SYSTEM: Origin.SYSTEM,
    Surface.INPUT: Origin.USER,
    Surface.RETRIEVED: Origin.RETRIEVED,
    Surface.TOOL_DEFINITION: Origin.TOOL_DEFINITION,
    Surface.TOOL_RESULT: Origin.TOOL_RESULT,
    Surface.TOOL_CALL: Origin.MODEL,
    Surface.REASONING: Origin.MODEL,
    Surface.OUTPUT: Origin.MODEL,
}


def text_of(value: Any) -> str:
    """The value, if it is a text.

    Raises:
        UsageError: for anything else; the value itself is not shown.
    """
    if isinstance(value, str):
        return value
    hint = "Give a str."
    if isinstance(value, bytes | bytearray):
        hint = "Decode the bytes first: check(data.decode('utf-8'))."
    elif isinstance(value, list | tuple | dict):
        hint = "Check each text by itself, or use check_tool_result, which takes JSON values."
    raise UsageError(f"a text is needed to check, got {type(value).__name__}.", hint=hint)


def surface_of(name: Surface | str) -> Surface:
    """The surface of this name.

    Raises:
        UnknownNameError: when there is none.
    """
    return _named(Surface, name, "surface")


def origin_of(name: Origin | str) -> Origin:
    """The origin of this name.

    Raises:
        UnknownNameError: when there is none.
    """
    return _named(Origin, name, "origin")


def _named(kind: type[_E], name: Any, what: str) -> _E:
    try:
        return kind(name)
    except ValueError:
        raise UnknownNameError(what, str(name)[:64], [member.value for member in kind]) from None
