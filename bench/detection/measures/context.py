"""Context signals: the language that is guessed, per language and source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from figures import Figure, Measured, Skipped, read_source

from stanchion.detectors.context_language import guess_language

SOURCES = (
    "toxicity/multijail.dev.jsonl",
    "toxicity/catqa.train.jsonl",
    "overrefusal/cyberseceval_frr_ml.dev.jsonl",
    "injection/cyberseceval_ml.dev.jsonl",
    "injection/xsafety_goal_hijacking.train.jsonl",
    "benign/xsafety_mental_health.train.jsonl",
)


def figures(data: Path) -> Iterator[Figure | Skipped]:
    measured = Measured(detector="context", threshold=0.0)
    for path in SOURCES:
        source = read_source(data, path)
        for language in sorted({row["lang"] for row in source.rows}):
            rows = [row for row in source.rows if row["lang"] == language]
            right = (guess_language(row["text"]).language == language for row in rows)
            yield from measured.figure(source, f"language told: {language}", right)
        if source.absent:
            yield Skipped(source.name, source.absent)
