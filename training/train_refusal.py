"""Train the linear part of `refusal` with the one command `python training/train_refusal.py`.

Reads the human-labelled answers of ../shared/data (train split only), answers made from our own templates and
harmless texts that are no answers; writes the weights and their manifest into the package. Takes about a
minute on one core. The weight of the phrases beside the model, the slope and the threshold are set on scores
that no fit of the same rows made: each answering model's rows are scored by a fit without them.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import json

import msgspec
import numpy as np
from pipeline.rows import DATA, SourceFile, read
from refusal.answers import about_acts, answers
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from stanchion.core.codec import digest, digest_bytes
from stanchion.detectors.classifier import SMOOTHING
from stanchion.detectors.hashing import CHARACTER_ORDERS, FEATURE_VERSION, TABLE_BITS, WORD_FACTOR, n_grams
from stanchion.detectors.refusal import ID, evidence, help_after_caution, said, voices
from stanchion.detectors.refusal_model import BITS, NAME, OPENING, RefusalManifest, RefusalModel, open_refusal
from stanchion.detectors.scan import packaged_scanner
from stanchion.detectors.views import build_views

REPOSITORY = Path(__file__).resolve().parents[1]
VERSION = "2"
ANSWERS = "refusal/xstest_completions.train"
NOT_ANSWERS = ("benign/self_instruct_human.train", "benign/awesome_prompts.train", "benign/tau_bench.train")
STRENGTH = 20.0  # inverse of the L2 penalty
CROP_WEIGHT = 0.6  # an answer counts once, though two parts of it are taught
EVIDENCE = 1.0  # of the phrases, beside the model's logit
ALARMS = 0.045  # of complying answers, at the threshold
SEED, EACH, EACH_ACT = 1, 6, 6
_LEAST, _SENTENCE = 24, 160  # characters of a first sentence
_SENTENCE_END = re.compile(r"[.!?\u3002\uff01\uff1f\u0964\u061f\n]")
_STARTED = time.monotonic()


@dataclass(frozen=True)
class Taught:
    """A text, its label, what it counts, and the group that is scored by a fit without it."""

    text: str
    label: int
    weight: float
    group: str


def main() -> None:
    """Parse the command line, train, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=REPOSITORY / "src/stanchion/data/weights")
    arguments = parser.parse_args()
    rows, files = corpus()
    told(f"{len(rows)} texts")
    features = matrix([row.text[:OPENING] for row in rows] + [first_sentence(row.text) for row in rows])
    manifest, data = train(rows, features, files)
    (arguments.weights / manifest.file).write_bytes(data)
    body = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    (arguments.weights / f"{NAME}.json").write_bytes(body)
    told(f"wrote {manifest.file}: {len(data)} bytes, {manifest.digest}")


def corpus() -> tuple[list[Taught], list[SourceFile]]:
    """Labelled answers by the model that gave them, made answers, and texts that are no answers."""
    _, file = read(ANSWERS)
    lines = (DATA / f"{ANSWERS}.jsonl").read_text(encoding="utf-8").split("\n")
    labelled = [json.loads(line) for line in lines if line]
    rows = [Taught(row["text"], row["label"], 1.0, row["meta"]["model"]) for row in labelled]
    files = [file]
    made = answers("taught", seed=SEED, each=EACH)
    rows.extend(Taught(answer.text, answer.label, 1.0, "made") for answer in made)
    acts = about_acts("taught", seed=SEED, each=EACH_ACT)
    rows.extend(Taught(answer.text, answer.label, 1.0, "made") for answer in acts)
    for name in NOT_ANSWERS:
        others, file = read(name)
        rows += [Taught(row.text, 0, 0.2, "other") for row in others]
        files.append(file)
    return rows, files


def first_sentence(text: str) -> str:
    """What an answer says first; taught beside the opening, since many answers are no longer than that."""
    end = _SENTENCE_END.search(text, _LEAST, _SENTENCE)
    return text[: end.start() + 1] if end else text[:_SENTENCE]


