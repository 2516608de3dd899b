"""The checkable facts of a text: numbers, times, dates, names, identifiers, with where they stand.

Deterministic, and honest about its limits: it reads digits, number words and month names of seven languages,
and capitalised words. It knows what was said, not whether it is true.
"""

from __future__ import annotations

import math
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Set
from functools import lru_cache
from typing import Any, NamedTuple

from stanchion.core.errors import UsageError
from stanchion.detectors.grounding_lexicon import language_of, lexicon
from stanchion.detectors.grounding_numbers import Quantity, Written, digits_in, words_in

_ISO = re.compile(r"(?a:\b(\d{4})[-/](\d{1,2})[-/](\d{1,2})\b)")
_NUMERIC = re.compile(r"(?a:\b(\d{1,2})[/.](\d{1,2})[/.](\d{4})\b)")
_CJK_DATE = re.compile(
    r"(?a:(?:(\d{4})\s?[\u5e74\ub144]\s?)?(\d{1,2})\s?[\u6708\uc6d4]\s?(\d{1,2})\s?[\u65e5\uc77c])"
)
_TIME = re.compile(r"(?ai:\b(\d{1,2})(?::(\d{2}))?\s?([ap])\.?m\b|\b([01]?\d|2[0-3]):([0-5]\d)\b)")
_IDENTIFIER = re.compile(
    r"(?a:\b(?:[A-Za-z]+[-_]?\d[A-Za-z0-9_-]*|\d+[-_]?[A-Za-z][A-Za-z0-9_-]*\d[A-Za-z0-9_-]*)\b)"
)
_APOSTROPHES = "'\u2019"
_TOKEN = re.compile(rf"[^\W_][\w{_APOSTROPHES}\u0300-\u036f-]*")
_NO_NAMES = frozenset(
    {"i", "i'm", "i'll", "i've", "i'd", "ok", "okay", "faq", "am", "pm", "hello", "hi", "dear", "thank"}
    | {"thanks", "yes", "no", "please", "note", "sorry", "english", "mr", "mrs", "ms", "dr"}
    | {"monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"}
)
_SMALL = frozenset({"of", "the", "and", "for", "de", "la", "du", "des", "und", "der", "di"})
_SENTENCE_END = frozenset('.!?:;\n\r"\u201c(*\u2022#>|-\u2013\u2014')
_APPROXIMATE = re.compile(
    r"(?:about|around|roughly|approximately|approx\.?|nearly|almost|some|circa|ca\.|etwa|rund|ungef\u00e4hr|environ|"
    r"aproximadamente|unos|circa|quasi|cerca de|ongeveer|~)\s*[$\u20ac\u00a3\u00a5]?$",
    re.IGNORECASE,
)
_ROUGHLY = 0.05  # what "about" forgives, relative
_SHARES = {"half": 50.0, "quarter": 25.0, "two-thirds": 66.7, "three-quarters": 75.0}
_DEMONYMS = ("ians", "ian", "eans", "ean", "ans", "an", "ese", "ish", "ns", "n", "is", "i", "s")

Date = tuple[int | None, int, int]


class Claim(NamedTuple):
    """One claim: kind (`number`, `date`, `time`, `name`), span in code points, all its readings.

    Numbers may say what they count (`quantities`), that they are rounded (`is_rough`), or name ten years.
    """

    kind: str
    start: int
    end: int
    readings: frozenset[Any]
    quantities: frozenset[Quantity] = frozenset()
    is_rough: bool = False
    is_decade: bool = False


