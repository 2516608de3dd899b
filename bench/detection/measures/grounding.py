"""Grounding: answers against their evidence, on the halves of the development sources that chose nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from figures import Figure, Measured, Row, Skipped, findings, read_source

DEV = ("grounding/q2_wow.dev.jsonl", "grounding/factcheck_gpt_stance.dev.jsonl.gz")
TRAIN = ("grounding/begin_wow.train.jsonl", "grounding/faithdial_audit.train.jsonl")
THRESHOLDS = (0.5, 0.7)


def figures(data: Path) -> Iterator[Figure | Skipped]:
    for threshold in THRESHOLDS:
        measured = Measured(detector="grounding", threshold=threshold)

        def fires(row: Row, threshold: float = threshold) -> bool:
            context = {"documents": (row["context"],), "question": (row.get("question") or "",)}
            return bool(findings("grounding", row["text"], threshold=threshold, context=context))

        for path in DEV:
            yield from measured.by_label(read_source(data, path).half("B"), fires, note="half B")
        for path in TRAIN:
            yield from measured.by_label(read_source(data, path), fires, note="trained on")
