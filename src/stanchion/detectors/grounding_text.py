"""Sentences and words for grounding: where sentences end, which are claims, and the stems of their words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from stanchion.detectors.grounding_lexicon import lexicon

_ENDING = re.compile(
    r"(?:(?<!\.)[.!?\u2026]{1,4}|[\u3002\uff01\uff1f\u061f\u0964])[\"'\u2019\u201d\u00bb)\]\u3011]{0,3}(?=\s|\Z|[\u3040-\u9fff])|\n+"
)
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|St|Mt|Jr|Sr|vs|etc|e\.g|i\.e|approx|No|Nr|Inc|Ltd|Co|Corp|Fig|p|pp|ca|"
    r"bzw|z\.B|U\.S|U\.K)$"
)
_FENCE = re.compile(r"^[ \t]*(```|~~~).*?(?:^[ \t]*\1[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
_UNSPACED = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]")
_SPACED_APOSTROPHE = re.compile(r"(?<=[^\W\d_]) ['\u2019] ?(?=(?:s|t|m|d|ll|re|ve)\b)", re.IGNORECASE)
_FIRST_PERSON = frozenset({"i", "i'm", "i've", "i'd", "i'll", "my", "me", "mine", "im", "ive"})
_LONGEST_WORD = 40


class Sentence(NamedTuple):
    """A sentence: its half-open span without blanks around it, and its words in lower case."""

    start: int
    end: int
    words: tuple[str, ...]


def sentences_of(text: str) -> list[Sentence]:
    """The sentences of a text outside code fences, in order."""
    found: list[Sentence] = []
    for start, end in _spans(text):
        while start < end and text[start].isspace():
            start += 1
        while end > start and text[end - 1].isspace():
            end -= 1
        words = tuple(words_of(text[start:end]))
        if words:
            found.append(Sentence(start, end, words))
    return found


def _spans(text: str) -> Iterator[tuple[int, int]]:
    fences = [match.span() for match in _FENCE.finditer(text)] if "```" in text or "~~~" in text else []
    at = 0
    for fence_start, fence_end in [*fences, (len(text), len(text))]:
        for match in _ENDING.finditer(text, at, fence_start):
            is_dot = text[match.start()] == "." and match.end() - match.start() == 1
            if is_dot and _ABBREVIATION.search(text, max(at, match.start() - 8), match.start()):
                continue
            yield at, match.end()
            at = match.end()
        yield at, fence_start
        at = fence_end


def words_of(text: str) -> Iterator[str]:
    """Folded words; scripts without blanks give pairs of neighbouring characters."""
    plain = unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'")
    for match in _WORD.finditer(_SPACED_APOSTROPHE.sub("'", plain)):
        word = match.group()[:_LONGEST_WORD]
        if _UNSPACED.search(word):
            yield from (word[i : i + 2] for i in range(max(1, len(word) - 1)))
        else:
            yield word


def is_claim(text: str, sentence: Sentence) -> bool:
    """Whether a sentence says something about the world that a document could say.

    Questions, courtesies, "I do not know" and what one likes or feels are no claims, unless a digit stands in
    them: a greeting with a price in it is checked.
    """
    known = lexicon()
    words = without_hedges(sentence.words)
    body = text[sentence.start : sentence.end]
    if any(c.isdecimal() for c in body):
        return True
    if body.rstrip("\"')]\u201d\u2019").endswith(("?", "\uff1f", "\u061f")):
        return False
    joined = " ".join(sentence.words)
    if any(phrase in joined for phrase in known.unknowing):
        return False
    if any(words[:n] in known.courtesy for n in (1, 2, 3, 4)) and len(words) <= 14:
        return False
    if words and words[0] in _FIRST_PERSON and (known.opinions & set(words[:4]) or len(words) <= 4):
        return False
    return any(is_content(word) for word in words)


def without_hedges(words: tuple[str, ...]) -> tuple[str, ...]:
    """The words after "I think", "yes", "actually" and the like."""
    hedges = lexicon().hedges
    for _ in range(3):
        found = next((hedge for hedge in hedges if words[: len(hedge)] == hedge), None)
        if found is None:
            break
        words = words[len(found) :]
        if words[:1] == ("that",):
            words = words[1:]
    return words


def is_content(word: str) -> bool:
    """Whether a word carries meaning of its own."""
    known = lexicon()
    return (
        word not in known.all_stopwords
        and word not in known.negations
        and (len(word) > 1 or not word.isascii())
    )


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """A word without the commonest endings; irregular forms by their base. Light on purpose."""
    word = word.removesuffix("'s").removesuffix("'")
    word = lexicon().irregular.get(word, word)
    if len(word) <= 3 or not word.isascii():
        return word
    for ending, instead, least in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= least:
            word = word[: len(word) - len(ending)] + instead
            break
    if len(word) > 4 and word[-1] == word[-2] and word[-1] not in "lsz":
        word = word[:-1]  # stopp(ed)
    return word.removesuffix("e") if len(word) > 3 else word


_ENDINGS = (
    ("ations", "at", 3), ("ation", "at", 3), ("ional", "ion", 3), ("nesses", "", 3), ("ments", "", 4),
    ("fulness", "ful", 3), ("ingly", "", 3), ("edly", "", 3), ("iness", "i", 3), ("ness", "", 3),
    ("ment", "", 4), ("ings", "", 3), ("ing", "", 3), ("ies", "i", 2), ("ied", "i", 2), ("ily", "i", 3),
    ("ers", "er", 3), ("ors", "or", 3), ("sses", "ss", 2), ("shes", "sh", 2), ("ches", "ch", 2),
    ("xes", "x", 2), ("ly", "", 3), ("ed", "", 3), ("es", "e", 3), ("ss", "ss", 1), ("us", "us", 2),
    ("is", "is", 2), ("s", "", 3), ("y", "i", 3),
)  # fmt: skip
