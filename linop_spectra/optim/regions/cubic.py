"""Cubic regularisation: the sub-problem, and Newton's method with it."""

from __future__ import annotations

from typing import Any, ClassVar

from ...backends import Array
from ..evaluation import Matrix, Start
from ..optimizer import check_number
from .krylov_space import KrylovSpace
from .model_newton import ModelNewton
from .secular import Cubic
from .subproblem import (
    MOST_STEPS,
    HardCase,
    SubproblemResult,
    check_hard_case,
    check_problem,
    check_steps,
    check_tolerance,
    minimise,
)

_LEAST, _MOST = 1e-100, 1e100


def cubic_step(
    A: Any, g: Any, *, sigma: float, num_steps: int | None = None, tol: float = 1e-8, hard_case: HardCase = "auto"
) -> Array:
    r"""The step that minimises a quadratic model with a cubic term.

    The global minimiser of :math:`m(s) = g^T s + \tfrac12 s^T A s + \tfrac{\sigma}{3} \|s\|^3` fulfils :math:`(A + \lambda I) s = -g` with
    :math:`\lambda = \sigma \|s\|` and :math:`A + \lambda I` positive semidefinite (Y. Nesterov and B. T. Polyak, 2006; C. Cartis,
    N. I. M. Gould and Ph. L. Toint, *Adaptive cubic regularisation methods for unconstrained optimization, part I*, 2011, theorem 3.1,
    whose sigma this is; with a cubic term of :math:`M / 6`, sigma is :math:`M / 2`). It is found in the Krylov space of A and g (their
    section 6.2), where the small problem is solved exactly.

    Parameters
    ----------
    A : LinearOperator or what `aslinearoperator` takes
        Real symmetric operator of shape (n, n), definite or not.
    g : array
        Gradient, shape (n,).
    sigma : float
        Weight of the cubic term, positive, in units of A over those of s.
    num_steps : int, optional
        Most products for the Krylov space, and its dimension. By default as many as `tol` needs, up to 500, with a warning beyond.
    tol : float
        Residual of the linear system over the norm of `g` at which the space is large enough; at least 20 units of rounding.
    hard_case : {"auto", "always", "never"}
        Whether to look for the lowest eigenvalue of A by `eigsh`, and to take its vector into the space if it is lower than the
        solution allows: a Krylov space misses it where `g` has no part, or hardly any, along it (the hard case). ``"auto"`` looks where
        the Krylov space is invariant, and where `num_steps` is not given: there the step is a global minimiser up to `tol`. An
        operator that says it is positive semidefinite is not searched.

    Returns
    -------
    array
        The step s, shape (n,), on the operator's backend. `cubic_subproblem` returns what is known of it, too.

    Raises
    ------
    ValueError
        When an argument is wrong or A is not symmetric.
    NonFiniteProductError
        A FloatingPointError: when a product is not finite.

    Notes
    -----
    One product for each dimension of the Krylov space, and none for other values of `sigma` in it; two for an A that does not say whether
    it is symmetric; where the eigenvector is looked for, those of `eigsh`, and one more if it is taken.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> from linop_spectra.optim.regions.cubic import cubic_step
    >>> cubic_step(ls.diagonal_operator(np.array([2.0, -1.0])), np.array([1.0, 0.1]), sigma=1.0).round(6)
    array([-0.323047, -1.046815])
    """
    return _solve(A, g, sigma, num_steps, tol, hard_case, "cubic_step").step


def cubic_subproblem(
    A: Any, g: Any, *, sigma: float, num_steps: int | None = None, tol: float = 1e-8, hard_case: HardCase = "auto"
) -> SubproblemResult:
    """The result of `cubic_step` with its multiplier, model value, residual and cost; the same arguments.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> from linop_spectra.optim.regions.cubic import cubic_subproblem
    >>> result = cubic_subproblem(ls.diagonal_operator(np.array([2.0, -1.0])), np.array([1.0, 0.1]), sigma=1.0)
    >>> round(result.multiplier, 6), round(result.model_value, 6), result.num_matvecs
    (1.095528, -0.433003, 2)
    """
    return _solve(A, g, sigma, num_steps, tol, hard_case, "cubic_subproblem")


def _solve(
    A: Any, g: Any, sigma: float, num_steps: int | None, tol: float, hard_case: HardCase, name: str
) -> SubproblemResult:
    region = Cubic(check_number("sigma", sigma, positive=True))
    tol, num_steps = check_tolerance(tol), check_steps(num_steps)
    check_hard_case(hard_case)
    operator, gradient, before = check_problem(A, g, name)
    space = KrylovSpace(operator, gradient, num_steps or MOST_STEPS)
    return minimise(space, region, num_steps=num_steps, tol=tol, hard_case=hard_case, before=before, name=name)


