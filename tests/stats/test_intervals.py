import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from stanchion.core.errors import UsageError
from stanchion.stats.distributions import binomial_tails
from stanchion.stats.intervals import (
    clopper_pearson,
    effective_size,
    korn_graubard,
    rule_of_three,
    wilson,
)

SIDES = st.sampled_from(["two", "upper", "lower"])
CONFIDENCES = st.sampled_from([0.8, 0.9, 0.95, 0.99, 0.999])


@st.composite
def counts(draw, most=5000):
    n = draw(st.integers(1, most))
    return draw(st.integers(0, n)), n


def random_counts(seed, size, *, most):
    rng = np.random.default_rng(seed)
    n = (10 ** rng.uniform(0, most, size)).astype(int)
    k = np.floor((n + 1) * rng.uniform(0, 1, size) ** 3).astype(int)
    return k, np.maximum(n, k)


def test_clopper_pearson_agrees_with_scipy_up_to_ten_million_cases():
    k, n = random_counts(1, 400, most=7)
    for confidence in (0.8, 0.95, 0.999):
        ours = [clopper_pearson(a, b, confidence=confidence) for a, b in zip(k, n, strict=True)]
        tail = (1 - confidence) / 2
        low = np.where(k == 0, 0.0, scipy.stats.beta.ppf(tail, np.maximum(k, 1), n - k + 1))
        high = np.where(k == n, 1.0, scipy.stats.beta.isf(tail, k + 1, np.maximum(n - k, 1)))
        np.testing.assert_allclose([i.low for i in ours], low, rtol=1e-9)
        np.testing.assert_allclose([i.high for i in ours], high, rtol=1e-9)


