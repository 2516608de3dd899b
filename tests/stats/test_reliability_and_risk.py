import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.core.errors import UsageError
from stanchion.stats.calibration import reliability
from stanchion.stats.score_maps import MAP_KINDS, cross_fitted, fit
from stanchion.stats.thresholds import Costs, daily_cost, operating_points


def calibrated_rows(seed, n, *, bend=1.0):
    """Scores, and labels drawn with the probability `score ** bend`."""
    rng = np.random.default_rng(seed)
    scores = rng.beta(1.0, 2.0, n)
    return scores.tolist(), (rng.random(n) < scores**bend).astype(int).tolist()


def test_brier_score_agrees_with_scikit_learn_and_its_parts_add_up():
    metrics = pytest.importorskip("sklearn.metrics", reason="the oracle is not installed")
    scores, labels = calibrated_rows(1, 800)
    found = reliability(scores, labels)
    assert found.brier.score == pytest.approx(metrics.brier_score_loss(labels, scores), abs=1e-12)
    parts = found.brier
    total = parts.reliability - parts.resolution + parts.uncertainty + parts.within_bins
    assert total == pytest.approx(parts.score, abs=1e-12)


def test_murphys_decomposition_is_exact_for_forecasts_that_are_constant_in_each_bin():
    """Nothing is left over when a bin holds one forecast: 10 days at 0.1 with 2 hits, 10 at 0.7 with 6."""
    scores = [0.1] * 10 + [0.7] * 10
    labels = [1, 1] + [0] * 8 + [1] * 6 + [0] * 4
    found = reliability(scores, labels, bins=2, draws=50)
    assert found.brier.within_bins == pytest.approx(0.0, abs=1e-12)
    assert found.brier.reliability == pytest.approx((10 * 0.1**2 + 10 * 0.1**2) / 20)
    assert found.brier.resolution == pytest.approx(0.2**2)
    assert found.brier.uncertainty == pytest.approx(0.4 * 0.6)
    assert found.calibration_error == pytest.approx(0.1)


def test_bins_are_about_equal_and_hold_every_row_once():
    scores, labels = calibrated_rows(2, 1000)
    found = reliability(scores, labels, bins=10, draws=20)
    assert len(found.bins) == 10
    assert sum(one.n for one in found.bins) == 1000
    assert {one.n for one in found.bins} == {100}
    assert sum(one.unsafe for one in found.bins) == sum(labels)
    assert all(a.high < b.low for a, b in zip(found.bins, found.bins[1:], strict=False))


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.integers(0, 1)), min_size=1, max_size=60)
)
@settings(max_examples=200, deadline=None)
def test_rows_of_one_score_share_a_bin(rows):
    found = reliability([s for s, _ in rows], [y for _, y in rows], draws=5)
    assert len(found.bins) == len({s for s, _ in rows}) or len(found.bins) <= 10
    assert sum(one.n for one in found.bins) == len(rows)
    assert all(0.0 <= one.share <= 1.0 for one in found.bins)


def test_the_debiased_error_of_a_calibrated_score_is_nearly_zero_where_the_plain_one_is_not():
    plain, debiased = [], []
    for seed in range(60):
        found = reliability(*calibrated_rows(seed, 200), bins=15, draws=2)
        plain.append(found.calibration_error)
        debiased.append(found.debiased_rms**2)
    assert np.mean(plain) > 0.06  # of noise alone
    assert np.mean(debiased) < 0.0025  # negative estimates are cut at 0, so not exactly 0


def test_a_score_that_misleads_is_seen():
    found = reliability(*calibrated_rows(3, 3000, bend=3.0))
    assert found.calibration_error_interval.low > 0.1
    assert found.debiased_rms > 0.1


@pytest.mark.parametrize("kind", MAP_KINDS)
def test_maps_mend_a_score_that_misleads_and_keep_the_order(kind):
    scores, labels = calibrated_rows(4, 3000, bend=3.0)
    mapped = cross_fitted(kind, scores, labels, seed=1)
    assert reliability(mapped, labels, draws=2).debiased_rms < 0.04
    made = fit(kind, scores, labels)
    values = [made(s) for s in np.linspace(0, 1, 101)]
    assert all(0.0 <= v <= 1.0 for v in values)
    assert values == sorted(values)


