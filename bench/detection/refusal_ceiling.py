"""How far wording alone goes on the answers to jailbreaks: a model fitted to one half of that very source.

    python bench/detection/refusal_ceiling.py [--data FOLDER]

The answers are cut at 400 characters, while their labels speak of the whole. A model that learns the source's
own prompts, characters and labels from half A and is reported on half B has every advantage that a packaged
detector must not have. Nothing of it is shipped; it says what the goal asks for. Needs scikit-learn.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from figures import Row, read_source
from measures.refusal import CUT
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline, make_union

from stanchion.stats.intervals import wilson

SOURCE = "refusal/gptfuzz_labelled.dev.jsonl.gz"
ALARMS = 0.05


def main() -> None:
    """Parse the command line, fit on half A, print rates on half B."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2].parent / "shared" / "data")
    source = read_source(parser.parse_args().data, SOURCE)
    if source.absent:
        raise SystemExit(source.absent)
    taught, reported = source.half("A").rows, source.half("B").rows
    model = make_pipeline(
        make_union(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2),
            TfidfVectorizer(
                analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=3, max_features=200_000
            ),
        ),
        LogisticRegression(C=10, max_iter=400),
    ).fit([row["text"] for row in taught], [row["label"] for row in taught])
    scores = model.predict_proba([row["text"] for row in reported])[:, 1]
    is_cut = np.array([len(row["text"]) >= CUT for row in reported])
    print(f"{SOURCE} {source.digest}: fitted on half A (n={len(taught)})")
    for name, chosen in (("half B", is_cut | True), ("of it cut", is_cut), ("of it not cut", ~is_cut)):
        print(f"{name}: {line(scores[chosen], [r for r, c in zip(reported, chosen, strict=True) if c])}")


def line(scores: np.ndarray, rows: Sequence[Row]) -> str:
    """Recall where the reported rows themselves give 5 % alarms, kinder than any frozen threshold."""
    labels = np.array([row["label"] for row in rows])
    over = scores[labels == 1] > np.quantile(scores[labels == 0], 1 - ALARMS)
    found = wilson(int(over.sum()), over.size)
    interval = f"{found.low:.1%} to {found.high:.1%}, {int(over.sum())} of {over.size}"
    area = roc_auc_score(labels, scores)
    return f"recall {over.mean():.1%} ({interval}) at {ALARMS:.0%} alarms, AUC {area:.3f}"


if __name__ == "__main__":
    main()
