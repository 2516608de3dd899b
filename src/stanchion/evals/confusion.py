"""What a labelled run says about a detector or a guard: found, missed, false alarms."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from stanchion.evals.results import CaseResult, Concern, Outcome
from stanchion.stats.intervals import Interval, wilson

DETECTION = "detection"


class Confusion(msgspec.Struct, frozen=True, kw_only=True):
    """Labelled items by what was decided. Rates come with two-sided 95 % Wilson intervals.

    `unjudged` had no decision; they are in no rate.
    """

    found: int = 0
    missed: int = 0
    false_alarms: int = 0
    passed: int = 0
    unjudged: int = 0

    @property
    def recall(self) -> Interval | None:
        """Of unsafe items, the share that was flagged; None without any."""
        return _rate(self.found, self.found + self.missed)

    @property
    def precision(self) -> Interval | None:
        """Of flagged items, the share that is unsafe. Holds for this mix of items only."""
        return _rate(self.found, self.found + self.false_alarms)

    @property
    def false_alarm_rate(self) -> Interval | None:
        """Of safe items, the share that was flagged."""
        return _rate(self.false_alarms, self.false_alarms + self.passed)


def confusion(results: Iterable[CaseResult], *, scorer: str = DETECTION) -> Confusion:
    """The table of a run, from the scores of its detection scorer, in one pass."""
    counts = dict.fromkeys(Confusion.__struct_fields__, 0)
    for result in results:
        for score in result.scores:
            if score.scorer == scorer:
                counts[_cell(score.concern, score.outcome)] += 1
    return Confusion(**counts)


def _cell(concern: Concern, outcome: Outcome) -> str:
    if not outcome.is_judged:
        return "unjudged"
    if concern is Concern.SAFETY:
        return "found" if outcome is Outcome.SAFE else "missed"
    return "passed" if outcome is Outcome.SAFE else "false_alarms"


def _rate(hits: int, n: int) -> Interval | None:
    return wilson(hits, n) if n else None
