"""The mass that could sit at zero must not be understated: a reader takes it as a certificate."""

import numpy as np
import pytest
from helpers import rotated

import linop_spectra as ls

ZEROS, N = 370, 400


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("steps", [5, 20, 28, 30, 31, 32, 34, 40, 64])
@pytest.mark.parametrize("basis", ["diagonal", "rotated"])
def test_zeros_of_a_low_rank_matrix(basis, steps, dtype):
    """Thirty eigenvalues and 370 zeros, before, at and after the step that resolves them all: the probes' mass at zero stays possible."""
    eigenvalues = np.r_[np.zeros(ZEROS), np.linspace(1, 10, N - ZEROS)]
    operator = ls.aslinearoperator(
        np.diag(eigenvalues).astype(dtype) if basis == "diagonal" else rotated(eigenvalues, 0, dtype), hermitian=True
    )
    for seed in range(3):
        S = ls.spectral_density(operator, num_steps=steps, num_probes=2, seed=seed)
        # Five standard deviations of the probes' mass around the share of zeros.
        deviation = np.sqrt(2 * 0.925 * 0.075 / (2 * (N + 2)))
        assert S.resolution(0.0) >= ZEROS / N - 5 * deviation
        assert S.negative_mass()[0] == 0
        assert f"{S.resolution(0.0):.3f} could sit" in S.explain()


def test_resolution_shrinks_with_the_steps_and_is_small_where_nothing_is():
    operator = ls.diagonal_operator(np.linspace(1, 2, 2000))
    values = [ls.spectral_density(operator, num_steps=k, num_probes=1).resolution(np.array([0.0, 1.5])) for k in (5, 10, 20, 40)]
    assert np.all(np.diff(np.array(values), axis=0) < 0)
    assert values[-1][0] < 1e-12 and values[-1][1] < 0.1
