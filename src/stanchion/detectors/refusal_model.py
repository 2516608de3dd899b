"""The small linear model of how answers open when they decline: packaged weights over hashed n-grams.

A logit is the bias plus the sum of the weights of the n-grams of a part of an answer over the root of their
number, as in `detectors.classifier`; the table is narrower, since answers open in few ways.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from stanchion.core.codec import Digest
from stanchion.core.resources import data_path, read_data_bytes
from stanchion.detectors.classifier import SMOOTHING, verified_arrays
from stanchion.detectors.hashing import CHARACTER_ORDERS, TABLE_BITS, WORD_FACTOR, n_grams

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NAME = "refusal-linear"
BITS = 17  # buckets of the table: the leading bits of a bucket of `hashing`
OPENING = 320  # characters of an answer, or of one voice of it, that are read
CLOSING = 240  # and at the end of a long one
OPERATING_SCORE = 0.6  # the score at the frozen threshold


class RefusalManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known about the weights file, and how phrases and model are put together.

    `evidence` is the weight of the phrases' evidence beside the model's logit; a score is the logistic
    function of `slope * (sum - threshold)`, moved so that the frozen threshold scores 0.6.
    """

    name: str
    version: str
    feature_version: int
    file: str
    digest: Digest
    data_digest: Digest
    scale: float
    bias: float
    evidence: float
    slope: float
    threshold: float


class RefusalModel:
    """Weights in memory. Immutable; safe to share between threads."""

    def __init__(self, manifest: RefusalManifest, table: NDArray[np.int8]) -> None:
        self.manifest = manifest
        self._table = table

    def logit(self, part: str) -> float:
        """How much a part of an answer reads like declining; minus infinity for one without letters."""
        import numpy as np

        grams = n_grams(part)
        if grams.letters.size == 0:
            return -math.inf
        weights = self._table.take(grams.buckets >> (TABLE_BITS - BITS)).astype(np.int64)
        weights[grams.family_starts[len(CHARACTER_ORDERS)] :] *= WORD_FACTOR
        total = int(weights.sum())
        return self.manifest.bias + self.manifest.scale * total / math.sqrt(weights.size + SMOOTHING)

    def score(self, logit: float, evidence: float) -> float:
        """The probability that the answer declines, from the model's logit and the phrases' evidence."""
        manifest = self.manifest
        if logit == -math.inf and evidence == 0.0:
            return 0.0
        summed = max(logit, -50.0) + manifest.evidence * evidence
        argument = manifest.slope * (summed - manifest.threshold) + _OPERATING_LOGIT
        return 1.0 / (1.0 + math.exp(-max(-700.0, min(700.0, argument))))


_OPERATING_LOGIT = math.log(OPERATING_SCORE / (1.0 - OPERATING_SCORE))


@lru_cache(maxsize=1)
def read_manifest() -> RefusalManifest:
    """The packaged manifest."""
    return msgspec.json.decode(data_path("weights", f"{NAME}.json").read_bytes(), type=RefusalManifest)


@lru_cache(maxsize=1)
def load_refusal() -> RefusalModel:
    """The packaged model, verified and kept for the life of the process.

    Raises:
        IntegrityError: when the weights are not those the manifest names.
    """
    manifest = read_manifest()
    return open_refusal(manifest, read_data_bytes("weights", manifest.file))


def open_refusal(manifest: RefusalManifest, data: bytes) -> RefusalModel:
    """A model from its manifest and the bytes of its weights file.

    Raises:
        IntegrityError: when the bytes do not have the manifest's digest, or hold something else than weights.
    """
    return RefusalModel(manifest, verified_arrays(manifest, data, {"table": (1 << BITS,)})["table"])
