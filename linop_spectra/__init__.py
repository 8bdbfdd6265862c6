"""Certified spectra of matrices too large to write down."""

from .backends import to_numpy
from .operators import (
    LinearOperator,
    OperatorCheck,
    SupportsMatmat,
    aslinearoperator,
    check_operator,
    diagonal_operator,
    identity,
    low_rank,
)
from .results import Estimate, load

__version__ = "0.1.0"

__all__ = [
    "Estimate",
    "LinearOperator",
    "OperatorCheck",
    "SupportsMatmat",
    "aslinearoperator",
    "check_operator",
    "diagonal_operator",
    "identity",
    "load",
    "low_rank",
    "to_numpy",
]
