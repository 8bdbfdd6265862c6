r"""Two measured spectra as samples: what the random probes alone would have made of one spectrum.

A probe that is uniform on the sphere gives n eigenvalues the weights Dirichlet(1/2, ..., 1/2), for complex matrices Dirichlet(1, ..., 1),
whatever the eigenvectors are. Three things follow, without any further product.

With polynomials :math:`\pi_j` that are orthonormal with respect to the spectrum, the means :math:`\int \pi_j\, dF_v` over p probes have
the variance :math:`2 / (p (n + 2))` and no correlation; k steps give them exactly up to degree 2k - 1. Differences of two runs, in standard
deviations, are the components of a smooth test (J. Neyman, *Smooth test for goodness of fit*, Skand. Aktuarietidskr. 20 (1937)), whose
order is chosen by the data (J. Fan, J. Amer. Statist. Assoc. 91 (1996)); its law comes from Dirichlet weights at the nodes of both runs.

An isolated eigenvalue that one run has found is in the spectrum. Where the other run's coefficients leave room for the mass M at this
place only (the Christoffel bound), one and the same matrix has the chance P(Beta(1/2, (n - 1)/2) <= M) of hiding it, for each probe.

Distances of two runs on one spectrum are not zero: they come from Lanczos runs on Dirichlet weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy

from ..krylov.tridiagonal import ritz
from .deflation import Atom
from .density import SpectralDensity
from .distances import kolmogorov_distance, wasserstein_distance
from .quadrature import christoffel_mass

MOST_DEGREES = 24
"""Polynomials of the smooth test at most."""
_TINY = 1e-280
_DRAWS_OF_COST = 3e7
_FEWEST_DRAWS = 49

Measure = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """One run without the eigenvalues that both runs have found.

    Attributes
    ----------
    rules : tuple of (numpy.ndarray, numpy.ndarray)
        For each probe nodes and weights, which sum to one.
    n : int
        Eigenvalues that are left.
    dimension : int
        Order of the operator.
    num_steps : int
        Lanczos steps.
    complex_valued : bool
        Whether probes are complex.
    """

    rules: tuple[Measure, ...]
    n: int
    dimension: int
    num_steps: int
    complex_valued: bool

    @property
    def pooled(self) -> Measure:
        """Nodes and weights of all probes; the weights sum to one."""
        nodes = np.concatenate([nodes for nodes, _ in self.rules])
        return nodes, np.concatenate([weights for _, weights in self.rules]) / len(self.rules)

    @property
    def shape(self) -> float:
        """Parameter of the Dirichlet law for one eigenvalue."""
        return 1.0 if self.complex_valued else 0.5

    @property
    def variance(self) -> float:
        """Of the mean of a function of unit variance over the eigenvalues that are left, by all probes."""
        return 1.0 / (len(self.rules) * (self.n + 1)) if self.complex_valued else 2.0 / (len(self.rules) * (self.n + 2))


def samples(a: SpectralDensity, b: SpectralDensity) -> tuple[Sample, Sample, np.ndarray]:
    """Both runs without the simple eigenvalues that both have pinned at the same place, and those eigenvalues."""
    common = _common(a, b)
    return _sample(a, [one for one, _ in common]), _sample(b, [other for _, other in common]), np.array([one.value for one, _ in common])


def _common(a: SpectralDensity, b: SpectralDensity) -> list[tuple[Atom, Atom]]:
    ours, theirs = (_pinned(S) for S in (a, b))
    found: list[tuple[Atom, Atom]] = []
    for one in ours:
        near = [other for other in theirs if abs(other.value - one.value) <= tolerance(a, b, one.residual + other.residual)]
        if len(near) == 1 and all(near[0] is not other for _, other in found):
            found.append((one, near[0]))
    return found


def _pinned(S: SpectralDensity) -> list[Atom]:
    values = set(S.deflation.pinned.tolist())
    return [atom for atom in S.deflation.atoms if atom.value in values]


def tolerance(a: SpectralDensity, b: SpectralDensity, residual: float) -> float:
    """Distance up to which two eigenvalues of two runs may be the same one."""
    return residual + a.noise_floor + b.noise_floor


def _sample(S: SpectralDensity, atoms: Sequence[Atom]) -> Sample:
    rules = []
    for probe, rule in enumerate(S.deflation.rules):
        keep = np.ones(len(rule.nodes), dtype=bool)
        keep[[atom.places[probe] for atom in atoms]] = False
        total = rule.weights[keep].sum()
        if total > 0:
            rules.append((rule.nodes[keep], rule.weights[keep] / total))
    return Sample(tuple(rules), S.dimension - len(atoms), S.dimension, S.num_steps, np.dtype(S.run.dtype).kind == "c")


# -- moments -----------------------------------------------------------------------------------------------------------


def smooth_test(a: Sample, b: Sample, count: int, rng: np.random.Generator) -> tuple[float, np.ndarray]:
    """P-value of the smooth test, and the differences of the means of the polynomials in standard deviations.

    Parameters
    ----------
    a, b : Sample
        The runs.
    count : int
        Draws of the null.
    rng : numpy.random.Generator
        Source of the draws.
    """
    if not (a.rules and b.rules and a.n > 1 and b.n > 1):
        return 1.0, np.zeros(0)
    _, weights, basis = _orthonormal(a, b)
    if basis.shape[1] == 0:
        return 1.0, np.zeros(0)
    scale = np.sqrt(a.variance + b.variance)
    means = []
    first = 0
    for side in (a, b):
        own = np.concatenate([rule[1] for rule in side.rules]) / len(side.rules)
        part = slice(first, first + len(own))
        first += len(own)
        means.append((own / np.sqrt(weights[part])) @ basis[part])
    z = (means[0] - means[1]) / scale
    drawn = (_dirichlet(a, weights, count, rng) - _dirichlet(b, weights, count, rng)) / np.sqrt(weights) @ basis / scale
    observed, null = _order_chosen(z[None])[0], _order_chosen(drawn)
    # Of equal statistics, as for a run compared with itself, all count.
    return float((1 + np.sum(null >= observed - 1e-12)) / (count + 1)), z


def _orthonormal(a: Sample, b: Sample) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes and weights of both runs together, and root-weighted values of the orthonormal polynomials of degree 1, 2, ..."""
    probes = len(a.rules) + len(b.rules)
    nodes = np.concatenate([rule[0] for side in (a, b) for rule in side.rules])
    weights = np.maximum(np.concatenate([rule[1] for side in (a, b) for rule in side.rules]) / probes, _TINY)
    weights = weights / weights.sum()
    # Beyond about the root of the number of eigenvalues polynomials fit what the weights happen to be.
    draws = min(a.n, b.n) * min(len(a.rules), len(b.rules))
    # Rules of m nodes are exact to degree 2 m - 1: squares of polynomials of degree m are not.
    fewest = min(len(rule[0]) for side in (a, b) for rule in side.rules)
    most = min(fewest - 1, MOST_DEGREES, max(3, int(np.sqrt(draws) / 2)))
    spread = float(np.ptp(nodes))
    scale = max(spread / 2, np.finfo(float).tiny)
    x = (nodes - nodes.min() - spread / 2) / scale
    rows = [np.sqrt(weights)]
    for _ in range(most):
        new = x * rows[-1]
        for _ in range(2):
            known = np.array(rows)
            new = new - known.T @ (known @ new)
        size = float(np.linalg.norm(new))
        if not size > 1e-9 or spread <= 1e-12 * float(np.max(np.abs(nodes))):
            break
        rows.append(new / size)
    return nodes, weights, np.array(rows[1:]).reshape(-1, len(nodes)).T


