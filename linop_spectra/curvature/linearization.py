"""What an adapter gives: the derivatives of one batch, and vectors that cross between the core and the framework.

Everything else about curvature is written once, in terms of these protocols. `Native` stands for the framework's own form of
a parameter vector (a tuple of tensors, a pytree); `Outputs` for an array of the shape of the model's outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from ..backends import Array, Backend
from .data import Batches

Native = Any
Outputs = Any
Batch = Any
Point = Any
"""Parameters at which derivatives are taken, with whatever else of the model's state belongs to them."""

Noise = Literal["uniform", "normal"]
Each = Literal["example", "term"]


class Linearization(Protocol):
    """The first and second derivatives of one batch's summed loss at fixed parameters.

    Nothing is computed before it is asked for. One that was made to be kept holds what its products share; another one
    computes a product in a single pass and forgets.
    """

    @property
    def num_terms(self) -> float:
        """How many terms the batch's loss sums."""

    @property
    def engine(self) -> str:
        """How products are computed, and why so."""

    @property
    def outputs(self) -> Outputs:
        """The model's outputs."""

    def hvp(self, v: Native) -> Native:
        """Hessian of the summed loss times a parameter vector."""

    def jvp(self, v: Native) -> Outputs:
        """Jacobian of the outputs times a parameter vector."""

    def vjp(self, u: Outputs) -> Native:
        """Transposed Jacobian of the outputs times an array of the outputs' shape."""

    def loss_hessian(self, u: Outputs) -> Outputs:
        """Hessian of the summed loss with respect to the outputs, times `u`."""

    def loss_gradient(self) -> Outputs:
        """Gradient of the summed loss with respect to the outputs."""


@runtime_checkable
class SupportsResidual(Protocol):
    """What a linearization may have besides: the residual as such, instead of the difference of two products."""

    def residual(self, v: Native) -> Native:
        """Hessian of ``<c, outputs>`` with the constant weights ``c = loss_gradient()``, times a parameter vector."""


@runtime_checkable
class SupportsGaussNewton(Protocol):
    """What a linearization may have besides: a Gauss-Newton product in one piece."""

    def gauss_newton_product(self, v: Native) -> Native:
        """``J^T H J v`` with the Hessian `H` of the summed loss in the outputs."""


@runtime_checkable
class SupportsRestriction(Protocol):
    """What a linearization may have besides: products with vectors that are zero outside of some parameters, at less cost."""

    def restricted(self, indices: tuple[int, ...]) -> Linearization:
        """The same, where vectors are zero outside of these parameters, and rows of the others may be anything."""


@runtime_checkable
class SupportsSize(Protocol):
    """What a linearization may have besides: its size after a product, so that no estimate is needed before the first one."""

    def num_bytes(self) -> int | None:
        """Memory that is held for further products, beside parameters and batch; None before a product."""


class Accumulator(Protocol):
    """A sum of parameter vectors in the framework's form that ends in one vector of the core."""

    def add(self, v: Native) -> None:
        """Add a vector; `v` is left unchanged."""

    def finish(self, factor: float) -> None:
        """Write `factor` times the sum to the core's vector."""


