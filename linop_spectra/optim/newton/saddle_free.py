"""Saddle-free Newton steps: the modulus of the Hessian in the Krylov space of the gradient."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from ...krylov.lanczos import check_count
from ...operators.matrix import product_rounding
from ..evaluation import Matrix, Start, check_matrix
from ..optimizer import Optimizer, Proposal, Rate, check_number, checked_rate, rate_at
from .krylov_model import KrylovModel, krylov_model
from .ritz_step import far_off, inverse_moduli, joined, left_out_sentence, lift, no_gradient, raised, relaxed

_FACTOR = 10.0


class SaddleFreeNewton(Optimizer):
    r"""Newton steps that leave saddle points: each eigenvalue of the Hessian is replaced by its modulus.

    The step is

    .. math:: s = -\eta\, Y (|\Theta| + \delta)^{-1} Y^\top g

    with the Ritz pairs :math:`(\Theta, Y)` of the Hessian in the Krylov space of the gradient, :math:`-|H|^{-1} g` where that space is
    invariant (Dauphin et al., 2014, algorithm 1). A Newton step :math:`-H^{-1} g` is drawn to saddle points: it goes up along negative
    curvature.

    Parameters
    ----------
    damping : float
        :math:`\delta` in units of curvature, at least zero; with ``adaptive=True`` the first one, positive. Without damping, Ritz values
        that are zero up to rounding are left out, and said.
    num_steps : int
        Lanczos steps; fewer are taken where the space is invariant before.
    learning_rate : float or callable
        :math:`\eta`, one for a Newton step; a callable is given the number of the step.
    adaptive : bool
        Whether each step takes the best of three dampings: a tenth of the last one, the last one, and ten times that, by the loss on
        the gradient's data. Dauphin et al. search a fixed set of powers of ten in each step; here the set moves along. A step that does
        not lower the loss is rejected then, and the next one looks at ten times larger dampings.
    matrix : {"hessian", "ggn", "fisher"} or callable
        The curvature; of a matrix without negative eigenvalues the step is Newton's. A callable makes an operator from an objective.

    Notes
    -----
    A step costs one gradient, `num_steps` products and one value, with ``adaptive=True`` three.

    The Ritz values of a space that is not invariant lie between eigenvalues, and one may come close to zero where the Hessian is indefinite
    although no eigenvalue is: a small damping is a large step then. Without ``adaptive=True``, a step after which the loss is not finite
    is rejected, and the largest modulus of a Ritz value is added to the damping, ten times more for each rejection after it and ten
    times less for each accepted step. A loss that rises by more than it was promised to fall is only said.

    Gradient and curvature of the same mini-batch are not independent: the quadratic promises more than the loss over all data keeps, and
    directions that are flat on few examples get steps that are too long. Pass other, and more, data through ``step(..., curvature=)``.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> def saddle(model):
    ...     x, y = model.at
    ...     return (x**2 - y**2) / 2, 1
    >>> class Point(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.at = torch.nn.Parameter(torch.tensor([1.0, 0.5], dtype=torch.float64))
    >>> objective = ls.objective(Point(), ls.BatchLoss(lambda model, batch: saddle(model)), None)
    >>> theta, info = ls.optim.SaddleFreeNewton(num_steps=2).step(objective, objective.parameters())
    >>> (theta - objective.parameters()).round(12)  # Newton's step is (-1, -1/2), onto the saddle point
    array([-1. ,  0.5])
    """

    _settings: ClassVar[tuple[str, ...]] = ("damping", "num_steps", "learning_rate", "adaptive", "matrix")

    def __init__(
        self, *, damping: float = 0.0, num_steps: int = 20, learning_rate: Rate = 1.0, adaptive: bool = False, matrix: Matrix = "hessian"
    ) -> None:
        super().__init__()
        check_matrix(matrix)
        self.damping, self.num_steps = check_number("damping", damping), check_count("num_steps", num_steps)
        self.learning_rate, self.adaptive, self.matrix = checked_rate(learning_rate), bool(adaptive), matrix
        if self.adaptive and not self.damping:
            raise ValueError("The argument damping is 0, but adaptive=True multiplies it by powers of ten: pass a positive one.")

    def _propose(self, start: Start) -> Proposal:
        rate = rate_at(self.learning_rate, start.step)
        if start.gradient_norm == 0.0:
            return no_gradient(start, learning_rate=rate, damping=float(start.state.get("damping", self.damping)))
        operator = start.operator(self.matrix)
        model = krylov_model(operator, start.gradient, self.num_steps, test_symmetry=callable(self.matrix))
        rounding = product_rounding(operator)
        if not self.adaptive:
            extra = float(start.state.get("extra_damping", 0.0))
            proposal = _proposal(start, model, rate, self.damping + extra, rounding)
            proposal.state = {"extra_damping": relaxed(extra, model.values, self.damping)}
            proposal.rejected_state = {"extra_damping": raised(extra, model.values)}
            if extra:
                proposal.message = joined(proposal.message, f"The damping is raised by {extra:.3g} after a rejected step.")
            return proposal
        return self._best(start, model, rate, rounding)

    def _best(self, start: Start, model: KrylovModel, rate: float, rounding: float) -> Proposal:
        last = float(start.state.get("damping", self.damping))
        # A damping below the rounding of the Ritz values means nothing.
        least = rounding * float(np.abs(model.values).max(initial=0.0)) or last
        best: Proposal | None = None
        # The last one is first: it stays where all of them do the same.
        for damping in dict.fromkeys(max(damping, least) for damping in (last, _FACTOR * last, last / _FACTOR)):
            proposal = _proposal(start, model, rate, damping, rounding)
            proposal.loss_after = start.loss_after(proposal.step)
            if best is None or proposal.loss_after < (math.inf if best.loss_after is None else best.loss_after):
                best = proposal
        assert best is not None
        best.state, best.rejected_state = {"damping": best.damping}, {"damping": _FACTOR * max(_FACTOR * last, least)}
        return best

    def _judge(self, start: Start, proposal: Proposal, actual_decrease: float) -> tuple[bool, str]:
        rounding = 10 * float(np.finfo(start.objective.dtype).eps) * abs(start.loss)
        if self.adaptive and actual_decrease < -rounding:
            return False, "No damping that was tried lowers the loss; the next step tries larger ones."
        return True, far_off(start, proposal, actual_decrease)


def _proposal(start: Start, model: KrylovModel, rate: float, damping: float, rounding: float) -> Proposal:
    """The step with one damping; what it promises is the quadratic's, which is known on the whole Krylov space."""
    inverses, left_out = inverse_moduli(model.values, damping, rounding)
    coefficients = -rate * inverses * model.coefficients
    return Proposal(
        lift(start.backend, coefficients, model.vectors),
        predicted_decrease=-float(model.coefficients @ coefficients) - 0.5 * float(model.values @ coefficients**2),
        learning_rate=rate, damping=damping, refreshed=True, message=left_out_sentence(left_out, len(inverses)),
        details={
            "smallest_ritz_value": float(model.values[0]), "largest_ritz_value": float(model.values[-1]),
            "num_ritz_pairs": float(len(model.values)), "num_left_out": float(left_out),
        },
    )  # fmt: skip
