"""Deformed Wigner matrices against Pastur's equation."""

import numpy as np
import pytest

from linop_spectra.random_matrices import MarchenkoPastur, Semicircle, wigner
from linop_spectra.random_matrices.ensembles.deformed_wigner import deformed_wigner


def test_outlier_and_overlap():
    """D: 0.9 at zero, 0.1 at one, and theta = 1.6; variance 0.04. H(1.6) = 1.62917, and the squared overlap is H'(1.6) = 0.97483."""
    theta, variance = 1.6, 0.04
    diagonal = np.r_[theta, np.ones(100), np.zeros(899)]
    values, vectors = np.linalg.eigh(deformed_wigner(diagonal, variance=variance, seed=1).to_dense())
    assert values[-1] == pytest.approx(theta + variance * (0.9 / theta + 0.1 / (theta - 1)), abs=0.03)
    assert vectors[0, -1] ** 2 == pytest.approx(1 - variance * (0.9 / theta**2 + 0.1 / (theta - 1) ** 2), abs=0.01)


@pytest.mark.parametrize("ensemble", ["goe", "gue"])
def test_semicircles_add_up(ensemble):
    n = 500
    operator = deformed_wigner(Semicircle(variance=0.5), n=n, variance=1.0, seed=2, ensemble=ensemble)
    values = np.linalg.eigvalsh(operator.to_dense())
    assert np.abs(Semicircle(variance=1.5).cdf(values) - (np.arange(n) + 0.5) / n).max() < 8 / n
    assert operator.diagonal.shape == (n,) and np.all(np.diff(operator.diagonal) > 0)


def test_resolvent_solves_the_equation_of_pastur():
    """G(z) = G_D(z - s G(z)) up to 1 / n at a distance from the axis."""
    n, variance = 600, 0.3
    law = MarchenkoPastur(ratio=0.5)
    values = np.linalg.eigvalsh(deformed_wigner(law, n=n, variance=variance, seed=3).to_dense())
    for z in (0.5 + 0.4j, 2.0 + 0.4j, -1 + 0.3j):
        g = np.mean(1 / (z - values))
        assert abs(g + law.stieltjes(z - variance * g)) < 8 / n
        assert abs(g + law.stieltjes(z - 1.2 * variance * g)) > 8 / n


def test_parts():
    options = {"seed": 4, "ensemble": "gue", "variance": 2.0, "dtype": np.complex64}
    operator = deformed_wigner([1.0, -2.0, 0.5], **options)
    np.testing.assert_array_equal(operator.to_dense(), np.diag([1, -2, 0.5]).astype(np.complex64) + wigner(3, **options).to_dense())
    assert deformed_wigner([2]).shape == (1, 1)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"diagonal": Semicircle()}, "The argument diagonal is a law, .*; pass n= too"),
        ({"diagonal": Semicircle(), "n": 0}, "The argument n must be a whole number of at least 1"),
        ({"diagonal": [1.0, 2.0], "n": 3}, "The argument n is 3, but diagonal has 2 entries; leave n out"),
        ({"diagonal": np.ones((2, 2))}, r"The argument diagonal must be real numbers, shape \(n,\), but has shape \(2, 2\)"),
        ({"diagonal": [1.0, np.inf]}, "The argument diagonal must be finite, but entry 1 is not"),
        ({"diagonal": [[1.0], [1.0, 2.0]]}, "The argument diagonal must be real numbers"),
        ({"diagonal": [1.0], "variance": 0}, "The argument variance"),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        deformed_wigner(**arguments)
