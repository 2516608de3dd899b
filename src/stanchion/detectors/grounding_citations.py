"""Citations in an answer: which document each names, and the sentence it vouches for."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from stanchion.detectors.grounding_claims import compiled

_CITATION = (
    r"(?i)[\[【(](?:\s*(documents?|docs?|sources?|refs?)[\s:#]*)?([\p{L}\p{N}][\p{L}\p{N}_./-]*)\s*[\]】)]"
)
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


def passages(text: str) -> list[tuple[int, int]]:
    """The half-open sentences that citations stand for, in order; together they are the text."""
    return [match.span() for match in compiled(_SENTENCE).finditer(text) if match.end() > match.start()]


def vouched(text: str, at: int, sentences: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The sentence that a citation stands for; one behind the full stop belongs to the sentence before."""
    index = bisect_right(sentences, (at, len(text) + 1)) - 1
    start, end = sentences[index]
    if index > 0 and not any(c.isalpha() for c in text[start:at]):
        return sentences[index - 1][0], end
    return start, end
