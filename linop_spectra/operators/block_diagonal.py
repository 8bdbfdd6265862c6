"""Block-diagonal matrices of operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backends import Array
from .algebra import all_true, same_backend
from .base import LinearOperator
from .interop import aslinearoperator


class BlockDiagonalOperator(LinearOperator):
    """Operators along the diagonal, zeros elsewhere."""

    def __init__(self, blocks: tuple[LinearOperator, ...]) -> None:
        self.blocks = blocks
        super().__init__(
            (sum(block.shape[0] for block in blocks), sum(block.shape[1] for block in blocks)),
            np.result_type(*(block.dtype for block in blocks)),
            hermitian=all_true([block.hermitian for block in blocks]),
            positive_semidefinite=all_true([block.positive_semidefinite for block in blocks]),
            backend=same_backend(blocks),
        )

    def _apply(self, x: Array, adjoint: bool) -> Array:
        rows = self.backend.empty((x.shape[1], self.shape[1 if adjoint else 0]), self.dtype)
        out, first, start = rows.T, 0, 0
        for block in self.blocks:
            height, width = block.shape[::-1] if adjoint else block.shape
            part = x[start : start + width, :]
            out[first : first + height, :] = block.rmatmat(part) if adjoint else block.matmat(part)
            first, start = first + height, start + width
        return out

    def _matmat(self, x: Array) -> Array:
        return self._apply(x, adjoint=False)

    def _rmatmat(self, x: Array) -> Array:
        return self._apply(x, adjoint=True)

    def _children(self) -> tuple[LinearOperator, ...]:
        return self.blocks


def block_diagonal(blocks: Sequence[Any]) -> LinearOperator:
    """The matrix with the given operators along its diagonal and zeros elsewhere.

    Parameters
    ----------
    blocks : sequence
        Operators, or what `aslinearoperator` takes, of any shapes, on one backend; at least one.

    Returns
    -------
    LinearOperator
        Its shape is the sum of the shapes.

    Examples
    --------
    >>> import linop_spectra as ls
    >>> ls.block_diagonal([ls.identity(1), 3 * ls.identity(2)]) @ [1.0, 1.0, 1.0]
    array([1., 3., 3.])
    """
    operators = tuple(aslinearoperator(block) for block in blocks)
    if not operators:
        raise ValueError("The argument blocks is empty; a block-diagonal matrix needs at least one block.")
    return BlockDiagonalOperator(operators)
