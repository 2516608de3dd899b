import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.proportion import confint_proportions_2indep

from stanchion.core.errors import UsageError
from stanchion.stats.comparison import mcnemar_exact, paired_difference, unpaired_difference

CELL = st.integers(0, 40)
METHODS = ["tango", "newcombe"]
TABLES = st.tuples(CELL, CELL, CELL, CELL).filter(any)


def test_mcnemar_agrees_with_the_exact_binomial_test():
    rng = np.random.default_rng(1)
    kinds = {"two": "two-sided", "greater": "less", "less": "greater"}  # theirs counts b, ours asks about c
    for b, c in rng.integers(0, 60, (500, 2)).tolist():
        for ours, theirs in kinds.items():
            expected = scipy.stats.binomtest(b, b + c, 0.5, alternative=theirs).pvalue if b + c else 1.0
            assert mcnemar_exact(b, c, alternative=ours).p_value == pytest.approx(expected, rel=1e-9)


def test_mcnemar_reproduces_the_published_example():
    # airway hyper-responsiveness, Fagerland, Lydersen and Laake (2013), table 5
    assert mcnemar_exact(1, 7).p_value == pytest.approx(0.0703, abs=5e-5)
    assert mcnemar_exact(1, 7, mid_p=True).p_value == pytest.approx(0.0391, abs=5e-5)


def test_a_one_sided_mid_p_counts_half_of_the_observed_outcome():
    exact = mcnemar_exact(3, 9, alternative="greater").p_value
    mid = mcnemar_exact(3, 9, alternative="greater", mid_p=True).p_value
    assert mid == pytest.approx(exact - scipy.stats.binom.pmf(3, 12, 0.5) / 2)


def test_without_a_changed_pair_there_is_no_evidence_of_change():
    for mid_p in (False, True):
        assert mcnemar_exact(0, 0, mid_p=mid_p).p_value == 1.0
        assert mcnemar_exact(9, 9, mid_p=mid_p).p_value == pytest.approx(1.0)


def test_mcnemar_keeps_its_level_and_the_mid_p_comes_close_to_it():
    for n in (10, 25, 60):
        weights = scipy.stats.binom.pmf(np.arange(n + 1), n, 0.5)
        exact = [mcnemar_exact(b, n - b).p_value <= 0.05 for b in range(n + 1)]
        mid = [mcnemar_exact(b, n - b, mid_p=True).p_value <= 0.05 for b in range(n + 1)]
        assert weights @ exact <= 0.05
        assert weights @ exact <= weights @ mid <= 0.06


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 500), st.integers(0, 500))
def test_mcnemar_is_symmetric_and_its_sides_fit_together(b, c):
    two = mcnemar_exact(b, c).p_value
    greater, less = (mcnemar_exact(b, c, alternative=a).p_value for a in ("greater", "less"))
    assert two == mcnemar_exact(c, b).p_value
    assert greater == mcnemar_exact(c, b, alternative="less").p_value
    assert two == pytest.approx(min(1.0, 2 * min(greater, less)))
    assert mcnemar_exact(b, c, mid_p=True).p_value <= two
    assert mcnemar_exact(b, c + 1, alternative="greater").p_value <= greater


def test_paired_intervals_reproduce_the_published_example():
    # Fagerland, Lydersen and Laake, Statistics in Medicine 33 (2014) 2850-2875: 1, 1, 7, 12 of 21
    tango = paired_difference(1, 1, 7, 12)
    newcombe = paired_difference(1, 1, 7, 12, method="newcombe")
    assert tango.estimate == pytest.approx(6 / 21)
    assert (tango.low, tango.high) == pytest.approx((0.026, 0.517), abs=5e-4)
    assert (newcombe.low, newcombe.high) == pytest.approx((0.026, 0.507), abs=5e-4)


def score_by_numeric_likelihood(delta, down, up, n):
    """Tango's statistic with the nuisance parameter found by maximising the likelihood numerically."""

    def minus_log_likelihood(q):
        cells = ((down, q), (up, q + delta), (n - down - up, 1 - 2 * q - delta))
        return -sum(count * math.log(p) if p > 0 else -math.inf for count, p in cells if count)

    floor, ceiling = max(0.0, -delta), (1 - delta) / 2
    found = scipy.optimize.minimize_scalar(
        minus_log_likelihood, bounds=(floor, ceiling), method="bounded", options={"xatol": 1e-13}
    )
    options = [q for q in (found.x, floor, ceiling) if math.isfinite(minus_log_likelihood(q))]
    q = min(options, key=minus_log_likelihood)
    return (up - down - n * delta) / math.sqrt(n * (2 * q + delta * (1 - delta)))


@pytest.mark.parametrize("seed", range(40))
def test_tango_bounds_are_where_the_score_of_a_numeric_likelihood_is_z(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(5, 400))
    down, up, _ = (int(v) for v in rng.multinomial(n, rng.dirichlet([0.3, 0.3, 1.5])))
    found = paired_difference(0, down, up, n - down - up)
    z = scipy.stats.norm.ppf(0.975)
    if found.low > -1:
        assert score_by_numeric_likelihood(found.low, down, up, n) == pytest.approx(z, abs=1e-4)
    if found.high < 1:
        assert score_by_numeric_likelihood(found.high, down, up, n) == pytest.approx(-z, abs=1e-4)


