"""The Hyperscan database: built once, kept on disk by what it was built from, used by every thread."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from typing import Any

import msgspec

from stanchion.detectors.bytefilter import needs_high
from stanchion.detectors.cache import DiskCache
from stanchion.detectors.expressions import hyperscan_flags, translate
from stanchion.detectors.patterns import Pattern
from stanchion.detectors.transforms.scratch import ThreadScratch
from stanchion.detectors.transforms.triggers import EXPRESSIONS, Trigger

_LAYOUT = 5  # raise it when ids or flags are given out differently


class Sighting(msgspec.Struct, frozen=True):
    """What occurs in a text: indices of patterns, in no order, and the triggers."""

    patterns: tuple[int, ...]
    triggers: Trigger


NOTHING = Sighting((), Trigger.NONE)


class Automaton:
    """Says which patterns and which triggers occur in a text, in one pass.

    Patterns of which every match holds a character beyond ASCII have a database of their own, so that ASCII
    text does not pay for them.
    """

    def __init__(self, patterns: Sequence[Pattern], cache: DiskCache) -> None:
        self._count = len(patterns)
        self._bits = tuple(bit for bit, _ in EXPRESSIONS)
        databases = _load_or_build(patterns, cache)
        self._scans = tuple((database.scan, ThreadScratch(database)) for database in databases)

    def look(self, data: bytes, *, is_ascii: bool = False) -> Sighting:
        """What occurs in a text; any bytes will do, and `is_ascii` may say that they are all below 128."""
        found: list[int] = []
        scan, scratch = self._scans[0]
        scan(data, _note, 0, found, scratch.get())
        if not is_ascii and len(self._scans) > 1:
            scan, scratch = self._scans[1]
            scan(data, _note, 0, found, scratch.get())
        if not found:
            return NOTHING
        value = 0
        for index in found:
            if index >= self._count:
                value |= self._bits[index - self._count]
        return Sighting(tuple(i for i in found if i < self._count), Trigger(value))


def _note(index: int, _start: int, _end: int, _flags: int, found: list[int]) -> None:
    found.append(index)


def _load_or_build(patterns: Sequence[Pattern], cache: DiskCache) -> list[Any]:
    import hyperscan

    name = f"automaton-{_identity(patterns)}.hs"
    stored = cache.read(name)
    if stored is not None:
        try:
            parts = msgspec.msgpack.decode(stored, type=list[bytes])
            return [hyperscan.loadb(part, hyperscan.HS_MODE_BLOCK) for part in parts]
        except (hyperscan.error, msgspec.DecodeError):
            pass  # built by another version or for another processor: build it here
    databases = _build(patterns)
    cache.write(name, msgspec.msgpack.encode([hyperscan.dumpb(database) for database in databases]))
    return databases


def _build(patterns: Sequence[Pattern]) -> list[Any]:
    """The database for any text, and the one for text beyond ASCII where there is a need.

    The id of a pattern is its index; triggers come after all patterns.
    """
    import hyperscan

    entries: list[_Entry] = []
    high: list[_Entry] = []
    for index, pattern in enumerate(patterns):
        made = translate(pattern.pattern, pattern.flags)
        entry = (made.hyperscan, index, hyperscan_flags(made, pattern.flags))
        (high if needs_high(pattern.pattern, pattern.flags) else entries).append(entry)
    for offset, (_, expression) in enumerate(EXPRESSIONS):
        entries.append((expression, len(patterns) + offset, hyperscan.HS_FLAG_SINGLEMATCH))
    return [_compiled(part) for part in (entries, high) if part]


_Entry = tuple[bytes, int, int]


def _compiled(entries: Sequence[_Entry]) -> Any:
    import hyperscan

    expressions, ids, flags = zip(*entries, strict=True)
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    database.compile(expressions=list(expressions), ids=list(ids), elements=len(ids), flags=list(flags))
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
