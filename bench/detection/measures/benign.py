"""Findings of the fixed-form detectors in everyday texts, none of which was written to hold any."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from figures import Figure, Measured, Skipped, read_source

MEASURED = (Measured(detector="secrets", threshold=0.5), Measured(detector="pii", threshold=0.5))
SOURCES = (
    "benign/banking77.train.jsonl.gz",
    "benign/clinc150.dev.jsonl.gz",
    "benign/llmail_emails.dev.jsonl",
    "benign/mtbench.dev.jsonl",
    "benign/self_instruct_human.train.jsonl",
    "benign/awesome_prompts.train.jsonl",
)


def figures(data: Path) -> Iterator[Figure | Skipped]:
    for name in SOURCES:
        source = read_source(data, name)
        for each in MEASURED:
            yield from each.figure(
                source, f"rows with a finding of {each.detector}", map(each.fires, source.rows)
            )
