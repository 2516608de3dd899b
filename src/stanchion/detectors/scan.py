"""One automaton for all patterns: which ids occur (Hyperscan), then where (RE2), for the ids that occur."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import count
from pathlib import Path
from threading import Lock

from stanchion.core.codec import Digest, digest
from stanchion.detectors.automaton import Automaton
from stanchion.detectors.cache import DiskCache, default_cache_dir
from stanchion.detectors.packaged import packaged_catalogues
from stanchion.detectors.patterns import Catalogue, Pattern
from stanchion.detectors.places import PlaceFinder
from stanchion.detectors.prefilter import NOTHING, Prefilter, Prospect
from stanchion.detectors.views import Notice, TextView, TextViewSet

MATCH_LIMIT = "match_limit"
ON_DEMAND = ("content", "refusal")
_SPACED = "spaced"  # a reading that depends on the whole of a text
_NUMBERS = count()
_RULED_OUT = 512  # characters; of longer texts too few hold nothing at all to ask first

Look = Callable[[TextViewSet], bool]


class Hit:
    """A match of a pattern in a view; `start` and `end` are code points of the view (the reported group)."""

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

    def __repr__(self) -> str:
        return f"Hit({self.pattern.id!r}, {self.view.name!r}, {self.start}, {self.end})"


class Scanner:
    """Finds the patterns of all catalogues in all views, one pass for each view; thread-safe.

    `cache_dir` holds the built automaton from one start to the next; None keeps it in memory only. Patterns
    of the detectors in `on_demand` have an automaton of their own, built when somebody asks for their hits:
    they are for answers, and would slow every look at an input.
    """

    def __init__(
        self,
        catalogues: Sequence[Catalogue],
        *,
        cache_dir: Path | None = None,
        on_demand: Sequence[str] = ON_DEMAND,
    ) -> None:
        self.catalogues = tuple(catalogues)
        self.patterns: tuple[Pattern, ...] = tuple(p for c in self.catalogues for p in c.patterns)
        self.digest: Digest = digest([c.digest for c in self.catalogues])
        self.cache_dir = cache_dir
        self._on_demand = frozenset(on_demand)
        own = [p for p in self.patterns if p.detector not in self._on_demand]
        self._main = _Matcher(own, cache_dir)
        self._prefilter = Prefilter(own, DiskCache(cache_dir))
        self.untold = self._prefilter.untold | self._on_demand
        self._rules_out = self.rules_out
        self._others: dict[str, _Matcher] = {}
        self._lock = Lock()

    def shared_look(self, detector: str) -> Look | None:
        """The one `rules_out` of all detectors that report no more than hits; None where it does not hold."""
        return None if detector in self._on_demand else self._rules_out

    def rules_out(self, view_set: TextViewSet) -> bool:
        """Whether there are for certain no hits in a text, nor in any part of it.

        Told of ASCII, and of long texts only where their `prospect` is known. The text has then one reading
        and no signals. Nothing is told of the detectors that are on demand.
        """
        ruled = view_set.ruled_out
        if ruled is None or ruled[0] is not self:
            is_out = self._holds_nothing(view_set.raw) and view_set.take_as_plain()
            ruled = view_set.ruled_out = self, is_out
        return ruled[1]

    def _holds_nothing(self, raw: TextView) -> bool:
        if self._main.reads_segments or not raw.text.isascii():
            return False
        seen = raw.prospect
        if seen is not None and seen[0] is self:
            return seen[1] is NOTHING
        is_nothing = len(raw.text) <= _RULED_OUT and self._prefilter.finds_nothing(raw.data)
        if is_nothing:
            raw.prospect = self, NOTHING
        return is_nothing

    def prospect(self, view: TextView) -> Prospect:
        """What may be in a reading or in any part of it; looked for once.

        Of the detectors in `untold` it tells nothing of parts, of those on demand nothing at all.
        """
        seen = view.prospect
        if seen is None or seen[0] is not self:
            seen = view.prospect = self, self._prefilter.look(view.data, is_ascii=view.text.isascii())
        found: Prospect = seen[1]
        return found

    def hits(self, view_set: TextViewSet) -> tuple[Hit, ...]:
        """All matches that pass their validator, by position in the original; made once for each `ViewSet`.

        A match is looked for in the views that its pattern names. After a match that its validator refuses,
        the search goes on one character later, so that a false start hides nothing. Patterns of detectors
        that are on demand are left out; see `hits_for`.
        """
        if self.rules_out(view_set):
            return ()
        found: tuple[Hit, ...] | None = view_set.memo.get(self._main.key)
        return self._main.hits(view_set) if found is None else found

    def look_ahead(self, view_sets: Iterable[TextViewSet]) -> None:
        """Look at many texts in a row before their hits are asked for, while the tables are at hand."""
        for view_set in view_sets:
            if not self.rules_out(view_set):
                self._main.look_ahead(view_set)

    def hits_for(self, view_set: TextViewSet, detector: str) -> tuple[Hit, ...]:
        """The matches of the patterns whose id begins with `detector.` (`pii`, `secrets`, ...)."""
        if detector in self._on_demand:
            return self._other(detector).hits(view_set)
        hits = self.hits(view_set)
        return tuple(hit for hit in hits if hit.pattern.detector == detector) if hits else ()

    def patterns_for(self, detector: str) -> tuple[Pattern, ...]:
        """The patterns whose id begins with `detector.`."""
        return tuple(pattern for pattern in self.patterns if pattern.detector == detector)

    def digest_for(self, detector: str) -> Digest:
        """The identity of one detector's patterns: the data part of its version."""
        return digest(self.patterns_for(detector))

    def prepare(self, detector: str) -> None:
        """Build now what the first look for a detector's patterns would build: seconds, once on a machine."""
        if detector in self._on_demand:
            self._other(detector)

    def _other(self, detector: str) -> _Matcher:
        with self._lock:
            found = self._others.get(detector)
            if found is None:
                found = self._others[detector] = _Matcher(self.patterns_for(detector), self.cache_dir)
            return found


