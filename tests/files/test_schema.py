"""Models of files: all problems at once, each with its place, what is wrong and what is allowed."""

from __future__ import annotations

import json
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.core.errors import FilesError, Problem, UnknownNameError
from stanchion.files.references import Secret
from stanchion.files.schema import FieldError, FileModel, attempt_file, load_file, load_files, load_text


class Colour(StrEnum):
    RED = "red"
    GREEN = "green"


class Regex(FileModel):
    kind: Literal["regex"]
    pattern: str
    most: int = pydantic.Field(1, ge=1)


class Exact(FileModel):
    kind: Literal["exact"]
    text: str


class Named(FileModel):
    name: str
    on: list[str] | str = ""


class Model(FileModel):
    version: int = 1
    colour: Colour = Colour.RED
    rules: tuple[Annotated[Regex | Exact, pydantic.Field(discriminator="kind")], ...] = ()
    who: str | Named | None = None
    when: date | None = None
    key: Secret | None = None
    share: float = 0.0
    by_name: dict[str, Named] = pydantic.Field(default_factory=dict)
    raised: int = pydantic.Field(0, alias="raise")

    @pydantic.field_validator("share")
    @classmethod
    def _is_share(cls, value: float) -> float:
        if value > 1:
            raise FieldError(f"{value} is above 1", hint="Write a share of 1.")
        return value

    @pydantic.field_validator("version")
    @classmethod
    def _is_known(cls, value: int) -> int:
        if value == 99:
            raise UnknownNameError("version", "99", ["1"])
        return value


def problems(text: str) -> list[Problem]:
    with pytest.raises(FilesError) as caught:
        load_text(text, Model, file="m.yaml")
    return list(caught.value.problems)


def said(text: str) -> list[str]:
    return [p.render() for p in problems(text)]


def test_a_right_file_becomes_a_frozen_model() -> None:
    loaded = load_text(
        "colour: green\nrules: [{kind: exact, text: x}]\nwho: {name: a, on: [b]}\n"
        "when: 2026-01-31\nraise: 3\n",
        Model,
        file="m.yaml",
    )
    assert loaded.value.colour is Colour.GREEN
    assert loaded.value.rules == (Exact(kind="exact", text="x"),)
    assert loaded.value.when == date(2026, 1, 31)
    assert loaded.value.raised == 3
    with pytest.raises(pydantic.ValidationError):
        loaded.value.version = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("version: '1'", "m.yaml:1:10: version: expected a whole number, got text '1'."),
        ("version: 1.5", "m.yaml:1:10: version: expected a whole number, got number 1.5."),
        ("version: true", "m.yaml:1:10: version: expected a whole number, got true."),
        ("who: [1]", "m.yaml:1:6: who: expected text or a mapping, got a list."),
        ("colour: gren", "m.yaml:1:9: colour: unknown value 'gren'. Did you mean 'green'?"),
        ("colour: 5", "m.yaml:1:9: colour: unknown value 5. Allowed: green, red."),
        ("colur: red", "m.yaml:1:1: unknown key 'colur'. Did you mean 'colour'?"),
        (
            "zzz: 1",
            "m.yaml:1:1: unknown key 'zzz'. "
            "Allowed: by_name, colour, key, raise, rules, share, version, when, who.",
        ),
        ("rules:\n- {kind: regex}", "m.yaml:2:3: required key 'pattern' is missing in rules[0]."),
        (
            "rules:\n- {kind: regex, patern: x, pattern: y}",
            "m.yaml:2:17: unknown key 'patern' in rules[0]. Did you mean 'pattern'?",
        ),
        (
            "rules:\n- {kind: exact, text: x, most: 2}",
            "m.yaml:2:26: unknown key 'most' in rules[0]. Allowed: kind, text.",
        ),
        (
            "rules:\n- {kind: exakt}",
            "m.yaml:2:10: rules[0].kind: unknown value 'exakt'. Did you mean 'exact'?",
        ),
        ("rules:\n- {text: x}", "m.yaml:2:3: required key 'kind' is missing in rules[0]."),
        (
            "rules:\n- {kind: regex, pattern: x, most: 0}",
            "m.yaml:2:35: rules[0].most: must be at least 1, got 0.",
        ),
        ("rules: 5", "m.yaml:1:8: rules: expected a list, got number 5."),
        ("who: {name: x, onn: y}", "m.yaml:1:16: unknown key 'onn' in who. Did you mean 'on'?"),
        (
            "by_name: {a: {name: x, on: 5}}",
            "m.yaml:1:28: by_name.a.on: expected a list or text, got number 5.",
        ),
        ("by_name: {a: {name: x, on: [5]}}", "m.yaml:1:29: by_name.a.on[0]: expected text, got number 5."),
        ("when: 31.01.2026", "m.yaml:1:7: when: expected a date such as 2026-01-31, got text '31.01.2026'."),
        ("share: .nan", "m.yaml:1:8: share: expected a finite number, got number nan."),
        ("share: 1e999", "m.yaml:1:8: share: expected a finite number, got number inf."),
        ("share: 2", "m.yaml:1:8: share: 2.0 is above 1. Write a share of 1."),
        ("raised: 1", "m.yaml:1:1: unknown key 'raised'. Did you mean 'raise'?"),
        ("[]", "m.yaml:1:1: expected a mapping, got a list."),
        ("version: 99", "m.yaml:1:1: unknown version '99'. Allowed: 1."),
        (
            "version: 123456789012345678901234567890123456789012345678901",
            None,
        ),
    ],
)
def test_each_problem_says_place_fault_and_what_is_allowed(text: str, expected: str | None) -> None:
    if expected is None:
        assert load_text(text, Model, file="m.yaml").value.version > 2**63
    else:
        assert said(text) == [expected]


