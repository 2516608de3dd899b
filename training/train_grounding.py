"""Train the weighing of the grounding detector: one command, the same weights every time.

    python training/train_grounding.py [--data ../shared/data] [--report-only]

Trains on the two train sources, with seeded variants of their rows: documents among others, a figure, a word
or the negation changed, another document altogether. An answer is as unsupported as its worst sentence, and
which one that is, the training finds itself (multiple instances). Slope and threshold are fitted on one half
of the development sources; the other half is the report, printed as the table of
docs/explanation/grounding.md.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from stanchion.core.codec import digest, digest_bytes, short
from stanchion.core.finding import DetectorInput
from stanchion.core.origin import Origin
from stanchion.detectors.grounding_support import (
    FEATURE_VERSION,
    FEATURES,
    SupportModel,
    content_stems,
    features_of,
    read_sources,
)
from stanchion.detectors.grounding_text import is_claim, sentences_of, words_of
from stanchion.stats.intervals import wilson

TRAIN = ("grounding/begin_wow.train.jsonl", "grounding/faithdial_audit.train.jsonl")
DEV = ("grounding/q2_wow.dev.jsonl", "grounding/factcheck_gpt_stance.dev.jsonl.gz")
WEIGHTS = Path(__file__).parents[1] / "src/stanchion/data/weights/grounding.json"
SEED = 7
RIDGE = 10.0
ROUNDS = 3  # of choosing each answer's worst sentence anew
LEAST_COUNT = 4  # texts that a stem must stand in to get a rarity of its own
SIGNS = dict.fromkeys(FEATURES[:6], -1) | dict.fromkeys(FEATURES[6:], 1)  # more support never raises doubt
FALSE_ALARMS = 0.15  # of sentences, mean over the development sources, calibration half
NEGATIONS = ((" is ", " is not "), (" was ", " was not "), (" are ", " are not "), (" can ", " cannot "))

Row = dict[str, Any]
Bag = np.ndarray


class Example(NamedTuple):
    """An answer, what was given, and 1 when it is not supported."""

    text: str
    documents: tuple[str, ...]
    label: int


def read(data: Path, source: str) -> list[Row]:
    opener: Callable[..., Any] = gzip.open if source.endswith(".gz") else open
    with opener(data / source, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def rarities(rows: Sequence[Row]) -> dict[str, float]:
    """Inverse document frequency by stem, 0 for the commonest to 1; a stem of a third of all texts has 0."""
    counts: Counter[str] = Counter()
    total = 0
    for row in rows:
        for text in (row["text"], row["context"], row.get("question") or ""):
            counts.update(set(content_stems(words_of(text))))
            total += 1
    top = math.log(total / 3)
    kept = ((s, n) for s, n in counts.items() if n >= LEAST_COUNT and s.isalpha() and len(s) > 1)
    return {s: round(min(1.0, max(0.0, math.log(total / n) / top)), 2) for s, n in sorted(kept)}


def variants(rows: Sequence[Row], rng: random.Random) -> Iterator[Example]:
    """The rows and what is made of them; rows whose fault may lie in an opinion are left out."""
    contexts = [row["context"] for row in rows]
    for row in rows:
        text, context, label = row["text"], row["context"], row["label"]
        among = [context, *rng.sample(contexts, rng.choice([2, 4, 8]))]
        rng.shuffle(among)
        is_clean = all(is_claim(text, sentence) for sentence in sentences_of(text))
        if label == 0 or is_clean:
            yield Example(text, (context,), label)
            yield Example(text, tuple(among), label)
        if label == 0:
            changed = corrupted(text, rng.choice(contexts), rng)
            if changed:
                yield Example(changed, (context,) if rng.random() < 0.5 else tuple(among), 1)
            yield Example(text, tuple(rng.sample(contexts, rng.choice([1, 3, 8]))), 1)


def corrupted(text: str, other: str, rng: random.Random) -> str | None:
    """The text with a figure, a word or two, or the negation changed."""
    options = []
    if figures := list(re.finditer(r"\d+", text)):
        figure = rng.choice(figures)
        value = int(figure.group()[:12]) + rng.choice([1, 2, 3, 5, 10])
        options.append(f"{text[: figure.start()]}{value}{text[figure.end() :]}")
    words = text.split()
    places = [i for i, word in enumerate(words) if len(word) > 4]
    foreign = [word.strip('.,"') for word in other.split() if len(word) > 4]
    if places and foreign:
        for place in rng.sample(places, min(len(places), rng.choice([1, 1, 2]))):
            words[place] = rng.choice(foreign)
        options.append(" ".join(words))
    options += [text.replace(plain, negated, 1) for plain, negated in NEGATIONS if plain in text][:1]
    return rng.choice(options) if options else None


def bag(example: Example, rarity: dict[str, float]) -> Bag:
    """The features of the answer's claims, one row each."""
    sources = read_sources(example.documents)
    claims = [s for s in sentences_of(example.text) if is_claim(example.text, s)]
    return np.array([features_of(example.text, s, sources, rarity) for s in claims])


