r"""Curvature matrices, defined once for every framework as sums over batches of an adapter's derivatives.

With the summed loss :math:`\ell_b` of batch `b` and the number of terms :math:`t_b`, the objective is
:math:`L = \sum_b \ell_b / \sum_b t_b + \frac{\lambda}{2} |\theta|^2`, and each matrix has the form
:math:`\sum_b M_b / \sum_b t_b + \lambda I`, whatever the sizes of the batches.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..backends import Array
from ..operators import LinearOperator
from .cache import LinearizationCache
from .finite_differences import gauss_newton_error, hessian_error, small_objective
from .linearization import Linearization, Native

if TYPE_CHECKING:
    from .objective import Objective


class CurvatureOperator(LinearOperator):
    """A symmetric matrix that sums one product per batch; a subclass says which in ``_product_of_batch``.

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

    @abc.abstractmethod
    def _product_of_batch(self, linearization: Linearization, v: Native) -> Native:
        """The batch's matrix, for the summed loss, times `v`."""

    def _matmat(self, x: Array) -> Array:
        functions = self.objective.functions
        n, k = x.shape
        rows = self.backend.empty((k, n), self.dtype)
        terms = 0.0
        with functions.session():
            columns = [functions.to_native(x[:, j]) for j in range(k)]
            totals = [functions.accumulator(rows[j]) for j in range(k)]
            for linearization in self._linearizations(k):
                for v, total in zip(columns, totals, strict=True):
                    total.add(self._product_of_batch(linearization, v))
                terms += linearization.num_terms
            factor = self.objective.scale(terms)
            for total in totals:
                total.finish(factor)
        if self.objective.weight_decay:
            rows += self.objective.weight_decay * x.T
        self._started = True
        return rows.T

    @property
    def unit_rounding(self) -> float:
        """Relative rounding of products: that of the narrowest type among the parameters."""
        return self.objective.functions.unit_rounding

    @property
    def engine(self) -> str:
        """How products are computed, and why so; before the first product this question costs one product."""
        if not self._started:
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


class GaussNewtonOperator(CurvatureOperator):
    r"""Generalised Gauss-Newton matrix (Schraudolph, 2002): :math:`J^\top H_\ell J`, plus :math:`\lambda I` for weight decay.

    :math:`J` is the Jacobian of the outputs and :math:`H_\ell` the Hessian of the loss with respect to them.
    """

    def __init__(self, objective: Objective) -> None:
        if objective.functions.gauss_newton_refusal is not None:
            raise TypeError(objective.functions.gauss_newton_refusal)
        convex = objective.functions.convex_loss and objective.weight_decay >= 0
        super().__init__(objective, positive_semidefinite=True if convex else None)

    def _product_of_batch(self, linearization: Linearization, v: Native) -> Native:
        # The order matters: a linearization that is not kept reuses the pass of jvp for vjp.
        outputs = linearization.jvp(v)
        return linearization.vjp(linearization.loss_hessian(outputs))

    def derivative_error(self, seed: int = 0) -> float | None:
        """Relative distance from differences of the outputs and of the loss, in double precision on a small part of the data."""
        small = small_objective(self.objective)
        return gauss_newton_error(type(self)(small), small, seed)
