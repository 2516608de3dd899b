"""Credentials: made-up tokens, the samples of a public rule set, credentials in many syntaxes, and code."""

from __future__ import annotations

import platform
import random
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import yaml
from figures import Figure, Measured, Row, Skipped, Source, generated, read_source
from made.credentials import ASSIGNED, negatives, positives

SECRETS = Measured(detector="secrets", threshold=0.5)
GOALS = (">= 95 %", "<= 2 %")
GITLEAKS = "secrets/gitleaks_rule_samples.dev.jsonl.gz"
VERDICTS = Path(__file__).resolve().parents[1] / "verdicts.yaml"
SEED = 21  # no rule was written with this seed in sight
_WINDOW = 30  # lines


def figures(data: Path) -> Iterator[Figure | Skipped]:
    yield from SECRETS.by_label(read_source(data, "secrets/synthetic.train.jsonl.gz"), note="train")
    samples = read_source(data, GITLEAKS)
    yield from SECRETS.by_label(samples, note="dev, whole, as labelled", goals=GOALS)
    yield from SECRETS.by_label(
        undisputed(samples), note="dev, whole, without the rows whose label gitleaks contradicts", goals=GOALS
    )
    yield from SECRETS.by_label(samples.half("A"), note="dev, half A, calibration")
    yield from SECRETS.by_label(samples.half("B"), note="dev, half B, report", goals=GOALS)
    yield from SECRETS.by_label(read_source(data, "secrets/detect_secrets_files.dev.jsonl.gz"), note="dev")
    yield from in_syntaxes()
    yield from in_code()


def undisputed(samples: Source) -> Source:
    """The rows on which label and verdict of gitleaks, from which the labels were read, are the same."""
    verdicts = yaml.safe_load(VERDICTS.read_text(encoding="utf-8"))["gitleaks_rule_samples"]
    disputed = {number for numbers in verdicts.values() for number in numbers}
    return samples.where(lambda row: str(row["id"]).rpartition("-")[2] not in disputed)


def in_syntaxes() -> Iterator[Figure | Skipped]:
    """Drawn tokens and passwords in the syntaxes of configuration and code, and what stands there instead."""
    rows: list[Row] = [{"kind": kind, "text": text} for kind, text in positives(seed=SEED, each=20)]
    source = generated(f"credentials in {len({row['kind'] for row in rows})} syntaxes, seed {SEED}", rows)
    for measure, is_assigned in (("recall, assigned to a name", True), ("recall, in other places", False)):
        kept = source.where(lambda row, wanted=is_assigned: (row["kind"] in ASSIGNED) is wanted)
        yield from SECRETS.figure(
            kept, measure, map(SECRETS.fires, kept.rows), note="synthetic", goal=GOALS[0]
        )
    others: list[Row] = [{"kind": kind, "text": text} for kind, text in negatives(seed=SEED, each=20)]
    source = generated(f"references, placeholders and identifiers in the same syntaxes, seed {SEED}", others)
    yield from SECRETS.figure(
        source, "false alarms", map(SECRETS.fires, source.rows), note="synthetic", goal=GOALS[1]
    )


def in_code() -> Iterator[Figure | Skipped]:
    """Windows of lines of the standard library's sources: tests of protocols hold a few made-up logins."""
    name = f"sources of the Python {platform.python_version()} standard library, windows of {_WINDOW} lines"
    source = generated(name, ({"text": text} for text in _windows(5000)))
    yield from SECRETS.figure(source, "false alarms", map(SECRETS.fires, source.rows), goal=GOALS[1])


def _windows(count: int) -> Iterator[str]:
    folder = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(file for file in folder.rglob("*.py") if "site-packages" not in file.parts)
    random.Random(SEED).shuffle(files)
    made = 0
    for file in files:
        try:
            lines = file.read_text(encoding="utf-8").split("\n")
        except UnicodeDecodeError:
            continue  # sources in other encodings, kept by the library's own tests
        for start in range(0, len(lines), _WINDOW):
            text = "\n".join(lines[start : start + _WINDOW])[:6000]
            if text.strip() and made < count:
                made += 1
                yield text
