"""A JSON value as somebody may look at it who need not read what is in it: kinds and lengths, not the words.

The same detectors as a policy's redaction, at its thresholds. A value that could not be checked to its end is
withheld whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from stanchion.guard.pipeline import Guard
from stanchion.guard.redaction import Mark, settle
from stanchion.guard.rules import Operator

_MOST_DEPTH = 64
_MOST_STRINGS = 2000  # of one value; the rest is withheld
_PLAIN_NUMBER = 9  # digits: shorter ones are amounts and counts, and no identifier worth hiding


class MaskedView(msgspec.Struct, frozen=True, kw_only=True):
    """`value` with stretches like `[SECRET, 20 characters]`; `masked` is how many there are."""

    value: Any
    masked: int


class Masker:
    """Masks what a guard would redact. The guard's policy says what that is, such as `scrub`."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def mask(self, value: Any) -> MaskedView:
        """The value to look at: strings, keys and long numbers, and JSON within strings."""
        run = _Run(self._guard)
        return MaskedView(value=run.value(value, name="", depth=0), masked=run.masked)


class _Run:
    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self.masked = 0
        self._left = _MOST_STRINGS

    def value(self, value: Any, *, name: str, depth: int) -> Any:
        if depth > _MOST_DEPTH:
            return self._withheld(1)
        if isinstance(value, str):
            return self._string(value, name=name, depth=depth)
        if isinstance(value, Mapping):
            return self._mapping(value, depth=depth)
        if isinstance(value, list | tuple):
            return [self.value(each, name=name, depth=depth + 1) for each in value]
        if isinstance(value, int | float) and not isinstance(value, bool):
            text = repr(value)
            shown = self._text(text, name=name) if len(text) > _PLAIN_NUMBER else text
            return value if shown == text else shown
        return value

    def _mapping(self, value: Mapping[Any, Any], *, depth: int) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        for key, each in value.items():
            name = self._text(str(key))
            while name in shown:  # two names that are masked alike
                name += "'"
            shown[name] = self.value(each, name=str(key), depth=depth + 1)
        return shown

    def _string(self, text: str, *, name: str, depth: int) -> str:
        if text[:1] in ("{", "["):  # arguments as the model wrote them: escapes would hide what is in them
            try:
                inner = json.loads(text)
            except (ValueError, RecursionError):
                pass
            else:
                shown = self.value(inner, name=name, depth=depth + 1)
                return text if shown == inner else json.dumps(shown, ensure_ascii=False)
        return self._text(text, name=name)

    def _text(self, text: str, *, name: str = "") -> str:
        """The text without what is found in it, with and without the name that it stands under."""
        if not text:
            return text
        self._left -= 1
        marks = self._found(text, 0) if self._left >= 0 else None
        if name and marks is not None:
            prefix = f"{name}: "
            more = self._found(prefix + text, len(prefix))
            marks = None if more is None else [*marks, *more]
        if marks is None:
            return self._withheld(len(text))
        parts, at = [], 0
        for mark in settle(marks):
            parts += [text[at : mark.start], f"[{mark.kind}, {mark.end - mark.start} characters]"]
            at = mark.end
            self.masked += 1
        return "".join([*parts, text[at:]])

    def _found(self, text: str, offset: int) -> list[Mark] | None:
        """What is in a text, its places counted from `offset`; None when a check did not run to its end."""
        checked = self._guard.check(text, surface="output")
        if not checked.allowed:
            return None
        return [
            Mark(
                start=max(0, each.location.start - offset),
                end=max(0, each.location.end - offset),
                category=each.category,
                operator=Operator.REPLACE,
                severity=each.severity,
                score=each.score,
            )
            for each in checked.decision.findings
        ]

    def _withheld(self, length: int) -> str:
        self.masked += 1
        return f"[withheld, {length} characters]"
