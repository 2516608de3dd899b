"""Whether the promise of a calibration holds: 300 rows of a source are drawn, the rest of it is the judge.

Every draw calibrates anew, and is looked at twice. First on the rows that were not drawn: where few are left,
their own noise counts against the promise. Then as the theory has it: 300 rows drawn with replacement, and
the whole source as the population. The share of draws that hold should be at least the confidence. The last
figures show how a promise travels: made on one source and looked at on another, where nothing is promised.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from figures import Figure, Skipped, Source, read_source

from stanchion.detectors.calibration_rows import LabelledText
from stanchion.detectors.registry import Registry
from stanchion.detectors.scoring import make_for_scoring, score_rows
from stanchion.stats.risk_control import certify

DETECTOR = "injection.linear"
ROWS, DRAWS, SEED, CONFIDENCE = 300, 200, 17, 0.95
LIMITS = (0.05, 0.02, 0.01)
SOURCES = (
    "benign/clinc150.dev.jsonl.gz",
    "overrefusal/cyberseceval_frr_ml.dev.jsonl",
    "toxicity/hatecheck.dev.jsonl",
    "toxicity/openai_moderation.dev.jsonl",
)


def figures(data: Path) -> Iterator[Figure | Skipped]:
    detector = make_for_scoring(Registry(), DETECTOR, {})
    version = str(detector.version)
    scored: list[tuple[Source, np.ndarray]] = []
    for name in SOURCES:
        source = read_source(data, name).where(lambda row: row.get("label", 0) == 0)
        if source.absent:
            yield Skipped(name, source.absent)
            continue
        rows = [LabelledText(text=row["text"], label=0, place=name) for row in source.rows]
        scored.append((source, np.asarray(score_rows(detector, rows).scores)))
    for source, scores in scored:
        for limit in LIMITS:
            yield _held(source, scores, limit, version, is_population=False)
            yield _held(source, scores, limit, version, is_population=True)
    if len(scored) > 1:
        yield from _travelled(scored, version)


def _held(source: Source, scores: np.ndarray, limit: float, version: str, *, is_population: bool) -> Figure:
    rng = np.random.default_rng(SEED)
    held, chosen = 0, []
    for _ in range(DRAWS):
        order = rng.integers(0, scores.size, ROWS) if is_population else rng.permutation(scores.size)
        judged = scores if is_population else scores[order[ROWS:]]
        threshold = certify(scores[order[:ROWS]].tolist(), alpha=limit, confidence=CONFIDENCE).lowest
        if threshold is None:
            held += 1  # nothing was promised
            continue
        chosen.append(threshold)
        held += float((judged >= threshold).mean()) <= limit
    return Figure(
        detector=DETECTOR,
        version=version,
        threshold=round(float(np.median(chosen)), 4) if chosen else 1.0,
        source=source.name,
        digest=source.digest,
        measure=f"draws of {ROWS} rows whose {100 * limit:g} % held",
        k=held,
        n=DRAWS,
        note=f"{DRAWS - len(chosen)} draws promised nothing; median threshold; judged on "
        + (
            f"the population of {scores.size:,}"
            if is_population
            else f"the other {scores.size - ROWS:,} rows"
        ),
    )


def _travelled(scored: list[tuple[Source, np.ndarray]], version: str) -> Iterator[Figure]:
    """The false-alarm rate on every other source at the threshold that one source certifies for 1 %."""
    source, scores = scored[0]
    rng = np.random.default_rng(SEED)
    threshold = certify(rng.permutation(scores)[:ROWS].tolist(), alpha=0.01, confidence=CONFIDENCE).lowest
    if threshold is None:
        return
    for other, theirs in scored[1:]:
        yield Figure(
            detector=DETECTOR,
            version=version,
            threshold=threshold,
            source=other.name,
            digest=other.digest,
            measure=f"false alarms, calibrated for 1 % on {source.name}",
            k=int((theirs >= threshold).sum()),
            n=int(theirs.size),
            note="another source than the calibration's: nothing is promised",
        )
