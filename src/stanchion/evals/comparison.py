"""Two runs of the same cases against each other, case by case.

Pairing is by key and repeat. Two runs that could be paired are never compared as if they were not: that would
throw away what makes a small difference visible, or make one up where the cases differ.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from stanchion.core.errors import UsageError
from stanchion.evals.criteria import CriterionModel
from stanchion.evals.gate import Missing, Paired
from stanchion.evals.report.model import Comparison, PairedRow, rate
from stanchion.evals.results import CaseResult, Concern, Outcome, TargetKind, outcome_of
from stanchion.evals.rundata import RunData
from stanchion.evals.tally import covers, criterion_outcome
from stanchion.evals.verdict import PairedEvidence
from stanchion.stats.comparison import mcnemar_exact, paired_difference

_ALL = ""  # the key of a concern's own row, over all categories
_NO_CATEGORY = "(none)"
_SHOWN_FAILURES = 20
_LEAST_CHANGED = 10
_LEAST_CLUSTERS = 40
_SEED = 20_260
Question = Callable[[CaseResult], Outcome | None]


@dataclass(slots=True)
class Pairs:
    """The outcomes of one question in two runs; bad = unsafe. Only pairs judged in both are counted.

    `states` holds per cluster how many of its pairs are (bad, bad), (bad, good), (good, bad), (good, good).
    """

    states: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0, 0, 0]))
    new_failures: list[str] = field(default_factory=list)
    unpaired: int = 0
    is_clustered: bool = False

    def add(self, before: Outcome, after: Outcome, *, case_id: str, cluster: str) -> None:
        """Count one case that is in both runs; unpaired when one of the two is no judgement."""
        if not (before.is_judged and after.is_judged):
            self.unpaired += 1
            return
        was_bad, is_bad = before is Outcome.UNSAFE, after is Outcome.UNSAFE
        cells = self.states[cluster]
        self.is_clustered = self.is_clustered or sum(cells) > 0
        cells[2 * (not was_bad) + (not is_bad)] += 1
        if is_bad and not was_bad:
            self.new_failures.append(case_id)

    @property
    def cells(self) -> tuple[int, int, int, int]:
        """(bad, bad), (bad, good), (good, bad), (good, good) over all pairs."""
        columns = list(zip(*self.states.values(), strict=True)) or [(), (), (), ()]
        both, only_before, only_after, neither = (sum(column) for column in columns)
        return both, only_before, only_after, neither

    @property
    def count(self) -> int:
        """How many pairs were judged in both runs."""
        return sum(self.cells)

    def evidence(self, baseline_run: str, *, confidence: float = 0.95) -> PairedEvidence:
        """The difference with its interval, and the exact test.

        Raises:
            UsageError: without a single pair.
        """
        both, only_before, only_after, neither = self.cells
        estimate, low, high, method = self._interval(confidence)
        b, c = self._changed_units()
        return PairedEvidence(
            baseline_run=baseline_run,
            pairs=both + only_before + only_after + neither,
            only_now=only_after,
            only_before=only_before,
            difference=estimate,
            low=low,
            high=high,
            confidence=confidence,
            method=method,
            p_value=mcnemar_exact(b, c).p_value,
            unpaired=self.unpaired,
            new_failures=tuple(self.new_failures[:_SHOWN_FAILURES]),
        )

    def _changed_units(self) -> tuple[int, int]:
        """How many independent units got better and worse: pairs, or clusters by their net change."""
        if not self.is_clustered:
            _, better, worse, _ = self.cells
            return better, worse
        net = [cells[2] - cells[1] for cells in self.states.values()]
        return sum(n < 0 for n in net), sum(n > 0 for n in net)

    def _interval(self, confidence: float) -> tuple[float, float, float, str]:
        both, only_before, only_after, neither = self.cells
        if not self.is_clustered:
            found = paired_difference(both, only_before, only_after, neither, confidence=confidence)
            return found.estimate, found.low, found.high, found.method
        if only_before + only_after >= _LEAST_CHANGED and len(self.states) >= _LEAST_CLUSTERS:
            with contextlib.suppress(UsageError):  # no two clusters differ: nothing to resample
                return self._bootstrap(confidence)
        counts = [0, 0, 0, 0]
        for cells in self.states.values():
            was_bad, is_bad = cells[0] + cells[1] > 0, cells[0] + cells[2] > 0
            counts[2 * (not was_bad) + (not is_bad)] += 1
        found = paired_difference(*counts, confidence=confidence)
        method = f"{found.method} over {len(self.states)} clusters, any bad counts"
        return found.estimate, found.low, found.high, method

    def _bootstrap(self, confidence: float) -> tuple[float, float, float, str]:
        import numpy as np

        from stanchion.stats.bootstrap import paired_cluster_bootstrap

        first: list[float] = []
        second: list[float] = []
        clusters: list[str] = []
        for cluster, cells in self.states.items():
            for state, count in enumerate(cells):
                first += [float(state < 2)] * count
                second += [float(state % 2 == 0)] * count
                clusters += [cluster] * count
        rng = np.random.default_rng(_SEED)
        found = paired_cluster_bootstrap(first, second, clusters, rng=rng, confidence=confidence)
        return found.estimate, found.low, found.high, f"cluster bootstrap ({found.method})"


def paired_for(criterion: CriterionModel, before: RunData, after: RunData) -> Paired:
    """What a criterion's baseline rule asks for; the reason when it cannot be had."""

    def question(result: CaseResult) -> Outcome | None:
        return criterion_outcome(criterion, result) if covers(criterion.slice, result) else None

    try:
        _check_comparable(before, after)
        pairs, _ = _paired(before, after, {"": question})
        return pairs[""].evidence(before.header.run_id, confidence=criterion.confidence)
    except (KeyError, UsageError) as error:
        why = error.message if isinstance(error, UsageError) else "no case of the slice is in both runs"
        return Missing(reason=f"no paired comparison with {before.header.run_id}: {why}")