def test_tango_without_a_changed_pair_has_its_closed_form():
    z2 = scipy.stats.norm.ppf(0.975) ** 2
    for n in (1, 10, 300):
        found = paired_difference(n // 2, 0, 0, n - n // 2)
        assert (found.estimate, found.high) == (0.0, pytest.approx(z2 / (n + z2)))
        assert found.low == pytest.approx(-found.high)
        assert found.describe().startswith("0 points (-")


@pytest.mark.parametrize("method", METHODS)
def test_a_complete_change_ends_at_one(method):
    assert paired_difference(0, 0, 10, 0, method=method).high == 1.0
    assert paired_difference(0, 10, 0, 0, method=method).low == -1.0
    assert 0.4 < paired_difference(0, 0, 10, 0, method=method).low < 0.75


@settings(deadline=None, max_examples=120)
@given(TABLES, st.sampled_from([0.8, 0.95, 0.99]))
def test_paired_intervals_hold_the_estimate_and_mirror_when_the_arms_swap(table, confidence):
    n11, n10, n01, n00 = table
    for method in METHODS:
        here = paired_difference(*table, confidence=confidence, method=method)
        swapped = paired_difference(n11, n01, n10, n00, confidence=confidence, method=method)
        assert -1 <= here.low <= here.estimate <= here.high <= 1
        assert (here.low, here.high) == pytest.approx((-swapped.high, -swapped.low), abs=1e-9)
        wider = paired_difference(*table, confidence=(1 + confidence) / 2, method=method)
        assert wider.low <= here.low + 1e-12
        assert here.high <= wider.high + 1e-12


@pytest.mark.parametrize("side", ["upper", "lower"])
def test_a_one_sided_interval_is_one_end_of_a_two_sided_one(side):
    one = paired_difference(40, 5, 12, 60, side=side)
    two = paired_difference(40, 5, 12, 60, confidence=0.9)
    assert one.high == pytest.approx(two.high if side == "upper" else 1.0)
    assert one.low == pytest.approx(two.low if side == "lower" else -1.0)


@pytest.mark.parametrize("probabilities", [(0.1, 0.1), (0.02, 0.05), (0.3, 0.1), (0.01, 0.01)])
@pytest.mark.parametrize(("method", "floor"), [("tango", 0.93), ("newcombe", 0.93)])
def test_coverage_of_paired_intervals_summed_over_every_table(probabilities, method, floor):
    n, (down, up) = 40, probabilities
    both = 0.2
    total = 0.0
    covered = 0.0
    for b in range(n + 1):
        for c in range(n + 1 - b):
            weight = scipy_multinomial(b, c, n, down, up)
            if weight < 1e-7:
                continue
            n11 = round((n - b - c) * both / (1 - down - up))
            found = paired_difference(n11, b, c, n - b - c - n11, method=method)
            total += weight
            covered += weight * (found.low <= up - down <= found.high)
    assert total > 0.9999
    assert floor < covered <= 1.0


def scipy_multinomial(b, c, n, down, up):
    first = math.lgamma(n + 1) - math.lgamma(b + 1) - math.lgamma(c + 1) - math.lgamma(n - b - c + 1)
    return math.exp(first + b * math.log(down) + c * math.log(up) + (n - b - c) * math.log1p(-down - up))


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [  # R. Newcombe, Statistics in Medicine 17 (1998) 873-890, table II, method 10 (theirs is first - second)
        ((48, 80), (56, 70), 0.0524, 0.3339),
        ((3, 10), (9, 10), 0.1705, 0.8090),
        ((0, 29), (5, 56), -0.0381, 0.1926),
        ((0, 10), (0, 10), -0.2775, 0.2775),
        ((0, 10), (10, 10), 0.6075, 1.0000),
    ],
)
def test_unpaired_intervals_reproduce_the_published_table(first, second, low, high):
    found = unpaired_difference(first, second)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


def test_unpaired_intervals_agree_with_statsmodels():
    rng = np.random.default_rng(4)
    for _ in range(1500):
        n1, n2 = (int(v) for v in rng.integers(1, 3000, 2))
        k1, k2 = int(rng.integers(0, n1 + 1)), int(rng.integers(0, n2 + 1))
        theirs = confint_proportions_2indep(k2, n2, k1, n1, method="newcomb", compare="diff")
        found = unpaired_difference((k1, n1), (k2, n2))
        assert (found.low, found.high) == pytest.approx(theirs, abs=1e-9)


def test_pairing_sees_more_than_not_pairing():
    paired = paired_difference(95, 2, 3, 100)
    apart = unpaired_difference((97, 200), (98, 200))
    assert paired.high - paired.low < (apart.high - apart.low) / 3


def test_a_difference_describes_itself():
    words = paired_difference(10, 2, 8, 230).describe()
    assert words == "+2.4 points (-0.097 to +5.5 points, two-sided 95 %, Tango, n = 250)"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: mcnemar_exact(-1, 2), "cannot be negative"),
        (lambda: mcnemar_exact(1, 2, alternative="upper"), "two, greater, less"),
        (lambda: paired_difference(0, 0, 0, 0), "at least one case"),
        (lambda: paired_difference(3, -1, 2, 1), "impossible"),
        (lambda: paired_difference(1, 1, 1, 1, method="wald"), "tango, newcombe"),
        (lambda: paired_difference(1, 1, 1, 1, side="both"), "two, upper, lower"),
        (lambda: unpaired_difference((1, 2), (3, 2)), "3 hits in 2 cases"),
    ],
)
def test_bad_tables_are_refused_in_clear_words(call, words):
    with pytest.raises(UsageError, match=words):
        call()
