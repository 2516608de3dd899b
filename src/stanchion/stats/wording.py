"""How a rate and its bounds are put into words: an upper bound is rounded up, a lower bound down.

Rounding a bound towards the estimate would print a stronger claim than the data carry: 0.0101 is "at most
1.1 %", never "at most 1.0 %". Two significant digits are shown, and at least one decimal.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal

from stanchion.core.errors import UsageError

_NOISE_DIGITS = Context(prec=12, rounding=ROUND_HALF_EVEN)
_HUNDRED = Decimal(100)


def percent(rate: float) -> str:
    """A rate for reading, rounded to nearest: `0.0123` is "1.2 %"."""
    return _percent(rate, ROUND_HALF_EVEN)


def at_most(bound: float) -> str:
    """An upper bound, rounded up: `0.00994` is "at most 1.0 %"."""
    return f"at most {_percent(bound, ROUND_CEILING)}"


def at_least(bound: float) -> str:
    """A lower bound, rounded down: `0.9876` is "at least 98.7 %"."""
    return f"at least {_percent(bound, ROUND_FLOOR)}"


def between(low: float, high: float) -> str:
    """Both bounds, rounded outwards: "0.12 % to 1.9 %"."""
    return f"{_percent(low, ROUND_FLOOR)} to {_percent(high, ROUND_CEILING)}"


def points(difference: float) -> str:
    """A difference of rates in percentage points, with its sign, rounded to nearest: "+1.2 points"."""
    return f"{_points(difference, ROUND_HALF_EVEN)} points"


def points_between(low: float, high: float) -> str:
    """Bounds of a difference in percentage points, rounded outwards: "-0.4 to +2.1 points"."""
    return f"{_points(low, ROUND_FLOOR)} to {_points(high, ROUND_CEILING)} points"


def confidence_level(confidence: float) -> str:
    """A confidence for reading, rounded down: `0.95` is "95 %", `0.999` "99.9 %", `0.98333333` "98.33 %"."""
    exact = _clean(confidence) * _HUNDRED
    last = (_HUNDRED - exact).adjusted() - 2 if exact != _HUNDRED else 0  # three digits of what is missing
    return f"{_plain(exact.quantize(Decimal(1).scaleb(min(last, 0)), rounding=ROUND_FLOOR))} %"


def _percent(rate: float, rounding: str) -> str:
    if not 0.0 <= rate <= 1.0:
        raise UsageError(f"a rate must be between 0 and 1, not {rate!r}.")
    exact = _clean(rate) * _HUNDRED
    if exact in (0, _HUNDRED):
        return f"{exact:.0f} %"
    rounded = exact.quantize(_step(min(exact, _HUNDRED - exact)), rounding=rounding)
    if rounded in (0, _HUNDRED):
        return f"{rounded:.0f} %"
    return f"{rounded.quantize(_step(min(rounded, _HUNDRED - rounded)), rounding=rounding):f} %"


def _points(difference: float, rounding: str) -> str:
    if not -1.0 <= difference <= 1.0:
        raise UsageError(f"a difference of rates must be between -1 and 1, not {difference!r}.")
    exact = _clean(difference) * _HUNDRED
    if exact == 0:
        return "0"
    rounded = exact.quantize(_step(abs(exact)), rounding=rounding)
    return "0" if rounded == 0 else f"{rounded.quantize(_step(abs(rounded)), rounding=rounding):+f}"


def _clean(value: float) -> Decimal:
    """The shortest decimal of the number, without the noise beyond twelve digits."""
    return _NOISE_DIGITS.create_decimal(repr(float(value)))


def _step(size: Decimal) -> Decimal:
    """The unit of the last digit shown: two significant digits, at least one decimal."""
    return Decimal(1).scaleb(min(-1, size.adjusted() - 1))


def _plain(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
