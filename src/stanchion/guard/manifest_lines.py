"""The lines of the guard manifest of one surface: which checks were expected, and what became of each.

Most texts are harmless, and then a line says the same every time but for how long its check took.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from stanchion.core.decision import CheckRecord, CheckStatus, Surface
from stanchion.guard.checks import Check, CheckResult, Rows

_replaced = msgspec.structs.replace
_RAN = CheckStatus.RAN
_UNREAD = "there was no text it could read"


class ManifestLines:
    """Makes the lines of one surface."""

    def __init__(self, surface: Surface, checks: Sequence[Check]) -> None:
        self._surface = surface
        self._checks = tuple(checks)
        self._versions: list[Any] = []
        self._silent: tuple[CheckRecord, ...] = ()

    def silent(self, rows: Rows) -> tuple[CheckRecord, ...] | None:
        """The lines where every check ran on every text and found nothing; None where that is not so."""
        if len(rows) == 1:
            elapsed_ms = _silent_ms(rows[0])
        elif rows:
            each = [_silent_ms(row) for row in rows]
            some = [one for one in each if one is not None]
            is_silent = len(some) == len(each)
            elapsed_ms = [sum(column) for column in zip(*some, strict=True)] if is_silent else None
        else:
            return tuple([self._line(check, CheckStatus.SKIPPED, reason=_UNREAD) for check in self._checks])
        if elapsed_ms is None:
            return None
        lines = []
        for line, spent_ms in zip(self._lines(), elapsed_ms, strict=True):
            lines.append(line if not spent_ms else _replaced(line, elapsed_ms=_rounded(spent_ms)))
        return tuple(lines)

    def of(self, rows: Rows, counted: Sequence[int]) -> tuple[CheckRecord, ...]:
        """The lines of any results; `counted` are the findings of each check that count."""
        lines = []
        for check, results, findings in zip(self._checks, zip(*rows, strict=True), counted, strict=True):
            failed = next((result for result in results if result.status is not _RAN), results[0])
            spent_ms = sum([result.elapsed_ms for result in results])
            lines.append(
                self._line(check, failed.status, reason=failed.reason, elapsed_ms=spent_ms, findings=findings)
            )
        return tuple(lines)

    def _lines(self) -> tuple[CheckRecord, ...]:
        """The lines of checks that took no time; made anew when a detector has another version."""
        versions = [check.detector.version for check in self._checks]
        if versions != self._versions or len(self._silent) != len(versions):
            self._silent = tuple([self._line(check, _RAN) for check in self._checks])
            self._versions = versions
        return self._silent

    def _line(
        self,
        check: Check,
        status: CheckStatus,
        *,
        reason: str = "",
        elapsed_ms: float = 0.0,
        findings: int = 0,
    ) -> CheckRecord:
        return CheckRecord(
            detector=check.id,
            version=str(check.detector.version),
            surface=self._surface,
            status=status,
            elapsed_ms=_rounded(elapsed_ms),
            findings=findings,
            on_failure=check.settings.fail,
            reason=reason,
        )


def _silent_ms(row: Sequence[CheckResult]) -> list[float] | None:
    """How long each check took over a text; None where one found something, or did not run."""
    elapsed_ms = []
    for result in row:
        if result.findings or result.status is not _RAN:
            return None
        elapsed_ms.append(result.elapsed_ms)
    return elapsed_ms


def _rounded(elapsed_ms: float) -> float:
    """To microseconds; quicker than `round`, which is about as slow as some checks."""
    return int(elapsed_ms * 1000 + 0.5) / 1000
