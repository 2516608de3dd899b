import math

import numpy as np
import pytest
import scipy.stats

from stanchion.core.errors import UsageError
from stanchion.stats.bootstrap import cluster_bootstrap, clustered_rate, paired_cluster_bootstrap
from stanchion.stats.intervals import clopper_pearson, korn_graubard


def clustered_hits(rng, *, rate, icc, clusters, size):
    scale = (1 - icc) / icc
    return rng.binomial(1, np.repeat(rng.beta(rate * scale, (1 - rate) * scale, clusters), size))


@pytest.mark.parametrize(("ours", "theirs"), [("bca", "BCa"), ("percentile", "percentile")])
def test_single_case_clusters_agree_with_the_bootstrap_of_scipy(ours, theirs):
    values = np.random.default_rng(1).gamma(0.7, size=80)
    found = cluster_bootstrap(
        values.tolist(), range(80), rng=np.random.default_rng(2), resamples=40_000, method=ours
    )
    peer = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=40_000, method=theirs, rng=np.random.default_rng(3)
    ).confidence_interval
    noise = 0.03 * (peer.high - peer.low)  # two independent sets of draws
    assert found.estimate == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((peer.low, peer.high), abs=noise)


def test_unequal_clusters_agree_with_a_bootstrap_written_out():
    rng = np.random.default_rng(4)
    groups = [rng.normal(rng.normal(), 1, rng.integers(1, 9)) for _ in range(30)]
    labels = [f"group {i}" for i, group in enumerate(groups) for _ in group]
    found = cluster_bootstrap(
        np.concatenate(groups).tolist(),
        labels,
        rng=np.random.default_rng(5),
        resamples=8000,
        method="percentile",
    )
    draws = [
        np.concatenate([groups[i] for i in rng.integers(0, len(groups), len(groups))]).mean()
        for _ in range(8000)
    ]
    low, high = np.quantile(draws, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.06 * (high - low))
    assert (found.cases, found.clusters) == (len(labels), 30)


def test_the_same_seed_gives_the_same_interval_and_labels_do_not_matter():
    scores = np.random.default_rng(1).uniform(size=200).tolist()

    def run(seed, names):
        return cluster_bootstrap(scores, np.repeat(names, 4).tolist(), rng=np.random.default_rng(seed))

    numbers, words = np.arange(50), np.array([f"c{i}" for i in range(50)])
    assert run(7, numbers) == run(7, words)
    assert run(7, numbers) != run(8, numbers)


def test_copying_every_case_leaves_the_interval_where_it_was():
    hits = clustered_hits(np.random.default_rng(1), rate=0.3, icc=0.1, clusters=60, size=1).tolist()
    once = cluster_bootstrap(hits, range(60), rng=np.random.default_rng(1))
    copied = cluster_bootstrap(hits * 5, list(range(60)) * 5, rng=np.random.default_rng(1))
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high))


def test_coverage_of_the_cluster_bootstrap_holds_where_the_naive_interval_fails():
    rng = np.random.default_rng(11)
    covered, naive = [], []
    labels = np.repeat(np.arange(60), 6).tolist()
    for _ in range(500):
        hits = clustered_hits(rng, rate=0.2, icc=0.4, clusters=60, size=6)
        found = cluster_bootstrap(hits.tolist(), labels, rng=rng, resamples=800)
        covered.append(found.low <= 0.2 <= found.high)
        naive.append(0.2 in clopper_pearson(int(hits.sum()), len(hits)))
    assert 0.915 < np.mean(covered) <= 0.98
    assert np.mean(naive) < 0.85


