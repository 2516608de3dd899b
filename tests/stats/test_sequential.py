import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.core.errors import UsageError
from stanchion.stats.intervals import clopper_pearson
from stanchion.stats.sequential import Prior, confidence_sequence, difference_sequence, log_e_value


@st.composite
def counts(draw, most=3000):
    n = draw(st.integers(1, most))
    return draw(st.integers(0, n)), n


@given(counts(), st.floats(0.01, 0.99), st.floats(0.2, 20), st.floats(0.2, 20))
def test_the_evidence_is_the_ratio_of_two_distributions(count, rate, a, b):
    """The mixture over the binomial: scipy's beta-binomial over its binomial."""
    k, n = count
    expected = scipy.stats.betabinom.logpmf(k, n, a, b) - scipy.stats.binom.logpmf(k, n, rate)
    assert log_e_value(k, n, rate, prior=Prior(a=a, b=b)) == pytest.approx(expected, rel=1e-7, abs=1e-7)


@given(counts(), st.sampled_from([0.8, 0.95, 0.99]))
def test_the_interval_is_where_the_evidence_is_below_the_limit(count, confidence):
    k, n = count
    interval = confidence_sequence(k, n, confidence=confidence)
    limit = -math.log(1 - confidence)
    assert interval.low <= k / n <= interval.high
    for end in (interval.low, interval.high):
        if 0 < end < 1:
            assert log_e_value(k, n, end) == pytest.approx(limit, abs=1e-6)


def test_it_is_wider_than_an_interval_for_one_look_and_shrinks_to_the_estimate():
    for k, n in ((0, 50), (3, 100), (50, 100), (990, 1000)):
        once, always = clopper_pearson(k, n), confidence_sequence(k, n)
        assert always.low <= once.low + 1e-12
        assert always.high >= once.high - 1e-12
    widths = [confidence_sequence(n // 10, n).width for n in (100, 1_000, 10_000, 1_000_000)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.003


def test_nothing_seen_says_nothing():
    assert confidence_sequence(0, 0).bounds() == "0 % to 100 %"
    nothing = difference_sequence((0, 0), (0, 0))
    assert (nothing.low, nothing.high, nothing.estimate) == (-1.0, 1.0, None)
    one_arm = difference_sequence((10, 1000), (0, 0))
    assert one_arm.low < -0.97
    assert one_arm.high < 0.05


def ever_outside(rate: float, *, looks: int, confidence: float) -> float:
    """The exact chance that the interval misses the rate at any of the looks: the walk's own distribution."""
    alive, missed = {0: 1.0}, 0.0
    for n in range(1, looks + 1):
        after: dict[int, float] = {}
        for k, mass in alive.items():
            after[k] = after.get(k, 0.0) + mass * (1 - rate)
            after[k + 1] = after.get(k + 1, 0.0) + mass * rate
        gone = [k for k in after if log_e_value(k, n, rate) >= -math.log(1 - confidence)]
        missed += sum(after.pop(k) for k in gone)
        alive = {k: mass for k, mass in after.items() if mass > 1e-15}
    return missed


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_looking_after_every_case_misses_at_most_as_often_as_stated(rate, confidence):
    missed = ever_outside(rate, looks=400, confidence=confidence)
    assert 0 < missed <= 1 - confidence


def test_a_fixed_size_interval_does_not_keep_its_word_when_looked_at_often():
    """What this module is for: the same looks at an ordinary interval miss several times as often."""
    rng = np.random.default_rng(5)
    paths = rng.random((400, 500)) < 0.1
    hits = paths.cumsum(axis=1)
    looks = range(9, 500, 10)
    missed = np.mean([any(0.1 not in clopper_pearson(int(row[n]), n + 1) for n in looks) for row in hits])
    assert missed > 0.1


@pytest.mark.parametrize(("p1", "p2", "share"), [(0.02, 0.02, 0.5), (0.10, 0.02, 0.1), (0.5, 0.4, 0.5)])
def test_the_difference_is_covered_at_all_looks_at_once(p1, p2, share):
    """Peeking every 25 cases, arms drawn at random; the bound is the error plus three standard errors."""
    rng = np.random.default_rng(11)
    paths, n, error = 300, 600, 0.1
    missed = 0
    for _ in range(paths):
        arm = rng.random(n) < share
        hit = np.where(arm, rng.random(n) < p1, rng.random(n) < p2)
        n1, k1, k2 = arm.cumsum(), (hit & arm).cumsum(), (hit & ~arm).cumsum()
        missed += any(
            p1 - p2
            not in difference_sequence(
                (int(k1[i]), int(n1[i])), (int(k2[i]), int(i + 1 - n1[i])), confidence=1 - error
            )
            for i in range(24, n, 25)
        )
    assert missed / paths <= error + 3 * math.sqrt(error * (1 - error) / paths)


def test_an_arm_may_be_chosen_by_what_came_before():
    """Play the winner: the sequence is valid under a choice that depends on the past."""
    rng = np.random.default_rng(3)
    paths, n, error = 200, 300, 0.1
    missed = 0
    for _ in range(paths):
        seen = {0: [0, 0], 1: [0, 0]}
        is_missed = False
        last, arm = 0, 0
        for i in range(n):
            arm = arm if last else 1 - arm
            last = int(rng.random() < 0.3)
            seen[arm][0] += last
            seen[arm][1] += 1
            if i % 20 == 19:
                found = difference_sequence(tuple(seen[0]), tuple(seen[1]), confidence=1 - error)
                is_missed |= 0.0 not in found
        missed += is_missed
    assert missed / paths <= error + 3 * math.sqrt(error * (1 - error) / paths)


@given(counts(most=500), counts(most=500))
@settings(max_examples=40, deadline=None)
def test_differences_turn_round_and_hold_the_estimate(first, second):
    there, back = difference_sequence(first, second), difference_sequence(second, first)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-9)
    assert there.low <= there.estimate <= there.high


@pytest.mark.parametrize(("first", "second"), [((20, 1000), (30, 1000)), ((50, 400), (50, 600))])
def test_for_arms_of_like_size_the_joint_sequence_is_tighter_than_two_separate_ones(first, second):
    there = difference_sequence(first, second)
    one, two = (confidence_sequence(*c, confidence=0.975) for c in (first, second))
    assert there.high - there.low < (one.high - two.low) - (one.low - two.high)


@given(counts(most=300), counts(most=300))
@settings(max_examples=25, deadline=None)
def test_the_search_along_the_line_finds_what_a_grid_finds(first, second):
    limit = -math.log(0.05)
    grid = np.linspace(0, 1, 401)[1:-1]
    one = np.array([log_e_value(*first, p) for p in grid])
    two = np.array([log_e_value(*second, p) for p in grid])
    rows, columns = np.nonzero(one[:, None] + two[None, :] < limit)
    if rows.size:
        found = difference_sequence(first, second)
        differences = grid[rows] - grid[columns]
        assert (
            found.low - 1e-9 <= differences.min() <= found.low + 0.025
        )  # a corner may lie between its points
        assert found.high + 1e-9 >= differences.max() >= found.high - 0.025


def test_what_means_nothing_is_refused():
    for bad in ((5, 3), (-1, 3)):
        with pytest.raises(UsageError):
            confidence_sequence(*bad)
        with pytest.raises(UsageError):
            difference_sequence(bad, (0, 1))
    with pytest.raises(UsageError, match="between 0 and 1"):
        confidence_sequence(1, 2, confidence=95)
    with pytest.raises(UsageError, match="prior"):
        Prior(a=0.0)
    with pytest.raises(UsageError, match="side"):
        confidence_sequence(1, 2, side="left")
