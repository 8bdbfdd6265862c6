r"""Kronecker-factored approximate curvature (Martens and Grosse, 2015; Grosse and Martens, 2016, for convolutions).

With inputs :math:`a_{ns}` of a layer and gradients :math:`g_{nsc}` in its outputs, for example `n`, position `s` and column `c` (see
`weight_gradients`), the layer's block is :math:`\frac1T \sum_{nc} v_{nc} v_{nc}^\top` with
:math:`v_{nc} = \sum_s g_{nsc} \otimes a_{ns}`, for `T` terms of the loss. Taking inputs and gradients for independent leaves a Kronecker
product. Where a weight is used at `S` positions (Eschenhagen et al., 2023)

- expand: :math:`\frac1T \sum_{nsc} g g^\top \otimes \frac1{NS} \sum_{ns} a a^\top`, as though positions were examples;
- reduce: :math:`\frac1T \sum_{nc} \bar g \bar g^\top \otimes \frac1N \sum_n \bar a \bar a^\top` with the sum :math:`\bar g` and the mean
  :math:`\bar a` over positions.

Both are exact for a single example with one position and, in expectation, where inputs and gradients are independent, as in deep linear
networks with Gaussian inputs and squared errors (Bernacchia, Lengyel and Hennequin, 2018).
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any, Literal, get_args

import numpy as np

from .._memory import format_bytes
from .._progress import Progress, ProgressBar
from ..backends import Array, Backend
from ..curvature.examples import require_examples
from ..curvature.fisher import fisher_operator
from ..curvature.matrices import OutputCurvatureOperator
from ..curvature.objective import Objective
from ..curvature.out_of_memory import in_smaller_plans
from ..curvature.subspace import require_all_parameters
from ..curvature.weight_uses import SupportsWeightUses
from .kronecker_factors import DenseBlock, FactoredBlock, FactoredOperator, KroneckerApproximation, KroneckerBlock, ZeroBlock
from .weight_gradients import Arrangements, BatchGradients, Columns, FisherKind, walk
from .weight_layers import BiasLayer, Layer, Layers, find_layers

Sharing = Literal["expand", "reduce"]


def kfac(
    objective: Objective,
    *,
    fisher: FisherKind = "exact",
    num_samples: int = 1,
    seed: int = 0,
    sharing: Sharing = "expand",
    include_bias: bool = True,
    progress: Progress = None,
) -> KroneckerApproximation:
    r"""Kronecker-factored approximation of the Gauss-Newton or Fisher matrix, one block for each linear layer and convolution.

    Each block is :math:`G \otimes A` for a weight as a matrix of outputs by inputs, with second moments `A` of the layer's inputs (of the
    patches of a convolution) and `G` of the gradients in its outputs. Products, the damped inverse, eigenvalues, trace and determinant
    are in closed form. Biases that stand alone have exact blocks, and so have other parameters (such as scales of normalisation) of up to
    1,024 numbers, at one product for each number.

    Parameters
    ----------
    objective : Objective
        Model, loss, parameters and data. Batch normalisation by batch statistics is refused, because it couples the examples.
    fisher : {"exact", "mc", "empirical"}
        Whose gradients: ``"exact"`` is the Gauss-Newton matrix, at as many backward passes as an example has outputs; ``"mc"`` draws
        targets from the model, at `num_samples` passes; ``"empirical"`` takes the targets of the data, at one pass, which is no Fisher
        matrix of the model.
    num_samples, seed : int
        Of drawn targets, with ``"mc"``.
    sharing : {"expand", "reduce"}
        For weights that are used at several positions (convolutions, sequences, tied weights).
    include_bias : bool
        Whether a bias shares the block of its weight, as an input that is always one; otherwise it has an exact block of its own.
    progress : bool or callable, optional
        True shows a bar of examples.

    Returns
    -------
    KroneckerApproximation
        Of the order of all parameters. Weight decay adds its multiple of the identity, but for ``"empirical"``.

    Raises
    ------
    TypeError
        When the framework or the loss does not show what is needed.
    ValueError
        When an argument is wrong, or a parameter has no factors and is too large for an exact block.

    Notes
    -----
    Examples that count for nothing (all of their targets masked) have no part in the factors; the sum of all terms is divided by the
    number of terms in the whole data, whatever the batches. Moments are summed in double precision.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.approximations.kfac import kfac
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2)).double()
    >>> objective = ls.objective(model, "mse", (torch.randn(1, 4).double(), torch.zeros(1, 2).double()))
    >>> approximation = kfac(objective)
    >>> difference = approximation.block("0").to_dense() - objective.ggn().block("0").to_dense()
    >>> bool(abs(difference).max() < 1e-12)  # exact for a single example
    True
    """
    began = time.perf_counter()
    columns = checked_columns(objective, fisher, num_samples, seed, sharing)

    def compute() -> tuple[Moments, int]:
        moments = Moments(objective, sharing, include_bias=include_bias)
        passes = collect(objective, columns, moments, progress, "Kronecker factors")
        return moments, passes

    moments, passes = in_smaller_plans(compute, objective._pieces.retreat, objective._pieces.sentence)
    factors = [moments.kronecker(layer) for layer in moments.layers.weights]
    rest, products = exact_blocks(objective, moments, columns)
    return assembled(
        objective, [*factors, *rest], "kfac", columns, sharing, products=products, passes=passes, seconds=time.perf_counter() - began
    )


def checked_columns(objective: Objective, fisher: Any, num_samples: Any, seed: Any, sharing: Any) -> Columns:
    """The arguments, once they are found right.

    Raises
    ------
    TypeError, ValueError
        When they are not, or the objective does not show what is needed.
    """
    if not isinstance(objective, Objective):
        raise TypeError(f"The argument objective must be an Objective, but is a {type(objective).__name__}.")
    if fisher not in get_args(FisherKind):
        raise ValueError(f"The argument fisher is {fisher!r}, but must be 'exact', 'mc' or 'empirical'.")
    if sharing not in get_args(Sharing):
        raise ValueError(f"The argument sharing is {sharing!r}, but must be 'expand' or 'reduce'.")
    require_all_parameters(objective, "a Kronecker factor")
    if not isinstance(objective.functions, SupportsWeightUses):
        raise TypeError(
            f"The functions {type(objective.functions).__name__} do not show where a model uses its weights, which Kronecker factors are "
            "made of; pass an objective of a model and its parameters."
        )
    if objective.functions.gauss_newton_refusal is not None:
        raise TypeError(objective.functions.gauss_newton_refusal)
    require_examples(objective)
    if fisher == "exact":
        if num_samples != 1 or seed != 0:
            raise ValueError("The arguments num_samples and seed belong to fisher='mc'; leave them out for fisher='exact'.")
        return Columns("exact", 1, 0)
    fisher_operator(objective, fisher, num_samples, seed)
    return Columns(fisher, int(num_samples), int(seed))


def collect(
    objective: Objective, columns: Columns, moments: Any, progress: Progress, description: str, known: Arrangements | None = None
) -> int:
    """Run over the data once and hand each batch to ``moments``; the number of backward passes. For `known` see `walk`."""
    passes = 0
    with objective.functions.session(), ProgressBar(progress, objective.num_examples, description, unit="example") as bar:
        for gradients, linearization, own in walk(objective, columns, holds=moments.holds, known=known):
            passes += moments.add(gradients, own)
            moments.terms += linearization.num_terms
            bar.advance(gradients.count)
    return passes


@dataclasses.dataclass
class _Sums:
    """Of one layer: moments of what its rows and its columns meet, and how many vectors were counted; straight or transposed uses."""

    outputs: Array
    inputs: Array
    count: float = 0.0


class Moments:
    """Sums over batches that the factors are made of.

    Parameters
    ----------
    objective : Objective
        Model, loss, parameters and data.
    sharing : {"expand", "reduce"}
        What becomes of positions.
    include_bias : bool
        Whether biases share the blocks of their weights.
    """

    layers: Layers
    holds = False

    def __init__(self, objective: Objective, sharing: Sharing, *, include_bias: bool) -> None:
        self.objective, self.sharing, self._include_bias = objective, sharing, include_bias
        self.terms = 0.0
        self._backend: Backend = objective.functions.backend
        self._started = False
        self._weights: list[tuple[_Sums, _Sums | None]] = []
        self._biases: list[Array] = []

    def _start(self, gradients: BatchGradients) -> None:
        self.layers = find_layers(self.objective, gradients, include_bias=self._include_bias)
        numbers = sum(sum(length**2 for length in layer.places.shape) for layer in self.layers.weights)
        needed, budget = 8 * 3 * numbers, self.objective.functions.memory_budget
        if needed > budget:
            widest = max(self.layers.weights, key=lambda layer: max(layer.places.shape))
            raise ValueError(
                f"The Kronecker factors take about {format_bytes(needed)}, over the memory_budget of {format_bytes(budget)}; the largest "
                f"belong to {widest.names[0]!r}, a matrix of {widest.places.shape[0]:,} by {widest.places.shape[1]:,}. Leave it out with "
                "parameters=, or pass a larger memory_budget."
            )
        for layer in self.layers.weights:
            rows, columns = layer.places.shape
            straight = _Sums(self._zeros(rows), self._zeros(columns))
            turned = _Sums(self._zeros(columns), self._zeros(rows)) if layer.transposed else None
            self._weights.append((straight, turned))
        self._biases = [self._zeros(layer.places.size) for layer in self.layers.biases]
        self._started = True

    def _zeros(self, order: int) -> Array:
        made = self._backend.empty((order, order), np.float64)
        made[...] = 0.0
        return made

    def add(self, gradients: BatchGradients, columns: Any) -> int:
        """Add a batch; the number of its backward passes."""
        if not self._started:
            self._start(gradients)
        require_known(self.layers, gradients)
        places = uses_by_key(gradients)
        alive, passes = np.zeros(gradients.count, dtype=bool), 0
        for u in columns:
            passes += 1
            flat = self.objective.functions.flat_outputs(u).reshape(gradients.count, -1)
            if not np.isfinite(flat).all():
                raise ValueError("Gradients of the loss in the model's outputs are not finite; look for data or outputs that are not.")
            alive |= flat.any(axis=1)
            found = gradients.gradients(u)
            for layer, both in zip(self.layers.weights, self._weights, strict=True):
                for sums, keys in zip(both, (layer.keys, layer.transposed), strict=True):
                    if sums is not None:
                        self._add_outputs(gradients, found, [n for key in keys for n in places.get(key, ())], sums.outputs)
            for bias, total in zip(self.layers.biases, self._biases, strict=True):
                summed = summed_positions(gradients, found, [n for key in bias.keys for n in places.get(key, ())])
                if summed is not None:
                    total += summed.T @ summed
        for layer, both in zip(self.layers.weights, self._weights, strict=True):
            for sums, keys in zip(both, (layer.keys, layer.transposed), strict=True):
                if sums is not None:
                    self._add_inputs(gradients, [n for key in keys for n in places.get(key, ())], sums, alive, biased=layer.biased)
        return passes

    def _add_outputs(self, gradients: BatchGradients, found: list[Array], numbers: list[int], total: Array) -> None:
        if self.sharing == "reduce":
            summed = summed_positions(gradients, found, numbers)
            if summed is not None:
                total += summed.T @ summed
            return
        for number in numbers:
            g = gradients.positions(number, found[number])
            rows = self._backend.reshape(g, (-1, g.shape[-1]))
            total += rows.T @ rows

    def _add_inputs(self, gradients: BatchGradients, numbers: list[int], sums: _Sums, alive: np.ndarray, *, biased: bool) -> None:
        if not numbers:
            return
        positions = {number: int(np.prod(gradients.recorded.leading(number))) // gradients.count for number in numbers}
        pieces = list(gradients.pieces(max(numbers, key=lambda n: positions[n]))) if self.sharing == "reduce" else []
        if self.sharing == "reduce":
            for first, last in pieces:
                mean: Any = None
                for number in numbers:
                    part = gradients.inputs(number, first, last, biased=biased).sum(1) / sum(positions.values())
                    mean = part if mean is None else mean + part
                self._count(mean, alive[first:last], sums)
            return
        for number in numbers:
            for first, last in gradients.pieces(number):
                a = gradients.inputs(number, first, last, biased=biased)
                kept = np.repeat(alive[first:last], positions[number])
                self._count(self._backend.reshape(a, (-1, a.shape[-1])), kept, sums)

    def _count(self, rows: Array, kept: np.ndarray, sums: _Sums) -> None:
        if not kept.all():
            rows = rows * self._backend.asarray(kept.astype(np.float64))[:, None]
        sums.inputs += rows.T @ rows
        sums.count += float(kept.sum())

    def kronecker(self, layer: Layer) -> KroneckerBlock:
        """The factors of a layer."""
        straight, turned = self._weights[self.layers.weights.index(layer)]
        scale = self.objective.scale(self.terms)
        pairs = [(straight.outputs * scale, straight.inputs / max(straight.count, 1.0))]
        if turned is not None:
            pairs.append((turned.inputs / max(turned.count, 1.0), turned.outputs * scale))
        rows, columns = nearest_kronecker(pairs) if len(pairs) > 1 else pairs[0]
        return KroneckerBlock(layer.names, layer.places, rows, columns, self._backend, self.objective.dtype)

    def bias_block(self, layer: BiasLayer) -> DenseBlock:
        """The exact block of a bias that stands alone."""
        matrix = self._biases[self.layers.biases.index(layer)] * self.objective.scale(self.terms)
        return DenseBlock((layer.name,), layer.places, matrix, self._backend, self.objective.dtype)


def require_known(layers: Layers, gradients: BatchGradients) -> None:
    """Raise when a batch shows uses that the first one did not.

    Raises
    ------
    ValueError
        With the parameters.
    """
    small = {*layers.small}
    for number, use in enumerate(gradients.recorded.uses):
        names = {name for name in (use.weight, use.bias) if name is not None}
        if (use.key not in layers.keys or number in gradients.lost) and not names <= small:
            raise ValueError(
                f"The model uses {', '.join(map(repr, sorted(names - small)))} in another way in a later batch than in the first; "
                "Kronecker factors need a model that does the same with every batch."
            )


def uses_by_key(gradients: BatchGradients) -> dict[Any, list[int]]:
    """Numbers of the uses by their keys."""
    found: dict[Any, list[int]] = {}
    for number, use in enumerate(gradients.recorded.uses):
        found.setdefault(use.key, []).append(number)
    return found


def summed_positions(gradients: BatchGradients, found: list[Array], numbers: list[int]) -> Array | None:
    """Gradients of each example in what several uses give, summed over positions; None where there are none."""
    total: Any = None
    for number in numbers:
        part = gradients.positions(number, found[number]).sum(1)
        total = part if total is None else total + part
    return total


def nearest_kronecker(pairs: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    r"""The Kronecker product nearest to a sum of several in the Frobenius norm (Van Loan and Pitsianis, 1993).

    Rearranged, the sum is a matrix of rank at most the number of pairs, so that its first singular vectors follow from the inner products
    among the factors. For positive semidefinite factors both results are so.
    """
    left = np.array([[float((a * b).sum()) for b, _ in pairs] for a, _ in pairs])
    right = np.array([[float((a * b).sum()) for _, b in pairs] for _, a in pairs])
    values, vectors = np.linalg.eig(left @ right)
    x = abs(np.real(vectors[:, int(np.argmax(np.real(values)))]))
    norm = float(x @ right @ x)
    if not norm > 0:
        return pairs[0]
    y = right @ x / norm
    columns = sum((pairs[i][1] * float(x[i]) for i in range(1, len(pairs))), pairs[0][1] * float(x[0]))
    weights = y
    rows = sum((pairs[i][0] * float(weights[i]) for i in range(1, len(pairs))), pairs[0][0] * float(weights[0]))
    return rows, columns


def exact_blocks(objective: Objective, moments: Moments, columns: Columns) -> tuple[list[FactoredBlock], int]:
    """Blocks of the parameters without factors, and the products that they took."""
    layers, backend, dtype = moments.layers, objective.functions.backend, objective.dtype
    found: list[FactoredBlock] = [moments.bias_block(layer) for layer in layers.biases]
    products = 0
    if layers.small:
        # The Gauss-Newton matrix needs no likelihood.
        matrix: OutputCurvatureOperator = (
            objective.ggn()
            if columns.kind == "exact"
            else fisher_operator(objective, columns.kind, num_samples=columns.num_samples, seed=columns.seed)
        )
        for name in layers.small:
            dense = np.array(backend.to_numpy(matrix.block(name).to_dense()), dtype=np.float64)
            products += len(dense)
            dense = (dense + dense.T) / 2 - matrix.identity_multiple * np.eye(len(dense))
            place = objective.blocks[name]
            found.append(DenseBlock((name,), np.arange(place.start, place.stop), dense, backend, dtype))
    for name in layers.unused:
        place = objective.blocks[name]
        found.append(ZeroBlock((name,), np.arange(place.start, place.stop), backend, dtype))
    return found, products


def assembled(
    objective: Objective, blocks: list[FactoredBlock], kind: str, columns: Columns, sharing: str, *, products: int, passes: int,
    seconds: float,
) -> KroneckerApproximation:  # fmt: skip
    """The approximation, with its blocks in the order of the parameters."""
    identity = 0.0 if columns.kind == "empirical" else objective.weight_decay
    blocks = sorted(blocks, key=lambda block: int(block.places.min()))
    inner = FactoredOperator(blocks, objective.blocks, identity, objective.dtype, objective.functions.backend)
    words = {
        "exact": "Gauss-Newton matrix",
        "mc": f"Monte-Carlo Fisher matrix of {columns.num_samples} samples",
        "empirical": "empirical Fisher matrix",
    }
    method = f"{words[columns.kind]}, {sharing}, {passes:,} backward passes"
    return KroneckerApproximation(inner, kind, method=method, source_matvecs=products, num_backward=passes, seconds=seconds)
