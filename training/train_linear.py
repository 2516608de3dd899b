"""Train `injection.linear` with the one command `python training/train_linear.py`.

Reads ../shared/data, writes the weights and their manifest into the package and the model card into docs.
Takes minutes on one core. One thread is set, so that sums are added in the same order everywhere.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from pipeline import evaluate
from pipeline.card import Report, card
from pipeline.fit import Settings, fit, fit_kinds
from pipeline.instances import Bags
from pipeline.package import NAME, manifest_bytes, packaged
from pipeline.processes import all_bags, mapped
from pipeline.recipe import JAILBREAK_SOURCES, corpus, reporting
from pipeline.rows import Row

from stanchion.core.finding import DetectorInput
from stanchion.core.origin import Origin
from stanchion.detectors.classifier import KIND_BITS, LinearModel
from stanchion.detectors.injection import PatternDetector
from stanchion.detectors.linear import highest_logit
from stanchion.detectors.scan import packaged_scanner
from stanchion.detectors.views import build_views

REPOSITORY = Path(__file__).resolve().parents[1]
PATTERN_SCORE = 0.6
MOST_WINDOWS = 40  # of a reading, in training
EVERY = 3  # models without some source learn from, and are asked about, every third row
_INSTRUCTIONS = frozenset({"awesome_prompts", "made:en:system"})
_STARTED = time.monotonic()


def main() -> None:
    """Parse the command line, train, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=REPOSITORY / "src/stanchion/data/weights")
    parser.add_argument("--card", type=Path, default=REPOSITORY / "docs/model-cards/linear-injection.md")
    parser.add_argument("--no-left-out", action="store_true", help="skip the leave-one-source-out table")
    arguments = parser.parse_args()
    for folder in (arguments.weights, arguments.card.parent):
        folder.mkdir(parents=True, exist_ok=True)
    trained = train(Settings())
    manifest = trained.report.manifest
    (arguments.weights / manifest.file).write_bytes(trained.data)
    (arguments.weights / f"{NAME}.json").write_bytes(manifest_bytes(manifest))
    arguments.card.write_text(card(trained.report), encoding="utf-8")
    told(f"wrote {arguments.weights / manifest.file}, {len(trained.data)} bytes, {manifest.digest}")
    if not arguments.no_left_out:
        arguments.card.write_text(card(left_out(trained)), encoding="utf-8")
    told(f"wrote {arguments.card}")


@dataclass(frozen=True)
class Trained:
    """The weights' bytes, the report so far, and what models without some of the rows are taught from."""

    data: bytes
    report: Report
    held: tuple[Bags, list[Row]]


def left_out(trained: Trained) -> Report:
    """The report with the models that were taught without some of the rows, on every `EVERY`th row."""
    rows = trained.report.corpus.rows[::EVERY]
    windows = all_bags(rows, most_windows=MOST_WINDOWS)
    settings = trained.report.settings
    data = (windows, rows, trained.held)
    questions = [
        partial(evaluate.made_only, *data, settings=settings),
        partial(evaluate.public_only, *data, settings=settings),
        *(
            partial(evaluate.leave_out, *data, group, settings=settings, told=told)
            for group in evaluate.LEFT_OUT
        ),
    ]
    made, public, *groups = mapped(lambda place: questions[place](), range(len(questions)), processes=2)
    return replace(
        trained.report,
        made_only=made,
        public_only=public,
        left_out=[rate for found in groups for rate in found],
    )


def train(settings: Settings) -> Trained:
    """Rows, features, fit, thresholds, rates."""
    taught = corpus()
    told(f"{len(taught.rows)} rows")
    windows = all_bags(taught.rows, most_windows=MOST_WINDOWS)
    told(f"{windows.features.shape[0]} windows")
    fitted = fit(windows, taught.rows, settings=settings)
    kinds = fit_kinds(windows, taught.rows, JAILBREAK_SOURCES, bits=KIND_BITS)
    told("fitted")
    rows, files = reporting()
    half = np.array([evaluate.is_calibration(row) for row in rows])
    calibration = [row for row, chosen in zip(rows, half, strict=True) if chosen]
    reported = [row for row, chosen in zip(rows, half, strict=True) if not chosen]
    is_instruction = np.array([row.source in _INSTRUCTIONS for row in taught.rows])
    instructions = windows.best(fitted.logits(windows))[is_instruction]
    # The logits of the quantised weights, from the code that the package runs.
    _, _, draft = packaged(fitted, kinds, taught.files, slope=1.0, thresholds={})
    logits = _logits(draft, calibration)
    thresholds = evaluate.thresholds(logits, calibration, instructions)
    slope = evaluate.slope(logits, calibration)
    data, manifest, model = packaged(fitted, kinds, taught.files, slope=slope, thresholds=thresholds)
    told(f"thresholds {thresholds}, slope {slope}")
    found = _logits(model, reported)
    held = (all_bags(calibration, most_windows=10_000), calibration)
    report = Report(
        manifest,
        len(data),
        settings,
        taught,
        files,
        evaluate.rates(found >= thresholds["user"], reported),
        evaluate.rates(found >= thresholds["retrieved"], reported),
        evaluate.rates((found >= thresholds["user"]) | _patterns(reported), reported),
        evaluate.rates(logits >= thresholds["user"], calibration),
    )
    return Trained(data, report, held)


def _logits(model: LinearModel, rows: list[Row]) -> np.ndarray:
    return np.array(mapped(lambda text: highest_logit(model, build_views(text)), [row.text for row in rows]))


def _patterns(rows: list[Row]) -> np.ndarray:
    # In this process: compiled databases of patterns do not outlive a fork.
    detector = PatternDetector(packaged_scanner())
    found = []
    for row in rows:
        findings = detector.detect(DetectorInput(view_set=build_views(row.text), origin=Origin.USER))
        found.append(any(finding.score >= PATTERN_SCORE for finding in findings))
    return np.array(found)


def told(line: str) -> None:
    """One line of progress."""
    print(f"{time.monotonic() - _STARTED:6.0f} s  {line}", flush=True)


if __name__ == "__main__":
    main()
