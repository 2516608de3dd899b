"""Turns pydantic's errors into problems a person can act on: place, what is wrong, what is allowed.

pydantic reports every branch of a union; here a union gives the errors of its nearest branch when one of the
branches fits in kind, else one sentence that lists the kinds that are allowed.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pydantic

from stanchion.core.errors import Problem, did_you_mean
from stanchion.files.document import Step, YamlDocument, shown
from stanchion.files.references import Resolution

_WANTED = {
    "string_type": "text",
    "string_sub_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "none_required": "nothing",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dataclass_type": "a mapping",
    "date_type": "a date such as 2026-01-31",
    "date_parsing": "a date such as 2026-01-31",
    "date_from_datetime_parsing": "a date such as 2026-01-31",
    "datetime_type": "a time such as 2026-01-31T12:00:00Z",
    "datetime_parsing": "a time such as 2026-01-31T12:00:00Z",
    "datetime_from_date_parsing": "a time such as 2026-01-31T12:00:00Z",
    "timezone_aware": "a time with its zone, such as 2026-01-31T12:00:00Z",
    "time_delta_type": "a duration",
    "time_delta_parsing": "a duration such as PT15M",
    "path_type": "a path as text",
    "secret_type": "a secret as text, such as ${env:NAME}",
    "decimal_type": "a number",
    "decimal_parsing": "a number",
}
_LIMITS = {
    "greater_than": ("greater than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
    "multiple_of": ("a multiple of", "multiple_of"),
}
_QUOTED = re.compile(r"'((?:[^'\\]|\\.)*)'")


@dataclass(frozen=True, slots=True)
class _Fault:
    """One pydantic error; its location split into the document's path and the labels of union branches."""

    kind: str
    message: str
    context: dict[str, Any]
    path: tuple[Step, ...]
    missing: str | None
    branch: tuple[tuple[int, str], ...]  # (length of the path where the union stands, label of the branch)


def explain(
    error: pydantic.ValidationError,
    model: type[pydantic.BaseModel],
    document: YamlDocument,
    resolution: Resolution,
) -> list[Problem]:
    """The problems that a failed validation means, in the order of pydantic; one per place for a union."""
    items = error.errors(include_url=False, include_input=False)
    faults = [_fault(one, resolution.value) for item in items for one in _each(item)]
    speaker = _Speaker(model, document, resolution)
    problems = [speaker.problem(fault) for fault in _settle_unions(faults)]
    return [problem for problem in problems if problem is not None]


def _each(item: Any) -> Iterator[Any]:
    """An error as often as its cause has places."""
    cause = item.get("ctx", {}).get("error")
    for one in (cause, *getattr(cause, "others", ())):
        at = getattr(one, "at", ())
        yield {**item, "loc": (*item["loc"], *at), "ctx": {**item["ctx"], "error": one}} if one else item


def _fault(item: Any, value: Any) -> _Fault:
    location: tuple[Step, ...] = item["loc"]
    missing: str | None = None
    if item["type"] == "missing" and location:
        location, missing = location[:-1], str(location[-1])
    path, branch = _follow(location, value)
    return _Fault(item["type"], item["msg"], item.get("ctx", {}), path, missing, branch)


def _follow(location: tuple[Step, ...], value: Any) -> tuple[tuple[Step, ...], tuple[tuple[int, str], ...]]:
    """Which steps of a location exist in the value; the others are labels of union branches."""
    best: tuple[int, tuple[Step, ...], tuple[tuple[int, str], ...]] = (-1, (), ())
    todo: list[tuple[int, Any, tuple[Step, ...], tuple[tuple[int, str], ...]]] = [(0, value, (), ())]
    while todo:
        index, node, path, branch = todo.pop()
        if index == len(location):
            if len(path) > best[0]:
                best = (len(path), path, branch)
            continue
        step = location[index]
        todo.append((index + 1, node, path, (*branch, (len(path), str(step)))))
        child = _child(node, step)
        if child is not None:
            todo.append((index + 1, child[0], (*path, step), branch))
        if len(todo) > 64:  # locations are short; this only bounds a hostile one
            break
    return best[1], best[2]


def _child(node: Any, step: Step) -> tuple[Any] | None:
    if isinstance(node, dict) and step in node:
        return (node[step],)
    if isinstance(node, list) and isinstance(step, int) and 0 <= step < len(node):
        return (node[step],)
    return None


