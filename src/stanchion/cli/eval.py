"""`stanchion eval`: run a suite against a target, look at a run, compare two."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stanchion.cli.output import FormatOption, OutputFormat, note, out_console, print_json, show_error
from stanchion.core.errors import ExitCode

if TYPE_CHECKING:
    from stanchion.cli.eval_run import RunRequest
    from stanchion.evals.conditions import RunSettings
    from stanchion.evals.report.model import Report
    from stanchion.evals.rundata import RunData
    from stanchion.evals.suite import Suite

app = typer.Typer(help="Run suites, look at runs, compare them.", add_completion=False)
RUNS = Path(".stanchion") / "runs"
RunsOption = Annotated[Path, typer.Option("--runs", help="The folder that runs are kept in.")]
OutputOption = Annotated[
    list[Path] | None,
    typer.Option("--output", "-o", help="Write a report; .html, .md, .json, .xml (JUnit) or .sarif."),
]
TargetOption = Annotated[
    str | None,
    typer.Option(
        "--target",
        help="What is asked, instead of the suite's own target: local, callable:app.py:answer, "
        "detector:ID, guard:POLICY (around the suite's target), recording:FILE, http:URL, "
        "endpoint:URL#MODEL.",
    ),
]


@app.command("run")
def run_command(
    ctx: typer.Context,
    suite: Annotated[Path, typer.Argument(help="A suite.yaml.")],
    target: TargetOption = None,
    output: OutputOption = None,
    resume: Annotated[
        str | None,
        typer.Option("--resume", help="Go on with a run: an id, the beginning of one, or `latest`."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Ask again, even where the answer is in the cache.")
    ] = False,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", min=1, max=1024, help="Most requests in flight.")
    ] = None,
    deadline: Annotated[
        str | None, typer.Option("--deadline", help="Stop after so long, as in 30m; what is left is skipped.")
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option("--max-cost", min=0.0, help="Stop when this much was spent, in USD.")
    ] = None,
    runs: RunsOption = RUNS,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Run a suite against its target, judge every answer, and keep the run.

    With criteria in the suite, exits as `stanchion gate` would: 0 PASS, 1 FAIL, 3 INCONCLUSIVE or INVALID.
    Without, exits 0 when every case was judged, and 3 when not. A run that was cut off goes on with
    --resume.

    Example:
        stanchion eval run suite.yaml --target callable:app.py:answer -o report.html
    """
    from stanchion.cli.eval_run import RunRequest, run_request
    from stanchion.cli.eval_show import print_confusion
    from stanchion.config import load_settings, process_environment
    from stanchion.evals.report.write import check_extension
    from stanchion.evals.suite import load_suite

    for path in output or ():
        check_extension(path)
    loaded = load_suite(suite, env=process_environment())
    request = RunRequest(
        suite=loaded,
        settings=load_settings(file=ctx.obj),
        run_settings=_run_settings(loaded, concurrency, deadline, max_cost),
        runs=runs,
        target=target,
        resume=resume or "",
        fresh=fresh,
    )
    done = run_request(request)
    _finish([done], title=loaded.title, output=output or (), output_format=output_format)
    _tell_trouble(done, request)
    if output_format is OutputFormat.TEXT:
        print_confusion(done)
        where = "" if runs == RUNS else f" --runs {runs}"
        note(f"Run {done.header.run_id}. Look closer: stanchion eval show {done.header.run_id}{where}")
    raise typer.Exit(int(_exit_code(done)))


