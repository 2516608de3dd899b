"""The one Hyperscan database: built once, kept on disk by what it was built from, used by every thread."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from typing import Any

import msgspec

from stanchion.detectors.cache import DiskCache
from stanchion.detectors.expressions import hyperscan_flags, translate
from stanchion.detectors.patterns import Pattern
from stanchion.detectors.transforms.scratch import ThreadScratch
from stanchion.detectors.transforms.triggers import EXPRESSIONS, Trigger

_LAYOUT = 4  # raise it when ids or flags are given out differently


class Sighting(msgspec.Struct, frozen=True):
    """What occurs in a text: indices of patterns, in no order, and the triggers."""

    patterns: tuple[int, ...]
    triggers: Trigger


NOTHING = Sighting((), Trigger.NONE)


class Automaton:
    """Says which patterns and which triggers occur in a text, in one pass."""

    def __init__(self, patterns: Sequence[Pattern], cache: DiskCache) -> None:
        self._count = len(patterns)
        self._bits = tuple(bit for bit, _ in EXPRESSIONS)
        self._database = _load_or_build(patterns, cache)
        self._scan = self._database.scan
        self._scratch = ThreadScratch(self._database)

    def look(self, data: bytes) -> Sighting:
        """What occurs in a text; any bytes will do."""
        found: list[int] = []
        self._scan(data, _note, 0, found, self._scratch.get())
        if not found:
            return NOTHING
        value = 0
        for index in found:
            if index >= self._count:
                value |= self._bits[index - self._count]
        return Sighting(tuple(i for i in found if i < self._count), Trigger(value))


def _note(index: int, _start: int, _end: int, _flags: int, found: list[int]) -> None:
    found.append(index)


def _load_or_build(patterns: Sequence[Pattern], cache: DiskCache) -> Any:
    import hyperscan

    name = f"automaton-{_identity(patterns)}.hs"
    stored = cache.read(name)
    if stored is not None:
        try:
            return hyperscan.loadb(stored, hyperscan.HS_MODE_BLOCK)
        except hyperscan.error:
            pass  # built by another version or for another processor: build it here
    database = _build(patterns)
    cache.write(name, hyperscan.dumpb(database))
    return database


def _build(patterns: Sequence[Pattern]) -> Any:
    """The database; the id of a pattern is its index, triggers come after all patterns."""
    import hyperscan

    made = [(translate(p.pattern, p.flags), p.flags) for p in patterns]
    expressions = [one.hyperscan for one, _ in made] + [expression for _, expression in EXPRESSIONS]
    flags = [hyperscan_flags(*pair) for pair in made] + [hyperscan.HS_FLAG_SINGLEMATCH] * len(EXPRESSIONS)
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    database.compile(
        expressions=expressions, ids=list(range(len(expressions))), elements=len(expressions), flags=flags
    )
    return database


def _identity(patterns: Sequence[Pattern]) -> str:
    """What the database depends on: expressions, flags, engine, processor."""
    import hyperscan

    engine = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    engine.compile(expressions=[b"a"], ids=[0], elements=1, flags=[0])
    parts = [
        _LAYOUT,
        str(engine.info()),
        platform.machine(),
        [(p.pattern, p.flags) for p in patterns],
        [(bit.value, pattern) for bit, pattern in EXPRESSIONS],
    ]
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:40]