class _Matcher:
    """Some patterns with their automaton."""

    def __init__(self, patterns: Sequence[Pattern], cache_dir: Path | None) -> None:
        self._patterns = tuple(patterns)
        self._automaton = Automaton(self._patterns, DiskCache(cache_dir))
        self._finders = tuple(PlaceFinder(pattern) for pattern in self._patterns)
        self.reads_segments = any("segment" in pattern.views for pattern in self._patterns)
        self.key = f"scan:{next(_NUMBERS)}"

    def hits(self, view_set: TextViewSet) -> tuple[Hit, ...]:
        found: tuple[Hit, ...] | None = view_set.memo.get(self.key)
        if found is None:
            found = view_set.memo[self.key] = self._scan(view_set)
        return found

    def look_ahead(self, view_set: TextViewSet) -> None:
        self._automaton.look_at(view_set.raw)

    def _scan(self, view_set: TextViewSet) -> tuple[Hit, ...]:
        sighting = self._automaton.look_at(view_set.raw)
        view_set.offer_triggers(sighting.triggers)
        found = list(self._places(sighting.patterns, view_set.raw, view_set)) if sighting.patterns else []
        others = view_set.readings[1:]
        for view in (*others, *view_set.segments) if self.reads_segments else others:
            patterns = self._automaton.look_at(view).patterns
            if patterns:
                found.extend(self._places(patterns, view, view_set))
        if len(found) > 1:
            found.sort(key=lambda hit: (*hit.original, hit.pattern.id))
        return tuple(found)

    def _places(self, indices: Iterable[int], view: TextView, view_set: TextViewSet) -> Iterator[Hit]:
        for index in indices:
            pattern = self._patterns[index]
            if view.family not in pattern.views or (view_set.goes_on and view.family == _SPACED):
                continue
            spans, is_complete = self._finders[index].find(view.data)
            for start, end in spans:
                yield Hit(pattern, view, view.character(start), view.character(end))
            if not is_complete:
                start, end = view.to_original(0, len(view.text))
                view_set.note(Notice(MATCH_LIMIT, start, end))


@lru_cache(maxsize=1)
def packaged_scanner() -> Scanner:
    """The scanner of all packaged catalogues, cached under `~/.cache/stanchion`."""
    folder = default_cache_dir()
    return Scanner(packaged_catalogues(cache_dir=folder), cache_dir=folder)
