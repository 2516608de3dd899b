"""Which language a text speaks: by script first, then by frequent words and letters. Cheap, no more.

Scripts that one language mostly uses decide alone. Latin, Cyrillic and Arabic letters are told apart by a
list of frequent words per language and by letters that few share. Names, numbers and code say nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from stanchion.core.codec import digest_bytes
from stanchion.core.resources import read_data_bytes

_FILE = "languages.yaml"
SAMPLE = 600  # characters that are looked at
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_OTHER = re.compile(r"[^\x00-\u024f\u1e00-\u1eff\u2000-\u2bff\ufe00-\ufe0f\U0001f000-\U0001ffff]")
_BLOCKS: tuple[tuple[int, int, str], ...] = (
    (0x0370, 0x03FF, "greek"), (0x0400, 0x052F, "cyrillic"), (0x0530, 0x058F, "armenian"),
    (0x0590, 0x05FF, "hebrew"), (0x0600, 0x077F, "arabic"), (0x0900, 0x097F, "devanagari"),
    (0x0980, 0x09FF, "bengali"), (0x0A00, 0x0A7F, "gurmukhi"), (0x0A80, 0x0AFF, "gujarati"),
    (0x0B80, 0x0BFF, "tamil"), (0x0C00, 0x0C7F, "telugu"), (0x0C80, 0x0CFF, "kannada"),
    (0x0D00, 0x0D7F, "malayalam"), (0x0D80, 0x0DFF, "sinhala"), (0x0E00, 0x0E7F, "thai"),
    (0x0E80, 0x0EFF, "lao"), (0x1000, 0x109F, "burmese"), (0x10A0, 0x10FF, "georgian"),
    (0x1100, 0x11FF, "hangul"), (0x1200, 0x137F, "ethiopic"), (0x1780, 0x17FF, "khmer"),
    (0x3040, 0x30FF, "kana"), (0x3400, 0x9FFF, "han"), (0xAC00, 0xD7AF, "hangul"), (0xF900, 0xFAFF, "han"),
    (0xFB50, 0xFDFF, "arabic"), (0xFE70, 0xFEFF, "arabic"), (0xFF66, 0xFF9F, "kana"),
)  # fmt: skip
_WORDY = {
    "latin": frozenset("en de fr es it pt nl sv da no fi pl cs ro hu tr id jv sw tl vi".split()),  # noqa: SIM905
    "cyrillic": frozenset({"ru", "uk", "bg"}),
    "arabic": frozenset({"ar", "fa", "ur"}),
}
_MOST_WORDS = 100
_LETTER_VOTE = 0.6
_LEAST_VOTES = 1.0


class Guess(NamedTuple):
    """A language code (`und` where nothing tells), how sure in [0, 1], and the shares of the scripts."""

    language: str
    certainty: float
    scripts: tuple[tuple[str, float], ...]


class _Profiles(NamedTuple):
    words: Mapping[str, tuple[tuple[str, float], ...]]
    letters: Mapping[str, tuple[tuple[str, float], ...]]
    scripts: Mapping[str, str]
    digest: str


@lru_cache(maxsize=1)
def profiles() -> _Profiles:
    """The packaged lists, turned around: what each word and letter speaks for, shared words less."""
    import yaml

    raw = read_data_bytes(_FILE)
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # `no` is a language, not a boolean
    file: dict[str, Any] = yaml.load(raw, Loader=loader)  # noqa: S506 - a base loader makes texts only
    words: dict[str, list[str]] = {}
    for language, listed in file["words"].items():
        for word in set(listed.split()):
            words.setdefault(word, []).append(language)
    letters: dict[str, list[str]] = {}
    for language, listed in file["letters"].items():
        for letter in set(listed):
            letters.setdefault(letter, []).append(language)
    return _Profiles(
        {word: tuple((each, 1.0 / len(of)) for each in of) for word, of in words.items()},
        {letter: tuple((each, _LETTER_VOTE / len(of)) for each in of) for letter, of in letters.items()},
        file["scripts"], digest_bytes(raw),
    )  # fmt: skip


def guess_language(text: str, words: Sequence[str] | None = None) -> Guess:
    """The language of the first 600 characters; `words` are the text's in lower case, if known."""
    sample = text[:SAMPLE]
    scripts = _scripts(sample)
    if not scripts:
        return Guess("und", 0.0, ())
    main = scripts[0][0]
    if main == "han" and any(name == "kana" and share >= 0.05 for name, share in scripts):
        main = "kana"
    if main not in _WORDY:
        language = profiles().scripts.get(main, "und")
        return Guess(language, scripts[0][1] if language != "und" else 0.0, scripts)
    votes = _votes(sample.casefold(), _WORDY[main], words)
    if not votes:
        return Guess("und", 0.0, scripts)
    ranked = sorted(votes.items(), key=lambda vote: (-vote[1], vote[0]))
    best, most = ranked[0]
    if most < _LEAST_VOTES:
        return Guess("und", most / 2, scripts)
    second = ranked[1][1] if len(ranked) > 1 else 0.0
    return Guess(best, (most - second) / most * min(1.0, most / 4), scripts)


def _votes(text: str, among: frozenset[str], words: Sequence[str] | None = None) -> dict[str, float]:
    known = profiles()
    said = _WORD.findall(text.replace("\u2019", "'")) if words is None else words[:_MOST_WORDS]
    votes: dict[str, float] = {}
    for entry in map(known.words.get, said):
        for language, vote in entry or ():
            votes[language] = votes.get(language, 0.0) + vote
    if not text.isascii():
        for letter, count in Counter(text).items():
            for language, vote in known.letters.get(letter, ()) if letter > "\x7f" else ():
                votes[language] = votes.get(language, 0.0) + vote * min(count, 10)
    return {language: vote for language, vote in votes.items() if language in among}


def _scripts(sample: str) -> tuple[tuple[str, float], ...]:
    """Scripts by their share of the letters, the largest first."""
    if sample.isascii():
        return (("latin", 1.0),) if any(map(str.isalpha, sample)) else ()
    others = Counter(map(_script, _OTHER.findall(sample)))
    others.pop("", None)
    latin = sum(map(str.isalpha, sample)) - sum(c.isalpha() for c in _OTHER.findall(sample))
    counts = {"latin": latin, **others} if latin > 0 else dict(others)
    total = sum(counts.values())
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple((name, round(count / total, 4)) for name, count in ranked if count)


@lru_cache(maxsize=4096)
def _script(character: str) -> str:
    point = ord(character)
    return next((name for first, last, name in _BLOCKS if first <= point <= last), "")
