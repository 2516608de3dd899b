"""The schemas of tool arguments: checked as the reference implementation does, or refused."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

import jsonschema
import pytest
from guard_fakes import Words, guard, policy, rule
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.core.errors import UsageError
from stanchion.core.interaction import ToolCall, ToolDefinition
from stanchion.guard.argument_schema import _KEYWORDS, schema_faults
from stanchion.guard.policy_model import ToolRule, ToolRules
from stanchion.guard.tools import schema_of

SCHEMAS = st.recursive(
    st.sampled_from(
        [
            {"type": "string", "maxLength": 3},
            {"type": "integer", "minimum": 0, "exclusiveMaximum": 10},
            {"type": ["number", "null"]},
            {"enum": [1, "a", None, True]},
            {"const": 0},
            {"type": "boolean"},
            {"type": "string", "pattern": "^a+$"},
            {},
        ]
    ),
    lambda inner: st.one_of(
        st.builds(lambda s: {"type": "array", "items": s, "maxItems": 2, "uniqueItems": True}, inner),
        st.builds(
            lambda a, b: {
                "type": "object",
                "properties": {"a": a, "b": b},
                "required": ["a"],
                "additionalProperties": False,
            },
            inner,
            inner,
        ),
        st.builds(lambda a, b: {"anyOf": [a, b]}, inner, inner),
        st.builds(lambda a, b: {"oneOf": [a, b]}, inner, inner),
        st.builds(lambda a, b: {"allOf": [a, {"not": b}]}, inner, inner),
    ),
    max_leaves=5,
)
VALUES = st.recursive(
    st.sampled_from([0, 1, 5, 10, -1, 0.5, 1.0, "a", "aaa", "aaaa", "b", "", None, True, False]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, max_examples=400)
@given(SCHEMAS, VALUES)
def test_schema_check_agrees_with_a_reference_implementation(schema: dict[str, Any], value: Any) -> None:
    expected = jsonschema.Draft202012Validator(schema).is_valid(value)

    assert (not schema_faults(schema, value)) is expected


@pytest.mark.parametrize(
    ("schema", "value", "fault"),
    [
        ({"properties": {"a": {}}}, {"a": 1, "b": 2}, "unknown key 'b'"),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"type": "string"}}}, 1, "must be string"),
        (
            {"properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"type": "string"}}},
            {"a": 1},
            "a must",
        ),
        ({"type": "string", "nullable": True}, 1, "must be string"),
        ({"patternProperties": {"^x": {"type": "integer"}}}, {"xa": "s"}, "xa must be integer"),
        ({"minProperties": 1}, {}, "at least 1"),
        ({"multipleOf": 0.1}, 0.25, "multiple"),
    ],
)
def test_schema_faults_name_the_place(schema: dict[str, Any], value: Any, fault: str) -> None:
    assert any(fault in one for one in schema_faults(schema, value))


@pytest.mark.parametrize(
    "schema",
    [
        {"unevaluatedProperties": False},
        {"type": "strnig"},
        {"$ref": "https://example.com/schema"},
        {"$ref": "#/$defs/none"},
        {"pattern": "("},
        {"allOf": ["x"]},
    ],
)
def test_a_schema_that_cannot_be_checked_refuses_the_call(schema: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        schema_faults(schema, "value")
    asked = ToolCall(id="1", name="find", arguments={"q": "x"})
    rules = ToolRules(named={"find": ToolRule()})
    found = guard(policy(rule("redact"), tools=rules), Words()).check_tool_call(
        asked, definition=ToolDefinition(name="find", parameters={"properties": {"q": schema}})
    )
    assert not found.allowed
    assert "cannot be checked" in found.denial


def test_a_schema_that_refers_to_itself_without_end_is_refused() -> None:
    with pytest.raises(UsageError, match="without end"):
        schema_faults({"$ref": "#"}, "value")


def test_the_schema_of_a_signature() -> None:
    def tool(a: int, b: Literal["x", "y"] = "x", *rest: str, c: list[float] | None = None) -> None: ...

    schema = schema_of(tool)
    assert schema["required"] == ["a"]
    assert schema["additionalProperties"] is False
    assert schema_faults(schema, {"a": 1, "rest": ["q"]}) == ()
    assert schema_faults(schema, {"a": 1, "b": "z"})
    assert schema_faults(schema, {"a": 1, "d": 1})

    def strange(a: Callable[[], int]) -> None: ...

    with pytest.raises(UsageError, match="no JSON schema"):
        schema_of(strange)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(sorted(_KEYWORDS)), JSON, max_size=3), JSON)
@settings(deadline=None, max_examples=500)
def test_whatever_stands_in_a_schema_there_are_faults_or_a_clear_error(schema: Any, value: Any) -> None:
    with suppress(UsageError):
        schema_faults({"type": "object", "properties": {"a": schema}}, {"a": value})


@pytest.mark.parametrize("value", [10**400, -(10**400), 1e308, 5e-324])
def test_numbers_beyond_all_floats_are_held_against_a_schema(value: Any) -> None:
    schema = {"properties": {"a": {"type": "number", "multipleOf": 5e-324, "maximum": 1e308}}}
    assert isinstance(schema_faults(schema, {"a": value}), tuple)


def test_a_schema_that_branches_without_end_takes_no_time_without_end() -> None:
    steps = {f"s{n}": {"allOf": [{"$ref": f"#/$defs/s{n + 1}"}] * 2} for n in range(28)}
    with pytest.raises(UsageError, match="too long"):
        schema_faults({"$defs": {**steps, "s28": {}}, "$ref": "#/$defs/s0"}, {"a": 1})