def _dirichlet(side: Sample, weights: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Mean weights of all probes of a run on a spectrum of these weights, shape (count, m).

    The mean of p Dirichlet vectors is taken as one with p times the parameters, which has the same mean and, up to ``1 / n``, variance.
    """
    drawn = rng.gamma(np.maximum(side.shape * len(side.rules) * side.n * weights, _TINY), size=(count, len(weights)))
    return np.asarray(drawn / drawn.sum(axis=1, keepdims=True))


def _order_chosen(z: np.ndarray) -> np.ndarray:
    """Largest of the standardised sums of the first squares, for each row."""
    orders = np.arange(1, z.shape[1] + 1)
    return np.asarray(np.max((np.cumsum(z**2, axis=1) - orders) / np.sqrt(2 * orders), axis=1))


# -- isolated eigenvalues ----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Missing:
    """An isolated eigenvalue of one run that the other has no room for.

    Attributes
    ----------
    value : float
        The eigenvalue.
    found_in : str
        The run that found it, ``"a"`` or ``"b"``.
    p_value : float
        Chance that probes hide as much of it, on its own.
    """

    value: float
    found_in: str
    p_value: float


def eigenvalue_test(a: SpectralDensity, b: SpectralDensity) -> tuple[float, Missing | None]:
    """P-value of the isolated eigenvalues of either run, and the one that is hardest to find in the other.

    What the other run has found as well is in its spectrum, however little of it chance gave its probes: such an eigenvalue speaks for
    nothing. It counts among the tests all the same, because those that are left are the ones with little weight.
    """
    pairs = (("a", a, b), ("b", b, a))
    # Without reorthogonalisation, what has converged may be rounding.
    counted = [pair for pair in pairs if pair[1].run.counts_eigenvalues]
    candidates = [(name, found, other, atom) for name, found, other in counted for atom in found.deflation.atoms]
    tests = [
        Missing(atom.value, name, _hidden(found, other, atom))
        for name, found, other, atom in candidates if not _has_found(other, found, atom)
    ]  # fmt: skip
    if not tests:
        return 1.0, None
    worst = min(tests, key=lambda test: test.p_value)
    return min(1.0, len(candidates) * worst.p_value), worst


def _has_found(other: SpectralDensity, found: SpectralDensity, atom: Atom) -> bool:
    """Whether a probe of the other run has converged to an isolated eigenvalue that may be this one."""
    reach = tolerance(found, other, atom.residual)
    return any(
        bool(np.any(sharp & (np.abs(rule.nodes - atom.value) <= reach + rule.residuals)))
        for rule, sharp in zip(other.deflation.rules, other.deflation.sharp, strict=True)
    )


def _hidden(found: SpectralDensity, other: SpectralDensity, atom: Atom) -> float:
    """Chance that the other run's probes have as little of an eigenvalue as its coefficients allow; probes together by Fisher's method."""
    n = other.dimension
    if n == 1:
        return 1.0 if abs(float(other.nodes[0]) - atom.value) <= tolerance(found, other, atom.residual) else 0.0
    half = 1.0 if np.dtype(other.run.dtype).kind == "c" else 0.5
    logarithms = 0.0
    for probe, rule in enumerate(other.deflation.rules):
        reach = tolerance(found, other, atom.residual)
        near = np.abs(rule.nodes - atom.value) <= reach + rule.residuals
        mass = float(rule.weights[near].sum())
        # Between nodes the bound is smooth over such a short way; it is largest where a node is next.
        places = np.array([atom.value - reach, atom.value, atom.value + reach])
        mass += float(np.max(christoffel_mass(*other.run.jacobi(probe), places)))
        logarithms += float(np.log(max(scipy.stats.beta.cdf(min(mass, 1.0), half, half * (n - 1)), _TINY)))
    return float(scipy.stats.chi2.sf(-2 * logarithms, 2 * other.num_probes))


# -- distances ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class DistanceNull:
    """Distances of two runs like these on one spectrum, one for each draw.

    Attributes
    ----------
    wasserstein, kolmogorov : numpy.ndarray
        Between the two runs, shape (count,).
    wasserstein_errors, kolmogorov_errors : numpy.ndarray
        Of both runs from the spectrum, added up, shape (count,).
    """

    wasserstein: np.ndarray
    kolmogorov: np.ndarray
    wasserstein_errors: np.ndarray
    kolmogorov_errors: np.ndarray


def distance_null(a: Sample, b: Sample, common: np.ndarray, count: int, rng: np.random.Generator) -> DistanceNull:
    """Draws of the null of both distances; fewer than `count` where runs are long."""
    if not (a.rules and b.rules):
        return DistanceNull(*(np.zeros(1) for _ in range(4)))
    probes = len(a.rules) + len(b.rules)
    nodes = np.concatenate([rule[0] for side in (a, b) for rule in side.rules])
    weights = np.maximum(np.concatenate([rule[1] for side in (a, b) for rule in side.rules]) / probes, _TINY)
    cost = sum(len(side.rules) * side.num_steps * (len(nodes) + side.num_steps**2 / 4) for side in (a, b))
    count = int(np.clip(_DRAWS_OF_COST / cost, _FEWEST_DRAWS, count))
    runs = [_drawn_runs(side, nodes, weights, common, count, rng) for side in (a, b)]
    truths = [_with_common((nodes, weights), side, common) for side in (a, b)]
    out = [
        [
            wasserstein_distance(one, other), kolmogorov_distance(one, other),
            wasserstein_distance(one, truths[0]) + wasserstein_distance(other, truths[1]),
            kolmogorov_distance(one, truths[0]) + kolmogorov_distance(other, truths[1]),
        ]
        for one, other in zip(*runs, strict=True)
    ]  # fmt: skip
    return DistanceNull(*np.array(out).T)


def _with_common(measure: Measure, side: Sample, common: np.ndarray) -> Measure:
    share = (side.dimension - len(common)) / side.dimension
    return np.concatenate([measure[0], common]), np.concatenate([share * measure[1], np.full(len(common), 1 / side.dimension)])


def _drawn_runs(
    side: Sample, nodes: np.ndarray, weights: np.ndarray, common: np.ndarray, count: int, rng: np.random.Generator
) -> list[Measure]:
    """Measures of runs like this one on a spectrum with these nodes and weights."""
    probes = len(side.rules)
    drawn = np.maximum(rng.gamma(np.maximum(side.shape * side.n * weights, _TINY), size=(count * probes, len(weights))), _TINY)
    # Less the steps that the common eigenvalues take.
    alphas, betas = _lanczos(nodes, drawn, max(1, min(side.num_steps - len(common), len(nodes))))
    rules = [ritz(alpha, beta) for alpha, beta in zip(alphas, betas, strict=True)]
    out = []
    for first in range(0, count * probes, probes):
        own = rules[first : first + probes]
        pooled = np.concatenate([x for x, _ in own]), np.concatenate([vectors[0] ** 2 for _, vectors in own]) / probes
        out.append(_with_common(pooled, side, common))
    return out


def _lanczos(nodes: np.ndarray, weights: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of k steps for each row of weights; without reorthogonalisation, which the measure does not need."""
    scale = float(np.max(np.abs(nodes))) or 1.0
    x = nodes / scale
    current = np.sqrt(weights / weights.sum(axis=1, keepdims=True))
    previous, beta = np.zeros_like(current), np.zeros((len(current), 1))
    alphas, betas = np.zeros((len(current), k)), np.zeros((len(current), k))
    for step in range(k):
        new = x * current - beta * previous
        alphas[:, step] = np.einsum("ij,ij->i", new, current)
        new -= alphas[:, step, None] * current
        beta = np.linalg.norm(new, axis=1, keepdims=True)
        betas[:, step] = beta[:, 0]
        previous, current = current, np.divide(new, beta, out=np.zeros_like(new), where=beta > 1e-14)
    return alphas * scale, betas * scale


# -- smoothed densities ------------------------------------------------------------------------------------------------


def common_bandwidth(a: SpectralDensity, b: SpectralDensity) -> float:
    """Width of the Gaussians for both: the width of both bulks over the smaller number of steps."""
    edges = np.array([S.bulk_edges() for S in (a, b)])
    width = float(edges[:, 1].max() - edges[:, 0].min())
    if not width > 0:
        width = float(max(a.nodes[-1], b.nodes[-1]) - min(a.nodes[0], b.nodes[0])) or max(abs(float(a.nodes[0])), 1.0)
    return max(width / min(a.num_steps, b.num_steps), a.noise_floor, b.noise_floor)


class Smoother:
    """Densities of discrete measures by Gaussians of one width, on a grid of cells that covers them."""

    def __init__(self, nodes: np.ndarray, bandwidth: float) -> None:
        self.bandwidth = bandwidth
        cell = bandwidth / 2
        reached = np.unique(np.floor(nodes / cell).astype(np.int64))
        self.cells = np.unique((reached[:, None] + np.arange(-9, 10)).ravel())
        self.places = (self.cells + 0.5) * cell

    def masses(self, nodes: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Mass of each cell, shape (cells, ...) for weights of shape (nodes, ...)."""
        kernel = np.exp(-0.5 * ((self.places[:, None] - nodes) / self.bandwidth) ** 2)
        return np.asarray(kernel / kernel.sum(axis=0) @ weights)


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence of masses along the first axis, in nats; between zero and log 2."""
    mean = (p + q) / 2
    total = 0.0
    for side in (p, q):
        ratio = np.divide(side, mean, out=np.ones_like(side), where=side > 0)
        total = total + 0.5 * np.sum(side * np.log(ratio), axis=0)
    return np.maximum(np.asarray(total), 0.0)


def jensen_shannon_null(smoother: Smoother, a: Sample, b: Sample, common: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """The divergence of two runs like these on one spectrum, shape (count,).

    The bandwidth is wider than the steps between nodes, so that sampling alone counts.
    """
    if not (a.rules and b.rules):
        return np.zeros(1)
    nodes, weights, _ = _orthonormal(a, b)
    masses = []
    for side in (a, b):
        share = (side.dimension - len(common)) / side.dimension
        drawn = share * smoother.masses(nodes, _dirichlet(side, weights, count, rng).T)
        if len(common):
            drawn = drawn + smoother.masses(common, np.full(len(common), 1 / side.dimension))[:, None]
        masses.append(drawn)
    return jensen_shannon(*masses)
