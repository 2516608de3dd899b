from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
import pytest
from eval_doubles import FunctionTarget, harmless, header_for, numbered, result
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.core.errors import UsageError
from stanchion.evals.comparison import Pairs, compare, paired_for
from stanchion.evals.criteria import BaselineModel, CriterionModel, SliceModel
from stanchion.evals.gate import Missing
from stanchion.evals.results import CaseResult, Outcome, OutcomeCounts, RunSummary, TargetKind
from stanchion.evals.rundata import RunData
from stanchion.stats.comparison import mcnemar_exact, paired_difference

HEADER = header_for(numbered(3), FunctionTarget(harmless))
GOOD, BAD = Outcome.SAFE, Outcome.UNSAFE


def run(results: Sequence[CaseResult], name: str = "run_1", kind: TargetKind = TargetKind.REAL) -> RunData:
    header = msgspec.structs.replace(HEADER, run_id=name, target_kind=kind)
    summary = RunSummary(run_id=name, finished_at=datetime(2026, 3, 1, tzinfo=UTC), counts=OutcomeCounts())
    return RunData(header=header, summary=summary, open_results=lambda: iter(results))


def arms(cells: tuple[int, int, int, int], **fields: object) -> tuple[RunData, RunData]:
    states = (
        [(BAD, BAD)] * cells[0]
        + [(BAD, GOOD)] * cells[1]
        + [(GOOD, BAD)] * cells[2]
        + [(GOOD, GOOD)] * cells[3]
    )
    before = [result(n, was, **fields) for n, (was, _) in enumerate(states)]
    after = [result(n, now, **fields) for n, (_, now) in enumerate(states)]
    return run(before), run(after[::-1], "run_2")


@pytest.mark.parametrize("category", ["injection", ""])
def test_the_table_is_that_of_the_pairs_whatever_their_order(category: str) -> None:
    cells = (5, 12, 3, 80)
    found = compare(*arms(cells, category=category))
    (row,) = found.rows
    assert (row.before.hits, row.after.hits, row.before.n) == (17, 8, 100)
    wanted, test = paired_difference(*cells), mcnemar_exact(12, 3)
    evidence = row.evidence
    assert (evidence.difference, evidence.low, evidence.high) == (wanted.estimate, wanted.low, wanted.high)
    assert (evidence.p_value, evidence.only_before, evidence.only_now) == (test.p_value, 12, 3)
    assert evidence.new_failures == ("case-00019", "case-00018", "case-00017")


@settings(deadline=None, max_examples=40)
@given(st.tuples(*[st.integers(0, 12)] * 4).filter(sum))
def test_swapping_the_arms_swaps_the_sign(cells: tuple[int, int, int, int]) -> None:
    before, after = arms(cells)
    forth, back = compare(before, after).rows[0].evidence, compare(after, before).rows[0].evidence
    assert forth.difference == pytest.approx(-back.difference)
    assert (forth.low, forth.high) == (pytest.approx(-back.high), pytest.approx(-back.low))
    assert forth.p_value == pytest.approx(back.p_value)


def test_runs_without_a_shared_case_are_refused() -> None:
    before = run([result(n) for n in range(5)])
    after = run([result(n) for n in range(5, 10)], "run_2")
    with pytest.raises(UsageError, match="share no case"):
        compare(before, after)


def test_a_script_is_not_compared_with_a_real_target() -> None:
    before, after = arms((0, 1, 1, 1))
    scripted = run(list(after.results()), "run_2", TargetKind.SCRIPTED)
    with pytest.raises(UsageError, match="script"):
        compare(before, scripted)
    assert compare(scripted, scripted).rows[0].target_kind is TargetKind.SCRIPTED


def test_what_cannot_be_paired_is_counted_and_told() -> None:
    before = run([result(0), result(1), result(2), result(3, Outcome.ERROR)])
    changed = msgspec.structs.replace(result(1, BAD), case_digest="sha256:" + "0" * 64)
    after = run([result(0), changed, result(3), result(9)], "run_2")
    found = compare(before, after)
    (row,) = found.rows
    assert (row.evidence.pairs, row.evidence.unpaired) == (1, 1)
    notes = " ".join(found.notes)
    assert "1 cases have the same name and another content" in notes
    assert "1 results only in run_1, 1 only in the other" in notes


def test_categories_get_rows_of_their_own_below_the_whole() -> None:
    def named(n: int, outcome: Outcome) -> CaseResult:
        return msgspec.structs.replace(result(n, outcome), category="a" if n % 2 else "b")

    before = run([named(n, BAD) for n in range(10)])
    after = run([named(n, GOOD if n % 2 else BAD) for n in range(10)], "run_2")
    rows = {row.category: (row.before.hits, row.after.hits) for row in compare(before, after).rows}
    assert rows == {"all": (10, 5), "a": (5, 0), "b": (5, 5)}


def test_repeats_and_clusters_do_not_count_as_independent_pairs() -> None:
    """Ten cases asked ten times each, one of them changed in all its repeats: one change, not ten."""
    before = [result(n, GOOD, repeat=r) for n in range(10) for r in range(10)]
    after = [result(n, BAD if n == 0 else GOOD, repeat=r) for n in range(10) for r in range(10)]
    evidence = compare(run(before), run(after, "run_2")).rows[0].evidence
    assert (evidence.only_now, evidence.pairs) == (10, 100)
    assert evidence.p_value == mcnemar_exact(0, 1).p_value == 1.0
    assert evidence.low < 0 < evidence.high
    assert "clusters" in evidence.method


def test_many_clusters_are_resampled() -> None:
    before = [result(n, GOOD, cluster=f"k{n // 4}") for n in range(400)]
    after = [result(n, BAD if n % 16 == 0 else GOOD, cluster=f"k{n // 4}") for n in range(400)]
    evidence = compare(run(before), run(after, "run_2")).rows[0].evidence
    assert "bootstrap" in evidence.method
    assert evidence.low < evidence.difference == 25 / 400 < evidence.high


def test_pairs_count_only_what_was_judged_in_both_runs() -> None:
    pairs = Pairs()
    for before, after in ((GOOD, BAD), (Outcome.ERROR, BAD), (GOOD, Outcome.UNSCORED), (BAD, BAD)):
        pairs.add(before, after, case_id="c", cluster=f"{before}{after}")
    assert (pairs.cells, pairs.unpaired) == ((1, 0, 1, 0), 2)


def criterion(**fields: object) -> CriterionModel:
    return CriterionModel(metric="unsafe_rate", limit=0.5, baseline=BaselineModel(run="run_1"), **fields)  # type: ignore[arg-type]


def test_a_criterion_gets_the_pairs_of_its_slice() -> None:
    before, after = arms((0, 6, 1, 13))
    paired = paired_for(criterion(), before, after)
    assert not isinstance(paired, Missing)
    assert (paired.pairs, paired.only_before, paired.only_now) == (20, 6, 1)
    outside = paired_for(criterion(slice=SliceModel(category=("other",))), before, after)
    assert isinstance(outside, Missing)


def test_a_baseline_that_cannot_be_paired_is_missing_with_a_reason() -> None:
    before, after = run([result(1)]), run([result(2)], "run_2")
    paired = paired_for(criterion(), before, after)
    assert isinstance(paired, Missing)
    assert "share no case" in paired.reason
