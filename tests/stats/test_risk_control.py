import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.core.errors import UsageError
from stanchion.stats.risk_control import (
    binomial_p_value,
    certify,
    certify_each,
    certify_jointly,
    hoeffding_bentkus_p_value,
    threshold_grid,
)


@pytest.mark.parametrize(("alarms", "rows"), [(0, 59), (1, 93), (2, 124), (3, 153), (4, 181)])
def test_the_sizes_are_those_of_wilkss_tolerance_limits(alarms, rows):
    """95 % / 95 %: 59, 93, 124, 153, 181 (S. Wilks, Annals of Mathematical Statistics 12 (1941) 91-96)."""
    scores = [1.0] * alarms
    assert certify(scores + [0.1] * (rows - alarms), alpha=0.05).lowest is not None
    assert certify(scores + [0.1] * (rows - alarms - 1), alpha=0.05).lowest is None


def test_binomial_p_values_agree_with_scipy():
    for k, n, alpha in [(0, 300, 0.01), (3, 500, 0.02), (17, 1000, 0.03), (9, 10, 0.5)]:
        assert binomial_p_value(k, n, alpha) == pytest.approx(scipy.stats.binom.cdf(k, n, alpha), rel=1e-9)


def test_hoeffding_bentkus_is_its_closed_forms():
    assert hoeffding_bentkus_p_value(0, 300, 0.01) == pytest.approx(0.99**300, rel=1e-9)
    n, loss, alpha = 400, 6.5, 0.05
    r = loss / n
    h = r * math.log(r / alpha) + (1 - r) * math.log((1 - r) / (1 - alpha))
    bentkus = math.e * scipy.stats.binom.cdf(7, n, alpha)
    assert hoeffding_bentkus_p_value(loss, n, alpha) == pytest.approx(min(math.exp(-n * h), bentkus))
    assert hoeffding_bentkus_p_value(30, 400, 0.05) == 1.0


def test_the_certified_threshold_is_just_above_the_row_that_would_break_it():
    """300 rows at 1 %: no alarm is allowed, so the threshold lies above the greatest score."""
    scores = (np.arange(300) / 1000).tolist()
    found = certify(scores, alpha=0.01)
    assert found.lowest == pytest.approx(0.2991)
    assert found.highest == 1.0
    assert found.p_value == "binomial"


def test_too_few_rows_say_how_many_more():
    found = certify([0.1] * 200, alpha=0.01)
    assert found.thresholds == ()
    assert found.more == 99
    assert certify([0.1] * 299, alpha=0.01).thresholds


def test_a_detector_that_is_sure_of_benign_rows_is_never_certified():
    found = certify([1.0] * 50 + [0.0] * 450, alpha=0.01)
    assert found.thresholds == ()
    assert found.losses == 50
    assert found.more is not None
    assert found.more > 5000  # 50 alarms in how many rows would still be 1 %


def test_misses_are_certified_from_below():
    found = certify([0.3] * 100 + [0.9] * 200, alpha=0.05, risk="misses")
    assert found.lowest == threshold_grid()[0]
    assert found.highest == pytest.approx(0.3)


def test_both_limits_at_once_where_the_classes_are_apart_and_not_where_they_overlap():
    good = certify_jointly([0.1] * 400, [0.9] * 100, max_false_alarms=0.01, max_misses=0.05)
    assert min(good.thresholds) > 0.1
    assert max(good.thresholds) == pytest.approx(0.9)
    bad = certify_jointly([0.6] * 400, [0.4] * 100, max_false_alarms=0.01, max_misses=0.05)
    assert bad.thresholds == ()
    assert bad.false_alarms.thresholds
    assert bad.misses.thresholds


def test_repeats_of_one_group_are_not_evidence():
    scores, groups = [0.1] * 300, [f"user{i % 30}" for i in range(300)]
    assert certify(scores, alpha=0.01).thresholds
    grouped = certify(scores, alpha=0.01, groups=groups)
    assert grouped.thresholds == ()
    assert (grouped.n, grouped.more) == (30, 269)


def test_groups_of_one_row_each_are_rows():
    scores = [0.1] * 300
    assert certify(scores, alpha=0.01, groups=list(range(300))).p_value == "binomial"


def test_holm_and_bonferroni_certify_a_short_grid_more_carefully():
    scores = np.random.default_rng(1).beta(1, 8, 600).tolist()
    grid = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    by = {
        kind: certify(scores, alpha=0.05, grid=grid, testing=kind).thresholds
        for kind in ("fixed-sequence", "holm", "bonferroni")
    }
    assert set(by["bonferroni"]) <= set(by["holm"]) <= set(by["fixed-sequence"])
    assert by["bonferroni"]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=400), st.sampled_from([0.01, 0.05, 0.2]))
