"""A report for the terminal, as Rich renderables; the caller prints them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
    facts = "".join(f" · {value}" for value in report.facts.values())
    yield Text.assemble((report.title, "bold"), (facts, "dim"))
    for group in _same_criteria(report.arms):
        yield Text()
        yield from _group(group)
    if report.comparison is not None and report.comparison.rows:
        yield Text()
        yield comparison_table(report.comparison)
        yield from (Text(note, style="dim") for note in report.comparison.notes)
    if report.notes:
        yield Text()
        yield from (Padding(Text(note, style="yellow"), (0, 0, 0, 2)) for note in report.notes)


def _same_criteria(arms: Sequence[Arm]) -> list[list[Arm]]:
    """Neighbouring arms that were judged by the same criteria belong in one table."""
    groups: list[list[Arm]] = []
    for arm in arms:
        last = groups[-1][-1].verdict if groups else None
        if last and arm.verdict and last.criteria_digest == arm.verdict.criteria_digest:
            groups[-1].append(arm)
        else:
            groups.append([arm])
    return groups


def _group(arms: Sequence[Arm]) -> Iterator[RenderableType]:
    first = arms[0]
    if first.verdict is None:
        yield arm_line(first)
        if first.slices:
            yield Padding(slices_table(first), (0, 0, 0, 2))
    elif len(arms) == 1:
        yield arm_line(first)
        yield Padding(criteria_table(first.verdict.criteria), (0, 0, 0, 2))
        yield from reasons(first.verdict.criteria)
    else:
        yield arms_table(arms)
        for arm in arms[1:]:
            yield from reasons(arm.verdict.criteria if arm.verdict else (), prefix=arm.name)
    for arm in arms:
        name = f"{arm.name}: " if len(arms) > 1 else ""
        yield Padding(Text(f"{name}{arm_facts(arm)}", style="dim"), (0, 0, 0, 2))
        if same := wording.duplicates_words(arm.summary.duplicates):
            yield Padding(Text(f"{name}{same}", style="yellow"), (0, 0, 0, 2))


def arms_table(arms: Sequence[Arm]) -> Table:
    """Criteria as rows, arms as columns: verdict, counts, and the exact bound that decided."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("criterion", overflow="fold")
    table.add_column("limit", justify="right", no_wrap=True)
    for arm in arms:
        table.add_column(arm.name, overflow="fold", min_width=24)
    verdicts = [arm.verdict for arm in arms if arm.verdict is not None]
    overall = [Text.assemble(badge(verdict.outcome)) for verdict in verdicts]
    table.add_row(Text("verdict", style="bold"), "", *overall)
    for row in zip(*(verdict.criteria for verdict in verdicts), strict=True):
        name = Text.assemble(row[0].id, ("" if row[0].is_blocking else " *", "dim"))
        table.add_row(name, _sign(row[0].direction, f"{100 * row[0].limit:g} %"), *map(_cell, row))
    if any(not one.is_blocking for verdict in verdicts for one in verdict.criteria):
        table.caption = "* shown, does not block. Counts, and the exact one-sided bound."
        table.caption_justify = "left"
    return table


def _cell(one: CriterionVerdict) -> Text:
    """One criterion of one arm: `FAIL 25/32 ≤ 89.3 %`; INCONCL is inconclusive."""
    hits = one.bad if one.direction == "at_most" else one.n - one.bad
    words = wording.bound_words(one).removeprefix("at most ").removeprefix("at least ")
    label = Text(f"{one.outcome.value.upper()[:7]:<7}", style=STYLE[one.outcome])
    return Text.assemble(label, f"{hits}/{one.n}".rjust(6), f"  {_sign(one.direction, words)}")


def _sign(direction: str, bound: str) -> str:
    return f"{'≤' if direction == 'at_most' else '≥'} {bound}"


def reasons(criteria: Sequence[CriterionVerdict], *, prefix: str = "") -> Iterator[RenderableType]:
    """Why criteria did not pass, a paragraph each."""
    for one in criteria:
        if one.outcome is not VerdictOutcome.PASS:
            name = f"{prefix}, {one.id}" if prefix else one.id
            line = Text.assemble(badge(one.outcome), " ", (name, "bold"), f": {one.reason}")
            yield Padding(line, (0, 0, 0, 2))


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
        parts.append(f"answer {wording.durations_words(arm.latency)}")
    if arm.guard.n:
        parts.append(f"guard {wording.durations_words(arm.guard)}")
    if arm.summary.cost_usd is not None:
        parts.append(f"{arm.summary.cost_usd:.4f} USD")
    parts.append(wording.seconds(arm.summary.elapsed_s))
    return " · ".join(parts)


def criteria_table(criteria: Sequence[CriterionVerdict]) -> Table:
    """One row per criterion; `reasons` says more about those that did not pass."""
    table = _table("criterion", "verdict", "counts", "exact bound", "limit", numeric=(2, 3, 4))
    for one in criteria:
        table.add_row(
            Text.assemble(one.id, ("" if one.is_blocking else " (not blocking)", "dim")),
            badge(one.outcome),
            wording.evidence_words(one),
            wording.bound_words(one),
            wording.limit_words(one),
        )
    return table


def explanation(verdict: Verdict) -> Table:
    """Every number of a verdict with its interval; `digest_lines` is the rest of it."""
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
    return table


def digest_lines(verdict: Verdict) -> Iterator[Text]:
    """What a verdict was computed from; to be printed unwrapped, so that a digest can be copied."""
    for name, value in (
        ("suite", verdict.suite_digest),
        ("results", verdict.results_digest),
        ("criteria", verdict.criteria_digest),
        ("components", verdict.components.digest),
        ("verdict", verdict.digest),
    ):
        yield Text.assemble((f"{name:<10}  ", "dim"), value)


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
    """Two arms, case by case the same: counts of failures, and the paired difference with its interval."""
    columns = ("failures, pair by pair", comparison.before, comparison.after, "change, 95 % interval", "p")
    table = _table(*columns, numeric=(1, 2, 3, 4))
    for row in wording.told_rows(comparison):
        kind = "" if row.target_kind.value == "real" else ", scripted"
        name = Text.assemble(row.category, (f" {wording.CONCERN_TITLE[row.concern]}{kind}", "dim"))
        style = "green" if row.evidence.high < 0 else ("red" if row.evidence.low > 0 else "")
        table.add_row(
            name,
            f"{row.before.hits}/{row.before.n}",
            f"{row.after.hits}/{row.after.n}",
            Text(points_between(row.evidence.low, row.evidence.high), style=style),
            p_value_words(row.evidence.p_value),
        )
    return table


def _table(*columns: str, numeric: tuple[int, ...] = ()) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index in numeric else "left", overflow="fold")
    return table
