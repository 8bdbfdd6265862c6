"""What a method says of its own step to whoever asks where it becomes unstable."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from ..backends import Array
from ..evolution.edge import Method
from .optimizer import Proposal


@dataclasses.dataclass
class StableProposal(Proposal):
    r"""A proposal whose stability on a quadratic is known.

    On a quadratic with Hessian H, the method with its present settings multiplies errors along the eigenvectors of
    :math:`P^{-1/2} (H + D) P^{-1/2}`, and is stable where these eigenvalues are below `linop_spectra.evolution.stability_threshold` of
    `learning_rate`.

    Attributes
    ----------
    stability : (str, float), optional
        Method and momentum, for `linop_spectra.evolution.stability_threshold`; None where they are not known.
    preconditioner : callable, optional
        Gives the diagonal of P after the step, shape (n,), positive; None for the identity.
    decay : array, optional
        Diagonal D of what weight decay adds to the gradient, shape (n,); None for zero.
    """

    stability: tuple[Method, float] | None = None
    preconditioner: Callable[[], Array] | None = None
    decay: Array | None = None
