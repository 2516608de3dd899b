"""The lines of the guard manifest of one surface: which checks were expected, and what became of each.

Most texts are harmless, and then a line says the same every time but for how long its check took.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from stanchion.core.decision import CheckRecord, CheckStatus, Surface
from stanchion.guard.checks import Check, Rows

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
        for row in rows:
            for result in row:
                if result.findings or result.status is not _RAN:
                    return None
        lines = self._lines()
        if not rows:
            return tuple([self._line(check, CheckStatus.SKIPPED, reason=_UNREAD) for check in self._checks])
        if len(rows) == 1:
            elapsed_ms = [result.elapsed_ms for result in rows[0]]
        else:
            elapsed_ms = [sum([result.elapsed_ms for result in column]) for column in zip(*rows, strict=True)]
        if not any(elapsed_ms):
            return lines
        replace = msgspec.structs.replace
        return tuple(
            [
                replace(line, elapsed_ms=_rounded(spent_ms))
                for line, spent_ms in zip(lines, elapsed_ms, strict=True)
            ]
        )

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


def _rounded(elapsed_ms: float) -> float:
    """To microseconds; quicker than `round`, which is about as slow as some checks."""
    return int(elapsed_ms * 1000 + 0.5) / 1000
