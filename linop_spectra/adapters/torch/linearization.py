"""Derivatives of one batch, each made when it is first asked for."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .gauss_newton import JacobianEngine, jacobian_engine
from .hessian import HessianEngine, hessian_engine
from .losses import Product
from .residual import ResidualEngine
from .vectors import Tensors

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

    @property
    def engine(self) -> str:
        """The engines that were used so far."""
        return "; ".join(self._sentences)

    @property
    def outputs(self) -> Tensor:
        """The model's outputs."""
        return self._jacobian.outputs

    def hvp(self, v: Tensors) -> Tensors:
        """Hessian of the summed loss times `v`."""
        product = self._hessian.product(v)
        if self._num_products == 1:
            del self.__dict__["_hessian"]  # its graph is spent
        return product

    def residual(self, v: Tensors) -> Tensors:
        """Hessian minus Gauss-Newton matrix of the summed loss, times `v`."""
        product = self._residual.product(v)
        if self._num_products == 1:
            del self.__dict__["_residual"]  # its graph is spent
        return product

    def jvp(self, v: Tensors) -> Tensor:
        """Jacobian of the outputs times `v`."""
        return self._jacobian.jvp(v)

    def vjp(self, u: Tensor) -> Tensors:
        """Transposed Jacobian of the outputs times `u`."""
        return self._jacobian.vjp(u)

    def loss_hessian(self, u: Tensor) -> Tensor:
        """Hessian of the summed loss in the outputs, times `u`."""
        return self._output_hessian(u)

    def loss_gradient(self) -> Tensor:
        """Gradient of the summed loss in the outputs."""
        return self._output_gradient
