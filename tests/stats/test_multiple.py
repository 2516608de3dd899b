import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from stanchion.core.errors import UsageError
from stanchion.stats.multiple import benjamini_hochberg, holm

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=30)


def tied_p_values(seed, count, *, most):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        p = rng.uniform(0, 1, rng.integers(1, most)) ** rng.integers(1, 6)
        yield np.round(p, int(rng.integers(1, 8)))


def test_benjamini_hochberg_agrees_with_statsmodels():
    for p in tied_p_values(1, 1000, most=40):
        expected = multipletests(p, method="fdr_bh")[1]
        np.testing.assert_allclose(benjamini_hochberg(p.tolist()).p_values, expected, rtol=1e-12)


def test_holm_agrees_with_statsmodels():
    for p in tied_p_values(2, 10, most=150):  # theirs takes 40 ms a list
        np.testing.assert_allclose(holm(p.tolist()).p_values, multipletests(p, method="holm")[1], rtol=1e-12)


def test_holm_is_the_running_maximum_of_the_definition():
    for p in tied_p_values(3, 1000, most=40):
        ordered = np.sort(p)
        steps = np.minimum(1, np.maximum.accumulate(ordered * np.arange(len(p), 0, -1)))
        np.testing.assert_allclose(sorted(holm(p.tolist()).p_values), steps, rtol=1e-12)


def test_the_example_of_benjamini_and_hochberg():
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344]
    p += [0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000]
    assert sum(benjamini_hochberg(p).rejected(0.05)) == 4  # JRSS B 57 (1995), section 4.1
    assert sum(holm(p).rejected(0.05)) == 3


@settings(deadline=None, max_examples=100)
@given(P_VALUES, st.randoms())
def test_adjustment_raises_keeps_order_and_ignores_the_order_of_arrival(p, random):
    for adjust in (holm, benjamini_hochberg):
        adjusted = adjust(p).p_values
        assert all(raw <= new <= 1 for raw, new in zip(p, adjusted, strict=True))
        order = sorted(range(len(p)), key=lambda i: p[i])
        assert all(adjusted[a] <= adjusted[b] for a, b in itertools.pairwise(order))
        shuffled = random.sample(range(len(p)), len(p))
        assert adjust([p[i] for i in shuffled]).p_values == tuple(adjusted[i] for i in shuffled)
    pairs = zip(benjamini_hochberg(p).p_values, holm(p).p_values, strict=True)
    assert all(discovery <= family + 1e-12 for discovery, family in pairs)


def test_nothing_is_adjusted_to_nothing():
    assert holm([]).p_values == benjamini_hochberg([]).p_values == ()


@pytest.mark.parametrize("bad", [-0.1, 1.2, float("nan")])
def test_what_is_not_a_p_value_is_refused(bad):
    with pytest.raises(UsageError, match="p-value 1 must be between 0 and 1"):
        holm([0.5, bad])
