"""Texts in a JSON value by paths such as `question`, `messages.*.content` and `choices.0.text`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from stanchion.core.errors import UsageError

Place = tuple[str | int, ...]
_MOST = 10_000


def texts_at(value: Any, paths: Sequence[str]) -> list[tuple[Place, str]]:
    """The texts at these paths, each with its place. What is absent or null has none.

    Raises:
        UsageError: for a value of another type on the way or at its end, and for more than 10,000 texts.
    """
    found: dict[Place, str] = {}
    for path in paths:
        for place, text in _texts(value, path.split("."), ()):
            found[place] = text
            if len(found) > _MOST:
                raise UsageError(f"there are more than {_MOST} texts at {path!r}.")
    return list(found.items())


def put_texts(value: Any, places: Sequence[Place], texts: Sequence[str]) -> None:
    """Write texts where others stand; the value is changed in place."""
    for place, text in zip(places, texts, strict=True):
        holder = value
        for step in place[:-1]:
            holder = holder[step]
        holder[place[-1]] = text


def _texts(value: Any, steps: Sequence[str], place: Place) -> Iterator[tuple[Place, str]]:
    if value is None:
        return
    if not steps:
        if not isinstance(value, str):
            raise _wrong("a text", place, value)
        yield place, value
        return
    step, rest = steps[0], steps[1:]
    if step == "*":
        if not isinstance(value, list):
            raise _wrong("a list", place, value)
        for index, each in enumerate(value):
            yield from _texts(each, rest, (*place, index))
    elif isinstance(value, list) and step.isdigit():
        if int(step) < len(value):
            yield from _texts(value[int(step)], rest, (*place, int(step)))
    elif isinstance(value, dict):
        yield from _texts(value.get(step), rest, (*place, step))
    else:
        raise _wrong("an object", place, value)


def _wrong(wanted: str, place: Place, value: Any) -> UsageError:
    where = ".".join(str(step) for step in place) or "the body"
    return UsageError(f"{where}: {wanted} is needed here, found {type(value).__name__}.")
