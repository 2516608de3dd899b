"""A linear model with one output for each kind of content, over the n-grams that other models read too.

A window's logit for a category is a bias plus the sum of the weights of its n-grams over the root of their
number, as in `classifier`; here a bucket holds one weight for each category, and buckets are coarser.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from stanchion.core.resources import data_path, read_data_bytes
from stanchion.detectors.classifier import SMOOTHING, Windows, gram_ranges, verified_arrays
from stanchion.detectors.hashing import CHARACTER_ORDERS, TABLE_BITS, WORD_FACTOR, Grams

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BUCKET_BITS = 17  # the leading bits of a bucket of `hashing`
ANY = "any"  # the output for "something that some policy forbids", whatever it is

_MANIFEST = "content-linear.json"


class ContentHead(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one column of the weights is read; `threshold` is a logit, frozen on the calibration half."""

    category: str
    scale: float
    bias: float
    slope: float
    threshold: float


class ContentManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known about the weights file. The heads are its columns, in order."""

    name: str
    version: str
    feature_version: int
    file: str
    digest: str
    data_digest: str
    heads: tuple[ContentHead, ...]


class ContentModel:
    """Weights in memory. Immutable; safe to share between threads."""

    def __init__(self, manifest: ContentManifest, table: NDArray[np.int8]) -> None:
        import numpy as np

        self.manifest = manifest
        self.categories = tuple(head.category for head in manifest.heads)
        self._table = table
        self._scales = np.array([head.scale for head in manifest.heads])
        self._biases = np.array([head.bias for head in manifest.heads])
        self._slopes = np.array([head.slope for head in manifest.heads])
        self._thresholds = np.array([head.threshold for head in manifest.heads])

    def logits(self, grams: Grams, windows: Windows) -> NDArray[np.float64]:
        """Logits of shape (windows, categories); the biases alone for a window without n-grams."""
        import numpy as np

        weights = self._table.take(grams.buckets >> (TABLE_BITS - BUCKET_BITS), axis=0)
        running = np.zeros((weights.shape[0] + 1, weights.shape[1]), dtype=np.int32)
        np.cumsum(weights, axis=0, dtype=np.int32, out=running[1:])
        low, high = gram_ranges(grams, windows)
        parts = running.take(high, axis=0) - running.take(low, axis=0)
        words = len(CHARACTER_ORDERS)
        sums = parts[:words].sum(axis=0) + WORD_FACTOR * parts[words:].sum(axis=0)
        counts = (high - low).sum(axis=0)
        scaled: NDArray[np.float64] = sums * self._scales / np.sqrt(counts + SMOOTHING)[:, None]
        return self._biases + scaled

    def margins(self, logits: NDArray[np.float64], allowed: float) -> NDArray[np.float64]:
        """How far each logit is above its threshold plus `allowed`, in units in which scores compare."""
        margins: NDArray[np.float64] = self._slopes * (logits - self._thresholds - allowed)
        return margins


def score_of_margin(margin: float) -> float:
    """The score in [0, 1] of a margin; 0.5 at the frozen threshold."""
    return 1.0 / (1.0 + math.exp(-max(-700.0, min(700.0, margin))))


def margin_of_score(score: float) -> float:
    """The inverse of `score_of_margin`; infinite at 0 and 1."""
    if score <= 0.0 or score >= 1.0:
        return -math.inf if score <= 0.0 else math.inf
    return math.log(score / (1.0 - score))


@lru_cache(maxsize=1)
def read_content_manifest() -> ContentManifest:
    """The packaged manifest."""
    return msgspec.json.decode(data_path("weights", _MANIFEST).read_bytes(), type=ContentManifest)


@lru_cache(maxsize=1)
def load_content() -> ContentModel:
    """The packaged model, verified and kept for the life of the process.

    Raises:
        IntegrityError: when the weights are not those the manifest names.
    """
    manifest = read_content_manifest()
    return open_content(manifest, read_data_bytes("weights", manifest.file))


def open_content(manifest: ContentManifest, data: bytes) -> ContentModel:
    """A model from its manifest and the bytes of its weights file.

    Raises:
        IntegrityError: when the bytes do not have the manifest's digest, or hold something else than weights.
    """
    shape = (1 << BUCKET_BITS, len(manifest.heads))
    return ContentModel(manifest, verified_arrays(manifest, data, {"table": shape})["table"])
