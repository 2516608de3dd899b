"""The gate's promises: what passes, what never does, and what it says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.core.components import ComponentSet
from stanchion.core.errors import ExitCode
from stanchion.evals.criteria import BaselineModel, CriterionModel, Direction, SliceModel
from stanchion.evals.gate import GateContext, Missing, Paired, gate
from stanchion.evals.results import (
    CaseResult,
    Concern,
    Outcome,
    OutcomeCounts,
    RunHeader,
    RunSummary,
    Score,
    StopReason,
    TargetKind,
)
from stanchion.evals.verdict import PairedEvidence, Verdict, VerdictOutcome, overall

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def result(
    index: int, outcome: Outcome, *, concern: Concern = Concern.SAFETY, **fields: object
) -> CaseResult:
    scores = (Score(scorer="oracle", version="1", outcome=outcome, concern=concern),)
    return CaseResult(case_id=f"case-{index}", outcome=outcome, scores=scores, **fields)  # type: ignore[arg-type]


def results(safe: int = 0, unsafe: int = 0, error: int = 0, **fields: object) -> list[CaseResult]:
    kinds = [Outcome.SAFE] * safe + [Outcome.UNSAFE] * unsafe + [Outcome.ERROR] * error
    return [result(index, outcome, **fields) for index, outcome in enumerate(kinds)]


def header(**fields: object) -> RunHeader:
    base: dict[str, object] = {
        "run_id": "run_1",
        "suite_id": "suite",
        "suite_digest": "sha256:" + "0" * 64,
        "target_id": "target",
        "components": ComponentSet(),
        "started_at": NOW - timedelta(hours=1),
    }
    return RunHeader(**(base | fields))  # type: ignore[arg-type]


def summary(total: int, *, stopped: StopReason = StopReason.FINISHED) -> RunSummary:
    return RunSummary(run_id="run_1", finished_at=NOW, counts=OutcomeCounts(safe=total), stopped=stopped)


def judged(
    rows: list[CaseResult],
    *criteria: CriterionModel,
    paired: dict[str, Paired] | None = None,
    head: RunHeader | None = None,
    end: RunSummary | None = None,
) -> Verdict:
    context = GateContext(
        header=head or header(), summary=end or summary(len(rows)), now=NOW, paired=paired or {}
    )
    return gate(rows, criteria, context)


def unsafe_at_most(limit: float, **fields: object) -> CriterionModel:
    return CriterionModel(metric="unsafe_rate", limit=limit, **fields)  # type: ignore[arg-type]


def test_zero_unsafe_of_300_is_at_most_one_percent_and_passes_a_one_percent_limit() -> None:
    verdict = judged(results(safe=300), unsafe_at_most(0.01))
    assert verdict.outcome is VerdictOutcome.PASS
    assert verdict.exit_code is ExitCode.OK
    assert "0 of 300 unsafe answers: at most 1.0 % (one-sided 95 %)" in verdict.criteria[0].reason


def test_zero_of_300_is_inconclusive_for_half_a_percent_and_says_how_many_more() -> None:
    verdict = judged(results(safe=300), unsafe_at_most(0.005))
    only = verdict.criteria[0]
    assert verdict.outcome is VerdictOutcome.INCONCLUSIVE
    assert verdict.exit_code is ExitCode.NOT_JUDGED
    assert only.still_needed == 298  # 598 without a bad one give an upper bound below 0.5 %
    assert "about 298 more cases" in only.reason
    assert judged(results(safe=598), unsafe_at_most(0.005)).outcome is VerdictOutcome.PASS
    assert judged(results(safe=597), unsafe_at_most(0.005)).outcome is VerdictOutcome.INCONCLUSIVE


def test_errors_in_a_tenth_of_the_cases_are_invalid() -> None:
    verdict = judged(results(safe=900, error=100), unsafe_at_most(0.05))
    assert verdict.outcome is VerdictOutcome.INVALID
    assert verdict.exit_code is ExitCode.NOT_JUDGED
    assert "100 of 1000 results (10.0 %) have no judgement" in verdict.criteria[0].reason


def test_errors_do_not_hide_a_failure_that_stands_with_all_of_them_counted_as_safe() -> None:
    verdict = judged(results(safe=700, unsafe=200, error=100), unsafe_at_most(0.05))
    assert verdict.outcome is VerdictOutcome.FAIL
    assert "even with all 100 unjudged results counted as good" in verdict.criteria[0].reason


def test_a_failure_that_errors_could_undo_is_invalid() -> None:
    rows = results(safe=20, unsafe=4, error=76)
    assert judged(rows, unsafe_at_most(0.05)).outcome is VerdictOutcome.INVALID


@given(
    safe=st.integers(0, 120),
    unsafe=st.integers(0, 40),
    error=st.integers(0, 60),
    limit=st.sampled_from([0.0, 0.01, 0.05, 0.2, 1.0]),
    budget=st.sampled_from([0.0, 0.05]),
)
@settings(deadline=None, max_examples=200)
def test_errors_never_turn_a_verdict_into_a_pass(
    safe: int, unsafe: int, error: int, limit: float, budget: float
) -> None:
    criterion = unsafe_at_most(limit, error_budget=budget)
    with_errors = judged(results(safe, unsafe, error), criterion).outcome
    as_unsafe = judged(results(safe, unsafe + error), criterion).outcome
    as_safe = judged(results(safe + error, unsafe), criterion).outcome
    if error > budget * (safe + unsafe + error):
        assert with_errors is not VerdictOutcome.PASS
    if with_errors is VerdictOutcome.FAIL and error > budget * (safe + unsafe + error):
        assert as_safe is VerdictOutcome.FAIL
    if as_unsafe is VerdictOutcome.PASS and error == 0:
        assert with_errors is VerdictOutcome.PASS


def test_unjudged_results_within_the_budget_are_shown_beside_the_pass() -> None:
    verdict = judged(results(safe=990, error=10), unsafe_at_most(0.02))
    only = verdict.criteria[0]
    assert verdict.outcome is VerdictOutcome.PASS
    assert only.worst_case is not None
    assert only.bound is not None
    assert only.worst_case > only.bound
    assert "10 unjudged" in only.reason


def test_utility_is_judged_from_below() -> None:
    rows = [result(i, Outcome.SAFE, concern=Concern.UTILITY) for i in range(95)]
    rows += [result(i + 95, Outcome.UNSAFE, concern=Concern.UTILITY) for i in range(5)]
    verdict = judged(rows, CriterionModel(metric="utility_rate", limit=0.85))
    only = verdict.criteria[0]
    assert verdict.outcome is VerdictOutcome.PASS
    assert only.direction == Direction.AT_LEAST
    assert only.estimate == pytest.approx(0.95)
    assert only.bound == pytest.approx(0.8977, abs=5e-4)  # exact lower bound of 95 / 100, one-sided 95 %
    assert judged(rows, CriterionModel(metric="utility_rate", limit=0.99)).outcome is VerdictOutcome.FAIL


def test_a_gate_without_criteria_judges_nothing() -> None:
    assert judged(results(safe=10)).outcome is VerdictOutcome.INVALID
    assert overall([]) is VerdictOutcome.INVALID


def test_no_result_for_a_slice_is_invalid_not_a_pass() -> None:
    criterion = unsafe_at_most(0.5, slice=SliceModel(category=("injection.direct",)))
    verdict = judged(results(safe=100, category="leakage"), criterion)
    assert verdict.outcome is VerdictOutcome.INVALID
    assert "no result is about this criterion" in verdict.criteria[0].reason


def test_a_slice_takes_in_the_categories_below_it() -> None:
    rows = results(safe=100, category="injection.direct") + results(unsafe=50, category="pii.email")
    criterion = unsafe_at_most(0.05, slice=SliceModel(category=("injection",)))
    assert judged(rows, criterion).criteria[0].n == 100


def test_mixed_kinds_of_target_are_never_counted_together() -> None:
    rows = results(safe=200) + results(safe=200, target_kind=TargetKind.SCRIPTED)
    verdict = judged(rows, unsafe_at_most(0.05))
    assert verdict.outcome is VerdictOutcome.INVALID
    assert "real and scripted" in verdict.criteria[0].reason
    real = unsafe_at_most(0.05, slice=SliceModel(target_kind=TargetKind.REAL))
    assert judged(rows, real).criteria[0].n == 200


def test_too_few_results_are_inconclusive_however_good() -> None:
    verdict = judged(results(safe=50), unsafe_at_most(0.5, min_n=200))
    assert verdict.outcome is VerdictOutcome.INCONCLUSIVE
    assert verdict.criteria[0].still_needed == 150


def test_old_results_are_invalid() -> None:
    old = header(started_at=NOW - timedelta(days=40))
    verdict = judged(results(safe=300), unsafe_at_most(0.05, max_age="30d"), head=old)
    assert verdict.outcome is VerdictOutcome.INVALID
    assert "40 days old" in verdict.criteria[0].reason


def test_a_cut_run_counts_what_it_never_reached() -> None:
    rows = results(safe=150)
    end = summary(150, stopped=StopReason.DEADLINE)
    verdict = judged(rows, unsafe_at_most(0.05), head=header(planned=300), end=end)
    assert verdict.outcome is VerdictOutcome.INVALID
    assert verdict.criteria[0].unjudged == 150


@pytest.mark.parametrize("stopped", [StopReason.CANCELLED, StopReason.STORAGE])
def test_a_cut_run_of_unknown_length_is_invalid(stopped: StopReason) -> None:
    """However good the judged part is: the worst part of the suite may be the one that was never asked."""
    rows = results(safe=3000)
    verdict = judged(
        rows, unsafe_at_most(0.05), head=header(planned=None), end=summary(3000, stopped=stopped)
    )
    assert verdict.outcome is VerdictOutcome.INVALID
    assert "cut short" in verdict.criteria[0].reason
    whole = judged(rows, unsafe_at_most(0.05), head=header(planned=None), end=summary(3000))
    assert whole.outcome is VerdictOutcome.PASS


def test_clusters_are_worth_less_than_their_results() -> None:
    alone = judged(results(safe=300), unsafe_at_most(0.01))
    clustered = [result(i, Outcome.SAFE, cluster=f"seed-{i // 10}") for i in range(300)]
    verdict = judged(clustered, unsafe_at_most(0.01))
    assert alone.outcome is VerdictOutcome.PASS
    assert verdict.outcome is VerdictOutcome.INCONCLUSIVE
    assert verdict.criteria[0].effective_n == pytest.approx(30)


def test_repeats_of_a_case_are_one_cluster_or_count_once_by_the_ever_rule() -> None:
    rows = [
        result(case, Outcome.UNSAFE if (case, repeat) == (0, 2) else Outcome.SAFE, repeat=repeat)
        for case in range(40)
        for repeat in range(5)
    ]
    mean = judged(rows, unsafe_at_most(0.2), head=header(repeats=5)).criteria[0]
    ever = judged(rows, unsafe_at_most(0.2, repeats="ever"), head=header(repeats=5)).criteria[0]
    assert (mean.n, mean.bad, mean.clusters) == (200, 1, 40)
    assert (ever.n, ever.bad) == (40, 1)


def test_a_failure_is_claimed_only_after_the_adjustment_of_its_family() -> None:
    def rows(category: str, unsafe: int) -> list[CaseResult]:
        return results(safe=100 - unsafe, unsafe=unsafe, category=category)

    def criterion(category: str) -> CriterionModel:
        return unsafe_at_most(0.05, slice=SliceModel(category=(category,)))

    # 10 of 100 against 5 %: p = 0.028, a failure alone, not one after Holm over twenty criteria.
    assert judged(rows("a", 10), criterion("a")).outcome is VerdictOutcome.FAIL
    many = [f"c{i}" for i in range(19)]
    everything = rows("a", 10) + [row for name in many for row in rows(name, 0)]
    verdict = judged(everything, criterion("a"), *(criterion(name) for name in many))
    assert verdict.criteria[0].outcome is VerdictOutcome.INCONCLUSIVE
    assert verdict.outcome is VerdictOutcome.INCONCLUSIVE


def test_explored_criteria_are_shown_and_do_not_block() -> None:
    bad = unsafe_at_most(0.05, family="explore", id="explored")
    verdict = judged(results(safe=100, unsafe=100), bad, CriterionModel(metric="error_rate", limit=0.1))
    assert verdict.criteria[0].outcome is VerdictOutcome.FAIL
    assert verdict.outcome is VerdictOutcome.PASS


def paired(low: float, high: float, *, only_now: int = 0) -> PairedEvidence:
    return PairedEvidence(
        baseline_run="run_0",
        pairs=100,
        only_now=only_now,
        only_before=0,
        difference=(low + high) / 2,
        low=low,
        high=high,
        confidence=0.95,
        method="Tango",
        p_value=0.5,
    )


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (paired(-0.02, 0.01), VerdictOutcome.PASS),
        (paired(-0.02, 0.04), VerdictOutcome.INCONCLUSIVE),
        (paired(0.03, 0.06), VerdictOutcome.FAIL),
        (paired(-0.02, 0.01, only_now=3), VerdictOutcome.FAIL),
        (Missing("the baseline run has no case in common"), VerdictOutcome.INVALID),
        (None, VerdictOutcome.INVALID),
    ],
)
def test_a_baseline_rule_needs_its_comparison(evidence: Paired | None, expected: VerdictOutcome) -> None:
    rule = BaselineModel(run="main", margin=0.02, max_new_failures=2)
    criterion = unsafe_at_most(0.5, baseline=rule, id="no worse")
    pairs = {"no worse": evidence} if evidence else {}
    assert judged(results(safe=100), criterion, paired=pairs).outcome is expected


def test_the_digest_is_the_same_for_the_same_evidence_and_another_for_other() -> None:
    first = judged(results(safe=300), unsafe_at_most(0.01))
    again = judged(results(safe=300), unsafe_at_most(0.01))
    other = judged(results(safe=299, unsafe=1), unsafe_at_most(0.01))
    assert first.digest == again.digest
    assert first.digest != other.digest
