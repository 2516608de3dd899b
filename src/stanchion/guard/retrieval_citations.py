"""Citations of an answer: the document was given, says it, and may be shown to the reader.

Two kinds are read: citations in brackets in the words, and those that an API marks as such. Whether a
document says what it is cited for is weighed by the detector `grounding`, sentence by sentence, with the
threshold that it was frozen at; its figures are in `docs/explanation/grounding.md`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from stanchion.core.finding import Finding, Location
from stanchion.core.interaction import Document, Message, Opaque, Refusal, Text
from stanchion.core.taxonomy import category

DETECTOR = "guard.citations"
VERSION = "1"
THRESHOLD = 0.5
WRONG, CLOSED = "grounding.citation", "leakage.document"
_NOT_FOR_READER = "the reader may not see the document that is cited"
_NAMED = re.compile(r"[\[【(]\s*(?:\w{1,12}[\s:#]\s*)?([A-Za-z0-9][A-Za-z0-9_./-]{0,199})\s*[\]】)]")
_BLANKS = re.compile(r"\s+")
_TAKEN_OUT = {"document_id": "", "quote": "", "wire": None}  # what redaction leaves of a citation


class CitationReport(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with the citations of an answer; places are offsets in `reply.parts[n]`.

    `checked` counts citations, `grounding` is the version of what weighed them.
    """

    findings: tuple[Finding, ...]
    allowed: bool
    checked: int
    grounding: str
    reason: str = ""


def examine_citations(
    message: Message,
    documents: Sequence[Document],
    *,
    told: tuple[str, ...],
    known: Callable[[str], bool],
    may_see: Callable[[str], bool],
    is_strict: bool,
) -> CitationReport:
    """Every citation of a message against the documents of its exchange.

    `known` says whether the index holds a name, `may_see` whether the reader may see that document. With
    `is_strict` anything wrong refuses the answer; without it only what the reader may not see.

    Raises:
        JudgementError: when the answer or the documents are too long to be compared.
    """
    reading = _Reading(documents, told, known, may_see)
    findings: list[Finding] = []
    checked = 0
    for number, part in enumerate(message.parts):
        field = f"reply.parts[{number}]"
        if isinstance(part, Text | Refusal):
            count, found = reading.in_text(part.text, field)
            checked += count
            findings += [*found, *reading.hidden(part.text, field)]
        elif isinstance(part, Opaque) and part.kind == "citation" and part.payload != _TAKEN_OUT:
            checked += 1
            findings += reading.marked(part.payload, field)
    findings.sort(key=lambda one: (one.location.field, one.location.start, one.rule))
    closed = [one for one in findings if one.category == CLOSED]
    refused = closed or (findings if is_strict else [])
    reason = f"{len(findings)} wrong citations, such as: {refused[0].reason}" if refused else ""
    return CitationReport(
        findings=tuple(findings),
        allowed=not refused,
        checked=checked,
        grounding=_examiner().version,
        reason=reason,
    )


class _Reading(NamedTuple):
    """What citations are held against."""

    documents: Sequence[Document]
    told: tuple[str, ...]
    known: Callable[[str], bool]
    may_see: Callable[[str], bool]

    def in_text(self, text: str, field: str) -> tuple[int, list[Finding]]:
        """How many citations in brackets were checked, and what is wrong with them."""
        from stanchion.detectors.grounding import Material

        ids = tuple(one.id for one in self.documents)
        material = Material(tuple(one.text for one in self.documents), ids, self.told)
        examined = _examiner().examine(text, material)
        found = [
            _finding(
                WRONG, doubt.rule, doubt.reason, at=_at(field, doubt.start, doubt.end), score=doubt.score
            )
            for doubt in examined.doubts
            if doubt.category == WRONG and doubt.score >= THRESHOLD
        ]
        cited = {(one.start, one.end) for one in examined.citations}
        given = {name.casefold() for name in ids}
        for start, end, name in _names(text):
            if (start, end) not in cited and name.casefold() not in given and self.known(name):
                cited.add((start, end))
                reason = "a document of the index is cited that was not given"
                found.append(_finding(WRONG, "not_retrieved", reason, at=_at(field, start, end)))
        return len(cited), found

    def hidden(self, text: str, field: str) -> Iterator[Finding]:
        """Citations of documents that the reader may not see, by name or by number."""
        from stanchion.detectors.grounding_citations import citations_in

        ids = tuple(one.id for one in self.documents)
        places = {
            (one.start, one.end): self.documents[one.document].id
            for one in citations_in(text, ids, count=len(ids))
            if one.document is not None
        }
        for start, end, name in _names(text):
            if self.known(name):
                places.setdefault((start, end), name)
        for (start, end), name in places.items():
            if not self.may_see(name):
                yield _finding(CLOSED, "not_for_reader", _NOT_FOR_READER, at=_at(field, start, end))

    def marked(self, payload: Any, field: str) -> Iterator[Finding]:
        """A citation that the API marks: it must name a given document, and quote what stands there."""
        said = payload if isinstance(payload, dict) else {}
        name, quote = str(said.get("document_id") or ""), said.get("quote")
        at = _at(field, 0, 0)
        document = _named(name, self.documents)
        if document is None:
            is_known = bool(name) and self.known(name)
            rule = "not_retrieved" if is_known else "unknown_document"
            yield _finding(WRONG, rule, "a citation names a document that was not given", at=at)
            if is_known and not self.may_see(name):
                yield _finding(CLOSED, "not_for_reader", _NOT_FOR_READER, at=at)
            return
        if not self.may_see(document.id):
            yield _finding(CLOSED, "not_for_reader", _NOT_FOR_READER, at=at)
        if isinstance(quote, str) and _plain(quote) not in _plain(document.text):
            reason = "the quoted words do not stand in the cited document"
            yield _finding(WRONG, "quote_not_there", reason, at=at)


def _named(name: str, documents: Sequence[Document]) -> Document | None:
    """The given document of this id; a number counts the documents from 0, as APIs do."""
    wanted = name.casefold()
    for document in documents:
        if document.id.casefold() == wanted:
            return document
    if name.isascii() and name.isdigit() and int(name[:9]) < len(documents):
        return documents[int(name[:9])]
    return None


def _names(text: str) -> Iterator[tuple[int, int, str]]:
    for match in _NAMED.finditer(text):
        yield match.start(), match.end(), match[1].rstrip(".")


def _plain(text: str) -> str:
    return _BLANKS.sub(" ", text).strip().casefold()


def _at(field: str, start: int, end: int) -> Location:
    return Location(start=start, end=end, field=field)


def _finding(category_id: str, rule: str, reason: str, *, at: Location, score: float = 1.0) -> Finding:
    return Finding(
        detector=DETECTOR,
        version=VERSION,
        category=category_id,
        score=round(score, 4),
        location=at,
        severity=category(category_id).severity,
        rule=rule,
        reason=reason,
    )


@lru_cache(maxsize=1)
def _examiner() -> Any:
    from stanchion.detectors.grounding import Examiner

    return Examiner()
