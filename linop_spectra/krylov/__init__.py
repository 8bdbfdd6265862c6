"""Krylov methods: Lanczos with resumable state, and extreme eigenpairs."""

from .eigsh import EigenResult, eigsh
from .errors import LanczosInterrupted, NonFiniteProductError
from .lanczos import lanczos
from .result import LanczosResult

__all__ = ["EigenResult", "LanczosInterrupted", "LanczosResult", "NonFiniteProductError", "eigsh", "lanczos"]
