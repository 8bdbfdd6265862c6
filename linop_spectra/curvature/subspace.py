"""An objective as a function of coordinates in an affine subspace of its parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..backends import Array
from ..krylov.orthonormal import OrthonormalRows
from ..operators import LinearOperator, aslinearoperator, compress
from ..operators.algebra import product_of
from .objective import Objective


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SubspaceObjective(Objective):
    r"""The loss at :math:`\theta_0 + P \xi` as a function of the coordinates :math:`\xi`; made by `in_subspace`.

    Value, gradient, Hessian, Gauss-Newton and Fisher matrices, covariance and Jacobian are those with respect to the coordinates:
    :math:`P^\top g` and :math:`P^\top H P`, at the cost of those of all parameters. What belongs to layers is refused.

    Attributes
    ----------
    origin : array
        :math:`\theta_0`, shape (n,).
    rows : array
        Orthonormal columns of P as rows, shape (d, n).
    coordinates : array
        :math:`\xi`, shape (d,).
    """

    origin: Array = None
    rows: Array = None
    coordinates: Array = None

    @property
    def whole(self) -> Objective:
        """The objective of all parameters at the same point."""
        return Objective(self.functions, self.point, self.data, self.weight_decay)

    @property
    def num_parameters(self) -> int:
        """Dimension d of the subspace."""
        return int(self.rows.shape[0])

    @property
    def blocks(self) -> Mapping[str, slice]:
        """One block of all coordinates."""
        return {"coordinates": slice(0, self.num_parameters)}

    def parameters(self) -> Array:
        """The coordinates, shape (d,), copied."""
        return self.coordinates + 0

    def flatten(self, tree: Any) -> Array:
        """The coordinates from ``{"coordinates": array}``."""
        return self.functions.backend.asarray(tree["coordinates"], dtype=self.dtype)

    def unflatten(self, vector: Any) -> dict[str, Any]:
        """The coordinates as ``{"coordinates": array}``."""
        return {"coordinates": vector}

    def value(self) -> float:
        """The loss at the point."""
        return self.whole.value()

    def value_and_gradient(self) -> tuple[float, Array]:
        """The loss and its gradient with respect to the coordinates, shape (d,)."""
        value, gradient = self.whole.value_and_gradient()
        return value, self._project(gradient)

    def gradient(self) -> Array:
        """Gradient with respect to the coordinates, shape (d,)."""
        return self.value_and_gradient()[1]

    def hessian(self) -> LinearOperator:  # type: ignore[override]
        """Compression of the Hessian."""
        return self._compressed(self.whole.hessian())

    def ggn(self) -> LinearOperator:  # type: ignore[override]
        """Compression of the Gauss-Newton matrix."""
        return self._compressed(self.whole.ggn())

    def fisher(self, *args: Any, **options: Any) -> LinearOperator:  # type: ignore[override]
        """Compression of the Fisher matrix; arguments as for `Objective.fisher`."""
        return self._compressed(self.whole.fisher(*args, **options))

    def residual(self) -> LinearOperator:  # type: ignore[override]
        """Compression of the Hessian without the Gauss-Newton matrix."""
        return self._compressed(self.whole.residual())

    def gradient_covariance(self, *, centered: bool = True) -> LinearOperator:  # type: ignore[override]
        """Compression of the covariance of the examples' gradients."""
        return self._compressed(self.whole.gradient_covariance(centered=centered))

    def jacobian(self) -> LinearOperator:  # type: ignore[override]
        """Jacobian of the outputs with respect to the coordinates."""
        return product_of(self.whole.jacobian(), self._basis())

    def ntk(self) -> LinearOperator:  # type: ignore[override]
        """Neural tangent kernel of the coordinates."""
        jacobian = self.jacobian()
        return product_of(jacobian, jacobian.H)

    def class_structure(self) -> Any:
        """Refused: it belongs to all parameters."""
        raise _refusal("the structure of classes")

    def filter_normalized(self, parameters: Any = None, *, tolerance: float = 1e-3) -> Objective:
        """Refused: filters belong to all parameters."""
        raise _refusal("the norm of filters")

    def with_parameters(self, parameters: Any) -> SubspaceObjective:
        """The same at other coordinates, shape (d,)."""
        backend = self.functions.backend
        given = backend.asarray(parameters, dtype=self.dtype)
        if tuple(given.shape) != (self.num_parameters,):
            raise ValueError(f"The subspace has {self.num_parameters} coordinates, but the array given has shape {tuple(given.shape)}.")
        theta = self.origin + backend.combine(np.asarray(backend.to_numpy(given), dtype=np.float64)[None, :], self.rows)[0]
        return dataclasses.replace(self, coordinates=given + 0, point=self.functions.point_from(theta, self.point))

    def _project(self, vector: Array) -> Array:
        return self.functions.backend.asarray(self.functions.backend.gemv_t(self.rows, vector), dtype=self.dtype)

    def _basis(self) -> LinearOperator:
        return aslinearoperator(self.rows.T, backend=self.functions.backend)

    def _compressed(self, operator: LinearOperator) -> LinearOperator:
        return compress(operator, self._basis())

    def __repr__(self) -> str:
        return f"SubspaceObjective({self.num_parameters} coordinates of {self.functions.num_parameters:,} parameters)"


