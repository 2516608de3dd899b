"""Linear classifiers over hashed n-grams: packaged weights, windows, calibrated scores.

A window's logit is the bias plus the sum of the weights of its n-grams over the root of their number. Weights
are whole numbers, so sums are exact, and running sums give every window of a text at once: the cost is linear
in the length, however many windows there are.
"""

from __future__ import annotations

import io
import math
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from stanchion.core.codec import digest_bytes
from stanchion.core.errors import IntegrityError, UnknownNameError
from stanchion.core.resources import data_path, read_data_bytes
from stanchion.detectors.hashing import CHARACTER_ORDERS, FEATURE_VERSION, TABLE_BITS, WORD_ORDERS, Grams

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stanchion.detectors.hashing import Indices

LONG_WINDOW = 1024
SHORT_WINDOW = 256
SHORTEST_SENTENCE = 15
LONGEST_PAIR = 400
KIND_BITS = 16  # buckets of the table that tells kinds of attack apart: the leading bits of a bucket
WORD_FACTOR = 3  # how much more a word or a pair of words counts than a character n-gram
SMOOTHING = 20  # added to the number of n-grams, so that a handful of them proves little

_TERMINATORS = (0x0A, 0x21, 0x2E, 0x3F, 0x61F, 0x964, 0x3002, 0xFF01, 0xFF1F, 0x2028, 0x2029)

_LAST_AFTER_SENTENCE = 0x29  # spaces, quotation marks and brackets may follow a full stop; letters do not


class Windows(NamedTuple):
    """Half-open spans of a text."""

    starts: Indices
    ends: Indices


class LinearManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known about a weights file: its digest, and how to read its logits.

    `thresholds` are logits by origin, frozen on the calibration half of the development data; `slope` was
    fitted there. A score is the logistic function of `slope * (logit - threshold)`: calibrated up to the
    prior, and the prior of each origin is the one that puts the frozen threshold at 0.5.
    """

    name: str
    version: str
    feature_version: int
    file: str
    digest: str
    data_digest: str
    scale: float
    bias: float
    slope: float
    thresholds: dict[str, float]


class LinearModel:
    """Weights in memory. Immutable; safe to share between threads."""

    def __init__(self, manifest: LinearManifest, table: NDArray[np.int8], kinds: NDArray[np.int8]) -> None:
        self.manifest = manifest
        self._table = table
        self._kinds = kinds

    def logits(self, grams: Grams, windows: Windows) -> NDArray[np.float64]:
        """One logit per window; the bias alone for a window without n-grams."""
        import numpy as np

        sums, counts = window_sums(grams, windows, self._table)
        scaled = self.manifest.scale * sums / np.sqrt(counts + SMOOTHING)
        logits: NDArray[np.float64] = self.manifest.bias + scaled
        return logits

    def score(self, logit: float, origin: str) -> float:
        """The score of a logit for a text of this origin, in [0, 1]; 0.5 at the origin's threshold."""
        argument = self.manifest.slope * (logit - self.manifest.thresholds[origin])
        return 1.0 / (1.0 + math.exp(-max(-700.0, min(700.0, argument))))

    def logit(self, score: float, origin: str) -> float:
        """The logit that has this score: the inverse of `score`, infinite at 0 and 1."""
        if score <= 0.0 or score >= 1.0:
            return -math.inf if score <= 0.0 else math.inf
        return self.manifest.thresholds[origin] + math.log(score / (1.0 - score)) / self.manifest.slope

    def is_other_kind(self, grams: Grams, start: int, end: int) -> bool:
        """Which of the two kinds the model tells apart an attack is of (injection False, jailbreak True)."""
        import numpy as np

        window = Windows(np.array([start]), np.array([end]))
        coarse = grams._replace(buckets=grams.buckets >> (TABLE_BITS - KIND_BITS))
        sums, _ = window_sums(coarse, window, self._kinds)
        return bool(sums[0] > 0)


