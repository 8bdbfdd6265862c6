"""Sophia (Liu et al., 2023): a mean of gradients over the curvature's diagonal, with every entry of the step clipped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, get_args

from ...backends import Array
from ...krylov.lanczos import check_count
from ..evaluation import Start
from ..optimizer import NO_GRADIENT, Optimizer, Proposal, Rate, check_number, check_seed, checked_rate, rate_at
from .diagonal_curvature import check_betas, drawn_diagonal, hutchinson_diagonal

Estimator = Literal["gnb", "hutchinson"]
_GAMMA = {"gnb": 0.05, "hutchinson": 0.01}


class Sophia(Optimizer):
    r"""Descent along a mean of gradients, divided by a mean of the curvature's diagonal where that is large, of equal steps elsewhere.

    With the gradient :math:`g_t` and an estimate :math:`\hat h_t` of the diagonal every `refresh_every` steps (Liu et al., 2023, algorithm
    3),

    .. math::

        m_t = \beta_1 m_{t-1} + (1 - \beta_1) g_t, \qquad h_t = \beta_2 h_{t-1} + (1 - \beta_2) \hat h_t, \qquad
        \theta_{t+1} = (1 - \eta w) \theta_t - \eta \operatorname{clip}\big(m_t / \max(\gamma h_t, \epsilon), 1\big).

    No entry moves by more than :math:`\eta`, and where the curvature is negative, or small beside the gradient, it moves by just that:
    with no curvature anywhere the method is descent by the signs of the mean.

    Parameters
    ----------
    learning_rate : float or callable
        :math:`\eta`, the largest change of an entry in a step; a callable is given the number of the step.
    betas : (float, float)
        :math:`\beta_1` and :math:`\beta_2`. As in the paper neither mean is corrected for its start at zero, so that h starts at
        :math:`1 - \beta_2` times the first estimate.
    gamma : float, optional
        :math:`\gamma`, which says how much is clipped; by default .05 for ``"gnb"`` and .01 for ``"hutchinson"``. The paper tunes it so
        that between 50 and 90 % are clipped (``StepInfo.details["clip_fraction"]``).
    eps : float
        :math:`\epsilon`, positive.
    weight_decay : float
        w, applied to the parameters and not to the gradient; .1 in the paper.
    estimator : {"gnb", "hutchinson"}
        ``"gnb"``, Sophia-G: the diagonal of the Gauss-Newton matrix by squared gradients for targets that are drawn from the model
        (Gauss-Newton-Bartlett), never negative; the loss must be the negative logarithm of a likelihood. ``"hutchinson"``, Sophia-H: that
        of the Hessian by products with random signs, of smaller variance than the normal numbers of the paper and exact for diagonal
        matrices.
    num_samples : int
        Drawn targets or vectors of signs for each estimate.
    refresh_every : int
        Steps between two estimates.
    seed : int
        Of targets and signs; drawn targets are the same in every framework.

    Notes
    -----
    A step costs one gradient and one value; where it refreshes also `num_samples` gradients (``"gnb"``) or products (``"hutchinson"``).
    Where the gradients of all steps so far are zero the step is zero, but for weight decay; a single zero gradient leaves the momentum.

    A step after which the loss is not finite is rejected and leaves no trace in the means.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    >>> objective = ls.objective(model, "cross_entropy", (torch.randn(64, 4), torch.randint(0, 3, (64,))))
    >>> theta, optimizer = objective.parameters(), ls.optim.Sophia(learning_rate=0.01)
    >>> for _ in range(20):
    ...     theta, info = optimizer.step(objective, theta)
    >>> bool(info.loss < objective.value()), bool(0 <= info.details["clip_fraction"] <= 1)
    (True, True)
    """

    _settings: ClassVar[tuple[str, ...]] = (
        "learning_rate", "betas", "gamma", "eps", "weight_decay", "estimator", "num_samples", "refresh_every", "seed",
    )  # fmt: skip

    def __init__(
        self,
        *,
        learning_rate: Rate = 1e-3,
        betas: Sequence[float] = (0.96, 0.99),
        gamma: float | None = None,
        eps: float = 1e-12,
        weight_decay: float = 0.0,
        estimator: Estimator = "gnb",
        num_samples: int = 1,
        refresh_every: int = 10,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if estimator not in get_args(Estimator):
            raise ValueError(f"The argument estimator is {estimator!r}, but must be 'gnb' or 'hutchinson'.")
        self.learning_rate, self.estimator = checked_rate(learning_rate), estimator
        self.betas, self.eps = check_betas(betas), check_number("eps", eps, positive=True)
        self.gamma = check_number("gamma", _GAMMA[estimator] if gamma is None else gamma, positive=True)
        self.weight_decay = check_number("weight_decay", weight_decay)
        self.num_samples, self.refresh_every = check_count("num_samples", num_samples), check_count("refresh_every", refresh_every)
        self.seed = check_seed(seed)

    def _propose(self, start: Start) -> Proposal:
        rate, state = rate_at(self.learning_rate, start.step), start.state
        beta, beta_curvature = self.betas
        mean = (1 - beta) * start.gradient + (beta * state["mean"] if "mean" in state else 0.0)
        refreshed = "curvature" not in state or state["since_refresh"] >= self.refresh_every
        curvature, since = state.get("curvature"), state.get("since_refresh", 0)
        if refreshed:
            curvature = (1 - beta_curvature) * self._estimate(start) + (0.0 if curvature is None else beta_curvature * curvature)
            since = 0
        assert curvature is not None
        ratio = mean / (self.gamma * curvature).clip(self.eps, None)
        step = -rate * ratio.clip(-1.0, 1.0)
        still = rate > 0 and start.norm(step) == 0
        if self.weight_decay:
            step = step - rate * self.weight_decay * start.theta
        return Proposal(
            step,
            {"mean": mean, "curvature": curvature, "since_refresh": since + 1},
            learning_rate=rate, refreshed=refreshed, message=NO_GRADIENT if still and not self.weight_decay else "",
            details={"clip_fraction": float((abs(ratio) >= 1).sum()) / start.objective.num_parameters},
        )  # fmt: skip

    def _estimate(self, start: Start) -> Array:
        if self.estimator == "gnb":
            if (refusal := start.curvature.functions.fisher_refusal) is not None:
                raise TypeError(f"{refusal} Or pass estimator='hutchinson', which needs no likelihood.")
            return drawn_diagonal(start, self.num_samples, self.seed)
        return hutchinson_diagonal(start, "hessian", self.num_samples, self.seed, "sophia")


__all__ = ["Sophia"]
