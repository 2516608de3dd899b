"""What a detector makes of many rows: one score each, the highest of its findings."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec

from stanchion.core.errors import JudgementError, StanchionError
from stanchion.core.finding import AsyncDetector, Detector, DetectorInput, Finding
from stanchion.core.taxonomy import matches
from stanchion.detectors.calibration_rows import LabelledText
from stanchion.detectors.registry import AnyDetector, Registry
from stanchion.detectors.views import build_views

AT_ONCE = 8  # rows that an asynchronous detector is asked about at the same time
Progress = Callable[[int], None]


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """Rows with their scores. `errors` rows could not be scored and carry the score that counts against."""

    rows: tuple[LabelledText, ...]
    scores: tuple[float, ...]
    errors: int = 0

    def where(self, chosen: Sequence[bool]) -> Scored:
        """Some of the rows."""
        kept = [number for number, keep in enumerate(chosen) if keep]
        return Scored(
            rows=tuple(self.rows[number] for number in kept),
            scores=tuple(self.scores[number] for number in kept),
        )

    def labelled(self, label: int) -> Scored:
        """The rows of one label."""
        return self.where([row.label == label for row in self.rows])


def makes_minimum(registry: Registry, detector_id: str) -> bool:
    """Whether it leaves out findings below an option `minimum`, which must be 0 to see all scores."""
    return "minimum" in inspect.signature(registry.factory(detector_id)).parameters


def make_for_scoring(registry: Registry, detector_id: str, options: dict[str, Any]) -> AnyDetector:
    """The detector with these options, reporting every score it has.

    Raises:
        UnknownNameError: when there is no such detector.
        UsageError: when it does not take these options.
    """
    given = {**options, "minimum": 0.0} if makes_minimum(registry, detector_id) else dict(options)
    return registry.create(detector_id, **given)


def score_rows(
    detector: AnyDetector,
    rows: Sequence[LabelledText],
    *,
    categories: Sequence[str] = (),
    allowed_errors: int = 0,
    progress: Progress | None = None,
) -> Scored:
    """Every row's score: the highest of its findings in these categories (all when empty), 0 without any.

    Up to `allowed_errors` rows may fail; a benign one then counts as alarming at every threshold, any other
    as never found.

    Raises:
        JudgementError: when more rows fail; it names the first one, and what broke.
    """
    tell = progress or (lambda _: None)
    if hasattr(detector, "adetect"):
        found = asyncio.run(
            _ask_all(cast(AsyncDetector, detector), rows, allowed_errors=allowed_errors, tell=tell)
        )
    else:
        found = []
        broken = 0
        for number, row in enumerate(rows):
            outcome = _detect(detector, row)
            broken += isinstance(outcome, Exception)
            _check(broken, allowed_errors, row, outcome)
            found.append(outcome)
            tell(number + 1)
    scores = [
        (1.0 if row.label == 0 else 0.0) if isinstance(one, Exception) else _score(row, one, categories)
        for row, one in zip(rows, found, strict=True)
    ]
    errors = sum(isinstance(one, Exception) for one in found)
    return Scored(rows=tuple(rows), scores=tuple(scores), errors=errors)


def _detect(detector: Detector, row: LabelledText) -> Sequence[Finding] | Exception:
    try:
        return detector.detect(_input(row))
    except Exception as error:  # counted, told, never a score of 0 for a benign row
        return error


async def _ask_all(
    detector: AsyncDetector, rows: Sequence[LabelledText], *, allowed_errors: int, tell: Progress
) -> list[Sequence[Finding] | Exception]:
    found: list[Any] = [None] * len(rows)
    waiting = iter(range(len(rows)))
    done = broken = 0

    async def work() -> None:
        nonlocal done, broken
        for number in waiting:
            try:
                found[number] = await detector.adetect(_input(rows[number]))
            except Exception as error:
                found[number] = error
                broken += 1
                _check(broken, allowed_errors, rows[number], error)
            done += 1
            tell(done)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(AT_ONCE, len(rows))):
                group.create_task(work())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    finally:
        closing = getattr(detector, "aclose", None)
        if closing is not None:
            await closing()
    return found


def _input(row: LabelledText) -> DetectorInput:
    return DetectorInput(
        view_set=build_views(row.text), origin=row.origin, context=row.context, locale=row.locale
    )


def _check(broken: int, allowed: int, row: LabelledText, outcome: object) -> None:
    if not isinstance(outcome, Exception) or broken <= allowed:
        return
    words = outcome.message if isinstance(outcome, StanchionError) else type(outcome).__name__
    raise JudgementError(
        f"{row.place}: the detector could not judge this row: {words}",
        hint="A calibration stands on every row; mend the detector, or allow some errors, which then count "
        "against it.",
    ) from outcome


def _score(row: LabelledText, findings: Sequence[Finding], categories: Sequence[str]) -> float:
    scores = [
        float(finding.score)
        for finding in findings
        if not categories or any(matches(selector, finding.category) for selector in categories)
    ]
    score = max(scores, default=0.0)
    if not 0.0 <= score <= 1.0:  # NaN too
        raise JudgementError(f"{row.place}: the detector gave a score outside [0, 1].")
    return score
