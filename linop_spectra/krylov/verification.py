"""A search for eigenpairs that were missed: copies of multiple eigenvalues, above all."""

from __future__ import annotations

import numpy as np

from ..backends import Array
from ..operators import LinearOperator
from .recurrence import Recurrence
from .storage import BasisPlan
from .thick_restart import Which
from .tridiagonal import extreme_ritz

_FIRST_LOOK = 5
_FEWEST = 20
_NOISE = 100.0


class _Complement(LinearOperator):
    """An operator on the vectors orthogonal to orthonormal rows, which are close to eigenvectors."""

    def __init__(self, inner: LinearOperator, rows: Array) -> None:
        self.inner, self.rows = inner, rows
        super().__init__(inner.shape, inner.dtype, hermitian=True, backend=inner.backend)

    def _matmat(self, x: Array) -> Array:
        out = self.backend.empty((1, self.shape[0]), self.dtype)
        out[0, :] = self.inner.matmat(x)[:, 0]
        project_out(self, self.rows, out[0, :])
        return out.T

    @property
    def unit_rounding(self) -> float:
        """That of the inner operator."""
        return self.inner.unit_rounding


def project_out(operator: LinearOperator, rows: Array, w: Array) -> None:
    """Remove the components along orthonormal rows from `w`, in place."""
    operator.backend.gemv_n_sub(rows, operator.backend.gemv_t(rows, w), w)


def find_missed(
    operator: LinearOperator, values: np.ndarray, vectors: Array, which: Which, *, norm: float, margin: float, most: int, seed: int
) -> tuple[bool, int]:
    """Look for an eigenvalue that belongs among the wanted ones and is not there.

    A Krylov space of one vector holds one eigenvector of each eigenvalue, whatever its multiplicity, and may pass over a member of a
    cluster. So a short Lanczos run from a fresh random vector, in the space orthogonal to the pairs that were found, looks at
    what is left. A Ritz value there beyond the last wanted eigenvalue proves that one is missing. The run ends when the end of
    what is left has been resolved as being inside, or after `most` products. The more an omission would change the result,
    the fewer steps show it.

    Parameters
    ----------
    operator : LinearOperator
        Hermitian operator of order n.
    values : numpy.ndarray
        Wanted eigenvalues that were found, ascending, shape (k,).
    vectors : array
        Their eigenvectors as rows, shape (k, n).
    which : {"LM", "LA", "SA", "BE"}
        Which were wanted.
    norm : float
        Of the operator, by an estimate.
    margin : float
        What an eigenvalue must exceed the last wanted one by.
    most : int
        Products that may be spent.
    seed : int
        Of the random vector.

    Returns
    -------
    tuple of (bool, int)
        Whether one is missing, and the products spent.
    """
    n, backend = operator.shape[0], operator.backend
    most = min(max(most, _FEWEST), n - len(values))
    if most < 1:
        return False, 0
    start = backend.probes(n, (0,), kind="sphere", seed=seed, domain="eigsh verification", dtype=operator.dtype)
    for _ in range(2):
        project_out(operator, vectors, start[0, :])
        size = float(np.real(backend.to_numpy(backend.norm(start[0, :]))))
        backend.scale_into(start[0, :], 1.0 / size, start[0, :])
    plan = BasisPlan("none", str(operator.dtype), 0, 0)
    # What is left may be nothing but rounding, which is not symmetric.
    state = Recurrence(_Complement(operator, vectors), start, plan=plan, test_symmetry=False)
    look = _FIRST_LOOK
    while state.steps_done < most and not state.exhausted:
        while state.steps_done < min(look, most) and not state.exhausted:
            state.step()
        state.fetch()
        look = look + max(_FIRST_LOOK, look // 4)
        alphas, betas = np.array(state.alphas)[:, 0], np.array(state.betas)[:, 0]
        # A residual of the size of rounding in the whole operator: what comes after it is made of nothing else.
        noise = np.flatnonzero(betas <= _NOISE * float(np.finfo(operator.dtype).eps) * norm)
        if len(noise):
            alphas, betas = alphas[: noise[0] + 1], betas[: noise[0] + 1]
        excess, error = _excess(extreme_ritz(alphas, betas), values, which)
        if excess > margin:
            return True, state.num_matvecs
        if len(noise) or (excess + error < 0 and error <= 0.1 * -excess):
            break
    return False, state.num_matvecs


End = tuple[float, float]


def _excess(ends: tuple[End, End], values: np.ndarray, which: Which) -> End:
    """How far the end of what is left lies beyond the last wanted eigenvalue, and how well it is known."""
    (lowest, low_error), (highest, high_error) = ends
    k = len(values)
    if which == "LM":
        smallest = float(np.min(np.abs(values)))
        return max((abs(lowest) - smallest, low_error), (abs(highest) - smallest, high_error))
    low = {"LA": 0, "SA": k}.get(which, k // 2)
    sides = []
    if low < k:
        sides.append((highest - float(values[low]), high_error))
    if low:
        sides.append((float(values[low - 1]) - lowest, low_error))
    return max(sides)
