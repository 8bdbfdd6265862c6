"""KFAC and EKFAC as optimisers (Martens and Grosse, 2015; George et al., 2018)."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from ...approximations.kfac import Sharing
from ...approximations.weight_gradients import Arrangements, FisherKind
from ...backends import Array
from ...krylov.lanczos import check_count
from ..evaluation import Start
from ..optimizer import NO_GRADIENT, Optimizer, Proposal, Rate, check_number, check_seed, checked_rate, rate_at
from .diagonal_curvature import seed_of_step
from .running_factors import FactorOptions, Kind, Others, measure, precondition

_OMEGA = 19 / 20
_FIRST_UPDATES = 3


class KFAC(Optimizer):
    r"""Descent preconditioned by Kronecker factors of the Gauss-Newton or Fisher matrix, followed over mini-batches.

    The layers' blocks :math:`G \otimes A` (see `linop_spectra.approximations.kfac`) are averaged as
    :math:`A \leftarrow \epsilon A + (1 - \epsilon) A_t` with :math:`\epsilon = \min(1 - 1/t, \text{factor_decay})` (Martens and Grosse,
    2015, section 5), and the step is

    .. math:: s_t = \eta \nu \Delta_t + \mu s_{t-1} - \eta w \theta_t, \qquad \Delta_t = -(P + \delta I)^{-1} g_t,

    with the norm constraint :math:`\nu = \min(1, \sqrt{\kappa / (\eta^2 \Delta^\top (P + \delta) \Delta)})` on what the model's predictions
    change (Ba, Grosse and Martens, 2017).

    Parameters
    ----------
    learning_rate : float or callable
        :math:`\eta`; a callable is given the number of the step.
    momentum : float or "fitted"
        :math:`\mu`, below one. ``"fitted"`` chooses it with the length of the step, see `rescale`, which it needs.
    damping : float
        :math:`\delta`, in units of curvature. Weight decay of the objective is in P, and so adds to it. Zero needs factors of full rank:
        as many examples as a layer has inputs, and more.
    kind : {"kfac", "ekfac"}
        ``"ekfac"`` replaces the products of eigenvalues by second moments of the gradients in the eigenvectors, for one more pass for each
        measurement. Where the eigenvectors are renewed, the second moments so far come over as the diagonal in the new ones.
    fisher : {"mc", "exact", "empirical"}
        Whose gradients: for targets drawn from the model, which costs `num_samples` gradients; the Gauss-Newton matrix, at a gradient for
        each output of an example, for losses without a likelihood too; or the targets of the data, which is no curvature.
    num_samples : int
        Of drawn targets.
    sharing : {"expand", "reduce"}
        For weights that are used at several positions.
    others : {"auto", "exact", "diagonal"}
        Parameters without factors of up to 1,024 numbers, such as scales of normalisation: exact blocks, at a product for each number and
        measurement (counted in ``num_matvecs``), or a diagonal from one gradient for drawn targets, which needs a likelihood. ``"auto"`` is
        exact where they have up to 64 numbers all together or no targets can be drawn. Larger ones are refused.
    factor_decay : float
        Largest :math:`\epsilon`, below one; zero forgets all other batches.
    factors_every, inverse_every : int
        Steps between two measurements of the factors, and between two decompositions of them. Each of the first three measurements is
        decomposed.
    norm_constraint : float, optional
        :math:`\kappa`; None for none.
    factored_damping : bool
        Put the root of the damping into both factors, balanced by their traces (Martens and Grosse, 2015, section 6.3), and not into the
        eigenvalues of their product. For ``"kfac"``.
    rescale : bool
        Choose the length of the step by the exact Gauss-Newton matrix G: :math:`\alpha = -g^\top \Delta / \Delta^\top (G + \delta) \Delta`
        (section 6.4), one product; with ``momentum="fitted"`` that and the momentum at once from two equations (section 7), two products.
        The learning rate multiplies the result.
    adapt_damping : bool
        Levenberg and Marquardt's rule (section 6.5): every `adapt_every` steps the damping is multiplied by
        :math:`(19/20)^{\text{adapt_every}}` where the loss fell by more than 3/4 of what the quadratic with G predicts, and divided by it
        where by less than 1/4. A step after which the loss is not finite divides too.
    adapt_every : int
        As above.
    weight_decay : float
        w, applied to the parameters and not to the gradient; for one in the loss give it to the objective.
    seed : int
        Of drawn targets, which are the same in every framework.

    Notes
    -----
    A step costs one gradient and one value; where factors are measured the gradients of `fisher` besides (and the first time about two
    passes over a few examples to see how the model arranges them); where they are decomposed :math:`O(d^3)` for each factor, on the host.
    The predicted decrease is that of the quadratic with G, undamped, where `rescale` or `adapt_damping` take products with it; these are on
    the data of the curvature, as the factors are. Elsewhere it is that of the gradient alone.

    The state holds two square matrices and their eigenvectors for each layer, and for layers without factors those of their exact blocks.
    Batch normalisation by the statistics of the batch couples the examples and is refused; by running statistics it is not.

    The defaults of momentum, damping, decay and constraint are those of the Deep Curvature Suite (Granziol et al., 2019).

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    >>> objective = ls.objective(model, "cross_entropy", (torch.randn(64, 4), torch.randint(0, 3, (64,))))
    >>> theta, optimizer = objective.parameters(), ls.optim.KFAC(damping=0.01)
    >>> for _ in range(10):
    ...     theta, info = optimizer.step(objective, theta)
    >>> info.num_gradients, bool(info.loss < objective.value())  # one for drawn targets
    (2, True)
    """

    _settings: ClassVar[tuple[str, ...]] = (
        "learning_rate", "momentum", "damping", "kind", "fisher", "num_samples", "sharing", "others", "factor_decay", "factors_every",
        "inverse_every", "norm_constraint", "factored_damping", "rescale", "adapt_damping", "adapt_every", "weight_decay", "seed",
    )  # fmt: skip

    def __init__(
        self,
        *,
        learning_rate: Rate = 0.1,
        momentum: float | Literal["fitted"] = 0.9,
        damping: float = 1e-3,
        kind: Kind = "kfac",
        fisher: FisherKind = "mc",
        num_samples: int = 1,
        sharing: Sharing = "expand",
        others: Others = "auto",
        factor_decay: float = 0.95,
        factors_every: int = 1,
        inverse_every: int = 10,
        norm_constraint: float | None = 1e-3,
        factored_damping: bool = False,
        rescale: bool = False,
        adapt_damping: bool = False,
        adapt_every: int = 5,
        weight_decay: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value, allowed in (
            ("kind", kind, get_args(Kind)), ("fisher", fisher, get_args(FisherKind)), ("sharing", sharing, get_args(Sharing)),
            ("others", others, get_args(Others)),
        ):  # fmt: skip
            if value not in allowed:
                raise ValueError(f"The argument {name} is {value!r}, but must be {' or '.join(map(repr, allowed))}.")
        self.learning_rate, self.kind, self.fisher, self.sharing, self.others = checked_rate(learning_rate), kind, fisher, sharing, others
        self.momentum = momentum if momentum == "fitted" else check_number("momentum", momentum, below=1.0)
        self.damping = check_number("damping", damping)
        self.num_samples, self.seed = check_count("num_samples", num_samples), check_seed(seed)
        self.factor_decay = check_number("factor_decay", factor_decay, below=1.0)
        self.factors_every, self.inverse_every = check_count("factors_every", factors_every), check_count("inverse_every", inverse_every)
        self.norm_constraint = None if norm_constraint is None else check_number("norm_constraint", norm_constraint, positive=True)
        self.factored_damping, self.rescale, self.adapt_damping = bool(factored_damping), bool(rescale), bool(adapt_damping)
        self.adapt_every, self.weight_decay = check_count("adapt_every", adapt_every), check_number("weight_decay", weight_decay)
        self._check_together()
        self._arrangements: tuple[Any, Arrangements] = (None, {})

    def _check_together(self) -> None:
        if self.momentum == "fitted" and not self.rescale:
            raise ValueError("The argument momentum is 'fitted', which takes products with the Gauss-Newton matrix; pass rescale=True too.")
        if self.factored_damping and self.kind == "ekfac":
            raise ValueError("The argument factored_damping is True, but the eigenvalues of EKFAC have no factors; leave it out.")
        if self.adapt_damping and self.damping == 0:
            raise ValueError("The argument damping is 0, which adapt_damping=True would multiply for ever; pass a positive damping.")
        if self.num_samples != 1 and self.fisher != "mc":
            raise ValueError(f"The argument num_samples is {self.num_samples}, but belongs to fisher='mc'; leave it out.")

    def _propose(self, start: Start) -> Proposal:
        rate, state = rate_at(self.learning_rate, start.step), start.state
        damping, count = state.get("damping", self.damping), state.get("count", 0) + 1
        entries, refreshed = self._factors(start)
        # The empirical Fisher matrix has no weight decay in it.
        shift = damping + (0.0 if self.fisher == "empirical" else start.curvature.weight_decay)
        known = {**state, **entries}
        direction = -precondition(start.backend, known, start.gradient, shift, factored=self.factored_damping)

        directions = [direction]
        if self.momentum and "last_step" in state:
            directions.append(state["last_step"])
        adapts = self.adapt_damping and count % self.adapt_every == 0
        model = _Quadratic(start, [*directions, start.theta] if self.weight_decay else directions) if adapts or self.rescale else None
        coefficients, details = self._coefficients(start, directions, model, rate, damping)
        step = sum((float(c) * x for c, x in zip(coefficients[1:], directions[1:], strict=True)), float(coefficients[0]) * directions[0])
        entries |= {"count": count} | ({"last_step": step} if self.momentum else {}) | ({"damping": damping} if adapts else {})
        message = NO_GRADIENT if rate > 0 and start.norm(step) == 0 and not self.weight_decay else ""
        if self.weight_decay:
            step = step - rate * self.weight_decay * start.theta
            coefficients = np.append(coefficients, -rate * self.weight_decay)
        return Proposal(
            step, entries, {"damping": damping / _OMEGA**self.adapt_every} if self.adapt_damping else {},
            predicted_decrease=math.nan if model is None else model.decrease(coefficients),
            learning_rate=rate, damping=damping, refreshed=refreshed, message=message, details=details,
        )  # fmt: skip

    def _factors(self, start: Start) -> tuple[dict[str, Any], bool]:
        """Entries of the state that belong to the factors, and whether they were measured."""
        state = start.state
        since, since_inverse = state.get("since_factors", 0), state.get("since_inverse", 0)
        if "structure" in state and since < self.factors_every:
            return {"since_factors": since + 1, "since_inverse": since_inverse + 1}, False
        functions = start.curvature.functions
        if self.fisher == "mc" and functions.gauss_newton_refusal is None and functions.fisher_refusal is not None:
            raise TypeError(f"{functions.fisher_refusal} Or pass fisher='exact', which needs no likelihood.")
        updates = state.get("factor_updates", 0) + 1
        invert = updates <= _FIRST_UPDATES or since_inverse >= self.inverse_every
        options = FactorOptions(self.kind, self.fisher, self.num_samples, self.sharing, self.others)
        decay = min(1 - 1 / updates, self.factor_decay)
        if self._arrangements[0] is not functions:
            self._arrangements = functions, {}
        seed = seed_of_step(self.seed, start.step)
        entries = measure(start, options, seed, state, decay, invert=invert, known=self._arrangements[1])
        return entries | {"factor_updates": updates, "since_factors": 1, "since_inverse": 1 if invert else since_inverse + 1}, True

    def _coefficients(
        self, start: Start, directions: list[Array], model: _Quadratic | None, rate: float, damping: float
    ) -> tuple[np.ndarray, dict[str, float]]:
        """Of each direction in the step, and the numbers behind them."""
        k, details = len(directions), {}
        weights = np.zeros(k)
        weights[0] = 1.0
        slope = -start.dot(start.gradient, directions[0])
        if self.rescale and model is not None:
            fitted = k if self.momentum == "fitted" else 1
            damped = (model.curvature + damping * model.overlaps)[:fitted, :fitted]
            if np.any(model.slopes[:fitted]):
                # Directions may be parallel, or none of them curved: the shortest solution then.
                weights[:fitted] = np.linalg.lstsq(damped, -model.slopes[:fitted], rcond=None)[0]
            slope = float(weights[:fitted] @ damped @ weights[:fitted])
            details["rescaling"] = float(weights[0])
        scale = 1.0
        if self.norm_constraint is not None and slope > 0 and rate > 0:
            scale = min(1.0, math.sqrt(self.norm_constraint / slope) / rate)
        details["norm_scale"] = scale
        weights *= rate * scale
        if k > 1 and self.momentum != "fitted":
            weights[1] = float(self.momentum)
        return weights, details

    def _judge(self, start: Start, proposal: Proposal, actual_decrease: float) -> tuple[bool, str]:
        if "damping" in proposal.state:
            predicted = proposal.predicted_decrease
            ratio = actual_decrease / predicted if predicted > 0 else -math.inf
            factor = _OMEGA**self.adapt_every
            proposal.state["damping"] = proposal.damping * (factor if ratio > 3 / 4 else 1 / factor if ratio < 1 / 4 else 1.0)
        return True, ""


class _Quadratic:
    """The loss along a few directions by gradient and Gauss-Newton matrix, at a product for each.

    Attributes
    ----------
    slopes : numpy.ndarray
        Inner products with the gradient, shape (k,).
    curvature, overlaps : numpy.ndarray
        Inner products of the directions, with the matrix between them and without, shape (k, k).
    """

    def __init__(self, start: Start, directions: list[Array]) -> None:
        matrix = start.operator("ggn")
        rows = start.backend.empty((len(directions), matrix.shape[0]), matrix.dtype)
        for i, direction in enumerate(directions):
            rows[i] = direction
        products = matrix.matmat(rows.T).T
        self.slopes = np.array([start.dot(start.gradient, x) for x in directions])
        curvature = np.array([[start.dot(x, product) for product in products] for x in directions])
        self.curvature = (curvature + curvature.T) / 2
        self.overlaps = np.array([[start.dot(x, y) for y in directions] for x in directions])

    def decrease(self, coefficients: np.ndarray) -> float:
        """What a combination of the directions takes from the loss."""
        with np.errstate(over="ignore", invalid="ignore"):  # of a step that will be rejected
            return -float(coefficients @ self.slopes + coefficients @ self.curvature @ coefficients / 2)


__all__ = ["KFAC"]
