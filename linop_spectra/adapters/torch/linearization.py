"""Derivatives of one batch, each made when it is first asked for."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .batches import leaves
from .gauss_newton import JacobianEngine, jacobian_engine
from .graph_size import graph_bytes
from .hessian import HessianEngine, hessian_engine
from .losses import Product
from .residual import ResidualEngine
from .vectors import Only, Tensors

if TYPE_CHECKING:
    from .functions import TorchFunctions, TorchPoint


class TorchLinearization:
    """One batch's `linop_spectra.curvature.Linearization`.

    Parameters
    ----------
    functions : TorchFunctions
        Model and loss.
    point : TorchPoint
        Where to differentiate.
    batch : object
        A prepared batch.
    num_products : int or None
        Products that will be asked for; None for a linearization that is kept.
    """

    def __init__(self, functions: TorchFunctions, point: TorchPoint, batch: Any, num_products: int | None) -> None:
        self._functions, self._point, self._batch, self._num_products = functions, point, batch, num_products
        self._sentences: dict[str, None] = {}
        self._terms: float | None = None

    @cached_property
    def _hessian(self) -> HessianEngine:
        engine = hessian_engine(self._functions, self._point, self._batch, self._num_products)
        self._sentences[engine.sentence] = None
        self._terms = engine.num_terms
        return engine

    @cached_property
    def _residual(self) -> ResidualEngine:
        engine = ResidualEngine(self._functions, self._point, self._batch, self._num_products)
        self._sentences[engine.sentence] = None
        self._terms = engine.num_terms
        return engine

    @cached_property
    def _jacobian(self) -> JacobianEngine:
        engine = jacobian_engine(self._functions, self._point, self._batch, self._num_products)
        self._sentences[engine.sentence] = None
        return engine

    @cached_property
    def _output_hessian(self) -> Product:
        return self._functions.loss.hessian_product(self._checked_outputs(), self._batch)

    @cached_property
    def _output_gradient(self) -> Tensor:
        return self._functions.loss.gradient(self._checked_outputs(), self._batch)

    def _checked_outputs(self) -> Tensor:
        outputs = self._jacobian.outputs
        if self._terms is None:
            self._terms = self._functions.checked_loss(outputs, self._batch)[1]
        return outputs

    @property
    def num_terms(self) -> float:
        """Terms in the batch's loss; after a product, without another pass."""
        if self._terms is None and "_jacobian" in self.__dict__:
            self._checked_outputs()
        if self._terms is None:
            self._terms = self._functions.loss_sum(self._point, self._batch)[1]
        return self._terms

    def num_bytes(self) -> int | None:
        """Memory of the graphs that were made so far; None where there is none yet."""
        made = [self.__dict__[name] for name in ("_hessian", "_residual", "_jacobian") if name in self.__dict__]
        if not made:
            return None
        held_anyway = (*self._point.leaves, *self._point.rest.values(), *leaves(self._batch))
        size = graph_bytes([end for engine in made for end in engine.ends], held_anyway)
        # One that has served transposed products only will hold the graph of the others as well.
        one_sided = "_jacobian" in self.__dict__ and len(self._jacobian.ends) == 1
        return 2 * size if one_sided else size

    @property
    def engine(self) -> str:
        """The engines that were used so far."""
        return "; ".join(self._sentences)

    @property
    def outputs(self) -> Tensor:
        """The model's outputs."""
        return self._jacobian.outputs

    def restricted(self, indices: tuple[int, ...]) -> RestrictedLinearization:
        """The same for vectors that are zero outside of some parameters."""
        return RestrictedLinearization(self, indices)

    def hvp(self, v: Tensors, only: Only = None) -> Tensors:
        """Hessian of the summed loss times `v`."""
        product = self._hessian.product(v, only)
        if self._num_products == 1:
            del self.__dict__["_hessian"]  # its graph is spent
        return product

    def residual(self, v: Tensors, only: Only = None) -> Tensors:
        """Hessian minus Gauss-Newton matrix of the summed loss, times `v`."""
        product = self._residual.product(v, only)
        if self._num_products == 1:
            del self.__dict__["_residual"]  # its graph is spent
        return product

    def jvp(self, v: Tensors, only: Only = None) -> Tensor:
        """Jacobian of the outputs times `v`."""
        return self._jacobian.jvp(v, only)

    def vjp(self, u: Tensor, only: Only = None) -> Tensors:
        """Transposed Jacobian of the outputs times `u`."""
        return self._jacobian.vjp(u, only)

    def loss_hessian(self, u: Tensor) -> Tensor:
        """Hessian of the summed loss in the outputs, times `u`."""
        return self._output_hessian(u)

    def loss_gradient(self) -> Tensor:
        """Gradient of the summed loss in the outputs."""
        return self._output_gradient


class RestrictedLinearization:
    """A linearization for vectors that are zero outside of some parameters; rows of the others come out as zeros.

    Where those parameters belong to the last layers, products need not run through the others.

    Parameters
    ----------
    whole : TorchLinearization
        Shared with other products.
    only : tuple of int
        The parameters.
    """

    def __init__(self, whole: TorchLinearization, only: tuple[int, ...]) -> None:
        self._whole, self._only = whole, only

    @property
    def num_terms(self) -> float:
        """Terms in the batch's loss."""
        return self._whole.num_terms

    @property
    def engine(self) -> str:
        """The engines that were used so far."""
        return self._whole.engine

    @property
    def outputs(self) -> Tensor:
        """The model's outputs."""
        return self._whole.outputs

    def hvp(self, v: Tensors) -> Tensors:
        """Hessian of the summed loss times `v`."""
        return self._whole.hvp(v, self._only)

    def residual(self, v: Tensors) -> Tensors:
        """Hessian minus Gauss-Newton matrix of the summed loss, times `v`."""
        return self._whole.residual(v, self._only)

    def jvp(self, v: Tensors) -> Tensor:
        """Jacobian of the outputs times `v`."""
        return self._whole.jvp(v, self._only)

    def vjp(self, u: Tensor) -> Tensors:
        """Transposed Jacobian of the outputs times `u`."""
        return self._whole.vjp(u, self._only)

    def loss_hessian(self, u: Tensor) -> Tensor:
        """Hessian of the summed loss in the outputs, times `u`."""
        return self._whole.loss_hessian(u)

    def loss_gradient(self) -> Tensor:
        """Gradient of the summed loss in the outputs."""
        return self._whole.loss_gradient()