def in_subspace(objective: Objective, rows: Array) -> SubspaceObjective:
    """The objective as a function of coordinates from its present parameters.

    Parameters
    ----------
    objective : Objective
        Its parameters are the origin.
    rows : array
        Orthonormal basis of the directions as rows, shape (d, n); see `random_rows`.

    Returns
    -------
    SubspaceObjective
        At coordinates zero.

    Raises
    ------
    ValueError
        When the rows have another length than the parameters.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.curvature.subspace import in_subspace, random_rows
    >>> objective = ls.objective(torch.nn.Linear(4, 3), "mse", (torch.randn(10, 4), torch.randn(10, 3)))
    >>> inside = in_subspace(objective, random_rows(objective, 5))
    >>> inside.gradient().shape, inside.hessian().shape
    ((5,), (5, 5))
    """
    if rows.ndim != 2 or rows.shape[1] != objective.num_parameters or rows.shape[0] < 1:
        raise ValueError(
            f"The argument rows must have shape (d, {objective.num_parameters}) with d of at least 1, but has shape {tuple(rows.shape)}."
        )
    backend = objective.functions.backend
    zero = backend.asarray(np.zeros(rows.shape[0]), dtype=objective.dtype)
    return SubspaceObjective(
        objective.functions, objective.point, objective.data, objective.weight_decay, objective.parameters(), rows, zero
    )


def random_rows(objective: Objective, dimension: int, seed: int = 0) -> Array:
    """Orthonormal basis of a uniformly random subspace as rows, shape (dimension, n); the same for a seed in every framework.

    Raises
    ------
    ValueError
        When the dimension is not between 1 and n.
    """
    n = objective.num_parameters
    if isinstance(dimension, bool) or int(dimension) != dimension or not 1 <= dimension <= n:
        raise ValueError(f"The argument dimension is {dimension!r}, but must be a whole number between 1 and the {n} parameters.")
    backend = objective.functions.backend
    made = OrthonormalRows(backend, n, objective.dtype)
    while made.rank < dimension:
        indices = range(made.count, made.count + int(dimension) - made.rank)
        made.append(backend.probes(n, indices, kind="normal", seed=seed, domain="random subspace", dtype=objective.dtype))
    return made.newest(int(dimension))


def require_all_parameters(objective: Objective, purpose: str) -> None:
    """Raise where an objective has coordinates in a subspace in place of the model's parameters.

    Raises
    ------
    TypeError
        Then.
    """
    if isinstance(objective, SubspaceObjective):
        raise _refusal(purpose)


def _refusal(name: str) -> TypeError:
    return TypeError(
        f"{name[0].upper()}{name[1:]} belongs to all parameters and not to coordinates in a subspace; take it of the objective's .whole, "
        "or choose a method that needs only gradients and products."
    )
