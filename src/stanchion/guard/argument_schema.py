"""Arguments of a tool against its JSON schema: the part of JSON Schema (2020-12) that tools use.

Stricter than the standard in two ways: an object with `properties` takes no others unless
`additionalProperties` says so, and a keyword that constrains and is not known here is an error of the schema,
never ignored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Any, NamedTuple

from stanchion.core.errors import UsageError
from stanchion.core.json_schema import schema_fault

_ANNOTATIONS = frozenset(
    {
        *("title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly"),
        *("$schema", "$id", "$comment", "format", "contentEncoding", "contentMediaType", "strict"),
        *("nullable", "discriminator", "$defs", "definitions"),
    }
)
_TYPES: dict[str, Callable[[Any], bool]] = {
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list | tuple),
    "number": lambda v: not isinstance(v, bool) and (isinstance(v, int) or _is_finite(v)),
    "integer": lambda v: not isinstance(v, bool) and (isinstance(v, int) or _is_whole(v)),
}
_OPENING = frozenset({"additionalProperties", "patternProperties", "allOf", "anyOf", "oneOf"})
_MAX_DEPTH = 64
_MAX_STEPS = 100_000


def schema_faults(schema: Mapping[str, Any], value: Any) -> tuple[str, ...]:
    """Everything in which a value does not fit, as `path: what`, without the value itself.

    Raises:
        UsageError: when the schema is none, uses what is not known here, refers to nothing, or asks for more
            looks at its parts than `_MAX_STEPS`.
    """
    fault = schema_fault(schema)
    if fault:
        raise UsageError(f"JSON schema{fault}")
    return tuple(
        f"{path or 'the arguments'} {fault}" for path, fault in _faults(schema, value, _Root(schema))
    )


class _Root:
    """Where `$ref` looks, how deep the search has gone, and whether objects take only the keys they name.

    Below `allOf` and its like each branch names a part of the keys only, so there they are open.
    """

    def __init__(self, schema: Mapping[str, Any], *, is_closed: bool = True) -> None:
        self.schema = schema
        self.depth = 0
        self.is_closed = is_closed
        self._steps = count(1)  # shared by all that come of this one

    def _like(self, depth: int, *, is_closed: bool) -> _Root:
        other = _Root(self.schema, is_closed=is_closed)
        other.depth, other._steps = depth, self._steps
        return other

    def opened(self) -> _Root:
        return self._like(self.depth, is_closed=False)

    def deeper(self) -> _Root:
        if self.depth >= _MAX_DEPTH:
            raise UsageError("this JSON schema refers to itself without end, or is nested too deeply.")
        if next(self._steps) > _MAX_STEPS:
            raise UsageError("holding this value against this JSON schema takes too long.")
        return self._like(self.depth + 1, is_closed=self.is_closed)

    def resolve(self, reference: str) -> Mapping[str, Any]:
        if not reference.startswith("#"):
            raise UsageError(f"JSON schema: reference {reference!r} leaves the schema.")
        node: Any = self.schema
        for step in reference.removeprefix("#").strip("/").split("/"):
            name = step.replace("~1", "/").replace("~0", "~")
            if name and not (isinstance(node, Mapping) and name in node):
                raise UsageError(f"JSON schema: reference {reference!r} leads nowhere.")
            node = node[name] if name else node
        if not isinstance(node, Mapping):
            raise UsageError(f"JSON schema: reference {reference!r} is no schema.")
        return node


class _At(NamedTuple):
    """Where a keyword stands: its schema, the root for references, the path of the value."""

    schema: Mapping[str, Any]
    root: _Root
    path: str

    def below(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name


Faults = Iterator[tuple[str, str]]


def _faults(schema: Any, value: Any, root: _Root, path: str = "") -> Faults:
    if schema is True or schema == {}:
        return
    if schema is False:
        yield path, "may not be given"
        return
    if not isinstance(schema, Mapping):
        raise UsageError(f"JSON schema: {type(schema).__name__} is no schema.")
    at = _At(schema, root.deeper(), path)
    for keyword, rule in schema.items():
        check = _KEYWORDS.get(keyword)
        if check is not None:
            yield from check(rule, value, at)
        elif keyword not in _ANNOTATIONS and not keyword.startswith("x-"):
            raise UsageError(f"JSON schema: keyword {keyword!r} is not supported.")


def _type(rule: Any, value: Any, at: _At) -> Faults:
    names = [rule] if isinstance(rule, str) else list(rule)
    unknown = [name for name in names if name not in _TYPES]
    if unknown:
        raise UsageError(f"JSON schema: unknown type {unknown[0]!r}.")
    is_null = value is None and at.schema.get("nullable") is True
    if not is_null and not any(_TYPES[name](value) for name in names):
        yield at.path, f"must be {' or '.join(names)}"


def _ref(rule: Any, value: Any, at: _At) -> Faults:
    yield from _faults(at.root.resolve(rule), value, at.root, at.path)


def _enum(rule: Any, value: Any, at: _At) -> Faults:
    if not any(_equal(value, allowed) for allowed in rule):
        yield at.path, "is not one of the allowed values"


def _const(rule: Any, value: Any, at: _At) -> Faults:
    if not _equal(value, rule):
        yield at.path, "is not the allowed value"


def _properties(rule: Any, value: Any, at: _At) -> Faults:
    if not isinstance(value, dict):
        return
    for name, inner in rule.items():
        if name in value:
            yield from _faults(inner, value[name], at.root, at.below(name))
    if at.root.is_closed and not at.schema.keys() & _OPENING:
        for name in value:
            if name not in rule:
                yield at.path, f"has an unknown key {name[:64]!r}"


def _additional(rule: Any, value: Any, at: _At) -> Faults:
    if not isinstance(value, dict):
        return
    known = at.schema.get("properties", {})
    for name in value:
        if name in known or any(_found(pattern, name) for pattern in at.schema.get("patternProperties", {})):
            continue
        if rule is False:
            yield at.path, f"has an unknown key {name[:64]!r}"
        else:
            yield from _faults(rule, value[name], at.root, at.below(name))


def _pattern_properties(rule: Any, value: Any, at: _At) -> Faults:
    if isinstance(value, dict):
        for pattern, inner in rule.items():
            for name in value:
                if _found(pattern, name):
                    yield from _faults(inner, value[name], at.root, at.below(name))


def _required(rule: Any, value: Any, at: _At) -> Faults:
    if isinstance(value, dict):
        for name in rule:
            if name not in value:
                yield at.path, f"lacks {name!r}"


def _items(rule: Any, value: Any, at: _At) -> Faults:
    if isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _faults(rule, item, at.root, f"{at.path}[{index}]")


def _unique(rule: Any, value: Any, at: _At) -> Faults:
    if rule and isinstance(value, list | tuple):
        seen: list[Any] = []
        for item in value:
            if any(_equal(item, other) for other in seen):
                yield at.path, "holds an item twice"
                return
            seen.append(item)


def _any_of(rule: Any, value: Any, at: _At) -> Faults:
    if all(any(True for _ in _faults(inner, value, at.root.opened())) for inner in rule):
        yield at.path, "fits none of the allowed forms"


def _one_of(rule: Any, value: Any, at: _At) -> Faults:
    fitting = sum(not any(True for _ in _faults(inner, value, at.root.opened())) for inner in rule)
    if fitting != 1:
        yield at.path, "must fit exactly one of the allowed forms"


def _all_of(rule: Any, value: Any, at: _At) -> Faults:
    for inner in rule:
        yield from _faults(inner, value, at.root.opened(), at.path)


def _not(rule: Any, value: Any, at: _At) -> Faults:
    if not any(True for _ in _faults(rule, value, at.root.opened())):
        yield at.path, "has a form that is not allowed"


def _size(least: bool, kinds: Any, unit: str) -> Callable[..., Faults]:
    def check(rule: Any, value: Any, at: _At) -> Faults:
        if isinstance(value, kinds) and (len(value) < rule if least else len(value) > rule):
            yield at.path, f"must have at {'least' if least else 'most'} {rule} {unit}"

    return check


def _bound(words: str, holds: Callable[[Any, Any], bool]) -> Callable[..., Faults]:
    def check(rule: Any, value: Any, at: _At) -> Faults:
        if isinstance(value, int | float) and not isinstance(value, bool) and not holds(value, rule):
            yield at.path, f"must be {words} {rule}"

    return check


def _pattern(rule: Any, value: Any, at: _At) -> Faults:
    if isinstance(value, str) and not _found(rule, value):
        yield at.path, "does not have the allowed form"


def _found(pattern: str, text: str) -> bool:
    """JSON Schema searches, it does not anchor. RE2, so that no pattern can hang."""
    import re2

    try:
        return re2.search(pattern, text) is not None
    except re2.error as error:
        raise UsageError(f"JSON schema: pattern {pattern!r} is not an RE2 pattern.") from error


def _is_whole(value: Any) -> bool:
    return _is_finite(value) and value == int(value)


def _is_finite(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _is_multiple(value: float, rule: float) -> bool:
    if isinstance(value, int) and isinstance(rule, int):
        return value % rule == 0
    try:
        times = value / rule
        return math.isclose(times, round(times), abs_tol=1e-9)
    except (OverflowError, ValueError):  # beyond all floats
        return False


def _equal(one: Any, other: Any) -> bool:
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


_KEYWORDS: dict[str, Callable[..., Faults]] = {
    "type": _type,
    "$ref": _ref,
    "enum": _enum,
    "const": _const,
    "properties": _properties,
    "additionalProperties": _additional,
    "patternProperties": _pattern_properties,
    "required": _required,
    "items": _items,
    "uniqueItems": _unique,
    "anyOf": _any_of,
    "oneOf": _one_of,
    "allOf": _all_of,
    "not": _not,
    "minLength": _size(True, str, "characters"),
    "maxLength": _size(False, str, "characters"),
    "minItems": _size(True, (list, tuple), "items"),
    "maxItems": _size(False, (list, tuple), "items"),
    "minProperties": _size(True, dict, "keys"),
    "maxProperties": _size(False, dict, "keys"),
    "minimum": _bound("at least", lambda v, r: v >= r),
    "maximum": _bound("at most", lambda v, r: v <= r),
    "exclusiveMinimum": _bound("greater than", lambda v, r: v > r),
    "exclusiveMaximum": _bound("less than", lambda v, r: v < r),
    "multipleOf": _bound("a multiple of", _is_multiple),
    "pattern": _pattern,
}
