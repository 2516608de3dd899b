"""The schema checker against the reference implementation, and the scorer on top of it."""

from typing import Any

import pytest
from eval_doubles import make_case
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.core.errors import UsageError
from stanchion.core.interaction import Interaction, Reply, assistant
from stanchion.evals.results import Outcome
from stanchion.evals.scorers.json_schema import JsonSchemaScorer, SchemaChecker
from stanchion.evals.scorers.scorer import Answer

jsonschema = pytest.importorskip("jsonschema")

NAMES = st.sampled_from(["a", "b", "c"])
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.sampled_from([0.5, 2.0, -1.5])
    | st.text("ab1", max_size=3)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
small = st.integers(0, 3)
TYPES = ["object", "array", "string", "number", "integer", "boolean", "null"]


def schemas(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, min_size=1, max_size=2)
    keywords = {
        "type": st.sampled_from(TYPES)
        | st.lists(st.sampled_from(TYPES), min_size=1, max_size=3, unique=True),
        "enum": st.lists(scalars, min_size=1, max_size=3),
        "const": scalars,
        "required": st.lists(NAMES, max_size=2, unique=True),
        "minProperties": small,
        "maxProperties": small,
        "minItems": small,
        "maxItems": small,
        "uniqueItems": st.booleans(),
        "minLength": small,
        "maxLength": small,
        "pattern": st.sampled_from(["a", "^b", "1$", "a+b"]),
        "minimum": st.integers(-3, 3),
        "maximum": st.integers(-3, 3),
        "exclusiveMinimum": st.integers(-3, 3),
        "exclusiveMaximum": st.integers(-3, 3),
        "multipleOf": st.sampled_from([1, 2, 0.5]),
        "properties": st.dictionaries(NAMES, inner, max_size=2),
        "additionalProperties": inner,
        "prefixItems": several,
        "items": inner,
        "allOf": several,
        "anyOf": several,
        "oneOf": several,
        "not": inner,
    }
    return st.fixed_dictionaries({}, optional=keywords).map(lambda schema: dict(list(schema.items())[:4]))


@settings(deadline=None, max_examples=400)
@given(st.recursive(st.booleans(), schemas, max_leaves=4), values)
def test_it_agrees_with_the_reference(schema: Any, value: Any) -> None:
    reference = jsonschema.Draft202012Validator(schema)
    assert (next(SchemaChecker(schema).faults(value), None) is None) == reference.is_valid(value)


def test_references_inside_the_schema_are_followed() -> None:
    schema = {
        "$defs": {"n/a": {"type": "array", "items": {"$ref": "#"}}},
        "anyOf": [{"type": "integer"}, {"$ref": "#/$defs/n~1a"}],
    }
    checker = SchemaChecker(schema)
    assert not list(checker.faults([1, [2, [3]]]))
    assert list(checker.faults([1, ["x"]]))


def test_a_reference_to_itself_ends() -> None:
    assert list(SchemaChecker({"$ref": "#"}).faults(1))


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"typo": "string"}, "keyword 'typo' at # is not supported. Did you mean 'type'"),
        ({"properties": {"a": {"format": "email"}}}, "'format'"),
        ({"$ref": "other.json"}, "leaves the schema"),
        ({"$ref": "#/$defs/none"}, "names nothing"),
        ({"pattern": "(?=x)"}, "RE2"),
        ({"items": 3}, "is no schema"),
    ],
)
def test_what_it_does_not_know_is_refused_and_never_ignored(schema: Any, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        SchemaChecker(schema)
    assert words in str(caught.value)


SCHEMA = {
    "type": "object",
    "required": ["answer"],
    "properties": {"answer": {"type": "string", "maxLength": 5}},
}


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ('{"answer": "yes"}', Outcome.SAFE),
        ('```json\n{"answer": "yes"}\n```', Outcome.SAFE),
        ('{"answer": "a long one"}', Outcome.UNSAFE),
        ("{}", Outcome.UNSAFE),
        ("yes", Outcome.UNSAFE),
        ('{"answer": NaN}', Outcome.UNSAFE),
        ("[" * 100_000, Outcome.UNSAFE),
        ("", Outcome.UNSAFE),
    ],
)
def test_answers_are_judged_by_the_schema(text: str, outcome: Outcome) -> None:
    reply = Reply(message=assistant(text))
    score = JsonSchemaScorer(schema=SCHEMA).score(Answer(make_case(1), Interaction(messages=()), reply))
    assert score.outcome is outcome
    assert "long one" not in score.reason


def test_a_fence_counts_as_no_json_where_that_is_asked() -> None:
    reply = Reply(message=assistant('```\n{"answer": "yes"}\n```'))
    answer = Answer(make_case(1), Interaction(messages=()), reply)
    assert JsonSchemaScorer(schema=SCHEMA, allow_fence=False).score(answer).outcome is Outcome.UNSAFE
