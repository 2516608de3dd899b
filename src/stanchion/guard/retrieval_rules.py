"""The policy's word on retrieved documents: sources, age, size, quarantine, wrong citations."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from enum import StrEnum

import msgspec

from stanchion.core.codec import Digest


class CitationHandling(StrEnum):
    """What becomes of an answer with a wrong citation. What its reader may not see is never shown."""

    BLOCK = "block"
    RECORD = "record"


class Quarantined(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What may not come in, by digest of the text or by source (shell-style patterns)."""

    digests: tuple[Digest, ...] = ()
    sources: tuple[str, ...] = ()

    def holds(self, *, digest: Digest, source: str) -> bool:
        """Whether a document is among it."""
        return digest in self.digests or matches_any(self.sources, source)


class RetrievalRules(msgspec.Struct, frozen=True, kw_only=True):
    """The section `retrieval` of a policy. Lengths are code points; an age counts from the last change.

    `sources` are shell-style patterns over a document's source.
    """

    sources: tuple[str, ...] = ("*",)
    max_age_days: int | None = None
    quarantine: Quarantined = Quarantined()
    max_documents: int = 50
    document_characters: int = 50_000
    total_characters: int = 200_000
    citations: CitationHandling = CitationHandling.BLOCK


def matches_any(patterns: Iterable[str], source: str) -> bool:
    """Whether a shell-style pattern fits the whole source; case matters."""
    return any(fnmatch.fnmatchcase(source, pattern) for pattern in patterns)
