"""Placeholders in JSON values: `{{ name }}` becomes a variable, and nothing is ever evaluated.

A string that is one placeholder and nothing else takes the variable's own type; inside a longer string the
variable's text is put in. What was put in is not looked at again: a text that contains `{{ ... }}` stays so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from stanchion.core.errors import UnknownNameError

JsonValue = Any
_PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_.-]*)\s*\}\}")


def fill(template: JsonValue, variables: Mapping[str, JsonValue], *, where: str = "template") -> JsonValue:
    """The template with every placeholder replaced, in strings at any depth; keys are left alone.

    Raises:
        UnknownNameError: for a placeholder without a variable, with the nearest names.
    """
    match template:
        case str():
            return _fill_text(template, variables, where)
        case dict():
            return {key: fill(value, variables, where=where) for key, value in template.items()}
        case list() | tuple():
            return [fill(value, variables, where=where) for value in template]
        case _:
            return template


def placeholders(template: JsonValue) -> Iterator[str]:
    """The names that a template uses, in order, repeated when they are."""
    match template:
        case str():
            yield from _PLACEHOLDER.findall(template)
        case dict():
            for value in template.values():
                yield from placeholders(value)
        case list() | tuple():
            for value in template:
                yield from placeholders(value)


def pieces(text: str, variables: Mapping[str, str], *, where: str = "template") -> Iterator[tuple[str, bool]]:
    """A text filled in, in pieces: (the words, whether they are a variable's); joined, what `fill` gives.

    Empty pieces are left out.

    Raises:
        UnknownNameError: for a placeholder without a variable, with the nearest names.
    """
    at = 0
    for found in _PLACEHOLDER.finditer(text):
        if found.start() > at:
            yield text[at : found.start()], False
        value = _variable(found[1], variables, where)
        if value:
            yield value, True
        at = found.end()
    if at < len(text):
        yield text[at:], False


def _fill_text(text: str, variables: Mapping[str, JsonValue], where: str) -> JsonValue:
    whole = _PLACEHOLDER.fullmatch(text)
    if whole:
        return _variable(whole[1], variables, where)
    return _PLACEHOLDER.sub(lambda found: _as_text(_variable(found[1], variables, where)), text)


def _variable(name: str, variables: Mapping[str, JsonValue], where: str) -> JsonValue:
    if name not in variables:
        raise UnknownNameError("placeholder", name, variables, where=where)
    return variables[name]


def _as_text(value: JsonValue) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
