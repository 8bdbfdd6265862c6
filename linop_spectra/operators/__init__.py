"""Linear operators: the abstract base, its algebra, wrappers for what users have, and a self-check."""

from .base import LinearOperator, SupportsMatmat
from .check import OperatorCheck, check_operator, require_hermitian
from .interop import aslinearoperator
from .structured import diagonal_operator, identity, low_rank

__all__ = [
    "LinearOperator",
    "OperatorCheck",
    "SupportsMatmat",
    "aslinearoperator",
    "check_operator",
    "diagonal_operator",
    "identity",
    "low_rank",
    "require_hermitian",
]
