"""AdaHessian (Yao et al., 2021): Adam with the diagonal of the Hessian in place of the gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from ...backends import Array
from ...krylov.lanczos import check_count
from ..evaluation import Matrix, Start, check_matrix
from ..optimizer import NO_GRADIENT, Optimizer, Rate, check_number, check_seed, checked_rate, rate_at
from ..stability import StableProposal
from .diagonal_curvature import Window, averaged, check_betas, convolution_windows, hutchinson_diagonal


class AdaHessian(Optimizer):
    r"""Descent along a mean of gradients, divided by the root mean square of estimates of the Hessian's diagonal.

    With the gradient :math:`g_t` and Hutchinson's estimate :math:`D_t = z \odot H z` for random signs z, averaged over the window of each
    convolution (Yao et al., 2021, equations 8 to 12),

    .. math::

        m_t = \beta_1 m_{t-1} + (1 - \beta_1) g_t, \qquad v_t = \beta_2 v_{t-1} + (1 - \beta_2) D_t^2, \qquad
        \theta_{t+1} = \theta_t - \eta\Big[\frac{m_t / (1 - \beta_1^t)}{(v_t / (1 - \beta_2^t))^{k/2} + \epsilon} + w \theta_t\Big].

    Where the Hessian is diagonal the estimate is exact, and with ``betas=(0, 0)`` and ``eps=0`` the step is that of Newton's method with
    the modulus of the curvature. Elsewhere it is what one sample makes of it: the noise of an entry is the norm of the rest of its row,
    which in a network exceeds the entry; the mean of squares then measures the noise, that is the row's norm, rather than the diagonal.

    Parameters
    ----------
    learning_rate : float or callable
        :math:`\eta`; a callable is given the number of the step.
    betas : (float, float)
        :math:`\beta_1` and :math:`\beta_2`.
    eps : float
        :math:`\epsilon`, at least zero, in units of curvature to the power k. Directions much flatter than it are descended at the rate
        :math:`\eta / \epsilon`.
    hessian_power : float
        k between 0, momentum alone, and 1.
    weight_decay : float
        w, applied to the parameters and not to the gradient.
    num_samples : int
        Vectors of signs for each estimate; their mean is squared.
    spatial_average : bool
        Whether to average the estimate over the positions of a convolution's window, which share a scale, to lessen its noise. Kernels are
        those that a forward pass is seen to convolve with; all other parameters, and kernels of grouped and transposed convolutions, keep
        an estimate for each number. ``StepInfo.details["averaged"]`` counts the numbers averaged.
    refresh_every : int
        Steps between two estimates; :math:`v_t` is kept between them.
    matrix : {"hessian", "ggn", "fisher"} or callable
        What the diagonal is of.
    seed : int
        Of the signs.

    Notes
    -----
    A step costs one gradient and one value, and `num_samples` products where it refreshes. The paper's program averages the modulus of the
    estimate over a window, its equations the estimate itself, as is done here. Defaults are those of that program. Where the gradients of
    all steps so far are zero the step is zero, but for weight decay; a single zero gradient leaves the momentum.

    A step after which the loss is not finite is rejected and leaves no trace in the means; the next one draws other signs.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    >>> objective = ls.objective(model, "cross_entropy", (torch.randn(64, 4), torch.randint(0, 3, (64,))))
    >>> theta, optimizer = objective.parameters(), ls.optim.AdaHessian(learning_rate=0.05)
    >>> for _ in range(10):
    ...     theta, info = optimizer.step(objective, theta)
    >>> info.num_matvecs, bool(info.loss < objective.value())
    (1, True)
    """

    _settings: ClassVar[tuple[str, ...]] = (
        "learning_rate", "betas", "eps", "hessian_power", "weight_decay", "num_samples", "spatial_average", "refresh_every", "matrix",
        "seed",
    )  # fmt: skip

    def __init__(
        self,
        *,
        learning_rate: Rate = 0.15,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-4,
        hessian_power: float = 1.0,
        weight_decay: float = 0.0,
        num_samples: int = 1,
        spatial_average: bool = True,
        refresh_every: int = 1,
        matrix: Matrix = "hessian",
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_matrix(matrix)
        self.learning_rate, self.matrix = checked_rate(learning_rate), matrix
        self.betas, self.eps = check_betas(betas), check_number("eps", eps)
        self.hessian_power = check_number("hessian_power", hessian_power)
        if self.hessian_power > 1:
            raise ValueError(f"The argument hessian_power is {hessian_power!r}, but must lie between 0 and 1.")
        self.weight_decay = check_number("weight_decay", weight_decay)
        self.num_samples, self.refresh_every = check_count("num_samples", num_samples), check_count("refresh_every", refresh_every)
        self.spatial_average, self.seed = bool(spatial_average), check_seed(seed)
        self._windows: tuple[Any, list[Window]] = (None, [])

    def _propose(self, start: Start) -> StableProposal:
        rate, state = rate_at(self.learning_rate, start.step), start.state
        beta, beta_squares = self.betas
        count = state.get("count", 0) + 1
        mean = (1 - beta) * start.gradient + (beta * state["mean"] if count > 1 else 0.0)
        details: dict[str, float] = {}
        refreshed = count == 1 or state["since_refresh"] >= self.refresh_every
        squares, refreshes, since = state.get("squares"), state.get("refreshes", 0), state.get("since_refresh", 0)
        if refreshed:
            diagonal = hutchinson_diagonal(start, self.matrix, self.num_samples, self.seed, "adahessian")
            if self.spatial_average:
                windows = self._windows_of(start)
                diagonal = averaged(start.objective, diagonal, windows)
                details["averaged"] = float(sum(place.stop - place.start for place, _, _ in windows))
            squares = (1 - beta_squares) * diagonal**2 + (0.0 if squares is None else beta_squares * squares)
            refreshes, since = refreshes + 1, 0
        assert squares is not None
        scale = (squares / (1 - beta_squares**refreshes)) ** (self.hessian_power / 2) + self.eps
        self._require_positive(start, scale)
        step = mean * (-rate / (1 - beta**count)) / scale
        still = rate > 0 and start.norm(step) == 0
        if self.weight_decay:
            step = step - rate * self.weight_decay * start.theta
        return StableProposal(
            step,
            {"mean": mean, "squares": squares, "count": count, "refreshes": refreshes, "since_refresh": since + 1},
            learning_rate=rate, refreshed=refreshed, message=NO_GRADIENT if still and not self.weight_decay else "", details=details,
            stability=("adam", beta), preconditioner=lambda: scale,
        )  # fmt: skip

    def _windows_of(self, start: Start) -> list[Window]:
        functions = start.objective.functions
        if self._windows[0] is not functions:
            self._windows = functions, convolution_windows(start.objective)
        return self._windows[1]

    def _require_positive(self, start: Start, scale: Array) -> None:
        if self.eps == 0 and start.backend.any(scale == 0):
            raise ValueError(
                f"The argument eps is 0, but the diagonal of the {self.matrix if isinstance(self.matrix, str) else 'matrix'} has "
                f"{int((scale == 0).sum())} zeros to divide by; pass a positive eps."
            )


__all__ = ["AdaHessian"]
