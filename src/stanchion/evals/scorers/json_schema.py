"""Answers that must be JSON of a given shape.

The validator knows the keywords below and refuses a schema with any other, so that no rule is ignored in
silence. Source: JSON Schema, draft 2020-12, core and validation vocabularies.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from stanchion.core.codec import canonical_json, digest, short
from stanchion.core.errors import UsageError, did_you_mean
from stanchion.evals.case import Case
from stanchion.evals.results import Concern, Score
from stanchion.evals.scorers.scorer import Answer, Named
from stanchion.evals.scorers.text import compiled

_VERSION = "1"
_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
    "number": lambda v: _is_number(v),
    "integer": lambda v: _is_number(v) and float(v).is_integer(),
}
_SAYS_NOTHING = frozenset(
    {"$schema", "$id", "$comment", "$defs", "title", "description", "default", "examples", "deprecated"}
)
_MOST_REFERENCES = 50


class SchemaChecker:
    """Checks values against one schema.

    Raises:
        UsageError: at once, for a keyword it does not know, a broken reference or a pattern RE2 refuses.
    """

    def __init__(self, schema: Any) -> None:
        self._root = schema
        self._check_schema(schema, "#")

    def faults(self, value: Any) -> Iterator[str]:
        """Where the value does not fit, as `path: keyword`; never a part of the value."""
        yield from self._faults(value, self._root, "$", 0)

    def _faults(self, value: Any, schema: Any, at: str, depth: int) -> Iterator[str]:
        if isinstance(schema, bool):
            if not schema:
                yield f"{at}: false"
            return
        if depth > _MOST_REFERENCES:
            yield f"{at}: $ref (more than {_MOST_REFERENCES} deep)"
            return
        for keyword, rule in schema.items():
            if keyword in _SIMPLE:
                if not _SIMPLE[keyword](value, rule):
                    yield f"{at}: {keyword}"
            elif keyword == "$ref":
                yield from self._faults(value, self._resolve(rule), at, depth + 1)
            elif keyword in _NESTED:
                yield from _NESTED[keyword](self, value, schema, at, depth)

    def _fits(self, value: Any, schema: Any, depth: int) -> bool:
        return next(self._faults(value, schema, "$", depth + 1), None) is None

    def _resolve(self, reference: str) -> Any:
        here = self._root
        if reference != "#" and not reference.startswith("#/"):
            raise UsageError(
                f"json_schema: reference {reference!r} leaves the schema.", hint="Use #/$defs/..."
            )
        for step in reference.removeprefix("#").split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(here, dict) or name not in here:
                raise UsageError(f"json_schema: reference {reference!r} names nothing.")
            here = here[name]
        return here

    def _check_schema(self, schema: Any, at: str) -> None:
        if isinstance(schema, bool):
            return
        if not isinstance(schema, dict):
            raise UsageError(f"json_schema: {at} is no schema.", hint="A schema is a mapping, true or false.")
        for keyword, rule in schema.items():
            if keyword not in _KNOWN:
                raise UsageError(
                    f"json_schema: keyword {keyword!r} at {at} is not supported.",
                    hint=did_you_mean(keyword, _KNOWN),
                )
            if keyword == "$ref":
                self._resolve(rule)
            elif keyword == "pattern":
                compiled(rule)
            for name, below in _subschemas(keyword, rule):
                self._check_schema(below, f"{at}/{keyword}{name}")

    def _properties(self, value: Any, schema: Any, at: str, depth: int) -> Iterator[str]:
        if isinstance(value, dict):
            for name, rule in schema["properties"].items():
                if name in value:
                    yield from self._faults(value[name], rule, f"{at}.{name}", depth)

    def _additional(self, value: Any, schema: Any, at: str, depth: int) -> Iterator[str]:
        if isinstance(value, dict):
            known = schema.get("properties", {})
            for name in value:
                if name not in known and not self._fits(value[name], schema["additionalProperties"], depth):
                    yield f"{at}: additionalProperties"

    def _prefix_items(self, value: Any, schema: Any, at: str, depth: int) -> Iterator[str]:
        if isinstance(value, list):
            for index, (item, rule) in enumerate(zip(value, schema["prefixItems"], strict=False)):
                yield from self._faults(item, rule, f"{at}[{index}]", depth)

    def _items(self, value: Any, schema: Any, at: str, depth: int) -> Iterator[str]:
        if isinstance(value, list):
            first = len(schema.get("prefixItems", ()))
            for index, item in enumerate(value[first:], start=first):
                yield from self._faults(item, schema["items"], f"{at}[{index}]", depth)

    def _all_of(self, value: Any, schema: Any, at: str, depth: int) -> Iterator[str]:
        for rule in schema["allOf"]:
            yield from self._faults(value, rule, at, depth + 1)

    def _any_of(self, value: Any, schema: Any, at: str, depth: int) -> Iterator[str]:
        if not any(self._fits(value, rule, depth) for rule in schema["anyOf"]):
            yield f"{at}: anyOf"

    def _one_of(self, value: Any, schema: Any, at: str, depth: int) -> Iterator[str]:
        if sum(self._fits(value, rule, depth) for rule in schema["oneOf"]) != 1:
            yield f"{at}: oneOf"

    def _not(self, value: Any, schema: Any, at: str, depth: int) -> Iterator[str]:
        if self._fits(value, schema["not"], depth):
            yield f"{at}: not"


_NESTED: Mapping[str, Callable[[SchemaChecker, Any, Any, str, int], Iterator[str]]] = {
    "properties": SchemaChecker._properties,
    "additionalProperties": SchemaChecker._additional,
    "prefixItems": SchemaChecker._prefix_items,
    "items": SchemaChecker._items,
    "allOf": SchemaChecker._all_of,
    "anyOf": SchemaChecker._any_of,
    "oneOf": SchemaChecker._one_of,
    "not": SchemaChecker._not,
}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _same(a: Any, b: Any) -> bool:
    return canonical_json(a) == canonical_json(b)


def _has_type(value: Any, rule: Any) -> bool:
    return any(_TYPES[name](value) for name in (rule if isinstance(rule, list) else [rule]))


def _is_multiple(value: Any, rule: Any) -> bool:
    if not _is_number(value):
        return True
    share = value / rule
    return math.isclose(share, round(share), rel_tol=1e-12, abs_tol=1e-12)


def _are_unique(value: Any, rule: Any) -> bool:
    if not rule or not isinstance(value, list):
        return True
    return len({canonical_json(item) for item in value}) == len(value)


_SIMPLE: Mapping[str, Callable[[Any, Any], bool]] = {
    "type": _has_type,
    "enum": lambda v, r: any(_same(v, item) for item in r),
    "const": _same,
    "required": lambda v, r: not isinstance(v, dict) or all(name in v for name in r),
    "minProperties": lambda v, r: not isinstance(v, dict) or len(v) >= r,
    "maxProperties": lambda v, r: not isinstance(v, dict) or len(v) <= r,
    "minItems": lambda v, r: not isinstance(v, list) or len(v) >= r,
    "maxItems": lambda v, r: not isinstance(v, list) or len(v) <= r,
    "uniqueItems": _are_unique,
    "minLength": lambda v, r: not isinstance(v, str) or len(v) >= r,
    "maxLength": lambda v, r: not isinstance(v, str) or len(v) <= r,
    "pattern": lambda v, r: not isinstance(v, str) or compiled(r).search(v) is not None,
    "minimum": lambda v, r: not _is_number(v) or v >= r,
    "maximum": lambda v, r: not _is_number(v) or v <= r,
    "exclusiveMinimum": lambda v, r: not _is_number(v) or v > r,
    "exclusiveMaximum": lambda v, r: not _is_number(v) or v < r,
    "multipleOf": _is_multiple,
}
_KNOWN = frozenset({*_SIMPLE, *_NESTED, *_SAYS_NOTHING, "$ref"})


def _subschemas(keyword: str, rule: Any) -> Iterator[tuple[str, Any]]:
    if keyword in ("properties", "$defs"):
        yield from ((f"/{name}", below) for name, below in rule.items())
    elif keyword in ("allOf", "anyOf", "oneOf", "prefixItems"):
        yield from ((f"/{index}", below) for index, below in enumerate(rule))
    elif keyword in ("items", "additionalProperties", "not"):
        yield "", rule


class JsonSchemaScorer(Named):
    """The answer is JSON that fits the case's schema, or the suite's."""

    def __init__(
        self,
        scorer_id: str = "json_schema",
        *,
        concern: Concern = Concern.UTILITY,
        schema: dict[str, Any] | None = None,
        allow_fence: bool = True,
    ) -> None:
        identity = short(digest({"schema": schema, "fence": allow_fence}))
        super().__init__(scorer_id, version=f"{_VERSION}+{identity}", concern=concern)
        self._schema = schema
        self._allow_fence = allow_fence
        self._checkers: dict[str, SchemaChecker] = {}
        if schema is not None:
            self._checker(schema)

    def can_judge(self, case: Case) -> bool:
        """Where there is a schema."""
        return case.expect.json_schema is not None or self._schema is not None

    def score(self, answer: Answer) -> Score:
        """Unsafe when it is not JSON, or does not fit; the reason names the first place."""
        own = answer.case.expect.json_schema
        checker = self._checker(own if own is not None else self._schema or {})
        text = _unfenced(answer.text) if self._allow_fence else answer.text
        try:
            value = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            return self.unsafe("the answer is not JSON")
        faults = list(checker.faults(value))
        return self.unsafe(f"{len(faults)} places do not fit, first {faults[0]}") if faults else self.safe()

    def _checker(self, schema: dict[str, Any]) -> SchemaChecker:
        key = digest(schema)
        if key not in self._checkers:
            self._checkers[key] = SchemaChecker(schema)
        return self._checkers[key]


def _unfenced(text: str) -> str:
    """The inside of a lone Markdown code fence; other texts as they are."""
    lines = text.strip().split("\n")
    if len(lines) >= 2 and lines[0].startswith("```") and lines[-1].strip() == "```":
        return "\n".join(lines[1:-1])
    return text


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
