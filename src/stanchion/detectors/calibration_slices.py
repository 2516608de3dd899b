"""A threshold looked at slice by slice: language, length, origin, locale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from stanchion.core.origin import Origin
from stanchion.detectors.calibration_rows import LabelledText
from stanchion.detectors.scoring import Scored
from stanchion.stats.distributions import binomial_tails
from stanchion.stats.intervals import Interval, wilson
from stanchion.stats.multiple import holm

FEW = 30  # rows of a kind below which a slice says nothing about it
_LENGTHS = (
    (100, "under 100 characters"),
    (500, "100 to 499"),
    (2_000, "500 to 1,999"),
    (10_000, "2,000 to 9,999"),
)
_LONG = "10,000 characters and more"
MOST_VALUES = 12  # of one kind of slice; the smaller ones are put together


class Limits(Protocol):
    """What a slice is held against."""

    @property
    def max_false_alarms(self) -> float:
        """The limit on the false-alarm rate."""
        ...

    @property
    def confidence(self) -> float:
        """Of intervals and tests."""
        ...


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """Counts and Wilson intervals of some rows at the threshold; `warning` is empty where all is well."""

    by: str
    value: str
    benign: int
    false_alarms: int
    unsafe: int
    caught: int
    false_alarm_rate: Interval | None
    recall: Interval | None
    warning: str = ""


def slices_at(
    scored: Scored, threshold: float, origins: Mapping[Origin, float], limits: Limits
) -> tuple[Slice, ...]:
    """Every slice of the rows, by kind and then by name; kinds with one value only are left out.

    A slice is called above the limit when an exact test says so after Holm's correction over all slices.
    """
    counts: dict[tuple[str, str], list[int]] = {}
    order: dict[tuple[str, str], int] = {}
    for kind in ("language", "length", "origin", "locale"):
        values = [_value(kind, row) for row in scored.rows]
        names = _names(values)
        if len(set(names.values())) < 2:
            continue
        for row, score, value in zip(scored.rows, scored.scores, values, strict=True):
            if row.label is None:
                continue
            key = (kind, names[value])
            tally = counts.setdefault(key, [0, 0, 0, 0])
            order.setdefault(key, value[0])
            tally[2 * row.label] += 1
            tally[2 * row.label + 1] += score >= origins.get(row.origin, threshold)
    keys = sorted(counts, key=lambda key: (_KINDS.index(key[0]), order[key], key[1]))
    p_values = [
        1.0 - binomial_tails(counts[key][1] - 1, counts[key][0], limits.max_false_alarms)[0]
        if counts[key][0]
        else 1.0
        for key in keys
    ]
    above = holm([min(1.0, max(0.0, p)) for p in p_values]).rejected(1.0 - limits.confidence)
    return tuple(
        _slice(key, counts[key], is_above=one, limits=limits) for key, one in zip(keys, above, strict=True)
    )


_KINDS = ("language", "length", "origin", "locale")


def _value(kind: str, row: LabelledText) -> tuple[int, str]:
    """The slice of a row, with its place in the order of its kind."""
    if kind == "length":
        for number, (limit, name) in enumerate(_LENGTHS):
            if len(row.text) < limit:
                return number, name
        return len(_LENGTHS), _LONG
    said = row.origin.value if kind == "origin" else getattr(row, kind)
    return 0, str(said) or "not told"


def _names(values: list[tuple[int, str]]) -> dict[tuple[int, str], str]:
    """The name that each value is counted under: the most frequent keep their own."""
    counted: dict[tuple[int, str], int] = {}
    for value in values:
        counted[value] = counted.get(value, 0) + 1
    kept = sorted(counted, key=lambda value: (-counted[value], value))[:MOST_VALUES]
    return {value: value[1] if value in kept else "others" for value in counted}


def _slice(key: tuple[str, str], tally: list[int], *, is_above: bool, limits: Limits) -> Slice:
    benign, wrong, unsafe, caught = tally
    warnings = []
    if is_above:
        warnings.append("above the limit")
    if 0 < benign < FEW:
        warnings.append(f"only {benign} benign")
    if 0 < unsafe < FEW:
        warnings.append(f"only {unsafe} unsafe")
    return Slice(
        by=key[0],
        value=key[1],
        benign=benign,
        false_alarms=wrong,
        unsafe=unsafe,
        caught=caught,
        false_alarm_rate=wilson(wrong, benign, confidence=limits.confidence) if benign else None,
        recall=wilson(caught, unsafe, confidence=limits.confidence) if unsafe else None,
        warning="; ".join(warnings),
    )
