"""A guard that keeps any optimiser below the edge of stability."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from ...backends import Array
from ...curvature.preconditioned import preconditioned
from ...evolution.edge import Method, stability_threshold
from ...krylov import block_lanczos
from ...krylov.lanczos import check_count
from ...operators import LinearOperator, diagonal_operator
from ..evaluation import Matrix, Start, check_matrix, make_matrix
from ..native import as_optimizer
from ..optimizer import Optimizer, Proposal, check_number, check_seed
from ..stability import StableProposal
from .schedule import check_factor

Preconditioner = Callable[[Mapping[str, Any]], Any]
_PREFIX = "base/"
_FIRST_STEPS = 4
"""Times more Lanczos steps for the first eigenvector, which starts from no other."""


@dataclasses.dataclass
class _Guarded(Proposal):
    """A proposal with what it was made of."""

    base_start: Start | None = None
    base_proposal: Proposal | None = None


class EdgeOfStabilityGuard(Optimizer):
    r"""An optimiser whose steps are shortened where its learning rate is too large for the sharpest direction.

    Every so many steps a short block Lanczos run, from the last top eigenvector and the gradient, follows the sharpness: the largest
    eigenvalue :math:`\lambda_1` of the Hessian, or of :math:`P^{-1/2} (H + D) P^{-1/2}` with the preconditioner P of the method and the
    weight decay D that it adds to the gradient. On a quadratic the method is stable for :math:`\lambda_1 < c / \eta` with c of
    `linop_spectra.evolution.stability_threshold`: 2 for gradient descent, :math:`2 (1 + \beta)` for heavy ball,
    :math:`2 (1 + \beta_1) / (1 - \beta_1)` for Adam (J. Cohen et al., ICLR 2021, and 2022 for preconditioned methods). Where the learning
    rate of a step is above `safety` times :math:`c / \lambda_1`, the step is multiplied by what brings it there. For methods whose state
    does not depend on the learning rate (gradient descent, heavy ball and Nesterov's method as here and in torch, Adam-like ones) this is
    the method at the lower learning rate.

    A step costs what it costs the method; a check twice `num_steps` products, the first one four times as many.

    Parameters
    ----------
    base : Optimizer, torch.optim.Optimizer, optax.GradientTransformation or keras.optimizers.Optimizer
        The method, or a framework's optimiser, see `as_optimizer`. It is used for its settings; its state is part of the guard's, under
        ``"base/"``.
    refresh_every : int
        Steps between checks.
    safety : float
        Above 0 and at most 1.
    num_steps : int
        Block Lanczos steps of a check, of two products each. The residual is added to the sharpness.
    matrix : {"hessian", "ggn", "fisher"} or callable
        The matrix, on the data of the curvature.
    method : {"gd", "heavy_ball", "nesterov", "adam"}, optional
        By which c is chosen. By default what the method says of itself: `GradientDescent`, `HeavyBall`, `Nesterov`, `SpectralSchedule`
        and `AdaHessian` do, SGD, Adam and AdamW of torch and Keras (without dampening and accumulation of gradients, and with the same
        momentum in all groups), and of optax gradient descent, momentum, Adam and AdamW where ``optax.inject_hyperparams`` shows the
        learning rate. A method that says nothing is judged by the learning rate that its step has along the top eigenvector u,
        :math:`-u^\top s / u^\top g`, with c = 2.
    momentum : float, optional
        :math:`\beta` or :math:`\beta_1` that belongs to `method`.
    preconditioner : callable, optional
        Diagonal of P, shape (n,), positive, from the state of the method: with ``"adam"`` that by which its momentum is divided.
        Before it is known the function may return None, and the step is not guarded. By default what the method says of itself; learning
        rates that differ between the groups of a torch optimiser are part of it.
    seed : int
        Of the random part of the second vector, by which a check sees new top eigenvectors that the gradient has no part of yet.

    Notes
    -----
    `StepInfo.details` has ``sharpness`` (at the last check), ``sharpness_error`` (its residual), ``threshold`` (c over the learning rate
    that the method wanted) and ``scaled`` (what the step was multiplied by).

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> objective = ls.objective(torch.nn.Linear(1, 1, bias=False).double(), "mse", (torch.ones(1, 1).double(), torch.ones(1, 1).double()))
    >>> method = ls.optim.EdgeOfStabilityGuard(ls.optim.GradientDescent(learning_rate=1.1))
    >>> theta, info = method.step(objective, objective.parameters())  # the curvature is 2
    >>> round(info.details["sharpness"], 6), round(info.learning_rate, 6)
    (2.0, 0.95)

    A torch optimiser in its place:

    >>> model = torch.nn.Linear(1, 1, bias=False).double()
    >>> objective = ls.objective(model, "mse", (torch.ones(1, 1).double(), torch.ones(1, 1).double()))
    >>> method = ls.optim.EdgeOfStabilityGuard(torch.optim.SGD(model.parameters(), lr=10.0, momentum=0.9))
    >>> theta, info = method.step(objective, objective.parameters())
    >>> round(info.details["threshold"], 6), round(info.learning_rate, 6)  # 2 (1 + 0.9) / 10, and 0.95 * 2 (1 + 0.9) / 2
    (0.38, 1.805)
    """

    _settings: ClassVar[tuple[str, ...]] = (
        "refresh_every", "safety", "num_steps", "matrix", "method", "momentum", "preconditioner", "seed",
    )  # fmt: skip

    def __init__(
        self, base: Any, *, refresh_every: int = 10, safety: float = 0.95, num_steps: int = 3, matrix: Matrix = "hessian",
        method: Method | None = None, momentum: float | None = None, preconditioner: Preconditioner | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        try:
            self.base = as_optimizer(base)
        except TypeError as error:
            raise TypeError(f"The argument base cannot be guarded. {error}") from error
        self.refresh_every, self.num_steps = check_count("refresh_every", refresh_every), check_count("num_steps", num_steps)
        self.safety = check_factor("safety", safety)
        check_matrix(matrix)
        self.matrix, self.seed = matrix, check_seed(seed)
        if preconditioner is not None and not callable(preconditioner):
            raise TypeError(
                f"The argument preconditioner is a {type(preconditioner).__name__}, but must be a function that takes the state of the "
                "method and returns a diagonal."
            )
        self.preconditioner = preconditioner
        if method is None and momentum is not None:
            raise ValueError("The argument momentum belongs to the argument method; pass both, or none to ask the base method.")
        self.method = method
        self.momentum = None if momentum is None else check_number("momentum", momentum, below=1.0)
        if method is not None:
            stability_threshold(1.0, method, momentum=self.momentum or 0.0)  # a wrong pair is an error now and not in the first step
        self._evaluates = self.base._evaluates

    @property
    def settings(self) -> Mapping[str, Any]:
        """Settings by name, the base method among them as text."""
        return {"base": repr(self.base), **super().settings}

    def _propose(self, start: Start) -> Proposal:
        within = copy.copy(start)
        within.state = MappingProxyType(unprefixed(start.state))
        wanted = self.base._propose(within)
        base_state = {**within.state, **wanted.state}
        finite = math.isfinite(start.norm(wanted.step))  # else it will be rejected, and its metric may be none
        sharpness, checked = self._sharpness(start, wanted, base_state) if finite else (None, {})
        start.num_values, start.num_gradients = within.num_values, within.num_gradients
        limit, rate = self._limit(start, wanted, {**start.state, **checked}, base_state)
        scale = 1.0
        if sharpness is not None and rate > 0 and sharpness[0] + sharpness[1] > 0:
            scale = min(1.0, self.safety * limit / (rate * (sharpness[0] + sharpness[1])))
        details = {**wanted.details, "threshold": limit / rate if rate > 0 else math.inf, "scaled": scale}
        if sharpness is not None:
            details |= {"sharpness": sharpness[0], "sharpness_error": sharpness[1]}
        message = wanted.message
        if scale < 1:
            # A convex model gains along the shortened step at least its share of the whole.
            wanted = dataclasses.replace(
                wanted, step=scale * wanted.step, learning_rate=scale * wanted.learning_rate, loss_after=None,
                predicted_decrease=scale * wanted.predicted_decrease,
            )  # fmt: skip
            message = " ".join(
                part for part in (message, f"The step was shortened to {scale:.3g} of itself to stay below the edge of stability.") if part
            )
        return _Guarded(
            wanted.step, {**prefixed(wanted.state), **checked}, {**prefixed(wanted.rejected_state), **checked},
            wanted.predicted_decrease, wanted.learning_rate, wanted.damping, wanted.loss_after, wanted.refreshed or bool(checked),
            message, details, within, wanted,
        )  # fmt: skip

    def _judge(self, start: Start, proposal: Proposal, actual_decrease: float) -> tuple[bool, str]:
        assert isinstance(proposal, _Guarded) and proposal.base_start is not None and proposal.base_proposal is not None
        accepted, message = self.base._judge(proposal.base_start, proposal.base_proposal, actual_decrease)
        # The base may have changed what it wants to keep.
        proposal.state.update(prefixed(proposal.base_proposal.state))
        proposal.rejected_state.update(prefixed(proposal.base_proposal.rejected_state))
        return accepted, message

    def _sharpness(
        self, start: Start, wanted: Proposal, base_state: Mapping[str, Any]
    ) -> tuple[tuple[float, float] | None, dict[str, Any]]:
        """Largest eigenvalue and its residual, and the entries of the state that a check has changed."""
        said = wanted if isinstance(wanted, StableProposal) else StableProposal(wanted.step)
        scaled = self.preconditioner is not None or said.preconditioner is not None
        # What was measured in another metric says nothing of this step: a transformation of optax may be known in some steps only.
        same = bool(start.state.get("preconditioned", scaled)) == scaled
        if start.step % self.refresh_every and "sharpness" in start.state and same:
            return (float(start.state["sharpness"]), float(start.state["sharpness_error"])), {}
        operator = make_matrix(self.matrix, start.curvature)
        if said.decay is not None:
            operator = operator + diagonal_operator(said.decay)
        if self.preconditioner is not None:
            diagonal = self.preconditioner(base_state)
            if diagonal is None:
                return None, {}
            operator = preconditioned(operator, diagonal)
        elif said.preconditioner is not None:
            operator = preconditioned(operator, said.preconditioner())
        start.count(operator)
        value, error, vector = self._top(start, operator)
        return (value, error), {"eigenvector": vector, "sharpness": value, "sharpness_error": error, "preconditioned": scaled}

    def _top(self, start: Start, operator: LinearOperator) -> tuple[float, float, Array]:
        """Largest Ritz value, its residual and its vector, from a block of two vectors.

        Beside the last eigenvector stands one with the gradient, which grows along what diverges, and a random part. From their sum the
        sharpness would be lost in part at each check, and from the last eigenvector alone a new one is never seen.
        """
        backend, n, dtype = start.backend, start.objective.num_parameters, start.objective.dtype
        other = backend.probes(n, [start.step], kind="sphere", seed=self.seed, domain="edge guard", dtype=dtype)[0]
        last = start.state.get("eigenvector")
        if start.gradient_norm > 0:
            gradient = (1 / start.gradient_norm) * start.gradient
            last, other = (gradient, other) if last is None else (last, gradient + 0.3 * other)
        vectors = [other] if last is None or n == 1 else [last, other]
        rows = backend.empty((len(vectors), n), dtype)
        for position, vector in enumerate(vectors):
            rows[position, :] = vector
        count = self.num_steps if "eigenvector" in start.state else _FIRST_STEPS * self.num_steps
        run = block_lanczos(operator, min(count, n), block_size=len(vectors), start=rows.T, seed=self.seed)
        if not run.converged:
            raise KeyboardInterrupt
        return float(run.ritz_values[-1]), float(run.residual_norms[-1]), backend.contiguous(run.ritz_vectors()[:, -1])

    def _limit(
        self, start: Start, wanted: Proposal, state: Mapping[str, Any], base_state: Mapping[str, Any]
    ) -> tuple[float, float]:
        """Largest stable product of learning rate and sharpness, and the learning rate; zero where there is none."""
        method, beta = self.method, self.momentum or 0.0
        if method is None and isinstance(wanted, StableProposal):
            method, beta = wanted.stability or (None, beta)
        if method is not None and math.isfinite(wanted.learning_rate):
            method = "gd" if method in ("heavy_ball", "nesterov") and beta == 0 else method
            return stability_threshold(1.0, method, momentum=beta), wanted.learning_rate
        u = state.get("eigenvector")
        if u is None:
            return 2.0, 0.0
        gradient, step = start.gradient, wanted.step
        if self.preconditioner is not None:  # u is an eigenvector in its metric
            diagonal = self.preconditioner(base_state)
            if diagonal is None:
                return 2.0, 0.0
            root = start.backend.asarray(diagonal, dtype=start.objective.dtype) ** 0.5
            gradient, step = gradient / root, step * root
        along = start.dot(u, gradient)
        if abs(along) <= np.sqrt(np.finfo(start.objective.dtype).eps) * start.norm(gradient):
            return 2.0, 0.0
        return 2.0, max(0.0, -start.dot(u, step) / along)


def prefixed(state: Mapping[str, Any]) -> dict[str, Any]:
    """Entries of a method's state as those of a method around it."""
    return {_PREFIX + name: value for name, value in state.items()}


def unprefixed(state: Mapping[str, Any]) -> dict[str, Any]:
    """Entries of the method inside, from the state of the one around it."""
    return {name.removeprefix(_PREFIX): value for name, value in state.items() if name.startswith(_PREFIX)}
