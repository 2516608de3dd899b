"""One automaton for all patterns: which ids occur (Hyperscan), then where (RE2), for the ids that occur."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from stanchion.detectors.catalogue import Catalogue, Pattern
from stanchion.detectors.views import TextView, TextViewSet


class Hit:
    """A match of a pattern in a view; `start` and `end` are code points of the view (of the reported group)."""

    __slots__ = ("end", "pattern", "start", "view")

    def __init__(self, pattern: Pattern, view: TextView, start: int, end: int) -> None:
        self.pattern = pattern
        self.view = view
        self.start = start
        self.end = end

    @property
    def text(self) -> str:
        """The matched characters of the view; toxic, never to be stored or logged."""
        return self.view.text[self.start : self.end]

    @property
    def original(self) -> tuple[int, int]:
        """The span of the original that made the match."""
        return self.view.to_original(self.start, self.end)


class Scanner:
    """Finds the patterns of all catalogues in all views in one pass each; thread-safe."""

    def __init__(self, catalogues: Sequence[Catalogue], *, cache_dir: Path | None = None) -> None:
        self.catalogues = tuple(catalogues)
        self.patterns: tuple[Pattern, ...] = tuple(p for c in self.catalogues for p in c.patterns)
        self.digest = ""
        self._cache_dir = cache_dir

    def hits(self, view_set: TextViewSet) -> tuple[Hit, ...]:
        """All matches in the views that each pattern asks for, by position; made once per `ViewSet`."""
        raise NotImplementedError

    def hits_for(self, view_set: TextViewSet, detector: str) -> tuple[Hit, ...]:
        """The matches of the patterns whose id begins with `detector.` (`pii`, `secrets`, ...)."""
        raise NotImplementedError


@lru_cache(maxsize=1)
def packaged_scanner() -> Scanner:
    """The scanner of all packaged catalogues, with its automaton cached under `~/.cache/stanchion`."""
    raise NotImplementedError
