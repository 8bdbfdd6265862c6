"""Curvature along random directions, beside the law that the spectrum predicts for it."""

from __future__ import annotations

import dataclasses
import functools
import time
from typing import Any

import numpy as np

from .._progress import Progress, ProgressBar
from ..backends import random_vector, to_numpy
from ..curvature import Objective
from ..krylov.lanczos import check_count, check_time_budget
from ..operators import LinearOperator, aslinearoperator, require_hermitian
from ..results import Estimate, PathLike, register, save_result
from .directions import as_directions
from .slice_law import SliceLaw, chance_of_any
from .storage import from_file, to_file

_BLOCK = 8
_SIMULATIONS = 999


@register("slices")
@dataclasses.dataclass(frozen=True, eq=False)
class Slices:
    """Second derivatives along directions, and what the spectrum says about random ones.

    Attributes
    ----------
    curvatures : numpy.ndarray
        Quadratic forms of the unit directions, shape (N,); in loss per squared parameter.
    squared_norms : numpy.ndarray
        Squared norms of the products with them, shape (N,): for random directions their mean is the squared Frobenius norm over P.
    nodes, multiplicities : numpy.ndarray
        The spectrum that predictions come from, shape (k,): places, and how many eigenvalues lie at each.
    mean_error, spread_error : float
        Standard errors of the spectrum: of its mean, and of the logarithm of its variance.
    predicted_mean : float
        Trace over P.
    predicted_deviation : float
        Standard deviation of the curvature along one random direction, ``sqrt(2 v / (P + 2))`` with the variance v of the
        eigenvalues. Where the mean is small beside the root mean square, it is ``sqrt(2) |H|_F / P``.
    largest_eigenvalue : float
        Of the spectrum.
    p_value : float
        Chance that as many uniformly random directions deviate more in their mean or in their spread, by simulation; NaN for
        fewer than two, and for a multiple of the identity. Errors of the spectrum are part of it. Small
        values say that the directions are not random for this matrix, or that the spectrum is wrong.
    kind : str
        Where the directions come from.
    num_matvecs : int
        Products that were spent, those of the spectrum included where it was made here.
    seconds : float
        Wall-clock time.
    status : {"complete", "interrupted", "time budget"}
        Why the evaluation ended.
    """

    curvatures: np.ndarray
    squared_norms: np.ndarray
    nodes: np.ndarray
    multiplicities: np.ndarray
    mean_error: float
    spread_error: float
    predicted_mean: float
    predicted_deviation: float
    largest_eigenvalue: float
    p_value: float
    kind: str = "random"
    num_matvecs: int = 0
    seconds: float = 0.0
    status: str = "complete"

    @property
    def converged(self) -> bool:
        """Whether all slices were taken."""
        return self.status == "complete"

    @functools.cached_property
    def law(self) -> SliceLaw:
        """Law of the curvature along a random direction."""
        return SliceLaw(self.nodes, self.multiplicities)

    @property
    def trace(self) -> Estimate:
        """The trace as random slices alone have it: P times their mean."""
        n, count = self.law.dimension, len(self.curvatures)
        error = float(np.std(self.curvatures, ddof=1) / np.sqrt(count)) if count > 1 else float("inf")
        return Estimate(
            n * float(np.mean(self.curvatures)), standard_error=n * error, num_matvecs=count, degrees_of_freedom=max(count - 1, 1),
            seconds=self.seconds, method=f"{self.kind} slices", converged=self.converged,
        )  # fmt: skip

    def chance(self, fraction: float, num_slices: int | None = None) -> float:
        """Chance that one of so many random slices has a curvature of at least a fraction of the largest eigenvalue.

        Parameters
        ----------
        fraction : float
            Of the largest eigenvalue, between 0 and 1.
        num_slices : int, optional
            By default as many as there are here.

        Returns
        -------
        float
            Zero where it underflows; `log10_chance` does not.
        """
        count = len(self.curvatures) if num_slices is None else check_count("num_slices", num_slices)
        return chance_of_any(self._log_survival(fraction), count)

    def log10_chance(self, fraction: float, num_slices: int | None = None) -> float:
        """Decimal logarithm of `chance`, also where the chance itself is too small for a number."""
        count = len(self.curvatures) if num_slices is None else check_count("num_slices", num_slices)
        log = self._log_survival(fraction)
        chance = chance_of_any(log, count)
        return float(np.log10(chance)) if chance > 1e-250 else float((log + np.log(count)) / np.log(10))

    def _log_survival(self, fraction: float) -> float:
        if not 0 <= fraction <= 1:
            raise ValueError(f"The argument fraction is {fraction!r}, but must lie between 0 and 1; 1 is the largest eigenvalue itself.")
        if not self.largest_eigenvalue > 0:
            raise ValueError(f"The largest eigenvalue is {self.largest_eigenvalue:.3g}, so that there is no positive curvature to meet.")
        return self.law.log_survival(fraction * self.largest_eigenvalue)

    def plot(self, path: PathLike | None = None, ax: Any = None, **options: Any) -> Any:
        """Draw the slices beside their law, see `linop_spectra.plots.slices`; returns the axes.

        Parameters
        ----------
        path : str or path, optional
            Where to write the picture.
        ax : matplotlib.axes.Axes, optional
            Where to draw.
        **options
            For `linop_spectra.plots.slices`.
        """
        from ..plots.landscape import slices as draw

        axes: Any = draw(self, ax, **options)
        if path is not None:
            axes.figure.savefig(path)
        return axes

    def save(self, path: PathLike) -> None:
        """Write the slices to `path` (``.npz``); `linop_spectra.load` reads them back."""
        save_result(path, "slices", *to_file(self))

    @classmethod
    def _from_file(cls, scalars: dict[str, Any], arrays: dict[str, np.ndarray]) -> Slices:
        return cls(**from_file(scalars, arrays))

    def __str__(self) -> str:
        count, spread = len(self.curvatures), np.std(self.curvatures, ddof=1) if len(self.curvatures) > 1 else float("nan")
        lines = [
            f"{count} {self.kind} slices: curvature {np.mean(self.curvatures):.4g}, deviation {spread:.3g}",
            f"predicted for random ones: {self.predicted_mean:.4g}, deviation {self.predicted_deviation:.3g}; p = {self.p_value:.3g}",
        ]
        if self.largest_eigenvalue > 0:
            lines.append(
                f"chance that {count} random slices meet half of the largest eigenvalue ({self.largest_eigenvalue:.4g}): "
                f"10^{self.log10_chance(0.5):.1f}"
            )
        return "\n".join(lines)


