"""Hessian-free optimisation: truncated conjugate gradients on the Gauss-Newton model, with Levenberg-Marquardt damping."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import numpy as np

from ...approximations.approximate import approximate
from ...krylov.lanczos import check_count
from ...operators import LinearOperator, diagonal_operator
from ..evaluation import Matrix, Start, check_matrix
from ..optimizer import Optimizer, Proposal, check_number
from .quadratic_path import Iterate, QuadraticPath, quadratic_path
from .ritz_step import joined, no_gradient

Preconditioner = Literal["squared_gradients"]
_RAISE, _LOWER, _REJECTED = 3 / 2, 2 / 3, 10.0
_SHRINK, _SUFFICIENT, _MOST_TRIALS = 0.8, 1e-2, 40
_FIRST_SHARE = 1e-3
_EXPONENT, _MOST_EXACT, _NUM_SIGNS = 0.75, 64, 16


class HessianFree(Optimizer):
    r"""Steps that minimise a damped quadratic model by conjugate gradients (Martens, 2010; Martens and Sutskever, 2012).

    The model is :math:`\phi(s) = g^\top s + \frac12 s^\top (G + \delta) s` with the Gauss-Newton matrix G, which is never formed. Conjugate
    gradients start from 0.95 times their last solution and end when the model gains little more,
    :math:`(\phi_i - \phi_{i-k}) / \phi_i < k \epsilon` with :math:`k = \max(10, i/10)`. Among iterates that were kept on the way,
    the loss picks one (backtracking from the last as long as the loss falls); a line search then shortens the step by factors 0.8 until the
    loss falls by a hundredth of what its slope says. The damping follows Levenberg and Marquardt: with the ratio of what the loss and
    what the model without damping gain, it is multiplied by 3/2 below 1/4 and by 2/3 above 3/4.

    Parameters
    ----------
    damping : float
        First :math:`\delta`, in units of curvature, at least zero. Zero stays zero as long as the model is right, and is raised to a
        thousandth of the curvature along the gradient where it is not.
    num_steps : int
        At most as many products in a step, besides the one that a start from the last solution costs.
    tol : float
        :math:`\epsilon` of the rule above; zero goes on until the residual is rounding.
    decay : float
        Share of the last solution to start from, between 0 (from zero, without the product) and 1. Where the model is not lower there
        than at zero, it starts at zero.
    adaptive : bool
        Whether the damping changes; False keeps it, but for steps that are rejected.
    preconditioner : {None, "squared_gradients"}
        The diagonal :math:`(\mathrm{diag}(F) + \delta)^{3/4}` with the empirical Fisher matrix F (Martens, 2010, section 4.7); the loss
        must show its examples. Up to 64 examples it is exact, by a gradient of each; above it is estimated from 16 gradients in which
        examples have random signs.
    matrix : {"ggn", "hessian", "fisher"} or callable
        The curvature; a callable makes an operator from an objective. The first and the last are positive semidefinite. Where conjugate
        gradients meet negative curvature, they end with the iterate so far, or, where it is the first direction, with a step along that as
        long as for positive curvature of the same size; it is said, and the damping goes up.

    Notes
    -----
    A step costs one gradient, a product for each step of conjugate gradients, and two values or more. Memory: besides the vectors of
    conjugate gradients one for each iterate kept, those of the steps 1, 2, 3, 4, 6, 8, 11, ..., twenty for 250.

    On a quadratic loss without damping conjugate gradients end, up to rounding, after as many steps as the matrix has distinct
    eigenvalues that the gradient has a part in.

    With ``step(..., curvature=)`` the products take that data, while the gradient, which is the right-hand side, the losses and the
    ratio are of the objective's. Both from one mini-batch make the quadratic too confident: its flat directions are flat on those
    examples only, and long runs of conjugate gradients fit the mini-batch. The ratio, taken on the same examples, does not see that;
    so give the gradient more data than the curvature, or all of it, or keep a large damping or few steps. The curvature of other
    examples than the gradient's may also miss a part of the gradient, which only the damping then bounds: do not start from zero
    damping.

    A step that does not lower the loss at any length is rejected, and the damping goes up tenfold.

    Conjugate gradients lose orthogonality once Ritz values have converged, and then magnify rounding; with a small damping the steps carry
    it on. Runs in two frameworks, or on two machines, agree to many digits only with few steps of conjugate gradients or much damping.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> _ = torch.manual_seed(0)
    >>> x, y = torch.randn(40, 3, dtype=torch.float64), torch.randn(40, 1, dtype=torch.float64)
    >>> objective = ls.objective(torch.nn.Linear(3, 1).double(), "mse", (x, y))
    >>> theta, info = ls.optim.HessianFree(damping=0.0).step(objective, objective.parameters())
    >>> info.num_matvecs, round(info.ratio, 6), bool(abs(objective.with_parameters(theta).gradient()).max() < 1e-8)
    (4, 1.0, True)
    """

    _settings: ClassVar[tuple[str, ...]] = ("damping", "num_steps", "tol", "decay", "adaptive", "preconditioner", "matrix")

    def __init__(
        self, *, damping: float = 1.0, num_steps: int = 250, tol: float = 5e-4, decay: float = 0.95, adaptive: bool = True,
        preconditioner: Preconditioner | None = None, matrix: Matrix = "ggn",
    ) -> None:  # fmt: skip
        super().__init__()
        check_matrix(matrix)
        if preconditioner not in (None, "squared_gradients"):
            raise ValueError(f"The argument preconditioner is {preconditioner!r}, but must be None or 'squared_gradients'.")
        self.damping, self.num_steps = check_number("damping", damping), check_count("num_steps", num_steps)
        self.tol, self.decay = check_number("tol", tol), check_number("decay", decay)
        if self.decay > 1:
            raise ValueError(f"The argument decay is {decay!r}, but must lie between 0 and 1.")
        self.adaptive, self.preconditioner, self.matrix = bool(adaptive), preconditioner, matrix

    def _propose(self, start: Start) -> Proposal:
        damping = float(start.state.get("damping", self.damping))
        if start.gradient_norm == 0.0:
            return no_gradient(start, damping=damping)
        guess = self.decay * start.state["solution"] if self.decay and "solution" in start.state else None
        path = quadratic_path(
            start.operator(self.matrix), start.gradient, damping=damping, guess=guess,
            preconditioner=self._preconditioner(start, damping), tolerance=self.tol, max_steps=self.num_steps,
        )  # fmt: skip
        chosen, loss = _backtrack(start, path.iterates)
        gain = _gain(start, chosen, damping, 1.0)
        ratio = (start.loss - loss) / gain if gain else math.nan
        rate, loss = _line_search(start, chosen, loss)

        changed = self._next_damping(start, path, damping, ratio, gain)
        up = _raised(damping, chosen, start, _REJECTED)
        last = path.iterates[-1].step
        return Proposal(
            rate * chosen.step, {"damping": changed, "solution": last}, {"damping": up},
            predicted_decrease=_gain(start, chosen, damping, rate), learning_rate=rate, damping=damping, loss_after=loss, refreshed=True,
            message=_message(path, rate),
            details={
                "num_cg_steps": float(path.num_steps), "chosen_cg_step": float(chosen.number), "ratio_before_line_search": ratio,
                "lowest_curvature": path.lowest_curvature,
            },
        )  # fmt: skip

    def _judge(self, start: Start, proposal: Proposal, actual_decrease: float) -> tuple[bool, str]:
        if start.gradient_norm and (actual_decrease < -_loss_rounding(start) or not start.norm(proposal.step)):
            return False, "No step along the direction that was found lowers the loss; the damping goes up."
        return True, ""

    def _next_damping(self, start: Start, path: QuadraticPath, damping: float, ratio: float, gain: float) -> float:
        if not self.adaptive or math.isnan(ratio):
            return damping
        if path.ending == "negative curvature":
            return _raised(damping, path.iterates[-1], start)
        if abs(gain) <= _loss_rounding(start):  # the ratio is rounding
            return damping
        if ratio < 0.25:
            return _raised(damping, path.iterates[-1], start)
        return damping * _LOWER if ratio > 0.75 else damping

    def _preconditioner(self, start: Start, damping: float) -> LinearOperator | None:
        if self.preconditioner is None:
            return None
        backend = start.backend
        if start.curvature.num_examples <= _MOST_EXACT:
            start.num_gradients += 1  # each example's, in one pass
            diagonal: Any = approximate(start.curvature, "squared_gradients")
        else:
            start.num_gradients += _NUM_SIGNS
            diagonal = approximate(start.curvature, "squared_gradients", method="signs", num_samples=_NUM_SIGNS, seed=start.step)
        entries = backend.to_numpy(diagonal.diagonal).astype(np.float64) + damping + start.curvature.weight_decay
        largest = float(entries.max(initial=0.0))
        if not largest:
            return None
        # Parameters without a gradient in any example must not have an infinite weight.
        weights = np.maximum(entries, np.finfo(start.objective.dtype).eps * largest) ** -_EXPONENT
        return diagonal_operator(backend.asarray(weights, dtype=start.objective.dtype), backend=backend)


def _backtrack(start: Start, iterates: list[Iterate]) -> tuple[Iterate, float]:
    """From the last iterate back as long as the loss falls, and its loss."""
    chosen, loss = iterates[-1], start.loss_after(iterates[-1].step)
    for earlier in reversed(iterates[:-1]):
        other = start.loss_after(earlier.step)
        if math.isfinite(loss) and not other < loss - _loss_rounding(start):
            break
        chosen, loss = earlier, other
    return chosen, loss


def _line_search(start: Start, chosen: Iterate, loss: float) -> tuple[float, float]:
    """The first factor that lowers the loss enough, and the loss there; the last one tried where none does."""
    slope = min(chosen.linear, 0.0)
    rate = 1.0
    for _ in range(_MOST_TRIALS):
        if loss <= start.loss + _SUFFICIENT * rate * slope + _loss_rounding(start):
            break
        rate *= _SHRINK
        loss = start.loss_after(rate * chosen.step)
    return rate, loss


def _gain(start: Start, iterate: Iterate, damping: float, rate: float) -> float:
    """What the model without damping promises for a multiple of an iterate."""
    curvature = iterate.quadratic - damping * start.norm(iterate.step) ** 2
    return -rate * iterate.linear - 0.5 * rate**2 * curvature


def _raised(damping: float, iterate: Iterate, start: Start, factor: float = _RAISE) -> float:
    """More damping; from zero a share of the curvature along the step, or what makes a step of length one where there is none."""
    if damping:
        return factor * damping
    length = start.norm(iterate.step)
    curvature = abs(iterate.quadratic) / length**2 if length else 0.0
    return _FIRST_SHARE * curvature or start.gradient_norm


def _loss_rounding(start: Start) -> float:
    return 10 * float(np.finfo(start.objective.dtype).eps) * abs(start.loss)


def _message(path: QuadraticPath, rate: float) -> str:
    curved = ""
    if path.ending == "negative curvature":
        curved = f"Conjugate gradients ended at a direction of negative curvature ({path.lowest_curvature:.3g})."
    if path.ending == "flat" and not path.num_steps:
        curved = "The curvature along the gradient is zero up to rounding, so that the model without damping has no minimum."
    short = f"The line search shortened the step to {rate:.3g} of its length." if rate < 1.0 else ""
    return joined(curved, short)
