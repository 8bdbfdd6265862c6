r"""Curvature matrices, defined once for every framework as sums over batches of an adapter's derivatives.

With the summed loss :math:`\ell_b` of batch `b` and the number of terms :math:`t_b`, the objective is
:math:`L = \sum_b \ell_b / \sum_b t_b + \frac{\lambda}{2} |\theta|^2`, and each matrix has the form
:math:`\sum_b M_b / \sum_b t_b + \lambda I`, whatever the sizes of the batches.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ..backends import Array
from ..operators import LinearOperator
from .blocks import BlockOperator
from .cache import LinearizationCache, Part
from .finite_differences import gauss_newton_error, hessian_error, small_objective
from .linearization import Accumulator, Linearization, Native, Outputs, SupportsGaussNewton, SupportsLook, SupportsRestriction
from .out_of_memory import in_smaller_plans

if TYPE_CHECKING:
    from .objective import Objective


class CurvatureOperator(LinearOperator):
    """A symmetric matrix that sums one product per batch; a subclass says which in ``_product_of_batch`` or ``_add_product``.

    Building it computes nothing. The first product linearises the model at the objective's parameters; later ones use that
    again as far as `memory_budget` goes.

    Parameters
    ----------
    objective : Objective
        Model, loss, parameters and data.
    positive_semidefinite : bool or None
        Whether that is known of the matrix.
    """

    def __init__(self, objective: Objective, *, positive_semidefinite: bool | None = None) -> None:
        super().__init__(
            (objective.num_parameters,) * 2,
            objective.dtype,
            hermitian=True,
            positive_semidefinite=positive_semidefinite,
            backend=objective.functions.backend,
        )
        self.objective = objective
        self._linearizations = LinearizationCache(objective)
        self._started = False
        self._only: tuple[int, ...] | None = None

    def _product_of_batch(self, linearization: Linearization, v: Native) -> Native:
        """The batch's matrix, for the summed loss, times `v`."""
        raise TypeError(f"{type(self).__name__} does not define its product.")

    def _add_product(self, part: Part, v: Native, total: Accumulator) -> None:
        """Add the product of a batch's matrix with `v` to `total`."""
        total.add(self._product_of_batch(part.linearization, v))

    def _add_products(self, part: Part, columns: Sequence[Native], totals: Sequence[Accumulator]) -> None:
        """Add the products of a batch's matrix with several vectors to as many sums."""
        for v, total in zip(columns, totals, strict=True):
            self._add_product(part, v, total)

    @property
    def identity_multiple(self) -> float:
        """Multiple of the identity that the matrix holds beside what comes from the data."""
        return self.objective.weight_decay

    def _factor(self, terms: float) -> float:
        """What the sum over all batches is multiplied with."""
        return self.objective.scale(terms)

    def _matmat(self, x: Array) -> Array:
        kept = self._linearizations
        return in_smaller_plans(lambda: self._planned(x), kept.retreat, lambda: f"{kept.sentence()}, one vector at a time")

    def _planned(self, x: Array) -> Array:
        if not self._linearizations.one_by_one or x.shape[1] == 1:
            return self._products(x)
        rows = self.backend.empty(x.shape[::-1], self.dtype)
        for j in range(x.shape[1]):
            rows[j] = self._products(x[:, j : j + 1])[:, 0]
        return rows.T

    def _products(self, x: Array) -> Array:
        """Products by the plan in force; called again from its beginning where memory runs out."""
        functions = self.objective.functions
        n, k = x.shape
        rows = self.backend.empty((k, n), self.dtype)
        terms, offset = 0.0, self.identity_multiple
        with functions.session():
            columns = [functions.to_native(x[:, j]) for j in range(k)]
            totals = [functions.accumulator(rows[j]) for j in range(k)]
            for part in self._linearizations.parts(k):
                if self._only is not None and isinstance(part.linearization, SupportsRestriction):
                    part = dataclasses.replace(part, linearization=part.linearization.restricted(self._only))
                self._add_products(part, columns, totals)
                terms += part.linearization.num_terms
            factor = self._factor(terms)
            for total in totals:
                total.finish(factor)
        if offset:
            rows += offset * x.T
        self._started = True
        return rows.T

    @contextlib.contextmanager
    def restricted(self, names: Sequence[str]) -> Iterator[None]:
        """While it is open, vectors are zero outside of these parameters, and rows of the others are not read."""
        before, places = self._only, {name: index for index, name in enumerate(self.parameter_names)}
        self._only = tuple(places[name] for name in names)
        try:
            yield
        finally:
            self._only = before

    def block(self, name: str) -> BlockOperator:
        """Diagonal block of one parameter, of a layer, or of all parameters that match a pattern.

        Parameters
        ----------
        name : str
            Name of a parameter (``"encoder.0.weight"``) or of a layer (``"encoder.0"``: all parameters inside), or a pattern
            such as ``"*.bias"``.

        Returns
        -------
        BlockOperator
            Of the order of those parameters, in their order. Each product costs at most one with the whole matrix, in torch much less for
            the last layers, and shares what that keeps.

        Raises
        ------
        ValueError
            When no parameter has that name.

        Examples
        --------
        >>> import torch, linop_spectra as ls
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
        >>> hessian = ls.objective(model, "mse", (torch.ones(5, 4), torch.ones(5, 2))).hessian()
        >>> hessian.block("0").shape, hessian.block("*.bias").shape
        ((15, 15), (5, 5))
        """
        return BlockOperator(self, name)

    @property
    def unit_rounding(self) -> float:
        """Relative rounding of products: that of the narrowest type among the parameters, and inside the model as far as it is known."""
        functions = self.objective.functions
        if isinstance(functions, SupportsLook):
            functions.look(self.objective.point, self.objective.data)
        return functions.unit_rounding

    @property
    def engine(self) -> str:
        """How products are computed, and why so; before the first product this question costs one product."""
        if not (self._started and self._linearizations.engines()):
            self._matmat(self.backend.asarray(self.objective.parameters()).reshape(-1, 1))
        return f"{'; '.join(self._linearizations.engines())}; {self._linearizations.sentence()}."

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Names of the parameters, in the order of the rows."""
        return self.objective.functions.names

    @property
    def blocks(self) -> Mapping[str, slice]:
        """Rows of each parameter."""
        return self.objective.blocks

    def _details(self) -> str:
        return "; ".join(self._linearizations.engines()) if self._started else ""


class HessianOperator(CurvatureOperator):
    r"""Hessian of the objective.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> model = torch.nn.Linear(3, 1, bias=False)
    >>> hessian = ls.objective(model, "mse", (torch.eye(3), torch.ones(3, 1))).hessian()
    >>> hessian.to_dense().round(4)
    array([[0.6667, 0.    , 0.    ],
           [0.    , 0.6667, 0.    ],
           [0.    , 0.    , 0.6667]], dtype=float32)
    """

    def _product_of_batch(self, linearization: Linearization, v: Native) -> Native:
        return linearization.hvp(v)

    def derivative_error(self, seed: int = 0) -> float | None:
        """Relative distance from central differences of the gradient, in double precision on a small part of the data."""
        small = small_objective(self.objective)
        return hessian_error(type(self)(small), small, seed)


class OutputCurvatureOperator(CurvatureOperator):
    r"""A matrix :math:`\sum_b J_b^\top M_b J_b` whose middle part acts on the outputs of one batch at a time."""

    @abc.abstractmethod
    def _in_outputs(self, part: Part, u: Outputs) -> Outputs:
        """The batch's middle part, for the summed loss, times an array of the outputs' shape."""

    def _add_product(self, part: Part, v: Native, total: Accumulator) -> None:
        # The order matters: a linearization that is not kept reuses the pass of jvp for vjp.
        outputs = part.linearization.jvp(v)
        total.add(part.linearization.vjp(self._in_outputs(part, outputs)))

    def _like(self, objective: Objective) -> OutputCurvatureOperator:
        """The same matrix of another objective."""
        return type(self)(objective)

    def derivative_error(self, seed: int = 0) -> float | None:
        """Relative distance from differences of the outputs and of the loss, in double precision on a small part of the data.

        A middle part that is no second derivative is taken as it is.
        """
        small = small_objective(self.objective)
        operator = self._like(small)
        middle = None if isinstance(operator, GaussNewtonOperator) else operator._in_outputs
        return gauss_newton_error(operator, small, seed, middle)


class GaussNewtonOperator(OutputCurvatureOperator):
    r"""Generalised Gauss-Newton matrix (Schraudolph, 2002): :math:`J^\top H_\ell J`, plus :math:`\lambda I` for weight decay.

    :math:`J` is the Jacobian of the outputs and :math:`H_\ell` the Hessian of the loss with respect to them.
    """

    def __init__(self, objective: Objective) -> None:
        if objective.functions.gauss_newton_refusal is not None:
            raise TypeError(objective.functions.gauss_newton_refusal)
        convex = objective.functions.convex_loss and objective.weight_decay >= 0
        super().__init__(objective, positive_semidefinite=True if convex else None)

    def _in_outputs(self, part: Part, u: Outputs) -> Outputs:
        return part.linearization.loss_hessian(u)

    def _add_product(self, part: Part, v: Native, total: Accumulator) -> None:
        if isinstance(part.linearization, SupportsGaussNewton):
            total.add(part.linearization.gauss_newton_product(v))
        else:
            super()._add_product(part, v, total)
