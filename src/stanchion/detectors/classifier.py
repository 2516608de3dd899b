"""Linear classifiers over hashed n-grams: packaged weights, windows, calibrated scores.

A window's logit is the bias plus the sum of the weights of its n-grams over the root of their number. Weights
are whole numbers, so sums are exact, and running sums give every window of a text at once: the cost is linear
in the length, however many windows there are.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

from stanchion.core.codec import digest_bytes
from stanchion.core.errors import IntegrityError, UnknownNameError
from stanchion.core.resources import data_path, read_data_bytes
from stanchion.detectors import short_texts
from stanchion.detectors.hashing import (
    CHARACTER_ORDERS,
    FEATURE_VERSION,
    QUOTED_ORDERS,
    TABLE_BITS,
    WORD_FACTOR,
    WORD_ORDERS,
    Grams,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stanchion.detectors.hashing import Indices

LONG_WINDOW = 1024
SHORT_WINDOW = 256
SHORTEST_SENTENCE = 15
LONGEST_PAIR = 400
KIND_BITS = 16  # buckets of the table that tells kinds of attack apart: the leading bits of a bucket
DOUBLING = 0.35  # logits that a window must have more for each doubling of the text beyond LONG_WINDOW
LARGEST_ALLOWANCE = 1.5
SMOOTHING = 20  # added to the number of n-grams, so that a handful of them proves little

_TAKEN = 1 << 13
_MOST_IN_32_BITS = 1 << 23  # weights of a byte whose sum is certain to fit

_FAMILY_ORDERS = (*CHARACTER_ORDERS, *WORD_ORDERS, *QUOTED_ORDERS)
_CHARACTERS = slice(0, len(CHARACTER_ORDERS))
_WORDS = slice(_CHARACTERS.stop, _CHARACTERS.stop + len(WORD_ORDERS))
_QUOTED = slice(_WORDS.stop, len(_FAMILY_ORDERS))
# Spaces, quotation marks and brackets may follow a full stop; letters do not.
_ASCII_SIGNS = re.compile(r"[\n.!?]")
_SENTENCE_END = re.compile(r"[\n\u061f\u0964\u3002\uff01\uff1f\u2028\u2029]|[.!?](?=[\x00-)]|\Z)")


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
        self._weighing = short_texts.Weighing(table, manifest.scale, SMOOTHING)

    def logits(self, grams: Grams, windows: Windows) -> NDArray[np.float64]:
        """One logit per window; the bias alone for a window without n-grams."""
        import numpy as np

        sums, counts = window_sums(grams, windows, self._table)
        scaled = self.manifest.scale * sums / np.sqrt(counts + SMOOTHING)
        logits: NDArray[np.float64] = self.manifest.bias + scaled
        return logits

    def highest_of_short(self, text: str) -> float | None:
        """The highest logit of the windows of a short ASCII text, minus infinity for one without letters.

        None for a text that is neither, or that needs `logits`.
        """
        if len(text) > short_texts.LONGEST or not text.isascii():
            return None
        found = short_texts.highest(text, _spans_of(text), self._weighing)
        return None if found is None else self.manifest.bias + found

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

        low, high = gram_ranges(grams, Windows(np.array([start]), np.array([end])))
        total = 0
        for family, (first, last) in enumerate(zip(low[:, 0].tolist(), high[:, 0].tolist(), strict=True)):
            coarse = grams.buckets[first:last] >> (TABLE_BITS - KIND_BITS)
            weight = int(self._kinds.take(coarse).sum(dtype=np.int64))
            total += weight if family < len(CHARACTER_ORDERS) else weight * WORD_FACTOR
        return total > 0


def allowance(size: int, *, doubling: float = DOUBLING, largest: float = LARGEST_ALLOWANCE) -> float:
    """By how much windows of a text of `size` characters must beat the threshold, in logits.

    The worst of many windows is high by chance: `doubling` more for each doubling beyond `LONG_WINDOW`, at
    most `largest`.
    """
    if size <= LONG_WINDOW:
        return 0.0
    return min(doubling * math.log2(size / LONG_WINDOW), largest)


def window_sums(
    grams: Grams, windows: Windows, table: NDArray[np.int8]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For every window, the sum of its n-grams' weights and how many n-grams there are."""
    import numpy as np

    size = grams.buckets.size
    running: NDArray[Any] = np.zeros(size + 1, dtype=np.int64 if size > _MOST_IN_32_BITS else np.int32)
    for start in range(0, size, _TAKEN):  # block by block: indices are widened on the way
        end = min(start + _TAKEN, size)
        weights = table.take(grams.buckets[start:end])
        np.cumsum(weights, dtype=running.dtype, out=running[start + 1 : end + 1])
        running[start + 1 : end + 1] += running[start]
    low, high = gram_ranges(grams, windows)
    sums = running.take(high).astype(np.int64) - running.take(low)
    sums[_CHARACTERS.stop :] *= WORD_FACTOR
    return sums.sum(axis=0), (high - low).sum(axis=0)


