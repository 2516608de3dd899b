"""Runs of digits: what personal number each one is, if any.

The automaton hands over every run of digits with its separators; one run is one thing. Kinds with a checksum
are asked first, then what the nearest words say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import msgspec

from stanchion.detectors import phones
from stanchion.detectors.checksums import compact, is_aba_routing, is_card, is_luhn
from stanchion.detectors.context_words import SPACELESS, kinds_near
from stanchion.detectors.national_ids import Kind, coded_kinds, kinds_by_length

_TRIM = " .-/\u00a0\u2010\u2011\u2012\u2013"
_DATE_AND_TIME = re.compile(
    r"(?:(?:19|20)\d\d[.\-/][01]\d[.\-/][0-3]\d|[0-3]?\d[.\-/][0-3]?\d[.\-/](?:19|20)\d\d)(?:[ T]\d{1,2})?"
)
_AMOUNT = re.compile(r"\d{1,3}(?:[. ]\d{3})+|\d+\.\d{1,3}|\d+\.\d+\.\d+")
_ARITHMETIC = re.compile(r"\s{0,2}(?:[=*^]|[+\-/]\s)\s{0,2}-?\d")
_GROUP = re.compile(r"\d+")
_CARD_FORMS = ((4, 4, 4, 4), (4, 6, 5), (4, 6, 4), (4, 4, 4, 4, 3), (4, 4, 4, 4, 2))
_MOST_GROUPS = max(map(len, _CARD_FORMS))
_MANY = 12  # groups; more is a table, where only single groups are looked at
_NEVER_BEFORE = frozenset("_#@$€£¥")
_NEVER_AFTER = frozenset("_%@")
_TOUCHING = 2  # the distance of a word that only a hyphen parts from the number
_ACCOUNT_SAID = 24  # characters within which `account` must stand


class Number(msgspec.Struct, frozen=True):
    """What a run of digits is: its place in the view, and the rule that says so."""

    start: int
    end: int
    category: str
    score: float
    rule: str
    reason: str


def numbers_in(text: str, start: int, end: int, *, regions: Sequence[str] = phones.REGIONS) -> list[Number]:
    """The personal numbers in one run of digits `text[start:end]`, by position; mostly one or none."""
    start, end = _trimmed(text, start, end)
    found = list(_cards(text, start, end))
    if found:
        return found
    if _is_part_of_code(text, start, end) or _ARITHMETIC.match(text, end):
        return []
    one = _one_number(text, start, end, regions)
    if one is not None:
        return [one]
    return [number for piece in _pieces(text, start, end) if (number := _one_number(text, *piece, regions))]


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    while end > start and text[end - 1] in _TRIM + "(":
        end -= 1
    while start < end and text[start] in _TRIM + ")":
        start += 1
    if text[start] == "(" and ")" not in text[start:end]:
        start += 1
    return start, end


def _is_part_of_code(text: str, start: int, end: int) -> bool:
    """Whether the run hangs on letters (`SKU930587`, `INV-0250-23172`) or on a sign of an amount.

    A word that names the number (`0203 555 0142-office`) is no code.
    """
    before, after = text[start - 1 : start], text[end : end + 1]
    if _is_letter(before) or _is_letter(after) or before in _NEVER_BEFORE or after in _NEVER_AFTER:
        return bool(before or after)
    hangs = (bool(before) and before in "-/.\\" and text[start - 2 : start - 1].isalnum()) or (
        bool(after) and after in "-/" and text[end + 1 : end + 2].isalnum()
    )
    return hangs and min(kinds_near(text, start, end).values(), default=_TOUCHING + 1) > _TOUCHING


def _is_letter(sign: str) -> bool:
    """A letter or digit that a number can hang on; scripts without spaces write words right beside it."""
    return sign.isalnum() and (sign.isascii() or SPACELESS.match(sign) is None)


def _pieces(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The parts between spaces, when a run is several numbers beside each other."""
    parts = [(start + m.start(), start + m.end()) for m in re.finditer(r"\S+", text[start:end])]
    if 1 < len(parts) <= _MANY:
        yield from ((first, last) for first, last in parts if last - first >= phones.SHORTEST)


def _cards(text: str, start: int, end: int) -> Iterator[Number]:
    groups = [(m.start() + start, m.end() + start) for m in _GROUP.finditer(text[start:end])]
    widths = [last - first for first, last in groups]
    at = 0
    while at < len(groups):
        count = _card_groups(text, groups[at : at + _MOST_GROUPS], widths[at : at + _MOST_GROUPS])
        if count:
            yield _card(text, groups[at][0], groups[at + count - 1][1], grouped=count > 1)
        at += max(count, 1)


