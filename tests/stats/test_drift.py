import numpy as np
import pytest
import scipy.stats

from stanchion.core.errors import UsageError
from stanchion.stats.drift import ScoreSketch, SequentialDrift, drift, population_stability, sketch


def scores(rng, n, *, a=1.0, b=8.0, zeros=0.5):
    """What a detector gives: many exact zeros, the rest small."""
    found = rng.beta(a, b, n)
    found[rng.random(n) < zeros] = 0.0
    return found.tolist()


def test_a_sketch_holds_every_score_once_and_has_the_cut_as_an_edge():
    rng = np.random.default_rng(1)
    made = sketch(scores(rng, 500), cuts=[0.3])
    assert made.n == 500
    assert 0.3 in made.edges
    assert made.edges[0] == 0.0
    assert list(made.edges) == sorted(set(made.edges))
    assert sum(made.counted([0.0, 1.0, 0.3])) == 3
    assert made.bin_of(1.0) == len(made.edges) - 1


def test_population_stability_is_the_textbook_sum_and_nothing_without_change():
    before, fresh = [100_000, 300_000, 600_000], [200_000, 300_000, 500_000]
    p, q = np.array(before) / 1e6, np.array(fresh) / 1e6
    assert population_stability(before, fresh) == pytest.approx(((q - p) * np.log(q / p)).sum(), rel=1e-4)
    assert population_stability(before, before) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize(("n", "m"), [(300, 100), (300, 1000)])
def test_no_change_is_called_stale_no_more_often_than_the_level_says(n, m):
    """Level 5 %, 400 trials, with ties and edges taken from the data, as in use."""
    rng = np.random.default_rng(5)
    wrong = 0
    for trial in range(400):
        before = scores(rng, n)
        cut = float(np.quantile(before, 0.99))
        made = sketch(before, cuts=[cut])
        found = drift(made, scores(rng, m), level=0.05, threshold=cut, seed=trial, simulations=400)
        wrong += found.is_stale
    assert wrong / 400 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)


def test_a_shift_of_the_bulk_and_a_shift_of_the_tail_are_both_seen():
    rng = np.random.default_rng(2)
    made = sketch(scores(rng, 400), cuts=[0.5])
    assert drift(made, scores(rng, 400, zeros=0.2), threshold=0.5).is_stale
    tail = [*scores(rng, 380), *[0.9] * 20]
    found = drift(made, tail, threshold=0.5)
    assert found.is_stale
    by_name = {one.name: one for one in found.tests}
    assert by_name["share of alarms"].adjusted_p_value < 0.01
    assert by_name["Kolmogorov-Smirnov"].p_value > 0.01  # which is blind to five rows in a hundred
    assert found.alarm_share_fresh == pytest.approx(0.05, abs=0.01)


def test_the_kolmogorov_smirnov_p_value_agrees_with_scipy_where_every_score_has_its_bin():
    rng = np.random.default_rng(3)
    grid = np.arange(40) / 40
    first, second = rng.choice(grid, 120), rng.choice(grid**1.3, 90)
    edges = tuple(sorted({0.0, *grid.tolist(), *(grid**1.3).tolist()}))
    empty = ScoreSketch(edges=edges, counts=(0,) * len(edges))
    made = ScoreSketch(edges=edges, counts=empty.counted(first.tolist()))
    found = {one.name: one for one in drift(made, second.tolist(), simulations=8000).tests}
    ks = found["Kolmogorov-Smirnov"]
    theirs = scipy.stats.permutation_test(
        (first, second),
        lambda x, y: scipy.stats.ks_2samp(x, y, method="asymp").statistic,
        n_resamples=2000,
        rng=np.random.default_rng(1),
        alternative="greater",
    )
    assert ks.statistic == pytest.approx(theirs.statistic)
    assert ks.p_value == pytest.approx(theirs.pvalue, abs=0.04)


@pytest.mark.slow
def test_the_sequential_test_stays_quiet_without_change_and_wakes_after_one():
    rng = np.random.default_rng(4)
    false_flags = 0
    for trial in range(200):
        watch = SequentialDrift(sketch(scores(rng, 300)), level=0.05, seed=trial)
        for score in scores(rng, 400):
            watch.update(score)
        false_flags += watch.is_stale
    assert false_flags / 200 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)
    for trial in range(20):
        watch = SequentialDrift(sketch(scores(rng, 300)), level=0.01, seed=trial)
        for score in scores(rng, 400, zeros=0.1):
            watch.update(score)
        assert watch.is_stale
        assert watch.seen == 400


def test_equal_input_gives_equal_output():
    rng = np.random.default_rng(6)
    made, fresh = sketch(scores(rng, 200)), scores(rng, 100)
    assert drift(made, fresh) == drift(made, fresh)
    one, two = SequentialDrift(made, seed=3), SequentialDrift(made, seed=3)
    assert [one.update(s) for s in fresh] == [two.update(s) for s in fresh]


def test_what_means_nothing_is_refused():
    made = sketch([0.1, 0.2])
    with pytest.raises(UsageError, match="both sides"):
        drift(made, [])
    with pytest.raises(UsageError, match="between 0 and 1"):
        drift(made, [1.5])
    with pytest.raises(UsageError, match="simulations"):
        drift(made, [0.1], level=1e-6)
    with pytest.raises(UsageError, match="no scores"):
        sketch([])
    with pytest.raises(UsageError):
        SequentialDrift(made).update(float("nan"))
