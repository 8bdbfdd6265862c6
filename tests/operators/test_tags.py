"""Hermitian and positive semidefinite are passed on where that is right, and only there."""

import numpy as np
import pytest
from helpers import random_array, rotated

import linop_spectra as ls


def psd(dtype=np.float64):
    factor = ls.aslinearoperator(random_array((9, 12), dtype, 3))
    return factor.H @ factor


def test_positive_semidefinite_operators_are_hermitian():
    class Own(ls.LinearOperator):
        def _matmat(self, x):
            return x

    assert Own((3, 3), float, positive_semidefinite=True).hermitian is True
    with pytest.raises(ValueError, match="A positive semidefinite operator is Hermitian"):
        Own((3, 3), float, hermitian=False, positive_semidefinite=True)
    with pytest.raises(ValueError, match="not square"):
        Own((2, 3), float, positive_semidefinite=True)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_what_stays_positive_semidefinite(dtype):
    a, indefinite = psd(dtype), ls.aslinearoperator(rotated(np.linspace(-1, 2, 12), dtype=dtype))
    basis = random_array((12, 5), dtype, 4)
    kept = {
        "sum": a + a,
        "scaled": 0.5 * a,
        "adjoint": a.H,
        "transpose": a.T,
        "square": indefinite @ indefinite,
        "third power": a @ a @ a,
        "kronecker": ls.kronecker(a, ls.identity(2, dtype=dtype)),
        "blocks": ls.block_diagonal([a, ls.identity(2, dtype=dtype)]),
        "principal": ls.submatrix(a, [4, 1, 7]),
        "compression": ls.compress(a, basis),
        "shifted": ls.shift(a, 2.0),
        "low rank": ls.low_rank(basis, [1.0, 0.0, 2.0, 1.0, 1.0]),
        "deflated of negative": ls.deflate(a, [-1.0], np.eye(12)[:, :1]),
        "complex diagonal": ls.diagonal_operator(np.array([1, 2]).astype(dtype)),
    }
    for name, operator in kept.items():
        assert operator.hermitian is True and operator.positive_semidefinite is True, name
        assert np.linalg.eigvalsh(operator.to_dense()).min() > -1e-9, name


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_what_is_not_known_to_stay_positive_semidefinite(dtype):
    a, indefinite = psd(dtype), ls.aslinearoperator(rotated(np.linspace(-1, 2, 12), dtype=dtype))
    basis = random_array((12, 5), dtype, 4)
    lost = {
        "negative": -a,
        "difference": a - a,
        "imaginary": a * 1j if dtype == np.complex128 else -1.0 * a,
        "shifted down": ls.shift(a, -0.1),
        "with indefinite": a + indefinite,
        "kronecker": ls.kronecker(a, indefinite),
        "blocks": ls.block_diagonal([a, indefinite]),
        "crossed": ls.submatrix(a, [0, 1], [1, 0]),
        "compression": ls.compress(indefinite, basis),
        "transpose": indefinite.T,
        "low rank": ls.low_rank(basis, [1.0, -1.0, 2.0, 1.0, 1.0]),
        "deflated": ls.deflate(a, [1.0], np.eye(12)[:, :1]),
        "product": a @ psd(dtype),
    }
    for name, operator in lost.items():
        assert operator.positive_semidefinite is not True, name
