"""Learning rate and momentum of first-order methods from the ends of a spectrum, with the rates that they give."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, Literal, get_args

import numpy as np

from ...backends import backend_of
from ...krylov import EigenResult, LanczosResult
from ...spectra import SpectralDensity
from ..optimizer import check_number

FirstOrderMethod = Literal["gd", "heavy_ball", "nesterov"]


@dataclasses.dataclass(frozen=True)
class FirstOrderParameters:
    r"""Learning rate and momentum, with the convergence that they give; unpacks to the first two.

    Attributes
    ----------
    learning_rate : float
        In units of one over an eigenvalue.
    momentum : float
        At least 0 and below 1.
    rate : float
        Factor of the distance from the minimum in each step, in the limit and along the slowest eigenvector between `smallest` and
        `largest`; the loss has its square. At the best parameters of heavy ball two roots coincide, and the distance is
        proportional to :math:`t r^t`.
    largest, smallest : float
        The ends of the spectrum that they are for.
    method : {"gd", "heavy_ball", "nesterov"}
        The method.

    Examples
    --------
    >>> import linop_spectra as ls
    >>> found = ls.optim.heavy_ball_parameters(largest=1.0, smallest=0.01)
    >>> learning_rate, momentum = found
    >>> round(learning_rate, 5), round(momentum, 5), round(found.rate, 5)
    (3.30579, 0.66942, 0.81818)
    """

    learning_rate: float
    momentum: float
    rate: float
    largest: float
    smallest: float
    method: FirstOrderMethod

    def __iter__(self) -> Iterator[float]:
        return iter((self.learning_rate, self.momentum))

    @property
    def condition_number(self) -> float:
        """Largest over smallest eigenvalue."""
        return self.largest / self.smallest

    @property
    def num_steps_per_digit(self) -> float:
        """Steps in which the distance from the minimum falls to a tenth."""
        return -math.log(10) / math.log(self.rate) if self.rate > 0 else 0.0


def gradient_descent_parameters(*, largest: float, smallest: float) -> FirstOrderParameters:
    r"""Best constant learning rate of gradient descent on quadratics, :math:`2 / (L + \mu)`, with the rate (L - mu) / (L + mu).

    Parameters
    ----------
    largest, smallest : float
        Ends L and mu of the spectrum, positive.

    Returns
    -------
    FirstOrderParameters
        With momentum zero.

    Raises
    ------
    ValueError
        When they are not positive, or in the wrong order.

    Examples
    --------
    >>> import linop_spectra as ls
    >>> found = ls.optim.gradient_descent_parameters(largest=1.0, smallest=0.01)
    >>> round(found.learning_rate, 4), round(found.rate, 5)
    (1.9802, 0.9802)
    """
    top, bottom = _ends(largest, smallest)
    return _found(2 / (top + bottom), 0.0, top, bottom, "gd")


def heavy_ball_parameters(*, largest: float, smallest: float) -> FirstOrderParameters:
    r"""Best learning rate and momentum of heavy ball on quadratics.

    :math:`\eta = (2 / (\sqrt L + \sqrt\mu))^2` and :math:`\beta = ((\sqrt\kappa - 1) / (\sqrt\kappa + 1))^2` with
    :math:`\kappa = L / \mu`; the distance from the minimum then falls by :math:`\sqrt\beta` in each step. The learning rate is close to
    the largest stable one, :math:`2 (1 + \beta) / L`: a largest eigenvalue that is too small makes it diverge.

    Parameters
    ----------
    largest, smallest : float
        Ends L and mu of the spectrum, positive.

    Returns
    -------
    FirstOrderParameters
        Unpacks to learning rate and momentum.

    Raises
    ------
    ValueError
        When they are not positive, or in the wrong order.

    References
    ----------
    B. T. Polyak, *Some methods of speeding up the convergence of iteration methods*, USSR Comput. Math. Math. Phys. 4 (1964).

    Examples
    --------
    >>> import linop_spectra as ls
    >>> learning_rate, momentum = ls.optim.heavy_ball_parameters(largest=1.0, smallest=0.001)
    >>> round(learning_rate, 5), round(momentum, 5)
    (3.75853, 0.88114)
    """
    top, bottom = _ends(largest, smallest)
    low, high = math.sqrt(bottom), math.sqrt(top)
    return _found((2 / (high + low)) ** 2, ((high - low) / (high + low)) ** 2, top, bottom, "heavy_ball")


def nesterov_parameters(*, largest: float, smallest: float) -> FirstOrderParameters:
    r"""Best learning rate and momentum of Nesterov's method on quadratics.

    :math:`\eta = 4 / (3 L + \mu)` and :math:`\beta = (\sqrt{3 \kappa + 1} - 2) / (\sqrt{3 \kappa + 1} + 2)`; the distance from the
    minimum then falls by :math:`1 - 2 / \sqrt{3 \kappa + 1}` in each step.

    Parameters
    ----------
    largest, smallest : float
        Ends L and mu of the spectrum, positive.

    Returns
    -------
    FirstOrderParameters
        Unpacks to learning rate and momentum.

    Raises
    ------
    ValueError
        When they are not positive, or in the wrong order.

    References
    ----------
    L. Lessard, B. Recht and A. Packard, *Analysis and design of optimization algorithms via integral quadratic constraints*, SIAM J.
    Optim. 26 (2016), proposition 1.

    Examples
    --------
    >>> import linop_spectra as ls
    >>> found = ls.optim.nesterov_parameters(largest=1.0, smallest=0.01)
    >>> round(found.learning_rate, 5), round(found.rate, 5), round(1 - 2 / 301**0.5, 5)
    (1.3289, 0.88472, 0.88472)
    """
    top, bottom = _ends(largest, smallest)
    root = math.sqrt(3 * top / bottom + 1)
    return _found(4 / (3 * top + bottom), (root - 2) / (root + 2), top, bottom, "nesterov")


def convergence_rate(learning_rate: float, momentum: float = 0.0, *, eigenvalues: Any, method: FirstOrderMethod = "heavy_ball") -> Any:
    r"""Factor by which the distance from the minimum changes in each step along eigenvectors, in the limit of many steps.

    The modulus of the larger root of :math:`r^2 - (1 + \beta - \eta\lambda) r + \beta` for heavy ball, and of
    :math:`r^2 - (1 + \beta)(1 - \eta\lambda) r + \beta (1 - \eta\lambda)` for Nesterov's method.

    Parameters
    ----------
    learning_rate, momentum : float
        Of the method; without a momentum all methods are gradient descent.
    eigenvalues : array
        Of the Hessian.
    method : {"gd", "heavy_ball", "nesterov"}
        The method.

    Returns
    -------
    float or array
        The shape of `eigenvalues`; above one where the method diverges.

    Raises
    ------
    ValueError
        When an argument is out of range.

    Examples
    --------
    >>> import linop_spectra as ls
    >>> ls.optim.convergence_rate(0.5, eigenvalues=[1.0, 3.0, 5.0])
    array([0.5, 0.5, 1.5])
    """
    check_method(method)
    eta = check_number("learning_rate", learning_rate, positive=True)
    beta = check_number("momentum", momentum, below=1.0)
    if method == "gd" and beta:
        raise ValueError("The argument momentum is for method='heavy_ball' or 'nesterov'; plain gradient descent has none.")
    scaled = eta * np.asarray(eigenvalues, dtype=np.float64)
    if method == "nesterov":
        half, product = (1 + beta) * (1 - scaled) / 2, beta * (1 - scaled)
    else:
        half, product = (1 + beta - scaled) / 2, np.full(scaled.shape, beta)
    square = half**2 - product
    real = np.abs(half) + np.sqrt(np.maximum(square, 0.0))
    out = np.where(square >= 0, real, np.sqrt(np.maximum(product, 0.0)))
    return float(out) if out.ndim == 0 else out


@dataclasses.dataclass(frozen=True)
class CurvatureRange:
    """The ends of the part of a spectrum that sets learning rate and momentum.

    Attributes
    ----------
    largest : float
        Largest Ritz value with its error: no larger than the largest eigenvalue by more than its residual.
    smallest : float
        Smallest positive Ritz value that is resolved, or the weight decay.
    smallest_is : {"resolved", "weight decay"}
        Which of them.
    """

    largest: float
    smallest: float
    smallest_is: str


def curvature_range(spectrum: SpectralDensity | EigenResult | LanczosResult, *, weight_decay: float = 0.0) -> CurvatureRange:
    r"""Largest and smallest eigenvalue of a measured spectrum that first-order methods should reckon with.

    Deep networks have eigenvalues that are zero for all purposes, so that the condition number is of no use. The smallest that counts is
    the smallest positive Ritz value that is resolved: its residual, and the noise floor, are below it, so that an eigenvalue is known to be
    positive there. With weight decay no eigenvalue of the Gauss-Newton matrix is below it, and it is the one that counts.

    Parameters
    ----------
    spectrum : SpectralDensity, EigenResult or LanczosResult
        Of the Hessian or Gauss-Newton matrix, weight decay included. Of eigenpairs the smallest that were found counts: ask for both
        ends (``which="BE"``) where the matrix is positive definite.
    weight_decay : float
        That of the objective.

    Returns
    -------
    CurvatureRange
        The ends.

    Raises
    ------
    TypeError
        When `spectrum` is none of these.
    ValueError
        When no positive eigenvalue is resolved.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> S = ls.spectral_density(ls.diagonal_operator(np.repeat([-0.1, 0.0, 0.5, 4.0], 25)), num_steps=10)
    >>> ends = ls.optim.curvature_range(S)
    >>> round(ends.smallest, 6), round(ends.largest, 6)
    (0.5, 4.0)
    """
    decay = check_number("weight_decay", weight_decay)
    if isinstance(spectrum, EigenResult):
        values, residuals = spectrum.eigenvalues, spectrum.residual_norms
        dtype = backend_of(spectrum.eigenvectors).dtype_of(spectrum.eigenvectors)
        floor = float(np.finfo(dtype).eps) * spectrum.norm_estimate
    elif isinstance(spectrum, SpectralDensity | LanczosResult):
        density = spectrum if isinstance(spectrum, SpectralDensity) else SpectralDensity(spectrum)
        rules = density.deflation.rules
        values, residuals = (np.concatenate([getattr(rule, name) for rule in rules]) for name in ("nodes", "residuals"))
        floor = density.noise_floor
    else:
        raise TypeError(
            f"The argument spectrum is a {type(spectrum).__name__}, but must be a SpectralDensity, an EigenResult or a LanczosResult; for "
            "numbers there are heavy_ball_parameters(largest=, smallest=) and its relatives."
        )
    return ends_of(values, residuals, floor, decay)


def ends_of(values: np.ndarray, residuals: np.ndarray, floor: float, weight_decay: float = 0.0) -> CurvatureRange:
    """`curvature_range` of Ritz values with their residuals, each of shape (k,), and a noise floor.

    Raises
    ------
    ValueError
        When no positive eigenvalue is resolved.
    """
    positive = known_positive(values, residuals, floor)
    if not positive.any():
        raise ValueError(
            f"No positive eigenvalue of the {len(values)} in the spectrum is resolved (the largest is {values.max():.3g} with the residual "
            f"{residuals[np.argmax(values)]:.3g}); take more Lanczos steps, or the Gauss-Newton matrix instead of the Hessian."
        )
    top = int(np.argmax(values))
    largest = float(values[top] + residuals[top])
    if weight_decay > largest:
        raise ValueError(
            f"The argument weight_decay is {weight_decay:g}, above the largest eigenvalue, which is {largest:.3g}; measure the spectrum of "
            "the objective with its weight decay."
        )
    if weight_decay > 0:
        return CurvatureRange(largest, weight_decay, "weight decay")
    return CurvatureRange(largest, float(values[positive].min()), "resolved")


def known_positive(values: np.ndarray, residuals: np.ndarray, floor: float) -> np.ndarray:
    """Which Ritz values are resolved as positive, shape (k,)."""
    return (values > 0) & (values - residuals > floor)


def heavy_ball_from(spectrum: SpectralDensity | EigenResult | LanczosResult, *, weight_decay: float = 0.0) -> FirstOrderParameters:
    """`heavy_ball_parameters` for a measured spectrum; see `curvature_range` for the two eigenvalues that are taken.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> found = ls.optim.heavy_ball_from(ls.eigsh(ls.diagonal_operator(np.linspace(0.01, 1.0, 100)), 2, which="BE"))
    >>> round(found.learning_rate, 4), round(found.momentum, 4)
    (3.3058, 0.6694)
    """
    ends = curvature_range(spectrum, weight_decay=weight_decay)
    return heavy_ball_parameters(largest=ends.largest, smallest=ends.smallest)


def nesterov_from(spectrum: SpectralDensity | EigenResult | LanczosResult, *, weight_decay: float = 0.0) -> FirstOrderParameters:
    """`nesterov_parameters` for a measured spectrum; see `curvature_range` for the two eigenvalues that are taken."""
    ends = curvature_range(spectrum, weight_decay=weight_decay)
    return nesterov_parameters(largest=ends.largest, smallest=ends.smallest)


def gradient_descent_from(spectrum: SpectralDensity | EigenResult | LanczosResult, *, weight_decay: float = 0.0) -> FirstOrderParameters:
    """`gradient_descent_parameters` for a measured spectrum; see `curvature_range` for the two eigenvalues that are taken."""
    ends = curvature_range(spectrum, weight_decay=weight_decay)
    return gradient_descent_parameters(largest=ends.largest, smallest=ends.smallest)


def check_method(method: Any) -> None:
    """Raise unless `method` names a first-order method."""
    if method not in get_args(FirstOrderMethod):
        raise ValueError(f"The argument method is {method!r}, but must be one of {', '.join(map(repr, get_args(FirstOrderMethod)))}.")


def _found(learning_rate: float, momentum: float, largest: float, smallest: float, method: FirstOrderMethod) -> FirstOrderParameters:
    # Along eigenvalues between the ends the modulus of the roots is no larger than at one of them.
    rate = float(np.max(convergence_rate(learning_rate, momentum, eigenvalues=[smallest, largest], method=method)))
    return FirstOrderParameters(learning_rate, momentum, rate, largest, smallest, method)


def _ends(largest: Any, smallest: Any) -> tuple[float, float]:
    top, bottom = check_number("largest", largest, positive=True), check_number("smallest", smallest, positive=True)
    if bottom > top:
        raise ValueError(f"The argument smallest is {smallest!r}, above largest, which is {largest!r}; exchange them.")
    return top, bottom