def slices(
    objective: Any,
    num_slices: int = 32,
    *,
    directions: Any = None,
    spectrum: Any = None,
    seed: int = 0,
    progress: Progress = None,
    time_budget: float | None = None,
) -> Slices:
    r"""Curvature along random directions, beside the law that the spectrum predicts for it.

    The second derivative along a uniformly random direction has the mean Tr H / P and the standard deviation
    :math:`\sqrt{2 v / (P + 2)} \approx \sqrt 2 \|H\|_F / P` with the variance v of the eigenvalues. With many parameters every random slice
    looks alike, and none meets an outlier: how small the chance is, `Slices.chance` says.

    Parameters
    ----------
    objective : Objective, LinearOperator or what `aslinearoperator` takes
        The Hessian of an objective, or a real symmetric operator itself; order P.
    num_slices : int
        How many, N; each costs a product. Ignored where `directions` are given.
    directions : optional
        Directions to compare with random ones, in what `line` takes (for an operator an array of shape (P, N)); they are
        normalised. Filter-normalised directions, steps of training or gradients of batches are not random for the matrix, and the
        p-value shows it.
    spectrum : SpectralDensity, optional
        To predict from; by default a run of `linop_spectra.spectral_density` with default arguments and the same seed. Its own
        errors are part of the p-value.
    seed : int
        Of the directions and of the simulation.
    progress : bool or callable, optional
        True for a bar, or a function ``(done, total)``.
    time_budget : float, optional
        Seconds after which no product is begun, the spectrum not counted.

    Returns
    -------
    Slices
        Curvatures, predictions, p-value and chances.

    Raises
    ------
    ValueError
        When an argument does not fit, or a product is not finite.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls, linop_spectra.landscape
    >>> A = ls.diagonal_operator(np.r_[np.linspace(-1, 1, 1990), np.linspace(95, 100, 10)])
    >>> found = ls.landscape.slices(A, 20)
    >>> round(found.predicted_mean, 1), found.p_value > 0.01, found.chance(0.5) < 1e-20
    (0.5, True, True)
    """
    from ..spectra import SpectralDensity, spectral_density

    began = time.perf_counter()
    check_time_budget(time_budget)
    operator: LinearOperator = objective.hessian() if isinstance(objective, Objective) else aslinearoperator(objective)
    require_hermitian(operator, "slices")
    n = operator.shape[0]
    if np.dtype(operator.dtype).kind == "c":
        raise ValueError("The operator is complex, but slices are taken along real directions.")
    if spectrum is None:
        spectrum = spectral_density(operator, seed=seed, progress=progress)
        spent = int(spectrum.num_matvecs)
    else:
        spent = 0
        if not isinstance(spectrum, SpectralDensity) or spectrum.dimension != n:
            raise ValueError(f"The argument spectrum must be a SpectralDensity of order {n}, as spectral_density gives it.")
    vectors, kind = _vectors(objective, operator, directions, num_slices, seed)
    curvatures, squares, status = _products(operator, vectors, progress, time_budget)
    law = SliceLaw.of(spectrum)
    mean, square = spectrum.expectation(_itself), spectrum.expectation(np.square)
    errors = [float(np.sum([e.standard_error, e.quadrature_error, e.rounding_error])) for e in (mean, square)]
    variance = float(law.multiplicities @ (law.eigenvalues - law.mean) ** 2 / law.dimension)
    resolved = variance > spectrum.noise_floor**2  # else it is a multiple of the identity, as far as rounding shows
    spread_error = min(errors[1] / variance, 1.0) if resolved else 0.0
    p_value = _p_value(curvatures, law, errors[0], spread_error, seed) if resolved else float("nan")
    deviation = law.standard_deviation if resolved else 0.0
    return Slices(
        curvatures, squares, law.eigenvalues, law.multiplicities, errors[0], spread_error, law.mean, deviation,
        spectrum.extreme_eigenvalues()[1][0], p_value, kind, len(curvatures) + spent, time.perf_counter() - began, status,
    )  # fmt: skip


