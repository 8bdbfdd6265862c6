"""Derivatives of one batch, each made when it is first asked for.

Hessian products are forward over reverse: reverse over reverse costs several times as much through convolutions, and reverse
over forward does not exist for functions with a derivative of their own. Kept, the gradient is linearised once and its linear part
applied; not kept, one pass gives gradient and product. Gauss-Newton products apply the linearised outputs and its transpose; where
the model contains a ``jax.custom_vjp`` function, which has no forward mode, the transposed product is differentiated in its
argument instead, in which it is linear.
"""

from __future__ import annotations

import abc
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .batch_structure import take_apart
from .programs import Totals, apply_pull, pull_back, push_forward, transpose_pull
from .vectors import Leaves

if TYPE_CHECKING:
    from .functions import JaxFunctions, JaxPoint


_LINEARIZED = "Gauss-Newton products apply the outputs linearised {} by jax.linearize, and their transpose"
_RESIDUAL = "residual products apply the outputs' weighted gradient linearised by jax.linearize, {}"
_DOUBLE_REVERSE = (
    "Gauss-Newton products differentiate the transposed product in its argument, because the model contains a custom_vjp function, which "
    "has no forward mode"
)


class JacobianEngine(abc.ABC):
    """Products with the Jacobian of the outputs, both ways."""

    outputs: Any
    totals: Totals

    @abc.abstractmethod
    def jvp(self, v: Leaves) -> Any:
        """Jacobian times `v`."""

    @abc.abstractmethod
    def vjp(self, u: Any) -> Leaves:
        """Transposed Jacobian times `u`."""


class Linearized(JacobianEngine):
    """Both products by the outputs linearised once."""

    def __init__(self, functions: JaxFunctions, arguments: tuple[Any, ...]) -> None:
        self._leaves = arguments[1]
        self.outputs, slim, self.totals = functions.programs.linearized_outputs(*arguments)
        self._push = slim.restored(arguments[1:])

    def jvp(self, v: Leaves) -> Any:
        """Jacobian times `v`."""
        return push_forward(self._push, v)

    def vjp(self, u: Any) -> Leaves:
        """Transposed Jacobian times `u`."""
        return pull_back(self._push, self._leaves, u)


class DoubleReverse(JacobianEngine):
    """``J v`` as the derivative of ``J^T u`` in `u`, along `v`."""

    def __init__(self, functions: JaxFunctions, arguments: tuple[Any, ...]) -> None:
        self.outputs, slim, self.totals = functions.programs.pulled_outputs(*arguments)
        self._pull = slim.restored(arguments[1:])

    def jvp(self, v: Leaves) -> Any:
        """Jacobian times `v`."""
        return transpose_pull(self._pull, self.outputs, v)

    def vjp(self, u: Any) -> Leaves:
        """Transposed Jacobian times `u`."""
        return apply_pull(self._pull, u)