def compare(before: RunData, after: RunData) -> Comparison:
    """Every concern of every category that both runs judged, and all of a concern together first.

    Raises:
        UsageError: when no case is in both runs, or one run is a script's and the other a real target's.
    """
    _check_comparable(before, after)
    categories: dict[str, str] = {}
    pairs: dict[tuple[Concern, str], Pairs] = defaultdict(Pairs)
    earlier, notes = _remembered(before), []
    seen = changed = missing = 0
    for result in after.results():
        known = earlier.pop(result.key, None)
        if known is None:
            missing += 1
            continue
        if known.case_digest != result.case_digest:
            changed += 1
            continue
        seen += 1
        for concern in Concern:
            now, then = outcome_of(result, concern), outcome_of(known, concern)
            if now is None or then is None:
                continue
            for category in (_ALL, result.category or _NO_CATEGORY):
                pairs[concern, category].add(then, now, case_id=result.case_id, cluster=cluster_of(result))
        categories.setdefault(result.category, result.category)
    if not seen:
        raise _nothing_shared(before, after)
    if changed:
        notes.append(f"{changed} cases have the same name and another content; they are left out")
    if missing or earlier:
        notes.append(f"{len(earlier)} results only in {before.header.run_id}, {missing} only in the other")
    rows = [
        _row(concern, category or "all", found, runs=(before, after))
        for (concern, category), found in sorted(pairs.items())
        if found.count and (category == _ALL or len(categories) > 1)
    ]
    return Comparison(
        before=before.title or before.header.target_id,
        after=after.title or after.header.target_id,
        rows=tuple(rows),
        notes=(*notes, *_component_notes(before, after)),
    )


def cluster_of(result: CaseResult) -> str:
    """What a result shares its luck with: its cluster, else its case (whose repeats go together)."""
    return f"cluster:{result.cluster}" if result.cluster else f"case:{result.key[0]}"


def _row(concern: Concern, category: str, found: Pairs, *, runs: tuple[RunData, RunData]) -> PairedRow:
    both, only_before, only_after, _ = found.cells
    before, after = runs
    return PairedRow(
        category=category,
        concern=concern,
        target_kind=after.header.target_kind,
        before=rate(both + only_before, found.count),
        after=rate(both + only_after, found.count),
        evidence=found.evidence(before.header.run_id),
    )


def _paired(before: RunData, after: RunData, questions: dict[str, Question]) -> tuple[dict[str, Pairs], int]:
    earlier = _remembered(before)
    pairs: dict[str, Pairs] = {}
    shared = 0
    for result in after.results():
        known = earlier.get(result.key)
        if known is None or known.case_digest != result.case_digest:
            continue
        shared += 1
        for name, question in questions.items():
            now, then = question(result), question(known)
            if now is not None and then is not None:
                one = pairs.setdefault(name, Pairs())
                one.add(then, now, case_id=result.case_id, cluster=cluster_of(result))
    if not shared:
        raise _nothing_shared(before, after)
    return pairs, shared


def _remembered(run: RunData) -> dict[tuple[str, int], CaseResult]:
    """The results by key, without what a comparison does not read."""
    return {result.key: _slim(result) for result in run.results()}


def _slim(result: CaseResult) -> CaseResult:
    return CaseResult(
        case_id=result.case_id,
        case_digest=result.case_digest,
        outcome=result.outcome,
        category=result.category,
        tags=result.tags,
        language=result.language,
        source=result.source,
        target_kind=result.target_kind,
        scores=result.scores,
    )


def _check_comparable(before: RunData, after: RunData) -> None:
    kinds = {before.header.target_kind, after.header.target_kind}
    if kinds == {TargetKind.REAL, TargetKind.SCRIPTED}:
        raise UsageError(
            "one of the two runs is a script's, the other a real target's, so nothing can be compared.",
            hint="Compare runs of the same kind.",
        )


def _nothing_shared(before: RunData, after: RunData) -> UsageError:
    same_suite = before.header.suite_id == after.header.suite_id
    return UsageError(
        f"runs {before.header.run_id} and {after.header.run_id} share no case, so they cannot be paired.",
        hint="Every case of the suite changed; run the old target again on the new suite."
        if same_suite
        else f"They are of the suites {before.header.suite_id!r} and {after.header.suite_id!r}.",
    )


def _component_notes(before: RunData, after: RunData) -> Iterable[str]:
    yield "p-values stand for single rows; they are not corrected for the number of rows"
    kinds = after.header.components.changed_from(before.header.components)
    if kinds:
        yield f"changed between the runs: {', '.join(kind.value for kind in kinds)}"
    for run in (before, after):
        if not run.summary.is_complete:
            yield f"run {run.header.run_id} is not complete: {run.summary.stopped.value}"