def _card_groups(text: str, groups: list[tuple[int, int]], widths: list[int]) -> int:
    """How many of the first groups are a card number; 0 when they are none."""
    first = groups[0][0]
    if 12 <= widths[0] <= 19:
        hangs = text[first - 1 : first].isalnum() or text[groups[0][1] : groups[0][1] + 1].isalnum()
        return int(not hangs and is_card(text[first : groups[0][1]]))
    for form in _CARD_FORMS:
        if tuple(widths[: len(form)]) == form and is_card(text[first : groups[len(form) - 1][1]]):
            return len(form)
    return 0


def _card(text: str, start: int, end: int, *, grouped: bool) -> Number:
    digits = compact(text[start:end])
    said = "card" in kinds_near(text, start, end)
    is_common = len(digits) == 16 or (len(digits) == 15 and digits[0] == "3")
    score = 0.99 if said else 0.9 if grouped or is_common else 0.6 if digits[0] in "3456" else 0.45
    return Number(start, end, "pii.card", score, "pii.card", "issuer and check digit hold")


def _one_number(text: str, start: int, end: int, regions: Sequence[str]) -> Number | None:
    raw = text[start:end]
    if _DATE_AND_TIME.fullmatch(raw):
        return None
    near = kinds_near(text, start, end)
    numbered = _national(raw, start, end, near)
    if numbered is not None and numbered.score >= 0.9:
        return numbered
    if not near and _AMOUNT.fullmatch(raw):
        return numbered
    score, reason = phones.score(raw, near, regions=regions)
    telephone = Number(start, end, "pii.phone", score, "pii.phone", reason) if score else None
    rivals = [n for n in (numbered, telephone, _by_words(raw, start, end, near)) if n is not None]
    return max(rivals, key=lambda n: n.score, default=None)


def _national(raw: str, start: int, end: int, near: dict[str, int]) -> Number | None:
    digits = compact(raw).replace("/", "").replace("+", "").replace("(", "").replace(")", "")
    best: Number | None = None
    for kind in kinds_by_length().get(len(digits), ()):
        score = _national_score(kind, raw, near)
        if score > (best.score if best else 0.0) and kind.holds(raw):
            entry = kind.entry
            best = Number(start, end, entry.category, score, f"pii.national_id.{entry.id}", entry.reason)
    return best


def code_in(text: str, start: int, end: int) -> Number | None:
    """The national number that a code of capitals and digits `text[start:end]` is, if any."""
    raw = re.sub(r"[ .]", "", text[start:end]).upper()
    best: Number | None = None
    near: dict[str, int] | None = None
    for kind in coded_kinds():
        entry = kind.entry
        if kind.form is None or kind.form.fullmatch(raw) is None:
            continue
        near = kinds_near(text, start, end) if near is None else near
        score = 0.96 if entry.id in near else max(entry.free_score, 0.6 if "national_id" in near else 0.0)
        if score > (best.score if best else 0.0) and kind.holds(raw):
            best = Number(start, end, entry.category, score, f"pii.national_id.{entry.id}", entry.reason)
    return best


def _national_score(kind: Kind, raw: str, near: dict[str, int]) -> float:
    is_free = kind.form is not None and kind.form.fullmatch(raw) is not None
    if kind.entry.id in near:
        certainty = 0.95 if kind.entry.check_digits else 0.85
        return 0.97 if is_free else certainty - min(near[kind.entry.id], 60) / 2000
    if is_free:
        return kind.entry.free_score
    return 0.6 if "national_id" in near and len(compact(raw)) >= 9 else 0.0


def _by_words(raw: str, start: int, end: int, near: dict[str, int]) -> Number | None:
    """Numbers without a checksum: only the nearest word can tell."""
    digits = compact(raw)
    if not digits.isdigit():
        return None
    options = (
        ("routing", "pii.account", 9, 9, 0.95 if is_aba_routing(digits) else 0.0),
        ("sort_code", "pii.account", 6, 6, 0.85),
        ("account", "pii.account", 6, 20, 0.8 if near.get("account", 99) <= _ACCOUNT_SAID else 0.0),
        ("passport", "pii.passport", 8, 9, 0.85),
        ("driver_licence", "pii.driver_licence", 6, 14, 0.85),
        ("health", "pii.health", 6, 14, 0.8),
        ("card", "pii.card", 12, 19, 0.85 if is_luhn(digits) else 0.4),
    )
    said = [
        (near[kind], Number(start, end, category, score, f"pii.{kind}", "by its words"))
        for kind, category, low, high, score in options
        if kind in near and score and low <= len(digits) <= high
    ]
    return min(said, key=lambda pair: pair[0])[1] if said else None
