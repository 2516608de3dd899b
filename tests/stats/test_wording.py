from decimal import Decimal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stanchion.core.errors import UsageError
from stanchion.stats.wording import (
    at_least,
    at_most,
    between,
    confidence_level,
    percent,
    points,
    points_between,
)


@pytest.mark.parametrize(
    ("bound", "words"),
    [
        (0.00994, "at most 1.0 %"),
        (0.009936, "at most 1.0 %"),
        (0.0101, "at most 1.1 %"),
        (0.01, "at most 1.0 %"),
        (0.07, "at most 7.0 %"),
        (0.1 + 0.2, "at most 30.0 %"),
        (0.00095, "at most 0.095 %"),
        (0.000951234, "at most 0.096 %"),
        (0.1234, "at most 12.4 %"),
        (0.9951, "at most 99.51 %"),
        (0.99999999, "at most 99.9999990 %"),
        (1.0, "at most 100 %"),
        (0.0, "at most 0 %"),
    ],
)
def test_an_upper_bound_is_rounded_up(bound, words):
    assert at_most(bound) == words


@pytest.mark.parametrize(
    ("bound", "words"),
    [
        (0.98769, "at least 98.7 %"),
        (0.0109, "at least 1.0 %"),
        (1.0, "at least 100 %"),
        (0.0, "at least 0 %"),
    ],
)
def test_a_lower_bound_is_rounded_down(bound, words):
    assert at_least(bound) == words


def test_two_bounds_are_rounded_outwards_and_a_rate_to_nearest():
    assert between(0.00129, 0.0181) == "0.12 % to 1.9 %"
    assert between(0.0, 0.013) == "0 % to 1.3 %"
    assert percent(0.0123) == "1.2 %"
    assert percent(0.5) == "50.0 %"


def test_differences_are_signed_points():
    assert points(0.0123) == "+1.2 points"
    assert points(-0.286) == "-28.6 points"
    assert points(0.0) == "0 points"
    assert points_between(-0.00311, 0.0201) == "-0.32 to +2.1 points"


def test_confidence_keeps_its_decimals():
    assert [confidence_level(c) for c in (0.9, 0.95, 0.975, 0.999)] == ["90 %", "95 %", "97.5 %", "99.9 %"]
    assert [confidence_level(1 - 0.05 / n) for n in (3, 4, 7)] == ["98.33 %", "98.75 %", "99.285 %"]


@settings(deadline=None, max_examples=300)
@given(st.floats(0.0, 1.0))
@example(0.0099999999)
@example(0.0995)
def test_printed_bounds_never_claim_more_than_the_numbers(rate):
    upper = Decimal(at_most(rate).removeprefix("at most ").removesuffix(" %")) / 100
    lower = Decimal(at_least(rate).removeprefix("at least ").removesuffix(" %")) / 100
    noise = Decimal(repr(rate)) * Decimal("1e-11")
    assert lower - noise <= Decimal(repr(rate)) <= upper + noise
    assert upper - lower <= max(Decimal("0.001"), Decimal(repr(rate)) * Decimal("0.11"))
    if rate > 1e-12:
        assert upper > 0


@pytest.mark.parametrize("word", [percent, at_most, at_least])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_what_is_not_a_rate_is_refused(word, value):
    with pytest.raises(UsageError, match="between 0 and 1"):
        word(value)


def test_what_is_not_a_difference_is_refused():
    with pytest.raises(UsageError, match="between -1 and 1"):
        points(2.0)
