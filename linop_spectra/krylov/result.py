"""The outcome of a Lanczos run: a few numbers for each step, and on request the vectors to go on with."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..backends import Array, Backend, backend_of, get_backend
from ..results import PathLike, html_table, register, save_result
from .basis import Basis
from .orthogonality import count_ghosts
from .storage import make_basis
from .tridiagonal import ritz

if TYPE_CHECKING:
    from ..operators import LinearOperator

Status = Literal["complete", "interrupted", "time budget"]
_LAST = ("previous", "current", "captured", "newest", "removing")


@dataclasses.dataclass(frozen=True, eq=False)
class KrylovVectors:
    """What a run needs to go on: one basis for each probe, or the last two vectors of each.

    The bases hold one vector more than there were steps: the next one. A selective run has its locked eigenvectors as rows
    (m, n), and of shape (num_probes, m) what the Krylov space of each probe holds of each (squared), what its newest vector has of
    it (in modulus), and whether it is removed.
    """

    bases: tuple[Basis, ...] = ()
    previous: Array = None
    current: Array = None
    locked: Array = None
    captured: np.ndarray | None = None
    newest: np.ndarray | None = None
    removing: np.ndarray | None = None


@register("lanczos")
@dataclasses.dataclass(frozen=True, eq=False)
class LanczosResult:
    """Coefficients of the Lanczos recurrence, one row for each probe.

    Attributes
    ----------
    alphas : numpy.ndarray
        Diagonal of the Jacobi matrices, shape (num_probes, k), float64; zero after a breakdown.
    betas : numpy.ndarray
        Norms of the residual vectors, shape (num_probes, k): the first k - 1 are the off-diagonal, the last one says how far
        the Krylov space is from invariant; zero from a breakdown on.
    num_steps_taken : numpy.ndarray
        Steps of each probe, shape (num_probes,): k, or less where its Krylov space became invariant.
    dimension : int
        Order n of the operator.
    dtype : str
        Type of the vectors.
    seed : int
        Seed of the probes.
    start_norms : numpy.ndarray
        Norms of the starting vectors before they were normalised, shape (num_probes,).
    reorthogonalize : {"full", "compressed", "host", "selective", "none"}
        Where the vectors were kept that each new one was orthogonalised against; "selective" kept two and some eigenvectors that
        were found beforehand; "none" kept two and did nothing about rounding.
    basis_dtype : str
        Real type that the vectors were kept in.
    status : {"complete", "interrupted", "time budget"}
        Why the run ended.
    num_matvecs : int
        Products with single vectors.
    seconds : float
        Wall-clock time.
    repeat_error : float
        Norm of the difference of two products with the same unit vector, the second time scaled by three, so that rounding
        differs too; NaN where it was not measured.
    orthogonality_loss : numpy.ndarray
        Largest inner product of two Lanczos vectors that should be orthogonal, shape (num_probes,): measured between the last
        one and all others, with what the type of storage adds; without a basis estimated by Simon's recurrence. That does not
        hold for a selective run: where locked eigenvectors are removed, this is the largest inner product of the last vector with
        those, and says nothing of other directions, in which `num_ghosts` shows what was lost.
    start_overlaps : numpy.ndarray or None
        Inner products of the Krylov vectors of probe 0 with the starting vectors of all probes, shape (num_probes, k); they
        tell a simple eigenvalue from a multiple one. None without a stored basis or with one probe.
    locked_values, locked_residuals : numpy.ndarray
        Eigenvalues whose eigenvectors a selective run was kept orthogonal to, ascending, and their residual norms, shape (m,);
        empty for other runs.
    locked_overlaps : numpy.ndarray
        Squared inner products of these eigenvectors with the unit starting vectors, shape (num_probes, m): the weights that
        simple eigenvalues have.
    """

    alphas: np.ndarray
    betas: np.ndarray
    num_steps_taken: np.ndarray
    dimension: int
    dtype: str
    seed: int
    start_norms: np.ndarray
    reorthogonalize: str
    status: Status
    num_matvecs: int
    seconds: float
    repeat_error: float = float("nan")
    start_overlaps: np.ndarray | None = None
    start_digest: str = ""
    basis_dtype: str = "float64"
    orthogonality_loss: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    locked_values: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    locked_residuals: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    locked_overlaps: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0)))
    vectors: KrylovVectors | None = dataclasses.field(default=None, repr=False)

    @property
    def num_probes(self) -> int:
        """Number of starting vectors."""
        return self.alphas.shape[0]

    @property
    def num_steps(self) -> int:
        """Number of steps k of the longest recurrence."""
        return self.alphas.shape[1]

    @property
    def keeps_basis(self) -> bool:
        """Whether each vector was orthogonalised against all before it, so that Ritz values do not repeat."""
        return self.reorthogonalize not in ("selective", "none")

    @property
    def counts_eigenvalues(self) -> bool:
        """Whether some eigenvalues can be told from repetitions: a basis was kept, or eigenvectors were locked."""
        return self.keeps_basis or len(self.locked_values) > 0

    @property
    def num_ghosts(self) -> np.ndarray:
        """Ritz values of each probe that are repetitions made by rounding, shape (num_probes,); none where a basis was kept."""
        if self.keeps_basis:
            return np.zeros(self.num_probes, dtype=np.int64)
        rounding = float(np.finfo(self.dtype).eps)
        return np.array([count_ghosts(*self.jacobi(probe), rounding) for probe in range(self.num_probes)], dtype=np.int64)

    @property
    def converged(self) -> bool:
        """Whether the run did all steps that were asked for."""
        return self.status == "complete"

    def jacobi(self, probe: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients (alphas, betas) of one probe without padding, each of shape (steps taken,)."""
        k = int(self.num_steps_taken[probe])
        return self.alphas[probe, :k], self.betas[probe, :k]

    def _padded(self, pick: Any) -> np.ndarray:
        out = np.full(self.alphas.shape, np.nan)
        for probe in range(self.num_probes):
            alphas, betas = self.jacobi(probe)
            if len(alphas):
                values, vectors = ritz(alphas, betas)
                out[probe, : len(alphas)] = pick(values, vectors, betas)
        return out

    @property
    def ritz_values(self) -> np.ndarray:
        """Ritz values in ascending order, shape (num_probes, k), padded with NaN after a breakdown."""
        return self._padded(lambda values, vectors, betas: values)

    @property
    def weights(self) -> np.ndarray:
        """Gauss weights of the Ritz values (squared first components), shape (num_probes, k); each row sums to one."""
        return self._padded(lambda values, vectors, betas: vectors[0] ** 2)

    @property
    def residual_norms(self) -> np.ndarray:
        """Norms ``|A y - theta y|`` of the Ritz pairs, by the last beta, shape (num_probes, k), padded with NaN.

        An eigenvalue lies within this distance of each Ritz value.
        """
        return self._padded(lambda values, vectors, betas: np.abs(betas[-1] * vectors[-1]))

    def ritz_vectors(self, probe: int = 0) -> Array:
        """Ritz vectors of one probe as columns, shape (n, steps taken), in the order of `ritz_values`.

        A basis that was kept in a narrower type gives vectors of that precision.

        Raises
        ------
        ValueError
            When the run kept no basis.
        """
        if self.vectors is None or not self.vectors.bases:
            raise ValueError(
                "This run kept no basis, so it has no Ritz vectors; run lanczos with a reorthogonalize other "
                "than 'none', and save with basis=True."
            )
        alphas, betas = self.jacobi(probe)
        _, vectors = ritz(alphas, betas)
        return self.vectors.bases[probe].combine(vectors.T).T

    def extend(self, num_steps: int, *, operator: LinearOperator, **options: Any) -> LanczosResult:
        """Go on for `num_steps` more steps; the numbers are bit-identical to those of one longer run.

        Parameters
        ----------
        num_steps : int
            Further steps.
        operator : LinearOperator
            The operator of the first run; where the run kept its basis, one product makes sure of it.
        **options
            ``time_budget``, ``progress`` and ``checkpoint`` of `linop_spectra.lanczos`.

        Returns
        -------
        LanczosResult
            The longer run; this one stays as it is.

        Raises
        ------
        ValueError
            When the run was saved without its vectors, or the operator is another one.
        """
        from .lanczos import extend

        return extend(self, num_steps, operator, **options)

    def save(self, path: PathLike, *, basis: bool = True) -> None:
        """Write the run to `path` (``.npz``); `linop_spectra.load` reads it back.

        Parameters
        ----------
        path : str or path
            Where to.
        basis : bool
            Whether to keep the vectors, (k + 1) n numbers for each probe. Without them the file is a few kB and serves every
            evaluation, but `extend` and `ritz_vectors` need them.
        """
        scalars, arrays = self._to_file()
        if basis and self.vectors is not None:
            for probe, one in enumerate(self.vectors.bases):
                arrays[f"basis_{probe}"] = one.to_numpy(_rows_kept(self, probe))
            arrays.update(last_vectors(self.vectors))
            if self.vectors.locked is not None:
                arrays["locked_vectors"] = on_host(self.vectors.locked)
        save_result(path, "lanczos", scalars, arrays)

    def _to_file(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        scalars = {
            name: getattr(self, name)
            for name in (
                "dimension", "dtype", "seed", "reorthogonalize", "basis_dtype", "status", "num_matvecs", "seconds", "repeat_error",
                "start_digest",
            )
        }
        arrays = {name: getattr(self, name) for name in ("alphas", "betas", "num_steps_taken", "start_norms", "orthogonality_loss")}
        if self.reorthogonalize == "selective":
            arrays.update({name: getattr(self, name) for name in ("locked_values", "locked_residuals", "locked_overlaps")})
        if self.start_overlaps is not None:
            arrays["start_overlaps"] = self.start_overlaps
        return scalars, arrays

    @classmethod
    def _from_file(cls, scalars: dict[str, Any], arrays: dict[str, np.ndarray]) -> LanczosResult:
        arrays = dict(arrays)
        vectors = None
        if "current" in arrays or "locked_vectors" in arrays:
            last: dict[str, Any] = {name: arrays.pop(name) for name in _LAST if name in arrays}
            vectors = KrylovVectors(locked=arrays.pop("locked_vectors", None), **last)
        elif "basis_0" in arrays:
            rows = [arrays.pop(f"basis_{probe}") for probe in range(len(arrays["num_steps_taken"]))]
            kind = scalars["reorthogonalize"], scalars["basis_dtype"]
            vectors = KrylovVectors(bases=tuple(basis_from_rows(one, *kind) for one in rows))
        fields: dict[str, Any] = {**scalars, **arrays}
        return cls(**fields, vectors=vectors)

    def _repr_html_(self) -> str:
        return html_table(
            [
                ("Lanczos run", f"n = {self.dimension:,}, {self.num_steps} steps, {self.num_probes} probes ({self.dtype})"),
                ("status", self.status),
                ("largest Ritz value", f"{np.nanmax(self.ritz_values):.6g}" if self.num_steps else "none"),
                ("smallest Ritz value", f"{np.nanmin(self.ritz_values):.6g}" if self.num_steps else "none"),
                ("products", f"{self.num_matvecs:,} in {self.seconds:.3g} s"),
                *([("locked eigenvectors", f"{len(self.locked_values)}")] if self.reorthogonalize == "selective" else []),
            ]
        )


def on_host(x: Array) -> np.ndarray:
    """An array of any backend on the host."""
    return backend_of(x).to_numpy(x)


def last_vectors(vectors: KrylovVectors) -> dict[str, np.ndarray]:
    """What a run without a basis needs to go on, but for the locked eigenvectors, by name and on the host."""
    found = {name: getattr(vectors, name) for name in _LAST}
    return {name: on_host(array) for name, array in found.items() if array is not None}


def basis_from_rows(rows: np.ndarray, storage: str = "full", storage_dtype: str = "float64", backend: Backend | None = None) -> Basis:
    """A basis with the given vectors; on the host unless a backend is given."""
    basis = make_basis(storage, storage_dtype, backend or get_backend("numpy"), rows.shape[1], rows.dtype)
    for row in rows:
        basis.append()[...] = basis.backend.asarray(row)
    return basis


def _rows_kept(run: LanczosResult, probe: int) -> int:
    """Vectors of one probe that belong to a run: its steps and, unless it broke down, the next one."""
    taken = int(run.num_steps_taken[probe])
    assert run.vectors is not None
    return min(taken + 1, run.vectors.bases[probe].length)


def merge(first: LanczosResult, second: LanczosResult) -> LanczosResult:
    """Two runs of one operator from different probes as one; the shorter one is padded with zeros."""
    k = max(first.num_steps, second.num_steps)

    def pad(x: np.ndarray) -> np.ndarray:
        return np.pad(x, ((0, 0), (0, k - x.shape[1])))

    vectors = overlaps = None
    if first.vectors is not None and second.vectors is not None and first.vectors.bases and second.vectors.bases:
        bases = first.vectors.bases + second.vectors.bases
        vectors = KrylovVectors(bases=bases)
        length = int(first.num_steps_taken[0])
        overlaps = np.zeros((len(bases), k), dtype=np.result_type(bases[0].dtype, np.float64))
        known = 0 if first.start_overlaps is None else first.num_probes
        if first.start_overlaps is not None:
            overlaps[:known, :length] = first.start_overlaps[:, :length]
        for probe, basis in enumerate(bases[known:], known):
            overlaps[probe, :length] = bases[0].coefficients(basis.row(0), length)
    locked: dict[str, Any] = {}
    if np.array_equal(first.locked_values, second.locked_values) and first.locked_overlaps.shape[1:] == second.locked_overlaps.shape[1:]:
        locked["locked_overlaps"] = np.concatenate([first.locked_overlaps, second.locked_overlaps])
        if first.vectors is not None and first.vectors.locked is not None:
            vectors = KrylovVectors(locked=first.vectors.locked)  # for further probes; the run itself does not go on
    else:  # overlaps with other vectors cannot be compared
        locked = {"locked_values": np.zeros(0), "locked_residuals": np.zeros(0), "locked_overlaps": np.zeros((0, 0))}
    return dataclasses.replace(
        first, alphas=np.vstack([pad(first.alphas), pad(second.alphas)]), betas=np.vstack([pad(first.betas), pad(second.betas)]),
        num_steps_taken=np.concatenate([first.num_steps_taken, second.num_steps_taken]),
        start_norms=np.concatenate([first.start_norms, second.start_norms]), num_matvecs=first.num_matvecs + second.num_matvecs,
        seconds=first.seconds + second.seconds, status=second.status if first.status == "complete" else first.status,
        orthogonality_loss=np.concatenate([first.orthogonality_loss, second.orthogonality_loss]),
        start_overlaps=overlaps, vectors=vectors, **locked,
    )  # fmt: skip
