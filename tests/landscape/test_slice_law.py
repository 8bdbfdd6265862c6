"""Law of the curvature along a random direction: Beta and F laws, moments, and the far tail."""

import numpy as np
import pytest
from scipy import stats

from linop_spectra.landscape import SliceLaw
from linop_spectra.landscape.slice_law import chance_of_any


@pytest.mark.parametrize(("above", "below"), [(20, 30), (6, 300), (300, 6)])
def test_two_eigenvalues_give_a_beta_law(above, below):
    law = SliceLaw(np.array([0.0, 1.0]), np.array([float(below), float(above)]))
    exact = stats.beta(above / 2, below / 2)
    assert law.mean == pytest.approx(exact.mean()) and law.standard_deviation == pytest.approx(exact.std())
    for x in [*exact.ppf([1e-6, 0.01, 0.3, 0.5, 0.7, 0.99]), exact.mean(), exact.isf(1e-12), exact.isf(1e-200)]:
        if np.isfinite(exact.logsf(x)):
            assert law.log_survival(x) == pytest.approx(exact.logsf(x), abs=0.03)
    assert law.survival(exact.mean() + 1e-9) == pytest.approx(law.survival(exact.mean() + 0.01 * exact.std()), rel=0.03)


def test_a_single_eigenvalue_is_the_worst_case():
    law, exact = SliceLaw(np.array([0.0, 1.0]), np.array([999.0, 1.0])), stats.beta(0.5, 999 / 2)
    for x in (1e-5, 1e-3, 0.01, 0.1, 0.5):
        assert abs(law.log_survival(x) - exact.logsf(x)) < np.log(1.17)


def test_spectrum_of_both_signs_against_simulation():
    rng = np.random.default_rng(0)
    values = np.r_[rng.standard_normal(60), 6.0, -4.0]
    law = SliceLaw(values, np.ones(len(values)))
    z = rng.standard_normal((200_000, len(values))) ** 2
    q = z @ values / z.sum(axis=1)
    for level in (0.01, 0.1, 0.5, 0.9, 0.99):
        x = np.quantile(q, 1 - level)
        # Four standard errors of the simulation, and what single eigenvalues far out cost the approximation.
        assert law.survival(x) == pytest.approx(level, rel=0.06 + 4 * np.sqrt((1 - level) / level / 200_000))
    drawn = law.sample((50_000,), seed=1)
    assert drawn.mean() == pytest.approx(law.mean, abs=5 * law.standard_deviation / np.sqrt(50_000))
    assert drawn.std() == pytest.approx(law.standard_deviation, rel=0.02)
    assert stats.ks_2samp(drawn, q).pvalue > 1e-3


def test_no_slice_lies_outside_of_the_spectrum():
    law = SliceLaw(np.array([-1.0, 0.0, 2.0]), np.array([3.0, 100.0, 2.0]))
    assert law.log_survival(2.0) == law.log_survival(2.5) == -np.inf and law.survival(2.0) == 0
    assert law.survival(-1.0) == law.survival(-7.0) == 1
    tail = [law.log_survival(x) for x in np.linspace(-0.999, 1.999, 301)]
    assert np.all(np.diff(tail) <= 1e-9) and tail[0] <= 0 and tail[-1] < -100
    same = SliceLaw(np.array([3.0]), np.array([10.0]))
    assert same.survival(3.0) == 1 and same.survival(3.1) == 0 and same.standard_deviation == 0


def test_millions_of_parameters():
    """The exponent of the tail is half of the dimension times a rate: exact for one eigenvalue over a bulk at zero."""
    n = 5_000_000
    law = SliceLaw(np.array([0.0, 1.0]), np.array([n - 1.0, 1.0]))
    assert law.log_survival(0.5) == pytest.approx(n / 2 * np.log(0.5), rel=1e-4)
    assert law.log_survival(1e-6) == pytest.approx(stats.beta(0.5, (n - 1) / 2).logsf(1e-6), abs=0.16)


def test_chance_of_any():
    assert chance_of_any(np.log(0.5), 3) == pytest.approx(0.875)
    assert chance_of_any(np.log(1e-20), 1000) == pytest.approx(1e-17)
    assert chance_of_any(-np.inf, 5) == 0 and chance_of_any(0.0, 5) == 1