def test_pairing_takes_away_what_both_arms_share():
    rng = np.random.default_rng(12)
    first = clustered_hits(rng, rate=0.3, icc=0.6, clusters=80, size=5)
    second = np.where(rng.uniform(size=400) < 0.05, 1, first)
    labels = np.repeat(np.arange(80), 5).tolist()
    paired = paired_cluster_bootstrap(first.tolist(), second.tolist(), labels, rng=np.random.default_rng(1))
    alone = cluster_bootstrap(second.tolist(), labels, rng=np.random.default_rng(1))
    assert paired.estimate == pytest.approx(second.mean() - first.mean())
    assert 0 < paired.low <= paired.estimate <= paired.high
    assert paired.high - paired.low < (alone.high - alone.low) / 2


def test_one_sided_bounds_are_open_at_the_other_end():
    hits = clustered_hits(np.random.default_rng(1), rate=0.2, icc=0.2, clusters=50, size=4).tolist()
    labels = np.repeat(np.arange(50), 4).tolist()

    def run(**how):
        return cluster_bootstrap(hits, labels, rng=np.random.default_rng(1), **how)

    upper, lower, two = run(side="upper"), run(side="lower"), run(confidence=0.9)
    assert (upper.low, upper.high) == (-math.inf, pytest.approx(two.high))
    assert (lower.low, lower.high) == (pytest.approx(two.low), math.inf)


def test_a_rate_takes_the_method_that_can_carry_it():
    labels = np.repeat(np.arange(100), 3).tolist()
    rng = np.random.default_rng(1)
    none = clustered_rate([0] * 300, labels, rng=rng, side="upper")
    assert none == korn_graubard([0] * 100, [3] * 100, side="upper")
    assert none.high > clopper_pearson(0, 300, side="upper").high
    few = clustered_rate([1] * 5 + [0] * 295, labels, rng=rng)
    assert few.method == "Korn-Graubard"
    many = clustered_rate([1, 0, 0, 0] * 75, labels, rng=rng, side="upper")
    assert many.method == "cluster bootstrap (BCa)"
    assert (many.low, many.n) == (0.0, 300)
    few_clusters = clustered_rate([1, 0] * 150, [i % 20 for i in range(300)], rng=rng)
    assert few_clusters.method == "Korn-Graubard"


def test_identical_clusters_do_not_break_the_rate():
    found = clustered_rate([1, 0] * 50, np.repeat(np.arange(50), 2).tolist(), rng=np.random.default_rng(1))
    assert found.method == "Korn-Graubard"
    assert found == korn_graubard([1] * 50, [2] * 50)


def test_many_cases_are_drawn_in_bounded_memory():
    import tracemalloc

    rng = np.random.default_rng(1)
    hits = (rng.uniform(size=100_000) < 0.01).astype(float).tolist()
    labels = list(range(100_000))
    tracemalloc.start()
    cluster_bootstrap(hits, labels, rng=rng, resamples=200)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 120e6


@pytest.mark.parametrize(
    ("values", "labels", "how", "words"),
    [
        ([], [], {}, "at least one case"),
        ([1, 0], [1], {}, "do not match"),
        ([1, 0], ["a", "a"], {}, "at least two clusters"),
        ([0, 0, 0], [1, 2, 3], {}, "nothing to learn"),
        ([1, math.nan], [1, 2], {}, "finite"),
        ([1, 0], [1, 2], {"method": "t"}, "bca, percentile"),
        ([1, 0], [1, 2], {"resamples": 5}, "too few"),
        ([1, 0], [1, 2], {"confidence": 95}, r"0\.95"),
    ],
)
def test_what_a_bootstrap_cannot_answer_is_refused(values, labels, how, words):
    with pytest.raises(UsageError, match=words):
        cluster_bootstrap(values, labels, rng=np.random.default_rng(1), **how)


def test_arms_of_different_length_are_refused():
    with pytest.raises(UsageError, match="same cases on both sides, not 2 and 1"):
        paired_cluster_bootstrap([1, 0], [1], [1, 2], rng=np.random.default_rng(1))


def test_a_rate_of_scores_is_refused():
    with pytest.raises(UsageError, match="0 or 1"):
        clustered_rate([0.5], ["a"], rng=np.random.default_rng(1))
