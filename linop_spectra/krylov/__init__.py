"""Krylov methods: Lanczos with resumable state, eigenpairs, singular triplets, linear systems, functions of a matrix."""

from .eigen_result import EigenResult
from .eigsh import eigsh
from .errors import LanczosInterrupted, NonFiniteProductError
from .funm import FunctionProduct, funm_multiply
from .lanczos import lanczos
from .result import LanczosResult
from .solve import SolveResult, solve
from .svds import SingularResult, svds

__all__ = [
    "EigenResult",
    "FunctionProduct",
    "LanczosInterrupted",
    "LanczosResult",
    "NonFiniteProductError",
    "SingularResult",
    "SolveResult",
    "eigsh",
    "funm_multiply",
    "lanczos",
    "solve",
    "svds",
]
