"""Derivatives of one batch, each made when it is first asked for."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from .gauss_newton import JacobianEngine, jacobian_engine
from .hessian import HessianEngine, hessian_engine
from .losses import Product
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

    @cached_property
    def _hessian(self) -> HessianEngine:
        return hessian_engine(self._functions, self._point, self._batch, self._num_products)

    @cached_property
    def _jacobian(self) -> JacobianEngine:
        return jacobian_engine(self._functions, self._point, self._batch, self._num_products)

    @cached_property
    def _output_loss(self) -> tuple[Product, float]:
        outputs = self._jacobian.outputs
        _, num_terms = self._functions.checked_loss(outputs, self._batch)
        return self._functions.loss.hessian_product(outputs, self._batch), num_terms

    @property
    def num_terms(self) -> float:
        """Terms in the batch's loss, without another pass where one was made already."""
        if "_hessian" in self.__dict__:
            return self._hessian.num_terms
        if "_jacobian" in self.__dict__:
            return self._output_loss[1]
        return self._functions.loss_sum(self._point, self._batch)[1]

    @property
    def engine(self) -> str:
        """The engines that were used so far."""
        used = [self._hessian.sentence] if "_hessian" in self.__dict__ else []
        return "; ".join([*used, *([self._jacobian.sentence] if "_jacobian" in self.__dict__ else [])])

    @property
    def outputs(self) -> torch.Tensor:
        """The model's outputs."""
        return self._jacobian.outputs

    def hvp(self, v: Tensors) -> Tensors:
        """Hessian of the summed loss times `v`."""
        product = self._hessian.product(v)
        if self._num_products == 1:
            del self.__dict__["_hessian"]  # its graph is spent
        return product

    def jvp(self, v: Tensors) -> torch.Tensor:
        """Jacobian of the outputs times `v`."""
        return self._jacobian.jvp(v)

    def vjp(self, u: torch.Tensor) -> Tensors:
        """Transposed Jacobian of the outputs times `u`."""
        return self._jacobian.vjp(u)

    def loss_hessian(self, u: torch.Tensor) -> torch.Tensor:
        """Hessian of the summed loss in the outputs, times `u`."""
        return self._output_loss[0](u)

    def loss_gradient(self) -> torch.Tensor:
        """Gradient of the summed loss in the outputs."""
        return self._functions.loss.gradient(self.outputs, self._batch)