def _vectors(objective: Any, operator: LinearOperator, given: Any, num_slices: int, seed: int) -> tuple[Any, str]:
    """A function from numbers of slices to columns of unit directions, their count, and their kind."""
    n = operator.shape[0]
    if given is None:
        count = check_count("num_slices", num_slices)

        def random(indices: range) -> np.ndarray:
            rows = [
                random_vector(n, kind="sphere", seed=seed, domain="slice", index=i, dtype=np.dtype(operator.dtype)) for i in indices
            ]
            return np.stack(rows, axis=1)

        return (random, count), "random"
    if isinstance(objective, Objective):
        found = as_directions(objective, given, "directions", seed)[0]
        columns, kind = found.vectors, found.kind
    else:
        columns, kind = np.asarray(to_numpy(given)), "given"
        columns = columns[:, None] if columns.ndim == 1 else columns
        fits = columns.ndim == 2 and columns.shape[0] == n and columns.shape[1] > 0
        if not fits or not np.isfinite(columns).all() or not columns.any(axis=0).all():
            raise ValueError(f"The argument directions must hold finite directions that are not zero as columns, shape ({n}, N).")
    unit = columns / np.linalg.norm(columns.astype(np.float64), axis=0)
    return (lambda indices: unit[:, indices.start : indices.stop].astype(operator.dtype), unit.shape[1]), kind


def _products(
    operator: LinearOperator, vectors: tuple[Any, int], progress: Progress, time_budget: float | None
) -> tuple[np.ndarray, np.ndarray, str]:
    columns, count = vectors
    curvatures: list[float] = []
    squares: list[float] = []
    began, status, longest = time.perf_counter(), "complete", 0.0
    with ProgressBar(progress, count, "slices", unit="product") as bar:
        for first in range(0, count, _BLOCK):
            started = time.perf_counter()
            if time_budget is not None and curvatures and started - began + longest > time_budget:
                status = "time budget"
                break
            block = columns(range(first, min(first + _BLOCK, count)))
            try:
                images = np.asarray(to_numpy(operator.matmat(operator.backend.asarray(block))), dtype=np.float64)
            except KeyboardInterrupt:
                if not curvatures:
                    raise
                status = "interrupted"
                break
            if not np.isfinite(images).all():
                raise ValueError(f"A product with the operator (slice {first} to {first + block.shape[1] - 1}) holds NaN or infinity.")
            curvatures += np.einsum("ij,ij->j", block.astype(np.float64), images).tolist()
            squares += np.einsum("ij,ij->j", images, images).tolist()
            longest = max(longest, time.perf_counter() - started)
            bar.advance(block.shape[1])
    return np.array(curvatures), np.array(squares), status


def _p_value(curvatures: np.ndarray, law: SliceLaw, mean_error: float, spread_error: float, seed: int) -> float:
    """Two-sided by simulation for the mean and for the variance, the smaller one twice: either may fail, and both were looked at."""
    count = len(curvatures)
    if count < 2:
        return float("nan")
    generator = np.random.default_rng(seed)
    drawn = law.sample((_SIMULATIONS, count), seed) - law.mean
    drawn *= np.exp(spread_error * generator.standard_normal((_SIMULATIONS, 1)) / 2)
    means = drawn.mean(axis=1) + mean_error * generator.standard_normal(_SIMULATIONS)
    pairs = ((means, np.mean(curvatures) - law.mean), (drawn.var(axis=1), np.var(curvatures)))
    sides = [min((np.sum(null >= found) + 1), (np.sum(null <= found) + 1)) / (_SIMULATIONS + 1) for null, found in pairs]
    return float(min(1.0, 4 * min(sides)))


def _itself(x: np.ndarray) -> np.ndarray:
    return x
