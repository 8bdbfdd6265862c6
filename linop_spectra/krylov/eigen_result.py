"""Eigenpairs with their residuals."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ..backends import Array
from ..results import PathLike, html_table, register, save_result
from .result import on_host


@register("eigenpairs")
@dataclasses.dataclass(frozen=True, eq=False)
class EigenResult:
    """Eigenpairs of a Hermitian operator.

    Attributes
    ----------
    eigenvalues : numpy.ndarray
        In ascending order, shape (k,), float64.
    eigenvectors : array
        Orthonormal columns, shape (n, k), on the operator's backend.
    residual_norms : numpy.ndarray
        True residuals ``|A x - lambda x|``, recomputed by k products, shape (k,); an eigenvalue lies within this distance.
    converged : numpy.ndarray
        Whether each residual is below the tolerance times the norm estimate, shape (k,). Unconverged pairs are returned too.
    norm_estimate : float
        Largest Ritz value in modulus that was seen.
    num_matvecs : int
        Products with single vectors.
    seconds : float
        Wall-clock time.
    status : {"complete", "unconverged", "interrupted", "time budget"}
        Why the search ended.
    method : str
        How the pairs were found.
    verified : bool
        Whether a search in what is left of the space has shown that no wanted eigenvalue, and no copy of a multiple one, is missing.
    """

    eigenvalues: np.ndarray
    eigenvectors: Array
    residual_norms: np.ndarray
    converged: np.ndarray
    norm_estimate: float
    num_matvecs: int
    seconds: float
    status: str = "complete"
    method: str = "thick-restart Lanczos"
    verified: bool = False

    def save(self, path: PathLike) -> None:
        """Write the pairs to `path` (``.npz``); `linop_spectra.load` reads them back."""
        arrays = {name: getattr(self, name) for name in ("eigenvalues", "residual_norms", "converged")}
        scalars = {name: getattr(self, name) for name in ("norm_estimate", "num_matvecs", "seconds", "status", "method", "verified")}
        save_result(path, "eigenpairs", scalars, {**arrays, "eigenvectors": on_host(self.eigenvectors)})

    @classmethod
    def _from_file(cls, scalars: dict[str, Any], arrays: dict[str, np.ndarray]) -> EigenResult:
        fields: dict[str, Any] = {**scalars, **arrays}
        return cls(**fields)

    def __str__(self) -> str:
        lines = [f"{'eigenvalue':>16s} {'residual':>10s}"]
        for value, residual, good in zip(self.eigenvalues, self.residual_norms, self.converged, strict=True):
            lines.append(f"{value:16.8g} {residual:10.1e}" + ("" if good else "  not converged"))
        if not self.verified:
            lines.append("not verified: a copy of a multiple eigenvalue may be missing")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return html_table(
            [(f"{value:.8g}", f"residual {residual:.1e}" + ("" if good else ", not converged"))
             for value, residual, good in zip(self.eigenvalues, self.residual_norms, self.converged, strict=True)]
        )  # fmt: skip
