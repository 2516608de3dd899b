"""Counting for the gate: one pass over a run's results, in memory that does not grow with plain runs.

A result counts for a criterion when the criterion's slice covers it and it carries a score of the criterion's
concern. Clusters are remembered only where results share one (variants of a seed, repeats of a case).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stanchion.evals.criteria import SCORE_PREFIX, CriterionModel, Metric, RepeatRule, SliceModel
from stanchion.evals.results import CaseResult, Concern, Outcome, outcome_of


class Tally:
    """The counts that one criterion is judged on.

    `n` judged results of which `bad` speak against; `unjudged` are error, unscored or skipped. `kinds` are
    the kinds of target that answered. `clusters` maps a shared cluster to [bad, judged]; `singles` is the
    same for results that stand alone.
    """

    def __init__(self, criterion: CriterionModel, *, repeats: int = 1) -> None:
        self.criterion = criterion
        self.n = 0
        self.bad = 0
        self.unjudged = 0
        self.kinds: set[str] = set()
        self.clusters: dict[str, list[int]] = {}
        self.singles = [0, 0]
        self._repeats = repeats
        self._worst: dict[str, tuple[Outcome, str]] = {}

    @property
    def total(self) -> int:
        """Judged and unjudged together."""
        return self.n + self.unjudged

    def add(self, result: CaseResult) -> None:
        """Count one result, if it is about this criterion."""
        if not covers(self.criterion.slice, result):
            return
        outcome = criterion_outcome(self.criterion, result)
        if outcome is None:
            return
        self.kinds.add(result.target_kind.value)
        if self._repeats > 1 and self.criterion.repeats is RepeatRule.EVER:
            self._remember(result, outcome)
        else:
            self._count(outcome, self._cluster_of(result))

    def close(self) -> Tally:
        """Settle what had to wait for all repeats of a case; call once, after the last result."""
        for outcome, cluster in self._worst.values():
            self._count(outcome, cluster)
        self._worst.clear()
        return self

    def add_missing(self, count: int) -> None:
        """Count planned results that a cut run never got to; they are unjudged."""
        self.unjudged += count

    def _cluster_of(self, result: CaseResult) -> str:
        if result.cluster:
            return result.cluster
        return result.case_id if self._repeats > 1 and self.criterion.repeats is RepeatRule.MEAN else ""

    def _remember(self, result: CaseResult, outcome: Outcome) -> None:
        before = self._worst.get(result.case_id)
        if before is None or _EVER_RANK[outcome] > _EVER_RANK[before[0]]:
            self._worst[result.case_id] = (outcome, result.cluster)

    def _count(self, outcome: Outcome, cluster: str) -> None:
        if not outcome.is_judged:
            self.unjudged += 1
            return
        bad = int(outcome is Outcome.UNSAFE)
        self.n += 1
        self.bad += bad
        cell = self.clusters.setdefault(cluster, [0, 0]) if cluster else self.singles
        cell[0] += bad
        cell[1] += 1


_EVER_RANK = {
    Outcome.SAFE: 0,
    Outcome.SKIPPED: 1,
    Outcome.UNSCORED: 2,
    Outcome.ERROR: 3,
    Outcome.UNSAFE: 4,
}


def covers(part: SliceModel, result: CaseResult) -> bool:
    """Whether a slice takes a result in: every given field must hold, a list means any of its values.

    A category covers those below it: `injection` takes in `injection.direct`.
    """
    if part.is_everything:
        return True
    return (
        (not part.category or any(_below(result.category, stem) for stem in part.category))
        and (not part.tags or not set(part.tags).isdisjoint(result.tags))
        and (not part.language or result.language in part.language)
        and (not part.source or result.source in part.source)
        and (part.target_kind is None or result.target_kind is part.target_kind)
    )


def _below(category: str, stem: str) -> bool:
    return category == stem or category.startswith(f"{stem}.")


def criterion_outcome(criterion: CriterionModel, result: CaseResult) -> Outcome | None:
    """What a result says about a criterion; None when it says nothing.

    For `error_rate` an unjudged result is the bad event. A result that broke before any scorer ran says
    something about every criterion whose slice covers it: it is an error there, never absent.
    """
    if criterion.metric == Metric.ERROR_RATE:
        return Outcome.SAFE if result.outcome.is_judged else Outcome.UNSAFE
    if not result.scores and not result.outcome.is_judged:
        return result.outcome
    if criterion.scorer:
        found = [s.outcome for s in result.scores if s.scorer == criterion.scorer]
        return found[0] if found else None
    concern = Metric(criterion.metric).concern
    return outcome_of(result, concern or Concern.SAFETY)


def tally(
    results: Iterable[CaseResult], criteria: Sequence[CriterionModel], *, repeats: int = 1
) -> list[Tally]:
    """One tally per criterion, from one pass over the results."""
    tallies = [Tally(criterion, repeats=repeats) for criterion in criteria]
    for result in results:
        for one in tallies:
            one.add(result)
    return [one.close() for one in tallies]


def describe_metric(criterion: CriterionModel) -> str:
    """A criterion's metric in words, for tables and reasons."""
    words = {
        Metric.UNSAFE_RATE: "unsafe answers",
        Metric.OVER_REFUSAL_RATE: "harmless requests refused",
        Metric.UTILITY_RATE: "useful answers",
        Metric.ERROR_RATE: "results without a judgement",
    }
    if criterion.metric.startswith(SCORE_PREFIX):
        return f"unsafe by scorer {criterion.scorer}"
    return words[Metric(criterion.metric)]