def window_sums(
    grams: Grams, windows: Windows, table: NDArray[np.int8]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For every window, the sum of its n-grams' weights and how many n-grams there are."""
    import numpy as np

    weights = table.take(grams.buckets).astype(np.int64)
    weights[grams.family_starts[len(CHARACTER_ORDERS)] :] *= WORD_FACTOR
    running = np.zeros(weights.size + 1, dtype=np.int64)
    np.cumsum(weights, out=running[1:])
    low, high = gram_ranges(grams, windows)
    return (running.take(high) - running.take(low)).sum(axis=0), (high - low).sum(axis=0)


def gram_ranges(grams: Grams, windows: Windows) -> tuple[Indices, Indices]:
    """Which n-grams lie wholly in each window: ranges into `grams.buckets`, of shape (families, windows)."""
    import numpy as np

    letters = np.searchsorted(grams.letters, windows.starts), np.searchsorted(grams.letters, windows.ends)
    words = (
        np.searchsorted(grams.word_starts, windows.starts),
        np.searchsorted(grams.word_ends, windows.ends, side="right"),
    )
    starts = np.array(grams.family_starts)[:, None]
    ends = np.array([*grams.family_starts[1:], grams.buckets.size])[:, None]
    kinds = len(CHARACTER_ORDERS), len(WORD_ORDERS)
    low = np.repeat(np.stack([letters[0], words[0]]), kinds, axis=0)
    high = np.repeat(np.stack([letters[1], words[1]]), kinds, axis=0) + _shortfalls()
    low = np.minimum(low + starts, ends)
    return low, np.maximum(high + starts, low)


@lru_cache(maxsize=1)
def _shortfalls() -> Indices:
    import numpy as np

    return 1 - np.array([*CHARACTER_ORDERS, *WORD_ORDERS])[:, None]


def windows_of(text: str) -> Windows:
    """The spans that are scored, in no particular order.

    Texts up to `LONG_WINDOW` characters as a whole, longer ones in overlapping windows of that length;
    overlapping windows of `SHORT_WINDOW` in texts longer than that; every sentence of at least
    `SHORTEST_SENTENCE` characters, and every pair of neighbours up to `LONGEST_PAIR` together. An attack of
    one sentence is thus never diluted by the document around it. There are at most about 0.2 windows per
    character.
    """
    import numpy as np

    size = len(text)
    starts, ends = _sliding(size, LONG_WINDOW)
    found = [(starts, ends)]
    if size > SHORT_WINDOW:
        found.append(_sliding(size, SHORT_WINDOW))
    cuts = _cuts(text)
    if cuts.size > 2:
        first, last = cuts[:-1], cuts[1:]
        long_enough = last - first >= SHORTEST_SENTENCE
        first, last = first[long_enough], last[long_enough]
        is_pair = last[1:] - first[:-1] <= LONGEST_PAIR
        found += [(first, last), (first[:-1][is_pair], last[1:][is_pair])]
    if len(found) == 1:
        return Windows(starts, ends)
    return Windows(np.concatenate([s for s, _ in found]), np.concatenate([e for _, e in found]))


def _sliding(size: int, width: int) -> tuple[Indices, Indices]:
    import numpy as np

    step = width // 2
    starts = np.arange(0, max(size - step, 1), step)
    return starts, np.minimum(starts + width, size)


@lru_cache(maxsize=1)
def _terminator_table() -> NDArray[np.bool_]:
    import numpy as np

    table = np.zeros(0x10000, dtype=np.bool_)
    table[list(_TERMINATORS)] = True
    return table


def _cuts(text: str) -> Indices:
    """Offsets right after each end of a sentence, with both ends of the text.

    A full stop inside a word (an address, a number) ends no sentence.
    """
    import numpy as np

    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    if not text.isascii():
        points = np.minimum(points, 0xFFFF)
    after = _terminator_table().take(points).nonzero()[0] + 1
    followed = np.append(points, 0x20).take(after)
    mark = points.take(after - 1)
    after = after[(followed <= _LAST_AFTER_SENTENCE) | (mark == 0x0A) | (mark > 0x7F)]
    cuts = np.empty(after.size + 2, dtype=np.intp)
    cuts[0], cuts[1:-1], cuts[-1] = 0, after, len(text)
    return cuts


def read_manifest(name: str) -> LinearManifest:
    """The packaged manifest `data/weights/<name>.json`.

    Raises:
        UnknownNameError: when there is none of this name.
    """
    file = data_path("weights", f"{name}.json")
    if not file.is_file():
        known = [entry.name.removesuffix(".json") for entry in data_path("weights").iterdir()]
        raise UnknownNameError("weights", name, [n for n in known if "." not in n])
    return msgspec.json.decode(file.read_bytes(), type=LinearManifest)


@lru_cache(maxsize=8)
def load_linear(name: str) -> LinearModel:
    """The packaged model of this name, verified and kept for the life of the process.

    Raises:
        UnknownNameError: when there is none of this name.
        IntegrityError: when the weights are not those the manifest names.
    """
    manifest = read_manifest(name)
    return open_linear(manifest, read_data_bytes("weights", manifest.file))


def open_linear(manifest: LinearManifest, data: bytes) -> LinearModel:
    """A model from its manifest and the bytes of its weights file.

    Raises:
        IntegrityError: when the bytes do not have the manifest's digest, or hold something else than weights.
    """
    import numpy as np

    where = f"weights '{manifest.file}' of '{manifest.name}'"
    found = digest_bytes(data)
    if found != manifest.digest:
        raise IntegrityError(
            f"{where}: digest {found} is not {manifest.digest}.",
            hint="Reinstall stanchion; the file was changed.",
        )
    if manifest.feature_version != FEATURE_VERSION:
        raise IntegrityError(
            f"{where}: made for features {manifest.feature_version}, this code computes {FEATURE_VERSION}.",
            hint="Reinstall stanchion; weights and code are of different versions.",
        )
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        table, kinds = (_checked(archive[key], bits, where) for key, bits in _ARRAYS.items())
    return LinearModel(manifest, table, kinds)


_ARRAYS = {"table": TABLE_BITS, "kinds": KIND_BITS}


def _checked(array: NDArray[np.int8], bits: int, where: str) -> NDArray[np.int8]:
    if array.dtype != "int8" or array.shape != (1 << bits,):
        raise IntegrityError(
            f"{where}: an array of {array.dtype} {array.shape} is not what the features need."
        )
    array.setflags(write=False)
    return array
