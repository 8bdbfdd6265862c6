r"""Eigenvalue-corrected Kronecker factors (George et al., 2018): the eigenvectors of KFAC with the eigenvalues that fit best.

In the eigenvectors of a layer's factors `G` and `A`, :math:`\lambda_{ij} = \frac1T \sum_{nc} (u_i^\top W_{nc} v_j)^2` with the gradients
:math:`W_{nc} = \sum_s g_{nsc} a_{ns}^\top` of single examples. That is the diagonal of the true block in this basis: the trace is
exact, and no matrix that is diagonal in it, KFAC included, is nearer in the Frobenius norm.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from .._progress import Progress
from ..backends import Array
from ..curvature.objective import Objective
from ..curvature.out_of_memory import in_smaller_plans
from .kfac import Moments, Sharing, assembled, checked_columns, collect, exact_blocks, require_known, uses_by_key
from .kronecker_factors import KroneckerApproximation, KroneckerBlock, RescaledBlock
from .weight_gradients import Arrangements, BatchGradients, FisherKind
from .weight_layers import Layer, Layers

_NUMBERS_AT_ONCE = 1 << 23


def ekfac(
    objective: Objective,
    *,
    fisher: FisherKind = "exact",
    num_samples: int = 1,
    seed: int = 0,
    sharing: Sharing = "expand",
    include_bias: bool = True,
    progress: Progress = None,
) -> KroneckerApproximation:
    r"""Eigenvalue-corrected Kronecker-factored approximation of the Gauss-Newton or Fisher matrix.

    Takes two passes over the data, the first one that of `kfac`; drawn targets are the same in both.

    Parameters
    ----------
    objective, fisher, num_samples, seed, sharing, include_bias, progress
        As for `kfac`; `sharing` chooses the eigenvectors only. With ``"reduce"`` and fewer examples than inputs these are not unique,
        and neither is the result.

    Returns
    -------
    KroneckerApproximation
        Whose trace is that of the matrix (with ``fisher="mc"``: of the gradients drawn), and whose error in the Frobenius norm is at most
        that of `kfac`, with the same arguments and over the blocks of the layers.

    Raises
    ------
    TypeError, ValueError
        As `kfac`.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.approximations.ekfac import ekfac
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2)).double()
    >>> objective = ls.objective(model, "mse", (torch.randn(20, 4).double(), torch.zeros(20, 2).double()))
    >>> bool(abs(ekfac(objective).trace() / objective.ggn().to_dense().trace() - 1) < 1e-12)
    True
    """
    began = time.perf_counter()
    columns = checked_columns(objective, fisher, num_samples, seed, sharing)

    def compute() -> tuple[Moments, list[KroneckerBlock], Projected, int]:
        moments = Moments(objective, sharing, include_bias=include_bias)
        known: Arrangements = {}
        passes = collect(objective, columns, moments, progress, "Kronecker factors", known)
        bases = [moments.kronecker(layer) for layer in moments.layers.weights]
        projected = Projected(objective, moments.layers, bases)
        passes += collect(objective, columns, projected, progress, "eigenvalues", known)
        return moments, bases, projected, passes

    moments, bases, projected, passes = in_smaller_plans(compute, objective._pieces.retreat, objective._pieces.sentence)
    blocks = [RescaledBlock(base, values) for base, values in zip(bases, projected.eigenvalues(), strict=True)]
    rest, products = exact_blocks(objective, moments, columns)
    return assembled(
        objective, [*blocks, *rest], "ekfac", columns, sharing, products=products, passes=passes, seconds=time.perf_counter() - began
    )


class Projected:
    """Sums of squared gradients in the eigenvectors of the factors.

    Parameters
    ----------
    objective : Objective
        Model, loss, parameters and data.
    layers : Layers
        Of the first pass.
    bases : list of KroneckerBlock
        One for each weight.
    """

    holds = True

    def __init__(self, objective: Objective, layers: Layers, bases: list[KroneckerBlock]) -> None:
        self.objective, self._layers = objective, layers
        self.terms = 0.0
        backend = self._backend = objective.functions.backend
        self._vectors = [(backend.asarray(base.bases[0][1]), backend.asarray(base.bases[1][1])) for base in bases]
        self._totals = []
        for layer in layers.weights:
            total = backend.empty(layer.places.shape, np.float64)
            total[...] = 0.0
            self._totals.append(total)

    def add(self, gradients: BatchGradients, columns: Any) -> int:
        """Add a batch; the number of its backward passes."""
        require_known(self._layers, gradients)
        places, found = uses_by_key(gradients), [gradients.gradients(u) for u in columns]
        for layer, vectors, total in zip(self._layers.weights, self._vectors, self._totals, strict=True):
            straight, turned = ([n for key in keys for n in places.get(key, ())] for keys in (layer.keys, layer.transposed))
            numbers = [*((number, False) for number in straight), *((number, True) for number in turned)]
            once = len(numbers) == 1 and int(np.prod(gradients.recorded.leading(numbers[0][0]))) == gradients.count
            if not (numbers and found):
                continue
            if once:
                self._add_single(gradients, found, layer, straight[0] if straight else turned[0], bool(turned), vectors, total)
            else:
                self._add_several(gradients, found, layer, numbers, vectors, total)
        return len(found)

    def _add_single(
        self, gradients: BatchGradients, found: list[list[Array]], layer: Layer, number: int, turned: bool, vectors: Any, total: Array
    ) -> None:
        """One position: the squares of a product are those of its factors, and the columns share the inputs."""
        of_gradients, of_inputs = vectors[::-1] if turned else vectors
        for first, last in gradients.pieces(number):
            squares: Any = None
            for one in found:
                own = (gradients.positions(number, one[number], first, last)[:, 0, :] @ of_gradients) ** 2
                squares = own if squares is None else squares + own
            a = (gradients.inputs(number, first, last, biased=layer.biased)[:, 0, :] @ of_inputs) ** 2
            total += a.T @ squares if turned else squares.T @ a

    def _add_several(
        self, gradients: BatchGradients, found: list[list[Array]], layer: Layer, numbers: list[tuple[int, bool]], vectors: Any, total: Array
    ) -> None:
        """Several positions or uses: gradients of a few examples at a time are formed."""
        u, v = vectors
        steps = [last - first for number, _ in numbers for first, last in [next(iter(gradients.pieces(number)))]]
        step = max(1, min(*steps, gradients.count, _NUMBERS_AT_ONCE // layer.places.size))
        (rows, columns), k = layer.places.shape, len(found)
        positions = sum(int(np.prod(gradients.recorded.leading(number))) for number, _ in numbers) / gradients.count
        # Into the eigenvectors go either inputs and gradients, or their products.
        early = positions * (columns**2 + k * rows**2) < k * rows * columns * (rows + columns)
        for first in range(0, gradients.count, step):
            last = min(first + step, gradients.count)
            inputs = [gradients.inputs(number, first, last, biased=layer.biased) for number, _ in numbers]
            if early:
                inputs = [a @ (u if turned else v) for a, (_, turned) in zip(inputs, numbers, strict=True)]
            for one in found:
                weight: Any = None
                for (number, turned), a in zip(numbers, inputs, strict=True):
                    g = gradients.positions(number, one[number], first, last)
                    if early:
                        g = g @ (v if turned else u)
                    product = a.swapaxes(1, 2) @ g if turned else g.swapaxes(1, 2) @ a
                    weight = product if weight is None else weight + product
                if not early:
                    weight = u.T @ (weight @ v)
                total += (weight**2).sum(0)

    def eigenvalues(self) -> list[np.ndarray]:
        """Of each weight, shape of its places."""
        scale = self.objective.scale(self.terms)
        return [self._backend.to_numpy(total) * scale for total in self._totals]