class CubicNewton(ModelNewton):
    r"""Newton's method with adaptive cubic regularisation (ARC).

    A step minimises :math:`g^T s + \tfrac12 s^T A s + \tfrac{\sigma}{3} \|s\|^3` in the Krylov space of A and g, and follows negative
    curvature. With the ratio of actual to predicted decrease rho, the step is taken if rho is at least `accept`; sigma is multiplied by
    `decrease` if rho is at least `very_good`, and by `increase` if the step is rejected (C. Cartis, N. I. M. Gould and Ph. L. Toint,
    *Adaptive cubic regularisation methods for unconstrained optimization, part I*, Math. Program. 127 (2011), algorithm 2.1). The
    predicted decrease is that of the model with its cubic term.

    Parameters
    ----------
    sigma : float
        Weight of the cubic term at the first step, positive; later ones follow.
    matrix : {"hessian", "ggn", "fisher"} or callable
        The curvature A.
    num_steps : int
        Most products in a step.
    tol : float
        The Krylov space grows until the residual over the norm of the gradient is below `tol` times the square root of
        ``|g| / |g_0|``, with the gradient g_0 of the first step: the rule of an inexact Newton method that converges superlinearly.
    hard_case : {"auto", "always", "never"}
        When to look for the lowest eigenvector of A, which leads away from a saddle that the gradient leads to. ``"auto"``: where
        the Krylov space is invariant, as with a zero gradient, and where the model promises no more than the rounding of the loss.
    accept, very_good : float
        Limits of rho, between 0 and 1; 0.1 and 0.9 as in the article.
    decrease, increase : float
        Factors of sigma, below and above one. Halving and doubling keeps to the article's bounds in every unit of the loss.

    Notes
    -----
    State: numbers only. A step costs one gradient, at most `num_steps` products (and those of `eigsh` where the eigenvector is looked for),
    and one value. After a rejected step on the same data the Krylov space is used again, and only what is new costs products.

    Its steps are measured on the data that it is given: with mini-batches, give ``curvature=`` another batch, and expect sigma to follow
    the noise of the loss.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.optim.regions.cubic import CubicNewton
    >>> _ = torch.manual_seed(0)
    >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double()
    >>> x = torch.randn(30, 3, dtype=torch.float64)
    >>> objective = ls.objective(net, "mse", (x, x[:, :1] * x[:, 1:2]))
    >>> theta, optimizer = objective.parameters(), CubicNewton()
    >>> for _ in range(20):
    ...     theta, info = optimizer.step(objective, theta)
    >>> bool(objective.with_parameters(theta).value() < 0.3 * objective.value())
    True
    """

    _settings: ClassVar[tuple[str, ...]] = (
        "sigma", "matrix", "num_steps", "tol", "hard_case", "accept", "very_good", "decrease", "increase",
    )  # fmt: skip
    _region = "sigma"

    def __init__(
        self,
        *,
        sigma: float = 1.0,
        matrix: Matrix = "hessian",
        num_steps: int = 50,
        tol: float = 0.1,
        hard_case: HardCase = "auto",
        accept: float = 0.1,
        very_good: float = 0.9,
        decrease: float = 0.5,
        increase: float = 2.0,
    ) -> None:
        super().__init__(matrix=matrix, num_steps=num_steps, tol=tol, hard_case=hard_case, accept=accept, very_good=very_good)
        self.sigma = check_number("sigma", sigma, positive=True)
        self.decrease = check_number("decrease", decrease, positive=True, below=1.0)
        self.increase = check_number("increase", increase, positive=True)
        if self.increase <= 1.0:
            raise ValueError(f"The argument increase is {increase!r}, but must be above 1, so that a rejected step becomes shorter.")

    def _solve(self, start: Start, region: float, tol: float, hard_case: HardCase) -> SubproblemResult:
        space = self._space(start)
        return minimise(
            space, Cubic(region), num_steps=self.num_steps, tol=tol, hard_case=hard_case, before=space.operator.num_matvecs,
            name="CubicNewton", search_limit=self._search_limit,
        )  # fmt: skip

    def _loosened(self, start: Start, region: float, ratio: float, step_norm: float) -> float:
        return max(self.decrease * region, _LEAST) if ratio >= self.very_good else region

    def _tightened(self, start: Start, region: float, step_norm: float) -> float:
        return min(self.increase * region, _MOST)
