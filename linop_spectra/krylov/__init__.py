"""Krylov methods: Lanczos with resumable state, eigenpairs, singular triplets, linear systems, functions of a matrix."""

from .block_lanczos import BlockLanczosResult, block_lanczos
from .eigen_result import EigenResult
from .eigsh import eigsh
from .errors import LanczosInterrupted, NonFiniteProductError
from .funm import FunctionProduct, funm_multiply
from .lanczos import lanczos
from .result import LanczosResult
from .solve import SolveResult, solve
from .svds import SingularResult, svds

__all__ = [
    "BlockLanczosResult",
    "EigenResult",
    "FunctionProduct",
    "LanczosInterrupted",
    "LanczosResult",
    "NonFiniteProductError",
    "SingularResult",
    "SolveResult",
    "block_lanczos",
    "eigsh",
    "funm_multiply",
    "lanczos",
    "solve",
    "svds",
]
