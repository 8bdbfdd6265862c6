"""How much larger the extreme eigenvalue of a mini-batch is than that of the data on which curvature is measured."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...backends import Array
from ...curvature import Objective
from ...estimators.field_variance import field_variance
from ...operators import LinearOperator
from ...random_matrices.models.minibatch import shifted_eigenvalue

_PIECES = 8


def batch_shift(
    make: Callable[[Objective], LinearOperator], curvature: Objective, batch_size: int, eigenvalue: float, eigenvector: Array, bulk: float
) -> float:
    r"""What is to be added to an eigenvalue of the curvature data to have that of a batch.

    :math:`V_u / (\lambda - \text{bulk})` with the variance :math:`V_u = E |(H_B - H) u|^2` along the eigenvector, or up to the edge of the
    noise where the eigenvalue drowns in it (D. Granziol, S. Zohren and S. Roberts, J. Mach. Learn. Res. 23, 2022). The eigenvalues of the M
    examples of the curvature data are shifted already by their own choice, so that :math:`1 / B - 1 / M` counts. It costs one product over
    the curvature data.

    Parameters
    ----------
    make : callable
        The matrix of an objective.
    curvature : Objective
        In at least two batches of one size, or in one that can be cut.
    batch_size : int
        B.
    eigenvalue, eigenvector : float and array
        Of the matrix on the curvature data; shape (n,).
    bulk : float
        Where most eigenvalues are.

    Returns
    -------
    float
        Not negative; zero where the batch has as many examples as the curvature data.

    Raises
    ------
    ValueError
        When the data cannot be cut.
    """
    total = curvature.num_examples
    if batch_size >= total or eigenvalue <= bulk:
        return 0.0
    parts = _equal_parts(curvature)
    per_example = field_variance([make(part) for part in parts], eigenvector).value * parts[0].num_examples
    return float(shifted_eigenvalue(eigenvalue, per_example * (1 / batch_size - 1 / total), bulk=bulk)) - eigenvalue


def _equal_parts(curvature: Objective) -> list[Objective]:
    parts = curvature.per_batch()
    sizes = [part.num_examples for part in parts]
    whole = [part for part, size in zip(parts, sizes, strict=True) if size == max(sizes)]
    if len(whole) >= 2:
        return whole
    functions, batch = curvature.functions, list(curvature.batches())[int(np.argmax(sizes))]
    count = min(_PIECES, max(sizes))
    each = max(sizes) // count
    pieces = [functions.take(batch, np.arange(i * each, (i + 1) * each)) for i in range(count)]
    if count < 2 or any(piece is None for piece in pieces):
        raise ValueError(
            "The correction for mini-batches compares parts of the curvature data, but these are one batch that cannot be cut; make the "
            "curvature objective with a smaller batch_size, or pass batch_correction=False."
        )
    return [curvature._derived(data=functions.sequence([piece])) for piece in pieces]
