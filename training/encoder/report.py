"""Operating points from the calibration half of the development data, rates from the other half."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from pipeline import evaluate
from pipeline.evaluate import Rate
from pipeline.recipe import Corpus
from pipeline.rows import Row, SourceFile

from encoder import calibrate, package
from stanchion.core.finding import DetectorInput
from stanchion.core.origin import Origin
from stanchion.detectors.classifier import LinearModel, load_linear
from stanchion.detectors.encoder import MOST_WINDOWS
from stanchion.detectors.encoder_model import EncoderManifest, open_encoder
from stanchion.detectors.injection import PatternDetector
from stanchion.detectors.scan import packaged_scanner
from stanchion.detectors.views import build_views

INSTRUCTIONS = frozenset({"awesome_prompts", "made:en:system"})  # what a system prompt normally holds
PATTERN_SCORE = 0.5  # the threshold of the packaged policies


@dataclass(frozen=True)
class Report:
    """Everything a card says."""

    manifest: EncoderManifest
    linear: LinearModel
    taught: package.TaughtData
    files: Sequence[SourceFile]
    columns: dict[str, Sequence[Rate]]
    chosen: dict[str, tuple[float, float]]  # recall on the calibration half at 1 % and 2 % false alarms
    long_rows: int  # rows of more windows than the detector reads
    left_out: Sequence[dict]


def reported(
    work: Path,
    rows: Sequence[Row],
    files: Sequence[SourceFile],
    taught: Corpus,
    *,
    told: Callable[[str], None],
) -> Report:
    """Scores everything with the int8 network of `work`, then calibrates and counts."""
    model_file, tokenizer_file = (package.weight_file(work, name) for name in package.FILES)
    model = open_encoder((work / tokenizer_file.name).read_bytes(), (work / model_file.name).read_bytes())
    linear = load_linear("injection-linear")
    kept = work / f"logits-{model_file.digest[-12:]}.npz"
    instructions = [row for row in taught.rows if row.source in INSTRUCTIONS]
    of_instructions = calibrate.logits(model, linear, instructions, kept_in=kept, told=told)
    found = calibrate.logits(model, linear, rows, kept_in=kept, told=told)
    half = np.array([evaluate.is_calibration(row) for row in rows])
    held = [row for row, is_held in zip(rows, half, strict=True) if is_held]
    rest = [row for row, is_held in zip(rows, half, strict=True) if not is_held]
    calibration = found.where(half)
    weight = calibrate.linear_weight(calibration, held)
    alone, joined = (
        calibrate.operating_point(calibration, held, of_instructions, weight=share, linear_digest=digest)
        for share, digest in ((0.0, ""), (weight, linear.manifest.digest))
    )
    data = msgspec.json.decode((work / "data.json").read_bytes(), type=package.TaughtData)
    manifest = EncoderManifest(
        name=package.NAME, version=package.VERSION, base=package.BASE, data_digest=data.digest,
        model=model_file, tokenizer=tokenizer_file, alone=alone, with_linear=joined,
    )  # fmt: skip
    told(f"linear counts {weight}; thresholds {joined.thresholds}")
    scores = {"encoder alone": calibration.encoder, "encoder with linear": calibration.joined(weight)}
    scores["linear"] = calibration.linear
    return Report(
        manifest=manifest,
        linear=linear,
        taught=data,
        files=files,
        columns=_columns(manifest, linear, found.where(~half), rest, told),
        chosen={
            name: (calibrate.recall_at(values, held, 0.01), calibrate.recall_at(values, held, 0.02))
            for name, values in scores.items()
        },
        long_rows=int((found.windows > MOST_WINDOWS).sum()),
        left_out=_left_out(work),
    )


def _columns(
    manifest: EncoderManifest,
    linear: LinearModel,
    found: calibrate.Logits,
    rows: Sequence[Row],
    told: Callable[[str], None],
) -> dict[str, Sequence[Rate]]:
    """Rates of the reporting half; a text that is too long to be read counts as found: the check fails."""
    patterns = _patterns(rows)
    told("patterns are done")
    unread = found.windows > MOST_WINDOWS
    joined = found.joined(manifest.with_linear.linear_weight)
    encoder = (joined >= manifest.with_linear.thresholds["user"]) | unread
    straight = found.linear >= linear.manifest.thresholds["user"]
    columns = {
        "encoder": encoder,
        "encoder, origin retrieved": (joined >= manifest.with_linear.thresholds["retrieved"]) | unread,
        "encoder without linear": (found.encoder >= manifest.alone.thresholds["user"]) | unread,
        "linear": straight,
        "patterns or linear": patterns | straight,
        "patterns or encoder": patterns | encoder,
        "any of the three": patterns | straight | encoder,
    }
    return {name: evaluate.rates(passes, rows) for name, passes in columns.items()}


def _patterns(rows: Sequence[Row]) -> np.ndarray:
    detector = PatternDetector(packaged_scanner())
    found = []
    for row in rows:
        findings = detector.detect(DetectorInput(view_set=build_views(row.text), origin=Origin.USER))
        found.append(any(finding.score >= PATTERN_SCORE for finding in findings))
    return np.array(found)


def _left_out(work: Path) -> list[dict]:
    return [json.loads(file.read_text()) for file in sorted(work.glob("left-out-*.json"))]
