"""Citations of an answer: the document was given, says it, and may be shown to the reader.

Two kinds are read: citations in brackets in the words, and those that an API marks as such. Whether a
document says what it is cited for is weighed by the detector `grounding`, sentence by sentence, with the
threshold that it was frozen at; its figures are in `docs/explanation/grounding.md`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from stanchion.core.finding import Finding, Location
from stanchion.core.interaction import Document, Message, Opaque, Refusal, Text
from stanchion.core.taxonomy import category

DETECTOR = "guard.citations"
VERSION = "1"
THRESHOLD = 0.5
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
    findings: list[Finding] = []
    checked = 0
    for number, part in enumerate(message.parts):
        field = f"reply.parts[{number}]"
        if isinstance(part, Text | Refusal):
            count, found = _in_text(part.text, field, documents, told, known)
            checked += count
            findings += found
            findings += _hidden(part.text, field, documents, known, may_see)
        elif isinstance(part, Opaque) and part.kind == "citation" and part.payload != _TAKEN_OUT:
            checked += 1
            findings += _marked(part.payload, field, documents, known, may_see)
    findings.sort(key=lambda one: (one.location.field, one.location.start, one.rule))
    closed = [one for one in findings if one.category == "leakage.document"]
    refused = closed or (findings if is_strict else [])
    reason = (
        "" if not findings else f"{len(findings)} wrong citations: {refused[0].reason}" if refused else ""
    )
    return CitationReport(
        findings=tuple(findings),
        allowed=not refused,
        checked=checked,
        grounding=_examiner().version,
        reason=reason,
    )


def _in_text(
    text: str,
    field: str,
    documents: Sequence[Document],
    told: tuple[str, ...],
    known: Callable[[str], bool],
) -> tuple[int, list[Finding]]:
    """How many citations in brackets were checked, and what is wrong with them."""
    from stanchion.detectors.grounding import Material

    ids = tuple(one.id for one in documents)
    material = Material(tuple(one.text for one in documents), ids, told)
    examined = _examiner().examine(text, material)
    found = [
        _finding("grounding.citation", doubt.rule, field, (doubt.start, doubt.end), doubt.reason, doubt.score)
        for doubt in examined.doubts
        if doubt.category == "grounding.citation" and doubt.score >= THRESHOLD
    ]
    cited = {(one.start, one.end) for one in examined.citations}
    given = {name.casefold() for name in ids}
    for start, end, name in _names(text):
        if (start, end) not in cited and name.casefold() not in given and known(name):
            cited.add((start, end))
            reason = "a document of the index is cited that was not given"
            found.append(_finding("grounding.citation", "not_retrieved", field, (start, end), reason))
    return len(cited), found


def _hidden(
    text: str,
    field: str,
    documents: Sequence[Document],
    known: Callable[[str], bool],
    may_see: Callable[[str], bool],
) -> Iterator[Finding]:
    """Citations of documents that the reader may not see, by name or by number."""
    from stanchion.detectors.grounding_citations import citations_in

    reason = "the reader may not see the document that is cited"
    seen = set()
    for one in citations_in(text, tuple(d.id for d in documents), count=len(documents)):
        if one.document is not None and not may_see(documents[one.document].id):
            seen.add((one.start, one.end))
            yield _finding("leakage.document", "not_for_reader", field, (one.start, one.end), reason)
    for start, end, name in _names(text):
        if (start, end) not in seen and known(name) and not may_see(name):
            yield _finding("leakage.document", "not_for_reader", field, (start, end), reason)


def _marked(
    payload: Any,
    field: str,
    documents: Sequence[Document],
    known: Callable[[str], bool],
    may_see: Callable[[str], bool],
) -> Iterator[Finding]:
    """A citation that the API marks: it must name a given document, and quote what stands there."""
    said = payload if isinstance(payload, dict) else {}
    name, quote = str(said.get("document_id") or ""), said.get("quote")
    document = _named(name, documents)
    if document is None:
        rule = "not_retrieved" if name and known(name) else "unknown_document"
        reason = "a citation names a document that was not given"
        yield _finding("grounding.citation", rule, field, (0, 0), reason)
        if rule == "not_retrieved" and not may_see(name):
            reason = "the reader may not see the document that is cited"
            yield _finding("leakage.document", "not_for_reader", field, (0, 0), reason)
        return
    if not may_see(document.id):
        reason = "the reader may not see the document that is cited"
        yield _finding("leakage.document", "not_for_reader", field, (0, 0), reason)
    if isinstance(quote, str) and _plain(quote) not in _plain(document.text):
        reason = "the quoted words do not stand in the cited document"
        yield _finding("grounding.citation", "quote_not_there", field, (0, 0), reason)


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


def _finding(
    category_id: str, rule: str, field: str, span: tuple[int, int], reason: str, score: float = 1.0
) -> Finding:
    return Finding(
        detector=DETECTOR,
        version=VERSION,
        category=category_id,
        score=round(score, 4),
        location=Location(start=span[0], end=span[1], field=field),
        severity=category(category_id).severity,
        rule=rule,
        reason=reason,
    )


@lru_cache(maxsize=1)
def _examiner() -> Any:
    from stanchion.detectors.grounding import Examiner

    return Examiner()
