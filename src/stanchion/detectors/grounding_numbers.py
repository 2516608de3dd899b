"""Numbers as people write them: grouped digits, magnitudes, words of seven languages, units, currencies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from stanchion.detectors.grounding_lexicon import NumberWords, lexicon

_MARKER = re.compile(r"^[ \t]*(?:\d{1,3}[.)]|[-*+])[ \t]", re.MULTILINE)
_NUMBER = re.compile(r"(?a:\d(?:[\d,.'\u00a0\u202f ]*\d)?)")
_WORD = re.compile(r"[^\W\d_]+")
_AFTER = re.compile(
    r"(?:[ \u00a0\u202f]|[-\u2010\u2011](?=[^\W\d_]))?(%|[$\u20ac\u00a3\u00a5\u20b9]|[^\W\d_]+)"
)
_BEFORE = re.compile(r"([$\u20ac\u00a3\u00a5\u20b9]|\b(?:USD|EUR|GBP|JPY|INR|CHF))[ \u00a0]?$")
_JOINTS = re.compile(r"[ \u00a0-]{1,2}")
_LONGEST_COMPOUND = 40
_LONGEST_RUN = 24  # words of one number


class Quantity(NamedTuple):
    """What is counted (`time`, `USD`, `percent`, ...), in the dimension's base unit."""

    dimension: str
    value: float


class Written(NamedTuple):
    """A number where it stands: all values it may have, and the quantities when a unit is there."""

    start: int
    end: int
    values: frozenset[float]
    quantities: frozenset[Quantity]


def digits_in(text: str) -> Iterator[Written]:
    """Numbers written in digits; a list's markers come with no value."""
    markers = {m.start() + len(m.group()) - len(m.group().lstrip()) for m in _MARKER.finditer(text)}
    for match in _NUMBER.finditer(text):
        if match.start() in markers:
            yield Written(match.start(), match.end(), frozenset(), frozenset())
            continue
        for start, end in _pieces(match.group(), match.start()):
            values = frozenset(_values(text[start:end]))
            if values:
                yield _with_unit(text, Written(start, end, values, frozenset()))


def words_in(text: str, language: str) -> Iterator[Written]:
    """Numbers written in words of English or of the language."""
    tables = [lexicon().numbers["en"]]
    if language != "en" and language in lexicon().numbers:
        tables.insert(0, lexicon().numbers[language])
    for table in tables:
        for run in _runs(text, table):
            value = _value_of([word for word, _, _ in run], table)
            if value is not None:
                yield _with_unit(text, Written(run[0][1], run[-1][2], frozenset({value}), frozenset()))


def _with_unit(text: str, number: Written) -> Written:
    """The number with its magnitude taken in, and what it counts."""
    values, end = number.values, number.end
    readings: set[Quantity] = set()
    match = _AFTER.match(text, end)
    word = match[1].casefold() if match else ""
    factor = lexicon().magnitudes.get(word) if match and match.start(1) == end else None
    scale = next((t.scale[word] for t in lexicon().numbers.values() if word in t.scale), None)
    if match and scale is not None and word not in ("cent", "cents"):
        values, end = frozenset(value * scale for value in values), match.end()
        match = _AFTER.match(text, end)
        word = match[1].casefold() if match else ""
    unit = lexicon().units.get(word) or lexicon().units.get(word.removesuffix("s"))
    before = _BEFORE.search(text, max(0, number.start - 5), number.start)
    if before:
        unit = lexicon().units.get(before[1].casefold(), unit)
    if unit is not None:
        readings = {Quantity(unit[0], round(value * unit[1], 6)) for value in values}
    if factor is not None:
        values = values | {value * factor for value in values}
        readings |= {Quantity(q.dimension, round(q.value * factor, 6)) for q in readings if before}
    return Written(number.start, end, values, frozenset(readings))


