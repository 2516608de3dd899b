"""The Hyperscan database: built once, kept on disk by what it was built from, used by every thread."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from stanchion.detectors.bytefilter import needs_high, needs_one_of
from stanchion.detectors.cache import DiskCache
from stanchion.detectors.expressions import hyperscan_flags, translate
from stanchion.detectors.literals import as_expression, required_literals, shortest
from stanchion.detectors.patterns import Pattern
from stanchion.detectors.transforms.reading import TextView
from stanchion.detectors.transforms.scratch import ThreadScratch
from stanchion.detectors.transforms.triggers import GROUPS, Trigger, build_databases, trigger_finder

_LAYOUT = 8  # raise it when ids or flags are given out differently
_ALWAYS, _HIGH, _DIGIT, _VALUE, _WORDED, _WORDS = "always", "high", "digit", "value", "worded", "words"
_SHORT, _SHORT_BYTES = "short", 768  # below, one database of all that is always looked for is faster
_ENOUGH = 8  # patterns for a database of their own, where there is a choice


class Sighting(msgspec.Struct, frozen=True):
    """What occurs in a text: indices of patterns, in no order, and the triggers."""

    patterns: tuple[int, ...]
    triggers: Trigger


NOTHING = Sighting((), Trigger.NONE)


class Automaton:
    """Says which patterns and which triggers occur in a text.

    Patterns are kept in several databases by what every match of them must hold: a character beyond ASCII, a
    digit, a sign that gives a value (`:` or `=`), one of some hundred words, nothing of these. A text pays
    only for what it could match. What has no such need is one database for short texts; in long ones several
    small databases are faster together.
    """

    def __init__(self, patterns: Sequence[Pattern], cache: DiskCache) -> None:
        parts, triggers = _load_or_build(patterns, cache)
        self._triggers = trigger_finder(triggers)
        scans = {part: (database.scan, ThreadScratch(database)) for part, database in parts.items()}
        self._always = tuple(scan for part, scan in scans.items() if part.startswith(_ALWAYS))
        self._short, self._high = scans.get(_SHORT), scans.get(_HIGH)
        self._digit, self._value = scans.get(_DIGIT), scans.get(_VALUE)
        self._words, self._worded = scans.get(_WORDS), scans.get(_WORDED)

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
        if len(data) >= _SHORT_BYTES:
            self._find_in_long(data, found)
        elif self._short is not None:
            scan, scratch = self._short
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

    def _find_in_long(self, data: bytes, found: list[int]) -> None:
        for scan, scratch in self._always:
            scan(data, _note, 0, found, scratch.get())
        if self._words is not None and self._worded is not None:
            words: list[int] = []
            scan, scratch = self._words
            scan(data, _note, 0, words, scratch.get())
            if words:
                scan, scratch = self._worded
                scan(data, _note, 0, found, scratch.get())


def _note(index: int, _start: int, _end: int, _flags: int, found: list[int]) -> None:
    found.append(index)


_Databases = tuple[dict[str, Any], Sequence[Any]]
_Entry = tuple[bytes, int, int]


def _load_or_build(patterns: Sequence[Pattern], cache: DiskCache) -> _Databases:
    """The databases of the parts, and those of the triggers."""
    import hyperscan

    name = f"automaton-{_identity(patterns)}.hs"
    stored = cache.read(name)
    if stored is not None:
        try:
            found, triggers = msgspec.msgpack.decode(stored, type=tuple[dict[str, bytes], list[bytes]])
            load = hyperscan.loadb
            parts = {part: load(data, hyperscan.HS_MODE_BLOCK) for part, data in found.items()}
            return parts, [load(data, hyperscan.HS_MODE_BLOCK) for data in triggers]
        except (msgspec.MsgspecError, hyperscan.error):
            pass  # written by another version or for another processor: build it here
    parts, others = _build(patterns), build_databases()
    dumped = {part: hyperscan.dumpb(database) for part, database in parts.items()}
    cache.write(name, msgspec.msgpack.encode((dumped, [hyperscan.dumpb(each) for each in others])))
    return parts, others


def _build(patterns: Sequence[Pattern]) -> dict[str, Any]:
    """A database for each part that has patterns; the id of a pattern is its index."""
    parts: dict[str, list[int]] = {}
    words: dict[int, frozenset[str]] = {}
    for index, pattern in enumerate(patterns):
        part = _part_of(pattern)
        if part == _ALWAYS:
            needed = required_literals(pattern.pattern, pattern.flags)
            if needed is not None and "caseless" in pattern.flags:
                part, words[index] = _WORDED, needed
        parts.setdefault(part, []).append(index)
    if len(words) < _ENOUGH and words:
        parts.setdefault(_ALWAYS, []).extend(parts.pop(_WORDED))
    everything = [*parts.get(_ALWAYS, ()), *parts.get(_WORDED, ())]
    parts = dict(_by_detector(parts, patterns))
    if everything:
        parts[_SHORT] = everything
    made = {part: _compiled([_entry(patterns[i], i) for i in found]) for part, found in parts.items()}
    if _WORDED in parts:
        made[_WORDS] = _compiled(_word_entries(words.values()))
    return made


def _by_detector(parts: dict[str, list[int]], patterns: Sequence[Pattern]) -> Iterator[tuple[str, list[int]]]:
    """The parts; what is always looked for is split by detector, since unlike patterns slow each other."""
    for part, indices in parts.items():
        if part != _ALWAYS:
            yield part, indices
            continue
        groups: dict[str, list[int]] = {}
        for index in indices:
            groups.setdefault(patterns[index].detector, []).append(index)
        small = [index for group in groups.values() if len(group) < _ENOUGH for index in group]
        if small:
            yield _ALWAYS, small
        yield from ((f"{_ALWAYS}:{name}", group) for name, group in groups.items() if len(group) >= _ENOUGH)


def _entry(pattern: Pattern, index: int) -> _Entry:
    made = translate(pattern.pattern, pattern.flags)
    return made.hyperscan, index, hyperscan_flags(made, pattern.flags)


def _word_entries(needed: Iterable[frozenset[str]]) -> list[_Entry]:
    """All words under one id, in any case: the first that is found ends the look."""
    import hyperscan

    flags = hyperscan.HS_FLAG_SINGLEMATCH | hyperscan.HS_FLAG_CASELESS
    return [(as_expression(word), 0, flags) for word in shortest(frozenset().union(*needed))]


def _part_of(pattern: Pattern) -> str:
    if needs_high(pattern.pattern, pattern.flags):
        return _HIGH
    if needs_one_of(pattern.pattern, pattern.flags, "0123456789"):
        return _DIGIT
    return _VALUE if needs_one_of(pattern.pattern, pattern.flags, ":=") else _ALWAYS


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
