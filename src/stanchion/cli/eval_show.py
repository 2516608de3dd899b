"""What `stanchion eval show` and `eval compare` print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stanchion.cli.output import OutputFormat, out_console, print_json
from stanchion.core.errors import UsageError

if TYPE_CHECKING:
    from stanchion.evals.report.model import Comparison
    from stanchion.evals.results import CaseResult
    from stanchion.evals.rundata import RunData
    from stanchion.evals.runlog import RunFolder

_SHOWN_FAILURES = 40
_SHOWN_RUNS = 50


def verified(folder: Path) -> int:
    """How many records of a run fit its chain.

    Raises:
        IntegrityError: when one does not.
    """
    from stanchion.evals.runlog import RunReader

    with RunReader(folder) as reader:
        return reader.verify()


def print_runs(folder: RunFolder, output_format: OutputFormat) -> None:
    """The runs, newest first."""
    rows = [_run_row(folder.path(run_id)) for run_id in reversed(folder.ids()[-_SHOWN_RUNS:])]
    if output_format is OutputFormat.JSON:
        print_json(rows)
        return
    console = out_console()
    if not rows:
        console.print(f"No runs in {folder.root}. Make one: stanchion eval run suite.yaml")
        return
    table = _table("run", "suite", "target", "results", "unsafe", "ended")
    table.columns[0].no_wrap = True
    for row in rows:
        table.add_row(
            row["run"], row["suite"], row["target"], f"{row['results']:,}", f"{row['unsafe']:,}", row["ended"]
        )
    console.print(table)


def print_case(folder: Path, name: str, output_format: OutputFormat) -> None:
    """Everything that is kept of a case, one result per repeat.

    Raises:
        UsageError: when the run has no such case.
        IntegrityError: when the run's log was changed.
    """
    from stanchion.evals.runlog import RunReader

    with RunReader(folder) as reader:
        reader.verify()
        results = reader.find(name)
        run_id = reader.header.run_id
    if not results:
        raise UsageError(
            f"run {run_id} has no case {name!r}, or more than one begins so.",
            hint=f"See the failures: stanchion eval show {run_id}",
        )
    if output_format is OutputFormat.JSON:
        print_json(results)
        return
    console = out_console()
    for result in results:
        for line in _case_lines(result):
            console.print(line, markup=False, soft_wrap=True)


def print_failures(run: RunData) -> None:
    """The results that failed or could not be judged, with the command that shows one whole."""
    from stanchion.evals.report.model import summarise

    arm = summarise(run, max_failures=_SHOWN_FAILURES)
    if not arm.failures:
        return
    console = out_console()
    table = _table("case", "category", "outcome", "scorer", "reason")
    table.columns[0].no_wrap = True
    for failure in arm.failures:
        table.add_row(
            failure.case_id, failure.category, failure.outcome.value, failure.scorer, failure.reason
        )
    console.print()
    console.print(table, markup=False)
    if arm.failures_left_out:
        console.print(f"and {arm.failures_left_out:,} more", style="dim")
    first = arm.failures[0].case_id
    look = f"Look closer: stanchion eval show {run.header.run_id} {first}"
    console.print(look, style="dim", markup=False, soft_wrap=True)


def print_confusion(run: RunData) -> None:
    """Recall, precision and false alarms of a labelled run, each with its interval; nothing for others."""
    from stanchion.evals.confusion import DETECTION, confusion

    if DETECTION not in run.header.scorers:
        return
    table = confusion(run.results())
    rates = {
        "recall": (table.found, table.recall),
        "precision": (table.found, table.precision),
        "false alarms": (table.false_alarms, table.false_alarm_rate),
    }
    for name, (hits, interval) in rates.items():
        if interval is not None:
            share = f"{100 * hits / (interval.n or 1):.1f} %"
            out_console().print(f"{name:<13} {share:>7}  {interval.describe()}", markup=False)


def print_comparison(comparison: Comparison) -> None:
    """The paired table with its notes, then the cases that fail now and did not before."""
    from stanchion.evals.report.terminal import comparison_table

    console = out_console()
    console.print(comparison_table(comparison))
    for row in comparison.rows:
        if row.category == "all" and row.evidence.new_failures:
            shown = ", ".join(row.evidence.new_failures[:10])
            more = row.evidence.only_now - len(row.evidence.new_failures[:10])
            rest = f" and {more} more" if more > 0 else ""
            console.print(f"new failures ({row.concern.value}): {shown}{rest}", markup=False)
    for line in comparison.notes:
        console.print(line, style="dim", markup=False)


def _run_row(folder: Path) -> dict[str, Any]:
    from stanchion.evals.runlog import RunReader

    with RunReader(folder) as reader:
        counts, summary, header = reader.counts(), reader.summary, reader.header
        ended = "still running" if reader.is_being_written else "cut off"
    return {
        "run": header.run_id,
        "suite": header.suite_id,
        "target": header.target_id,
        "started_at": header.started_at,
        "results": sum(counts.values()),
        "unsafe": counts.get("unsafe", 0),
        "ended": summary.stopped.value if summary is not None else ended,
    }


def _case_lines(result: CaseResult) -> list[str]:
    repeat = f" repeat {result.repeat}" if result.repeat else ""
    lines = [f"{result.outcome.value.upper()}  {result.case_id}{repeat}  {result.category}"]
    facts = {
        "request": result.request_digest,
        "reply": result.reply_digest,
        "latency": f"{result.latency_ms:.1f} ms" if result.latency_ms is not None else "",
        "guard": f"{result.effect.value} {' '.join(result.rule_ids)}" if result.effect else "",
        "answer": "from the cache" if result.is_cached else "taken over" if result.reused_from else "",
        "error": result.error,
        "reason": result.reason,
    }
    lines += [f"  {name:<8} {value}" for name, value in facts.items() if value]
    for score in result.scores:
        lines.append(f"  {score.outcome.value:<8} {score.scorer} ({score.concern.value}) {score.reason}")
        for finding in score.findings:
            place = f"{finding.location.field}[{finding.location.start}:{finding.location.end}]"
            lines.append(f"           {finding.category} {finding.score:.2f} at {place} {finding.rule}")
    if result.transcript is None:
        return [*lines, "  no words are kept of this result"]
    for turn in (*result.transcript.turns, *result.transcript.reply):
        name = f" {turn.name}" if turn.name else ""
        lines.append(f"  {turn.kind}{name}:")
        lines += [f"    {line}" for line in turn.text.splitlines()]
    return lines


def _table(*columns: str) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column, justify="right" if column in ("results", "unsafe") else "left")
    return table
