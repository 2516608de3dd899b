"""A run's progress on stderr: done of planned, what failed, what it cost, time left."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from stanchion.cli.output import err_console, note

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from stanchion.evals.results import CaseResult, RunHeader, RunSummary


def progress_bar(description: str, console: Console) -> Progress:
    """Bars with what is done, time taken and time left; nothing is drawn where there is no terminal."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn(description),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


class RunProgress:
    """Watches one run; a bar on a terminal, nothing but retries that pile up elsewhere.

    `run_id` is known once the run began.
    """

    def __init__(self, *, estimate: int | None = None) -> None:
        self._progress = progress_bar("{task.description}", err_console())
        self._estimate = estimate
        self._task: TaskID | None = None
        self._counts = {"unsafe": 0, "error": 0}
        self._cost_usd = 0.0
        self._pending = 0
        self.run_id = ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def started(self, header: RunHeader, done: int) -> None:
        """Show the bar."""
        self.run_id = header.run_id
        total = header.planned if header.planned is not None else self._estimate
        self._task = self._progress.add_task(header.suite_id, total=total, completed=done, note="")

    def case_finished(self, result: CaseResult) -> None:
        """One step further; drawn every few steps only, so that fast runs stay fast."""
        if result.outcome in self._counts:
            self._counts[result.outcome] += 1
        if not (result.is_cached or result.reused_from):
            self._cost_usd += result.usage.cost_usd or 0.0
        self._pending += 1
        if self._pending >= 20 or (result.latency_ms or 0.0) > 20.0:
            self._draw()

    def retried(self, case_id: str, error: str, wait_s: float) -> None:
        """Say what is being waited for, when it is long."""
        if wait_s >= 5.0:
            note(f"case {case_id}: {error}, asked again in {wait_s:.0f} s")

    def finished(self, summary: RunSummary) -> None:
        """Draw the last steps."""
        self._draw()

    def _draw(self) -> None:
        if self._task is None:
            return
        parts = [f"{count} {name}" for name, count in self._counts.items() if count]
        if self._cost_usd:
            parts.append(f"{self._cost_usd:.2f} USD")
        self._progress.update(self._task, advance=self._pending, note=" ".join(parts))
        self._pending = 0
