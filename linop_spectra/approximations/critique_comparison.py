"""One approximation beside the matrix it stands for: the rows of its critique."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ..backends import Array
from ..estimators import spectral_norm
from ..krylov import eigsh, solve
from ..operators import LinearOperator
from ..operators.diagonal import DiagonalOperator
from ..results import Estimate
from ..spectra import SpectralDensity, spectral_density, wasserstein_distance
from .critique_rows import CritiqueRow, compared
from .critique_truth import TRACE_SHARE, Truth, distance, effective_share, snapped
from .diagonal import DiagonalApproximation, ScalarApproximation
from .diagonal_noise import DiagonalNoise
from .haar_null import block_norm_kept, diagonal_norm_kept

Loss = Callable[[Array], float]
_SMALLEST_SHARE = 1e-3
_TIED = 1e-9


@dataclasses.dataclass(frozen=True, eq=False)
class Steps:
    """What the rows on Newton steps need.

    Attributes
    ----------
    gradient : Array
        Shape (n,).
    dampings : tuple of float
        Added to the matrix and to the approximation.
    steps : tuple
        For each damping the step of the matrix and a bound on its relative error.
    loss : callable or None
        Loss at a displacement from the point.
    curvature : float
        Quadratic form of the matrix in the gradient.
    """

    gradient: Array
    dampings: tuple[float, ...]
    steps: tuple[tuple[Array, float], ...]
    loss: Loss | None
    curvature: float

    @property
    def middle(self) -> int:
        """Place of the damping at which losses are compared."""
        return len(self.dampings) // 2


class Compared:
    """The numbers of an approximation that the truth is compared with.

    Parameters
    ----------
    truth : Truth
        Of the matrix.
    operator : LinearOperator
        The approximation.
    num_steps, num_probes, seed
        Of its spectral density, where its eigenvalues are not known.
    """

    def __init__(self, truth: Truth, operator: LinearOperator, *, num_steps: int, num_probes: Any, seed: int) -> None:
        self.truth, self.operator, self.seed = truth, operator, seed
        known = getattr(operator, "eigenvalues", None)
        self.exact: np.ndarray | None = None if known is None else known()
        if isinstance(operator, DiagonalOperator):
            self.exact = np.sort(np.real(operator.backend.to_numpy(operator.diagonal)).astype(np.float64))
        self.noise = noise_of(operator)
        self.density: SpectralDensity | None = None
        if self.exact is None and truth.exact is not None:  # small enough to form
            dense = operator.backend.to_numpy(operator.to_dense())
            self.exact = np.linalg.eigvalsh(dense.astype(np.complex128 if dense.dtype.kind == "c" else np.float64))
        elif self.exact is None:
            self.density = spectral_density(operator, num_steps=min(num_steps, truth.order), num_probes=num_probes, seed=seed)

    @property
    def spectrum(self) -> tuple[np.ndarray, np.ndarray]:
        """Nodes, zero up to the noise floor of the truth, and weights."""
        if self.exact is not None:
            return snapped(self.exact, self.truth.floor), np.full(len(self.exact), 1 / len(self.exact))
        assert self.density is not None
        return snapped(self.density.nodes, self.truth.floor), self.density.weights

    def sum(self, f: Callable[[np.ndarray], np.ndarray]) -> Estimate:
        """Sum of a function over the eigenvalues."""
        if self.noise is not None:
            return self.noise.sum(f)
        if self.exact is not None:
            return Estimate(math.fsum(f(self.exact)), method="closed form")
        assert self.density is not None
        return self.density.trace(f)

    def trace(self) -> Estimate:
        """Sum of the eigenvalues, or of the diagonal where it is known."""
        if self.noise is not None:
            return self.noise.trace()
        if self.exact is None and hasattr(self.operator, "diagonal"):
            return Estimate(math.fsum(np.real(self.operator.backend.to_numpy(self.operator.diagonal)).tolist()), method="closed form")
        return self.truth.refined_trace(self.sum(lambda x: x), self.operator)

    def frobenius_norm(self) -> Estimate:
        """Root of the sum of squares."""
        if self.noise is not None:
            return self.noise.frobenius_norm()
        squares = self.sum(lambda x: x**2)
        root = math.sqrt(max(squares.value, 0.0))
        slope = 1 / (2 * root) if root else 0.0
        return dataclasses.replace(
            squares, value=root, standard_error=slope * squares.standard_error, quadrature_error=slope * squares.quadrature_error,
            rounding_error=slope * squares.rounding_error,
        )  # fmt: skip

    def spectral_norm(self) -> Estimate:
        """Largest modulus."""
        if self.noise is not None:
            return self.noise.largest_modulus()
        if self.exact is not None:
            return Estimate(float(np.abs(self.exact).max()), method="closed form")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return spectral_norm(self.operator, tol=1e-4, seed=self.seed)

    def smallest(self) -> Estimate:
        """Smallest eigenvalue."""
        if self.noise is not None:
            return self.noise.smallest()
        if self.exact is not None:
            return Estimate(float(self.exact[0]), method="closed form")
        assert self.density is not None
        (value, residual), _ = self.density.extreme_eigenvalues()
        return Estimate(value, quadrature_error=residual, method="extreme Ritz value")

    def negative_mass(self) -> Estimate:
        """Share of eigenvalues below minus the noise floor of the truth."""
        if self.noise is not None:
            return self.noise.share_below(-self.truth.floor)
        if self.exact is not None:
            return Estimate(float(np.mean(self.exact < -self.truth.floor)), method="closed form")
        assert self.density is not None
        value = float(self.density.weights[self.density.nodes < -self.truth.floor].sum())
        low, high = (float(end) for end in self.density.cdf_band(-2 * self.truth.floor, 0.95))
        return Estimate(value, quadrature_error=max(value - low, high - value, 0.0), method="band of the distribution")

    def num_outliers(self) -> Estimate:
        """Eigenvalues where the outliers of the truth are."""
        low, high = self.truth.edges
        if self.noise is not None:
            return self.noise.count_outside(min(low, -self.truth.floor), max(high, self.truth.floor))
        nodes, weights = self.spectrum
        outside = ((nodes < low) | (nodes > high)) & (np.abs(nodes) > self.truth.floor)
        return Estimate(float(np.round(self.truth.order * weights[outside].sum())))

    def overlap(self) -> tuple[Estimate, str]:
        """Mean squared cosine between the leading subspaces, with a bound on what is not known of it."""
        truth, n = self.truth, self.truth.order
        k = min(truth.num_pairs, n)
        values = np.abs(truth.top_values)
        gap = float(values[k - 1] - values[k]) if n > k else math.inf
        uncertain = 2 * float(truth.top_residuals.max()) / gap if gap > 0 else math.inf
        note = "" if gap > _TIED * float(values[0]) else f"eigenvalue {k} of the matrix and the next one coincide"
        if note:
            uncertain = math.inf
        own, determined = self._leading(k)
        basis = truth.top_vectors[:, :k]
        cosines = truth.operator.backend.to_numpy(truth.operator.backend.conj(basis).T @ own) if determined else np.zeros((k, 0))
        captured = float(np.sum(np.abs(cosines) ** 2))
        if determined < k:  # the rest of the subspace may be anything; a random choice gives this
            captured += (k - determined) * (k - captured) / max(n - determined, 1)
            note = note or f"only {determined} leading directions of the approximation are determined"
        if self.noise is not None:  # whichever entries are the largest, no k of them hold more than this
            rows = truth.operator.backend.to_numpy(basis)
            shares = np.sort(np.sum(np.abs(rows) ** 2, axis=1))[-k:]
            uncertain += max(captured, float(shares.sum()) - captured) / k
        return Estimate(captured / k, quadrature_error=min(uncertain, 1.0)), note

    def _leading(self, k: int) -> tuple[Array, int]:
        """Leading eigenvectors of the approximation, and how many of them are determined."""
        n, determined = self.truth.order, k
        if self.exact is not None and n > k:
            sizes = -np.sort(-np.abs(self.exact))
            tied = sizes[k] * (1 + _TIED) + _TIED * sizes[0]
            if sizes[k - 1] <= tied:
                determined = int(np.sum(sizes > tied))
        if determined == 0:
            return None, 0
        known = getattr(self.operator, "top_vectors", None)
        vectors = None if known is None else known(determined)
        if vectors is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                pairs = eigsh(self.operator, k=determined, which="LM", tol=1e-5, seed=self.seed)
            vectors = pairs.eigenvectors
        return vectors, determined


def noise_of(operator: LinearOperator) -> DiagonalNoise | None:
    """Sampling error of an estimated diagonal; None for other operators."""
    error = getattr(operator, "standard_error", None)
    if not isinstance(operator, DiagonalApproximation) or error is None:
        return None
    backend = operator.backend
    entries, errors = (np.real(backend.to_numpy(x)).astype(np.float64) for x in (operator.diagonal, backend.asarray(error)))
    return DiagonalNoise(entries, errors) if np.isfinite(errors).all() else None


def rows_of(
    truth: Truth, name: str, operator: LinearOperator, steps: Steps, probes: tuple[Array, Array, bool], *,
    num_steps: int, num_probes: Any, seed: int, tolerances: tuple[float, float],
) -> list[CritiqueRow]:  # fmt: skip
    """All rows of one approximation."""
    own = Compared(truth, operator, num_steps=num_steps, num_probes=num_probes, seed=seed)
    null = _nulls(truth, operator, steps)
    rows: list[CritiqueRow] = []

    def add(property: str, of_truth: Estimate, estimate: Estimate, **options: Any) -> None:
        options.setdefault("null", null.get(property))
        rows.append(compared(name, property, of_truth, estimate, tolerances=tolerances, **options))

    norm, deviation, n = truth.spectral_norm, truth.deviation, truth.order
    frobenius = truth.frobenius_norm
    add("trace", truth.trace, own.trace(), scale=max(abs(truth.trace.value), TRACE_SHARE * truth.nuclear_norm))
    add("frobenius_norm", frobenius, own.frobenius_norm())
    error = distance(operator, *probes)
    add("frobenius_error", Estimate(0.0), error, scale=frobenius.value, note="over the norm of the matrix")
    add("spectral_norm", norm, own.spectral_norm())
    add("smallest_eigenvalue", truth.smallest, own.smallest(), scale=max(abs(truth.smallest.value), _SMALLEST_SHARE * norm.value))
    places = own.spectrum
    add_distance = _distances(truth, own, places)
    negative = own.negative_mass()
    add("negative_mass", truth.negative_mass, negative, scale=max(truth.negative_mass.value, negative.value))
    damping = steps.dampings[steps.middle]
    dimension = own.sum(lambda x: effective_share(x, damping))
    add("effective_dimension", truth.effective_dimension(damping), dimension, note=f"at damping {damping:.3g}")
    outliers = own.num_outliers()
    add("num_outliers", Estimate(float(truth.num_outliers)), outliers, scale=max(truth.num_outliers, outliers.value, 1.0))
    wasserstein, kolmogorov = add_distance
    spread = deviation if deviation > 100 * truth.floor else norm.value
    add("wasserstein", Estimate(0.0), wasserstein, scale=spread, note="over the standard deviation of the eigenvalues")
    add("kolmogorov", Estimate(0.0), kolmogorov, scale=1.0)
    overlap, note = own.overlap()
    add("top_subspace_overlap", Estimate(1.0), overlap, note=note)
    rows[:] = [_without_coincidence(row, wasserstein.value / spread if spread else 0.0, tolerances) for row in rows]
    rows += _step_rows(truth, name, operator, steps, tolerances)
    return [row if n > 1 else dataclasses.replace(row, null=None) for row in rows]


def _distances(truth: Truth, own: Compared, places: tuple[np.ndarray, np.ndarray]) -> tuple[Estimate, Estimate]:
    far, high = truth.spectrum_errors
    if own.density is not None:
        far, high = far + own.density.wasserstein_bound, high + own.density.kolmogorov_bound
    if own.noise is not None:
        far, high = far + own.noise.wasserstein, high + own.noise.kolmogorov
    return (
        Estimate(wasserstein_distance(truth.spectrum, places), quadrature_error=far),
        Estimate(kolmogorov_within(truth.spectrum, places, 4 * truth.floor), quadrature_error=min(high, 1.0)),
    )


def kolmogorov_within(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray], slack: float) -> float:
    """Largest difference of two distribution functions, where places that are no further apart than `slack` count as one.

    Examples
    --------
    >>> here, beside = (np.array([0.0]), np.ones(1)), (np.array([1e-12]), np.ones(1))
    >>> kolmogorov_within(here, beside, 0.0), kolmogorov_within(here, beside, 1e-9)
    (1.0, 0.0)
    """

    def excess(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> float:
        order = np.argsort(b[0], kind="stable")
        steps = np.concatenate([[0.0], np.cumsum(b[1][order])])
        places = np.argsort(a[0], kind="stable")
        own = np.cumsum(a[1][places])
        return float(np.max(own - steps[np.searchsorted(b[0][order], a[0][places] + slack, side="right")]))

    return min(1.0, max(0.0, excess(one, other), excess(other, one)))


def _without_coincidence(row: CritiqueRow, distance: float, tolerances: tuple[float, float]) -> CritiqueRow:
    """A share of negative eigenvalues that agrees while the spectrum as a whole is another one says nothing."""
    agrees = row.property == "negative_mass" and row.verdict in ("ok", "biased")
    if not agrees or distance <= tolerances[1] or not 0 < row.truth.value < 1:
        return row
    return dataclasses.replace(row, verdict="meaningless", note="agrees by coincidence: the spectrum as a whole is another one")


def _nulls(truth: Truth, operator: LinearOperator, steps: Steps) -> dict[str, float]:
    """What this kind of approximation shows in a random basis, as far as there are formulas."""
    law, n, F = truth.null, truth.order, truth.frobenius_norm.value
    k = min(truth.num_pairs, n)
    out: dict[str, float] = {}
    sizes = getattr(operator, "sizes", None)
    if sizes is not None:
        kept = block_norm_kept(n, law.mean, law.spectral_variance, sizes)
        return {"trace": truth.trace.value, "frobenius_norm": F * math.sqrt(kept), "frobenius_error": F * math.sqrt(max(1 - kept, 0.0))}
    if not isinstance(operator, DiagonalApproximation | ScalarApproximation | DiagonalOperator):
        return out
    kept = diagonal_norm_kept(n, law.mean, law.spectral_variance)
    places, weights = truth.null_measure
    low, high = truth.edges
    damping = steps.dampings[steps.middle]
    out |= {"trace": truth.trace.value, "frobenius_norm": F * math.sqrt(kept), "frobenius_error": F * math.sqrt(max(1 - kept, 0.0))}
    out["spectral_norm"] = max(abs(law.largest), abs(law.smallest))
    out["smallest_eigenvalue"] = law.smallest
    out["negative_mass"] = law.cdf(-truth.floor) if truth.spectrum[0].min() < 0 else 0.0
    out["effective_dimension"] = n * float(weights @ effective_share(places, damping))
    outside = ((places < low) | (places > high)) & (np.abs(places) > truth.floor)
    out["num_outliers"] = float(np.round(n * weights[outside].sum()))
    out["wasserstein"] = wasserstein_distance(truth.spectrum, truth.null_measure)
    out["kolmogorov"] = kolmogorov_within(truth.spectrum, truth.null_measure, 4 * truth.floor)
    out["top_subspace_overlap"] = k / n
    return out


def _cosine(truth: Truth, x: Array, y: Array) -> float:
    backend = truth.operator.backend
    inner, one, other = backend.fetch([backend.dot(x, y), backend.norm(x), backend.norm(y)])
    size = float(np.real(one)) * float(np.real(other))
    return float(np.real(inner)) / size if size > 0 and math.isfinite(size) else math.nan


def _inverse(operator: LinearOperator, gradient: Array, damping: float) -> tuple[Array | None, str]:
    """Step of the approximation with what was warned of, or None with the reason."""
    own = getattr(operator, "solve", None)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if own is not None:
                step = own(gradient, damping=damping)
            else:
                found = solve(operator, gradient, shift=damping, tol=1e-6)
                step = found.x
                if found.status == "stagnated" and not found.least_squares.any():  # as far as rounding allows
                    caught.clear()
    except ValueError as error:
        return None, str(error)
    return step, " ".join(dict.fromkeys(str(one.message) for one in caught))


def _why_it_misses(slope: float, bend: float, along: float, actual: float) -> str:
    """Whether the curvature along a step or the quadratic model itself is to blame for a decrease that was not foretold.

    Parameters
    ----------
    slope : float
        Of the loss along the step.
    bend, along : float
        Curvature along the step, of the approximation and of the matrix.
    actual : float
        Decrease of the loss.
    """
    foretold, exact = slope - 0.5 * bend, slope - 0.5 * along
    if not math.isfinite(actual) or abs(foretold - actual) <= 0.1 * abs(actual):
        return ""
    if abs(exact - actual) > 0.5 * abs(foretold - actual):
        return f"; the loss is not quadratic that far: with the matrix's own curvature the model says {exact:.3g}"
    if along > 2 * slope > 0:
        return (
            f"; the loss rises because the approximation does not see the curvature along its step, {along / slope:.3g} times what a step "
            f"of this length allows for the best decrease ({slope / along:.2g} of the step)"
        )
    return f"; along its step the matrix curves {along:.3g}, the approximation {bend:.3g}"


def _step_rows(
    truth: Truth, name: str, operator: LinearOperator, steps: Steps, tolerances: tuple[float, float]
) -> list[CritiqueRow]:
    rows = []
    taken: Array | None = None
    for place, (damping, (step, error)) in enumerate(zip(steps.dampings, steps.steps, strict=True)):
        own, reason = _inverse(operator, steps.gradient, damping)
        cosine = math.nan if own is None else _cosine(truth, step, own)
        plain = _cosine(truth, step, steps.gradient)
        estimate = Estimate(cosine, quadrature_error=min(2 * error, 2.0))
        rows.append(
            compared(name, f"newton_step_cosine[{damping:.3g}]", Estimate(1.0), estimate, null=plain, note=reason, tolerances=tolerances)
        )
        if place == steps.middle:
            taken = own
    if steps.loss is None or taken is None:
        return rows
    damping, (step, _) = steps.dampings[steps.middle], steps.steps[steps.middle]
    backend, zero = truth.operator.backend, steps.loss(steps.gradient * 0)
    slope, bend = (float(np.real(x)) for x in backend.fetch([backend.dot(steps.gradient, taken), backend.dot(taken, operator @ taken)]))
    actual = zero - steps.loss(-taken)
    at = f"at damping {damping:.3g}"
    predicted = Estimate(slope - 0.5 * bend, method="quadratic model of the approximation")
    along = float(np.real(backend.fetch([backend.dot(taken, truth.operator @ taken)])[0]))
    why = at + _why_it_misses(slope, bend, along, actual)
    rows.append(compared(name, "predicted_decrease", Estimate(actual, method="loss"), predicted, note=why, tolerances=tolerances))
    best = zero - steps.loss(-step)
    square = float(np.real(backend.fetch([backend.dot(steps.gradient, steps.gradient)])[0]))
    null = zero - steps.loss(-steps.gradient * (square / steps.curvature)) if steps.curvature > 0 else None
    rows.append(
        compared(
            name, "loss_decrease", Estimate(best, method="loss"), Estimate(actual, method="loss"), null=null, one_sided=True,
            note=f"{at}, beside the step of the matrix", tolerances=tolerances,
        )
    )
    return rows
