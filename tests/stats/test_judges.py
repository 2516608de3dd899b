import math

import numpy as np
import pytest
from statsmodels.stats.inter_rater import cohens_kappa

from stanchion.core.errors import UsageError
from stanchion.stats.judges import JudgeError, corrected_rate, kappa, prediction_powered_rate


def test_rogan_and_gladens_estimate():
    """Sensitivity 0.9, specificity 0.95, apparent 0.135: the true rate is 0.1."""
    error = JudgeError(caught=90, unsafe=100, passed=190, safe=200)
    found = corrected_rate(135, 1000, error)
    assert found.rate == pytest.approx(0.1)
    assert found.apparent == pytest.approx(0.135)
    assert found.interval.low < 0.1 < found.interval.high


def test_an_uncertain_judge_widens_the_interval():
    sure = corrected_rate(135, 1000, JudgeError(caught=900, unsafe=1000, passed=1900, safe=2000))
    unsure = corrected_rate(135, 1000, JudgeError(caught=18, unsafe=20, passed=38, safe=40))
    assert unsure.interval.width > 2 * sure.interval.width


def coverage(*, rate, se, sp, unsafe, safe, judged, trials, seed):
    rng = np.random.default_rng(seed)
    held = naive = 0
    for _ in range(trials):
        error = JudgeError(
            caught=int(rng.binomial(unsafe, se)), unsafe=unsafe, passed=int(rng.binomial(safe, sp)), safe=safe
        )
        flagged = int(rng.binomial(judged, rate * se + (1 - rate) * (1 - sp)))
        held += rate in corrected_rate(flagged, judged, error).interval
        share = flagged / judged
        naive += abs(share - rate) <= 1.96 * math.sqrt(share * (1 - share) / judged)
    return held / trials, naive / trials


@pytest.mark.parametrize(
    ("rate", "unsafe", "safe"), [(0.05, 50, 100), (0.2, 50, 100), (0.02, 5, 40)], ids=["low", "high", "few"]
)
def test_the_corrected_interval_covers_where_the_judges_own_share_does_not(rate, unsafe, safe):
    held, naive = coverage(
        rate=rate, se=0.85, sp=0.9, unsafe=unsafe, safe=safe, judged=1000, trials=800, seed=1
    )
    assert held >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 800)
    assert naive < 0.7


def test_a_judge_that_is_a_coin_is_refused():
    with pytest.raises(UsageError, match="tells nothing"):
        corrected_rate(10, 100, JudgeError(caught=5, unsafe=10, passed=5, safe=10))


def test_kappa_agrees_with_statsmodels():
    rng = np.random.default_rng(2)
    first = rng.integers(0, 3, 200).tolist()
    second = [a if rng.random() < 0.7 else int(rng.integers(0, 3)) for a in first]
    table = np.zeros((3, 3))
    for a, b in zip(first, second, strict=True):
        table[a, b] += 1
    theirs = cohens_kappa(table)
    found = kappa(first, second)
    assert found.kappa == pytest.approx(theirs.kappa, abs=1e-12)
    assert found.low == pytest.approx(theirs.kappa_low, abs=1e-9)
    assert found.high == pytest.approx(theirs.kappa_upp, abs=1e-9)


def test_kappa_of_raters_who_only_ever_say_one_thing_is_not_known():
    found = kappa([0] * 20, [0] * 20)
    assert found.kappa is None
    assert found.agreed == 20


@pytest.mark.slow
def test_prediction_powered_intervals_cover_and_gain_from_a_good_judge():
    rng = np.random.default_rng(3)
    held, widths, plain = 0, [], []
    for _ in range(400):
        truth = (rng.random(3000) < 0.3).astype(int)
        verdict = np.where(rng.random(3000) < 0.9, truth, 1 - truth)
        found = prediction_powered_rate(truth[:200].tolist(), verdict[:200].tolist(), verdict[200:].tolist())
        held += 0.3 in found.interval
        widths.append(found.interval.width)
        share = truth[:200].mean()
        plain.append(2 * 1.96 * math.sqrt(share * (1 - share) / 200))
    assert held / 400 >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 400)
    assert np.mean(widths) < 0.8 * np.mean(plain)


def test_too_few_labels_carry_no_prediction_powered_rate():
    with pytest.raises(UsageError, match="at least 10 labels"):
        prediction_powered_rate([1, 0, 0], [0.9, 0.1, 0.1], [0.5] * 100)
