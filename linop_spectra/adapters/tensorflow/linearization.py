"""Derivatives of one batch, by graphs that share what all products have in common, or go through the model anew in each."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .functions import Product, TensorFlowFunctions, TensorFlowPoint

_SENTENCES = {
    "hessian": "Hessian products run backward twice through the model in one graph",
    "residual": "residual products run backward twice through the outputs with constant weights in one graph",
    "gauss-newton": "Gauss-Newton products run forward with tangents{reason} and then backward in one graph",
}
_FORWARD = "Jacobian products run forward with tangents{reason}, transposed ones backward, each in its own graph, anew in each product"
_ANEW = ", anew in each product"
_SHARED = ", whose part that no vector reaches is computed {}"
_UNCUT = ", anew in each product, because a part that all of them share cannot be cut off, or in too many pieces"
_NO_FORWARD = " (by way of the transposed product, because forward mode is not safe for the model: {failure})"
_REGULARIZED = "; the regularisers of the layers belong to the Hessian, not to this matrix"


class TensorFlowLinearization:
    """One batch's `linop_spectra.curvature.Linearization`.

    A single product is one pass of a graph that does all. For more, the graph is cut: what does not depend on the vector is computed
    once and kept. In graphs TensorFlow drops what a product does not need, and fuses, which a retained tape would not.

    Parameters
    ----------
    functions : TensorFlowFunctions
        Model and loss.
    point : TensorFlowPoint
        Where to differentiate.
    batch : object
        A prepared batch.
    num_products : int or None
        Products that will be asked for; None for a linearization that is kept.
    """

    def __init__(self, functions: TensorFlowFunctions, point: TensorFlowPoint, batch: Any, num_products: int | None) -> None:
        self._functions, self._point, self._batch, self._num_products = functions, point, batch, num_products
        self._products: dict[str, Product | None] = {}
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
        return self._product("hessian", v)

    def residual(self, v: Any) -> Any:
        """Hessian minus Gauss-Newton matrix of the summed loss, times `v`: that of the outputs with constant weights."""
        return self._product("residual", v)

    def gauss_newton_product(self, v: Any) -> Any:
        """``J^T H J v`` with the Hessian `H` of the summed loss in the outputs."""
        return self._product("gauss-newton", v)

    def _product(self, kind: str, v: Any) -> Any:
        functions, point, batch = self._functions, self._point, self._batch
        if self._num_products == 1:
            product, self._terms = functions.product(kind, point, batch, v, look=self._terms is None)
            self._say(_SENTENCES[kind] + _ANEW, kind)
            return product
        if kind not in self._products:
            made = functions.linearized(kind, point, batch, v, look=self._terms is None)
            self._products[kind] = None if made is None else made[0]
            if made is not None:
                self._terms = made[1]
            often = "once for all of them" if self._num_products is None else "anew for each block of vectors"
            self._say(_SENTENCES[kind] + (_UNCUT if made is None else _SHARED.format(often)), kind)
        apply = self._products[kind]
        if apply is not None:
            return apply(v)
        product, self._terms = functions.product(kind, point, batch, v, look=self._terms is None)
        return product

    def jvp(self, v: Any) -> Any:
        """Jacobian of the outputs times `v`."""
        slope, outputs = self._functions.compiled("forward", self._point.flat, self._point.rest, self._batch, v)
        self._say(_FORWARD, "forward")
        if "outputs" not in self.__dict__:
            self._terms = self._functions.checked_loss(self._point, outputs, self._batch)[1]
            self.__dict__["outputs"] = outputs
        return slope

    def _say(self, sentence: str, kind: str) -> None:
        failure = self._functions.compiled.forward_failure
        reason = _NO_FORWARD.format(failure=failure) if failure else ""
        extra = _REGULARIZED if self._functions.regularized and kind in ("gauss-newton", "forward") else ""
        self._sentences[sentence.replace("{reason}", reason) + extra] = None

    def vjp(self, u: Any) -> Any:
        """Transposed Jacobian of the outputs times `u`."""
        return self._functions.compiled("transposed", self._point.flat, self._point.rest, self._batch, u)

    def loss_hessian(self, u: Any) -> Any:
        """Hessian of the summed loss in the outputs, times `u`."""
        return self._functions.compiled("output hessian", self._point.flat, self._point.rest, self._batch, self.outputs, u)

    def loss_gradient(self) -> Any:
        """Gradient of the summed loss in the outputs."""
        return self._functions.output_gradient(self.outputs, self._batch)
