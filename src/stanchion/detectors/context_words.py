"""Which kinds of numbers the words near a place speak of, and how near they stand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

import msgspec

from stanchion.core.codec import Digest, digest
from stanchion.core.resources import read_data_text
from stanchion.detectors.national_ids import table

_FILE = "context_words.yaml"
_TOKEN = re.compile(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+")
SPACELESS = re.compile(
    r"[\u0590-\u05ff\u0600-\u06ff\u0900-\u097f\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
)
BEFORE = 64  # characters that are read in front of a place
AFTER = 24  # and behind it, on the same line


class _Words(msgspec.Struct, frozen=True):
    """Kinds by phrase; the longest phrase by its first word; kinds by word of scripts without spaces."""

    phrases: Mapping[tuple[str, ...], tuple[str, ...]]
    longest: Mapping[str, int]
    spaceless: Mapping[str, tuple[str, ...]]


@lru_cache(maxsize=1)
def _words() -> _Words:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    kinds = yaml.load(read_data_text(_FILE), Loader=loader)["kinds"]  # noqa: S506 - a safe loader, in C
    phrases: dict[tuple[str, ...], tuple[str, ...]] = {}
    spaceless: dict[str, tuple[str, ...]] = {}
    for kind, word in (*_pairs(kinds.items()), *_pairs((entry.id, entry.words) for entry in table())):
        if SPACELESS.search(word):
            spaceless[word] = (*spaceless.get(word, ()), kind)
        else:
            key = tuple(_TOKEN.findall(word.casefold()))
            phrases[key] = (*phrases.get(key, ()), kind)
    longest: dict[str, int] = {}
    for key in phrases:
        longest[key[0]] = max(len(key), longest.get(key[0], 0))
    return _Words(phrases, longest, spaceless)


def _pairs(kinds: Iterable[tuple[str, Iterable[str]]]) -> Iterable[tuple[str, str]]:
    return ((kind, word) for kind, words in kinds for word in words)


@lru_cache(maxsize=1)
def words_digest() -> Digest:
    """The identity of all words."""
    words = _words()
    return digest(
        [sorted((" ".join(k), v) for k, v in words.phrases.items()), sorted(words.spaceless.items())]
    )


def kinds_near(text: str, start: int, end: int) -> dict[str, int]:
    """Kinds whose words stand near `text[start:end]`, with the distance of the nearest word in characters.

    Reads 64 characters before, and 24 after on the same line; a word behind counts as twice as far.
    """
    front = text[max(0, start - BEFORE) : start]
    back = text[end : end + AFTER].partition("\n")[0]
    near: dict[str, int] = {}
    for kind, _, last in _kinds_in(front):
        _keep_nearest(near, kind, len(front) - last)
    for kind, first, _ in _kinds_in(back):
        _keep_nearest(near, kind, 2 * first)
    return near


def _keep_nearest(near: dict[str, int], kind: str, distance: int) -> None:
    near[kind] = min(distance, near.get(kind, distance))


def _kinds_in(text: str) -> Iterable[tuple[str, int, int]]:
    words = _words()
    tokens = [(match.group().casefold(), match.start(), match.end()) for match in _TOKEN.finditer(text)]
    for index, (token, first, _end) in enumerate(tokens):
        longest = min(words.longest.get(token, 0), len(tokens) - index)
        for count in range(1, longest + 1):
            kinds = words.phrases.get(tuple(t[0] for t in tokens[index : index + count]))
            for kind in kinds or ():
                yield kind, first, tokens[index + count - 1][2]
    if not text.isascii() and SPACELESS.search(text):
        for word, kinds in words.spaceless.items():
            place = text.find(word)
            for kind in kinds if place >= 0 else ():
                yield kind, place, place + len(word)
