"""What a calibration promises, for whom, and what its report shows."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.core.errors import DatasetError, FilesError, UsageError
from stanchion.core.origin import Origin
from stanchion.detectors.calibration import Goals, Subject, calibrated, choose
from stanchion.detectors.calibration_file import CalibrationFile, load_calibration, write_calibration
from stanchion.detectors.calibration_report import CalibrationReport, make_report
from stanchion.detectors.calibration_rows import LabelledText, RowFields, RowSource, read_rows
from stanchion.detectors.calibration_slices import slices_at
from stanchion.detectors.scoring import Scored
from stanchion.evals.report.calibration_page import render_calibrations
from stanchion.stats.judges import corrected_rate
from stanchion.stats.thresholds import Costs

MADE = datetime(2026, 1, 1, tzinfo=UTC)
SUBJECT = Subject(id="marks", version="1+a", takes_minimum=True)
SOURCE = RowSource(name="rows.jsonl", digest="sha256:" + "0" * 64, benign=1, unsafe=0)


def scored(*parts: tuple[list[float], dict[str, Any]]) -> Scored:
    """Rows of several kinds, each with its scores; every text is its own."""
    rows, scores = [], []
    for values, fields in parts:
        for value in values:
            rows.append(
                LabelledText(**{"text": f"text {len(rows)}", "label": 0, "place": "rows.jsonl:1", **fields})
            )
            scores.append(value)
    return Scored(rows=tuple(rows), scores=tuple(scores))


def benign(n: int, *, seed: int = 0, most: float = 0.4) -> list[float]:
    return (np.random.default_rng(seed).random(n) * most).round(4).tolist()


def file_of(rows: Scored, goals: Goals | None = None) -> CalibrationFile:
    goals = goals or Goals()
    return calibrated(choose(rows, goals), rows, subject=SUBJECT, sources=[SOURCE], goals=goals, made_at=MADE)


def report_of(rows: Scored, goals: Goals | None = None, costs: Costs | None = None) -> CalibrationReport:
    goals = goals or Goals()
    return make_report(
        rows,
        choose(rows, goals),
        subject=SUBJECT,
        goals=goals,
        sources=[SOURCE],
        costs=costs or Costs(),
        made_at=MADE,
    )


def test_origins_get_thresholds_of_their_own_and_a_small_one_keeps_the_general() -> None:
    rows = scored(
        (benign(600, most=0.3), {"origin": Origin.USER}),
        (benign(600, seed=1, most=0.8), {"origin": Origin.RETRIEVED}),
        (benign(50, seed=2), {"origin": Origin.TOOL_RESULT}),
    )
    found = choose(rows, Goals(by_origin=True))
    assert set(found.origins) == {Origin.USER, Origin.RETRIEVED}
    assert found.origins[Origin.USER] < 0.31
    assert found.origins[Origin.RETRIEVED] > 0.75
    assert {one.applies_to for one in found.guarantees} == {"origin user", "origin retrieved"}
    assert all(one.confidence == pytest.approx(1 - 0.05 / 3) for one in found.guarantees)
    assert any(
        "origin tool_result: the threshold of all rows, without a promise" in note for note in found.notes
    )
    assert "98.33 % confidence" in found.guarantees[0].statement
    made = file_of(rows, Goals(by_origin=True))
    assert made.threshold_at(Origin.USER) == found.origins[Origin.USER]
    assert made.threshold_at(Origin.TOOL_RESULT) == made.threshold
    assert made.minimum == pytest.approx(made.lowest - 1e-4)


@pytest.mark.parametrize("small", [{}, {"tool_result": 60}, {"tool_result": 70, "memory": 70}])
def test_what_is_promised_of_origins_and_of_all_rows_holds(small: dict[str, int]) -> None:
    """Each promise of 300 calibrations, held against the true rates of scores with a known distribution."""
    sizes = {"user": 160, "retrieved": 160, **small}
    tops = {"user": 0.4, "retrieved": 0.8, "tool_result": 1.0, "memory": 0.9}
    rng = np.random.default_rng(7)
    broken = promises = 0
    for _ in range(300):
        parts = [
            ((rng.random(n) * tops[name]).tolist(), {"origin": Origin(name)}) for name, n in sizes.items()
        ]
        found = choose(scored(*parts), Goals(max_false_alarms=0.05, by_origin=True))
        assert found.threshold is not None
        rate = {
            name: max(0.0, 1.0 - found.origins.get(Origin(name), found.threshold) / tops[name])
            for name in sizes
        }
        held = True
        for one in found.guarantees:
            names = [name for name in sizes if one.applies_to == "all rows" or name in one.applies_to]
            weights = [sizes[name] for name in names]
            promises += 1
            held &= np.average([rate[name] for name in names], weights=weights) <= one.limit
        broken += not held
    assert promises >= 600
    assert broken <= 24  # more than 24 of 300 are seen once in a hundred times at a true 5 %


def test_all_rows_are_promised_what_follows_from_parts_and_nothing_where_groups_span_them() -> None:
    def rows(group: str) -> Scored:
        return scored(
            *(
                ([score], {"origin": origin, "group": f"{origin.value if group == 'apart' else ''}{n}"})
                for origin in (Origin.USER, Origin.RETRIEVED)
                for n, score in enumerate(benign(500))
            )
        )

    apart = choose(rows("apart"), Goals(by_origin=True))
    assert [one.applies_to for one in apart.guarantees] == ["all rows", "origin retrieved", "origin user"]
    assert [one.confidence for one in apart.guarantees] == pytest.approx([0.95, 0.975, 0.975])
    spanning = choose(rows("spanning"), Goals(by_origin=True))
    assert [one.applies_to for one in spanning.guarantees] == ["origin retrieved", "origin user"]
    assert any("rows of several origins" in note for note in spanning.notes)


def test_an_origin_that_alarms_too_often_is_not_hidden_by_the_others() -> None:
    rows = scored((benign(900), {"origin": Origin.USER}), ([1.0] * 400, {"origin": Origin.RETRIEVED}))
    found = choose(rows, Goals(max_false_alarms=0.05, by_origin=True))
    assert found.threshold is None
    assert "origin retrieved" in found.reasons[0]


def test_the_report_counts_by_the_thresholds_of_origins() -> None:
    rows = scored(
        (benign(600, most=0.3), {"origin": Origin.USER}),
        (benign(600, seed=1, most=0.8), {"origin": Origin.RETRIEVED}),
        ([0.5] * 40, {"origin": Origin.USER, "label": 1}),
    )
    report = report_of(rows, Goals(by_origin=True))
    assert report.points[0].point.caught == 40  # above the threshold of users, far below that of all rows


def test_groups_are_what_is_counted() -> None:
    rows = scored(*[([score] * 10, {"group": f"user {n}"}) for n, score in enumerate(benign(60))])
    found = choose(rows, Goals(max_false_alarms=0.05))
    assert found.guarantees[0].units == 60
    assert "Hoeffding-Bentkus" in found.guarantees[0].method
    assert choose(rows, Goals(max_false_alarms=0.01)).threshold is None


def test_both_promises_stand_in_the_file_and_half_the_error_is_each_ones() -> None:
    unsafe = (0.6 + np.random.default_rng(3).random(200) * 0.4).round(4).tolist()
    made = file_of(scored((benign(500), {}), (unsafe, {"label": 1})), Goals(min_recall=0.9))
    assert [(one.risk, one.limit, one.confidence) for one in made.guarantees] == [
        ("false alarms", 0.01, 0.975),
        ("misses", pytest.approx(0.1), 0.975),
    ]
    assert made.evidence.recall_at_least is not None
    assert made.evidence.recall_at_least > 0.97


def test_a_calibration_corrects_the_rate_that_its_detector_measures() -> None:
    made = file_of(scored((benign(400), {}), ([0.9] * 45 + [0.0] * 5, {"label": 1})))
    error = made.evidence.judge_error()
    assert (error.caught, error.unsafe, error.safe) == (45, 50, 400)
    assert corrected_rate(90, 1000, error).rate == pytest.approx(0.1, abs=0.01)
    with pytest.raises(UsageError, match="no row is labelled unsafe"):
        file_of(scored((benign(400), {}))).evidence.judge_error()


def test_a_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    unsafe = [0.9] * 40
    made = file_of(scored((benign(400), {}), (unsafe, {"label": 1})), Goals(score_map="isotonic"))
    write_calibration(tmp_path / "c.json", made)
    assert load_calibration(tmp_path / "c.json").value == made
    assert "text 3" not in (tmp_path / "c.json").read_text()
    again = file_of(scored((benign(400), {}), (unsafe, {"label": 1})), Goals(score_map="isotonic"))
    assert again.digest == made.digest


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_no_change_of_a_written_number_goes_unseen(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "changed.json"
    write_calibration(path, file_of(scored((benign(350), {}))))
    value = json.loads(path.read_text())
    keys = ["threshold", "evidence.benign", "detector.version", "guarantees.0.limit", "sketch.counts.0"]
    *steps, last = data.draw(st.sampled_from(keys)).split(".")
    place = value
    for step in steps:
        place = place[int(step) if isinstance(place, list) else step]
    key: Any = int(last) if isinstance(place, list) else last
    before = place[key]
    place[key] = before + "x" if isinstance(before, str) else (before * 0.5 if before < 1 else before + 1)
    path.write_text(json.dumps(value))
    with pytest.raises(FilesError):
        load_calibration(path)


def test_slices_tell_a_language_that_is_above_the_limit_and_the_ones_that_are_too_small() -> None:
    rows = scored(
        ([0.0] * 500, {"language": "en"}),
        ([0.9] * 20 + [0.0] * 80, {"language": "fi"}),
        ([0.0] * 10, {"language": "pt"}),
    )
    found = {one.value: one for one in slices_at(rows, 0.5, {}, Goals()) if one.by == "language"}
    assert found["fi"].warning == "above the limit"
    assert found["en"].warning == ""
    assert found["pt"].warning == "only 10 benign"
    assert (found["fi"].false_alarms, found["fi"].benign) == (20, 100)


def test_many_small_languages_are_put_together() -> None:
    parts = [([0.0] * (40 if n < 3 else 2), {"language": f"l{n:02d}"}) for n in range(30)]
    found = [one for one in slices_at(scored(*parts), 0.5, {}, Goals()) if one.by == "language"]
    assert len(found) == 13
    assert sum(one.benign for one in found) == 3 * 40 + 27 * 2
    assert [one.benign for one in found if one.value == "others"] == [2 * 18]


def test_the_report_tells_what_a_recall_at_one_percent_would_need() -> None:
    report = report_of(scored((benign(150), {}), ([0.9] * 20, {"label": 1})))
    assert any("no recall at 1 % false alarms can be told" in note for note in report.notes)
    assert [one.rows_needed for one in report.budgets] == [59, 149, 299, 598, 2995]


def test_the_page_stands_alone_and_escapes_what_files_bring() -> None:
    pytest.importorskip("vl_convert", reason="the extra report is not installed")
    rows = scored(
        (benign(400), {"language": "<script>alert(1)</script>"}),
        (benign(400, seed=5), {"language": "de"}),
        ([0.9] * 60, {"label": 1, "language": "de"}),
    )
    costs = Costs(miss=5, false_alarm=1, daily=1000, prevalence=0.01)
    page = render_calibrations([report_of(rows, Goals(score_map="platt"), costs)])
    assert "<script" not in page.lower()
    assert "&lt;script&gt;" in page
    assert page.count("<svg") == 4
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert "https://" not in page
    assert "CALIBRATED" in page


def test_the_page_of_a_calibration_that_failed_says_why_and_draws_no_tables_of_nothing() -> None:
    page = render_calibrations([report_of(scored((benign(100), {})))])
    assert "NOT CALIBRATED" in page
    assert "199 more would do" in page
    assert "No row is labelled unsafe" in page


def test_without_the_renderer_the_page_has_its_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stanchion.evals.report.charts.available", lambda: False)
    page = render_calibrations([report_of(scored((benign(400), {})))])
    assert "<svg" not in page
    assert page.count("<table>") >= 2


def test_rows_carry_what_matters_and_nothing_is_guessed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [
        {"text": "a", "label": "unsafe", "lang": "de", "origin": "retrieved", "group": 7},
        {"text": "b", "label": False, "context": {"documents": "one", "question": ["q"]}},
        {"text": "c", "label": 0, "context": "evidence"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second, third = read_rows([path], fields=RowFields(context_as="documents")).rows
    assert (first.label, first.language, first.origin, first.group) == (1, "de", Origin.RETRIEVED, "7")
    assert second.context == {"documents": ("one",), "question": ("q",)}
    assert third.context == {"documents": ("evidence",)}
    assert first.unit == "group:7"
    assert second.unit != third.unit


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"label": 1}, "no text in the field 'text'"),
        ({"text": 5, "label": 1}, "no text"),
        ({"text": "a"}, "no label"),
        ({"text": "a", "label": 2}, "no label (int)"),
        ({"text": "a", "label": [1]}, "no label (list)"),
        ({"text": "a", "label": 0.5}, "no label (float)"),
        ({"text": "a", "label": 0, "origin": "user2"}, "Did you mean 'user'"),
        ({"text": "a", "label": 0, "context": {"documents": [1]}}, "context 'documents' must be"),
    ],
)
def test_a_row_that_cannot_be_used_is_an_error_with_its_line(
    row: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": "fine", "label": 0}) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(DatasetError) as caught:
        read_rows([path])
    assert caught.value.line == 2
    assert said in str(caught.value)


def test_a_recall_needs_unsafe_rows() -> None:
    with pytest.raises(UsageError, match="no row is labelled unsafe"):
        choose(scored((benign(300), {})), Goals(min_recall=0.5))


def test_labels_may_be_numbers_truth_values_or_words(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    labels: list[Any] = [1, 1.0, True, "1", "unsafe", " Unsafe", 0, 0.0, False, "0", "benign", "safe"]
    path.write_text(
        "".join(json.dumps({"text": f"{n}", "label": one}) + "\n" for n, one in enumerate(labels))
    )
    assert [row.label for row in read_rows([path]).rows] == [1] * 6 + [0] * 6
    for wrong in (0.5, 2, "yes", [1], {}):
        path.write_text(json.dumps({"text": "one", "label": wrong}) + "\n")
        with pytest.raises(DatasetError, match="the label is no label"):
            read_rows([path])


def test_no_more_rows_are_read_than_are_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stanchion.detectors.calibration_rows.MOST_ROWS", 10)
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "one"}\n' * 11 + "not JSON, and never reached\n")
    with pytest.raises(DatasetError, match="more than 10 rows"):
        read_rows([], [path])


def test_a_text_with_two_labels_is_told() -> None:
    rows = scored((benign(400), {}), ([0.9], {"label": 1, "text": "text 3"}))
    assert any("1 texts are labelled both" in note for note in report_of(rows).notes)