def _pieces(written: str, start: int) -> Iterator[tuple[int, int]]:
    """One number, or several: blanks and odd groups part them (`1 234` is one, `10 20` two, `1, 2` two)."""
    blank = next((mark for mark in "\u202f\u00a0 " if mark in written), "")
    is_one = not blank or _is_grouped(written, blank)
    if is_one and ", " not in written and ". " not in written:
        yield start, start + len(written)
        return
    at = 0
    for piece in re.split("[\u202f\u00a0 ]", written):
        core = piece.rstrip(",.'")
        if core:
            yield start + at, start + at + len(core)
        at += len(piece) + 1


def _is_grouped(written: str, mark: str) -> bool:
    head, *groups = written.split(mark)
    return 1 <= len(head) <= 3 and all(len(g.split(".")[0].split(",")[0]) == 3 for g in groups)


def _values(written: str) -> Iterator[float]:
    """Every value that the digits may stand for, with point or comma as the decimal mark."""
    plain = re.sub("['\u00a0\u202f ]", "", written)
    if len(plain) > 30:
        return
    for decimal, group in ((".", ","), (",", ".")):
        whole, *rest = plain.split(decimal)
        groups = whole.split(group)
        if len(rest) > 1 or (len(groups) > 1 and any(len(g) != 3 for g in groups[1:])):
            continue
        digits = "".join(groups)
        if digits.isdecimal() and (not rest or rest[0].isdecimal()):
            yield float(f"{digits}.{rest[0]}" if rest else digits)


_Part = tuple[str, int, int]


def _runs(text: str, table: NumberWords) -> Iterator[list[_Part]]:
    """Neighbouring number words, each with its span; a joint (`and`) only between two of them."""
    known = table.all
    run: list[_Part] = []
    for match in _WORD.finditer(text):
        word = match.group().casefold()
        joined = bool(run) and bool(_JOINTS.fullmatch(text, run[-1][2], match.start()))
        if word not in known and word != table.joint and _compound(word, table) is None:
            if run:
                yield _trimmed(run, table)
            run = []
            continue
        if run and (not joined or len(run) >= _LONGEST_RUN):
            yield _trimmed(run, table)
            run = []
        if run and run[0][0] in table.weak and len(run) == 1 and word not in table.scale:
            if run[0][0] == "one":
                yield run
            run = []
        if run or word != table.joint:
            run.append((word, match.start(), match.end()))
    if run:
        yield _trimmed(run, table)


def _trimmed(run: list[_Part], table: NumberWords) -> list[_Part]:
    while len(run) > 1 and run[-1][0] == table.joint:
        run = run[:-1]
    return run


def _compound(word: str, table: NumberWords) -> list[str] | None:
    """The number words that a compound (`zweitausenddreihundert`) is made of, or None."""
    if len(word) < 7 or len(word) > _LONGEST_COMPOUND or table.joint == "and":
        return None
    known = {**table.units, **table.weak, **table.scale, table.joint: 0.0}
    parts: list[str] = []
    rest = word
    while rest:
        head = next((rest[:n] for n in range(min(14, len(rest)), 1, -1) if rest[:n] in known), None)
        if head is None:
            return None
        parts.append(head)
        rest = rest[len(head) :]
    return parts if len(parts) > 1 else None


def _value_of(words: list[str], table: NumberWords) -> float | None:
    """The value of a run of number words; None when it is too weak to be a number (`one`, `a`, `million`)."""
    parts: list[str] = []
    for word in words:
        parts += [word] if word in table.all or word == table.joint else _compound(word, table) or []
    counted = [part for part in parts if part != table.joint]
    if counted == ["one"]:
        return 1.0
    if not counted or all(part in table.weak for part in counted):
        return None
    if all(part in table.scale for part in counted) and (table.joint == "and" or len(counted) > 1):
        return None
    total, current, before = 0.0, 0.0, ""
    for part in counted:
        value = table.all[part]
        if part in table.scale:
            if value >= 1000:
                total, current = total + max(current, 1.0) * value, 0.0
            else:
                current = max(current, 1.0) * value
        elif before == "quatre" and part == "vingt":
            current += 76.0
        elif value >= 10 and 10 <= current < 100 and table.joint == "and":
            current = current * 100 + value  # nineteen ninety-seven
        else:
            current += value
        before = part
    return total + current
