"""Texts written by hand that nothing was fitted on: a check of how the frozen detectors travel.

The rows are few, so the intervals are wide; one author wrote them before the present weights were trained.
No row was used to write, train or choose anything. The kinds of text that earlier weights got wrong here, not
the texts, were known when the present injection weights were made: other texts will be a little less kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml
from figures import Figure, Measured, Row, Skipped, Source, detector, generated
from made.handwritten import credentials

from stanchion.core.finding import DetectorInput
from stanchion.core.origin import Origin
from stanchion.detectors.views import build_views

FOLDER = Path(__file__).resolve().parents[1] / "unseen"
NOTE = "hand-written"
PATTERNS = 0.6
MODEL = 0.5


def figures(data: Path) -> Iterator[Figure | Skipped]:
    attacks = rows("injection")
    goals = (">= 65 %", "<= 2 %")
    linear = Measured(detector="injection.linear", threshold=MODEL)
    yield from linear.by_label(attacks, is_attack, note=f"{NOTE}; patterns or linear", goals=goals)
    yield from encoder(attacks)
    refusal = Measured(detector="refusal", threshold=0.6)
    yield from refusal.by_label(rows("refusal"), note=NOTE, goals=(">= 85 %", "<= 5 %"))
    content = Measured(detector="content", threshold=0.5)
    yield from content.by_label(rows("content"), note=NOTE)
    secrets = Measured(detector="secrets", threshold=0.5)
    made = generated("credentials in 61 writings and 60 look-alikes", credentials())
    yield from secrets.by_label(made, note=NOTE, goals=(">= 95 %", "<= 2 %"))


def encoder(attacks: Source) -> Iterator[Figure | Skipped]:
    """The base tier or the encoder, where the extra and its weights are installed."""
    try:
        import onnxruntime  # noqa: F401
        import stanchion_ml_weights  # noqa: F401
    except ImportError as error:
        yield Skipped("unseen/injection.yaml", f"injection.encoder: {error.name} is not installed")
        return
    measured = Measured(detector="injection.encoder", threshold=MODEL)
    goals = (">= 75 %", "<= 1 %")
    yield from measured.by_label(
        attacks, lambda row: reports(row, "injection.encoder"), note=NOTE, goals=goals
    )
    yield from measured.by_label(
        attacks,
        lambda row: is_attack(row) or reports(row, "injection.encoder"),
        note=f"{NOTE}; patterns, linear or encoder",
        goals=goals,
    )


def is_attack(row: Row) -> bool:
    """Whether the base tier reports the row at its packaged thresholds."""
    return reports(row, "injection.patterns") or reports(row, "injection.linear")


def reports(row: Row, name: str) -> bool:
    """Whether a detector reports the row, as a user's words, at its packaged threshold."""
    read = DetectorInput(view_set=build_views(row["text"]), origin=Origin.USER)
    threshold = PATTERNS if name == "injection.patterns" else MODEL
    return any(finding.score >= threshold for finding in detector(name).detect(read))


def rows(name: str) -> Source:
    """The rows of one file, with the digest of what they say."""
    read: list[Row] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    made = generated(name, read)
    return Source(f"unseen/{name}.yaml", made.digest, read)
