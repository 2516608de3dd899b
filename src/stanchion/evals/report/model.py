"""What a report says, before it is drawn: the same facts for the terminal, JSON, Markdown and HTML.

Built in one pass over a run's results. Every rate carries its counts and interval; a slice of scripted
answers is kept apart from a real model's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec

from stanchion.core.decision import Effect
from stanchion.evals.results import (
    CaseResult,
    Concern,
    Outcome,
    RunHeader,
    RunSummary,
    Score,
    TargetKind,
    Transcript,
    outcome_of,
)
from stanchion.evals.rundata import RunData
from stanchion.evals.verdict import PairedEvidence, Verdict
from stanchion.stats.intervals import Interval, wilson

MAX_FAILURES = 50


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """`hits` of `n`, with the two-sided 95 % Wilson interval; no interval when n is 0."""

    hits: int
    n: int
    interval: Interval | None

    @property
    def estimate(self) -> float | None:
        """The share, None when nothing was judged."""
        return self.hits / self.n if self.n else None


def rate(hits: int, n: int) -> Rate:
    """A rate with its interval."""
    return Rate(hits=hits, n=n, interval=wilson(hits, n) if n else None)


class SliceRow(msgspec.Struct, frozen=True, kw_only=True):
    """One category of one concern: how often the concern failed among judged results."""

    category: str
    concern: Concern
    target_kind: TargetKind
    failed: Rate
    unjudged: int


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """One result that failed or could not be judged, as much as may be shown."""

    case_id: str
    repeat: int
    category: str
    outcome: Outcome
    concern: str
    scorer: str
    reason: str
    effect: Effect | None = None
    rule_ids: tuple[str, ...] = ()
    transcript: Transcript | None = None


class Durations(msgspec.Struct, frozen=True, kw_only=True):
    """Quantiles of a duration in milliseconds over `n` results; None when none was measured."""

    n: int = 0
    p50_ms: float | None = None
    p95_ms: float | None = None
    max_ms: float | None = None


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the report.

    `latency` is over answers that the target gave now (cached and reused ones are left out); `guard` is the
    time the guard's checks took.
    """

    name: str
    header: RunHeader
    summary: RunSummary
    slices: tuple[SliceRow, ...]
    failures: tuple[Failure, ...]
    failures_left_out: int
    latency: Durations
    guard: Durations
    effects: dict[str, int]
    verdict: Verdict | None = None
    location: str = ""


class PairedRow(msgspec.Struct, frozen=True, kw_only=True):
    """The same cases in two runs, for one concern of one category; rates are of failures."""

    category: str
    concern: Concern
    target_kind: TargetKind
    before: Rate
    after: Rate
    evidence: PairedEvidence


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two arms against each other, paired case by case."""

    before: str
    after: str
    rows: tuple[PairedRow, ...]
    notes: tuple[str, ...] = ()


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a report shows."""

    title: str
    made_at: datetime
    version: str
    arms: tuple[Arm, ...]
    comparison: Comparison | None = None
    notes: tuple[str, ...] = ()
    facts: dict[str, str] = msgspec.field(default_factory=dict)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The verdicts of all arms that have one."""
        return tuple(arm.verdict for arm in self.arms if arm.verdict is not None)


class _Cell:
    """Counts of one slice while results stream by."""

    __slots__ = ("bad", "judged", "unjudged")

    def __init__(self) -> None:
        self.bad = self.judged = self.unjudged = 0

    def add(self, outcome: Outcome) -> None:
        if outcome.is_judged:
            self.judged += 1
            self.bad += outcome is Outcome.UNSAFE
        else:
            self.unjudged += 1


def summarise(run: RunData, *, name: str = "", max_failures: int = MAX_FAILURES) -> Arm:
    """One pass over a run: slices, failures, durations."""
    cells: dict[tuple[str, Concern, TargetKind], _Cell] = {}
    failures: list[Failure] = []
    left_out = 0
    latencies: list[float] = []
    guard_times: list[float] = []
    effects: dict[str, int] = {}
    for result in run.results():
        _count(result, cells)
        if result.outcome is not Outcome.SAFE:
            if len(failures) < max_failures:
                failures.append(_failure(result))
            else:
                left_out += 1
        if result.latency_ms is not None and not result.is_cached and not result.reused_from:
            latencies.append(result.latency_ms)
        if result.guard_ms is not None:
            guard_times.append(result.guard_ms)
        if result.effect is not None:
            effects[result.effect.value] = effects.get(result.effect.value, 0) + 1
    return Arm(
        name=name or run.title or run.header.target_id,
        header=run.header,
        summary=run.summary,
        slices=tuple(_rows(cells)),
        failures=tuple(failures),
        failures_left_out=left_out,
        latency=durations(latencies),
        guard=durations(guard_times),
        effects=dict(sorted(effects.items())),
        verdict=run.verdict,
        location=run.location,
    )


def _count(result: CaseResult, cells: dict[tuple[str, Concern, TargetKind], _Cell]) -> None:
    broke = not result.scores and not result.outcome.is_judged
    for concern in Concern:
        outcome = result.outcome if broke and concern is Concern.SAFETY else outcome_of(result, concern)
        if outcome is None:
            continue
        key = (result.category or "(none)", concern, result.target_kind)
        cell = cells.get(key)
        if cell is None:
            cell = cells[key] = _Cell()
        cell.add(outcome)


def _rows(cells: dict[tuple[str, Concern, TargetKind], _Cell]) -> Iterable[SliceRow]:
    order = {concern: index for index, concern in enumerate(Concern)}
    for key in sorted(cells, key=lambda k: (k[2].value, order[k[1]], k[0])):
        category, concern, kind = key
        cell = cells[key]
        failed = rate(cell.bad, cell.judged)
        yield SliceRow(
            category=category, concern=concern, target_kind=kind, failed=failed, unjudged=cell.unjudged
        )


def _failure(result: CaseResult) -> Failure:
    telling = next((s for s in result.scores if s.outcome is result.outcome), None)
    return Failure(
        case_id=result.case_id,
        repeat=result.repeat,
        category=result.category,
        outcome=result.outcome,
        concern=telling.concern.value if telling else "",
        scorer=telling.scorer if telling else "",
        reason=_reason(result, telling),
        effect=result.effect,
        rule_ids=result.rule_ids,
        transcript=result.transcript,
    )


def _reason(result: CaseResult, telling: Score | None) -> str:
    """What broke, where something did; else what the telling scorer says."""
    broke = (result.reason or result.error) if result.error else ""
    return broke or (telling.reason if telling else "") or result.reason


def durations(values_ms: Sequence[float]) -> Durations:
    """Median, 95th percentile (nearest rank) and maximum."""
    if not values_ms:
        return Durations()
    ordered = sorted(values_ms)

    def at(share: float) -> float:
        return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]

    return Durations(n=len(ordered), p50_ms=at(0.5), p95_ms=at(0.95), max_ms=ordered[-1])


def build_report(
    runs: Sequence[RunData],
    *,
    title: str,
    made_at: datetime,
    version: str,
    comparison: Comparison | None = None,
    notes: Sequence[str] = (),
    facts: dict[str, str] | None = None,
) -> Report:
    """The report of one run, or of several beside each other."""
    return Report(
        title=title,
        made_at=made_at,
        version=version,
        arms=tuple(summarise(run) for run in runs),
        comparison=comparison,
        notes=tuple(notes),
        facts=facts or {},
    )
