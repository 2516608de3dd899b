"""Citations in an answer: which document each names, and the sentence it vouches for."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from stanchion.detectors.grounding_claims import compiled

_CITATION = (
    r"(?i)[\[【(](?:\s*(documents?|docs?|sources?|refs?)[\s:#]*)?([\p{L}\p{N}][\p{L}\p{N}_./-]*)\s*[\]】)]"
)
_LETTER = re.compile(r"[^\W\d_]")
_SENTENCE = r"[^.!?\n]*(?:[.!?]+(?:[\s\"”)\]】]|$)|[.!?]+|\n|$)"


class Cited(NamedTuple):
    """A citation: its span, and the index of the document it names; None when there is no such document."""

    start: int
    end: int
    document: int | None


def citations_in(text: str, ids: Sequence[str], *, count: int | None = None) -> Iterator[Cited]:
    """The citations of a text: `[returns]`, `[document returns]`, `(source: returns)`, `[2]`.

    A bare word in brackets is one only when it names a document; a bare number only in square brackets.

    Args:
        text: the answer.
        ids: ids of the documents, in order.
        count: how many documents there are, where they have no ids.
    """
    by_id = {name.casefold(): index for index, name in reversed(list(enumerate(ids)))}
    total = len(ids) if count is None else count
    for match in compiled(_CITATION).finditer(text):
        marker, name = match[1], match[2].rstrip(".")
        document = by_id.get(name.casefold())
        is_number = name.isdecimal() and len(name) <= 3 and not match.group().startswith("(")
        if document is None and is_number and 1 <= int(name) <= total:
            document = int(name) - 1
        if document is not None or marker or is_number:
            yield Cited(match.start(), match.end(), document)


class Passage(NamedTuple):
    """A half-open sentence that citations stand for, and where its first letter is (or its end)."""

    start: int
    end: int
    letter: int


def passages(text: str) -> list[Passage]:
    """The sentences that citations stand for, in order; together they are the text."""
    found = []
    for match in compiled(_SENTENCE).finditer(text):
        start, end = match.span()
        if end > start:
            letter = _LETTER.search(text, start, end)
            found.append(Passage(start, end, letter.start() if letter else end))
    return found


def vouched(at: int, sentences: Sequence[Passage]) -> tuple[int, int]:
    """The sentence that a citation stands for; one behind the full stop belongs to the sentence before."""
    index = bisect_right(sentences, at, key=lambda sentence: sentence.start) - 1
    start, end, letter = sentences[index]
    if index > 0 and letter >= at:
        return sentences[index - 1].start, end
    return start, end
