"""`stanchion gate`: may it be released?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stanchion.cli.output import FormatOption, OutputFormat, out_console, print_json

if TYPE_CHECKING:
    from stanchion.core.clock import Clock
    from stanchion.evals.criteria import CriterionModel
    from stanchion.evals.rundata import RunData


def gate(
    runs: Annotated[
        list[str] | None,
        typer.Argument(help="Runs: an id, the beginning of one, a folder, or `latest` (the default)."),
    ] = None,
    criteria: Annotated[
        Path | None,
        typer.Option("--criteria", help="A gate.yaml, suite or evals.yaml; default: kept with the run."),
    ] = None,
    folder: Annotated[Path, typer.Option("--runs", help="The folder that runs are kept in.")] = Path(
        ".stanchion/runs"
    ),
    explain: Annotated[
        bool, typer.Option("--explain", help="Print every number with its interval and its inputs.")
    ] = False,
    output: Annotated[
        list[Path] | None,
        typer.Option("--output", "-o", help="Write a report; .html, .md, .json, .xml (JUnit) or .sarif."),
    ] = None,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Judge runs by their criteria: PASS, FAIL, INCONCLUSIVE or INVALID.

    A pure function of the run log and the criteria; anybody who has both computes the same digest. Exits 0
    for PASS, 1 for FAIL, 3 for INCONCLUSIVE and INVALID (the JSON tells the two apart), 2 for a usage error.

    Example:
        stanchion gate latest --explain
    """
    from stanchion.core.clock import SystemClock
    from stanchion.evals.report.write import check_extension
    from stanchion.evals.verdict import overall

    for path in output or ():
        check_extension(path)
    clock = SystemClock()
    judged = [_judged(name, criteria, folder=folder, clock=clock) for name in runs or ["latest"]]
    verdicts = [run.verdict for run in judged if run.verdict is not None]
    _write_reports(judged, output or (), clock=clock)
    outcome = overall(verdict.outcome for verdict in verdicts)
    if output_format is OutputFormat.JSON:
        from stanchion.evals.report.formats import verdict_data

        rows = [verdict_data(verdict) for verdict in verdicts]
        print_json({"outcome": outcome, "exit_code": int(outcome.exit_code), "verdicts": rows})
    else:
        _print_text(judged, is_explained=explain)
    raise typer.Exit(int(outcome.exit_code))


def _judged(name: str, criteria: Path | None, *, folder: Path, clock: Clock) -> RunData:
    from stanchion.core.errors import UsageError
    from stanchion.evals.gating import judge_run
    from stanchion.evals.kept_criteria import kept_criteria, read_criteria
    from stanchion.evals.run_suite import open_run
    from stanchion.evals.runlog import RunFolder

    runs = RunFolder(folder)
    place = runs.find(name)
    run = open_run(place)
    wanted: tuple[CriterionModel, ...] = (
        read_criteria(criteria, suite_id=run.header.suite_id) if criteria else kept_criteria(place)
    )
    if not wanted:
        raise UsageError(
            f"run {run.header.run_id} has no criteria to be judged by.",
            hint="Give them: stanchion gate RUN --criteria gate.yaml",
        )
    return replace(run, verdict=judge_run(run, wanted, runs=runs, clock=clock))


def _write_reports(judged: list[RunData], paths: list[Path] | tuple[Path, ...], *, clock: Clock) -> None:
    if not paths:
        return
    from stanchion.core.version import package_version
    from stanchion.evals.report.model import build_report
    from stanchion.evals.report.write import write_report

    title = "Gate: " + ", ".join(run.header.suite_id for run in judged)
    report = build_report(judged, title=title, made_at=clock.now(), version=package_version())
    for path in paths:
        write_report(path, report)


def _print_text(judged: list[RunData], *, is_explained: bool) -> None:
    from stanchion.evals.report.model import summarise
    from stanchion.evals.report.terminal import (
        arm_line,
        criteria_table,
        digest_lines,
        explanation,
        reasons,
    )
    from stanchion.evals.report.wording import duplicates_words

    console = out_console()
    for run in judged:
        arm = summarise(run)
        console.print(arm_line(arm))
        if same := duplicates_words(run.summary.duplicates):
            console.print(same, style="yellow")
        if run.verdict is None:
            continue
        console.print(criteria_table(run.verdict.criteria))
        if not is_explained:
            console.print(*reasons(run.verdict.criteria), sep="\n")
            continue
        console.print()
        console.print(explanation(run.verdict))
        for line in digest_lines(run.verdict):
            console.print(line, soft_wrap=True)
