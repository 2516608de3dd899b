"""The Hyperscan database: built once, kept on disk by what it was built from, used by every thread."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from stanchion.detectors.bytefilter import needs_high, needs_one_of
from stanchion.detectors.cache import DiskCache
from stanchion.detectors.expressions import hyperscan_flags, translate
from stanchion.detectors.patterns import Pattern
from stanchion.detectors.transforms.reading import TextView
from stanchion.detectors.transforms.scratch import ThreadScratch
from stanchion.detectors.transforms.triggers import GROUPS, Trigger, build_databases, trigger_finder

_LAYOUT = 6  # raise it when ids or flags are given out differently


class Sighting(msgspec.Struct, frozen=True):
    """What occurs in a text: indices of patterns, in no order, and the triggers."""

    patterns: tuple[int, ...]
    triggers: Trigger


NOTHING = Sighting((), Trigger.NONE)


class Automaton:
    """Says which patterns and which triggers occur in a text.

    Patterns are kept in several databases by what every match of them must hold: a character beyond ASCII, a
    digit, a sign that gives a value (`:` or `=`), nothing of these. A text pays only for what it could match,
    and the smaller databases are faster together than one of all patterns.
    """

    def __init__(self, patterns: Sequence[Pattern], cache: DiskCache) -> None:
        parts, triggers = _load_or_build(patterns, cache)
        self._triggers = trigger_finder(triggers)
        scans = {part: (database.scan, ThreadScratch(database)) for part, database in parts.items()}
        self._always, self._high = scans.get("always"), scans.get("high")
        self._digit, self._value = scans.get("digit"), scans.get("value")

    def look(self, data: bytes, *, is_ascii: bool = False) -> Sighting:
        """What occurs in a text; any bytes will do, and `is_ascii` may say that they are all below 128."""
        triggers, has_digit = self._triggers.find(data)
        found = self._found(data, is_ascii=is_ascii, has_digit=has_digit)
        return Sighting(tuple(found), triggers) if found or triggers else NOTHING

    def look_at(self, view: TextView) -> Sighting:
        """What occurs in a reading, whose triggers may be known from making the next one."""
        triggers, has_digit = view.signs
        found = self._found(view.data, is_ascii=view.is_ascii, has_digit=has_digit)
        return Sighting(tuple(found), triggers) if found or triggers else NOTHING

    def _found(self, data: bytes, *, is_ascii: bool, has_digit: bool) -> list[int]:
        found: list[int] = []
        if self._always is not None:
            scan, scratch = self._always
            scan(data, _note, 0, found, scratch.get())
        if has_digit and self._digit is not None:
            scan, scratch = self._digit
            scan(data, _note, 0, found, scratch.get())
        if self._value is not None and (b":" in data or b"=" in data):
            scan, scratch = self._value
            scan(data, _note, 0, found, scratch.get())
        if not is_ascii and self._high is not None:
            scan, scratch = self._high
            scan(data, _note, 0, found, scratch.get())
        return found


def _note(index: int, _start: int, _end: int, _flags: int, found: list[int]) -> None:
    found.append(index)


_Part = Literal["always", "high", "digit", "value"]
_Databases = tuple[dict[_Part, Any], Sequence[Any]]


def _load_or_build(patterns: Sequence[Pattern], cache: DiskCache) -> _Databases:
    """The databases of the parts, and those of the triggers."""
    import hyperscan

    name = f"automaton-{_identity(patterns)}.hs"
    stored = cache.read(name)
    if stored is not None:
        try:
            found, triggers = msgspec.msgpack.decode(stored, type=tuple[dict[str, bytes], list[bytes]])
            load = hyperscan.loadb
            parts: Any = {part: load(data, hyperscan.HS_MODE_BLOCK) for part, data in found.items()}
            return parts, [load(data, hyperscan.HS_MODE_BLOCK) for data in triggers]
        except (msgspec.MsgspecError, hyperscan.error):
            pass  # written by another version or for another processor: build it here
    parts, others = _build(patterns), build_databases()
    dumped = {part: hyperscan.dumpb(database) for part, database in parts.items()}
    cache.write(name, msgspec.msgpack.encode((dumped, [hyperscan.dumpb(each) for each in others])))
    return parts, others


def _build(patterns: Sequence[Pattern]) -> dict[_Part, Any]:
    """A database for each part that has patterns; the id of a pattern is its index."""
    entries: dict[_Part, list[_Entry]] = {}
    for index, pattern in enumerate(patterns):
        made = translate(pattern.pattern, pattern.flags)
        entry = (made.hyperscan, index, hyperscan_flags(made, pattern.flags))
        entries.setdefault(_part_of(pattern), []).append(entry)
    return {part: _compiled(found) for part, found in entries.items()}


def _part_of(pattern: Pattern) -> _Part:
    if needs_high(pattern.pattern, pattern.flags):
        return "high"
    if needs_one_of(pattern.pattern, pattern.flags, "0123456789"):
        return "digit"
    return "value" if needs_one_of(pattern.pattern, pattern.flags, ":=") else "always"


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
        [(int(bit), pattern) for group in GROUPS for bit, pattern in group],
    ]
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:40]