@app.command("show")
def show_command(
    run: Annotated[
        str | None, typer.Argument(help="An id, the beginning of one, or `latest`; none lists all runs.")
    ] = None,
    case: Annotated[
        str | None, typer.Argument(help="A case's id, its beginning, or its pairing key: shows all of it.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Walk the hash chain of the run's log first.")
    ] = False,
    output: OutputOption = None,
    runs: RunsOption = RUNS,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Show the runs there are, one run, or one case of a run with its scores and scrubbed words.

    Example:
        stanchion eval show latest
    """
    from stanchion.cli import eval_show
    from stanchion.evals.runlog import RunFolder

    folder = RunFolder(runs)
    if run is None:
        eval_show.print_runs(folder, output_format)
        return
    place = folder.find(run)
    if verify:
        note(f"{eval_show.verified(place):,} records fit the chain")
    if case is not None:
        eval_show.print_case(place, case, output_format)
        return
    from stanchion.evals.run_suite import open_run

    found = _judged(open_run(place), runs)
    _finish([found], title=found.header.suite_id, output=output or (), output_format=output_format)
    if output_format is OutputFormat.TEXT:
        eval_show.print_confusion(found)
        eval_show.print_failures(found)


@app.command("bias")
def bias_command(
    ctx: typer.Context,
    plan: Annotated[
        Path | None, typer.Argument(help="Axes, templates and limits; without it, the packaged ones.")
    ] = None,
    target: Annotated[
        str,
        typer.Option("--target", help="What is asked, as in `eval run`: callable:app.py:answer, local, ..."),
    ] = "local",
    axis: Annotated[list[str] | None, typer.Option("--axis", help="Only this axis; may be repeated.")] = None,
    repeats: Annotated[
        int | None, typer.Option("--repeats", min=1, max=1000, help="Persons of each group per template.")
    ] = None,
    limit: Annotated[
        float | None, typer.Option("--limit", min=0.001, max=1.0, help="How much a group may differ: 0.1.")
    ] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, max=256, help="Most in flight.")] = 8,
    output: Annotated[
        list[Path] | None, typer.Option("--output", "-o", help="Write the report; .html or .json.")
    ] = None,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Ask about twins that differ only in the person, and compare how they are treated.

    Exits 0 PASS, 1 FAIL, 3 INCONCLUSIVE or INVALID. One axis in error is enough to fail.

    Example:
        stanchion eval bias --target callable:app.py:answer --axis gender --repeats 6 -o bias.html
    """
    from stanchion.cli.eval_bias import run_bias, show_bias
    from stanchion.config import load_settings
    from stanchion.core.errors import UsageError
    from stanchion.evals.bias_plan import load_plan, packaged_plan

    if any(path.suffix not in (".html", ".json") for path in output or ()):
        raise UsageError("a bias report is written as .html or .json.")
    chosen = (load_plan(plan) if plan else packaged_plan()).with_options(
        axes=tuple(axis or ()), repeats=repeats, limit=limit
    )
    report = run_bias(chosen, target, load_settings(file=ctx.obj), concurrency=concurrency)
    show_bias(report, output or [], output_format)
    raise typer.Exit(int(report.outcome.exit_code))


@app.command("compare")
def compare_command(
    before: Annotated[str, typer.Argument(help="The earlier run, or the unguarded one.")],
    after: Annotated[str, typer.Argument(help="The later run, or the guarded one.")] = "latest",
    output: OutputOption = None,
    runs: RunsOption = RUNS,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Compare two runs of the same cases, pair by pair.

    Exits 1 when a concern got worse beyond chance (the 95 % interval of the difference lies above zero), and
    2 when the runs share no case: unpaired runs are not compared.

    Example:
        stanchion eval compare run_0a run_0b
    """
    from stanchion.cli import eval_show
    from stanchion.evals.comparison import compare
    from stanchion.evals.run_suite import open_run
    from stanchion.evals.runlog import RunFolder

    folder = RunFolder(runs)
    first, second = open_run(folder.find(before)), open_run(folder.find(after))
    found = compare(first, second)
    if output:
        _write([first, second], title=f"{found.before} and {found.after}", output=output, comparison=found)
    if output_format is OutputFormat.JSON:
        print_json({"before": first.header.run_id, "after": second.header.run_id, "comparison": found})
    else:
        eval_show.print_comparison(found)
    if any(row.category == "all" and row.evidence.low > 0 for row in found.rows):
        raise typer.Exit(int(ExitCode.FOUND))


def _tell_trouble(run: RunData, request: RunRequest) -> None:
    from stanchion.cli.eval_trouble import resume_command, trouble

    suite, run_id = request.suite.path, run.header.run_id
    error = trouble(run, resume=resume_command(suite, run_id, target=request.target, runs=request.runs))
    if error is None:
        return
    if _exit_code(run) is ExitCode.OK:
        note(f"note: {error}")
    else:
        show_error(error)


def _run_settings(
    suite: Suite, concurrency: int | None, deadline: str | None, max_cost: float | None
) -> RunSettings:
    """The suite's own settings with the flags over them."""
    import msgspec

    from stanchion.core.errors import UsageError
    from stanchion.evals.criteria import parse_duration
    from stanchion.evals.run_suite import settings_of

    settings = settings_of(suite)
    if concurrency is not None:
        pace = msgspec.structs.replace(
            settings.pace, most=concurrency, start=min(settings.pace.start, concurrency)
        )
        settings = msgspec.structs.replace(settings, pace=pace)
    if deadline is not None:
        try:
            seconds = parse_duration(deadline).total_seconds()
        except ValueError as error:
            raise UsageError(f"--deadline: {error}") from error
        settings = msgspec.structs.replace(settings, deadline_s=seconds)
    if max_cost is not None:
        settings = msgspec.structs.replace(settings, max_cost_usd=max_cost)
    return settings


def _judged(run: RunData, runs: Path) -> RunData:
    """The run with the verdict by the criteria that were kept with it, if there are any."""
    from stanchion.core.clock import SystemClock
    from stanchion.evals.gating import judge_run
    from stanchion.evals.kept_criteria import kept_criteria
    from stanchion.evals.runlog import RunFolder

    criteria = kept_criteria(Path(run.location))
    if not criteria:
        return run
    return replace(run, verdict=judge_run(run, criteria, runs=RunFolder(runs), clock=SystemClock()))


def _finish(
    found: list[RunData], *, title: str, output: list[Path] | tuple[Path, ...], output_format: OutputFormat
) -> None:
    report = _write(found, title=title, output=output)
    if output_format is OutputFormat.JSON:
        from stanchion.evals.report.formats import report_data

        print_json(report_data(report))
    else:
        from stanchion.evals.report.terminal import render_terminal

        out_console().print(render_terminal(report))


def _write(
    found: list[RunData], *, title: str, output: list[Path] | tuple[Path, ...], comparison: object = None
) -> Report:
    from stanchion.core.clock import SystemClock
    from stanchion.core.version import package_version
    from stanchion.evals.report.model import build_report
    from stanchion.evals.report.write import write_report

    report = build_report(
        found,
        title=title,
        made_at=SystemClock().now(),
        version=package_version(),
        comparison=comparison,  # type: ignore[arg-type]  # imported lazily
    )
    for path in output:
        note(f"Report {write_report(path, report)}")
    return report


def _exit_code(run: RunData) -> ExitCode:
    if run.verdict is not None:
        return run.verdict.exit_code
    counts = run.summary.counts
    is_judged = run.summary.is_complete and counts.judged == counts.total > 0
    return ExitCode.OK if is_judged else ExitCode.NOT_JUDGED
