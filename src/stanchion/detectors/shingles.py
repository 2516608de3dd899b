"""How much of a text another discloses: runs of words that both hold, whatever their case and punctuation.

Words are compared as shingles (Broder 1997): `width` words in a row. A script without spaces counts every
character as half a word, so that a run says about the same amount in every language.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Iterator, Sequence

import msgspec

_TOKEN = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0e7f]|"
    r"(?:[^\W_\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0e7f])+"
)
_HALF = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0e7f]\Z")
WIDTH = 4
_PLAIN = bytes(ord(chr(i).lower()) if chr(i).isalnum() and i < 128 else ord(" ") for i in range(256))


class Run(msgspec.Struct, frozen=True):
    """A stretch of the reader's text that repeats the source: code points, and how many words it repeats."""

    start: int
    end: int
    words: float


class Overlap(msgspec.Struct, frozen=True):
    """What a text discloses of a source: `share` of the source's words in [0, 1], and where it stands."""

    share: float
    runs: tuple[Run, ...]


class Source:
    """A text whose disclosure is looked for; its shingles are made once."""

    def __init__(self, text: str, *, width: int = WIDTH) -> None:
        self._width = width
        self._words = _words(text)
        self._vocabulary = frozenset(self._words)
        self._in_a_row = b"\1" * width
        self._places: dict[tuple[str, ...], list[int]] = {}
        for index, shingle in enumerate(self._shingles(self._words)):
            self._places.setdefault(shingle, []).append(index)
        self.weight = sum(map(_weight, self._words))

    def overlap(self, text: str, *, min_words: float) -> Overlap:
        """Runs of at least `min_words` words of the source that the text repeats, and their share."""
        if not self._places:
            return Overlap(0.0, ())
        words = _words(text)
        if self._in_a_row not in bytes(map(self._vocabulary.__contains__, words)):
            return Overlap(0.0, ())
        if self._places.keys().isdisjoint(self._shingles(words)):
            return Overlap(0.0, ())
        shared = list(map(self._places.__contains__, self._shingles(words)))
        runs, disclosed = [], set()
        spans: tuple[array[int], array[int]] | None = None
        for first, last in _stretches(shared, self._width):
            weight = sum(map(_weight, words[first:last]))
            if weight >= min_words:
                spans = spans or _spans(text)
                runs.append(Run(spans[0][first], spans[1][last - 1], weight))
                disclosed.update(self._positions(words[first:last]))
        share = sum(_weight(self._words[i]) for i in disclosed) / self.weight
        return Overlap(min(1.0, share), tuple(runs))

    def _shingles(self, words: Sequence[str]) -> Iterator[tuple[str, ...]]:
        """Every `width` words in a row."""
        return zip(*[words[first:] for first in range(self._width)], strict=False)

    def _positions(self, words: Sequence[str]) -> set[int]:
        """The places of the source's words that the words repeat; each shingle is looked up once."""
        shingles = set(self._shingles(words))
        starts = {place for shingle in shingles for place in self._places.get(shingle, ())}
        return {place + offset for place in starts for offset in range(self._width)}


def _words(text: str) -> list[str]:
    """The words as they are compared: strings only, which the collector of garbage need not walk through."""
    if text.isascii():
        return text.encode("ascii").translate(_PLAIN).decode("ascii").split()
    return [_folded(word) for word in _TOKEN.findall(text)]


def _spans(text: str) -> tuple[array[int], array[int]]:
    """Where each word begins and ends."""
    starts, ends = array("L"), array("L")
    for match in _TOKEN.finditer(text):
        starts.append(match.start())
        ends.append(match.end())
    return starts, ends


def _folded(word: str) -> str:
    return word.lower() if word.isascii() else unicodedata.normalize("NFKC", word).casefold()


def _weight(word: str) -> float:
    return 0.5 if _HALF.match(word) else 1.0


def _stretches(shared: Sequence[bool], width: int) -> list[tuple[int, int]]:
    """Half-open ranges of words that are covered by shared shingles without a gap."""
    ranges: list[tuple[int, int]] = []
    for index, is_shared in enumerate(shared):
        if not is_shared:
            continue
        if ranges and index <= ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], index + width)
        else:
            ranges.append((index, index + width))
    return ranges
