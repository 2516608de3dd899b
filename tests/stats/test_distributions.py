import math

import numpy as np
import pytest
import scipy.special
import scipy.stats

from stanchion.stats.distributions import (
    beta_quantile,
    beta_tails,
    binomial_pmf,
    binomial_tails,
    normal_quantile,
    student_quantile,
)

RELATIVE = 1e-9


def test_beta_tails_agree_with_scipy_on_both_sides():
    rng = np.random.default_rng(1)
    a, b = 10 ** rng.uniform(-1, 6.5, (2, 4000))
    x = rng.beta(a, b)
    ours = np.array([beta_tails(*row) for row in zip(a.tolist(), b.tolist(), x.tolist(), strict=True)])
    np.testing.assert_allclose(ours[:, 0], scipy.special.betainc(a, b, x), rtol=RELATIVE, atol=1e-290)
    np.testing.assert_allclose(ours[:, 1], scipy.special.betaincc(a, b, x), rtol=RELATIVE, atol=1e-290)


def test_beta_quantile_agrees_with_scipy():
    rng = np.random.default_rng(2)
    a, b = 10 ** rng.uniform(0, 6.5, (2, 3000))
    p = rng.choice([1e-9, 1e-4, 0.005, 0.025, 0.05, 0.2, 0.5, 0.8, 0.975], 3000)
    ours = [beta_quantile(*row) for row in zip(p.tolist(), a.tolist(), b.tolist(), strict=True)]
    np.testing.assert_allclose(ours, scipy.stats.beta.ppf(p, a, b), rtol=RELATIVE)


@pytest.mark.parametrize("p", [1e-12, 0.05, 0.5, 0.95])
@pytest.mark.parametrize("b", [1.0, 3.5, 300.0, 1e7])
def test_beta_quantile_has_its_closed_form_at_a_equal_one(p, b):
    assert beta_quantile(p, 1.0, b) == pytest.approx(-math.expm1(math.log1p(-p) / b), rel=1e-12)


def test_binomial_tails_and_pmf_agree_with_scipy():
    rng = np.random.default_rng(3)
    n = (10 ** rng.uniform(0, 6, 3000)).astype(int)
    p = rng.uniform(0, 1, 3000) ** 3
    k = rng.binomial(n, p)
    rows = list(zip(k.tolist(), n.tolist(), p.tolist(), strict=True))
    tails = np.array([binomial_tails(*row) for row in rows])
    np.testing.assert_allclose(tails[:, 0], scipy.stats.binom.cdf(k, n, p), rtol=1e-8, atol=1e-290)
    np.testing.assert_allclose(tails[:, 1], scipy.stats.binom.sf(k, n, p), rtol=1e-8, atol=1e-290)
    pmf = [binomial_pmf(*row) for row in rows]
    np.testing.assert_allclose(pmf, scipy.stats.binom.pmf(k, n, p), rtol=1e-8)


def test_binomial_edges():
    assert binomial_tails(-1, 5, 0.3) == (0.0, 1.0)
    assert binomial_tails(5, 5, 0.3) == (1.0, 0.0)
    assert binomial_tails(2, 5, 0.0) == (1.0, 0.0)
    assert binomial_tails(2, 5, 1.0) == (0.0, 1.0)
    assert [binomial_pmf(k, 3, 0.0) for k in (-1, 0, 1, 4)] == [0.0, 1.0, 0.0, 0.0]
    assert binomial_pmf(3, 3, 1.0) == 1.0


def test_student_quantile_agrees_with_scipy_and_the_table():
    p, df = np.meshgrid([1e-6, 0.025, 0.4, 0.5, 0.51, 0.9, 0.975, 0.9999], [1, 2, 4, 29, 500, 1e6])
    ours = [student_quantile(a, b) for a, b in zip(p.ravel().tolist(), df.ravel().tolist(), strict=True)]
    np.testing.assert_allclose(ours, scipy.stats.t.ppf(p, df).ravel(), rtol=1e-9, atol=1e-15)
    near = student_quantile(0.500001, 4)  # by the density at 0, which is 3/8
    assert near == pytest.approx(1e-6 / 0.375, rel=1e-9)
    assert student_quantile(0.975, 10) == pytest.approx(2.228, abs=5e-4)  # the table of any textbook


def test_normal_quantile_agrees_with_scipy():
    p = np.concatenate([np.geomspace(1e-300, 0.5, 200), 1 - np.geomspace(1e-15, 0.5, 100)])
    np.testing.assert_allclose(
        [normal_quantile(x) for x in p.tolist()], scipy.stats.norm.ppf(p), rtol=1e-9, atol=1e-14
    )
