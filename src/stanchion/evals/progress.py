"""What a run tells whoever watches it: a progress bar, a log, a test."""

from __future__ import annotations

from typing import Protocol

from stanchion.evals.results import CaseResult, RunHeader, RunSummary


class Observer(Protocol):
    """Watches a run. Calls come from the run's own loop: they must return at once and must not raise."""

    def started(self, header: RunHeader, done: int) -> None:
        """Work begins; `done` results are there already, from the run that is being resumed."""
        ...

    def case_finished(self, result: CaseResult) -> None:
        """One more result is in the log."""
        ...

    def retried(self, case_id: str, error: str, wait_s: float) -> None:
        """A case will be asked again; `error` is the class of what broke."""
        ...

    def finished(self, summary: RunSummary) -> None:
        """The run has ended."""
        ...


class Silent:
    """An observer that looks away."""

    def started(self, header: RunHeader, done: int) -> None:
        """Nothing."""

    def case_finished(self, result: CaseResult) -> None:
        """Nothing."""

    def retried(self, case_id: str, error: str, wait_s: float) -> None:
        """Nothing."""

    def finished(self, summary: RunSummary) -> None:
        """Nothing."""
