"""A report for the terminal, as Rich renderables; the caller prints them."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from stanchion.evals.report import wording
from stanchion.evals.report.html import p_value_words
from stanchion.evals.report.model import Arm, Comparison, Report
from stanchion.evals.verdict import CriterionVerdict, Verdict, VerdictOutcome
from stanchion.stats.wording import confidence_level, percent, points_between

STYLE = {
    VerdictOutcome.PASS: "bold green",
    VerdictOutcome.FAIL: "bold red",
    VerdictOutcome.INCONCLUSIVE: "bold yellow",
    VerdictOutcome.INVALID: "bold magenta",
}


def badge(outcome: VerdictOutcome) -> Text:
    """A verdict in its colour; the word says it without the colour too."""
    return Text(outcome.value.upper(), style=STYLE[outcome])


def render_terminal(report: Report) -> RenderableType:
    """The whole report: verdicts first, then the comparison, then each arm's criteria."""
    return Group(*_parts(report))


def _parts(report: Report) -> Iterator[RenderableType]:
    yield Text(report.title, style="bold")
    if report.comparison is not None and report.comparison.rows:
        yield Text()
        yield comparison_table(report.comparison)
        yield from (Text(note, style="dim") for note in report.comparison.notes)
    for arm in report.arms:
        yield Text()
        yield arm_line(arm)
        if arm.verdict is not None:
            yield Padding(criteria_table(arm.verdict.criteria), (0, 0, 0, 2))
        elif arm.slices:
            yield Padding(slices_table(arm), (0, 0, 0, 2))
        yield Text(f"  {arm_facts(arm)}", style="dim")
    for note in report.notes:
        yield Text(f"note: {note}", style="yellow")


def arm_line(arm: Arm) -> Text:
    """Name and verdict of one arm in a line."""
    if arm.verdict is None:
        return Text.assemble((arm.name, "bold"))
    return Text.assemble(badge(arm.verdict.outcome), "  ", (arm.name, "bold"), f"  {arm.verdict.reason}")


def arm_facts(arm: Arm) -> str:
    """Counts, time and cost of one arm in a line."""
    counts = arm.summary.counts
    parts = [f"{counts.judged} of {counts.total} judged"]
    parts += [f"{n} {name}" for name, n in (("errors", counts.error), ("unscored", counts.unscored)) if n]
    if arm.summary.cached:
        parts.append(f"{arm.summary.cached} from cache")
    if arm.summary.reused:
        parts.append(f"{arm.summary.reused} reused")
    if arm.latency.n:
        parts.append(f"model {wording.durations_words(arm.latency)}")
    if arm.guard.n:
        parts.append(f"guard {wording.durations_words(arm.guard)}")
    if arm.summary.cost_usd is not None:
        parts.append(f"{arm.summary.cost_usd:.4f} USD")
    parts.append(wording.seconds(arm.summary.elapsed_s))
    return " · ".join(parts)


def criteria_table(criteria: tuple[CriterionVerdict, ...]) -> Table:
    """One row per criterion; the reason stands under it, so that it can be long."""
    table = _table("criterion", "verdict", "counts", "exact bound", "limit", numeric=(2, 3, 4))
    for one in criteria:
        name = Text.assemble(one.id, ("" if one.is_blocking else " (not blocking)", "dim"))
        table.add_row(
            name,
            badge(one.outcome),
            wording.evidence_words(one),
            wording.bound_words(one),
            wording.limit_words(one),
        )
        if one.outcome is not VerdictOutcome.PASS:
            table.add_row(Text(f"  {one.reason}", style="dim"))
    return table


def explanation(verdict: Verdict) -> Table:
    """Every number of a verdict with its interval, then the digests that it was computed from."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for one in verdict.criteria:
        table.add_row(Text(one.id, style="bold"), badge(one.outcome))
        table.add_row("counts", wording.evidence_words(one) + f" of {one.total} results")
        if one.shown is not None and one.estimate is not None:
            shown = f"{percent(one.estimate)}, {one.shown.describe()}"
            table.add_row("estimate", shown)
        table.add_row("bound", f"{wording.bound_words(one)} (one-sided {confidence_level(one.confidence)})")
        if one.worst_case is not None and one.unjudged:
            table.add_row("worst case", f"{percent(one.worst_case)} with every unjudged result bad")
        if one.effective_n is not None:
            table.add_row("clusters", f"{one.clusters}; worth {one.effective_n:.1f} independent results")
        table.add_row("limit", wording.limit_words(one))
        table.add_row("reason", one.reason)
    for name, value in (
        ("suite", verdict.suite_digest),
        ("results", verdict.results_digest),
        ("criteria", verdict.criteria_digest),
        ("components", verdict.components.digest),
        ("verdict", verdict.digest),
    ):
        table.add_row(name, value)
    return table


def slices_table(arm: Arm) -> Table:
    """Failure rates per category."""
    table = _table("category", "question", "answered by", "failed", "not judged", numeric=(3, 4))
    for row in arm.slices:
        table.add_row(
            row.category,
            wording.CONCERN_TITLE[row.concern],
            wording.kind_words(row.target_kind),
            wording.rate_words(row.failed),
            str(row.unjudged),
        )
    return table


def comparison_table(comparison: Comparison) -> Table:
    """Two arms, case by case the same."""
    columns = ("failures by category", comparison.before, comparison.after, "difference", "p")
    table = _table(*columns, numeric=(1, 2, 3, 4))
    for row in comparison.rows:
        kind = "" if row.target_kind.value == "real" else ", scripted"
        name = Text.assemble(row.category, (f" {wording.CONCERN_TITLE[row.concern]}{kind}", "dim"))
        style = "green" if row.evidence.high < 0 else ("red" if row.evidence.low > 0 else "")
        table.add_row(
            name,
            wording.rate_words(row.before),
            wording.rate_words(row.after),
            Text(points_between(row.evidence.low, row.evidence.high), style=style),
            p_value_words(row.evidence.p_value),
        )
    return table


def _table(*columns: str, numeric: tuple[int, ...] = ()) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index in numeric else "left", overflow="fold")
    return table
