"""Linear operators: the abstract base, its algebra, wrappers for what users have, and a self-check."""

from .base import LinearOperator, SupportsMatmat
from .block_diagonal import block_diagonal
from .check import OperatorCheck, check_operator, require_hermitian
from .compression import compress
from .deflation import deflate
from .diagonal import diagonal_operator
from .identity import identity
from .interop import aslinearoperator
from .kronecker import kronecker
from .low_rank import low_rank
from .shift import shift
from .submatrix import submatrix

__all__ = [
    "LinearOperator",
    "OperatorCheck",
    "SupportsMatmat",
    "aslinearoperator",
    "block_diagonal",
    "check_operator",
    "compress",
    "deflate",
    "diagonal_operator",
    "identity",
    "kronecker",
    "low_rank",
    "require_hermitian",
    "shift",
    "submatrix",
]