def test_isotonic_regression_agrees_with_scikit_learn_at_the_rows():
    isotonic = pytest.importorskip("sklearn.isotonic", reason="the oracle is not installed")
    scores, labels = calibrated_rows(5, 500)
    made = fit("isotonic", scores, labels)
    theirs = isotonic.IsotonicRegression().fit_transform(scores, labels)
    assert [made(s) for s in scores] == pytest.approx(theirs.tolist(), abs=1e-12)


def test_platt_scaling_maximises_the_likelihood_that_scipy_finds():
    optimize = pytest.importorskip("scipy.optimize")
    scores, labels = calibrated_rows(6, 400, bend=2.0)
    s, y = np.asarray(scores), np.asarray(labels)
    unsafe, benign = y.sum(), (1 - y).sum()
    targets = np.where(y == 1, (unsafe + 1) / (unsafe + 2), 1 / (benign + 2))
    x = np.log(s / (1 - s))

    def loss(w):
        z = w[0] * x + w[1]
        return float((np.logaddexp(0, z) - targets * z).sum())

    theirs = optimize.minimize(loss, [0.0, 0.0], method="BFGS").x
    assert fit("platt", scores, labels).coefficients == pytest.approx(theirs.tolist(), abs=1e-3)


def test_a_beta_map_never_turns_the_order_round():
    """Scores that mean the opposite: both slopes would be negative and are taken out."""
    scores, labels = calibrated_rows(7, 500)
    made = fit("beta", scores, [1 - y for y in labels])
    assert made.coefficients[:2] == (0.0, 0.0)
    assert made(0.1) == made(0.9)


def test_cross_fitting_keeps_groups_together():
    """One group holds all the rows of a score: its own label never reaches its own map."""
    scores = [0.1] * 50 + [0.9] * 50 + [0.5] * 10
    labels = [0] * 45 + [1] * 5 + [1] * 45 + [0] * 5 + [1] * 10
    groups = [f"row{i}" for i in range(100)] + ["one"] * 10
    mapped = cross_fitted("isotonic", scores, labels, groups=groups)
    assert len(set(mapped[100:])) == 1
    assert mapped[100] < 0.5  # with its own rows in the fit it would be near 1


@pytest.mark.parametrize(
    ("scores", "labels"), [([], []), ([0.5], [0, 1]), ([1.5], [1]), ([float("nan")], [0]), ([0.5], [2])]
)
def test_what_is_no_score_or_label_is_refused(scores, labels):
    with pytest.raises(UsageError):
        reliability(scores, labels)


def test_a_map_needs_both_labels():
    with pytest.raises(UsageError, match="benign and unsafe"):
        fit("platt", [0.1, 0.2], [0, 0])


def test_an_operating_point_counts_what_reaches_the_threshold():
    (point,) = operating_points([0.1, 0.5, 0.9, 0.2], [0.5, 0.4, 0.8], [0.5], prevalence=0.1)
    assert (point.false_alarms, point.benign, point.caught, point.unsafe) == (2, 4, 2, 3)
    recall, alarm = 2 / 3, 0.5
    assert point.precision == pytest.approx(0.1 * recall / (0.1 * recall + 0.9 * alarm))
    assert point.precision_low < point.precision < point.precision_high
    assert point.false_alarms_at_most > 0.5
    assert point.recall_at_least < 2 / 3


def test_without_unsafe_rows_recall_and_precision_are_not_known():
    (point,) = operating_points([0.1, 0.2], [], [0.5], prevalence=0.1)
    assert (point.recall, point.recall_at_least, point.precision) == (None, None, None)
    assert daily_cost(point, Costs(daily=100.0, prevalence=0.1)).cost is None


def test_the_cost_of_a_day_is_alarms_and_misses_at_their_prices():
    (point,) = operating_points([0.9] + [0.1] * 99, [0.9] * 80 + [0.1] * 20, [0.5])
    cost = daily_cost(point, Costs(miss=50.0, false_alarm=0.5, daily=10_000, prevalence=0.01))
    assert cost.false_alarms == pytest.approx(99.0)
    assert cost.misses == pytest.approx(20.0)
    assert cost.cost == pytest.approx(99 * 0.5 + 20 * 50)
    assert cost.cost_low < cost.cost < cost.cost_high
