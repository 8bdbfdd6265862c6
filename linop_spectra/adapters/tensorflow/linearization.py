"""Derivatives of one batch, by graphs that go through the model anew in each product."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .functions import TensorFlowFunctions, TensorFlowPoint

_HESSIAN = "Hessian products run backward twice through the model in one graph, anew in each product"
_RESIDUAL = "residual products run backward twice through the outputs with constant weights in one graph, anew in each product"
_FORWARD = "Jacobian products run forward with tangents{reason}, transposed ones backward, each in its own graph, anew in each product"
_GAUSS_NEWTON = "Gauss-Newton products run forward with tangents{reason} and then backward in one graph, anew in each product"
_NO_FORWARD = " (by way of the transposed product, because forward mode is not safe for the model: {failure})"
_REGULARIZED = "; the regularisers of the layers belong to the Hessian, not to this matrix"


class TensorFlowLinearization:
    """One batch's `linop_spectra.curvature.Linearization`.

    In graphs TensorFlow drops what a product does not need, so that one pass for all of it costs less than applying a retained tape
    to the intermediate results of another pass; what is kept are the batch, its outputs and its number of terms.

    Parameters
    ----------
    functions : TensorFlowFunctions
        Model and loss.
    point : TensorFlowPoint
        Where to differentiate.
    batch : object
        A prepared batch.
    """

    def __init__(self, functions: TensorFlowFunctions, point: TensorFlowPoint, batch: Any) -> None:
        self._functions, self._point, self._batch = functions, point, batch
        self._sentences: dict[str, None] = {}
        self._terms: float | None = None

    @cached_property
    def outputs(self) -> Any:
        """The model's outputs."""
        outputs = self._functions.outputs_at(self._point, self._batch)
        self._terms = self._functions.checked_loss(self._point, outputs, self._batch)[1]
        return outputs

    @property
    def num_terms(self) -> float:
        """Terms in the batch's loss; after a product, without another pass."""
        if self._terms is None:
            if self._functions.loss.split:
                _ = self.outputs
            else:
                self._terms = self._functions.loss_sum(self._point, self._batch)[1]
        assert self._terms is not None
        return self._terms

    @property
    def engine(self) -> str:
        """The engines that were used so far."""
        return "; ".join(self._sentences)

    def hvp(self, v: Any) -> Any:
        """Hessian of the summed loss times `v`."""
        self._sentences[_HESSIAN] = None
        product, terms = self._functions.hessian_product(self._point, self._batch, v, look=self._terms is None)
        self._terms = terms
        return product

    def residual(self, v: Any) -> Any:
        """Hessian minus Gauss-Newton matrix of the summed loss, times `v`: that of the outputs with constant weights."""
        self._sentences[_RESIDUAL] = None
        product, self._terms = self._functions.residual_product(self._point, self._batch, v, look=self._terms is None)
        return product

    def jvp(self, v: Any) -> Any:
        """Jacobian of the outputs times `v`."""
        slope, outputs = self._functions.compiled("forward", self._point.flat, self._point.rest, self._batch, v)
        self._say(_FORWARD)
        if "outputs" not in self.__dict__:
            self._terms = self._functions.checked_loss(self._point, outputs, self._batch)[1]
            self.__dict__["outputs"] = outputs
        return slope

    def gauss_newton_product(self, v: Any) -> Any:
        """``J^T H J v`` in one pass, with the Hessian `H` of the summed loss in the outputs."""
        product, self._terms = self._functions.gauss_newton_product(self._point, self._batch, v, look=self._terms is None)
        self._say(_GAUSS_NEWTON)
        return product

    def _say(self, sentence: str) -> None:
        failure = self._functions.compiled.forward_failure
        reason = _NO_FORWARD.format(failure=failure) if failure else ""
        self._sentences[sentence.format(reason=reason) + (_REGULARIZED if self._functions.regularized else "")] = None

    def vjp(self, u: Any) -> Any:
        """Transposed Jacobian of the outputs times `u`."""
        return self._functions.compiled("transposed", self._point.flat, self._point.rest, self._batch, u)

    def loss_hessian(self, u: Any) -> Any:
        """Hessian of the summed loss in the outputs, times `u`."""
        return self._functions.compiled("output hessian", self._point.flat, self._point.rest, self._batch, self.outputs, u)

    def loss_gradient(self) -> Any:
        """Gradient of the summed loss in the outputs."""
        return self._functions.output_gradient(self.outputs, self._batch)
