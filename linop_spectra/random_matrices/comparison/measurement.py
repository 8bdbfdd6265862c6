"""The part of a spectral density that is compared with laws: first Lanczos coefficients, with or without the outliers."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ...spectra import SpectralDensity
from ..laws.law import SpectralLaw
from .dirichlet_bootstrap import jacobi_coefficients

_LARGEST_LOSS = 0.1
"""Loss of orthogonality, in units of the sampling error of a coefficient, that a comparison can stand."""
_LEAST_PADDED = 16


@dataclasses.dataclass(frozen=True, eq=False)
class Measurement:
    """Lanczos coefficients of all probes.

    Attributes
    ----------
    alphas, betas : numpy.ndarray
        Shapes (p, k) and (p, k - 1), zeros after a breakdown.
    dimension : int
        Number of eigenvalues that they stand for.
    beta : int
        1 for a real, 2 for a complex operator.
    excluded : tuple of float
        Outliers that were taken out.
    ended : bool
        Whether the Krylov space of every probe became invariant: further coefficients are zero.
    """

    alphas: np.ndarray
    betas: np.ndarray
    dimension: int
    beta: int
    excluded: tuple[float, ...]
    ended: bool = False

    @property
    def num_steps(self) -> int:
        """Steps k."""
        return self.alphas.shape[1]

    def first(self, num_steps: int) -> Measurement:
        """The first steps of it, with zeros after a breakdown."""
        k = min(num_steps, self.num_steps)
        if self.ended and num_steps > k:  # a law with more places than the measurement must be found out
            more = ((0, 0), (0, min(num_steps, max(k, _LEAST_PADDED)) - k))
            return dataclasses.replace(self, alphas=np.pad(self.alphas, more), betas=np.pad(self.betas, more))
        return dataclasses.replace(self, alphas=self.alphas[:, :k], betas=self.betas[:, : k - 1])


def measurement(density: SpectralDensity, *, exclude_outliers: bool) -> Measurement:
    """Coefficients of a density as the probes saw it, without pinned weights.

    Where outliers are left out, the coefficients are those of the probes' part in the other eigenvectors: the Gauss rule without the
    nodes of converged outliers is exact for it.

    Raises
    ------
    ValueError
        When the run lost orthogonality, so that its coefficients are not those of the matrix.
    """
    run = density.run
    if run.num_steps == 0:
        raise ValueError("The argument density holds no Lanczos step; let the run take at least one.")
    loss = float(np.max(run.orthogonality_loss, initial=0.0))
    if int(np.max(run.num_ghosts, initial=0)) or loss * np.sqrt(run.dimension) > _LARGEST_LOSS:
        raise ValueError(
            f"The argument density comes from a run with reorthogonalize={run.reorthogonalize!r} that lost orthogonality ({loss:.1g}), so "
            "that its coefficients are not those of the matrix; run spectral_density with reorthogonalize='full' or with fewer steps."
        )
    beta = 2 if np.dtype(run.dtype).kind == "c" else 1
    outliers = {outlier.value for outlier in density.outliers()} if exclude_outliers else set()
    if not outliers:
        ended = all(rule.exact for rule in density.deflation.rules)
        return Measurement(run.alphas.copy(), run.betas[:, :-1].copy(), run.dimension, beta, (), ended)
    deflation = density.deflation
    atoms = [atom for atom in deflation.atoms if atom.value in outliers]
    rest = []
    for probe, rule in enumerate(deflation.rules):
        keep = np.ones(len(rule.nodes), dtype=bool)
        keep[[atom.places[probe] for atom in atoms]] = False
        rest.append((rule.nodes[keep], rule.weights[keep] / rule.weights[keep].sum()))
    k = min(len(nodes) for nodes, _ in rest)
    pairs = [jacobi_coefficients(nodes, weights[:, None], k) for nodes, weights in rest]
    count = sum(1 if atom.simple else max(1, round(atom.weight * run.dimension)) for atom in atoms)
    return Measurement(
        np.concatenate([alphas for alphas, _ in pairs]), np.concatenate([betas for _, betas in pairs]),
        run.dimension - count, beta, tuple(sorted(atom.value for atom in atoms)),
    )  # fmt: skip


def check_density(density: Any) -> SpectralDensity:
    """A spectral density with its measure, or a sentence that says how to get one."""
    if isinstance(density, SpectralDensity):
        return density
    raise TypeError(
        f"The argument density is a {type(density).__name__}, which has no Lanczos coefficients; a smoothed curve or a histogram cannot be "
        "tested against a law. Pass the result of linop_spectra.spectral_density, the operator itself, or a 1-D array of all eigenvalues."
    )


def check_law(law: Any) -> SpectralLaw:
    """A law, or a TypeError with the fix."""
    if isinstance(law, SpectralLaw):
        return law
    raise TypeError(
        f"The argument law is {law!r}; pass a law such as random_matrices.Semicircle(variance=1.0), or the family 'semicircle' or "
        "'marchenko_pastur' to have its parameters fitted."
    )