def _settle_unions(faults: list[_Fault]) -> Iterator[_Fault]:
    """Keep what is worth saying of each union; other errors pass as they are."""
    groups: dict[tuple[Step, ...] | int, list[_Fault]] = {}
    for number, fault in enumerate(faults):
        key: tuple[Step, ...] | int = fault.path[: fault.branch[0][0]] if fault.branch else number
        groups.setdefault(key, []).append(fault)
    for key, group in groups.items():
        if isinstance(key, int) or len({fault.branch[0] for fault in group}) == 1:
            yield from group
        else:
            yield from _settle_union(len(key), group)


def _settle_union(depth: int, group: list[_Fault]) -> Iterator[_Fault]:
    branches: dict[str, list[_Fault]] = {}
    for fault in group:
        branches.setdefault(fault.branch[0][1], []).append(fault)
    fitting = [
        faults
        for faults in branches.values()
        if not all(fault.kind in _WANTED and len(fault.path) == depth for fault in faults)
    ]
    if fitting:
        nearest = min(fitting, key=lambda faults: (len(faults), -max(len(f.path) for f in faults)))
        inner = [_Fault(f.kind, f.message, f.context, f.path, f.missing, f.branch[1:]) for f in nearest]
        yield from _settle_unions(inner)
        return
    wanted = dict.fromkeys(_WANTED[fault.kind] for fault in group)
    first = group[0]
    yield _Fault("union", " or ".join(wanted), {}, first.path[:depth], None, ())


class _Speaker:
    """Finds the words for one fault."""

    def __init__(
        self, model: type[pydantic.BaseModel], document: YamlDocument, resolution: Resolution
    ) -> None:
        self.model = model
        self.document = document
        self.resolution = resolution

    def problem(self, fault: _Fault) -> Problem | None:
        is_key = fault.kind == "extra_forbidden"
        if not is_key and any(fault.path[: len(path)] == path for path in self.resolution.failed):
            return None  # the reference that failed is reported; its value is not there to be judged
        place = self.document.key_position if is_key else self.document.position
        is_tag = fault.kind == "union_tag_invalid"
        line, column = place((*fault.path, _discriminator(fault)) if is_tag else fault.path)
        rule, message, hint = self._words(fault)
        return Problem(
            file=self.document.file, line=line, column=column, rule=rule, message=message, hint=hint
        )

    def _words(self, fault: _Fault) -> tuple[str, str, str | None]:
        subject = _name(fault.path)
        match fault.kind:
            case "missing":
                where = f" in {subject}" if subject else ""
                return "missing-key", f"required key {fault.missing!r} is missing{where}.", None
            case "extra_forbidden":
                return self._unknown_key(fault)
            case "enum" | "literal_error":
                allowed = _QUOTED.findall(str(fault.context.get("expected", "")))
                message = f"{subject}: unknown value {self._value(fault.path)}."
                return "unknown-value", message, did_you_mean(str(self._raw(fault.path)), allowed)
            case "union_tag_invalid":
                return self._wrong_tag(fault, subject)
            case "union_tag_not_found":
                key = _discriminator(fault)
                return "missing-key", f"required key {key!r} is missing in {subject or 'the file'}.", None
            case "union":
                return "wrong-type", f"{self._expected(fault, subject, fault.message)}.", None
            case "value_error" | "assertion_error":
                cause = fault.context.get("error")
                message = str(getattr(cause, "message", cause))
                prefix = f"{subject}: " if subject else ""
                return "value", f"{prefix}{_sentence(message)}", getattr(cause, "hint", None)
            case kind if kind in _WANTED:
                return "wrong-type", f"{self._expected(fault, subject, _WANTED[kind])}.", None
            case _:
                return self._limit(fault, subject)

    def _unknown_key(self, fault: _Fault) -> tuple[str, str, str | None]:
        parent = _name(fault.path[:-1])
        key = str(fault.path[-1]) if fault.path else ""
        where = f" in {parent}" if parent else ""
        labels = {label for _, label in fault.branch}
        known = _keys_at(self.model, fault.path[:-1], labels)
        return "unknown-key", f"unknown key {shown(key)}{where}.", did_you_mean(key, known)

    def _wrong_tag(self, fault: _Fault, subject: str) -> tuple[str, str, str | None]:
        key = _discriminator(fault)
        tag = str(fault.context.get("tag", ""))
        allowed = _QUOTED.findall(str(fault.context.get("expected_tags", "")))
        where = f"{subject}.{key}" if subject else key
        return "unknown-value", f"{where}: unknown value {shown(tag)}.", did_you_mean(tag, allowed)

    def _limit(self, fault: _Fault, subject: str) -> tuple[str, str, str | None]:
        context = fault.context
        value = self._value(fault.path)
        match fault.kind:
            case kind if kind in _LIMITS:
                words, key = _LIMITS[kind]
                reason = f"must be {words} {context.get(key)}, got {value}"
            case "string_too_short" | "string_too_long":
                bound = "least" if fault.kind == "string_too_short" else "most"
                count = context.get("min_length", context.get("max_length"))
                reason = f"must have at {bound} {count} character{'s' if count != 1 else ''}, got {value}"
            case "too_short" | "too_long":
                bound = "least" if fault.kind == "too_short" else "most"
                count = context.get("min_length", context.get("max_length"))
                items = "item" if count == 1 else "items"
                reason = f"must have at {bound} {count} {items}, got {context.get('actual_length')}"
            case "string_pattern_mismatch":
                reason = f"must match {context.get('pattern')!r}, got {value}"
            case _:
                reason = fault.message[:1].lower() + fault.message[1:]
        return "value", f"{subject}: {reason}." if subject else f"{reason}.", None

    def _expected(self, fault: _Fault, subject: str, wanted: str) -> str:
        prefix = f"{subject}: " if subject else ""
        got = "another value" if "secret" in wanted else self._kind(fault.path)
        return f"{prefix}expected {wanted}, got {got}"

    def _raw(self, path: tuple[Step, ...]) -> Any:
        value = self.resolution.value
        for step in path:
            child = _child(value, step)
            if child is None:
                return None
            value = child[0]
        return value

    def _is_brought_in(self, path: tuple[Step, ...]) -> bool:
        return any(path[: len(known)] == known for known in self.resolution.brought_in)

    def _value(self, path: tuple[Step, ...]) -> str:
        return "a value from a reference" if self._is_brought_in(path) else shown(self._raw(path))

    def _kind(self, path: tuple[Step, ...]) -> str:
        value = self._raw(path)
        match value:
            case None:
                return "nothing"
            case bool():
                return "true" if value else "false"
            case dict():
                return "a mapping"
            case list():
                return "a list"
            case int() | float():
                return "a number" if self._is_brought_in(path) else f"number {value!r}"
            case _:
                return "text" if self._is_brought_in(path) else f"text {shown(value)}"