class ModelFunctions(Protocol):
    """A model and its loss as functions of parameters and batch, compiled once and shared by all objectives made from it."""

    names: tuple[str, ...]
    blocks: Mapping[str, slice]
    num_parameters: int
    dtype: np.dtype
    unit_rounding: float
    """Of the narrowest type that the model computes in."""
    backend: Backend
    memory_budget: int
    averages: bool
    """Whether the objective is the sum of all terms divided by their number, or the sum itself."""
    gauss_newton_refusal: str | None
    """Why there is no Gauss-Newton matrix, as a sentence; None when there is one."""
    convex_loss: bool
    """Whether the loss is known to be convex in the outputs."""
    fisher_refusal: str | None
    """Why the loss is no negative logarithm of a likelihood that targets can be drawn from, as a sentence; None when it is."""
    example_refusal: str | None
    """Why a batch is no set of independent examples in the rows of its outputs, as a sentence; None when it is."""

    # -- parameters and vectors ----------------------------------------------------------------------------------------

    def point_from(self, source: Any, base: Point) -> Point:
        """Parameters from a vector, a mapping of names, or a file; the rest of the state comes from `base`."""

    def flat(self, point: Point) -> Array:
        """The parameters as a vector of the core, copied."""

    def flatten(self, tree: Any) -> Array:
        """Named arrays as a vector of the core, copied."""

    def unflatten(self, vector: Any) -> Any:
        """A vector of the core as named arrays of the framework, copied."""

    def to_native(self, vector: Array) -> Native:
        """A vector of the core in the framework's form, shared where that is possible."""

    def accumulator(self, out: Array) -> Accumulator:
        """A sum that ends in `out`."""

    # -- one batch -----------------------------------------------------------------------------------------------------

    def session(self) -> AbstractContextManager[Any]:
        """Settings of the framework under which derivatives are right; restored on the way out."""

    def loss_sum(self, point: Point, batch: Batch) -> tuple[float, float]:
        """Summed loss and number of terms."""

    def add_gradient(self, point: Point, batch: Batch, total: Accumulator) -> tuple[float, float]:
        """Add the gradient of the summed loss to `total`; summed loss and number of terms."""

    def linearize(self, point: Point, batch: Batch, *, num_products: int | None) -> Linearization:
        """Derivatives at `point`, for that many products, or to be kept (None)."""

    def retained_bytes(self, point: Point, batch: Batch) -> int:
        """Memory that a kept linearization of this batch holds, estimated before it is made."""

    def outputs_at(self, point: Point, batch: Batch) -> Outputs:
        """The model's outputs."""

    def output_gradient(self, outputs: Outputs, batch: Batch) -> Outputs:
        """Gradient of the summed loss with respect to the outputs, at these outputs."""

    # -- outputs as numbers of the host, and the loss as a likelihood --------------------------------------------------

    def flat_outputs(self, outputs: Outputs) -> np.ndarray:
        """An array of the outputs' shape on the host in C order, shape (num_outputs,), of the type `dtype`."""

    def outputs_from(self, flat: np.ndarray, like: Outputs) -> Outputs:
        """What `flat_outputs` gave, as an array of the framework of the shape, type and place of `like`."""

    def noise_of(self, outputs: Outputs, batch: Batch) -> tuple[Noise, tuple[int, ...]]:
        """Distribution and shape of the numbers that `sampled_gradient` takes."""

    def sampled_gradient(self, outputs: Outputs, batch: Batch, noise: np.ndarray) -> Outputs:
        """Gradient of the summed loss with respect to the outputs, for targets drawn from the model's own likelihood.

        The covariance of what comes back, over the noise, is the Hessian of the summed loss with respect to the outputs: terms
        that are masked get zero, weighted ones the root of their weight. Noise is the same in all frameworks: class ``c`` of
        a categorical distribution is the first whose cumulative probability exceeds the uniform number; a label of binary
        cross-entropy is one where the uniform number is below the sigmoid of its logit.
        """

    def rank_one(self, g: Outputs, u: Outputs, each: Each) -> Outputs:
        """``g <g, u>`` with an inner product over each example (all axes but the first), or over each term of the loss.

        Terms of cross-entropy are positions (the inner product runs over the classes), those of squared errors and of binary
        cross-entropy are elements, those of other losses are examples.
        """

    # -- data ----------------------------------------------------------------------------------------------------------

    def batches(self, data: Any) -> Batches:
        """User's data as batches."""

    def sequence(self, batches: Sequence[Batch]) -> Batches:
        """Batches that are prepared already."""

    def labels(self, batch: Batch) -> np.ndarray:
        """Class of each example."""

    def take(self, batch: Batch, indices: np.ndarray) -> Batch | None:
        """Some examples of a batch; None where the batch cannot be cut."""

    def in_double_precision(self, point: Point, batch: Batch) -> tuple[ModelFunctions, Point, Batch]:
        """Copies of everything in float64."""


@runtime_checkable
class SupportsLook(Protocol):
    """What model functions may have besides: a look at how the model rounds inside, before the first product."""

    def look(self, point: Point, batches: Batches) -> None:
        """Set `ModelFunctions.unit_rounding` by what a forward pass shows, where that is not known yet."""


@runtime_checkable
class SupportsVariables(Protocol):
    """What model functions may have besides: the loss of one batch as a function of something else than the parameters."""

    def of_inputs(self, point: Point, batch: Batch) -> tuple[ModelFunctions, Point]:
        """Functions of the batch's inputs, with their present values as the point."""

    def of_activation(self, point: Point, batch: Batch, layer: str) -> tuple[ModelFunctions, Point]:
        """Functions of what is added to the outputs of a layer, with zeros as the point."""