class Facts(NamedTuple):
    """What a source says, in the readings that claims are compared with.

    `bare` are the numbers that stand without a unit somewhere; `capitals` its acronyms as written.
    """

    numbers: frozenset[float]
    dates: frozenset[Date]
    times: frozenset[tuple[int, int]]
    tokens: Set[str]
    bare: frozenset[float] = frozenset()
    quantities: frozenset[Quantity] = frozenset()
    capitals: frozenset[str] = frozenset()

    def support(self, claim: Claim, *, tolerance: float = 0.0) -> bool:
        """Whether one reading of the claim is said here. Numbers may be off by the relative tolerance."""
        if claim.kind == "number":
            allowed = max(tolerance, _ROUGHLY if claim.is_rough else 0.0)
            return self._has_quantity(claim, allowed)
        if claim.kind == "date":
            return any(self._has_date(date) for date in claim.readings)
        if claim.kind == "time":
            return bool(claim.readings & self.times)
        return any(self._has_name(words) for words in claim.readings)

    def _has_quantity(self, claim: Claim, tolerance: float) -> bool:
        """The same amount, or the same number of something that is not said or not known."""
        if any(self._near(q.value, self._amounts(q.dimension), tolerance) for q in claim.quantities):
            return True
        numbers = self.bare if claim.quantities else self.numbers
        if claim.is_decade and any(_is_any_between(numbers, v, v + 10) for v in claim.readings):
            return True
        return any(self._near(value, numbers, tolerance) for value in claim.readings)

    def _amounts(self, dimension: str) -> frozenset[float]:
        return _by_dimension(self.quantities).get(dimension, frozenset())

    @staticmethod
    def _near(value: float, numbers: frozenset[float], tolerance: float) -> bool:
        if value in numbers:
            return True
        if tolerance <= 0:
            return False
        ordered = _ordered(numbers)
        reach = abs(value) * tolerance / (1.0 - tolerance) + 1e-9 if tolerance < 1 else math.inf
        first, last = bisect_left(ordered, value - reach), bisect_right(ordered, value + reach)
        return any(abs(value - n) <= tolerance * abs(n) for n in ordered[first:last])

    def _has_date(self, date: Date) -> bool:
        year, month, day = date
        return any(
            year is None or y == year or (y is None and float(year) in self.numbers)
            for y in _by_day(self.dates).get((month, day), ())
        )

    def _has_name(self, words: tuple[str, ...]) -> bool:
        """Every word, or its people's name, or initials for the words, or the words for initials."""
        letters = [word for word in words if len(word) == 1]
        spelled = [word for word in words if len(word) > 1]
        if all(self._has_word(word) for word in (spelled + letters[:1] if spelled else words)):
            return True
        initials = "".join(word[0] for word in words if word not in _SMALL).upper()
        return len(words) > 1 and len(initials) > 1 and initials in self.capitals

    def _has_word(self, word: str) -> bool:
        if word in self.tokens or word.replace(".", "") in self.tokens:
            return True
        stem = _without_demonym(word)
        return (
            any(stem + ending in self.tokens for ending in ("", "a", "e", "y", *_DEMONYMS)) if stem else False
        )


@lru_cache(maxsize=64)
def _ordered(numbers: frozenset[float]) -> tuple[float, ...]:
    return tuple(sorted(numbers))


def _is_any_between(numbers: frozenset[float], least: float, above: float) -> bool:
    """Whether a number lies in a half-open range."""
    ordered = _ordered(numbers)
    return bisect_left(ordered, least) < bisect_left(ordered, above)


@lru_cache(maxsize=64)
def _by_dimension(quantities: frozenset[Quantity]) -> dict[str, frozenset[float]]:
    found: dict[str, set[float]] = {}
    for quantity in quantities:
        found.setdefault(quantity.dimension, set()).add(quantity.value)
    return {dimension: frozenset(values) for dimension, values in found.items()}


@lru_cache(maxsize=64)
def _by_day(dates: frozenset[Date]) -> dict[tuple[int, int], tuple[int | None, ...]]:
    """The years in which a day of a month was named."""
    found: dict[tuple[int, int], tuple[int | None, ...]] = {}
    for year, month, day in dates:
        found[(month, day)] = (*found.get((month, day), ()), year)
    return found


def claims_in(text: str) -> list[Claim]:
    """All claims in order of position; dates are not counted as numbers again, ordinal words not at all."""
    return [claim for claim in _written_facts(text) if claim.kind != "ordinal"]


def _written_facts(text: str) -> list[Claim]:
    taken = bytearray(len(text))
    found: list[Claim] = []
    for claims in (_dates(text), _times(text), _identifiers(text), _numbers(text), _names(text)):
        for claim in claims:
            if not any(taken[claim.start : claim.end]):
                taken[claim.start : claim.end] = b"\1" * (claim.end - claim.start)
                if claim.kind != "skip":
                    found.append(claim)
    return sorted(found, key=lambda claim: claim.start)


