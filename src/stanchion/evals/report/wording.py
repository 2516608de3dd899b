"""The words that every form of a report shares."""

from __future__ import annotations

from collections import Counter

from stanchion.evals.criteria import SCORE_PREFIX, Metric
from stanchion.evals.report.model import Comparison, Durations, PairedRow, Rate
from stanchion.evals.results import Concern, TargetKind
from stanchion.evals.verdict import CriterionVerdict, VerdictOutcome
from stanchion.stats.wording import at_least, at_most, between, percent

VERDICT_MEANING = {
    VerdictOutcome.PASS: "the evidence shows that the limit holds",
    VerdictOutcome.FAIL: "the evidence shows that the limit does not hold",
    VerdictOutcome.INCONCLUSIVE: "sound evidence, too little of it to say",
    VerdictOutcome.INVALID: "the evidence cannot carry a verdict",
}
CONCERN_TITLE = {
    Concern.SAFETY: "unsafe",
    Concern.OVER_REFUSAL: "wrongly refused",
    Concern.UTILITY: "not useful",
}
_METRIC_TITLE = {
    Metric.UNSAFE_RATE: "unsafe answers",
    Metric.OVER_REFUSAL_RATE: "harmless requests refused",
    Metric.UTILITY_RATE: "useful answers",
    Metric.ERROR_RATE: "results without a judgement",
}


def metric_title(metric: str) -> str:
    """A metric as people read it."""
    if metric.startswith(SCORE_PREFIX):
        return f"unsafe by {metric.removeprefix(SCORE_PREFIX)}"
    return _METRIC_TITLE[Metric(metric)]


def rate_words(value: Rate) -> str:
    """`4 of 30: 13 % (5.3 % to 30 %)`; `not judged` when nothing was."""
    if value.interval is None or value.estimate is None:
        return "not judged"
    bounds = between(value.interval.low, value.interval.high)
    return f"{value.hits} of {value.n}: {percent(value.estimate)} ({bounds})"


def limit_words(verdict: CriterionVerdict) -> str:
    """The limit as written: `at most 5 %`."""
    return f"{'at most' if verdict.direction == 'at_most' else 'at least'} {100 * verdict.limit:g} %"


def bound_words(verdict: CriterionVerdict) -> str:
    """The one-sided bound that decided."""
    if verdict.bound is None:
        return "-"
    return at_most(verdict.bound) if verdict.direction == "at_most" else at_least(verdict.bound)


def evidence_words(verdict: CriterionVerdict) -> str:
    """The counts: `3 of 120` in the metric's own direction, and what was not judged."""
    hits = verdict.bad if verdict.direction == "at_most" else verdict.n - verdict.bad
    unjudged = f", {verdict.unjudged} not judged" if verdict.unjudged else ""
    return f"{hits} of {verdict.n}{unjudged}"


def kind_words(kind: TargetKind) -> str:
    """How the kind of target is told, so that no scripted answer passes for a real one's.

    A real target is whatever the suite asked: a model, a feature, a function.
    """
    return "real target" if kind is TargetKind.REAL else "scripted, not a model"


def milliseconds(value: float | None) -> str:
    """A duration as people read it: `0.31 ms`, `12 ms`, `1.4 s`."""
    if value is None:
        return "-"
    if value >= 1000:
        return f"{value / 1000:.1f} s"
    return f"{value:.0f} ms" if value >= 10 else f"{value:.2f} ms"


def duplicates_words(count: int) -> str:
    """What to say of cases left out because they are the same as another; nothing when none were."""
    if not count:
        return ""
    rows = "row or case was the same case as another and is" if count == 1 else ""
    return f"{count:,} {rows or 'rows or cases were the same case as another and are'} left out"


def durations_words(value: Durations) -> str:
    """Median and tail."""
    if not value.n:
        return "not measured"
    return f"p50 {milliseconds(value.p50_ms)}, p95 {milliseconds(value.p95_ms)} (n = {value.n})"


def seconds(value: float) -> str:
    """An elapsed time as people read it: `4.2 s`, `3 min 05 s`."""
    if value < 60:
        return f"{value:.1f} s"
    whole = round(value)
    return f"{whole // 60} min {whole % 60:02d} s"


def told_rows(comparison: Comparison) -> list[PairedRow]:
    """The rows without a sum over a single category, which would say the same twice."""
    parts = Counter((row.concern, row.target_kind) for row in comparison.rows if row.category != "all")
    return [
        row for row in comparison.rows if row.category != "all" or parts[row.concern, row.target_kind] != 1
    ]


def paired_title(row: PairedRow) -> str:
    """What a row of a comparison is about, with a word where no model answered."""
    kind = "" if row.target_kind is TargetKind.REAL else ", scripted"
    return f"{row.category} ({CONCERN_TITLE[row.concern]}{kind})"
