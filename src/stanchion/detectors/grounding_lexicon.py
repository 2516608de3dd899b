"""What the grounding detector knows about words: `data/grounding.yaml`, read once, in the shapes it needs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from stanchion.core.codec import digest_bytes
from stanchion.core.resources import read_data_bytes

_FILE = "grounding.yaml"
_LANGUAGE_SAMPLE = 2000  # characters that tell a text's language
_LATIN_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)?")


class NumberWords(NamedTuple):
    """The number words of one language; weak ones (`a`, `one`) are none by themselves."""

    units: Mapping[str, float]
    weak: Mapping[str, float]
    scale: Mapping[str, float]
    ordinals: Mapping[str, float]
    joint: str

    @property
    def all(self) -> Mapping[str, float]:
        """Every word but the joint."""
        return {**self.units, **self.weak, **self.scale, **self.ordinals}


class Lexicon(NamedTuple):
    """The file. Sets and mappings hold folded words (lower case, typewriter apostrophes)."""

    digest: str
    stopwords: Mapping[str, frozenset[str]]
    all_stopwords: frozenset[str]
    negations: frozenset[str]
    months: Mapping[str, int]
    numbers: Mapping[str, NumberWords]
    magnitudes: Mapping[str, float]
    units: Mapping[str, tuple[str, float]]
    irregular: Mapping[str, str]
    synonyms: Mapping[str, frozenset[str]]
    antonyms: Mapping[str, frozenset[str]]
    courtesy: frozenset[tuple[str, ...]]
    unknowing: tuple[str, ...]
    opinions: frozenset[str]
    hedges: tuple[tuple[str, ...], ...]


@lru_cache(maxsize=1)
def lexicon() -> Lexicon:
    """The packaged lexicon."""
    import yaml

    raw = read_data_bytes(_FILE)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    file: dict[str, Any] = yaml.load(raw, Loader=loader)  # noqa: S506 - a safe loader, in C
    stopwords = {language: frozenset(words.split()) for language, words in file["stopwords"].items()}
    courtesy = (phrase for phrases in file["courtesy"].values() for phrase in _listed(phrases))
    hedges = sorted((tuple(phrase.split()) for phrase in _listed(file["hedges"])), key=len, reverse=True)
    return Lexicon(
        digest=digest_bytes(raw),
        stopwords=stopwords,
        all_stopwords=frozenset().union(*stopwords.values()),
        negations=frozenset(w for words in file["negations"].values() for w in words.split()),
        months=_months(file["months"]),
        numbers={language: _number_words(words) for language, words in file["numbers"].items()},
        magnitudes={mark: float(value) for mark, value in file["magnitudes"].items()},
        units={
            str(writing): (dimension, float(factor))
            for dimension, writings in file["units"].items()
            for writing, factor in writings.items()
        },
        irregular=_irregular(file["irregular"]),
        synonyms=_groups([group.split(",") for group in _listed(file["synonyms"])]),
        antonyms=_groups([pair.split(":") for pair in _listed(file["antonyms"])]),
        courtesy=frozenset(tuple(phrase.split()) for phrase in courtesy),
        unknowing=tuple(_listed(file["unknowing"])),
        opinions=frozenset(file["opinions"].split()),
        hedges=tuple(hedges),
    )


def language_of(text: str) -> str:
    """The language of the lexicon that a text's function words speak; `en` when none stands out."""
    words = _LATIN_WORD.findall(text[:_LANGUAGE_SAMPLE].casefold())
    if not words:
        return "en"
    known = lexicon().stopwords
    votes = {language: sum(word in stop for word in words) for language, stop in known.items()}
    best = max(votes, key=lambda language: (votes[language], language == "en"))
    return best if votes[best] > votes["en"] else "en"


def _listed(text: str) -> list[str]:
    return [entry.strip() for entry in text.split("|") if entry.strip()]


def _months(by_language: Mapping[str, list[str]]) -> dict[str, int]:
    months: dict[str, int] = {}
    for names in by_language.values():
        for number, writings in enumerate(names, 1):
            for writing in writings.split():
                months.setdefault(writing, number)
    return months


def _number_words(file: Mapping[str, str]) -> NumberWords:
    def table(name: str) -> dict[str, float]:
        pairs = (entry.rpartition(":") for entry in file[name].split())
        return {word: float(value) for word, _, value in pairs}

    return NumberWords(table("units"), table("weak"), table("scale"), table("ordinals"), file["and"])


def _irregular(text: str) -> dict[str, str]:
    forms: dict[str, str] = {}
    for entry in _listed(text):
        base, _, others = entry.partition(":")
        forms.update(dict.fromkeys(others.split(","), base))
    return forms


def _groups(groups: list[list[str]]) -> dict[str, frozenset[str]]:
    """For each word, the other words of its groups."""
    related: dict[str, set[str]] = {}
    for group in groups:
        members = [word.strip() for word in group]
        for word in members:
            related.setdefault(word, set()).update(other for other in members if other != word)
    return {word: frozenset(others) for word, others in related.items()}