@lru_cache(maxsize=256)
def facts_of(text: str) -> Facts:
    """The facts of one source."""
    claims = _written_facts(text)
    written = [claim for claim in claims if claim.kind in ("number", "ordinal")]
    dates = {date for c in claims if c.kind == "date" for date in c.readings}
    in_dates = {float(part) for date in dates for part in date if part is not None}
    named = {word for c in claims if c.kind == "name" for words in c.readings for word in words}
    tokens = named.union(_tokens(text))
    shares = {value for word, value in _SHARES.items() if word in tokens}
    return Facts(
        numbers=frozenset({value for c in written for value in c.readings} | in_dates | shares),
        dates=frozenset(dates),
        times=frozenset(time for c in claims if c.kind == "time" for time in c.readings),
        tokens=tokens.union(_initials(text)),
        bare=frozenset({value for c in written if not c.quantities for value in c.readings} | in_dates),
        quantities=frozenset(q for c in written for q in c.quantities).union(
            Quantity("percent", value) for value in shares
        ),
        capitals=frozenset(t for t in re.findall(r"\b[A-Z]{2,8}\b", text.replace(".", ""))),
    )


def all_facts(texts: Iterable[str]) -> Facts:
    """The facts of several sources together."""
    parts = [facts_of(text) for text in texts]
    if len(parts) == 1:
        return parts[0]
    merged = [frozenset[Any]().union(*column) for column in zip(*parts, strict=True)] if parts else []
    return Facts(*merged) if merged else Facts(frozenset(), frozenset(), frozenset(), frozenset())


def folded(word: str) -> str:
    """A word as it is compared: composed, case-folded, without a possessive's ending."""
    plain = unicodedata.normalize("NFC", word).casefold().replace("\u2019", "'")
    return plain.removesuffix("'s").removesuffix("'")


@lru_cache(maxsize=64)
def compiled(pattern: str) -> Any:
    """A pattern of RE2, whose time is linear in the text.

    Raises:
        UsageError: when RE2 does not take it.
    """
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        raise UsageError(f"regex {pattern!r} is not valid in RE2: {error}.") from error


def _tokens(text: str) -> Iterator[str]:
    """Words and identifiers, letters folded; a possessive also without its ending."""
    for match in _TOKEN.finditer(text):
        word = folded(match.group())
        yield word
        yield from (part for part in word.split("-") if part != word)


def _initials(text: str) -> Iterator[str]:
    """What names of several words are shortened to, and the initials of each."""
    for match in compiled(_LONG_NAME).finditer(text):
        words = [word for word in re.split(r"[\s-]+", match.group()) if word]
        kept = [w[0].casefold() for w in words if folded(w) not in _SMALL]
        yield "".join(kept)
        yield from kept


@lru_cache(maxsize=1)
def _month_forms() -> tuple[Any, Any]:
    """Day before month, and month before day."""
    month = "(?:" + "|".join(map(re.escape, sorted(lexicon().months, key=len, reverse=True))) + ")"
    day = "(\\d{1,2})(?:st|nd|rd|th|\\.|er|\u00ba|\u00b0)?"
    of = r"(?:\s+(?:of|de|di|do))?"
    first = rf"(?i)\b{day}{of}\s+({month})\b\.?(?:(?:,|\s+de|\s+del)?\s+(\d{{4}})\b)?"
    second = rf"(?i)\b({month})\.?\s+(\d{{1,2}})(?:st|nd|rd|th)?\b(?:,?\s+(\d{{4}})\b)?"
    return compiled(first), compiled(second)


def _dates(text: str) -> Iterator[Claim]:
    months = lexicon().months
    for match in _ISO.finditer(text):
        yield _date(match, [(int(match[1]), int(match[2]), int(match[3]))])
    for match in _CJK_DATE.finditer(text):
        yield _date(match, [(_year(match[1]), int(match[2]), int(match[3]))])
    day_first, month_first = _month_forms()
    for match in day_first.finditer(text):
        yield _date(match, [(_year(match[3]), months[match[2].casefold()], int(match[1]))])
    for match in month_first.finditer(text):
        yield _date(match, [(_year(match[3]), months[match[1].casefold()], int(match[2]))])
    for match in _NUMERIC.finditer(text):
        a, b, year = int(match[1]), int(match[2]), int(match[3])
        yield _date(match, [(year, a, b), (year, b, a)])


