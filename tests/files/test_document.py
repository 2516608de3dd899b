"""YAML with positions: what is read, what is refused, and where each problem is said to be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.core.errors import FilesError, Problem
from stanchion.files import document as document_module
from stanchion.files.document import YamlDocument, compose, read_document


def read(tmp_path: Path, text: str | bytes) -> YamlDocument:
    path = tmp_path / "f.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_document(path)


def problems(tmp_path: Path, text: str | bytes) -> tuple[Problem, ...]:
    with pytest.raises(FilesError) as caught:
        read(tmp_path, text)
    return caught.value.problems


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: no", {"a": "no"}),
        ("on: off", {"on": "off"}),
        ("a: 2026-01-31", {"a": "2026-01-31"}),
        ("a: 012", {"a": 12}),
        ("a: 0x1F", {"a": 31}),
        ("a: 0o17", {"a": 15}),
        ("a: 1_000", {"a": "1_000"}),
        ("a: 12:30:00", {"a": "12:30:00"}),
        ("a: 1e3", {"a": 1000.0}),
        ("a: .5", {"a": 0.5}),
        ("a: True", {"a": True}),
        ("a: ~\nb:", {"a": None, "b": None}),
        ("a: '1'", {"a": "1"}),
        ('a: "true"', {"a": "true"}),
        ("1: x\ntrue: y", {"1": "x", "true": "y"}),
        ("a: !!str 5", {"a": "5"}),
        ("- [1, {b: c}]", [[1, {"b": "c"}]]),
        ("a: |\n  x\n  y\n", {"a": "x\ny\n"}),
        ("\ufeffa: 1", {"a": 1}),
        ('{"a": [1, 2.5, null, "\\u00e9"]}', {"a": [1, 2.5, None, "é"]}),
        ("just text", "just text"),
    ],
)
def test_scalars_follow_the_core_schema(tmp_path: Path, text: str, value: object) -> None:
    assert read(tmp_path, text).value == value


def test_positions_count_code_points_from_one(tmp_path: Path) -> None:
    document = read(tmp_path, "a: 1\nliste:\n  - x: 😀é\n    y: [p, q]\n")
    assert document.position(()) == (1, 1)
    assert document.position(("liste", 0, "y", 1)) == (4, 12)
    assert document.key_position(("liste", 0, "y")) == (4, 5)
    assert document.position(("liste", 0, "gone", "deeper")) == (3, 5)
    inline = read(tmp_path, "k: ['😀😀', z]")
    assert inline.position(("k", 1)) == (1, 11)


def test_alias_has_the_value_of_its_anchor(tmp_path: Path) -> None:
    document = read(tmp_path, "a: &x {k: [1]}\nb: *x\n")
    assert document.value == {"a": {"k": [1]}, "b": {"k": [1]}}


@pytest.mark.parametrize(
    ("text", "rule", "line", "column"),
    [
        ("a: 1\nb: 2\na: 3\n", "yaml-duplicate-key", 3, 1),
        ("x:\n  1: a\n  '1': b\n", "yaml-duplicate-key", 3, 3),
        ("a: 1\n---\nb: 2\n", "yaml-documents", 2, 1),
        ("a: &x [*x]\n", "yaml-cycle", 1, 8),
        ("a: *nope\n", "yaml-alias", 1, 4),
        ("a: [1\nb: 2\n", "yaml-syntax", 2, 2),
        ("a:\n\t- b\n", "yaml-syntax", 2, 1),
        ("a: 'open\n", "yaml-syntax", 2, 1),
        ("a: b: c\n", "yaml-syntax", 1, 5),
        ("a: !!python/object:os.system x\n", "yaml-tag", 1, 4),
        ("a: !custom {b: c}\n", "yaml-tag", 1, 4),
        ("a: !!int x\n", "yaml-tag", 1, 4),
        ("? [a, b]\n: c\n", "yaml-key", 1, 3),
        ("b: &b {x: 1}\na:\n  <<: *b\n", "yaml-merge", 3, 3),
        ("a: x\x01y\n", "yaml-character", 1, 5),
        (b"a: 1\nb: x\xffy\n", "file-encoding", 2, 5),
        (b"\xef\xbb\xbfa: \xff", "file-encoding", 1, 5),
        ("[" * 101 + "]" * 101, "yaml-depth", 1, 101),
        ("[" * 200_000, "yaml-depth", 1, 101),
        ("", "file-empty", 0, 0),
        ("# only a comment\n", "file-empty", 0, 0),
    ],
)
def test_bad_files_are_refused_at_their_place(
    tmp_path: Path, text: str | bytes, rule: str, line: int, column: int
) -> None:
    found = problems(tmp_path, text)
    assert [(p.rule, p.line, p.column) for p in found] == [(rule, line, column)]
    assert found[0].render().startswith(str(tmp_path / "f.yaml"))


def test_every_problem_of_a_file_is_reported(tmp_path: Path) -> None:
    found = problems(tmp_path, "a: 1\na: 2\nb: !x 1\nc: {d: 1, d: 2}\n")
    assert [p.line for p in found] == [1 + 1, 3, 4]


def test_invalid_utf8_names_the_byte_offset(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, b"name: caf\xe9\n")
    assert "0xe9 at offset 9" in problem.message


def test_alias_bomb_is_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    (problem,) = problems(tmp_path, "\n".join(lines))
    assert problem.rule == "yaml-alias-bomb"


def test_a_long_text_cannot_be_repeated_freely(tmp_path: Path) -> None:
    text = f"a: &a {'x' * 1_000_000}\nb: [{', '.join(['*a'] * 50)}]\n"
    (problem,) = problems(tmp_path, text)
    assert problem.rule == "yaml-alias-bomb"


def test_too_many_values_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_module, "MAX_NODES", 100)
    assert problems(tmp_path, "[" + "1, " * 100 + "1]")[0].rule == "yaml-nodes"


def test_size_limit_is_checked_without_reading_further(tmp_path: Path) -> None:
    path = tmp_path / "big.yaml"
    path.write_text("a: " + "x" * 100)
    with pytest.raises(FilesError, match="limit of 50 bytes"):
        read_document(path, max_bytes=50)
    assert read_document(path, max_bytes=103).value == {"a": "x" * 100}


def test_missing_file_and_folder_say_so(tmp_path: Path) -> None:
    with pytest.raises(FilesError, match="there is no such file"):
        read_document(tmp_path / "none.yaml")
    with pytest.raises(FilesError, match="this is a folder"):
        read_document(tmp_path)


def test_digest_is_of_the_bytes(tmp_path: Path) -> None:
    first = read(tmp_path, "a: 1\n")
    assert first.digest == read(tmp_path, "a: 1\n").digest != read(tmp_path, "a: 1 \n").digest


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(
        st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\u2028\u2029\ufeff\uffff\ufffe")
    ),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abc xyz", max_size=5), inner, max_size=4)
    ),
    max_leaves=15,
)


@settings(deadline=None, max_examples=150)
@given(JSON_VALUES)
def test_json_reads_as_itself(value: object) -> None:
    document, found = compose(json.dumps(value, ensure_ascii=False), file="x", digest="")
    if found:
        assert [p.rule for p in found] == ["file-empty"]
    else:
        assert document is not None
        assert document.value == value


def test_json_file_may_escape_a_character_as_two(tmp_path: Path) -> None:
    value = {"k": ["\U0001f600", "\\ud83d\\ude00", "é", 'q"\\']}
    path = tmp_path / "f.json"
    path.write_text(json.dumps(value))
    assert read_document(path).value == value


@settings(deadline=None, max_examples=200)
@given(st.text("ab:-[]{},'\"&*!|>#?\n \t%@`0\\~<=", max_size=60))
def test_any_text_gives_a_document_or_problems(text: str) -> None:
    document, found = compose(text, file="x", digest="")
    assert document is not None or found
