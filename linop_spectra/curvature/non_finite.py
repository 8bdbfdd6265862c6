"""The loss of a batch that is no finite number."""

from __future__ import annotations

import numpy as np


class NonFiniteLossError(ValueError, FloatingPointError):
    """The loss overflowed, or parameters or data are not finite.

    It is a ValueError, because data or parameters may be to blame, and a FloatingPointError, because far from a trained model nobody
    need be: a step or a point that lies too far out can be taken back.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.curvature.non_finite import NonFiniteLossError
    >>> objective = ls.objective(torch.nn.Linear(3, 1), "mse", (torch.ones(5, 3), torch.ones(5, 1)))
    >>> try:
    ...     _ = objective.with_parameters(objective.parameters() * 1e30).value()
    ... except NonFiniteLossError:
    ...     print("too far")
    too far
    """


def require_finite_loss(loss_sum: float) -> None:
    """Raise unless the summed loss of a batch is a finite number.

    Raises
    ------
    NonFiniteLossError
        When it is NaN or infinite.
    """
    if not np.isfinite(loss_sum):
        raise NonFiniteLossError(
            f"The loss of a batch is not finite ({loss_sum}); look for parameters or data that are not finite, or a loss that overflows."
        )


def require_terms(num_terms: float) -> None:
    """Raise unless the number of terms of a batch's loss is finite and at least zero.

    Raises
    ------
    ValueError
        When it is not.
    """
    if not (np.isfinite(num_terms) and num_terms >= 0):
        raise ValueError(f"The loss of a batch has {num_terms} terms, but the number of terms must be finite and at least zero.")
