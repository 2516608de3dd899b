"""Catalogues: how they are read and kept; every bad one is told with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from stanchion.core.errors import FilesError
from stanchion.detectors.catalogue import load_catalogue, load_catalogues
from stanchion.detectors.examples import run_examples
from stanchion.detectors.packaged import packaged_catalogues
from stanchion.detectors.scan import Scanner

HEAD = """\
catalogue: mine
version: 1
source: own
patterns:
"""
GOOD = """\
- id: custom.ticket
  pattern: '\\bTICKET-([0-9]{4})\\b'
  category: custom.pattern
  score: 0.6
  group: 1
  examples: [see TICKET-1234, [TICKET, '-9999']]
  counter_examples: [TICKET-12]
"""


def write(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def problems(path: Path) -> list[tuple[int, str, str]]:
    with pytest.raises(FilesError) as caught:
        load_catalogue(path)
    return [(p.line, p.rule, p.message) for p in caught.value.problems]


def test_a_catalogue_is_read_with_its_defaults(tmp_path: Path) -> None:
    catalogue = load_catalogue(write(tmp_path, HEAD + GOOD))
    (pattern,) = catalogue.patterns
    assert pattern.views == ("raw", "folded", "decoded")
    assert pattern.severity == "medium"  # the category's
    assert pattern.examples == ("see TICKET-1234", "TICKET-9999")
    assert run_examples(Scanner([catalogue])).failures == ()


def test_a_failing_example_is_reported_by_number_without_its_text(tmp_path: Path) -> None:
    text = HEAD + GOOD.replace("TICKET-12]", "TICKET-5678 private]").replace("see TICKET-1234", "see none")
    report = run_examples(Scanner([load_catalogue(write(tmp_path, text))]))
    assert [(f.kind, f.number) for f in report.failures] == [("example", 1), ("counter-example", 1)]
    assert "private" not in repr(report)


BAD = {
    "unclosed": ("pattern: '('", "pattern.compile", 6),
    "look-around": ("pattern: 'a(?=b)'", "pattern.compile", 6),
    "back-reference": (r"pattern: '(a)\1'", "pattern.compile", 6),
    "empty": ("pattern: 'a*'", "pattern.empty", 6),
    "wide": (r"pattern: '[a-z ]+'", "pattern.wide", 6),
    "inner word end": (r"pattern: 'a\b\sb'" + "\n  flags: [ucp]", "pattern.ucp", 6),
    "group": ("pattern: 'abc'\n  group: 2", "pattern.group", 7),
    "category": ("pattern: 'abc'\n  category: custom.patern", "pattern.category", 7),
    "validator": ("pattern: 'abc'\n  validator: lun", "pattern.validator", 7),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_pattern_is_a_problem_at_its_line(tmp_path: Path, name: str) -> None:
    body, rule, line = BAD[name]
    category = "" if "category:" in body else "\n  category: custom.pattern"
    path = write(tmp_path, f"{HEAD}- id: custom.x\n  {body}{category}\n  score: 0.5\n")
    found = problems(path)
    assert {(at, what) for at, what, _ in found} == {(line, rule)}


def test_all_problems_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    second = GOOD.replace("TICKET", "OTHER")
    third = GOOD.replace("custom.ticket", "billing.ticket").replace("0.6", "0.7")
    found = problems(write(tmp_path, HEAD + GOOD + second + third + third))
    assert [rule for _, rule, _ in found] == [
        "pattern.duplicate", "pattern.detector", "pattern.detector", "pattern.duplicate",
    ]  # fmt: skip
    assert "mine.yaml:5" in found[0][2]


@pytest.mark.parametrize(
    "change",
    [("score: 0.6", "score: 1.6"), ("score: 0.6", "scores: 0.6"), ("group: 1", "views: [row]"),
     ("group: 1", "flags: [caselss]"), ("custom.ticket", "Ticket")],
)  # fmt: skip
def test_the_shape_is_checked_with_positions(tmp_path: Path, change: tuple[str, str]) -> None:
    found = problems(write(tmp_path, HEAD + GOOD.replace(*change)))
    assert found
    assert all(line > 4 for line, _, _ in found)


def test_an_id_may_be_given_once_in_all_files(tmp_path: Path) -> None:
    first = write(tmp_path, HEAD + GOOD, "a.yaml")
    second = write(tmp_path, HEAD + GOOD, "b.yaml")
    with pytest.raises(FilesError) as caught:
        load_catalogues([first, second])
    (problem,) = caught.value.problems
    assert (problem.rule, Path(problem.file).name) == ("pattern.duplicate", "b.yaml")


def test_a_file_that_was_found_good_is_not_checked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, HEAD + GOOD)
    cache = tmp_path / "cache"
    first = load_catalogue(path, cache_dir=cache)
    monkeypatch.setattr("stanchion.detectors.catalogue.faults", lambda *_, **__: pytest.fail("checked again"))
    assert load_catalogue(path, cache_dir=cache) == first
    monkeypatch.undo()
    path.write_text(HEAD + GOOD.replace("TICKET-", "("))
    with pytest.raises(FilesError):
        load_catalogue(path, cache_dir=cache)


def test_parsed_catalogues_are_kept_and_damage_is_noticed(tmp_path: Path) -> None:
    packaged = packaged_catalogues(cache_dir=None)
    assert packaged_catalogues(cache_dir=tmp_path) == packaged
    kept = sorted(tmp_path.glob("catalogue-*"))
    assert len(kept) == len(packaged)
    kept[0].write_bytes(kept[0].read_bytes()[:-1])
    assert packaged_catalogues(cache_dir=tmp_path) == packaged
