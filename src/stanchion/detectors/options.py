"""Options of detectors: of the types that the factory's annotations name, before the factory sees them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any, get_type_hints

import msgspec

from stanchion.core.errors import UsageError, did_you_mean

# What the program gives a factory; a policy cannot.
GIVEN = frozenset({"scanner", "models", "services", "detector_id"})
_AT = re.compile(r" - at `\$\.(\w+)")
_UNKNOWN = re.compile(r"unknown field `(\w+)`")


class OptionError(UsageError):
    """An option that a detector does not take, by name."""

    def __init__(self, detector_id: str, option: str, what: str, *, hint: str | None = None) -> None:
        super().__init__(
            f"detector {detector_id!r}: option {option!r} {what}.",
            hint=hint or f"See `stanchion detectors show {detector_id}`.",
        )
        self.option = option


def check_options(detector_id: str, factory: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """That every option exists and has the type that the factory names for it.

    Raises:
        OptionError: for the first that does not.
    """
    known, takes_any = _types(factory)
    for name, value in options.items():
        if name in GIVEN or (name not in known and not takes_any):
            hint = did_you_mean(name, [one for one in known if one not in GIVEN and one != "base"])
            raise OptionError(detector_id, name, "does not exist", hint=hint)
        if name in known:
            _check(detector_id, name, value, known[name])


def option_error(detector_id: str, error: msgspec.ValidationError) -> OptionError:
    """What a factory that converts its options itself says of one."""
    words = str(error)
    unknown, at = _UNKNOWN.search(words), _AT.search(words)
    if unknown:
        return OptionError(detector_id, unknown[1], "does not exist")
    return OptionError(detector_id, at[1] if at else "", f"does not fit ({_AT.sub('', words)})")


def _check(detector_id: str, name: str, value: Any, kind: Any) -> None:
    from pydantic import ValidationError

    try:
        _adapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        steps = [str(step) for step in first["loc"] if not str(step).startswith(("function-", "nullable"))]
        inside = f" at {'.'.join(steps)}" if steps else ""
        what = first["msg"].removeprefix("Input ")
        raise OptionError(detector_id, name, f"has another type{inside} ({what})") from error


@lru_cache(maxsize=256)
def _adapter(kind: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    strictly = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
    return TypeAdapter(kind, config=strictly)


def _types(factory: Callable[..., Any]) -> tuple[dict[str, Any], bool]:
    """The types of the options by name, and whether others are taken too."""
    parameters = inspect.signature(factory).parameters.values()
    inner = factory.func if isinstance(factory, partial) else factory
    try:
        hints = get_type_hints(inner)
    except (NameError, TypeError):  # of another package: names that exist for its type checker only
        hints = {}
    known = {p.name: hints.get(p.name, Any) for p in parameters if p.kind is not p.VAR_KEYWORD}
    return known, any(p.kind is p.VAR_KEYWORD for p in parameters)