def test_all_problems_of_a_file_come_at_once_in_order() -> None:
    found = problems("version: x\nversion: 1\ncolour: blu\nrules: [{kind: no}, {kind: exact}]\nnope: 1\n")
    assert [(p.line, p.rule) for p in found] == [
        (1, "wrong-type"),
        (2, "yaml-duplicate-key"),
        (3, "unknown-value"),
        (4, "unknown-value"),
        (4, "missing-key"),
        (5, "unknown-key"),
    ]


def test_a_secret_is_never_in_a_message() -> None:
    assert said("key: 12345") == [
        "m.yaml:1:6: key: expected a secret as text, such as ${env:NAME}, got another value."
    ]
    assert load_text("key: hunter2", Model, file="m").value.key == Secret("hunter2")


def test_a_value_of_the_environment_is_never_in_a_message(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text("colour: ${env:C}\nwhen: ${env:C}\n")
    _, found = attempt_file(path, Model, env={"C": "hunter2"})
    assert len(found) == 2
    assert all("hunter2" not in p.render() for p in found)


def test_long_values_are_not_printed() -> None:
    (line,) = said(f"colour: {'x' * 500}")
    assert "x" * 50 not in line
    assert "of 500 characters" in line


def test_problems_of_many_files_come_in_one_error(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text("colour: blue\nzzz: 1\n")
    (tmp_path / "good.yaml").write_text("version: 1\n")
    paths = [tmp_path / f"{name}.yaml" for name in ("a", "good", "b", "missing")]
    with pytest.raises(FilesError) as caught:
        load_files([(path, Model) for path in paths])
    assert [Path(p.file).stem for p in caught.value.problems] == ["a", "a", "b", "b", "missing"]
    assert len(load_files([(paths[1], Model)])) == 1


def test_digest_covers_what_is_brought_in(tmp_path: Path) -> None:
    path, other = tmp_path / "m.yaml", tmp_path / "who.txt"
    path.write_text("who: ${file:who.txt}\n")
    other.write_text("ann\n")
    first = load_file(path, Model)
    assert first.value.who == "ann"
    other.write_text("bob\n")
    assert load_file(path, Model).digest != first.digest


def test_digest_does_not_cover_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text("key: ${env:K}\n")
    assert load_file(path, Model, env={"K": "1"}).digest == load_file(path, Model, env={"K": "2"}).digest


NAMES = st.sampled_from(
    [
        *("version", "colour", "rules", "who", "when", "key", "share", "by_name", "raise", "raised"),
        *("kind", "pattern", "most", "text", "name", "on", "regex", "exact", "Named", "str", "x"),
    ]
)
SCALARS = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-2, 2) | NAMES | st.just("2026-01-31")
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None, max_examples=400)
@given(st.dictionaries(NAMES, VALUES, max_size=5))
def test_whatever_is_wrong_is_explained_at_a_place(value: dict[str, object]) -> None:
    """The names of models and tags are among the keys, to mislead the mapping of pydantic's locations."""
    try:
        loaded = load_text(json.dumps(value, indent=1), Model, file="m.yaml")
    except FilesError as error:
        lines = len(json.dumps(value, indent=1).splitlines())
        for problem in error.problems:
            assert 1 <= problem.line <= lines
            assert problem.column >= 1
            assert problem.message.endswith((".", "?", "!"))
    else:
        assert isinstance(loaded.value, Model)