def logistic(x: np.ndarray, y: np.ndarray, *, ridge: float, signs: Sequence[int] = ()) -> np.ndarray:
    """Weights and, last, the bias; both classes count the same. Newton's method.

    Weights against their sign are left out, the worst first, until none is.
    """
    allowed = np.ones(x.shape[1], dtype=bool)
    while True:
        beta = np.zeros(x.shape[1] + 1)
        beta[[*np.flatnonzero(allowed), -1]] = unconstrained(x[:, allowed], y, ridge=ridge)
        against = beta[:-1] * np.array(signs) if len(signs) else np.zeros(1)
        if against.min() >= 0:
            return beta
        allowed[int(np.argmin(against))] = False


def unconstrained(x: np.ndarray, y: np.ndarray, *, ridge: float) -> np.ndarray:
    x = np.hstack([x, np.ones((len(x), 1))])
    weight = np.where(y == 1, 0.5 / max(y.mean(), 1e-9), 0.5 / max(1 - y.mean(), 1e-9))
    penalty = np.diag([*[ridge] * (x.shape[1] - 1), 1e-6])
    beta = np.zeros(x.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-x @ beta))
        gradient = x.T @ (weight * (p - y)) + penalty @ beta
        step = np.linalg.solve((x * (weight * p * (1 - p))[:, None]).T @ x + penalty, gradient)
        beta -= step
        if np.abs(step).max() < 1e-9:
            break
    return beta


def fit(bags: Sequence[Bag], labels: np.ndarray) -> np.ndarray:
    """Start from each answer's mean, then from its worst sentence."""
    chosen = np.array([each.mean(axis=0) for each in bags])
    beta = logistic(chosen, labels, ridge=RIDGE, signs=list(SIGNS.values()))
    for _ in range(ROUNDS):
        chosen = np.array([each[np.argmax(each @ beta[:-1])] for each in bags])
        beta = logistic(chosen, labels, ridge=RIDGE, signs=list(SIGNS.values()))
    return beta


def half(row: Row) -> str:
    """Which half of a development source a row is in, by its id alone."""
    return "report" if int(hashlib.sha256(row["id"].encode()).hexdigest(), 16) % 2 else "calibration"


def worst_logit(row: Row, beta: np.ndarray, rarity: dict[str, float]) -> float:
    """The answer's logit; minus infinity where nothing in it is a claim."""
    features = bag(Example(row["text"], (row["context"],), row["label"]), rarity)
    return float((features @ beta[:-1]).max() + beta[-1]) if len(features) else -math.inf


def calibrate(scored: dict[str, list[tuple[float, int]]]) -> tuple[float, float]:
    """Slope and threshold: the lowest that meets FALSE_ALARMS on the mean of the sources."""
    pairs = [(s, y) for rows in scored.values() for s, y in rows if s > -math.inf]
    slope = logistic(np.array([[s] for s, _ in pairs]), np.array([y for _, y in pairs]), ridge=1e-3)[0]

    for threshold in sorted({s for s, _ in pairs}):
        rates = [np.mean([s >= threshold for s, y in rows if y == 0]) for rows in scored.values()]
        if np.mean(rates) <= FALSE_ALARMS:
            return float(slope), float(threshold)
    raise ValueError("no threshold meets the false alarms that are allowed")