class JaxLinearization:
    """One batch's `linop_spectra.curvature.Linearization`.

    Parameters
    ----------
    functions : JaxFunctions
        Model and loss.
    point : JaxPoint
        Where to differentiate.
    batch : object
        A prepared batch.
    num_products : int or None
        Products that will be asked for; None for a linearization that is kept.
    """

    def __init__(self, functions: JaxFunctions, point: JaxPoint, batch: Any, num_products: int | None) -> None:
        self._functions, self._point, self._batch, self._num_products = functions, point, batch, num_products
        self._sentences: dict[str, None] = {}
        self._terms: float | None = None

    @cached_property
    def _arguments(self) -> tuple[Any, ...]:
        arguments = self._functions.arguments(self._point, self._batch)
        self._functions.inspect(arguments)
        return arguments

    def _accept(self, totals: Totals) -> None:
        if self._terms is None:
            self._terms = self._functions.accepted(totals, self._batch)[1]

    @cached_property
    def _linear_gradient(self) -> Any:
        slim, totals = self._functions.programs.linearized_gradient(*self._arguments)
        self._accept(totals)
        self._sentences[
            "Hessian products apply the gradient linearised by jax.linearize"
            + (", once for all of them" if self._num_products is None else ", anew for each block of vectors")
        ] = None
        return slim.restored(self._arguments[1:])

    @cached_property
    def _linear_residual(self) -> Any:
        self._sentences[_RESIDUAL.format("once for all of them" if self._num_products is None else "anew for each block of vectors")] = None
        slim = self._functions.programs.linearized_residual(*self._arguments, self._output_gradient)
        return slim.restored(self._arguments[1:])

    @cached_property
    def _output_gradient(self) -> Any:
        return self._functions.output_gradient(self.outputs, self._batch)

    @cached_property
    def _jacobian(self) -> JacobianEngine:
        engine: JacobianEngine
        if self._functions.forward_mode_failure:
            engine = DoubleReverse(self._functions, self._arguments)
            sentence = _DOUBLE_REVERSE
        else:
            engine = Linearized(self._functions, self._arguments)
            sentence = _LINEARIZED.format("once" if self._num_products is None else "anew in each product")
        self._accept(engine.totals)
        self._sentences[sentence] = None
        return engine

    @cached_property
    def _outputs_alone(self) -> Any:
        outputs, totals = self._functions.programs.checked_outputs(*self._arguments)
        self._accept(totals)
        return outputs

    @property
    def num_terms(self) -> float:
        """Terms in the batch's loss; after a product, without another pass."""
        if self._terms is None:
            self._terms = self._functions.loss_sum(self._point, self._batch)[1]
        return self._terms

    @property
    def engine(self) -> str:
        """The engines that were used so far."""
        return "; ".join(self._sentences)

    @property
    def outputs(self) -> Any:
        """The model's outputs."""
        return self._jacobian.outputs if "_jacobian" in self.__dict__ else self._outputs_alone

    def hvp(self, v: Leaves) -> Leaves:
        """Hessian of the summed loss times `v`."""
        if self._num_products == 1:
            product, totals = self._functions.programs.hessian_product(*self._arguments, v)
            self._accept(totals)
            self._sentences["Hessian products are jax.jvp of the gradient, both computed anew in each product"] = None
            return tuple(product)
        return tuple(push_forward(self._linear_gradient, v))

    def jvp(self, v: Leaves) -> Any:
        """Jacobian of the outputs times `v`."""
        engine = self._jacobian
        try:
            return engine.jvp(v)
        except TypeError as error:
            if isinstance(engine, DoubleReverse) or "custom_vjp" not in str(error):
                raise
        # Found out once, by the first product of all.
        self._functions.forward_mode_failure = "custom_vjp"
        del self.__dict__["_jacobian"]
        self._sentences = {sentence: None for sentence in self._sentences if "outputs linearised" not in sentence}
        return self._jacobian.jvp(v)

    def vjp(self, u: Any) -> Leaves:
        """Transposed Jacobian of the outputs times `u`."""
        return self._jacobian.vjp(u)

    def loss_hessian(self, u: Any) -> Any:
        """Hessian of the summed loss in the outputs, times `u`."""
        structure, arrays = take_apart(self._batch)
        return self._functions.programs.output_hessian(structure, self.outputs, arrays, u)

    def loss_gradient(self) -> Any:
        """Gradient of the summed loss in the outputs."""
        return self._output_gradient

    def residual(self, v: Leaves) -> Leaves:
        """Hessian minus Gauss-Newton matrix of the summed loss, times `v`: that of the outputs with constant weights."""
        if self._num_products == 1:
            self._sentences["residual products are jax.jvp of the outputs' weighted gradient, both computed anew in each product"] = None
            return tuple(self._functions.programs.residual_product(*self._arguments, self._output_gradient, v))
        return tuple(push_forward(self._linear_residual, v))
