"""The lines of the guard manifest of one surface: which checks were expected, and what became of each.

Most texts are harmless, and then a line says the same every time but for how long its check took.
"""

from __future__ import annotations

from collections.abc import Sequence

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
        self._lines = tuple([self._line(check, _RAN) for check in self._checks])

    def silent(self, rows: Rows) -> tuple[CheckRecord, ...] | None:
        """The lines where every check ran on every text and found nothing; None where that is not so."""
        if not rows:
            return tuple([self._line(check, CheckStatus.SKIPPED, reason=_UNREAD) for check in self._checks])
        row = rows[0] if len(rows) == 1 else _silent_row(rows)
        lines = []
        for line, check, result in zip(self._lines, self._checks, row, strict=True):
            if result.findings or result.status is not _RAN:
                return None
            if line.version != check.detector.version:
                line = self._line(check, _RAN)
            spent_us = int(result.elapsed_ms * 1000 + 0.5)
            lines.append(_replaced(line, elapsed_ms=spent_us / 1000) if spent_us else line)
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


def _silent_row(rows: Rows) -> Sequence[CheckResult]:
    """For each check its results on all texts as one: how long they took, or one that is not silent."""
    row = []
    for results in zip(*rows, strict=True):
        elapsed_ms = 0.0
        for result in results:
            elapsed_ms += result.elapsed_ms
            if result.findings or result.status is not _RAN:
                return [result] * len(rows[0])
        row.append(CheckResult(status=_RAN, elapsed_ms=elapsed_ms))
    return row


def _rounded(elapsed_ms: float) -> float:
    """To microseconds; quicker than `round`, which is about as slow as some checks."""
    return int(elapsed_ms * 1000 + 0.5) / 1000
