"""What may stand in a text or in any part of it, wherever it is cut: one look, before any other.

Patterns and triggers stand here without their assertions (the end of a word, of a line, of the text): an
assertion can hold at a cut and not in the whole. What is not found so is in no part of the text, nor in the
whole. Most short texts hold nothing at all, and then nobody looks any further. What needs a character beyond
ASCII, a digit, or a long run of letters and digits is looked for only where there is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from stanchion.detectors.automaton import DIGIT, HIGH, LONG_RUN, Entry, compiled, identity, part_of
from stanchion.detectors.cache import DiskCache
from stanchion.detectors.expressions import expression_in_parts, hyperscan_flags, translate
from stanchion.detectors.patterns import Pattern
from stanchion.detectors.transforms import triggers
from stanchion.detectors.transforms.scratch import ThreadScratch
from stanchion.detectors.transforms.triggers import HAS_DIGIT, HAS_RUN, Trigger, cuts_of

_LAYOUT = 1  # raise it when ids or expressions are made differently
_ALWAYS = "always"
_SIGNS = {HAS_DIGIT: DIGIT, HAS_RUN: LONG_RUN}
_TRIGGER, _BACKWARDS = 1, 2  # ids; those of detectors begin behind them
_FIRST_DETECTOR = 3
_TRIGGERS = {
    _ALWAYS: [expression for group in triggers.ALWAYS for expression in group],
    HIGH: [],
    DIGIT: list(triggers.WITH_DIGITS),
    LONG_RUN: list(triggers.WITH_RUNS),
}


class Prospect(NamedTuple):
    """What may be in a text or in a part of it: matches of detectors' patterns; triggers of decoders.

    `is_triggered` is told of decoders that read forwards, `is_backwards` of words that are written backwards
    in the whole text. `detectors` may be one too many, never one too few.
    """

    detectors: frozenset[str] = frozenset()
    is_triggered: bool = False
    is_backwards: bool = False


NOTHING = Prospect()


class Prefilter:
    """Looks for patterns of several detectors, and for triggers; built once, kept on disk. Thread-safe."""

    def __init__(self, patterns: Sequence[Pattern], cache: DiskCache) -> None:
        databases, detectors, untold = _load_or_build(patterns, cache)
        scans = {name: (database.scan, ThreadScratch(database)) for name, database in databases.items()}
        self._scan, self._scratch = scans[_ALWAYS]
        self._with_high = scans.get(HIGH)
        self._further = tuple((sign, *scans[name]) for sign, name in _SIGNS.items())
        self._detectors = tuple(detectors)
        self.untold = frozenset(untold)

    def look(self, data: bytes, *, is_ascii: bool) -> Prospect:
        """What may be in a text; `NOTHING` itself where there is nothing.

        Of the detectors in `untold` it tells only what may be in the whole text.
        """
        found: list[int] = []
        self._scan(data, _note, 0, found, self._scratch.own)
        if not is_ascii and self._with_high is not None:
            scan, scratch = self._with_high
            scan(data, _note, 0, found, scratch.own)
        return self._prospect(data, found) if found else NOTHING

    def finds_nothing(self, data: bytes) -> bool:
        """Whether `look` gives `NOTHING` for an ASCII text; sooner, where it does not."""
        found: list[int] = []
        self._scan(data, _note, 0, found, self._scratch.own)
        if found and _SIGNS.keys() >= set(found):
            self._look_further(data, found)
        return not found or _SIGNS.keys() >= set(found)

    def _look_further(self, data: bytes, found: list[int]) -> None:
        for sign, scan, scratch in self._further:
            if sign in found:
                scan(data, _note, 0, found, scratch.own)

    def _prospect(self, data: bytes, found: list[int]) -> Prospect:
        self._look_further(data, found)
        seen = set(found).difference(_SIGNS)
        if not seen:
            return NOTHING
        names = self._detectors
        return Prospect(
            frozenset([names[number - _FIRST_DETECTOR] for number in seen if number >= _FIRST_DETECTOR]),
            is_triggered=_TRIGGER in seen,
            is_backwards=_BACKWARDS in seen,
        )


def _note(index: int, _start: int, _end: int, _flags: int, found: list[int]) -> None:
    found.append(index)


_Made = tuple[dict[str, Any], list[str], list[str]]  # databases, detectors, and those that are untold


def _load_or_build(patterns: Sequence[Pattern], cache: DiskCache) -> _Made:
    import hyperscan

    name = f"prefilter-{_LAYOUT}-{identity(patterns)}.hs"
    stored = cache.read(name)
    if stored is not None:
        try:
            dumped, detectors, untold = msgspec.msgpack.decode(
                stored, type=tuple[dict[str, bytes], list[str], list[str]]
            )
            loaded = {part: hyperscan.loadb(data, hyperscan.HS_MODE_BLOCK) for part, data in dumped.items()}
            return loaded, detectors, untold
        except (msgspec.MsgspecError, hyperscan.error):
            pass  # written for another processor: build it here
    made = _build(patterns)
    dumped = {part: hyperscan.dumpb(database) for part, database in made[0].items()}
    cache.write(name, msgspec.msgpack.encode((dumped, *made[1:])))
    return made


def _build(patterns: Sequence[Pattern]) -> _Made:
    """A pattern that cannot be read as a tree is looked for as it stands; its detector is untold."""
    entries = {part: list(_trigger_entries(some)) for part, some in _TRIGGERS.items()}
    detectors = sorted({pattern.detector for pattern in patterns})
    untold: set[str] = set()
    for pattern in patterns:
        expression = translate(pattern.pattern, pattern.flags)
        wider = expression_in_parts(pattern.pattern, pattern.flags)
        if wider is None:
            untold.add(pattern.detector)
        else:
            expression = msgspec.structs.replace(expression, hyperscan=wider, is_utf8=False)
        number = _FIRST_DETECTOR + detectors.index(pattern.detector)
        flags = hyperscan_flags(expression, pattern.flags)
        entries[_part_of(pattern)].append((expression.hyperscan, number, flags))
    databases = {part: compiled(some) for part, some in entries.items() if some}
    return databases, detectors, sorted(untold)


def _part_of(pattern: Pattern) -> str:
    """What a pattern needs, of what decides here."""
    needed = part_of(pattern).split("+")
    return next((part for part in (HIGH, LONG_RUN, DIGIT) if part in needed), _ALWAYS)


def _trigger_entries(expressions: Iterable[tuple[int, bytes]]) -> Iterable[Entry]:
    import hyperscan

    for bit, expression in expressions:
        if bit in _SIGNS:
            yield expression, bit, hyperscan.HS_FLAG_SINGLEMATCH
        elif bit == Trigger.REVERSED:  # text that goes on is not read backwards
            yield expression, _BACKWARDS, hyperscan.HS_FLAG_SINGLEMATCH
        else:
            for one in (expression, *cuts_of(expression)):
                yield one, _TRIGGER, hyperscan.HS_FLAG_SINGLEMATCH
