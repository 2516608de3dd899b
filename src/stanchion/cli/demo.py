"""`stanchion demo`: the main job on real input, with embedded defaults."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stanchion.cli.output import FormatOption, OutputFormat, err_console, out_console, print_json
from stanchion.cli.progress import progress_bar

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from stanchion.demo import Demo
    from stanchion.evals.results import CaseResult, RunHeader, RunSummary

OUTPUT = Path(".stanchion") / "demo"


def demo(
    ctx: typer.Context,
    output_format: FormatOption = OutputFormat.TEXT,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Ask the model again, even where its answer is known.")
    ] = False,
    folder: Annotated[Path, typer.Option("--folder", help="Where runs and the report are written.")] = OUTPUT,
    instances: Annotated[
        int,
        typer.Option("--instances", min=0, max=64, help="Copies of the model, a core each; 0: up to two."),
    ] = 0,
) -> None:
    """Test a small web shop's assistant on a real local model, unguarded and guarded.

    Asks about 200 cases twice (injection, leaks, disallowed and unsupported answers, benign twins), judges
    both arms by the same criteria, compares them case by case, and writes an HTML report. Exits 0 whatever
    the verdict.

    Example:
        stanchion demo --format json
    """
    from stanchion.config import load_settings
    from stanchion.demo import DemoOptions, run_demo
    from stanchion.evals.report import charts

    charts.warm_up()
    settings = load_settings(file=ctx.obj)
    options = DemoOptions(folder=folder, fresh=fresh, instances=instances)
    with progress_bar("{task.description:<16}", err_console()) as progress:
        found = asyncio.run(run_demo(settings, options, watch=lambda name: _Bar(progress, name)))
    _write(found, folder, output_format)


def _write(found: Demo, folder: Path, output_format: OutputFormat) -> None:
    from stanchion.evals.report import charts
    from stanchion.evals.report.formats import report_data
    from stanchion.evals.report.write import write_report

    page = write_report(folder / "report.html", found.report)
    data = write_report(folder / "report.json", found.report)
    if output_format is OutputFormat.JSON:
        data_of = report_data(found.report)
        extra = {"elapsed_s": found.elapsed_s, "asked": found.asked, "report": str(page)}
        print_json({**data_of, **extra})
        return
    console = out_console()
    _print_text(found, console)
    if not charts.available():
        console.print("Charts need one more package: pip install 'stanchion\\[report]'", style="dim")
    console.print(f"\nReport  {page}\nData    {data}")
    console.print("Again, asking the model anew:  stanchion demo --fresh", style="dim")


def _print_text(found: Demo, console: Any) -> None:
    from stanchion.evals.report.terminal import render_terminal
    from stanchion.evals.report.wording import seconds

    console.print(render_terminal(found.report))
    counts = [run.summary for run in found.runs[:2]]
    cached = sum(summary.cached for summary in counts)
    reused = sum(summary.reused for summary in counts)
    blocked = sum(summary.counts.total for summary in counts) - cached - reused - found.asked
    console.print(
        f"\nThe model was asked {found.asked} times; {reused} answers were taken over from an identical "
        f"request of this run, {cached} from the cache of an earlier one; {blocked} requests the guard "
        f"stopped before the model. It took {seconds(found.elapsed_s)}."
    )


class _Bar:
    """A run's progress as a bar: done of planned, what failed so far, time left."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress = progress
        self._name = name
        self._failed = 0
        self._task: TaskID | None = None

    def started(self, header: RunHeader, done: int) -> None:
        """Show the bar."""
        self._task = self._progress.add_task(self._name, total=header.planned, completed=done, note="")

    def case_finished(self, result: CaseResult) -> None:
        """One step further."""
        from stanchion.evals.results import Outcome

        self._failed += result.outcome is Outcome.UNSAFE
        if self._task is not None:
            self._progress.update(self._task, advance=1, note=f"{self._failed} failed")

    def retried(self, case_id: str, error: str, wait_s: float) -> None:
        """A retry is no step."""

    def finished(self, summary: RunSummary) -> None:
        """Leave the bar as it is."""
