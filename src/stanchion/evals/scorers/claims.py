"""The checkable claims of a text: numbers, times, dates, names, identifiers, with where they stand.

Deterministic, and honest about its limits: it reads digits, English number words and month names, and
capitalised words. It knows what was said, not whether it is true.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Set
from functools import lru_cache
from typing import Any, NamedTuple

from stanchion.evals.scorers.text import compiled

_MONTHS = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)
_MONTH_NUMBER = {short: number for number, name in enumerate(_MONTHS, 1) for short in (name, name[:3])} | {
    "sept": 9
}
_MONTH = "(?:" + "|".join(sorted(_MONTH_NUMBER, key=len, reverse=True)) + ")"
_ISO = r"\b(\d{4})-(\d{1,2})-(\d{1,2})\b"
_DAY_FIRST = rf"(?i)\b(\d{{1,2}})(?:st|nd|rd|th)?(?:\s+of)?\s+({_MONTH})\b\.?(?:,?\s+(\d{{4}})\b)?"
_MONTH_FIRST = rf"(?i)\b({_MONTH})\b\.?\s+(\d{{1,2}})(?:st|nd|rd|th)?\b(?:,?\s+(\d{{4}})\b)?"
_NUMERIC = r"\b(\d{1,2})[/.](\d{1,2})[/.](\d{4})\b"
_TIME = r"(?i)\b(\d{1,2})(?::(\d{2}))?\s?([ap])\.?m\b|\b([01]?\d|2[0-3]):([0-5]\d)\b"
_MARKER = r"(?m)^[ \t]*(?:\d{1,3}[.)]|[-*+])[ \t]"
_NUMBER = r"\d(?:[\d,.' ]*\d)?"
_IDENTIFIER = r"\b(?:[A-Za-z]+[-_]?\d[A-Za-z0-9_-]*|\d+[-_]?[A-Za-z][A-Za-z0-9_-]*\d[A-Za-z0-9_-]*)\b"
_APOSTROPHES = "'\u2019"
_CAPITAL = rf"\p{{Lu}}[\p{{L}}\p{{M}}{_APOSTROPHES}]*(?:-\p{{L}}+)*"
_NAME = rf"{_CAPITAL}(?:[ ]{_CAPITAL})*"
_TOKEN = rf"[\p{{L}}\p{{M}}\p{{N}}][\p{{L}}\p{{M}}\p{{N}}{_APOSTROPHES}_-]*"
_SMALL_NUMBERS = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety", "hundred")
_WORDS = {word: number for number, word in enumerate(_SMALL_NUMBERS)} | {
    word: 10 * number for number, word in enumerate(_TENS, 2)
}
_NO_NAMES = frozenset(
    {"i", "i'm", "i'll", "i've", "i'd", "ok", "okay", "faq", "am", "pm", "hello", "hi", "dear", "thank"}
    | {"thanks", "yes", "no", "please", "note", "sorry", "english", "mr", "mrs", "ms", "dr"}
    | {"monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"}
    | set(_MONTH_NUMBER)
)
_SENTENCE_END = frozenset('.!?:;\n\r"\u201c(*\u2022#>|-\u2013\u2014')

Date = tuple[int | None, int, int]


class Claim(NamedTuple):
    """One claim: kind (`number`, `date`, `time`, `name`), span in code points, all its readings."""

    kind: str
    start: int
    end: int
    readings: frozenset[Any]


def claims_in(text: str) -> list[Claim]:
    """All claims in order of position; dates are not counted as numbers again."""
    taken = bytearray(len(text))
    found: list[Claim] = []
    for kind in (_dates, _times, _identifiers, _numbers, _number_words, _names):
        for claim in kind(text):
            if not any(taken[claim.start : claim.end]):
                taken[claim.start : claim.end] = b"\1" * (claim.end - claim.start)
                if claim.kind != "skip":
                    found.append(claim)
    return sorted(found, key=lambda claim: claim.start)


class Facts(NamedTuple):
    """What a source says, in the readings that claims are compared with."""

    numbers: frozenset[float]
    dates: frozenset[Date]
    times: frozenset[tuple[int, int]]
    tokens: Set[str]

    def support(self, claim: Claim, *, tolerance: float = 0.0) -> bool:
        """Whether one reading of the claim is said here. Numbers may be off by the relative tolerance."""
        if claim.kind == "number":
            return any(self._has_number(value, tolerance) for value in claim.readings)
        if claim.kind == "date":
            return any(self._has_date(date) for date in claim.readings)
        if claim.kind == "time":
            return bool(claim.readings & self.times)
        return any(all(word in self.tokens for word in words) for words in claim.readings)

    def _has_number(self, value: float, tolerance: float) -> bool:
        if value in self.numbers:
            return True
        return tolerance > 0 and any(abs(value - n) <= tolerance * abs(n) for n in self.numbers)

    def _has_date(self, date: Date) -> bool:
        year, month, day = date
        return any(
            (m, d) == (month, day)
            and (year is None or y == year or (y is None and float(year) in self.numbers))
            for y, m, d in self.dates
        )


@lru_cache(maxsize=256)
def facts_of(text: str) -> Facts:
    """The facts of one source."""
    claims = claims_in(text)
    numbers = {value for c in claims if c.kind == "number" for value in c.readings}
    dates = {date for c in claims if c.kind == "date" for date in c.readings}
    numbers |= {float(part) for date in dates for part in date if part is not None}
    times = {time for c in claims if c.kind == "time" for time in c.readings}
    named = {word for c in claims if c.kind == "name" for words in c.readings for word in words}
    return Facts(frozenset(numbers), frozenset(dates), frozenset(times), named.union(_tokens(text)))


def all_facts(texts: tuple[str, ...]) -> Facts:
    """The facts of several sources together."""
    parts = [facts_of(text) for text in texts]
    empty: frozenset[Any] = frozenset()
    return Facts(
        empty.union(*(p.numbers for p in parts)),
        empty.union(*(p.dates for p in parts)),
        empty.union(*(p.times for p in parts)),
        empty.union(*(p.tokens for p in parts)),
    )


def _tokens(text: str) -> Iterator[str]:
    """Words and identifiers, letters folded; a possessive also without its ending."""
    for match in compiled(_TOKEN).finditer(text):
        word = _folded(match.group())
        yield word
        yield from (part for part in word.split("-") if part != word)


def _folded(word: str) -> str:
    plain = unicodedata.normalize("NFC", word).casefold().replace("\u2019", "'")
    return plain.removesuffix("'s").removesuffix("'")


def _dates(text: str) -> Iterator[Claim]:
    for match in compiled(_ISO).finditer(text):
        yield _date(match, [(int(match[1]), int(match[2]), int(match[3]))])
    for match in compiled(_DAY_FIRST).finditer(text):
        yield _date(match, [(_year(match[3]), _MONTH_NUMBER[match[2].lower()], int(match[1]))])
    for match in compiled(_MONTH_FIRST).finditer(text):
        yield _date(match, [(_year(match[3]), _MONTH_NUMBER[match[1].lower()], int(match[2]))])
    for match in compiled(_NUMERIC).finditer(text):
        a, b, year = int(match[1]), int(match[2]), int(match[3])
        yield _date(match, [(year, a, b), (year, b, a)])


def _date(match: Any, readings: list[Date]) -> Claim:
    real = frozenset(date for date in readings if 1 <= date[1] <= 12 and 1 <= date[2] <= 31)
    return Claim("date" if real else "skip", match.start(), match.end(), real)


def _year(text: str | None) -> int | None:
    return int(text) if text else None


def _times(text: str) -> Iterator[Claim]:
    for match in compiled(_TIME).finditer(text):
        if match[3]:
            hour = int(match[1]) % 12 + (12 if match[3].lower() == "p" else 0)
            minute = int(match[2] or 0)
        else:
            hour, minute = int(match[4]), int(match[5])
        yield Claim("time", match.start(), match.end(), frozenset({(hour, minute)}))


def _identifiers(text: str) -> Iterator[Claim]:
    for match in compiled(_IDENTIFIER).finditer(text):
        yield Claim("name", match.start(), match.end(), frozenset({(_folded(match.group()),)}))


def _numbers(text: str) -> Iterator[Claim]:
    markers = {match.start() + len(match.group()) - len(match.group().lstrip()) for match in _markers(text)}
    for match in compiled(_NUMBER).finditer(text):
        if match.start() in markers:
            yield Claim("skip", match.start(), match.end(), frozenset())
            continue
        for start, end in _pieces(match.group(), match.start()):
            readings = frozenset(_values(text[start:end]))
            if readings:
                yield Claim("number", start, end, readings)


def _markers(text: str) -> Iterator[Any]:
    return iter(compiled(_MARKER).finditer(text))


def _pieces(written: str, start: int) -> Iterator[tuple[int, int]]:
    """One number, or several: blanks and odd groups part them (`1 234` is one, `10 20` two, `1, 2` two)."""
    is_one = " " not in written or _is_grouped(written, " ")
    if is_one and ", " not in written and ". " not in written:
        yield start, start + len(written)
        return
    at = 0
    for piece in written.split(" "):
        core = piece.rstrip(",.'")
        if core:
            yield start + at, start + at + len(core)
        at += len(piece) + 1


def _is_grouped(written: str, mark: str) -> bool:
    head, *groups = written.split(mark)
    return 1 <= len(head) <= 3 and all(len(g.split(".")[0].split(",")[0]) == 3 for g in groups)


def _values(written: str) -> Iterator[float]:
    """Every value that the digits may stand for, with point or comma as the decimal mark."""
    plain = written.replace("'", "").replace(" ", "")
    for decimal, group in ((".", ","), (",", ".")):
        whole, *rest = plain.split(decimal)
        groups = whole.split(group)
        if len(rest) > 1 or (len(groups) > 1 and any(len(g) != 3 for g in groups[1:])):
            continue
        digits = "".join(groups)
        if digits.isdecimal() and (not rest or rest[0].isdecimal()):
            yield float(f"{digits}.{rest[0]}" if rest else digits)


def _number_words(text: str) -> Iterator[Claim]:
    for match in compiled(r"(?i)\b[a-z]+(?:-[a-z]+)?\b").finditer(text):
        parts = match.group().lower().split("-")
        if all(part in _WORDS for part in parts) and match.group().lower() not in ("one", "zero"):
            yield Claim(
                "number", match.start(), match.end(), frozenset({float(sum(_WORDS[p] for p in parts))})
            )


def _names(text: str) -> Iterator[Claim]:
    for match in compiled(_NAME).finditer(text):
        if text[match.end() : match.end() + 1].isalnum():
            continue
        if match.start() and (text[match.start() - 1].isalnum() or text[match.start() - 1] in _APOSTROPHES):
            continue
        words = match.group().split(" ")
        start = match.start()
        if _begins_sentence(text, start):
            start += len(words[0]) + 1
            words = words[1:]
        kept = [word for word in words if _folded(word) not in _NO_NAMES]
        if kept:
            yield Claim(
                "name", min(start, match.end() - 1), match.end(), frozenset({tuple(map(_folded, kept))})
            )


def _begins_sentence(text: str, at: int) -> bool:
    line = text[text.rfind("\n", 0, at) + 1 : at].rstrip(" \t")
    return not line.strip("0123456789.) \t") or line[-1] in _SENTENCE_END
