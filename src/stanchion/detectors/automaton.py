"""The Hyperscan database: built once, kept on disk by what it was built from, used by every thread."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import msgspec

from stanchion.detectors.cache import DiskCache
from stanchion.detectors.expressions import hyperscan_flags, translate
from stanchion.detectors.literals import Words, as_expression, required_literals, shortest
from stanchion.detectors.needs import needed_run, needs_high, needs_one_of
from stanchion.detectors.patterns import Pattern
from stanchion.detectors.transforms.reading import TextView
from stanchion.detectors.transforms.scratch import ThreadScratch
from stanchion.detectors.transforms.triggers import (
    GROUPS,
    RUN,
    RUN_CHARACTERS,
    Signs,
    Trigger,
    build_databases,
    trigger_finder,
)

_LAYOUT = 10  # raise it when ids, flags or expressions are made differently
# What every match of a part's patterns holds; a part's name is all of it, joined by `+`.
HIGH, LONG_RUN, DIGIT, _VALUE, _LISTED = "high", "run", "digit", "value", "listed"
_CHARACTERS = {DIGIT: "0123456789", _VALUE: ":=", _LISTED: ":=,"}
_BITS = {HIGH: 1, LONG_RUN: 2, DIGIT: 4, _VALUE: 8, _LISTED: 16}
_LONG, _WORDED = "long", "worded"
_SHORT, _SHORT_BYTES = "short", 768  # below, one database of all that is always looked for is faster
_ENOUGH = 8  # patterns for a database of their own, where there is a choice
_WORD = 1 << 24  # the id of a word that some patterns need


class Sighting(msgspec.Struct, frozen=True):
    """What occurs in a text: indices of patterns, in no order, and the triggers."""

    patterns: tuple[int, ...]
    triggers: Trigger


NOTHING = Sighting((), Trigger.NONE)
_Scan = tuple[Any, ThreadScratch]


class Automaton:
    """Says which patterns and which triggers occur in a text.

    Patterns are kept in several databases by what every match of them holds: a character beyond ASCII, a long
    run of letters and digits, a digit, a sign that gives a value (`:` or `=`), such a sign or a comma, or two
    of these. A text pays only for what it could match. What needs nothing of these is one database for
    short texts; in long ones, what needs one of some hundred words is looked for where one of them occurs.
    """

    def __init__(self, patterns: Sequence[Pattern], cache: DiskCache) -> None:
        parts, triggers = _load_or_build(patterns, cache)
        self._triggers = trigger_finder(triggers)
        scans = {part: (database.scan, ThreadScratch(database)) for part, database in parts.items()}
        self._short, self._long = scans.pop(_SHORT, None), scans.pop(_LONG, None)
        self._worded = scans.pop(_WORDED, None)
        self._gated = tuple(
            (sum(map(_BITS.__getitem__, part.split("+"))), scan) for part, scan in scans.items()
        )
        self._by_signs: dict[int, tuple[_Scan, ...]] = {}

    def look(self, data: bytes, *, is_ascii: bool = False) -> Sighting:
        """What occurs in a text; any bytes will do, and `is_ascii` may say that they are all below 128."""
        return self._sighting(data, self._triggers.find(data), is_ascii=is_ascii)

    def look_at(self, view: TextView) -> Sighting:
        """What occurs in a reading, whose triggers may be known from making the next one; looked for once."""
        seen = view.sighting
        if seen is None or seen[0] is not self:
            seen = view.sighting = self, self._sighting(view.data, view.signs, is_ascii=view.text.isascii())
        found: Sighting = seen[1]
        return found

    def _sighting(self, data: bytes, signs: Signs, *, is_ascii: bool) -> Sighting:
        found: list[int] = []
        if len(data) >= _SHORT_BYTES:
            self._find_in_long(data, found)
        elif self._short is not None:
            scan, scratch = self._short
            scan(data, _note, 0, found, scratch.own)
        bits = _bits(data, signs, is_ascii=is_ascii)
        if bits:
            for scan, scratch in self._by_signs.get(bits) or self._parts_for(bits):
                scan(data, _note, 0, found, scratch.own)
        return Sighting(tuple(found), signs.triggers) if found or signs.triggers else NOTHING

    def _parts_for(self, bits: int) -> tuple[_Scan, ...]:
        """The databases of what needs nothing but what a text has."""
        self._by_signs[bits] = found = tuple(scan for needed, scan in self._gated if not needed & ~bits)
        return found

    def _find_in_long(self, data: bytes, found: list[int]) -> None:
        if self._long is not None:
            scan, scratch = self._long
            scan(data, _note, 0, found, scratch.own)
        if found and self._worded is not None and _WORD in found:
            found[:] = (index for index in found if index != _WORD)
            scan, scratch = self._worded
            scan(data, _note, 0, found, scratch.own)


def _bits(data: bytes, signs: Signs, *, is_ascii: bool) -> int:
    """What a text has of what patterns need, as a sum of `_BITS`."""
    bits = 0 if is_ascii else _BITS[HIGH]
    if signs.has_run:
        bits |= _BITS[LONG_RUN]
    if signs.has_digit:
        bits |= _BITS[DIGIT]
    if b":" in data or b"=" in data:
        bits |= _BITS[_VALUE] | _BITS[_LISTED]
    elif b"," in data:
        bits |= _BITS[_LISTED]
    return bits


def _note(index: int, _start: int, _end: int, _flags: int, found: list[int]) -> None:
    found.append(index)


_Databases = tuple[dict[str, Any], Sequence[Any]]
Entry = tuple[bytes, int, int]


def _load_or_build(patterns: Sequence[Pattern], cache: DiskCache) -> _Databases:
    """The databases of the parts, and those of the triggers."""
    import hyperscan

    name = f"automaton-{identity(patterns)}.hs"
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
    words: dict[int, Words] = {}
    for index, pattern in enumerate(patterns):
        part = part_of(pattern)
        if part == _LONG:
            needed = required_literals(pattern.pattern, pattern.flags)
            if needed is not None:
                part, words[index] = _WORDED, needed
        parts.setdefault(part, []).append(index)
    if len(words) < _ENOUGH and words:
        parts.setdefault(_LONG, []).extend(parts.pop(_WORDED))
    everything = [*parts.get(_LONG, ()), *parts.get(_WORDED, ())]
    if everything:
        parts[_SHORT] = everything
    made = {part: [_entry(patterns[i], i) for i in found] for part, found in parts.items()}
    if _WORDED in parts:
        made.setdefault(_LONG, []).extend(_word_entries(words.values()))
    return {part: compiled(entries) for part, entries in made.items()}


def _entry(pattern: Pattern, index: int) -> Entry:
    made = translate(pattern.pattern, pattern.flags)
    return made.hyperscan, index, hyperscan_flags(made, pattern.flags)


def _word_entries(needed: Iterable[Words]) -> list[Entry]:
    """All words under one id: the first that is found ends the look for them."""
    import hyperscan

    every = list(needed)
    entries = []
    for caseless, flag in ((True, hyperscan.HS_FLAG_CASELESS), (False, 0)):
        words = frozenset().union(*(some.words for some in every if some.caseless is caseless))
        flags = hyperscan.HS_FLAG_SINGLEMATCH | flag
        entries += [(as_expression(word), _WORD, flags) for word in shortest(words)]
    return entries


def part_of(pattern: Pattern) -> str:
    """What every match of a pattern needs, of the rare things first."""
    expression, flags = pattern.pattern, pattern.flags
    if needs_high(expression, flags):
        return HIGH
    needed = [LONG_RUN] if needed_run(expression, flags, RUN_CHARACTERS) >= RUN else []
    has = (part for part, characters in _CHARACTERS.items() if needs_one_of(expression, flags, characters))
    return "+".join([*needed, *islice(has, 1)]) or _LONG


def compiled(entries: Sequence[Entry]) -> Any:
    """The database of some expressions, each with its id and the engine's flags."""
    import hyperscan

    expressions, ids, flags = zip(*entries, strict=True)
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    database.compile(expressions=list(expressions), ids=list(ids), elements=len(ids), flags=list(flags))
    return database


def identity(patterns: Sequence[Pattern]) -> str:
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
