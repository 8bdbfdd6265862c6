"""Random orthogonal and unitary matrices: uniform ones, and fast ones for large orders."""

from __future__ import annotations

import sys
from typing import Any, Literal

import numpy as np

from ...backends import Array, Backend, get_backend, random_vector
from ...operators import LinearOperator
from ..laws.law import check_whole
from .ensemble_arguments import budget_in_bytes, check_fits, check_seed
from .entries import normal_entries
from .spikes import uniform_basis

RotationMethod = Literal["fast", "exact"]


class FastRotationOperator(LinearOperator):
    """Rounds of random signs and a Fourier transform: orthogonal up to rounding, order n log n, n signs a round in memory.

    Real vectors take the real Fourier basis (cosines and sines), complex ones the unitary discrete Fourier transform and random
    fourth roots of unity for signs.

    Parameters
    ----------
    n : int
        Order.
    dtype : dtype
        Of the vectors.
    seed : int
        Of the signs.
    rounds : int
        How often.
    backend : str, Backend or None
        Where signs and vectors live, and the transforms are made.
    """

    def __init__(self, n: int, dtype: Any, *, seed: int, rounds: int, backend: str | Backend | None) -> None:
        self.seed, self.rounds = seed, rounds
        super().__init__((n, n), dtype, backend=backend)
        self._signs = [
            self.backend.asarray(
                random_vector(n, kind="sign", seed=seed, domain="ensemble/haar_rotation/signs", index=index, dtype=self.dtype)[None, :]
            )
            for index in range(rounds)
        ]

    def _matmat(self, x: Array) -> Array:
        rows = x.T
        for signs in self._signs:
            rows = self._transform(signs * rows)
        return rows.T

    def _rmatmat(self, x: Array) -> Array:
        rows = x.T
        for signs in reversed(self._signs):
            rows = self.backend.conj(signs) * self._inverse(rows)
        return rows.T

    def _transform(self, rows: Array) -> Array:
        fft, n = _transforms(rows), self.shape[0]
        if self.dtype.kind == "c":
            return fft.fft(rows, norm="ortho")
        waves = fft.rfft(rows, norm="ortho")
        out = self.backend.empty(tuple(rows.shape), self.dtype)
        cosines, sines = self.backend.real(waves), self.backend.imag(waves)
        # Frequencies that have no mirror image, zero and for even n the highest, are real; the others count twice.
        pairs = (n - 1) // 2
        out[:, 0] = cosines[:, 0]
        out[:, 1 : pairs + 1] = _ROOT_2 * cosines[:, 1 : pairs + 1]
        out[:, pairs + 1 : 2 * pairs + 1] = _ROOT_2 * sines[:, 1 : pairs + 1]
        out[:, 2 * pairs + 1 :] = cosines[:, pairs + 1 :]
        return out

    def _inverse(self, rows: Array) -> Array:
        fft, n = _transforms(rows), self.shape[0]
        if self.dtype.kind == "c":
            return fft.ifft(rows, norm="ortho")
        pairs = (n - 1) // 2
        waves = self.backend.empty((rows.shape[0], n // 2 + 1), np.result_type(self.dtype, np.complex64))
        waves[...] = 0.0
        wide = self.backend.dtype_of(waves)
        waves[:, 0] = self.backend.asarray(rows[:, 0], dtype=wide)
        middle = self.backend.asarray(rows[:, 1 : pairs + 1], dtype=wide) + 1j * self.backend.asarray(
            rows[:, pairs + 1 : 2 * pairs + 1], dtype=wide
        )
        waves[:, 1 : pairs + 1] = _HALF_ROOT * middle
        waves[:, pairs + 1 :] = self.backend.asarray(rows[:, 2 * pairs + 1 :], dtype=wide)
        return fft.irfft(waves, n=n, norm="ortho")

    def _details(self) -> str:
        return f"{self.rounds} rounds of signs and Fourier transforms, seed {self.seed}"


_ROOT_2, _HALF_ROOT = 2.0**0.5, 0.5**0.5


class StoredRotationOperator(LinearOperator):
    """An orthogonal or unitary matrix that is held.

    Parameters
    ----------
    matrix : array
        On the backend.
    seed : int
        It was made from.
    backend : Backend
        Where it lives.
    """

    def __init__(self, matrix: Array, seed: int, backend: Backend) -> None:
        self.matrix, self.seed = matrix, seed
        super().__init__(tuple(matrix.shape), backend.dtype_of(matrix), backend=backend)

    def _matmat(self, x: Array) -> Array:
        return self.matrix @ x

    def _rmatmat(self, x: Array) -> Array:
        return self.backend.conj(self.backend.conj(x).T @ self.matrix).T

    def _details(self) -> str:
        return f"uniform, seed {self.seed}"


def haar_rotation(
    n: int,
    *,
    method: RotationMethod = "fast",
    rounds: int = 3,
    seed: int = 0,
    dtype: Any = np.float64,
    memory_budget: int | float | str | None = None,
    backend: str | Backend | None = None,
) -> LinearOperator:
    """A random orthogonal matrix Q, or unitary for complex vectors: ``Q^H Q = I`` up to rounding.

    Parameters
    ----------
    n : int
        Order.
    method : {"fast", "exact"}
        ``"exact"`` is uniform (Haar) and held, n^2 entries, from the QR factorisation of a Gaussian matrix. ``"fast"`` is a product of
        random signs and Fourier transforms, held in n signs a round: exactly orthogonal, and for what a few vectors see of it close to
        uniform, although made of n bits a round rather than of n^2 numbers.
    rounds : int
        Of signs and transforms. One leaves entries of equal size, two a matrix with repeated entries, three look normal.
    seed : int
        The matrix is a function of seed, n, method, rounds and dtype, on every backend up to rounding.
    dtype : dtype
        Real for orthogonal, complex for unitary.
    memory_budget : int, float, str or None
        What ``"exact"`` may take: bytes or text such as ``"4GB"``; by default 40 % of the memory.
    backend : str, Backend or None
        Where the vectors live; NumPy by default. The fast transforms are those of its array library.

    Returns
    -------
    LinearOperator
        Shape (n, n), with a product with its adjoint, which is its inverse.

    Raises
    ------
    ValueError
        When an argument is out of range.
    MemoryError
        When an exact one does not fit the budget.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> from linop_spectra.random_matrices.ensembles.haar_rotation import haar_rotation
    >>> q = haar_rotation(1_000_000, seed=0)
    >>> x = np.ones(1_000_000)
    >>> bool(np.abs(q.H @ (q @ x) - x).max() < 1e-12)
    True
    """
    n, rounds, seed = check_whole("n", n, 1), check_whole("rounds", rounds, 1), check_seed(seed)
    if not isinstance(method, str) or method not in ("fast", "exact"):
        raise ValueError(
            f"The argument method is {method!r}, but must be 'fast' (signs and Fourier transforms) or 'exact' (uniform, stored)."
        )
    if method == "fast":
        return FastRotationOperator(n, dtype, seed=seed, rounds=rounds, backend=backend)
    resolved = np.dtype(dtype)
    wide = np.dtype(np.complex128 if resolved.kind == "c" else np.float64)
    check_fits(
        f"An exactly uniform rotation of order {n}", 3.0 * n * n * wide.itemsize, budget_in_bytes(memory_budget, backend), "method='fast'"
    )
    normal = normal_entries(0, n * n, scale=1.0, seed=seed, domain="ensemble/haar_rotation/exact", dtype=wide)
    place = get_backend(backend)
    return StoredRotationOperator(place.asarray(uniform_basis(normal.reshape(n, n)).astype(resolved)), seed, place)


def _transforms(rows: Array) -> Any:
    """The Fourier transforms of an array's own library."""
    library = type(rows).__module__.partition(".")[0]
    if library == "numpy":
        from scipy import fft

        return fft
    return sys.modules[library].fft
