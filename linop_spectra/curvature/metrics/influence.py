r"""What the choice of the data does to a metric, to first order and with its bias: the infinitesimal jackknife over batches.

Loss, gradient and curvature are means over batches. With the share :math:`w_b` of batch b in the mean, and with what a metric T gains when
the share of one batch grows a little (its influence :math:`I_b`, :math:`\sum_b w_b I_b = 0`), the variance of T over other data of the same
size is :math:`\frac{1}{K - 1} \sum_b w_b I_b^2` for K batches whose members are drawn independently, whatever their sizes (Jaeckel, *The
infinitesimal jackknife*, 1972; for batches of sizes that differ as Busing, Meijer and van der Leeden, Stat. Comput. 9, 1999). The
influence is

- for a sum over the spectrum :math:`\mathrm{tr}\, f'(H) (H_b - H)`, from the probes of the run that is there;
- for an eigenvalue :math:`u^\top (H_b - H) u`, and its bias is how far noise of the variance :math:`V_u` moves it away from the bulk;
- for what the gradient is part of, the chain rule.

All need only one product of each batch with each probe, with both extreme eigenvectors, with the direction of the gradient, and for sums
with a few eigenvectors that have converged: as many products with all data as there are such vectors.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..._memory import format_bytes, parse_budget
from ..._progress import Progress, ProgressBar
from ...backends import Array
from ...estimators.spectral_sums import Function, SpectralFunction
from ...krylov.tridiagonal import ritz
from ...random_matrices.models import shifted_eigenvalue
from .batches import BatchSet
from .metric import Metric

if TYPE_CHECKING:
    from .shared_run import SharedRun


KNOWN, MOST_KNOWN, MOST_NUMBERS = 8, 32, 1_000_000
"""Converged eigenvectors on which traces are exact: so many, or more, up to the second, where they have so few numbers together."""


@dataclasses.dataclass(frozen=True, eq=False)
class Effect:
    """What the choice of the data does to one metric.

    Attributes
    ----------
    influence : numpy.ndarray
        Of each batch, shape (K, 1), or as each of m random probes sees it, shape (K, m).
    bias : float
        How much the metric exceeds that of endless data, on average.
    """

    influence: np.ndarray
    bias: float = 0.0

    def __add__(self, other: Effect) -> Effect:
        return Effect(self.influence + other.influence, self.bias + other.bias)

    def __rmul__(self, factor: float) -> Effect:
        return Effect(factor * self.influence, factor * self.bias)


def standard_error(weights: np.ndarray, values: np.ndarray) -> float:
    r"""Standard error of a mean over batches, :math:`\sqrt{\sum_b w_b (x_b - \bar x)^2 / (K - 1)}` with the shares :math:`w_b`.

    Unbiased in the square where the variance of a batch is inversely proportional to its size.

    Examples
    --------
    >>> round(standard_error(np.array([0.5, 0.5]), np.array([1.0, 3.0])), 12)  # (2 / sqrt(2)) / sqrt(2)
    1.0
    """
    return math.sqrt(_covariance(weights, values[:, None], values[:, None]))


def _covariance(weights: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """Covariance of two means over batches from influences of shape (K, 1) or (K, m); those of different probes are multiplied."""
    count, probes = len(weights), max(first.shape[1], second.shape[1])
    both = [one - weights @ one for one in (first, second)]
    x, y = (np.broadcast_to(one, (count, probes)) for one in both)
    if probes == 1 or first.shape[1] != second.shape[1]:
        products = x.mean(axis=1) * y.mean(axis=1)
    else:
        # What a probe adds of its own would count twice.
        products = (x.sum(axis=1) * y.sum(axis=1) - (x * y).sum(axis=1)) / (probes * (probes - 1))
    return float(weights @ products) / (count - 1)


class BatchInfluence:
    """Influence of each batch on what a shared run has measured.

    Parameters
    ----------
    shared : SharedRun
        With its vectors.
    batches : BatchSet, optional
        Of the same objective; by default its own.
    differences : list of array, optional
        ``(H_b - H)`` times `base_rows`, for each batch; measured by default.
    memory_budget : int, float, str or None
        For the products of all batches.
    progress : bool or callable, optional
        True shows a bar of batches.

    Attributes
    ----------
    num_matvecs : int
        Products with all data that were spent.

    Raises
    ------
    ValueError
        When there is only one batch, or the run kept no vectors.
    MemoryError
        When the products do not fit.
    """

    def __init__(
        self,
        shared: SharedRun,
        batches: BatchSet | None = None,
        differences: list[Array] | None = None,
        *,
        memory_budget: int | float | str | None = None,
        progress: Progress = None,
    ) -> None:
        self.shared, self.batches = shared, batches or BatchSet.of(shared.objective, "sampling of the data")
        self.weights = self.batches.sizes / self.batches.sizes.sum()
        self.backend, self.dimension = shared.operator.backend, int(shared.operator.shape[0])
        self.probes, self.num_matvecs = shared.density.run.num_probes, 0
        self._budget, self._progress = memory_budget, progress
        self._differences = self.along(base_rows(shared)) if differences is None else differences

    # -- products ------------------------------------------------------------------------------------------------------

    def along(self, rows: Array) -> list[Array]:
        """``(H_b - H)`` times rows, one array of rows for each batch."""
        count, size = len(self.weights), self.shared.operator.dtype.itemsize
        needed = (count + 1) * int(rows.shape[0]) * self.dimension * size
        if needed > (budget := parse_budget(self._budget, total=self.backend.total_memory())):
            raise MemoryError(
                f"The products of {count} batches take {format_bytes(needed)}, over the budget of {format_bytes(budget)}; make larger "
                "batches, or raise memory_budget."
            )
        with ProgressBar(self._progress, count, "batches", unit="batch") as bar:
            products = self.batches.products(rows, bar, self.shared.matrix)
        self.num_matvecs += int(rows.shape[0])
        mean = self.batches.mean(products)
        for own in products:
            own -= mean
        return products

    @functools.cached_property
    def _gradients(self) -> list[Array]:
        gradients = self.batches.gradients
        middle = self.batches.mean(gradients)
        return [own - middle for own in gradients]

    def _dot(self, x: Array, y: Array) -> float:
        return float(np.real(self.backend.fetch([self.backend.dot(self.backend.contiguous(x), self.backend.contiguous(y))])[0]))

    def _forms(self, left: Array, index: int) -> np.ndarray:
        """``x.(H_b - H) y`` for each batch with y the row of this place, shape (K, 1)."""
        return np.array([[self._dot(left, own[index, :])] for own in self._differences])

    def _slopes(self, direction: Array) -> np.ndarray:
        """``x.(g_b - g)`` for each batch, shape (K, 1)."""
        return np.array([[self._dot(direction, own)] for own in self._gradients])

    def _variance(self, index: int) -> float:
        """Squared length of what the noise of all data adds to the product with one row."""
        squares = np.array([self._dot(own[index, :], own[index, :]) for own in self._differences])
        return float(self.weights @ squares) / (len(self.weights) - 1)

    # -- errors --------------------------------------------------------------------------------------------------------

    def error(self, effect: Effect) -> float:
        """Standard error by the choice of the data."""
        squared = _covariance(self.weights, effect.influence, effect.influence)
        # By chance probes may contradict each other; their mean, with the scatter of the probes on top, then is an upper bound.
        return math.sqrt(squared) if squared > 0 else standard_error(self.weights, effect.influence.mean(axis=1))

    def carry(self, metric: Metric, effect: Effect) -> Metric:
        """The metric with the sampling of the data in its interval, and with the products that this took."""
        return metric.with_changes(
            sampling_error=self.error(effect), sampling_degrees=float(len(self.weights) - 1), bias=effect.bias,
            num_examples=float(self.batches.examples.sum()), num_matvecs=self.shared.num_matvecs + self.num_matvecs,
        )  # fmt: skip

    def through(
        self, values: Sequence[float], effects: Sequence[Effect], gradient: Callable[[Sequence[float]], Sequence[float]]
    ) -> Effect:
        """Effect on a smooth function of measured values, given by its gradient; its bias to second order (delta method)."""
        slopes = np.asarray(gradient(values), dtype=np.float64)
        out = sum((float(slope) * effect for slope, effect in zip(slopes, effects, strict=True)), Effect(np.zeros((len(self.weights), 1))))
        bent = 0.0
        for k, (value, first) in enumerate(zip(values, effects, strict=True)):
            step = 1e-4 * (abs(value) or 1.0)
            ends = [np.asarray(gradient([*values[:k], value + sign * step, *values[k + 1 :]])) for sign in (1.0, -1.0)]
            second = (ends[0] - ends[1]) / (2 * step)
            for other, bend in zip(effects, second, strict=True):
                bent += 0.5 * float(bend) * _covariance(self.weights, first.influence, other.influence)
        return Effect(out.influence, out.bias + bent)

    # -- functions of the spectrum -------------------------------------------------------------------------------------

    @functools.cached_property
    def isotropic(self) -> float:
        """V_z of all data: the mean squared length of what their noise adds to the product with a unit vector."""
        return float(np.mean([self._variance(index) for index in range(self.probes)]))

    def sum(self, derivative: Function) -> Effect:
        r"""Effect on :math:`\sum_i f(\lambda_i)`, given f'.

        The bias is that of second-order perturbation, :math:`\tfrac12 \sum_{ij} f'[\lambda_i, \lambda_j]\, E\, \varepsilon_{ij}^2`, with
        the divided differences of f', for noise that is the same in all directions (Granziol et al., 2022), or for a positive
        semidefinite matrix in proportion to :math:`\lambda_i \lambda_j`, as in linear regression; for the square both give :math:`P V_z`,
        which is exact. Differences of eigenvalues that are smaller than the noise are taken as large as that.
        """
        return Effect(self._trace(derivative), self._bias(derivative))

    def function(self, f: SpectralFunction) -> Effect:
        """Effect on a function of sums over the spectrum, and of the spectral norm where it depends on that."""
        S = self.shared.density
        effects, values = [self.sum(derivative) for derivative in f.derivatives], f.sums(S)
        out = self.through(values, effects, f.gradient)
        if f.norm_power:
            out = out + (-f.norm_power * f.combine(values) / f.norm) * self.norm()
        return out

    def block(self, places: Sequence[slice]) -> Effect:
        """Effect on the trace of a diagonal block, by the probes and what is known of the eigenvectors."""
        values, vectors, products = self._known
        starts, _ = self.shared.starts()
        out = np.empty((len(self.weights), self.probes))
        overlaps = [[self._dot(vectors[i, :], starts[p, :]) for i in range(len(values))] for p in range(self.probes)]
        for b, own in enumerate(self._differences):
            exact = math.fsum(self._dot(vectors[i, place], products[b][i, place]) for i in range(len(values)) for place in places)
            for p in range(self.probes):
                row = own[p, :] + 0.0
                for i, overlap in enumerate(overlaps[p]):
                    self.backend.axpy(-overlap, products[b][i, :], row)
                out[b, p] = exact + self.dimension * sum(self._dot(starts[p, place], row[place]) for place in places)
        return Effect(out)

    @functools.cached_property
    def _known(self) -> tuple[np.ndarray, Any, list[Array]]:
        """Eigenpairs of largest modulus that have converged, and the products with them: what they add is exact, without probes."""
        values, places = self.shared.converged(max(KNOWN, min(MOST_KNOWN, MOST_NUMBERS // self.dimension)))
        if not places:
            return np.zeros(0), [], []
        rows = self.shared.ritz_rows(places)
        return np.array(values), rows, self.along(rows)

    def _trace(self, derivative: Function) -> np.ndarray:
        """``tr f'(H) (H_b - H)`` for each batch, shape (K, m): exact on the eigenvectors that are known, by the probes on the rest."""
        values, vectors, products = self._known
        starts, left = self.shared.starts()[0], self.shared.function_rows(derivative)
        slopes = np.asarray(derivative(values), dtype=np.float64)
        overlaps = np.array([[self._dot(vectors[i, :], starts[p, :]) for i in range(len(values))] for p in range(self.probes)])
        for p in range(self.probes):
            for i, slope in enumerate(slopes):
                self.backend.axpy(-float(slope) * overlaps[p, i], vectors[i, :], left[p, :])
        out = np.empty((len(self.weights), self.probes))
        for b, own in enumerate(self._differences):
            exact = math.fsum(slope * self._dot(vectors[i, :], products[b][i, :]) for i, slope in enumerate(slopes))
            for p in range(self.probes):
                rest = self._dot(left[p, :], own[p, :])
                rest -= sum(overlaps[p, i] * self._dot(left[p, :], products[b][i, :]) for i in range(len(values)))
                out[b, p] = exact + self.dimension * rest
        return out

    def _bias(self, derivative: Function) -> float:
        S, variance, n = self.shared.density, self.isotropic, self.dimension
        if not variance > 0:
            return 0.0
        x, w = np.asarray(S.nodes, dtype=np.float64), np.asarray(S.weights, dtype=np.float64)
        # Noise of a positive semidefinite matrix is so itself, and the smaller the smaller the eigenvalue.
        shape = np.maximum(x, 0.0) if x[0] >= -S.noise_floor else np.ones_like(x)
        squares = variance * np.outer(shape, shape) / float(w @ shape) ** 2  # n E |eps_ij|^2
        middle = (x[:, None] + x) / 2
        half = np.maximum(np.abs(x[:, None] - x) / 2, np.maximum(np.sqrt(squares), 1e-6 * S.norm_estimate))
        divided = (derivative(middle + half) - derivative(middle - half)) / (2 * half)
        return 0.5 * n * float(w @ (squares * divided) @ w)

    # -- eigenvalues ---------------------------------------------------------------------------------------------------

    def end(self, *, upper: bool) -> Effect:
        r"""Effect on an extreme eigenvalue; its bias is that of second-order perturbation, away from the other eigenvalues.

        The noise that the eigenvector has along another one that is known moves it by :math:`E (u_j^\top \varepsilon u)^2 / (\lambda -
        \lambda_j)`; the rest of the noise across it counts as if all other eigenvalues were in the middle of the bulk (Granziol et al.,
        2022).
        """
        index, S = int(upper), self.shared.density
        u = self.shared.ritz_rows([0, -1])[index]
        influence, row = self._forms(u, self.probes + index), self.probes + index
        value = float(S.extreme_eigenvalues()[index][0])
        left = max(self._variance(row) - standard_error(self.weights, influence[:, 0]) ** 2, 0.0)
        values, places = self.shared.converged(KNOWN)
        itself = int(np.nanargmax(S.run.ritz_values[0])) if upper else 0
        others = [(own, place) for own, place in zip(values, places, strict=True) if place != itself]
        bias = 0.0
        if others:
            vectors = self.shared.ritz_rows([place for _, place in others])
            for i, (own, _) in enumerate(others):
                squares = self._forms(vectors[i, :], row)[:, 0]
                part = min(standard_error(self.weights, squares) ** 2, left)
                bias += float(shifted_eigenvalue(value, part, bulk=own)) - value if own != value else 0.0
                left -= part
        if left > 0 and len(others) < self.dimension - 1:
            bias += float(shifted_eigenvalue(value, left, bulk=float(S.quantile(0.5)))) - value
        return Effect(influence, bias)

    def norm(self) -> Effect:
        """Effect on the spectral norm."""
        low, high = (float(end[0]) for end in self.shared.density.extreme_eigenvalues())
        return self.end(upper=True) if abs(high) >= abs(low) else -1.0 * self.end(upper=False)

    def eigenvalue(self, place: int) -> Effect:
        """Effect on a simple eigenvalue inside of the spectrum, by its place in ascending order of the Ritz values; one product."""
        row = self.shared.ritz_rows([place])
        return Effect(np.array([[self._dot(row[0], own[0, :])] for own in self.along(row)]))

    # -- loss and gradient ---------------------------------------------------------------------------------------------

    def loss(self, theta: Array | None = None) -> Effect:
        """Effect on the loss, here or at other parameters, which takes a forward pass."""
        losses = self.batches.losses if theta is None else self.batches.losses_at(theta)
        return Effect((losses - self.weights @ losses)[:, None])

    def slope(self, direction: Array) -> Effect:
        """Effect on the derivative of the loss along a fixed vector."""
        return Effect(self._slopes(direction))

    @property
    def _direction(self) -> Array:
        return self.shared.gradient / self.shared.gradient_norm

    def _basis(self, count: int) -> list[Array]:
        """The first vectors of the Krylov space of the gradient, zero beyond its end."""
        along = self.shared.along_gradient
        if along is None or along.vectors is None or not along.vectors.bases:
            raise ValueError("The Lanczos run at the gradient kept no vectors; raise its memory_budget.")
        betas, steps = along.betas[0], int(along.num_steps_taken[0])
        if steps < count and betas[steps - 1] != 0:
            raise ValueError(f"The run at the gradient has only {steps} steps, but its sampling needs {count}; take more num_steps.")
        rows = [self.backend.contiguous(along.vectors.bases[0].row(k), self.shared.operator.dtype) for k in range(min(count, steps))]
        return rows + [0.0 * rows[0]] * (count - len(rows))

    def gradient_norm(self) -> Effect:
        """Effect on the length of the gradient; the bias is what noise across it adds."""
        length = self.shared.gradient_norm
        influence = self._slopes(self._direction)
        squares = np.array([self._dot(own, own) for own in self._gradients])
        noise = float(self.weights @ squares) / (len(self.weights) - 1)
        across = max(noise - standard_error(self.weights, influence[:, 0]) ** 2, 0.0)
        return Effect(influence, across / (2 * length))

    def gradient_curvature(self) -> Effect:
        """Effect on the curvature along the gradient, ``u.H.u`` with ``u = g / |g|``: ``u.dH.u + 2 (H u).du``."""
        along = self.shared.along_gradient
        assert along is not None
        influence = self._forms(self._direction, self.probes + 2)
        if (beta := float(along.betas[0, 0])) > 0:
            influence = influence + 2 * beta / self.shared.gradient_norm * self._slopes(self._basis(2)[1])
        return Effect(influence)

    def gradient_product(self) -> Effect:
        """Effect on ``|H u|`` with the direction u of the gradient."""
        along = self.shared.along_gradient
        assert along is not None
        alphas, betas = along.alphas[0], along.betas[0]
        length = math.hypot(float(alphas[0]), float(betas[0]))
        if not betas[0] > 0:
            return Effect(math.copysign(1.0, float(alphas[0])) * self._forms(self._direction, self.probes + 2))
        first, second, third = self._basis(3)
        influence = self._forms((float(alphas[0]) * first + float(betas[0]) * second) / length, self.probes + 2)
        beyond = float(betas[1]) if len(betas) > 1 else 0.0
        bent = (float(alphas[0]) + float(alphas[1])) * second + beyond * third  # H H u across u, over beta
        return Effect(influence + float(betas[0]) / (length * self.shared.gradient_norm) * self._slopes(bent))

    def gradient_overlap(self, place: float) -> Effect:
        """Effect on the share of the squared gradient above an eigenvalue that lies in a gap; as many products as Ritz values above it.

        By the turning of the gradient, ``2 (P u).du``, and by that of the eigenspace, ``2 sum_i (u.u_i) w_i.dH u_i`` over the upper
        eigenvectors with ``w_i = sum_j u_j (u_j.u) / (lambda_i - lambda_j)`` over the lower ones.
        """
        along = self.shared.along_gradient
        assert along is not None and along.vectors is not None and along.vectors.bases
        basis, direction = along.vectors.bases[0], self._direction
        values, vectors = ritz(*along.jacobi(0))
        above = values > place
        share = float((vectors[0, above] ** 2).sum())
        if not above.any() or above.all():
            return Effect(np.zeros((len(self.weights), 1)))
        inside = self.backend.contiguous(basis.combine((vectors[:, above] @ vectors[0, above])[None, :])[0], self.shared.operator.dtype)
        influence = 2 / self.shared.gradient_norm * (self._slopes(inside) - share * self._slopes(direction))
        upper = np.flatnonzero(above & (np.abs(vectors[0]) > 1e-8))
        if upper.size:
            lower = vectors[0, ~above][:, None] / (values[upper] - values[~above][:, None])
            rows = self._rows(basis, vectors[:, upper].T)
            turned = self._rows(basis, (vectors[:, ~above] @ lower).T)
            differences = self.along(rows)
            for i, own in enumerate(upper):
                influence = influence + 2 * vectors[0, own] * np.array([[self._dot(turned[i, :], one[i, :])] for one in differences])
        return Effect(influence)

    def rise(self, step: Array) -> Effect:
        """Effect on the rise ``g.e + e.H.e / 2`` of the quadratic model at a fixed step e, or at the best one in a ball; one product."""
        row = self.backend.empty((1, self.dimension), self.shared.operator.dtype)
        row[0, :] = step
        bent = np.array([[self._dot(row[0], own[0, :])] for own in self.along(row)])
        return Effect(self._slopes(row[0]) + 0.5 * bent)

    def _rows(self, basis: Any, coefficients: np.ndarray) -> Array:
        out = self.backend.empty((len(coefficients), self.dimension), self.shared.operator.dtype)
        combined = basis.combine(np.ascontiguousarray(coefficients))
        for index in range(len(coefficients)):
            out[index, :] = combined[index]
        return out


def base_rows(shared: SharedRun, more: int = 0) -> Array:
    """Starting vectors of the probes, both extreme Ritz vectors, the direction of the gradient where it has one, and room for more rows.

    Raises
    ------
    ValueError
        When the run kept no vectors.
    """
    if not shared.keeps_vectors:
        raise ValueError("The Lanczos run kept no vectors, so that there are no eigenvectors to measure along; raise its memory_budget.")
    starts, _ = shared.starts()
    m, n = int(starts.shape[0]), int(shared.operator.shape[0])
    has_gradient = shared.gradient_norm > 0
    rows = shared.operator.backend.empty((m + 2 + has_gradient + more, n), shared.operator.dtype)
    rows[:m, :] = starts
    rows[m : m + 2, :] = shared.ritz_rows([0, -1])
    if has_gradient:
        rows[m + 2, :] = shared.gradient / shared.gradient_norm
    return rows