def gram_ranges(grams: Grams, windows: Windows) -> tuple[Indices, Indices]:
    """Which n-grams lie wholly in each window: ranges into `grams.buckets`, of shape (families, windows)."""
    import numpy as np

    first, last = windows
    shape = (len(_FAMILY_ORDERS), first.size)
    low, high = np.empty(shape, dtype=np.intp), np.empty(shape, dtype=np.intp)
    low[_CHARACTERS] = np.searchsorted(grams.letters, first)
    high[_CHARACTERS] = np.searchsorted(grams.letters, last)
    low[_WORDS] = np.searchsorted(grams.word_starts, first)
    high[_WORDS] = np.searchsorted(grams.word_ends, last, side="right")
    if grams.quoted_starts.size:
        low[_QUOTED] = np.searchsorted(grams.quoted_starts, first)
        high[_QUOTED] = np.searchsorted(grams.quoted_ends, last, side="right")
    else:
        low[_QUOTED] = high[_QUOTED] = 0
    edges = np.array([*grams.family_starts, grams.buckets.size])
    low += edges[:-1, None]
    high += edges[:-1, None] + _shortfalls()
    return np.minimum(low, edges[1:, None], out=low), np.maximum(high, low, out=high)


@lru_cache(maxsize=1)
def _shortfalls() -> Indices:
    import numpy as np

    return 1 - np.array(_FAMILY_ORDERS)[:, None]


def windows_of(text: str) -> Windows:
    """The spans that are scored, in no particular order.

    Texts up to `LONG_WINDOW` characters as a whole, longer ones in overlapping windows of that length;
    overlapping windows of `SHORT_WINDOW` in texts longer than that; every sentence of at least
    `SHORTEST_SENTENCE` characters, and every pair of neighbours up to `LONGEST_PAIR` together. An attack of
    one sentence is thus never diluted by the document around it. There are at most about 0.2 windows per
    character.
    """
    import numpy as np

    spans = _spans_of(text)
    starts, ends = np.fromiter(chain.from_iterable(spans), np.intp, 2 * len(spans)).reshape(-1, 2).T
    return Windows(np.ascontiguousarray(starts), np.ascontiguousarray(ends))


def _spans_of(text: str) -> list[tuple[int, int]]:
    size = len(text)
    if size <= SHORT_WINDOW:
        spans = [(0, size)]
    else:
        spans = [*_sliding(size, LONG_WINDOW), *_sliding(size, SHORT_WINDOW)]
    pairs: list[tuple[int, int]] = []
    previous: tuple[int, int] | None = None
    sentences = _sentences(text)
    for span in sentences if len(sentences) > 1 else ():
        if span[1] - span[0] < SHORTEST_SENTENCE:
            continue
        spans.append(span)
        if previous is not None and span[1] - previous[0] <= LONGEST_PAIR:
            pairs.append((previous[0], span[1]))
        previous = span
    return spans + pairs


def _sliding(size: int, width: int) -> list[tuple[int, int]]:
    step = width // 2
    return [(start, min(start + width, size)) for start in range(0, max(size - step, 1), step)]


def _sentences(text: str) -> list[tuple[int, int]]:
    """Half-open spans that together are the text; a full stop inside a word or a number ends none."""
    cuts = _ascii_ends(text) if text.isascii() else [match.end() for match in _SENTENCE_END.finditer(text)]
    return list(pairwise([0, *cuts, len(text)]))


def _ascii_ends(text: str) -> list[int]:
    """Where the sentences of an ASCII text end, as `_SENTENCE_END` says."""
    followed = text + " "
    ends = []
    for match in _ASCII_SIGNS.finditer(text):
        end = match.end()
        if followed[end] < "*" or followed[end - 1] == "\n":
            ends.append(end)
    return ends


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
    arrays = verified_arrays(manifest, data, {"table": (1 << TABLE_BITS,), "kinds": (1 << KIND_BITS,)})
    return LinearModel(manifest, arrays["table"], arrays["kinds"])


class WeightsManifest(Protocol):
    """What every manifest of packaged weights says of its file."""

    @property
    def name(self) -> str:
        """The model's name."""
        ...

    @property
    def file(self) -> str:
        """The file's name in `data/weights`."""
        ...

    @property
    def digest(self) -> str:
        """The digest of its bytes."""
        ...

    @property
    def feature_version(self) -> int:
        """The features that the weights were made for."""
        ...


def verified_arrays(
    manifest: WeightsManifest, data: bytes, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, NDArray[np.int8]]:
    """The int8 arrays of a weights file, by name, read-only; the file is the one that the manifest names.

    Raises:
        IntegrityError: when the bytes do not have the manifest's digest, were made for other features, or an
            array has not the type and the shape that `shapes` asks for.
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
        arrays: dict[str, NDArray[np.int8]] = {name: archive[name] for name in shapes}
    for name, array in arrays.items():
        if array.dtype != "int8" or array.shape != shapes[name]:
            raise IntegrityError(
                f"{where}: an array of {array.dtype} {array.shape} is not what the features need."
            )
        array.setflags(write=False)
    return arrays


def worst_apart(
    values: NDArray[np.float64], windows: Windows, limit: float, *, most: int
) -> tuple[list[int], Indices]:
    """Indices of up to `most` windows of at least `limit`, highest value first, none overlapping another.

    Then the indices of the other windows of at least `limit` that overlap none of these, in no order; there
    are such only where there are more than `most`.
    """
    import numpy as np

    left = values.copy()
    chosen: list[int] = []
    while len(chosen) < most:
        index = int(left.argmax())
        if left[index] < limit or left[index] == -np.inf:
            break
        chosen.append(index)
        left[(windows.starts < windows.ends[index]) & (windows.starts[index] < windows.ends)] = -np.inf
    return chosen, np.flatnonzero((left >= limit) & (left != -np.inf))
