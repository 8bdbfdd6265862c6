"""Newton's method on the Ritz pairs of the curvature, with damping, and gradient descent outside of them."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from ...backends import Array
from ...krylov.lanczos import check_count
from ...operators import LinearOperator
from ...operators.matrix import product_rounding
from ..evaluation import Matrix, Start, check_matrix
from ..optimizer import Optimizer, Proposal, Rate, check_number, check_seed, checked_rate, rate_at
from .krylov_model import krylov_model
from .ritz_step import far_off, inverse_moduli, joined, left_out_sentence, lift, no_gradient, project, raised, relaxed

StartAt = Literal["gradient", "random"]


@dataclasses.dataclass(frozen=True, eq=False)
class _Pairs:
    """Ritz pairs and what is known of the present gradient in them."""

    values: np.ndarray
    vectors: Array
    coefficients: np.ndarray
    rounding: float
    complete: bool
    operator: LinearOperator | None


class LanczosNewton(Optimizer):
    r"""Damped Newton steps along the Ritz vectors of the curvature, and gradient descent in all other directions.

    With the Ritz pairs :math:`(\theta_i, y_i)` of k Lanczos steps the step is

    .. math:: s = -\eta\Big[\sum_i \frac{y_i y_i^\top g}{|\theta_i| + \delta} + \rho\,\Big(g - \sum_i y_i y_i^\top g\Big)\Big],

    the low-rank plus damping step of the stochastic Lanczos optimiser (Granziol et al., Deep Curvature Suite, 2019), with the modulus of
    Dauphin et al. (2014) against saddle points, and with a number :math:`\rho` of its own for the part of the gradient outside of the
    Krylov space. There the two were one number, :math:`\rho = 1/\delta`, so that a small damping made a step outside that diverges: the
    curvature left there is bounded by the Ritz values, not by the damping.

    Started at the gradient (the default) the Krylov space holds the gradient, and the step is exactly zero outside. It then is the step of
    conjugate gradients wherever the Ritz values are positive, and :math:`-(|H| + \delta)^{-1} g` as soon as the space is invariant. A
    part outside appears with ``start_at="random"``, whose Ritz values describe the spectrum rather than the gradient, and between
    refreshes.

    Parameters
    ----------
    damping : float
        :math:`\delta` in units of curvature, at least zero. Directions flatter than it get steps as if they were curved by it. Zero leaves
        Ritz values out that are zero up to rounding.
    num_steps : int
        Lanczos steps k of each refresh; fewer are taken where the space is invariant before.
    complement_rate : float, optional
        :math:`\rho`, the learning rate outside of the Ritz vectors. By default :math:`1 / (\max_i |\theta_i| + \delta)`, which is stable
        as far as the largest Ritz value is the largest eigenvalue; :math:`1/\delta` gives the method of the sources, zero no step outside.
    learning_rate : float or callable
        :math:`\eta`, one for a Newton step; a callable is given the number of the step.
    matrix : {"hessian", "ggn", "fisher"} or callable
        The curvature; a callable makes an operator from an objective.
    refresh_every : int
        Steps between two measurements of the Ritz pairs. In between they are kept in the state, k vectors, and the present gradient is
        projected onto them.
    start_at : {"gradient", "random"}
        First Krylov vector.
    seed : int
        Of the random ones.

    Notes
    -----
    A step costs one gradient and one value, and k products where it refreshes (one more for the predicted decrease where the step has a
    part outside). Between refreshes the curvature outside of the pairs is taken as :math:`1/\rho` for the predicted decrease.

    A step after which the loss is not finite is rejected. Then the largest modulus of a Ritz value is added to the damping, ten times
    more for each rejection after it and ten times less for each accepted step, and the Ritz pairs are measured anew. A loss that rises
    by more than it was promised to fall is only said.

    Gradient and curvature of the same mini-batch are not independent: the quadratic promises more than the loss over all data keeps, the
    more so the more steps k and the fewer examples, because the largest eigenvalues of a mini-batch lie too high along directions of its
    own, and its flat directions are too flat. Pass other, and more, data through ``step(..., curvature=)``, or raise the damping.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> _ = torch.manual_seed(0)
    >>> x, y = torch.randn(40, 3, dtype=torch.float64), torch.randn(40, 1, dtype=torch.float64)
    >>> objective = ls.objective(torch.nn.Linear(3, 1).double(), "mse", (x, y))
    >>> theta, info = ls.optim.LanczosNewton(damping=1e-9, num_steps=4).step(objective, objective.parameters())
    >>> info.num_matvecs, round(info.ratio, 6), bool(abs(objective.with_parameters(theta).gradient()).max() < 1e-8)
    (4, 1.0, True)
    """

    _settings: ClassVar[tuple[str, ...]] = (
        "damping", "num_steps", "complement_rate", "learning_rate", "matrix", "refresh_every", "start_at", "seed",
    )  # fmt: skip

    def __init__(
        self, *, damping: float = 0.1, num_steps: int = 10, complement_rate: float | None = None, learning_rate: Rate = 1.0,
        matrix: Matrix = "hessian", refresh_every: int = 1, start_at: StartAt = "gradient", seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        check_matrix(matrix)
        if start_at not in get_args(StartAt):
            raise ValueError(f"The argument start_at is {start_at!r}, but must be one of {', '.join(map(repr, get_args(StartAt)))}.")
        self.damping, self.num_steps = check_number("damping", damping), check_count("num_steps", num_steps)
        self.complement_rate = None if complement_rate is None else check_number("complement_rate", complement_rate)
        self.learning_rate, self.matrix = checked_rate(learning_rate), matrix
        self.refresh_every, self.start_at, self.seed = check_count("refresh_every", refresh_every), start_at, check_seed(seed)

    def _propose(self, start: Start) -> Proposal:
        rate = rate_at(self.learning_rate, start.step)
        if start.gradient_norm == 0.0:
            return no_gradient(start, learning_rate=rate, damping=self.damping)
        backend, gradient = start.backend, start.gradient
        refresh = "ritz/vectors" not in start.state or start.step >= start.state["next_refresh"]
        pairs = self._measured(start) if refresh else self._kept(start)
        extra = float(start.state.get("extra_damping", 0.0))
        damping = self.damping + extra
        inverses, left_out = inverse_moduli(pairs.values, damping, pairs.rounding)
        coefficients = -rate * inverses * pairs.coefficients
        step = lift(backend, coefficients, pairs.vectors)
        decrease = -float(pairs.coefficients @ coefficients) - 0.5 * float(pairs.values @ coefficients**2)

        outside_norm = 0.0
        if not pairs.complete:
            outside = gradient - lift(backend, pairs.coefficients, pairs.vectors)
            # Once is not enough where nearly all of the gradient is inside.
            outside = outside - lift(backend, project(backend, pairs.vectors, outside), pairs.vectors)
            outside_norm = start.norm(outside)
            outside_rate = self._outside_rate(pairs.values, damping)
            if outside_norm and outside_rate:
                step = step - rate * outside_rate * outside
                if pairs.operator is not None:
                    decrease = -start.dot(gradient, step) - 0.5 * start.dot(step, pairs.operator.matvec(step))
                else:
                    decrease += rate * outside_rate * (1 - rate / 2) * outside_norm**2

        state: dict[str, Any] = {"extra_damping": relaxed(extra, pairs.values, self.damping)}
        if refresh and self.refresh_every > 1:
            state |= {
                "ritz/values": pairs.values, "ritz/vectors": pairs.vectors, "ritz/rounding": pairs.rounding,
                "next_refresh": start.step + self.refresh_every,
            }  # fmt: skip
        return Proposal(
            step, state, {"extra_damping": raised(extra, pairs.values), "next_refresh": start.step + 1},
            predicted_decrease=decrease, learning_rate=rate, damping=damping, refreshed=refresh,
            message=joined(
                left_out_sentence(left_out, len(inverses)), f"The damping is raised by {extra:.3g} after a rejected step." if extra else ""
            ),
            details={
                "smallest_ritz_value": float(pairs.values[0]), "largest_ritz_value": float(pairs.values[-1]),
                "num_ritz_pairs": float(len(pairs.values)), "complement_norm": outside_norm,
            },
        )  # fmt: skip

    def _judge(self, start: Start, proposal: Proposal, actual_decrease: float) -> tuple[bool, str]:
        return True, far_off(start, proposal, actual_decrease)

    def _outside_rate(self, values: np.ndarray, damping: float) -> float:
        if self.complement_rate is not None:
            return self.complement_rate
        bound = float(np.abs(values).max(initial=0.0)) + damping
        return 1.0 / bound if bound else 0.0

    def _measured(self, start: Start) -> _Pairs:
        backend, gradient = start.backend, start.gradient
        operator = start.operator(self.matrix)
        rounding = product_rounding(operator)
        if self.start_at == "gradient":  # lies in its own Krylov space
            model = krylov_model(operator, gradient, self.num_steps, test_symmetry=callable(self.matrix))
            return _Pairs(model.values, model.vectors, model.coefficients, rounding, True, operator)
        n = gradient.shape[0]
        first = backend.probes(n, [start.step], kind="sphere", seed=self.seed, domain="optimizer", dtype=operator.dtype)[0]
        model = krylov_model(operator, first, self.num_steps, test_symmetry=callable(self.matrix))
        coefficients = project(backend, model.vectors, gradient)
        return _Pairs(model.values, model.vectors, coefficients, rounding, len(model.values) == n, operator)

    def _kept(self, start: Start) -> _Pairs:
        values, vectors = start.backend.to_numpy(start.state["ritz/values"]), start.state["ritz/vectors"]
        coefficients = project(start.backend, vectors, start.gradient)
        complete = vectors.shape[0] == vectors.shape[1]
        return _Pairs(values, vectors, coefficients, float(start.state["ritz/rounding"]), complete, None)
