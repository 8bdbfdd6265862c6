"""Largest curvature at which an optimiser with fixed settings is stable on a quadratic."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

Method = Literal["gd", "heavy_ball", "nesterov", "adam"]


def stability_threshold(learning_rate: float, method: Method = "gd", *, momentum: float = 0.0) -> float:
    r"""Largest eigenvalue that gradient descent with this learning rate does not diverge along.

    Parameters
    ----------
    learning_rate : float
        The learning rate :math:`\eta`, positive.
    method : {"gd", "heavy_ball", "nesterov", "adam"}
        ``"gd"``: :math:`2/\eta`. ``"heavy_ball"`` (the momentum of most frameworks): :math:`2(1+\beta)/\eta`. ``"nesterov"``:
        :math:`(2+2\beta)/((1+2\beta)\eta)`. ``"adam"``: :math:`(2+2\beta_1)/((1-\beta_1)\eta)`, for the eigenvalues of the
        preconditioned Hessian (38 over the learning rate at :math:`\beta_1 = 0.9`).
    momentum : float
        :math:`\beta` or :math:`\beta_1`, at least 0 and below 1.

    Returns
    -------
    float
        In units of an eigenvalue.

    Raises
    ------
    ValueError
        When an argument is out of range.

    References
    ----------
    J. Cohen, S. Kaur, Y. Li, J. Z. Kolter and A. Talwalkar, *Gradient descent on neural networks typically occurs at the edge of
    stability*, ICLR (2021); J. Cohen et al., *Adaptive gradient methods at the edge of stability* (2022).

    Examples
    --------
    >>> stability_threshold(0.1), round(stability_threshold(1.0, "adam", momentum=0.9), 9)
    (20.0, 38.0)
    """
    if not (np.isfinite(learning_rate) and learning_rate > 0):
        raise ValueError(f"The argument learning_rate must be positive and finite, but is {learning_rate!r}.")
    if not 0 <= momentum < 1:
        raise ValueError(f"The argument momentum must lie in [0, 1), but is {momentum!r}.")
    if method not in get_args(Method):
        raise ValueError(f"The argument method is {method!r}, but must be one of {', '.join(map(repr, get_args(Method)))}.")
    if method == "gd" and momentum:
        raise ValueError("The argument momentum is for method='heavy_ball', 'nesterov' or 'adam'; plain gradient descent has none.")
    factor = {
        "gd": 2.0, "heavy_ball": 2 * (1 + momentum), "nesterov": (2 + 2 * momentum) / (1 + 2 * momentum),
        "adam": (2 + 2 * momentum) / (1 - momentum),
    }[method]  # fmt: skip
    return factor / float(learning_rate)
