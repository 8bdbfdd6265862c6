"""What the figure of a comparison shows: densities of the measurement and of the null, smoothed alike."""

from __future__ import annotations

import numpy as np

from ...spectra import SpectralDensity
from ..laws.law import SpectralLaw
from .measurement import Measurement

_POINTS = 400
_DRAWS = 200
_WIDTH = 0.75
_LEVELS = (0.025, 0.975)
Rule = tuple[np.ndarray, np.ndarray]


def figure_data(
    density: SpectralDensity, law: SpectralLaw, rule: Rule, rule_of_law: Rule, z_alphas: np.ndarray, z_betas: np.ndarray, used: Measurement
) -> dict[str, np.ndarray]:
    """Arrays of the figure.

    Parameters
    ----------
    density : SpectralDensity
        The measurement, for its outliers.
    law : SpectralLaw
        The law.
    rule : tuple of numpy.ndarray
        Nodes and weights of the measurement (row 0) and of the draws, shape (count, m).
    rule_of_law : tuple of numpy.ndarray
        The Gauss rule of the law in row 0.
    z_alphas, z_betas : numpy.ndarray
        Deviations of the coefficients in standard deviations.
    used : Measurement
        What was compared.

    Returns
    -------
    dict of str to numpy.ndarray
        ``x``, ``law_density``, ``measured_density``, ``band_low``, ``band_high`` on a grid; ``atom_places``, ``atom_masses``,
        ``atom_measured``, ``atom_low``, ``atom_high``; ``outliers``, ``outlier_weights``; ``z_alphas``, ``z_betas``.
    """
    nodes, weights = (part[: _DRAWS + 1] for part in rule)
    own = np.sort(rule_of_law[0][0])
    gaps = np.diff(own)
    places = np.array([place for place, _ in law.atoms])
    spacing = _spacings(own)
    reach = np.median(gaps) / 2 if len(gaps) else 1.0
    near = np.zeros(nodes.shape, dtype=bool)
    measured = []
    for place in places:
        others = np.sort(np.abs(own - place))[1:]  # the nearest node is the atom's own
        at = np.abs(nodes - place) <= (others[0] / 2 if len(others) else reach)
        measured.append(np.sum(np.where(at, weights, 0.0), axis=1))
        near |= at
    bulk = law.support or [(float(nodes[0].min()), float(nodes[0].max()))]
    low, high = min(a for a, _ in bulk), max(b for _, b in bulk)
    margin = 0.12 * (high - low) or 1.0
    centre = nodes[0][(weights[0] > 1.5 / used.dimension) & ~near[0]]
    left = min(low - margin, float(np.quantile(centre, 0.01)) - margin / 3) if len(centre) else low - margin
    right = max(high + margin, float(np.quantile(centre, 0.99)) + margin / 3) if len(centre) else high + margin
    # A law beside the data would be lost in a picture as wide as both.
    x = np.linspace(max(left, low - 2 * (high - low) - margin), min(right, high + 2 * (high - low) + margin), _POINTS)
    curves = np.array([_smooth(x, a[~gone], b[~gone], own, spacing) for a, b, gone in zip(nodes, weights, near, strict=True)])
    band = np.quantile(curves[1:], _LEVELS, axis=0)
    atoms = np.array(measured).reshape(len(places), len(nodes))
    outliers = density.outliers()
    beside = [o for o in outliers if not any(a <= o.value <= b for a, b in law.support) and not np.any(np.abs(places - o.value) < 1e-9)]
    return {
        "x": x, "law_density": np.asarray(law.pdf(x), dtype=np.float64), "measured_density": curves[0],
        "band_low": band[0], "band_high": band[1],
        "atom_places": places, "atom_masses": np.array([mass for _, mass in law.atoms]), "atom_measured": atoms[:, 0],
        "atom_low": np.quantile(atoms[:, 1:], _LEVELS[0], axis=1), "atom_high": np.quantile(atoms[:, 1:], _LEVELS[1], axis=1),
        "outliers": np.array([o.value for o in beside]), "outlier_weights": np.array([o.weight for o in beside]),
        "z_alphas": z_alphas, "z_betas": z_betas,
    }  # fmt: skip


def _spacings(nodes: np.ndarray) -> np.ndarray:
    """Distance of neighbours at each node."""
    if len(nodes) < 3:
        return np.full(len(nodes), (np.ptp(nodes) or 1.0) / 4)
    return np.asarray(np.maximum(np.gradient(nodes), 1e-9 * (np.ptp(nodes) or 1.0)))


def _smooth(x: np.ndarray, nodes: np.ndarray, weights: np.ndarray, own: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Gaussians whose width is that of the law's rule where they stand: the same for the measurement and every draw."""
    beyond = np.maximum(np.maximum(own[0] - nodes, nodes - own[-1]), 0.0)
    widths = _WIDTH * (np.interp(nodes, own, spacing) + np.minimum(beyond, spacing.max()))
    t = (x[:, None] - nodes) / widths
    return np.asarray(np.exp(-0.5 * t**2) @ (weights / (widths * np.sqrt(2 * np.pi))))
