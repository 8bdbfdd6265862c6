"""Gradient methods on a quadratic with noisy gradients, in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import optimize

from ...curvature import Objective
from ...evolution.edge import stability_threshold
from ...random_matrices.laws.law import SpectralLaw, check_positive, check_whole
from ...spectra import SpectralDensity
from ..evaluation import Matrix
from ..optimizer import check_number
from .measured_modes import measured_modes
from .parameters import FirstOrderMethod, convergence_rate
from .second_moments import gains, variances

PerMode = float | Any | Callable[[np.ndarray], np.ndarray]


class NoisyQuadratic:
    r"""A quadratic whose gradient has noise, and what gradient descent, heavy ball and Nesterov's method do on it.

    The loss is :math:`\ell + \frac12 \sum_i m_i \lambda_i x_i^2`, and a gradient along eigenvector i is
    :math:`\lambda_i x_i + \xi_i` with independent noise of variance :math:`c_i` in each step. Along each eigenvector a method is a linear
    recursion of two numbers, so that means, variances and expected losses are exact.

    Parameters
    ----------
    spectrum : array, SpectralDensity or law
        Eigenvalues, shape (k,), each once; or a measured density, whose nodes stand for as many eigenvalues as their weights say (nodes
        below the noise floor count as zero); or a law of `linop_spectra.random_matrices` by a Gauss rule.
    noise : float, array or callable
        Variance :math:`c_i` of the gradient along each eigenvector: one number, shape (k,), or a function of the eigenvalues, such as
        ``lambda h: 0.1 * h`` for noise proportional to the Hessian. For batches of B examples it is that of one example over B.
    start : float, array or callable
        Expected square of each :math:`x_i` at the beginning.
    dimension : int, optional
        Number of eigenvalues that a law stands for.
    num_nodes : int
        Of the Gauss rule of a law. The loss of gradient descent is exact for as many steps.
    multiplicities : array, optional
        :math:`m_i` for an array of eigenvalues, shape (k,).
    minimum : float
        The loss :math:`\ell` at the minimum.

    Attributes
    ----------
    eigenvalues, multiplicities, noise, start : numpy.ndarray
        One entry for each mode, shape (k,).
    minimum : float
        As the argument.
    largest : float
        Largest eigenvalue: of a law the end of its support, of a measured density with its residual.
    num_matvecs : int
        Products spent by `measured`.

    References
    ----------
    T. Schaul, S. Zhang and Y. LeCun, *No more pesky learning rates*, ICML (2013). G. Zhang et al., *Which algorithmic choices matter at
    which batch sizes? Insights from a noisy quadratic model*, NeurIPS (2019).

    Examples
    --------
    >>> import linop_spectra as ls
    >>> model = ls.optim.NoisyQuadratic([1.0, 0.1], noise=0.01)
    >>> model.stationary_variance(0.5).round(6)  # 0.5 * 0.01 / (1.0 * (2 - 0.5)) along the first
    array([0.003333, 0.025641])
    >>> model.expected_loss([0, 10, 1000], 0.5).round(4)
    array([0.55  , 0.0204, 0.0029])
    """

    def __init__(
        self, spectrum: Any, noise: PerMode, *, start: PerMode = 1.0, dimension: int | None = None, num_nodes: int = 64,
        multiplicities: Any = None, minimum: float = 0.0,
    ) -> None:  # fmt: skip
        self.eigenvalues, self.multiplicities, self.largest = _modes(spectrum, dimension, num_nodes, multiplicities)
        self.noise = _per_mode("noise", noise, self.eigenvalues)
        self.start = _per_mode("start", start, self.eigenvalues)
        self.minimum, self.num_matvecs = float(minimum), 0
        if not math.isfinite(self.minimum):
            raise ValueError(f"The argument minimum is {minimum!r}, but must be finite.")

    @classmethod
    def measured(
        cls, objective: Objective, *, num_steps: int = 32, batch_size: int | None = None, matrix: Matrix = "hessian",
        num_noise_vectors: int = 4,
    ) -> NoisyQuadratic:  # fmt: skip
        r"""The quadratic that an objective is at its parameters, as far as the gradient and the noise of batches can see it.

        Lanczos runs from the gradient, and from the differences between gradients of batches and that of all data, give modes
        with the moments of their spectral measures: on a quadratic the loss of gradient methods with constant noise is exact for
        the first `num_steps` steps, without any assumption on how noise and curvature are aligned. On a network it is what its curvature
        here predicts.

        Parameters
        ----------
        objective : Objective
            For noise with at least two batches of about one size.
        num_steps : int
            Lanczos steps of each run.
        batch_size : int, optional
            Examples of the batches that a method draws anew for each step, without replacement; None, or all, for no noise.
        matrix : {"hessian", "ggn", "fisher"} or callable
            The matrix. Along negative eigenvalues of the Hessian the predicted loss falls without end.
        num_noise_vectors : int
            Batches whose difference is followed, out of all of them; the size of the noise is that of all.

        Returns
        -------
        NoisyQuadratic
            Its losses are those of the objective. It costs a gradient, those of all batches with noise, and `num_steps` products
            for each run.

        Raises
        ------
        ValueError
            When noise is asked for and there are fewer than two batches, or gradient and noise are both zero.

        Examples
        --------
        >>> import torch, linop_spectra as ls
        >>> _ = torch.manual_seed(0)
        >>> x, y = torch.randn(40, 3).double(), torch.randn(40, 1).double()
        >>> objective = ls.objective(torch.nn.Linear(3, 1).double(), "mse", (x, y))
        >>> theta, method = objective.parameters(), ls.optim.GradientDescent(learning_rate=0.1)
        >>> for _ in range(5):
        ...     theta, info = method.step(objective, theta)
        >>> bool(abs(ls.optim.NoisyQuadratic.measured(objective).expected_loss(4, 0.1) - info.loss) < 1e-9)
        True
        """
        modes = measured_modes(
            objective, matrix, check_whole("num_steps", num_steps, 1), batch_size, check_whole("num_noise_vectors", num_noise_vectors, 1)
        )
        model = cls(modes.eigenvalues, modes.noise, start=modes.start, minimum=modes.minimum)
        model.num_matvecs = modes.num_matvecs
        return model

    # -- stability and rate --------------------------------------------------------------------------------------------

    def rate(self, learning_rate: float, momentum: float = 0.0, *, nesterov: bool = False) -> float:
        """Factor of the expected distance from the minimum in each step, in the limit; zero eigenvalues do not count."""
        curved = self.eigenvalues[(self.eigenvalues != 0) & (self.multiplicities > 0)]
        if not curved.size:
            return 1.0
        method: FirstOrderMethod = "nesterov" if nesterov else "heavy_ball"
        return float(np.max(convergence_rate(learning_rate, momentum, eigenvalues=curved, method=method)))

    def largest_learning_rate(self, momentum: float = 0.0, *, nesterov: bool = False) -> float:
        """Learning rate at and above which the method diverges; infinite where no eigenvalue is positive."""
        if not self.largest > 0:
            return math.inf
        return stability_threshold(self.largest, "nesterov" if nesterov else "heavy_ball", momentum=momentum)

    def stable(self, learning_rate: float, momentum: float = 0.0, *, nesterov: bool = False) -> bool:
        """Whether means and variances stay bounded along all eigenvectors that are not flat."""
        check_number("learning_rate", learning_rate, positive=True)
        below = learning_rate < self.largest_learning_rate(momentum, nesterov=nesterov)
        return bool(below and not (self.eigenvalues < 0).any())

    # -- finite times --------------------------------------------------------------------------------------------------

    def gain(self, num_steps: Any, learning_rate: Any, momentum: float = 0.0, *, nesterov: bool = False) -> np.ndarray:
        """Expected position along each eigenvector, in units of the first one.

        Parameters
        ----------
        num_steps : int or array
            Steps, shape (...); the method starts without velocity.
        learning_rate : float or array
            One for all steps, or one for each, at least as many as the steps.
        momentum : float
            At least 0 and below 1.
        nesterov : bool
            Nesterov's method instead of heavy ball.

        Returns
        -------
        numpy.ndarray
            Shape (..., k).

        Raises
        ------
        ValueError
            When an argument is out of range.
        """
        return gains(self.eigenvalues, num_steps, learning_rate, momentum, nesterov)

    def variance(self, num_steps: Any, learning_rate: Any, momentum: float = 0.0, *, nesterov: bool = False) -> np.ndarray:
        """Variance of the position along each eigenvector by the noise of the gradients, shape (..., k); see `gain`."""
        for_one = variances(self.eigenvalues, num_steps, learning_rate, momentum, nesterov)
        return np.where(self.noise == 0, 0.0, np.where(self.noise == 0, 1.0, self.noise) * for_one)

    def expected_loss(
        self, num_steps: Any, learning_rate: Any, momentum: float = 0.0, *, nesterov: bool = False, start: PerMode | None = None
    ) -> Any:
        """Expected loss after some steps.

        Parameters
        ----------
        num_steps : int or array
            Steps; 0 is the start.
        learning_rate, momentum, nesterov
            As for `gain`.
        start : float, array or callable, optional
            Expected squares of the first positions; by default those of the model.

        Returns
        -------
        float or array
            The shape of `num_steps`; infinite where it overflows.
        """
        first = self.start if start is None else _per_mode("start", start, self.eigenvalues)
        with np.errstate(over="ignore", invalid="ignore"):
            squares = self.gain(num_steps, learning_rate, momentum, nesterov=nesterov) ** 2 * first
            squares = squares + self.variance(num_steps, learning_rate, momentum, nesterov=nesterov)
            weights = self.multiplicities * self.eigenvalues
            out = self.minimum + 0.5 * np.where(weights == 0, 0.0, weights * squares).sum(axis=-1)
        return float(out) if np.ndim(out) == 0 else out

    def greedy_learning_rate(self, *, start: PerMode | None = None) -> float:
        r"""Learning rate of gradient descent after which the expected loss of one step is least.

        :math:`\sum m \lambda^2 s / \sum m (\lambda^3 s + \lambda c)` with the expected squares s (Schaul, Zhang and LeCun, 2013, equation
        6, for one number for all eigenvectors); without noise it is the expected Cauchy step.

        Raises
        ------
        ValueError
            When the loss has no curvature along gradient and noise.
        """
        first = self.start if start is None else _per_mode("start", start, self.eigenvalues)
        weights, values = self.multiplicities, self.eigenvalues
        below = float((weights * (values**3 * first + values * self.noise)).sum())
        if not below > 0:
            raise ValueError("The loss has no positive curvature along gradient and noise, so that no learning rate is best.")
        return float((weights * values**2 * first).sum()) / below

    def best_learning_rate(
        self, num_steps: int, momentum: float = 0.0, *, nesterov: bool = False, start: PerMode | None = None
    ) -> float:
        """Constant learning rate with the least expected loss after `num_steps` steps, among those that are stable.

        Raises
        ------
        ValueError
            When no eigenvalue is positive, or `num_steps` is no whole number of at least 1.
        """
        steps, limit = check_whole("num_steps", num_steps, 1), self.largest_learning_rate(momentum, nesterov=nesterov)
        if math.isinf(limit):
            raise ValueError("No eigenvalue is positive, so that no learning rate is best.")

        def loss(logarithm: float) -> float:
            return float(self.expected_loss(steps, math.exp(logarithm), momentum, nesterov=nesterov, start=start))

        # There may be several minima: a grid finds the best one, and Brent's method its bottom.
        grid = math.log(limit) + np.append(np.linspace(math.log(1e-6), math.log(0.8), 60), np.log(np.linspace(0.82, 1 - 1e-9, 20)))
        found = [loss(x) for x in grid]
        best = int(np.argmin(found))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
        refined = optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-9})
        return math.exp(refined.x if refined.fun <= found[best] else grid[best])

    # -- in the limit --------------------------------------------------------------------------------------------------

    def stationary_variance(self, learning_rate: float, momentum: float = 0.0, *, nesterov: bool = False) -> np.ndarray:
        r"""Variance along each eigenvector after many steps.

        :math:`\frac{\eta c}{\lambda} \frac{1 + \beta}{(1 - \beta)(2 (1 + \beta) - \eta \lambda)}` for heavy ball. For Nesterov's method,
        with :math:`q = 1 - \eta \lambda`, it is :math:`\frac{\eta c}{\lambda} \frac{1 + 2 \beta + 2 \beta^2 - \beta (1 + 2 \beta) q}{(1 -
        \beta q)(1 + (1 + 2 \beta) q)}`, the variance of an autoregressive moving average of orders two and one.

        Returns
        -------
        numpy.ndarray
            Shape (k,); infinite where the noise makes the position wander off: above the stability threshold, and along flat or
            negatively curved eigenvectors.
        """
        eta = check_number("learning_rate", learning_rate, positive=True)
        beta = check_number("momentum", momentum, below=1.0)
        h = self.eigenvalues
        with np.errstate(divide="ignore", invalid="ignore"):
            if nesterov:
                q = 1 - eta * h
                top, bottom = 1 + 2 * beta + 2 * beta**2 - beta * (1 + 2 * beta) * q, (1 - beta * q) * (1 + (1 + 2 * beta) * q)
                bounded = (h > 0) & (1 + (1 + 2 * beta) * q > 0)
            else:
                top, bottom = np.full(h.shape, 1 + beta), (1 - beta) * (2 * (1 + beta) - eta * h)
                bounded = (h > 0) & (bottom > 0)
            out = np.where(bounded, eta * self.noise / h * top / bottom, math.inf)
        return np.where(self.noise == 0, 0.0, out)

    def stationary_loss(self, learning_rate: float, momentum: float = 0.0, *, nesterov: bool = False) -> float:
        """Expected loss after many steps; infinite above the stability threshold.

        Raises
        ------
        ValueError
            When an eigenvalue is negative: then the loss has no lower bound.
        """
        if (self.eigenvalues < 0).any():
            raise ValueError(
                f"The spectrum has negative eigenvalues (down to {self.eigenvalues.min():.3g}), along which the loss falls without end; "
                "take the Gauss-Newton matrix, or only the positive eigenvalues."
            )
        if not self.stable(learning_rate, momentum, nesterov=nesterov):
            return math.inf
        variance = self.stationary_variance(learning_rate, momentum, nesterov=nesterov)
        curved = (self.eigenvalues > 0) & (self.multiplicities > 0)
        return self.minimum + 0.5 * float((self.multiplicities * self.eigenvalues * np.where(curved, variance, 0.0)).sum())

    def __repr__(self) -> str:
        return (
            f"NoisyQuadratic({len(self.eigenvalues)} modes, eigenvalues {self.eigenvalues.min():.3g} to {self.largest:.3g}, "
            f"noise of trace {float((self.multiplicities * self.noise).sum()):.3g})"
        )


def _modes(spectrum: Any, dimension: int | None, num_nodes: int, multiplicities: Any) -> tuple[np.ndarray, np.ndarray, float]:
    """Eigenvalues, how many each stands for, and the largest."""
    known = isinstance(spectrum, SpectralDensity | SpectralLaw)
    if known and multiplicities is not None:
        raise ValueError("The argument multiplicities belongs to an array of eigenvalues; a density or a law has weights.")
    if isinstance(spectrum, SpectralLaw):
        if dimension is None:
            raise ValueError("A law does not say how many eigenvalues there are; pass dimension=.")
        nodes, weights = spectrum.gauss_rule(check_whole("num_nodes", num_nodes, 1))
        ends = [end for _, end in spectrum.support] + [place for place, _ in spectrum.atoms]
        return nodes, check_positive("dimension", dimension, "the number of eigenvalues") * weights, float(max(ends))
    if dimension is not None:
        raise ValueError("The argument dimension is for laws; eigenvalues and densities say themselves how many there are.")
    if isinstance(spectrum, SpectralDensity):
        values = np.where(np.abs(spectrum.nodes) <= spectrum.noise_floor, 0.0, spectrum.nodes)
        return values, spectrum.dimension * spectrum.weights, sum(spectrum.extreme_eigenvalues()[1])
    values = np.atleast_1d(np.asarray(spectrum, dtype=np.float64))
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise ValueError(
            f"The argument spectrum must hold finite eigenvalues of shape (k,), but has shape {values.shape}, or is not finite."
        )
    counts = np.ones(values.size) if multiplicities is None else _per_mode("multiplicities", multiplicities, values)
    return values, counts, float(values.max())


def _per_mode(name: str, given: Any, values: np.ndarray) -> np.ndarray:
    """One number that is not negative for each mode, shape (k,)."""
    found = np.asarray(given(values) if callable(given) else given, dtype=np.float64)
    if found.ndim and found.shape != values.shape:
        raise ValueError(
            f"The argument {name} has shape {found.shape}, but there are {values.size} modes; pass a number, or ({values.size},)."
        )
    if not (np.isfinite(found) & (found >= 0)).all():
        raise ValueError(f"The argument {name} must be finite and not negative, but its least value is {found.min():g}.")
    return np.broadcast_to(found, values.shape).copy()