@settings(max_examples=100, deadline=None)
def test_certified_thresholds_are_an_upper_part_of_the_grid_and_keep_the_empirical_rate(scores, alpha):
    found = certify(scores, alpha=alpha)
    if found.thresholds:
        assert found.thresholds == threshold_grid()[-len(found.thresholds) :]
        assert sum(s >= found.lowest for s in scores) / len(scores) <= alpha


SHORT = tuple(step / 500 for step in range(1, 501))  # a short grid, for many trials


def violations(seed, trials, draw, risk_at, **options):
    """The share of trials in which the chosen threshold's true risk is above the limit, and of empty ones."""
    rng = np.random.default_rng(seed)
    wrong = empty = 0
    for _ in range(trials):
        scores, groups = draw(rng)
        found = certify(scores, groups=groups, grid=SHORT, **options)
        if found.lowest is None:
            empty += 1
        elif risk_at(found.lowest) > options["alpha"]:
            wrong += 1
    return wrong / trials, empty / trials


@pytest.mark.slow
@pytest.mark.parametrize(("n", "alpha"), [(300, 0.02), (500, 0.05), (1000, 0.01)])
def test_the_guarantee_holds_over_trials(n, alpha):
    """Scores from Beta(1, 6): the true rate is known. 2,000 trials; 3 deviations allowed."""
    share, empty = violations(
        7,
        2000,
        lambda rng: (rng.beta(1, 6, n).tolist(), None),
        lambda t: scipy.stats.beta.sf(t, 1, 6),
        alpha=alpha,
        confidence=0.9,
    )
    assert empty == 0
    assert share <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / 2000)
    assert share >= 0.02  # and it is not so careful that it says nothing


@pytest.mark.slow
def test_the_guarantee_holds_for_groups_that_share_their_luck_and_would_not_without_them():
    """Users send 1 to 20 texts; a user's texts share a level. The risk: a random text of a random user."""

    def draw(rng):
        sizes = rng.integers(1, 21, 200)
        level = rng.beta(0.3, 5, 200)
        users = np.repeat(np.arange(200), sizes)
        noise = rng.beta(1, 30, users.size)
        return np.clip(level[users] + noise, 0, 1).tolist(), users.tolist()

    rng = np.random.default_rng(0)
    population = np.sort(np.clip(rng.beta(0.3, 5, 2_000_000) + rng.beta(1, 30, 2_000_000), 0, 1))

    def risk(threshold):
        return 1 - np.searchsorted(population, threshold) / population.size

    options = {"alpha": 0.05, "confidence": 0.9}
    grouped, _ = violations(3, 500, draw, risk, **options)
    naive, _ = violations(3, 500, lambda rng: (draw(rng)[0], None), risk, **options)
    assert grouped <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / 500)
    assert naive > 0.2


@pytest.mark.slow
def test_the_joint_guarantee_holds_over_trials():
    rng = np.random.default_rng(11)
    wrong, trials = 0, 400
    for _ in range(trials):
        joint = certify_jointly(
            rng.beta(1, 8, 400).tolist(),
            rng.beta(6, 2, 200).tolist(),
            max_false_alarms=0.05,
            max_misses=0.2,
            confidence=0.9,
        )
        for threshold in (joint.thresholds[0], joint.thresholds[-1]) if joint.thresholds else ():
            alarms, misses = scipy.stats.beta.sf(threshold, 1, 8), scipy.stats.beta.cdf(threshold, 6, 2)
            if alarms > 0.05 or misses > 0.2:
                wrong += 1
                break
    assert wrong / trials <= 0.1 + 3 * math.sqrt(0.09 / trials)


def test_each_of_several_origins_pays_for_the_others():
    rows = [0.1] * 299
    assert certify_each({"user": rows}, alpha=0.01)["user"].thresholds
    both = certify_each({"user": rows, "retrieved": rows}, alpha=0.01)
    assert both["user"].thresholds == ()
    assert both["user"].more == 368 - 299  # log(0.025) / log(0.99), rounded up


@pytest.mark.parametrize(
    ("scores", "options", "said"),
    [
        ([], {"alpha": 0.01}, "no scores"),
        ([0.5], {"alpha": 1.0}, "Write 0.01"),
        ([2.0], {"alpha": 0.1}, "between 0 and 1"),
        ([float("nan")], {"alpha": 0.1}, "between 0 and 1"),
        ([0.5], {"alpha": 0.1, "groups": []}, "do not match"),
        ([0.5], {"alpha": 0.1, "confidence": 95}, "confidence"),
    ],
)
def test_what_means_nothing_is_refused(scores, options, said):
    with pytest.raises(UsageError, match=said):
        certify(scores, **options)
