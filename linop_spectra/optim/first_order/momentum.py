"""Gradient descent, heavy ball and Nesterov's method."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from ...backends import Array
from ...krylov import EigenResult, LanczosResult
from ...spectra import SpectralDensity
from ..evaluation import Start
from ..optimizer import NO_GRADIENT, Optimizer, Rate, check_number, checked_rate, rate_at
from ..stability import StableProposal
from .parameters import FirstOrderMethod, FirstOrderParameters, gradient_descent_from, heavy_ball_from, nesterov_from

Spectrum = SpectralDensity | EigenResult | LanczosResult


class HeavyBall(Optimizer):
    r"""Gradient descent with Polyak's momentum.

    :math:`v_{t+1} = \beta v_t + g_t` and :math:`\theta_{t+1} = \theta_t - \eta v_{t+1}`, as in ``torch.optim.SGD`` and
    most frameworks. With a constant learning rate this is
    :math:`\theta_{t+1} = \theta_t - \eta g_t + \beta (\theta_t - \theta_{t-1})` (B. T. Polyak, 1964); where the learning rate changes, what
    has gathered in v is multiplied by the new one.

    A step costs one gradient and, with `evaluate`, one value of the loss.

    Parameters
    ----------
    learning_rate : float or callable
        :math:`\eta`, or its value for each step from zero. `heavy_ball_parameters` has the best one for a quadratic.
    momentum : float
        :math:`\beta`, at least 0 and below 1. With 0 this is gradient descent.
    evaluate : bool
        Whether the loss after the step is evaluated: then `StepInfo.actual_decrease` is known, and a step to where the loss is not finite
        is rejected and its velocity forgotten. False saves that forward pass, about a third of a gradient; such a loss is an error at the
        start of the next step then.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> _ = torch.manual_seed(0)
    >>> x = torch.randn(40, 3, dtype=torch.float64)
    >>> objective = ls.objective(torch.nn.Linear(3, 1).double(), "mse", (x, x.sum(dim=1, keepdim=True)))
    >>> method = ls.optim.HeavyBall.from_spectrum(ls.spectral_density(objective.hessian()))
    >>> theta = objective.parameters()
    >>> for _ in range(40):
    ...     theta, info = method.step(objective, theta)
    >>> info.loss < 1e-8
    True
    """

    _settings: ClassVar[tuple[str, ...]] = ("learning_rate", "momentum", "evaluate")
    _method: ClassVar[FirstOrderMethod] = "heavy_ball"

    def __init__(self, *, learning_rate: Rate, momentum: float = 0.9, evaluate: bool = True) -> None:
        super().__init__()
        self.learning_rate = checked_rate(learning_rate)
        self.momentum = check_number("momentum", momentum, below=1.0)
        self.evaluate = bool(evaluate)
        self._evaluates = self.evaluate

    @classmethod
    def from_spectrum(cls, spectrum: Spectrum, *, weight_decay: float = 0.0, **options: Any) -> Self:
        """The method with the learning rate and the momentum that suit a measured spectrum.

        Parameters
        ----------
        spectrum : SpectralDensity, EigenResult or LanczosResult
            Of the Hessian or Gauss-Newton matrix; see `curvature_range`.
        weight_decay : float
            That of the objective.
        **options
            Further arguments of the method.

        Raises
        ------
        ValueError
            When no positive eigenvalue is resolved.
        """
        return cls(**cls._arguments(_FROM[cls._method](spectrum, weight_decay=weight_decay)), **options)

    @classmethod
    def _arguments(cls, parameters: FirstOrderParameters) -> dict[str, Any]:
        return {"learning_rate": parameters.learning_rate, "momentum": parameters.momentum}

    def _propose(self, start: Start) -> StableProposal:
        eta = rate_at(self.learning_rate, start.step)
        step, changes = momentum_step(start, eta, self.momentum, nesterov=self._method == "nesterov")
        message = NO_GRADIENT if start.gradient_norm == 0 and start.norm(step) == 0 else ""
        return StableProposal(
            step, state=changes, rejected_state=forgotten(start, changes), learning_rate=eta, message=message,
            stability=(self._method, self.momentum),
        )  # fmt: skip


class Nesterov(HeavyBall):
    r"""Gradient descent with Nesterov's momentum.

    :math:`v_{t+1} = \beta v_t + g_t` and :math:`\theta_{t+1} = \theta_t - \eta (g_t + \beta v_{t+1})`, as in
    ``torch.optim.SGD(nesterov=True)``. With a constant learning rate these parameters are the extrapolated points of Nesterov's method,
    :math:`\theta_t = w_t + \beta (w_t - w_{t-1})` with :math:`w_{t+1} = \theta_t - \eta g_t` (I. Sutskever, J. Martens, G. Dahl and
    G. Hinton, ICML 2013).

    A step costs one gradient and, with `evaluate`, one value of the loss.

    Parameters
    ----------
    learning_rate, momentum, evaluate
        As for `HeavyBall`. `nesterov_parameters` has the best ones for a quadratic.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> objective = ls.objective(torch.nn.Linear(3, 1), "mse", (torch.ones(4, 3), torch.ones(4, 1)))
    >>> method, theta = ls.optim.Nesterov(learning_rate=0.1, momentum=0.5), objective.parameters()
    >>> for _ in range(30):
    ...     theta, info = method.step(objective, theta)
    >>> info.loss < 1e-6
    True
    """

    _method: ClassVar[FirstOrderMethod] = "nesterov"


class GradientDescent(HeavyBall):
    r"""Plain gradient descent, :math:`\theta_{t+1} = \theta_t - \eta g_t`.

    Parameters
    ----------
    learning_rate, evaluate
        As for `HeavyBall`. It keeps no state; on a quadratic it is stable below two over the largest eigenvalue.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> objective = ls.objective(torch.nn.Linear(3, 1), "mse", (torch.ones(4, 3), torch.ones(4, 1)))
    >>> theta, info = ls.optim.GradientDescent(learning_rate=0.01, evaluate=True).step(objective, objective.parameters())
    >>> info.actual_decrease > 0
    True
    """

    _settings: ClassVar[tuple[str, ...]] = ("learning_rate", "evaluate")
    _method: ClassVar[FirstOrderMethod] = "gd"

    def __init__(self, *, learning_rate: Rate, evaluate: bool = True) -> None:
        super().__init__(learning_rate=learning_rate, momentum=0.0, evaluate=evaluate)

    @classmethod
    def _arguments(cls, parameters: FirstOrderParameters) -> dict[str, Any]:
        return {"learning_rate": parameters.learning_rate}


_FROM = {"gd": gradient_descent_from, "heavy_ball": heavy_ball_from, "nesterov": nesterov_from}


def momentum_step(start: Start, learning_rate: float, momentum: float, *, nesterov: bool = False) -> tuple[Array, dict[str, Any]]:
    """Step of `HeavyBall` or `Nesterov`, shape (n,), and the velocity as an entry of the state, unless there is no momentum."""
    if not momentum:
        return -learning_rate * start.gradient, {}
    last = start.state.get("velocity")
    velocity = start.gradient if last is None else momentum * last + start.gradient
    direction = start.gradient + momentum * velocity if nesterov else velocity
    return -learning_rate * direction, {"velocity": velocity}


def forgotten(start: Start, changes: dict[str, Any]) -> dict[str, Any]:
    """What a rejected step leaves of a velocity: zeros, for one that led to where the loss is not finite would lead there again."""
    return {name: 0.0 * start.gradient for name in changes if name == "velocity"}
