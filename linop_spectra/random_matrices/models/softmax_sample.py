"""Logits, their gradients and labels of a set of examples, and the matrices that softmax cross-entropy makes of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ...backends import Array
from ...backends.numpy_backend import matmul
from ...operators import LinearOperator, aslinearoperator


@dataclasses.dataclass(frozen=True, eq=False)
class SoftmaxSample:
    """Jacobian blocks, probabilities and labels of N examples.

    Attributes
    ----------
    jacobian : numpy.ndarray
        Gradients of the logits, shape (N, C, D).
    probabilities : numpy.ndarray
        Rows that sum to one, shape (N, C).
    labels : numpy.ndarray
        Classes from 0 to C - 1, shape (N,).

    Examples
    --------
    >>> import numpy as np
    >>> from linop_spectra.random_matrices.models import SoftmaxSample
    >>> sample = SoftmaxSample(np.eye(2)[None], np.array([[0.5, 0.5]]), np.array([0]))
    >>> sample.gauss_newton().to_dense()
    array([[ 0.25, -0.25],
           [-0.25,  0.25]])
    >>> sample.gradient()
    array([-0.5,  0.5])
    """

    jacobian: np.ndarray
    probabilities: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        j, p, y = (np.asarray(getattr(self, name)) for name in ("jacobian", "probabilities", "labels"))
        if j.ndim != 3 or j.size == 0 or p.shape != j.shape[:2] or y.shape != j.shape[:1]:
            raise ValueError(
                "The arguments jacobian, probabilities and labels must have shapes (N, C, D), (N, C) and (N,), but have "
                f"{j.shape}, {p.shape} and {y.shape}."
            )
        if not np.all(p >= 0) or not np.allclose(p.sum(axis=1), 1, atol=1e-5):
            raise ValueError("The argument probabilities must have rows that are not negative and sum to one.")
        if y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= p.shape[1]:
            raise ValueError(f"The argument labels must be whole numbers from 0 to {p.shape[1] - 1}, one for each example.")

    @property
    def num_examples(self) -> int:
        """N."""
        return int(self.jacobian.shape[0])

    @property
    def num_classes(self) -> int:
        """C."""
        return int(self.jacobian.shape[1])

    @property
    def dimension(self) -> int:
        """D, the number of parameters."""
        return int(self.jacobian.shape[2])

    def gauss_newton(self) -> LinearOperator:
        """``(1 / N) sum_i J_i^T (diag p_i - p_i p_i^T) J_i``, shape (D, D), from products with the Jacobian."""
        return SoftmaxGaussNewton(self)

    def gradient(self) -> np.ndarray:
        """``(1 / N) sum_i J_i^T (p_i - y_i)`` with the one-hot label y_i, shape (D,)."""
        residual = np.array(self.probabilities, dtype=self.jacobian.dtype)
        residual[np.arange(self.num_examples), self.labels] -= 1
        return np.asarray(residual.reshape(-1) @ self._rows() / self.num_examples)

    def kernel(self) -> LinearOperator:
        """The kernel ``J J^T`` of all logits, shape (N C, N C)."""
        rows = self._rows()
        jacobian = aslinearoperator(rows, hermitian=False if rows.shape[0] == rows.shape[1] else None)
        return jacobian @ jacobian.H

    def softmax_weights(self) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues of all ``diag p - p p^T``, shape (N, C), ascending, and eigenvectors in columns, shape (N, C, C)."""
        p = np.asarray(self.probabilities, dtype=np.float64)
        curvature = -p[:, :, None] * p[:, None, :]
        diagonal = np.arange(self.num_classes)
        curvature[:, diagonal, diagonal] += p
        values, vectors = np.linalg.eigh(curvature)
        return np.maximum(values, 0.0), vectors

    def class_gradients(self) -> np.ndarray:
        """Minus the gradients of the loss for each class that might be right, ``J_i^T (e_k - p_i)``, shape (N, C, D)."""
        mean = np.matmul(self.probabilities[:, None, :].astype(self.jacobian.dtype), self.jacobian)
        return np.asarray(self.jacobian - mean)

    def _rows(self) -> np.ndarray:
        return np.asarray(self.jacobian).reshape(-1, self.dimension)


class SoftmaxGaussNewton(LinearOperator):
    """The Gauss-Newton matrix of a `SoftmaxSample`."""

    def __init__(self, sample: SoftmaxSample) -> None:
        self.sample = sample
        super().__init__((sample.dimension,) * 2, sample.jacobian.dtype, positive_semidefinite=True)

    def _matmat(self, x: Array) -> Array:
        sample = self.sample
        rows, p = sample._rows(), np.asarray(sample.probabilities, dtype=self.dtype)[:, :, None]
        logits = matmul(rows, x).reshape(sample.num_examples, sample.num_classes, x.shape[1])
        slopes = p * (logits - (p * logits).sum(axis=1, keepdims=True)) / sample.num_examples
        return matmul(rows.T, slopes.reshape(-1, x.shape[1]))

    def _details(self) -> str:
        return f"{self.sample.num_examples} examples, {self.sample.num_classes} classes"


def softmax(logits: Any) -> np.ndarray:
    """Probabilities from logits, along the last axis; double precision."""
    from scipy import special

    return np.asarray(special.softmax(np.asarray(logits, dtype=np.float64), axis=-1))
