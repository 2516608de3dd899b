"""Whether a calibration still fits: fresh scores held against its sketch."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from stanchion.core.errors import UsageError
from stanchion.detectors.calibration_file import LoadedCalibration, with_environment
from stanchion.detectors.calibration_rows import RowSet
from stanchion.detectors.registry import Registry
from stanchion.detectors.scoring import make_for_scoring, score_rows
from stanchion.stats.drift import Drift, drift
from stanchion.stats.intervals import clopper_pearson

FEWEST = 50  # fresh rows below which a comparison says too little


class CheckedCalibration(msgspec.Struct, frozen=True, kw_only=True):
    """The comparison of fresh rows with a calibration. `reasons` say why it is stale; empty when it is not.

    `alarms` of `rows` fresh rows reach the threshold; `at_least` is the exact one-sided lower bound of that
    share at the calibration's own confidence.
    """

    file: str
    digest: str
    detector: str
    threshold: float
    rows: int
    alarms: int
    at_least: float
    limit: float
    drift: Drift | None
    reasons: tuple[str, ...]

    @property
    def is_stale(self) -> bool:
        """Whether the calibration should be made again."""
        return bool(self.reasons)


def check_calibration(
    loaded: LoadedCalibration,
    fresh: RowSet,
    *,
    registry: Registry,
    level: float = 0.01,
    env: Mapping[str, str] | None = None,
) -> CheckedCalibration:
    """Score fresh rows and compare them with the calibration's benign scores.

    Rows labelled unsafe are left out; rows without a label are taken for what the calibration's benign rows
    were, ordinary traffic. `level` is the chance to call a calibration stale though nothing changed; `env`
    holds the variables that options of the detector name.

    Raises:
        UsageError: for fewer than 50 rows.
        JudgementError: when the detector cannot judge a row.
    """
    value = loaded.value
    made_for = value.detector
    rows = [row for row in fresh.rows if row.label != 1]
    if len(rows) < FEWEST:
        raise UsageError(f"{len(rows)} fresh rows are too few to compare.", hint=f"Give at least {FEWEST}.")
    detector = make_for_scoring(registry, made_for.id, with_environment(made_for.options, env))
    fault = loaded.mismatch(made_for.id, str(detector.version))
    limit = next((g.limit for g in value.guarantees if g.risk == "false alarms"), 0.0)
    confidence = next((g.confidence for g in value.guarantees if g.risk == "false alarms"), 0.95)
    scored = score_rows(detector, rows, categories=made_for.categories)
    alarms = sum(
        score >= value.threshold_at(row.origin) for row, score in zip(rows, scored.scores, strict=True)
    )
    found = None
    reasons = [fault] if fault else []
    if not fault:
        found = drift(value.sketch.sketch(), scored.scores, level=level, threshold=value.threshold)
        reasons += [
            f"{test.name} differs (p = {test.adjusted_p_value:.2g})"
            for test in found.tests
            if test.adjusted_p_value <= level
        ]
    return CheckedCalibration(
        file=str(loaded.path),
        digest=value.digest,
        detector=made_for.id,
        threshold=value.threshold,
        rows=len(rows),
        alarms=alarms,
        at_least=clopper_pearson(alarms, len(rows), confidence=confidence, side="lower").low,
        limit=limit,
        drift=found,
        reasons=tuple(reasons),
    )
