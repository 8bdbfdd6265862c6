"""The quadratic model of an objective along directions: value, slopes and curvatures."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ..backends import to_numpy
from ..curvature import Objective
from ..krylov import EigenResult
from ..operators import aslinearoperator
from .directions import Directions

Quadratic = Any
"""None, a bool, an `EigenResult`, or an operator."""


@dataclasses.dataclass(frozen=True, eq=False)
class QuadraticModel:
    """``value + slope . t + t . curvature . t / 2`` in the coordinates of K directions.

    Attributes
    ----------
    value : float
        Loss at the centre.
    slope : numpy.ndarray
        Inner products of the gradient with the directions, shape (K,).
    curvature : numpy.ndarray
        Shape (K, K).
    num_matvecs : int
        Products that were spent.
    """

    value: float
    slope: np.ndarray
    curvature: np.ndarray
    num_matvecs: int


def quadratic_model(objective: Objective, found: Directions, quadratic: Quadratic) -> QuadraticModel | None:
    """The model that the argument `quadratic` of `line` and `plane` asks for.

    Parameters
    ----------
    objective : Objective
        With P parameters.
    found : Directions
        K of them.
    quadratic : None, bool, EigenResult or operator
        None: where the directions are eigenvectors with known eigenvalues. True: by one product with the Hessian for each direction.
        Eigenpairs: as though the Hessian were the sum over these alone. An operator: by one product with it for each direction.

    Raises
    ------
    TypeError, ValueError
        When the argument is none of these, or its shape does not fit.
    """
    if quadratic is False or (quadratic is None and found.eigenvalues is None):
        return None
    vectors, n, products = found.vectors.astype(np.float64, copy=False), objective.num_parameters, 0
    if quadratic is None:
        assert found.eigenvalues is not None
        curvature = np.diag(found.eigenvalues)
    elif isinstance(quadratic, EigenResult):
        basis = np.asarray(to_numpy(quadratic.eigenvectors), dtype=np.float64)
        if basis.shape[0] != n:
            raise ValueError(f"The argument quadratic has eigenvectors of length {basis.shape[0]}, but the objective has {n} parameters.")
        overlaps = basis.T @ vectors
        curvature = (overlaps.T * np.asarray(quadratic.eigenvalues, dtype=np.float64)) @ overlaps
    else:
        operator = objective.hessian() if quadratic is True else _operator(quadratic, n)
        backend = operator.backend
        products = len(found)
        images = operator.matmat(backend.asarray(found.vectors, dtype=operator.dtype))
        curvature = vectors.T @ np.asarray(to_numpy(images), dtype=np.float64)
        curvature = (curvature + curvature.T) / 2
    slope = vectors.T @ np.asarray(to_numpy(objective.gradient()), dtype=np.float64)
    return QuadraticModel(objective.value(), slope, curvature, products)


def _operator(quadratic: Any, n: int) -> Any:
    try:
        operator = aslinearoperator(quadratic)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"The argument quadratic is a {type(quadratic).__name__}, but must be None, a bool, a result of eigsh or an operator."
        ) from error
    if operator.shape != (n, n):
        raise ValueError(f"The argument quadratic has shape {operator.shape}, but the objective has {n} parameters.")
    return operator
