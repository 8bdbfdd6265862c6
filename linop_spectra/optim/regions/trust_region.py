"""Trust regions: the sub-problem by GLTR or Steihaug's method, and Newton's method with them."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, get_args

import numpy as np

from ...backends import Array
from ...operators import LinearOperator, aslinearoperator, require_hermitian
from ..evaluation import Matrix, Start
from ..optimizer import check_number
from .krylov_space import KrylovSpace
from .model_newton import ModelNewton
from .secular import Ball
from .steihaug import steihaug
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

Method = Literal["gltr", "steihaug"]
_POOR = 0.25


def trust_region_step(
    A: Any,
    g: Any,
    *,
    radius: float,
    method: Method = "gltr",
    num_steps: int | None = None,
    tol: float = 1e-8,
    hard_case: HardCase = "auto",
    preconditioner: Any = None,
) -> Array:
    r"""The step that minimises a quadratic model in a ball.

    The global minimiser of :math:`m(s) = g^T s + \tfrac12 s^T A s` with :math:`\|s\| \le \Delta` fulfils
    :math:`(A + \lambda I) s = -g` with :math:`\lambda \ge 0`, :math:`\lambda (\Delta - \|s\|) = 0` and :math:`A + \lambda I` positive
    semidefinite (J. J. Moré and D. C. Sorensen, 1983). ``"gltr"`` finds it in the Krylov space of A and g (N. I. M. Gould, S. Lucidi,
    M. Roma and Ph. L. Toint, *Solving the trust-region subproblem using the Lanczos method*, SIAM J. Optim. 9 (1999)), where the
    small problem is solved exactly.
    ``"steihaug"`` stops where the path of conjugate gradients leaves the ball (T. Steihaug, *The conjugate gradient method and trust
    regions in large scale optimization*, SIAM J. Numer. Anal. 20 (1983)): it keeps no vectors, is the Newton step inside, and on the
    boundary has at least half of the decrease where A is positive definite (Y. Yuan, 2000), but may have far less where it is not.

    Parameters
    ----------
    A : LinearOperator or what `aslinearoperator` takes
        Real symmetric operator of shape (n, n), definite or not.
    g : array
        Gradient, shape (n,).
    radius : float
        Largest norm of the step, positive.
    method : {"gltr", "steihaug"}
        See above.
    num_steps : int, optional
        Most products for the Krylov space, and its dimension. By default as many as `tol` needs, up to 500, with a warning beyond.
    tol : float
        Residual of the linear system over the norm of `g` at which the space is large enough; at least 20 units of rounding.
    hard_case : {"auto", "always", "never"}
        Whether to look for the lowest eigenvalue of A by `eigsh`, and to take its vector into the space if it is lower than the
        solution allows: a Krylov space misses it where `g` has no part, or hardly any, along it (the hard case). ``"auto"`` looks where
        the Krylov space is invariant, and where `num_steps` is not given: there the step is a global minimiser up to `tol`. An
        operator that says it is positive semidefinite is not searched. Steihaug's
        method cannot use it, takes ``"auto"`` for ``"never"``, and refuses ``"always"``.
    preconditioner : LinearOperator or what `aslinearoperator` takes, optional
        Symmetric positive definite approximation M of the inverse of A, for Steihaug's method. The norm that `radius` limits is
        then :math:`(s^T M^{-1} s)^{1/2}`.

    Returns
    -------
    array
        The step s, shape (n,), on the operator's backend. `trust_region_subproblem` returns what is known of it, too.

    Raises
    ------
    ValueError
        When an argument is wrong or A is not symmetric.
    NonFiniteProductError
        A FloatingPointError: when a product is not finite.

    Notes
    -----
    One product for each dimension of the Krylov space; two for an A that does not say whether it is symmetric; where the eigenvector is
    looked for, those of `eigsh`, and one more if it is taken.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> from linop_spectra.optim.regions.trust_region import trust_region_step
    >>> trust_region_step(ls.diagonal_operator(np.array([2.0, -1.0])), np.array([1.0, 0.1]), radius=1.0).round(6)
    array([-0.321996, -0.946741])
    """
    return _solve(A, g, radius, method, num_steps, tol, hard_case, preconditioner, "trust_region_step").step


def trust_region_subproblem(
    A: Any,
    g: Any,
    *,
    radius: float,
    method: Method = "gltr",
    num_steps: int | None = None,
    tol: float = 1e-8,
    hard_case: HardCase = "auto",
    preconditioner: Any = None,
) -> SubproblemResult:
    """The result of `trust_region_step` with its multiplier, model value, residual and cost; the same arguments.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> from linop_spectra.optim.regions.trust_region import trust_region_subproblem
    >>> result = trust_region_subproblem(ls.diagonal_operator(np.array([2.0, -1.0])), np.array([1.0, 0.0]), radius=1.0)
    >>> round(result.multiplier, 6), round(result.model_value, 6), result.hard_case
    (1.0, -0.666667, True)
    """
    return _solve(A, g, radius, method, num_steps, tol, hard_case, preconditioner, "trust_region_subproblem")


def _check_method(method: Any, hard_case: Any) -> None:
    if method not in get_args(Method):
        raise ValueError(f"The argument method is {method!r}, but must be one of {', '.join(map(repr, get_args(Method)))}.")
    check_hard_case(hard_case)
    if method == "steihaug" and hard_case == "always":
        raise ValueError("The argument hard_case is 'always', which Steihaug's method cannot do; use method='gltr'.")


def _solve(
    A: Any, g: Any, radius: float, method: Method, num_steps: int | None, tol: float, hard_case: HardCase, preconditioner: Any, name: str
) -> SubproblemResult:
    region = Ball(check_number("radius", radius, positive=True))
    tol, num_steps = check_tolerance(tol), check_steps(num_steps)
    _check_method(method, hard_case)
    if preconditioner is not None and method != "steihaug":
        raise ValueError("The argument preconditioner is for method='steihaug'; the Krylov space of 'gltr' takes none.")
    operator, gradient, before = check_problem(A, g, name)
    if method == "gltr":
        space = KrylovSpace(operator, gradient, num_steps or MOST_STEPS)
        return minimise(space, region, num_steps=num_steps, tol=tol, hard_case=hard_case, before=before, name=name)
    inverse = None if preconditioner is None else _checked_preconditioner(preconditioner, operator)
    return steihaug(
        operator, gradient, region.radius, num_steps=num_steps, tol=tol, preconditioner=inverse, before=before, name=name
    )


def _checked_preconditioner(preconditioner: Any, operator: LinearOperator) -> LinearOperator:
    inverse = aslinearoperator(preconditioner)
    if inverse.shape != operator.shape:
        raise ValueError(f"The argument preconditioner has shape {inverse.shape}, but the operator has shape {operator.shape}.")
    if inverse.dtype.kind == "c":
        raise TypeError(f"The argument preconditioner has dtype {inverse.dtype}, but the operator is real; pass a real one.")
    require_hermitian(inverse, "A preconditioner")
    return inverse


class TrustRegionNewton(ModelNewton):
    r"""Newton's method with a trust region.

    A step minimises :math:`g^T s + \tfrac12 s^T A s` over :math:`\|s\| \le \Delta`, and follows negative curvature. With the ratio of
    actual to predicted decrease rho, the step is taken if rho is at least `accept`; below 1/4 the radius becomes `shrink` times the
    norm of the step, and at `very_good` or above it becomes `grow` times what it was if the step reached the boundary (J. Nocedal and
    S. J. Wright, *Numerical Optimization*, 2nd edition, 2006, algorithm 4.1, with their 1/4, 3/4, 1/4 and 2).

    Parameters
    ----------
    radius : float
        Radius of the first step, positive; later ones follow.
    max_radius : float
        Largest radius.
    method : {"gltr", "steihaug"}
        As in `trust_region_step`: in a Krylov space whose vectors are kept, or by conjugate gradients without.
    matrix : {"hessian", "ggn", "fisher"} or callable
        The curvature A.
    num_steps : int
        Most products in a step.
    tol : float
        The Krylov space grows until the residual over the norm of the gradient is below `tol` times the square root of
        ``|g| / |g_0|``, with the gradient g_0 of the first step: the rule of an inexact Newton method that converges superlinearly.
    hard_case : {"auto", "always", "never"}
        When to look for the lowest eigenvector of A, which leads away from a saddle that the gradient leads to. ``"auto"``: where
        the Krylov space is invariant, as with a zero gradient, and where the model promises no more than the rounding of the loss;
        with Steihaug's method never.
    accept, very_good : float
        Limits of rho, between 0 and 1; `accept` below 1/4.
    shrink, grow : float
        Factors of the radius, below and above one.

    Notes
    -----
    State: numbers only. A step costs one gradient, at most `num_steps` products (and those of `eigsh` where the eigenvector is looked for),
    and one value. After a rejected step on the same data GLTR's Krylov space is used again, and only what is new costs products; Steihaug's
    method begins anew.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.optim.regions.trust_region import TrustRegionNewton
    >>> _ = torch.manual_seed(0)
    >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double()
    >>> x = torch.randn(30, 3, dtype=torch.float64)
    >>> objective = ls.objective(net, "mse", (x, x[:, :1] * x[:, 1:2]))
    >>> theta, optimizer = objective.parameters(), TrustRegionNewton()
    >>> for _ in range(20):
    ...     theta, info = optimizer.step(objective, theta)
    >>> bool(objective.with_parameters(theta).value() < 0.3 * objective.value())
    True
    """

    _settings: ClassVar[tuple[str, ...]] = (
        "radius", "max_radius", "method", "matrix", "num_steps", "tol", "hard_case", "accept", "very_good", "shrink", "grow",
    )  # fmt: skip
    _region = "radius"

    def __init__(
        self,
        *,
        radius: float = 1.0,
        max_radius: float = 1e6,
        method: Method = "gltr",
        matrix: Matrix = "hessian",
        num_steps: int = 50,
        tol: float = 0.1,
        hard_case: HardCase = "auto",
        accept: float = 0.1,
        very_good: float = 0.75,
        shrink: float = 0.25,
        grow: float = 2.0,
    ) -> None:
        super().__init__(matrix=matrix, num_steps=num_steps, tol=tol, hard_case=hard_case, accept=accept, very_good=very_good)
        _check_method(method, hard_case)
        self.method: Method = method
        self.radius = check_number("radius", radius, positive=True)
        self.max_radius = check_number("max_radius", max_radius, positive=True)
        if self.max_radius < self.radius:
            raise ValueError(f"The argument max_radius is {max_radius!r}, but must be at least the radius, {radius!r}.")
        check_number("accept", accept, positive=True, below=_POOR)
        if self.very_good < _POOR:
            raise ValueError(f"The argument very_good is {very_good!r}, but must be at least {_POOR}, below which the radius shrinks.")
        self.shrink = check_number("shrink", shrink, positive=True, below=1.0)
        self.grow = check_number("grow", grow, positive=True)
        if self.grow <= 1.0:
            raise ValueError(f"The argument grow is {grow!r}, but must be above 1.")

    def _solve(self, start: Start, region: float, tol: float, hard_case: HardCase) -> SubproblemResult:
        if self.method == "steihaug":
            operator = self._operator(start)
            return steihaug(
                operator, start.gradient, region, num_steps=self.num_steps, tol=tol, preconditioner=None, before=operator.num_matvecs,
                name="TrustRegionNewton",
            )  # fmt: skip
        space = self._space(start)
        return minimise(
            space, Ball(region), num_steps=self.num_steps, tol=tol, hard_case=hard_case, before=space.operator.num_matvecs,
            name="TrustRegionNewton", search_limit=self._search_limit,
        )  # fmt: skip

    def _looks(self) -> bool:
        return self.method == "gltr" and super()._looks()

    def _loosened(self, start: Start, region: float, ratio: float, step_norm: float) -> float:
        if ratio < _POOR:
            return self._tightened(start, region, step_norm)
        reached = step_norm >= (1 - 1e-3) * region
        return min(self.grow * region, self.max_radius) if ratio >= self.very_good and reached else region

    def _tightened(self, start: Start, region: float, step_norm: float) -> float:
        # Steps below the rounding of the parameters do nothing: there is no use in going on.
        floor = float(np.finfo(start.backend.dtype_of(start.gradient)).eps) * max(start.norm(start.theta), 1e-30)
        return max(self.shrink * min(region, step_norm), min(region, floor))
