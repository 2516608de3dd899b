"""De-duplication before any split: exact on normalised text, and near duplicates by MinHash.

MinHash: Broder, "On the resemblance and containment of documents", 1997; banded as in Leskovec, Rajaraman and
Ullman, "Mining of Massive Datasets", chapter 3. Sets are the hashed character 5-grams of the folded text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from stanchion.detectors.hashing import n_grams

PERMUTATIONS = 64
BANDS = 16
SIMILAR = 0.8
_PRIME = (1 << 31) - 1


def normalised(text: str) -> str:
    """Lower case, compatibility forms, letters and digits only: equal texts are copies."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"[\W_]+", " ", folded).strip()


def signatures(texts: Sequence[str], *, seed: int = 7) -> np.ndarray:
    """One MinHash signature per text, of shape (texts, PERMUTATIONS)."""
    rng = np.random.default_rng(seed)
    factors = rng.integers(1, _PRIME, PERMUTATIONS, dtype=np.uint64)[:, None]
    offsets = rng.integers(0, _PRIME, PERMUTATIONS, dtype=np.uint64)[:, None]
    found = np.zeros((len(texts), PERMUTATIONS), dtype=np.uint32)
    for index, text in enumerate(texts):
        elements = np.unique(n_grams(text[:4000]).buckets).astype(np.uint64)
        if elements.size:
            found[index] = ((factors * elements + offsets) % _PRIME).min(axis=1)
    return found


def keepers(texts: Sequence[str]) -> list[int]:
    """Indices to keep, ascending: the first of each group of copies or near copies."""
    plain = [normalised(text) for text in texts]
    first: dict[str, int] = {}
    for index, text in enumerate(plain):
        first.setdefault(text, index)
    unique = sorted(first.values())
    marks = signatures([plain[index] for index in unique])
    kept: list[int] = []
    bands: list[dict[bytes, int]] = [{} for _ in range(BANDS)]
    width = PERMUTATIONS // BANDS
    for place, index in enumerate(unique):
        mark = marks[place]
        keys = [mark[band * width : (band + 1) * width].tobytes() for band in range(BANDS)]
        others = {bands[band][key] for band, key in enumerate(keys) if key in bands[band]}
        if any(np.mean(marks[other] == mark) >= SIMILAR for other in others):
            continue
        kept.append(index)
        for band, key in enumerate(keys):
            bands[band].setdefault(key, place)
    return kept
