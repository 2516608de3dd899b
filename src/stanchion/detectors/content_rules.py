"""How bad content is, and which languages a text may be in: `data/content_rules.yaml`.

Severity comes from a table of category by intensity. A pattern names its intensity in its id; for what the
model found, the intensity is the strongest of which a cue stands in the window. Both are lexical: they see
how something is said, not whether it is meant.
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache
from typing import Any

import msgspec

from stanchion.core.codec import Digest, digest_bytes
from stanchion.core.finding import Severity
from stanchion.core.resources import read_data_text

FILE = "content_rules.yaml"
FEWEST_WORDS = 2  # function words that make a language of a text likely
SAMPLE = 4000  # characters; a language is one of the text's where one such piece holds its words


class Intensity(StrEnum):
    """How a subject is spoken of, weakest first."""

    MENTION = "mention"
    INSULT = "insult"
    THREAT = "threat"
    INSTRUCTION = "instruction"


class _Language(msgspec.Struct, frozen=True):
    script: str
    words: frozenset[str]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    levels: dict[str, dict[Intensity, Severity]]
    cues: dict[Intensity, tuple[str, ...]]
    languages: dict[str, _Language]


class ContentRules:
    """The rules of the file, ready to be asked."""

    def __init__(self, file: _File, digest: Digest) -> None:
        import re2

        self.digest = digest
        self.languages = file.languages
        self._levels = file.levels
        options = re2.Options()
        options.case_sensitive = False
        options.log_errors = False
        self._cues: tuple[tuple[Intensity, Any], ...] = tuple(
            (intensity, re2.compile("|".join(f"(?:{cue})" for cue in file.cues[intensity]), options))
            for intensity in (Intensity.THREAT, Intensity.INSTRUCTION, Intensity.INSULT)
        )

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories that have levels, in the file's order."""
        return tuple(self._levels)

    def severity(self, category: str, intensity: Intensity) -> Severity:
        """How bad a subject is when it is spoken of in this way."""
        return self._levels[category][intensity]

    def intensity(self, text: str) -> Intensity:
        """The strongest way of speaking of which a cue is found; a mention without any."""
        for intensity, cue in self._cues:
            if cue.search(text) is not None:
                return intensity
        return Intensity.MENTION

    def languages_of(self, text: str, locale: str = "") -> frozenset[str]:
        """The languages whose patterns are believed in this text.

        A language in another script than Latin is one of the text's where a letter of the script is; English
        always is one. Of the others in Latin script: without a locale all; with one, the locale's own and
        those of which the text holds function words. A locale can thus not hide what is said in another
        language, it only stops words that look alike.
        """
        scripts = {name for name, letters in _SCRIPTS.items() if letters.search(text)}
        found = {code for code, language in self.languages.items() if language.script in scripts}
        own = locale.replace("_", "-").partition("-")[0].lower()
        latin = {code for code, language in self.languages.items() if language.script == "latin"}
        if not own:
            return frozenset(found | latin)
        likely: set[str] = set()
        for start in range(0, len(text), SAMPLE):
            words = set(_WORD.findall(text[start : start + SAMPLE].lower()))
            likely |= {code for code in latin if len(words & self.languages[code].words) >= FEWEST_WORDS}
        return frozenset(found | likely | {"en", own})


_SCRIPTS = {
    "cyrillic": re.compile("[\u0400-\u04ff]"),
    "arabic": re.compile("[\u0600-\u06ff]"),
    "devanagari": re.compile("[\u0900-\u097f]"),
    "kana": re.compile("[\u3040-\u30ff]"),
    "han": re.compile("[\u4e00-\u9fff]"),
    "hangul": re.compile("[\uac00-\ud7af]"),
}
_WORD = re.compile(r"[^\W\d_]+")


@lru_cache(maxsize=1)
def content_rules() -> ContentRules:
    """The packaged rules."""
    import yaml

    text = read_data_text(FILE)
    return ContentRules(
        msgspec.convert(yaml.safe_load(text), _File, strict=False), digest_bytes(text.encode("utf-8"))
    )
