import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.core.errors import UsageError
from stanchion.stats.intervals import clopper_pearson
from stanchion.stats.planning import (
    cases_still_needed,
    design_effect,
    size_for_rate,
    zero_failure_size,
)


@pytest.mark.parametrize(
    ("limit", "confidence", "size"),
    [
        (0.05, 0.95, 59),
        (0.01, 0.95, 299),
        (0.001, 0.95, 2995),
        (0.1, 0.9, 22),
        (0.05, 0.99, 90),
        (1e-6, 0.95, 2995731),
    ],
)
def test_zero_failure_sizes_are_the_published_ones(limit, confidence, size):
    assert zero_failure_size(limit, confidence) == size


@settings(deadline=None, max_examples=100)
@given(st.floats(0.0005, 0.9), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_a_zero_failure_size_shows_its_limit_and_one_case_fewer_does_not(limit, confidence):
    n = zero_failure_size(limit, confidence)
    assert clopper_pearson(0, n, confidence=confidence, side="upper").high <= limit * (1 + 1e-12)
    if n > 1:
        assert clopper_pearson(0, n - 1, confidence=confidence, side="upper").high > limit * (1 - 1e-12)


def test_size_for_one_percent_with_half_a_percent_true():
    plan = size_for_rate(0.01, 0.005, power=0.8)
    assert (plan.independent_cases, plan.max_failures) == (1941, 12)
    assert plan.power == pytest.approx(scipy.stats.binom.cdf(12, 1941, 0.005))
    assert scipy.stats.binom.cdf(12, 1941, 0.01) <= 0.05 < scipy.stats.binom.cdf(12, 1940, 0.01)


@pytest.mark.parametrize(
    ("limit", "expected", "power"), [(0.01, 0.005, 0.8), (0.1, 0.05, 0.9), (0.05, 0.0, 0.8), (0.2, 0.1, 0.5)]
)
def test_no_smaller_size_reaches_the_power_by_exhaustive_search(limit, expected, power):
    plan = size_for_rate(limit, expected, power=power)
    n = np.arange(1, plan.independent_cases + 1)
    allowed = scipy.stats.binom.ppf(0.05, n, limit) - (
        scipy.stats.binom.cdf(scipy.stats.binom.ppf(0.05, n, limit), n, limit) > 0.05
    )
    reached = np.where(allowed >= 0, scipy.stats.binom.cdf(allowed, n, expected), 0.0)
    assert reached[-1] == pytest.approx(plan.power)
    assert plan.power >= power
    assert (reached[:-1] < power).all()


def test_clusters_multiply_the_size_by_the_design_effect_in_whole_clusters():
    plan = size_for_rate(0.01, 0.005, icc=0.1, cluster_size=5)
    assert plan.design_effect == pytest.approx(1.4) == design_effect(0.1, 5)
    assert plan.cases == plan.clusters * 5
    assert 1941 * 1.4 <= plan.cases < 1941 * 1.4 + 5
    assert size_for_rate(0.01, 0.005, icc=1.0, cluster_size=4).clusters == 1941


def test_a_tight_plan_at_a_small_rate_is_quick_and_right():
    plan = size_for_rate(0.001, 0.0008, power=0.8)
    assert scipy.stats.binom.cdf(plan.max_failures, plan.independent_cases, 0.001) <= 0.05
    assert scipy.stats.binom.cdf(plan.max_failures, plan.independent_cases, 0.0008) >= 0.8


def test_none_of_three_hundred_needs_298_more_for_half_a_percent():
    needed = cases_still_needed(0, 300, limit=0.005)
    assert (needed.more, needed.more_at_observed_rate) == (298, 298)
    assert clopper_pearson(0, 598, side="upper").high <= 0.005 < clopper_pearson(0, 597, side="upper").high


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 20), st.integers(20, 2000), st.sampled_from([0.005, 0.01, 0.03, 0.1, 0.5]))
def test_so_many_safe_cases_show_the_limit_and_one_fewer_does_not(k, n, limit):
    more = cases_still_needed(k, n, limit=limit).more
    assert clopper_pearson(k, n + more, side="upper").high <= limit * (1 + 1e-12)
    if more > 0:
        assert clopper_pearson(k, n + more - 1, side="upper").high > limit * (1 - 1e-12)


def test_at_the_observed_rate_more_cases_are_needed_than_if_all_were_safe():
    needed = cases_still_needed(3, 500, limit=0.01)
    assert needed.more < needed.more_at_observed_rate
    total = 500 + needed.more_at_observed_rate
    assert clopper_pearson(-(-3 * total // 500), total, side="upper").high <= 0.01


def test_what_no_number_of_cases_can_show_is_none_with_a_reason():
    never = cases_still_needed(0, 300, limit=0.0)
    assert (never.more, never.more_at_observed_rate) == (None, None)
    assert "exactly 0" in never.reason
    too_many = cases_still_needed(0, 300, limit=1e-9)
    assert too_many.more is None
    assert "100,000,000" in too_many.reason
    worse = cases_still_needed(30, 500, limit=0.01)
    assert worse.more_at_observed_rate is None
    assert "30 in 500 is not below the limit of 0.01" in worse.reason


def test_what_is_shown_already_needs_no_more():
    assert cases_still_needed(0, 299, limit=0.01).more == 0
    assert cases_still_needed(5, 5, limit=1.0).more == 0


def test_before_the_first_case_the_need_is_the_zero_failure_size():
    needed = cases_still_needed(0, 0, limit=0.01)
    assert needed.more == 299
    assert needed.more_at_observed_rate is None


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: zero_failure_size(0.0), "between 0 and 1"),
        (lambda: zero_failure_size(5.0), r"Write 0\.05 for 5 %"),
        (lambda: zero_failure_size(1e-12), "more than 100,000,000 cases"),
        (lambda: size_for_rate(0.01, 0.01), "below the limit"),
        (lambda: size_for_rate(0.01, 0.005, power=80), "power must lie between"),
        (lambda: size_for_rate(0.01, 0.005, icc=2), "correlation must be between"),
        (lambda: size_for_rate(0.01, 0.005, cluster_size=0), "at least one case"),
        (lambda: size_for_rate(1e-6, 9.99e-7), "more than 100,000,000 cases"),
        (lambda: cases_still_needed(3, 2, limit=0.1), "impossible"),
        (lambda: cases_still_needed(0, 2, limit=-0.1), "limit must be between"),
    ],
)
def test_bad_plans_are_refused_in_clear_words(call, words):
    with pytest.raises(UsageError, match=words):
        call()
