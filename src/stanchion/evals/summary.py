"""Counts of a run while it goes on."""

from __future__ import annotations

from collections import Counter
from datetime import datetime

from stanchion.evals.results import (
    CaseResult,
    OutcomeCounts,
    RunHeader,
    RunSummary,
    StopReason,
    outcome_of,
)

_MOST_CATEGORIES = 1000
_REST = "(others)"


class Counts:
    """Adds results up; holds counters only, never a result."""

    def __init__(self) -> None:
        self._all: Counter[str] = Counter()
        self._concerns: dict[str, Counter[str]] = {}
        self._categories: dict[str, Counter[str]] = {}
        self.input_tokens = 0
        self.output_tokens = 0
        self.cost_usd: float | None = None
        self.cached = 0
        self.reused = 0

    def add(self, result: CaseResult) -> None:
        """Count one result."""
        self._all[result.outcome] += 1
        if result.category:
            known = result.category in self._categories or len(self._categories) < _MOST_CATEGORIES
            name = result.category if known else _REST
            self._categories.setdefault(name, Counter())[result.outcome] += 1
        for concern in {score.concern for score in result.scores}:
            outcome = outcome_of(result, concern)
            self._concerns.setdefault(concern, Counter())[outcome or result.outcome] += 1
        self.cached += result.is_cached
        self.reused += bool(result.reused_from)
        if not (result.is_cached or result.reused_from):
            self._add_usage(result)

    def _add_usage(self, result: CaseResult) -> None:
        usage = result.usage
        self.input_tokens += usage.input_tokens or 0
        self.output_tokens += usage.output_tokens or 0
        if usage.cost_usd is not None:
            self.cost_usd = (self.cost_usd or 0.0) + usage.cost_usd

    @property
    def total(self) -> int:
        """Results counted so far."""
        return sum(self._all.values())

    def counts(self) -> OutcomeCounts:
        """All results by outcome."""
        return _counts(self._all)

    def summary(
        self,
        header: RunHeader,
        *,
        finished_at: datetime,
        stopped: StopReason,
        stop_detail: str = "",
        elapsed_s: float,
        asked: int,
        retries: int,
        resumed: int,
        duplicates: int = 0,
    ) -> RunSummary:
        """The end of the run; `asked` is how many results this process made, for the speed."""
        return RunSummary(
            run_id=header.run_id,
            finished_at=finished_at,
            counts=self.counts(),
            stopped=stopped,
            stop_detail=stop_detail,
            by_concern={name: _counts(c) for name, c in sorted(self._concerns.items())},
            by_category={name: _counts(c) for name, c in sorted(self._categories.items())},
            elapsed_s=round(elapsed_s, 6),
            cases_per_s=round(asked / elapsed_s, 3) if elapsed_s > 0 else 0.0,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            cost_usd=self.cost_usd,
            cached=self.cached,
            reused=self.reused,
            retries=retries,
            resumed=resumed,
            duplicates=duplicates,
        )


def _counts(counter: Counter[str]) -> OutcomeCounts:
    return OutcomeCounts(**{str(outcome): count for outcome, count in counter.items()})
