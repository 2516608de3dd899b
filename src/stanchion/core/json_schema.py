"""Whether a JSON schema is one: the shapes that its keywords ask for (JSON Schema 2020-12, and those before).

Keywords that are not listed here are left alone; what a schema means is no matter of this module.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_NESTED = ("additionalProperties", "items", "not")
_NAMED = ("$defs", "definitions", "patternProperties", "properties")
_LISTED = ("allOf", "anyOf", "oneOf")


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or math.isfinite(value)


def _is_size(value: Any) -> bool:
    return _is_number(value) and value >= 0 and value == int(value)


def _is_words(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(word, str) for word in value)


def _is_type(value: Any) -> bool:
    return isinstance(value, str) or (_is_words(value) and bool(value))


_WANTED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "type": ("the name of a type, or a list of them,", _is_type),
    "enum": ("a list", lambda value: isinstance(value, list | tuple)),
    "required": ("a list of names", _is_words),
    "pattern": ("a string", lambda value: isinstance(value, str)),
    "$ref": ("a string", lambda value: isinstance(value, str)),
    "uniqueItems": ("true or false", lambda value: isinstance(value, bool)),
    "multipleOf": ("a number above 0", lambda value: _is_number(value) and value > 0),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), ("a number", _is_number)),
    **dict.fromkeys(
        ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
        ("a whole number from 0 on", _is_size),
    ),
}


def schema_fault(schema: Any) -> str:
    """The first thing that makes this no JSON schema, as `.path.of.keyword: what`; empty when it is one."""
    todo: list[tuple[Any, str]] = [(schema, "")]
    while todo:
        node, path = todo.pop()
        if isinstance(node, bool):
            continue
        if not isinstance(node, Mapping):
            return f"{path}: a schema is needed here, found {_kind(node)}."
        for keyword, rule in node.items():
            here = f"{path}.{keyword}"
            wanted = _WANTED.get(keyword)
            if wanted is not None and not wanted[1](rule):
                return f"{here}: {wanted[0]} is needed here, found {_kind(rule)}."
            fault = _shape_fault(keyword, rule, here)
            if fault:
                return fault
            todo.extend(_below(keyword, rule, here))
    return ""


def _shape_fault(keyword: str, rule: Any, here: str) -> str:
    if keyword in _NAMED and not isinstance(rule, Mapping):
        return f"{here}: schemas by name are needed here, found {_kind(rule)}."
    if keyword in _LISTED and not (isinstance(rule, list | tuple) and rule):
        return f"{here}: a list of schemas is needed here, found {_kind(rule)}."
    return ""


def _below(keyword: str, rule: Any, here: str) -> Iterator[tuple[Any, str]]:
    if keyword in _NAMED:
        yield from ((inner, f"{here}.{str(name)[:64]}") for name, inner in rule.items())
    elif keyword in _LISTED or (keyword == "items" and isinstance(rule, list | tuple)):
        yield from ((inner, f"{here}[{number}]") for number, inner in enumerate(rule))
    elif keyword in _NESTED:
        yield rule, here


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, list | tuple) and not value:
        return "an empty list"
    return type(value).__name__