def matrix(texts: list[str]) -> sparse.csr_matrix:
    """One row per text: every n-gram's share, as the detector sums them."""
    indices, values, ends = [], [], [0]
    for text in texts:
        grams = n_grams(text)
        counts = np.ones(grams.buckets.size)
        counts[grams.family_starts[len(CHARACTER_ORDERS)] :] = WORD_FACTOR
        indices.append(grams.buckets >> (TABLE_BITS - BITS))
        values.append(counts / np.sqrt(counts.size + SMOOTHING))
        ends.append(ends[-1] + counts.size)
    joined = (np.concatenate(values), np.concatenate(indices), np.array(ends))
    found = sparse.csr_matrix(joined, shape=(len(texts), 1 << BITS))
    found.sum_duplicates()
    return found


def train(
    rows: list[Taught], features: sparse.csr_matrix, files: list[SourceFile]
) -> tuple[RefusalManifest, bytes]:
    """The fit on everything; phrases, slope and threshold on scores of left-out groups."""
    source = digest(sorted([*(f"{file.name} {file.digest}" for file in files), digest(_made(rows))]))
    labels = np.array([row.label for row in rows])
    weights = np.array([row.weight for row in rows])
    groups = np.array([row.group for row in rows])
    sums, truth = [], []
    for group in sorted(set(groups) - {"made", "other"}):
        kept = groups != group
        twice = np.concatenate([kept, kept])
        _, model = packaged(fitted(features[twice], labels[kept], weights[kept]), source)
        left_out = [row for row, is_kept in zip(rows, kept, strict=True) if not is_kept]
        sums += [summed(model, row.text) for row in left_out]
        truth += [row.label for row in left_out]
        told(f"without {group}: {rates(np.array(sums), np.array(truth))}")
    found, expected = np.array(sums), np.array(truth)
    threshold = float(np.quantile(found[expected == 0], 1 - ALARMS))
    slope = LogisticRegression(C=1e6).fit(found[:, None], expected).coef_[0, 0]
    told(f"threshold {threshold:.4f}, slope {slope:.4f}: {rates(found, expected)}")
    data, model = packaged(fitted(features, labels, weights), source)
    return msgspec.structs.replace(
        model.manifest, slope=round(float(slope), 6), threshold=round(threshold, 6)
    ), data


def _made(rows: list[Taught]) -> list[str]:
    return [row.text for row in rows if row.group == "made"]


def fitted(features: sparse.csr_matrix, labels: np.ndarray, weights: np.ndarray) -> LogisticRegression:
    """One logistic regression over openings and first sentences."""
    model = LogisticRegression(C=STRENGTH, max_iter=300, tol=1e-3)
    return model.fit(features, np.tile(labels, 2), sample_weight=np.tile(weights, 2) * CROP_WEIGHT)


def packaged(fit: LogisticRegression, source: str) -> tuple[bytes, RefusalModel]:
    """The weights file, int8, and the model as the package will load it."""
    found = fit.coef_[0]
    scale = float(f"{np.percentile(np.abs(found[found != 0]), 99.99) / 127:.6g}")
    file = io.BytesIO()
    np.savez_compressed(file, table=np.clip(np.rint(found / scale), -127, 127).astype(np.int8))
    data = file.getvalue()
    manifest = RefusalManifest(
        name=NAME, version=VERSION, feature_version=FEATURE_VERSION, file=f"{NAME}.npz",
        digest=digest_bytes(data), data_digest=source, scale=scale, bias=round(float(fit.intercept_[0]), 6),
        evidence=EVIDENCE, slope=1.0, threshold=0.0,
    )  # fmt: skip
    return data, open_refusal(manifest, data)


def summed(model: RefusalModel, text: str) -> float:
    """What the detector's score grows with, of the least unwilling voice."""
    view_set = build_views(text)
    hits = said(packaged_scanner().hits_for(view_set, ID), text)
    phrases = [(hit.pattern.id, hit.pattern.score, hit.original[0]) for hit in hits]
    return min(
        max(model.logit(text[start : min(end, start + OPENING)]), -50.0)
        - help_after_caution(text, (start, end))
        + EVIDENCE * evidence(phrases, text, (start, end))
        for start, end in voices(text)
    )


def rates(found: np.ndarray, expected: np.ndarray) -> str:
    """Recall at the allowed share of alarms."""
    threshold = np.quantile(found[expected == 0], 1 - ALARMS)
    recall = (found[expected == 1] >= threshold).mean()
    return f"recall {recall:.1%} at {ALARMS:.1%} alarms, n={expected.size}"


def told(line: str) -> None:
    """One line of progress."""
    print(f"{time.monotonic() - _STARTED:6.0f} s  {line}", flush=True)


if __name__ == "__main__":
    main()