def train(data: Path) -> SupportModel:
    rows = [row for source in TRAIN for row in read(data, source)]
    rarity = rarities(rows)
    examples = list(variants(rows, random.Random(SEED)))
    bags = [(bag(example, rarity), example.label) for example in examples]
    kept = [(features, label) for features, label in bags if len(features)]
    beta = fit([features for features, _ in kept], np.array([label for _, label in kept], dtype=float))
    scored = {
        source: [
            (worst_logit(row, beta, rarity), row["label"])
            for row in read(data, source)
            if half(row) == "calibration"
        ]
        for source in DEV
    }
    slope, threshold = calibrate(scored)
    print(f"{len(rows)} rows, {len(examples)} examples, {len(kept)} with claims, {len(rarity)} rarities")
    return SupportModel(
        name="grounding", version="1", feature_version=FEATURE_VERSION,
        data_digest=digest([digest_bytes((data / source).read_bytes()) for source in (*TRAIN, *DEV)]),
        bias=round(float(beta[-1]), 4),
        weights={name: round(float(v), 4) for name, v in zip(FEATURES, beta[:-1], strict=True)},
        slope=round(slope, 4), threshold=round(threshold, 4), rarity=rarity,
    )  # fmt: skip


def auc(scores: Sequence[float], labels: Sequence[int]) -> float:
    """The probability that an unsupported answer scores higher than a supported one; ties count half."""
    order = np.array(scores)
    bad, good = order[np.array(labels) == 1], order[np.array(labels) == 0]
    above = np.searchsorted(np.sort(good), bad, side="left").sum()
    equal = np.searchsorted(np.sort(good), bad, side="right").sum() - above
    return float((above + 0.5 * equal) / (len(bad) * len(good)))


def report(data: Path) -> Iterator[str]:
    """The whole detector at three thresholds, on the halves that chose nothing."""
    from stanchion.detectors.registry import Registry
    from stanchion.detectors.views import build_views

    detector = Registry().create("grounding")
    yield f"detector {detector.version}"
    yield "| source (report half) | digest | AUC | threshold | unsupported flagged | supported flagged |"
    yield "|---|---|---|---|---|---|"
    for source in DEV:
        scores, labels = [], []
        for row in read(data, source):
            if half(row) == "report":
                context = {"documents": (row["context"],), "question": (row.get("question") or "",)}
                given = DetectorInput(view_set=build_views(row["text"]), origin=Origin.MODEL, context=context)
                scores.append(max((f.score for f in detector.detect(given)), default=0.0))
                labels.append(row["label"])
        name = short(digest_bytes((data / source).read_bytes()))
        for threshold in (0.5, 0.6, 0.7):
            cells = [
                rate([s >= threshold for s, y in zip(scores, labels, strict=True) if y == label])
                for label in (1, 0)
            ]
            yield f"| {source} | {name} | {auc(scores, labels):.3f} | {threshold} | {cells[0]} | {cells[1]} |"


def rate(chosen: Sequence[bool]) -> str:
    bounds = wilson(sum(chosen), len(chosen))
    share = sum(chosen) / len(chosen)
    return f"{sum(chosen)}/{len(chosen)} = {share:.1%} ({bounds.low:.1%} to {bounds.high:.1%})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--report-only", action="store_true")
    given = parser.parse_args()
    if not given.report_only:
        model = train(given.data)
        given.out.write_bytes(msgspec.json.format(msgspec.json.encode(model), indent=0) + b"\n")
        print(*(f"{name:20} {weight:8.3f}" for name, weight in model.weights.items()), sep="\n")
        print(f"bias {model.bias}, slope {model.slope}, threshold {model.threshold}")
    print(*report(given.data), sep="\n")


if __name__ == "__main__":
    main()