@pytest.mark.parametrize(("method", "ours"), [("beta", clopper_pearson), ("wilson", wilson)])
def test_two_sided_intervals_agree_with_statsmodels(method, ours):
    k, n = random_counts(2, 3000, most=5)
    low, high = proportion_confint(k, n, alpha=0.1, method=method)
    intervals = [ours(a, b, confidence=0.9) for a, b in zip(k.tolist(), n.tolist(), strict=True)]
    np.testing.assert_allclose([i.low for i in intervals], np.where(k == 0, 0, low), rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose([i.high for i in intervals], np.where(k == n, 1, high), rtol=1e-9)


@pytest.mark.parametrize(
    ("k", "n", "exact", "score"),
    [  # R. Newcombe, Statistics in Medicine 17 (1998) 857-872, table I: methods 5 and 3
        (81, 263, (0.2527, 0.3676), (0.2553, 0.3662)),
        (15, 148, (0.0578, 0.1617), (0.0624, 0.1605)),
        (0, 20, (0.0000, 0.1684), (0.0000, 0.1611)),
        (1, 29, (0.0009, 0.1776), (0.0061, 0.1718)),
    ],
)
def test_intervals_reproduce_the_published_table(k, n, exact, score):
    for interval, (low, high) in ((clopper_pearson(k, n), exact), (wilson(k, n), score)):
        assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("n", [1, 7, 300, 10_000_000])
def test_clopper_pearson_has_its_closed_form_at_the_ends(n):
    none = clopper_pearson(0, n, side="upper")
    every = clopper_pearson(n, n, side="lower")
    assert none.low == 0.0
    assert every.high == 1.0
    assert none.high == pytest.approx(-np.expm1(np.log(0.05) / n), rel=1e-12)
    assert every.low == pytest.approx(0.05 ** (1 / n), rel=1e-14)


def test_nothing_unsafe_in_three_hundred_is_at_most_one_percent():
    interval = clopper_pearson(0, 300, side="upper")
    assert interval.bounds() == "at most 1.0 %"
    assert interval.describe() == "at most 1.0 % (one-sided 95 %, Clopper-Pearson, n = 300)"


def test_rule_of_three_is_three_over_n_and_just_above_the_exact_bound():
    for n in (30, 300, 30_000):
        rule = rule_of_three(n)
        assert rule.high == 3 / n
        assert 1.0 < rule.high / clopper_pearson(0, n, side="upper").high < 1.06
    assert rule_of_three(2).high == 1.0
    assert rule_of_three(100, confidence=0.99).high == pytest.approx(0.0460517)


@settings(deadline=None, max_examples=150)
@given(counts(), CONFIDENCES, SIDES)
def test_the_estimate_is_inside_and_mirrored_counts_give_mirrored_intervals(count, confidence, side):
    k, n = count
    mirrored = {"two": "two", "upper": "lower", "lower": "upper"}[side]
    for method in (clopper_pearson, wilson):
        here = method(k, n, confidence=confidence, side=side)
        there = method(n - k, n, confidence=confidence, side=mirrored)
        assert 0.0 <= here.low <= k / n <= here.high <= 1.0
        assert (here.low, here.high) == pytest.approx((1 - there.high, 1 - there.low), abs=1e-12)


@settings(deadline=None, max_examples=150)
@given(counts(), CONFIDENCES)
def test_bounds_move_with_hits_cases_and_confidence(count, confidence):
    k, n = count
    for method in (clopper_pearson, wilson):

        def upper(hits, cases, level=confidence, method=method):
            return method(hits, cases, confidence=level, side="upper").high

        here = upper(k, n)
        if k < n:
            assert upper(k + 1, n) > here
            assert upper(k, n + 1) < here
            assert upper(k, n, level=(1 + confidence) / 2) > here
        assert upper(k + 1, n + 1) >= here


@settings(deadline=None, max_examples=150)
@given(counts(), CONFIDENCES)
def test_the_exact_bound_is_where_the_exact_test_turns(count, confidence):
    k, n = count
    high = clopper_pearson(k, n, confidence=confidence, side="upper").high
    low = clopper_pearson(k, n, confidence=confidence, side="lower").low
    if k < n:
        assert binomial_tails(k, n, high)[0] == pytest.approx(1 - confidence, rel=1e-8)
    if k > 0:
        assert binomial_tails(k - 1, n, low)[1] == pytest.approx(1 - confidence, rel=1e-8)


@pytest.mark.parametrize("n", [5, 40, 300])
def test_coverage_of_the_exact_interval_is_never_below_its_level(n):
    for confidence in (0.9, 0.95):
        for side in ("two", "upper", "lower"):
            cover, _ = exact_coverage(clopper_pearson, n, confidence=confidence, side=side)
            assert cover.min() >= confidence - 1e-9


@pytest.mark.parametrize("n", [40, 300])
def test_coverage_of_the_score_interval_is_right_on_average(n):
    cover, rates = exact_coverage(wilson, n, confidence=0.95, side="two")
    inner = cover[(rates > 5 / n) & (rates < 1 - 5 / n)]
    assert inner.mean() == pytest.approx(0.95, abs=0.006)
    assert inner.min() > 0.91


def exact_coverage(method, n, *, confidence, side):
    """The chance, summed over every outcome, that the interval holds the true rate."""
    rates = np.linspace(0.0005, 0.9995, 777)
    intervals = [method(k, n, confidence=confidence, side=side) for k in range(n + 1)]
    low, high = np.array([i.low for i in intervals]), np.array([i.high for i in intervals])
    inside = (low <= rates[:, None]) & (rates[:, None] <= high)
    return (scipy.stats.binom.pmf(np.arange(n + 1), n, rates[:, None]) * inside).sum(axis=1), rates


def test_effective_size_of_single_case_clusters_loses_only_one_case():
    size = effective_size([1] * 5 + [0] * 95, [1] * 100)
    assert size.n_effective == pytest.approx(99.0)
    assert size.basis == "measured"


def test_effective_size_of_copied_cases_is_the_number_of_originals():
    copied = effective_size([10] * 30 + [0] * 70, [10] * 100)
    ratio = scipy.stats.t.ppf(0.95, 999) / scipy.stats.t.ppf(0.95, 99)
    assert copied.n_effective == pytest.approx(99.0 * ratio**2)
    assert copied.design_effect == pytest.approx(1000 / copied.n_effective)


def test_effective_size_matches_the_linearised_variance_computed_apart():
    rng = np.random.default_rng(5)
    for _ in range(50):
        sizes = rng.integers(1, 12, rng.integers(5, 40))
        hits = rng.binomial(sizes, rng.beta(1, 4, len(sizes)))
        if not 0 < hits.sum() < sizes.sum():
            continue
        g, n, p = len(sizes), sizes.sum(), hits.sum() / sizes.sum()
        variance = np.var((hits - p * sizes) / n, ddof=1) * g
        ratio = scipy.stats.t.ppf(0.975, n - 1) / scipy.stats.t.ppf(0.975, g - 1)
        expected = min(n, max(1.0, p * (1 - p) / variance * ratio**2))
        found = effective_size(hits.tolist(), sizes.tolist(), tail=0.025)
        assert found.n_effective == pytest.approx(expected, rel=1e-9)


def test_without_hits_the_effective_size_is_the_careful_one_unless_told_otherwise():
    careful = korn_graubard([0] * 30, [10] * 30, side="upper")
    assert careful.n == 30
    assert careful.high == pytest.approx(clopper_pearson(0, 30, side="upper").high)
    told = effective_size([0] * 30, [10] * 30, assumed_icc=0.1)
    assert (told.basis, told.n_effective) == ("assumed", pytest.approx(300 / 1.9))
    independent = korn_graubard([0] * 30, [10] * 30, side="upper", assumed_icc=0.0)
    assert independent.high == pytest.approx(clopper_pearson(0, 300, side="upper").high)


def test_one_cluster_is_worth_one_case():
    assert effective_size([3], [50]).n_effective == pytest.approx(1.0)


def test_coverage_under_clusters_holds_where_the_naive_interval_fails():
    rng = np.random.default_rng(6)
    rate, icc, clusters, size = 0.1, 0.3, 60, 8
    scale = (1 - icc) / icc
    hits = rng.binomial(size, rng.beta(rate * scale, (1 - rate) * scale, (800, clusters)))
    ours = [rate in korn_graubard(row, [size] * clusters) for row in hits.tolist()]
    naive = [rate in clopper_pearson(sum(row), size * clusters) for row in hits.tolist()]
    assert np.mean(ours) > 0.93
    assert np.mean(naive) < 0.85


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: clopper_pearson(1, 0), "at least one case"),
        (lambda: clopper_pearson(4, 3), "4 hits in 3 cases is impossible"),
        (lambda: wilson(-1, 3), "hits must be between 0 and 3"),
        (lambda: wilson(1.5, 3), "whole number"),
        (lambda: wilson(1, 3, confidence=95), r"Write 0\.95 for 95 %"),
        (lambda: wilson(1, 3, confidence=1.0), "between 0 and 1"),
        (lambda: clopper_pearson(1, 3, side="both"), "two, upper, lower"),
        (lambda: rule_of_three(0), "at least one case"),
        (lambda: effective_size([1], [1, 2]), "do not match"),
        (lambda: effective_size([3], [2]), "cluster 0: 3 hits in 2 cases"),
        (lambda: effective_size([], []), "at least one case"),
        (lambda: effective_size([0], [2], assumed_icc=1.5), "between 0 and 1"),
    ],
)
def test_bad_input_is_refused_in_clear_words(call, words):
    with pytest.raises(UsageError, match=words):
        call()


def test_numpy_counts_are_accepted():
    assert clopper_pearson(np.int64(1), np.int64(9)) == clopper_pearson(1, 9)
