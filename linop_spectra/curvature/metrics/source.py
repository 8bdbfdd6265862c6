"""What a metric is measured on: an objective, an operator, or a spectral density that is there already."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...backends import Array
from ...operators import LinearOperator, aslinearoperator
from ...spectra import SpectralDensity, spectral_density
from ...spectra.density import SpectralMeasure
from ..objective import Objective

Source = Any
"""An `Objective` (its Hessian is meant), an operator, or what `spectral_density` returned."""


def operator_of(source: Source) -> LinearOperator:
    """The Hessian of an objective; anything else as an operator."""
    return source.hessian() if isinstance(source, Objective) else aslinearoperator(source)


def density_of(source: Source, options: dict[str, Any]) -> SpectralMeasure:
    """A spectral density: the one that was given, or a new one with these options of `spectral_density`.

    Raises
    ------
    TypeError
        When options come with a density, which has its own.
    """
    if not isinstance(source, SpectralMeasure):
        return spectral_density(operator_of(source), **options)
    if options:
        raise TypeError(f"A spectral density has no use for the options {', '.join(sorted(options))}; pass the operator with them.")
    return source


def require_objective(source: Any, what: str) -> Objective:
    """An objective, or a TypeError.

    Raises
    ------
    TypeError
        When it is anything else.
    """
    if not isinstance(source, Objective):
        raise TypeError(
            f"The {what} needs an objective, with parameters and data, but was given a {type(source).__name__}; make one by objective()."
        )
    return source


def require_data(source: Any) -> Objective:
    """An objective, whose batches show what other data would change, or a TypeError.

    Raises
    ------
    TypeError
        When it is anything else.
    """
    if not isinstance(source, Objective):
        raise TypeError(
            f"The argument sampling is True, which needs an objective (or a SharedRun of one), whose batches show what other data would "
            f"change, but the source is a {type(source).__name__}, which holds no data; pass the objective, or sampling=False."
        )
    return source


def inner(operator: LinearOperator | Objective, x: Array, y: Array) -> float:
    """Inner product of two vectors on the host, accumulated in double precision."""
    backend = operator.functions.backend if isinstance(operator, Objective) else operator.backend
    return float(np.real(backend.fetch([backend.dot(x, y)])[0]))


def positive(name: str, value: Any) -> float:
    """A positive finite number, or a ValueError that names the argument.

    Raises
    ------
    ValueError
        When it is anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating) or not 0 < value < np.inf:
        raise ValueError(f"The argument {name} must be a positive finite number, but is {value!r}.")
    return float(value)


__all__ = ["Source", "SpectralDensity", "density_of", "inner", "operator_of", "positive", "require_data", "require_objective"]
