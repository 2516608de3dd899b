"""Two runs of the same cases beside each other, for each category and concern."""

from __future__ import annotations

from collections.abc import Iterable

from stanchion.evals.report.model import Comparison, PairedRow, Rate, rate
from stanchion.evals.results import CaseResult, Concern, Outcome, TargetKind, outcome_of
from stanchion.evals.rundata import RunData
from stanchion.evals.verdict import PairedEvidence
from stanchion.stats.comparison import mcnemar_exact, paired_difference

_Cell = tuple[str, Concern, TargetKind]
_Pair = tuple[bool, bool]


def compare_arms(before: RunData, after: RunData, *, names: tuple[str, str]) -> Comparison:
    """Pairs by key; only pairs that were judged in both runs are compared, the rest is counted in a note.

    A row is one concern of one category. `evidence.only_now` counts new failures.
    """
    first = _outcomes(before.results())
    cells: dict[_Cell, list[_Pair]] = {}
    fresh: dict[_Cell, list[str]] = {}
    unpaired = 0
    for result in after.results():
        for concern, now in _judgements(result):
            cell = (result.category or "(none)", concern, result.target_kind)
            was = first.get((*result.key, concern))
            if was is None or not (was.is_judged and now.is_judged):
                unpaired += 1
                continue
            pair = (was is Outcome.UNSAFE, now is Outcome.UNSAFE)
            cells.setdefault(cell, []).append(pair)
            if pair == (False, True):
                fresh.setdefault(cell, []).append(result.case_id)
    order = {concern: index for index, concern in enumerate(Concern)}
    rows = tuple(
        _row(cell, cells[cell], fresh.get(cell, []), baseline=before.header.run_id)
        for cell in sorted(cells, key=lambda c: (c[2].value, order[c[1]], c[0]))
    )
    notes = (f"{unpaired} judgements have no judged twin in the other arm.",) if unpaired else ()
    return Comparison(before=names[0], after=names[1], rows=rows, notes=notes)


def _outcomes(results: Iterable[CaseResult]) -> dict[tuple[str, int, Concern], Outcome]:
    return {(*result.key, concern): outcome for result in results for concern, outcome in _judgements(result)}


def _judgements(result: CaseResult) -> Iterable[tuple[Concern, Outcome]]:
    for concern in Concern:
        outcome = outcome_of(result, concern)
        if outcome is not None:
            yield concern, outcome


def _row(cell: _Cell, pairs: list[_Pair], fresh: list[str], *, baseline: str) -> PairedRow:
    both = sum(was and now for was, now in pairs)
    only_before = sum(was and not now for was, now in pairs)
    only_now = sum(now and not was for was, now in pairs)
    neither = len(pairs) - both - only_before - only_now
    difference = paired_difference(both, only_before, only_now, neither)
    evidence = PairedEvidence(
        baseline_run=baseline,
        pairs=len(pairs),
        only_now=only_now,
        only_before=only_before,
        difference=difference.estimate,
        low=difference.low,
        high=difference.high,
        confidence=difference.confidence,
        method=difference.method,
        p_value=mcnemar_exact(only_before, only_now).p_value,
        new_failures=tuple(fresh),
    )
    category, concern, kind = cell
    return PairedRow(
        category=category,
        concern=concern,
        target_kind=kind,
        before=_rate(both + only_before, pairs),
        after=_rate(both + only_now, pairs),
        evidence=evidence,
    )


def _rate(hits: int, pairs: list[_Pair]) -> Rate:
    return rate(hits, len(pairs))
