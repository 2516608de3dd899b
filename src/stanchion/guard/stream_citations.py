"""Citations of a streamed answer: their words, and what of them may leave."""

from __future__ import annotations

from stanchion.core.interaction import Citation, Text
from stanchion.guard.fields import citation_words


def words_of(citation: Citation) -> str:
    """Every word of a citation, the vendor's own form included."""
    told = {"document_id": citation.document_id, "quote": citation.quote, "wire": citation.wire}
    return citation_words(told)


def kept(
    citations: list[Citation], before: tuple[Text, ...], after: tuple[object, ...]
) -> tuple[Citation, ...]:
    """The citations as they may leave: one in which a word had to go loses its quote."""
    return tuple(
        citation if then == now else Citation(document_id="", quote="", index=citation.index)
        for citation, then, now in zip(citations, before, after, strict=True)
    )
