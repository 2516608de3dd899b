"""Credentials: recall and false alarms on made-up tokens and on the samples of a public rule set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from figures import Figure, Measured, Skipped, read_source

SECRETS = Measured(detector="secrets", threshold=0.5)
GOALS = (">= 95 %", "<= 2 %")
GITLEAKS = "secrets/gitleaks_rule_samples.dev.jsonl.gz"


def figures(data: Path) -> Iterator[Figure | Skipped]:
    yield from SECRETS.by_label(read_source(data, "secrets/synthetic.train.jsonl.gz"), note="train")
    samples = read_source(data, GITLEAKS)
    yield from SECRETS.by_label(samples, note="dev, whole", goals=GOALS)
    yield from SECRETS.by_label(samples.half("A"), note="dev, half A, calibration")
    yield from SECRETS.by_label(samples.half("B"), note="dev, half B, report")
    yield from SECRETS.by_label(read_source(data, "secrets/detect_secrets_files.dev.jsonl.gz"), note="dev")
