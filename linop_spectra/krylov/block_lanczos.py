"""Block Lanczos: a Krylov space grown from several vectors at once, which holds multiple eigenvalues as often as they occur."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np

from .._memory import format_bytes, parse_budget
from .._progress import Progress, ProgressBar
from ..backends import Array, backend_of, resolve_backend
from ..operators import aslinearoperator, require_hermitian
from ..results import PathLike, html_table, register, save_result
from .errors import LanczosInterrupted, NonFiniteProductError
from .lanczos import check_count, check_time_budget
from .result import on_host
from .thick_restart import ThickRestart


@register("block lanczos")
@dataclasses.dataclass(frozen=True, eq=False)
class BlockLanczosResult:
    """The projection of a Hermitian operator onto a block Krylov space.

    Attributes
    ----------
    projection : numpy.ndarray
        ``V^H A V``, a band matrix of shape (m, m) in double precision, with m = steps times block size, or the order n.
    coupling : numpy.ndarray
        What leads out of the space, ``A V = V T + V_next coupling E^H``, shape (next block, last block); empty when the space
        is everything.
    basis : array
        Orthonormal rows, shape (m, n), on the operator's backend.
    block_size : int
        Starting vectors b.
    seed : int
        Of the starting vectors.
    status : {"complete", "interrupted", "time budget"}
        Why the run ended.
    num_matvecs : int
        Products with single vectors.
    seconds : float
        Wall-clock time.
    """

    projection: np.ndarray
    coupling: np.ndarray
    basis: Array
    block_size: int
    seed: int
    status: str
    num_matvecs: int
    seconds: float

    @property
    def dimension(self) -> int:
        """Order n of the operator."""
        return int(self.basis.shape[1])

    @property
    def converged(self) -> bool:
        """Whether the run did all steps that were asked for."""
        return self.status == "complete"

    def _ritz(self) -> tuple[np.ndarray, np.ndarray]:
        values, vectors = np.linalg.eigh(self.projection)
        return values, vectors

    @property
    def ritz_values(self) -> np.ndarray:
        """Ritz values in ascending order, shape (m,); an eigenvalue of multiplicity up to b comes as often as it occurs."""
        return self._ritz()[0]

    @property
    def weights(self) -> np.ndarray:
        """Mean weights of the Ritz values over the b orthonormalised starting vectors, shape (m,); they sum to one.

        With `ritz_values` they are a Gauss rule that is exact for polynomials up to degree ``2 steps - 1``.
        """
        _, vectors = self._ritz()
        first = vectors[: self.block_size]
        return np.asarray((np.abs(first) ** 2).sum(axis=0) / first.shape[0])

    @property
    def residual_norms(self) -> np.ndarray:
        """Norms ``|A y - theta y|`` of the Ritz pairs, shape (m,)."""
        _, vectors = self._ritz()
        return np.linalg.norm(self.coupling @ vectors[len(vectors) - self.coupling.shape[1] :], axis=0)

    def ritz_vectors(self) -> Array:
        """Ritz vectors as columns, shape (n, m), in the order of `ritz_values`."""
        _, vectors = self._ritz()
        backend = resolve_backend(self.basis, "torch") if hasattr(self.basis, "detach") else backend_of(self.basis)
        return backend.combine(vectors.T, self.basis).T

    def save(self, path: PathLike) -> None:
        """Write the result to `path` (``.npz``); `linop_spectra.load` reads it back."""
        scalars = {name: getattr(self, name) for name in ("block_size", "seed", "status", "num_matvecs", "seconds")}
        arrays = {"projection": self.projection, "coupling": self.coupling, "basis": on_host(self.basis)}
        save_result(path, "block lanczos", scalars, arrays)

    @classmethod
    def _from_file(cls, scalars: dict[str, Any], arrays: dict[str, np.ndarray]) -> BlockLanczosResult:
        fields: dict[str, Any] = {**scalars, **arrays}
        return cls(**fields)

    def _repr_html_(self) -> str:
        values = self.ritz_values
        return html_table(
            [
                ("block Lanczos run", f"n = {self.dimension:,}, {len(values)} vectors from a block of {self.block_size}"),
                ("status", self.status),
                ("Ritz values", f"{values[0]:.6g} to {values[-1]:.6g}"),
                ("products", f"{self.num_matvecs:,} in {self.seconds:.3g} s"),
            ]
        )


def block_lanczos(
    A: Any,
    num_steps: int,
    *,
    block_size: int = 2,
    start: Any = None,
    seed: int = 0,
    memory_budget: int | float | str | None = None,
    time_budget: float | None = None,
    progress: Progress = None,
) -> BlockLanczosResult:
    """Block Lanczos with full reorthogonalisation, from a block of starting vectors.

    A single vector finds each distinct eigenvalue once. A block of b finds a multiple one up to b times, and its products come
    b at a time. For single vectors in lockstep, each with a Krylov space of its own, use `lanczos` with ``num_probes``.

    Parameters
    ----------
    A : LinearOperator or what `aslinearoperator` takes
        Hermitian operator of shape (n, n).
    num_steps : int
        Block steps; the run ends earlier when the space is everything.
    block_size : int
        Vectors b of the block, at most n.
    start : array, optional
        Starting vectors as columns, shape (n, b); they are orthonormalised. By default uniform on the sphere.
    seed : int
        Seed of the random vectors.
    memory_budget : int, float, str or None
        For the ``(num_steps + 1) b`` vectors, in bytes or as text such as ``"4GB"``; by default 40 % of the device's memory.
    time_budget : float, optional
        Seconds after which the run ends with what it has; Ctrl-C does the same.
    progress : bool or callable, optional
        True shows a bar.

    Returns
    -------
    BlockLanczosResult
        Projection, basis, and the Ritz pairs with their residuals and weights.

    Raises
    ------
    ValueError
        When an argument is wrong or the operator is not Hermitian.
    MemoryError
        When the vectors do not fit the budget.
    NonFiniteProductError, LanczosInterrupted
        When a product fails after the first step; the run up to there is in ``.partial``.

    References
    ----------
    G. Golub and R. Underwood, *The block Lanczos method for computing eigenvalues*, in: Mathematical Software III (1977).

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> run = ls.block_lanczos(ls.diagonal_operator(np.r_[np.linspace(0.0, 1.0, 100), 3.0, 3.0]), 20)
    >>> run.ritz_values[-2:].round(9)
    array([3., 3.])
    """
    operator = aslinearoperator(A)
    require_hermitian(operator, "Block Lanczos", seed=seed)
    n = operator.shape[0]
    num_steps, block_size = check_count("num_steps", num_steps), check_count("block_size", block_size)
    check_time_budget(time_budget)
    if block_size > n:
        raise ValueError(f"The argument block_size is {block_size}, but an operator of order {n} has room for {n} vectors.")
    if start is not None and tuple(getattr(start, "shape", np.shape(start))) not in ((n, block_size), (n,) if block_size == 1 else ()):
        raise ValueError(f"The argument start must have shape ({n}, {block_size}), but has shape {tuple(np.shape(start))}.")
    size = min(n, num_steps * block_size)
    needed = (size + 3 * block_size + 4) * n * operator.dtype.itemsize
    budget = parse_budget(memory_budget, total=operator.backend.total_memory())
    if needed > budget:
        raise MemoryError(
            f"The vectors of {num_steps} block steps take {format_bytes(needed)}, over the memory budget of {format_bytes(budget)}; "
            "take fewer steps or a smaller block, or raise memory_budget."
        )
    began = time.perf_counter()
    space = ThickRestart(operator, 1, "LA", block_size, size, start, seed)

    def result(status: str) -> BlockLanczosResult:
        m, last = space.m, space._last
        basis = operator.backend.empty((m, n), operator.dtype)
        basis[...] = space.V[:m, :]
        coupling = space.T[m : m + space.waiting, m - last : m].copy()
        return BlockLanczosResult(
            space.T[:m, :m].copy(), coupling, basis, block_size, seed, status, space.num_matvecs, time.perf_counter() - began
        )

    steps, status = 0, "complete"
    with ProgressBar(progress, num_steps, "block Lanczos") as bar:
        while steps < num_steps and space.waiting:
            if time_budget is not None and steps and time.perf_counter() - began > time_budget:
                status = "time budget"
                break
            try:
                space.grow()
            except KeyboardInterrupt:
                if not steps:
                    raise
                status = "interrupted"
                break
            except Exception as error:
                if not steps or (isinstance(error, ValueError) and "not symmetric" in str(error)):
                    raise
                kind = NonFiniteProductError if isinstance(error, FloatingPointError) else LanczosInterrupted
                raise kind(
                    f"The product with the operator failed at block step {steps + 1} ({type(error).__name__}: {error}); the {steps} steps "
                    "before it are kept in .partial.",
                    result("interrupted"),
                    steps,
                ) from error
            steps += 1
            bar.advance()
    return result(status)
