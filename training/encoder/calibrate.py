"""Operating points of the int8 model: how it is joined with the linear one, slope, thresholds by origin.

Everything is chosen on the calibration half of the development data, with the detector's own code; the other
half is only reported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from pipeline import evaluate
from pipeline.recipe import OUTSIDE_HARMLESS, USER_HARMLESS
from pipeline.rows import Row
from sklearn.linear_model import LogisticRegression

from stanchion.detectors.classifier import LinearModel
from stanchion.detectors.encoder import allowance, window_logits
from stanchion.detectors.encoder_model import LARGEST_LINEAR, EncoderModel, OperatingPoint
from stanchion.detectors.linear import highest_logit
from stanchion.detectors.views import build_views

LOWEST = -30.0  # of a text without words
UNBOUNDED = 100_000
TARGET = 0.01  # of harmless texts above the threshold, as the mean over sources
OUTSIDE_TARGET = 0.01  # the same, of harmless documents
# Logits from the user's threshold down to that of text from outside: the harmless documents of the data are
# mails and talk, and technical writing needs a margin of its own, as in the linear model.
FURTHEST_BELOW = 1.25


@dataclass(frozen=True)
class Logits:
    """Of each row: the encoder's, the linear model's, and the number of windows."""

    encoder: np.ndarray
    linear: np.ndarray
    windows: np.ndarray

    def joined(self, weight: float) -> np.ndarray:
        """The logit that the detector uses."""
        return self.encoder + weight * np.clip(self.linear, -LARGEST_LINEAR, LARGEST_LINEAR)

    def where(self, chosen: np.ndarray) -> Logits:
        """Those of some rows (a mask)."""
        return Logits(self.encoder[chosen], self.linear[chosen], self.windows[chosen])


def logits(
    model: EncoderModel,
    linear: LinearModel,
    rows: Sequence[Row],
    *,
    kept_in: Path,
    told: Callable[[str], None],
) -> Logits:
    """Both models' logits of all rows. The encoder's are kept in a file: they cost minutes."""
    known = _read(kept_in)
    found = []
    for number, row in enumerate(rows, 1):
        key = sha256(row.text.encode("utf-8", "surrogatepass")).hexdigest()
        view_set = build_views(row.text)
        if key not in known:
            windows = list(window_logits(model, view_set, most_windows=UNBOUNDED))
            known[key] = (max((window.logit for window in windows), default=LOWEST), len(windows))
        best, count = known[key]
        found.append((best - allowance(count), max(highest_logit(linear, view_set), LOWEST), count))
        if number % 4000 == 0:
            told(f"{number} of {len(rows)} rows scored")
            _write(kept_in, known)
    _write(kept_in, known)
    encoder, straight, counts = np.array(found).T
    return Logits(encoder, straight, counts)


def _read(file: Path) -> dict[str, tuple[float, int]]:
    if not file.is_file():
        return {}
    with np.load(file, allow_pickle=False) as kept:
        pairs = zip(kept["logits"].tolist(), kept["windows"].tolist(), strict=True)
        return dict(zip(kept["keys"].tolist(), pairs, strict=True))


def _write(file: Path, known: dict[str, tuple[float, int]]) -> None:
    values = list(known.values())
    np.savez_compressed(
        file,
        keys=np.array(list(known)),
        logits=np.array([logit for logit, _ in values]),
        windows=np.array([count for _, count in values]),
    )


def linear_weight(found: Logits, rows: Sequence[Row]) -> float:
    """How much a logit of the linear model counts beside one of the encoder.

    Logistic regression on both, classes and sources balanced. An encoder's logits saturate; the weight lies
    between 0.1 and 3.
    """
    labels = np.array([row.label for row in rows])
    names = np.array([f"{row.source}:{row.label}" for row in rows])
    _, numbers, counts = np.unique(names, return_inverse=True, return_counts=True)
    weights = 1.0 / counts[numbers]
    for label in (0, 1):
        weights[labels == label] /= weights[labels == label].sum()
    both = np.stack([found.encoder, np.clip(found.linear, -LARGEST_LINEAR, LARGEST_LINEAR)], axis=1)
    model = LogisticRegression(C=1e6).fit(both, labels, sample_weight=weights * len(rows))
    encoder, linear = model.coef_[0]
    return round(float(np.clip(linear / max(encoder, 1e-6), 0.1, 3.0)), 4)


def operating_point(
    found: Logits, rows: Sequence[Row], instructions: Logits, *, weight: float, linear_digest: str
) -> OperatingPoint:
    """Slope and thresholds for one way of joining; `instructions` are harmless instruction texts."""
    joined = found.joined(weight)
    return OperatingPoint(
        linear_weight=weight,
        linear_digest=linear_digest,
        slope=evaluate.slope(joined, rows),
        thresholds=thresholds(joined, rows, instructions.joined(weight)),
    )


def thresholds(joined: np.ndarray, rows: Sequence[Row], instructions: np.ndarray) -> dict[str, float]:
    """A threshold for each origin; that of a system prompt lies above 99.5 % of harmless instructions."""
    user = evaluate.threshold(joined, rows, USER_HARMLESS, rate=TARGET)
    outside = min(evaluate.threshold(joined, rows, OUTSIDE_HARMLESS, rate=OUTSIDE_TARGET), user)
    outside = max(outside, user - FURTHEST_BELOW)
    system = max(float(np.quantile(instructions, 0.995)), user + 1.0)
    named = {"system": system, "user": user, "model": user}
    for origin in ("tool_result", "tool_definition", "retrieved", "memory", "unknown"):
        named[origin] = outside
    # The first harmless row that may not pass sets a threshold; rows pass only above it.
    return {origin: round(value + 1e-4, 4) for origin, value in named.items()}


def recall_at(joined: np.ndarray, rows: Sequence[Row], rate: float) -> float:
    """Mean recall over sources at the threshold that lets `rate` of harmless rows pass."""
    limit = evaluate.threshold(joined, rows, USER_HARMLESS, rate=rate)
    return evaluate.mean_rate(evaluate.rates(joined > limit, rows), 1)
