"""Train the model of `content` with the one command `python training/train_content.py`.

Reads ../shared/data, writes the weights and their manifest into the package and the model card into docs.
Takes minutes on one core. One thread is set, so that sums are added in the same order everywhere.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import msgspec
import numpy as np
from content import corpus, grammars, learn, report
from content.corpus import HEADS, ContentRow

from stanchion.core.codec import digest_bytes
from stanchion.core.finding import DetectorInput, Severity
from stanchion.core.origin import Origin
from stanchion.detectors import content, content_model
from stanchion.detectors.content_model import ANY, ContentHead, ContentManifest, ContentModel
from stanchion.detectors.hashing import FEATURE_VERSION
from stanchion.detectors.scan import packaged_scanner
from stanchion.detectors.views import build_views

REPOSITORY = Path(__file__).resolve().parents[1]
NAME, VERSION, SEED = "content-linear", "3", 7
_STARTED = time.monotonic()


def main() -> None:
    """Parse the command line, train, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=REPOSITORY / "src/stanchion/data/weights")
    parser.add_argument("--card", type=Path, default=REPOSITORY / "docs/model-cards/content.md")
    parser.add_argument("--no-left-out", action="store_true", help="skip the leave-one-source-out table")
    arguments = parser.parse_args()
    rows, files, windows = _taught()
    table, biases = learn.fit(windows, rows)
    told("fitted")
    numbers, scales = learn.quantised(table)
    weights = _archive(numbers)
    data_digest = (
        "sha256:" + hashlib.sha256(json.dumps([(f.name, f.digest) for f in files]).encode()).hexdigest()
    )
    dev, dev_files = corpus.reporting()
    half = np.array([report.is_calibration(row) for row in dev])
    calibration = [row for row, chosen in zip(dev, half, strict=True) if chosen]
    draft = _manifest(weights, data_digest, scales, biases, np.ones(len(HEADS)), np.zeros(len(HEADS)))
    logits = _logits(content_model.open_content(draft, weights), calibration)
    thresholds = report.thresholds(logits, calibration)
    slopes = report.slopes(logits, calibration)
    manifest = _manifest(weights, data_digest, scales, biases, slopes, thresholds)
    told(f"thresholds {dict(zip(HEADS, thresholds.tolist(), strict=True))}")
    for folder in (arguments.weights, arguments.card.parent):
        folder.mkdir(parents=True, exist_ok=True)
    (arguments.weights / manifest.file).write_bytes(weights)
    (arguments.weights / f"{NAME}.json").write_bytes(
        msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    )
    told(f"wrote {arguments.weights / manifest.file} ({len(weights)} bytes)")
    model = content_model.open_content(manifest, weights)
    measured, version = _measured([r for r, chosen in zip(dev, half, strict=True) if not chosen], model)
    left_out = [] if arguments.no_left_out else _left_out(rows, windows, thresholds)
    counts = dict(Counter(row.source for row in rows))
    page = report.Report(manifest, version, len(weights), files, dev_files, counts, measured, left_out)
    arguments.card.write_text(report.card(page), encoding="utf-8")
    told(f"wrote {arguments.card}")


def _taught() -> tuple[list[ContentRow], list[corpus.SourceFile], learn.Windowed]:
    rng = random.Random(SEED)
    rows, files = corpus.teaching()
    rows += corpus.made(rng) + grammars.grammar_rows(rng)
    rows = _unique(rows)
    rows += corpus.joined(rows, rng, count=1000)
    windows = learn.windowed(rows)
    told(f"{len(rows)} rows, {windows.features.shape[0]} windows")
    return rows, files, windows


def _unique(rows: Sequence[ContentRow]) -> list[ContentRow]:
    """Without copies of one text under one label; public sets repeat each other."""
    seen: set[tuple[str, int]] = set()
    kept = []
    for row in rows:
        key = (" ".join(row.text.casefold().split()), row.label)
        if key not in seen:
            seen.add(key)
            kept.append(row)
    return kept


def _archive(numbers: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, table=numbers)
    return file.getvalue()


def _manifest(
    weights: bytes, data_digest: str, scales: np.ndarray, biases: np.ndarray, *read: np.ndarray
) -> ContentManifest:
    slopes, thresholds = read
    heads = tuple(
        ContentHead(
            category=ANY if name == ANY else f"content.{name}",
            scale=float(scales[i]), bias=round(float(biases[i]), 6),
            slope=float(slopes[i]), threshold=float(thresholds[i]),
        )
        for i, name in enumerate(HEADS)
    )  # fmt: skip
    return ContentManifest(
        name=NAME, version=VERSION, feature_version=FEATURE_VERSION, file=f"{NAME}.npz",
        digest=digest_bytes(weights), data_digest=data_digest, heads=heads,
    )  # fmt: skip


def _logits(model: ContentModel, rows: Sequence[ContentRow]) -> np.ndarray:
    """The worst window of every row for every head; -30 for rows without words."""
    best = [content.highest_margins(model, build_views(row.text)) for row in rows]
    return np.array([[max(found[name], -30.0) for name in model.categories] for found in best])


def _measured(rows: Sequence[ContentRow], model: ContentModel) -> tuple[report.Measured, str]:
    """The detector as it is packaged, with these weights."""
    content.load_content = lambda: model
    content.read_content_manifest = lambda: model.manifest
    detector = content.ContentDetector(packaged_scanner())
    found = [
        detector.detect(DetectorInput(view_set=build_views(row.text), origin=Origin.USER)) for row in rows
    ]
    names = {pattern.id for pattern in packaged_scanner().patterns_for(content.ID)}
    of_model = np.array([any(f.rule not in names for f in findings) for findings in found])
    categories = [frozenset(f.category for f in findings) for findings in found]
    flags = np.array([bool(findings) for findings in found])
    severe = np.array([any(f.severity.rank >= Severity.HIGH.rank for f in findings) for findings in found])
    return report.Measured(rows, flags, of_model, severe, categories), detector.version


def _left_out(
    rows: Sequence[ContentRow], windows: learn.Windowed, thresholds: np.ndarray
) -> list[tuple[str, report.Rate, report.Rate]]:
    """For each public source with harmful rows, and some without, a model that never saw it."""
    table = []
    for source in (
        "advbench",
        "catqa",
        "davidson",
        "hatemoji_build",
        "banking77",
        "begin_wow",
        "neuralchemy",
    ):
        head = "hate" if source in {"davidson", "hatemoji_build"} else ANY
        held = np.array([row.source == source for row in rows])
        inside = held[windows.owners]
        numbers = np.cumsum(~held) - 1
        kept = learn.Windowed(windows.features[~inside], numbers[windows.owners[~inside]])
        weights, biases = learn.fit(kept, [r for r, out in zip(rows, held, strict=True) if not out], (head,))
        logits = np.full(len(rows), -30.0)
        found = windows.features[inside] @ weights[:, 0] + biases[0]
        np.maximum.at(logits, windows.owners[inside], found)
        over = logits >= thresholds[HEADS.index(head)]
        rates = []
        for label in (1, 0):
            own = np.array([o and r.label == label for o, r in zip(held, rows, strict=True)])
            rates.append(report.Rate(source, int(over[own].sum()), int(own.sum())))
        table.append((source, *rates))
        told(f"without {source}: {rates[0].text} / {rates[1].text}")
    return table


def told(line: str) -> None:
    """One line of progress."""
    print(f"{time.monotonic() - _STARTED:6.0f} s  {line}", flush=True)


if __name__ == "__main__":
    main()