def _date(match: Any, readings: list[Date]) -> Claim:
    real = frozenset(date for date in readings if 1 <= date[1] <= 12 and 1 <= date[2] <= 31)
    return Claim("date" if real else "skip", match.start(), match.end(), real)


def _year(text: str | None) -> int | None:
    return int(text) if text else None


def _times(text: str) -> Iterator[Claim]:
    for match in _TIME.finditer(text):
        if match[3]:
            hour = int(match[1]) % 12 + (12 if match[3].lower() == "p" else 0)
            minute = int(match[2] or 0)
        else:
            hour, minute = int(match[4]), int(match[5])
        yield Claim("time", match.start(), match.end(), frozenset({(hour, minute)}))


def _identifiers(text: str) -> Iterator[Claim]:
    for match in _IDENTIFIER.finditer(text):
        yield Claim("name", match.start(), match.end(), frozenset({(folded(match.group()),)}))


def _numbers(text: str) -> Iterator[Claim]:
    for written in digits_in(text):
        yield _number(text, written)
    ordinals = lexicon().numbers["en"].ordinals
    for written in words_in(text, language_of(text)):
        claim = _number(text, written)
        last = text[claim.start : claim.end].casefold().rpartition("-")[2]
        yield (
            claim._replace(kind="ordinal")
            if last in ordinals or text[claim.start : claim.end].casefold() == "one"
            else claim
        )


def _number(text: str, written: Written) -> Claim:
    if not written.values:
        return Claim("skip", written.start, written.end, frozenset())
    before = text[max(0, written.start - 20) : written.start]
    rough = bool(_APPROXIMATE.search(before))
    decade = text[written.end : written.end + 1] == "s" and all(
        v % 10 == 0 and v >= 1000 for v in written.values
    )
    return Claim("number", written.start, written.end, written.values, written.quantities, rough, decade)


_LINE_HEAD = 80  # characters before a name
_CAPITAL = rf"\p{{Lu}}[\p{{L}}\p{{M}}{_APOSTROPHES}]*(?:-\p{{L}}+)*"
_INITIAL = r"(?:\p{Lu}\.[ ]?)+"
_NAME = rf"(?:{_INITIAL})?{_CAPITAL}(?:[ ](?:{_INITIAL})?{_CAPITAL})*"
_LONG_NAME = rf"{_CAPITAL}(?:[ ](?:of|the|and|for|de|la|{_CAPITAL}))+"


def _names(text: str) -> Iterator[Claim]:
    for match in compiled(_NAME).finditer(text):
        if text[match.end() : match.end() + 1].isalnum():
            continue
        if match.start() and (text[match.start() - 1].isalnum() or text[match.start() - 1] in _APOSTROPHES):
            continue
        words = match.group().replace(".", " ").split()
        start = match.start()
        if _begins_sentence(text, start):
            start += len(words[0]) + 1
            words = words[1:]
        months = lexicon().months
        kept = [word for word in map(folded, words) if word not in _NO_NAMES and word not in months]
        if kept:
            yield Claim("name", min(start, match.end() - 1), match.end(), frozenset({tuple(kept)}))


def _begins_sentence(text: str, at: int) -> bool:
    """Whether a sentence ends, or nothing but a list's number stands, before a place of a line."""
    line = text[max(text.rfind("\n", max(0, at - _LINE_HEAD), at) + 1, at - _LINE_HEAD, 0) : at].rstrip(" \t")
    return not line.strip("0123456789.) \t") or line[-1] in _SENTENCE_END


def _without_demonym(word: str) -> str:
    """`Norwegian` and `Norway` do not meet; `Italian` and `Italy`, `Austrian` and `Austria` do."""
    if len(word) < 5:
        return ""
    ending = next((e for e in _DEMONYMS if word.endswith(e) and len(word) - len(e) >= 4), "")
    stem = word.removesuffix(ending) if ending else word
    return stem[:-1] if stem[-1] in "aey" and len(stem) > 4 else stem
