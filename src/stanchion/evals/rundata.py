"""A finished run as reports, gates and comparisons read it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from stanchion.evals.results import CaseResult, Outcome, RunHeader, RunSummary
from stanchion.evals.verdict import Verdict


@dataclass(frozen=True, slots=True)
class RunData:
    """Header, end and results of one run, with the verdict on it when one was asked for.

    `open_results` streams the results in the order they were written, from the start each time it is called;
    a report may walk them several times and never holds them all. `location` is the run's folder as a person
    would type it, empty when the run was kept in memory.
    """

    header: RunHeader
    summary: RunSummary
    open_results: Callable[[], Iterator[CaseResult]]
    verdict: Verdict | None = None
    title: str = ""
    location: str = ""

    def results(self, *, outcomes: Iterable[Outcome] = ()) -> Iterator[CaseResult]:
        """The results, all or those with one of the given outcomes, streaming."""
        chosen = frozenset(outcomes)
        return (r for r in self.open_results() if not chosen or r.outcome in chosen)