def _discriminator(fault: _Fault) -> str:
    return str(fault.context.get("discriminator", "")).strip("'")


def _name(path: tuple[Step, ...]) -> str:
    """`rules[2].when` for ("rules", 2, "when")."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text


def _sentence(message: str) -> str:
    return message if message.endswith((".", "?", "!")) else f"{message}."


def _keys_at(model: type[pydantic.BaseModel], path: tuple[Step, ...], labels: set[str]) -> list[str]:
    """The keys that are known at a place, over all the models that may stand there."""
    kinds: list[Any] = [model]
    for step in path:
        kinds = [inner for kind in kinds for inner in _inside(kind, step)]
    models = [kind for kind in kinds if _is_model(kind)]
    named = [kind for kind in models if kind.__name__ in labels or _tags(kind) & labels]
    keys = [_key(name, info) for kind in named or models for name, info in kind.model_fields.items()]
    return list(dict.fromkeys(keys))


def _inside(kind: Any, step: Step) -> list[Any]:
    if _is_model(kind):
        for name, info in kind.model_fields.items():
            if _key(name, info) == step:
                return _parts(info.annotation)
        return []
    arguments = typing.get_args(kind)
    if not arguments:
        return []
    origin = typing.get_origin(kind)
    if isinstance(origin, type) and issubclass(origin, typing.Mapping):
        return _parts(arguments[-1])
    return [part for argument in arguments if argument is not Ellipsis for part in _parts(argument)]


def _parts(kind: Any) -> list[Any]:
    """A kind without Annotated, and a union as its branches."""
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        return _parts(typing.get_args(kind)[0])
    if origin in (typing.Union, types.UnionType):
        return [part for branch in typing.get_args(kind) for part in _parts(branch)]
    return [kind]


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)


def _key(name: str, info: Any) -> str:
    return info.validation_alias if isinstance(info.validation_alias, str) else info.alias or name


def _tags(model: type[pydantic.BaseModel]) -> set[str]:
    """The literal values of a model's fields: one of them may be the tag of a discriminated union."""
    tags: set[str] = set()
    for info in model.model_fields.values():
        if typing.get_origin(info.annotation) is typing.Literal:
            tags.update(str(value) for value in typing.get_args(info.annotation))
    return tags
