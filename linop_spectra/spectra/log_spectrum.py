"""The spectrum on a logarithmic scale, both signs, with what is too small to resolve set apart."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..results import PathLike
from .broadening import adaptive_widths, gaussians

if TYPE_CHECKING:
    from .density import SpectralDensity


@dataclasses.dataclass(frozen=True, eq=False)
class LogSpectrum:
    """Distribution of ``log10 |lambda|`` for the eigenvalues above the noise floor, by sign.

    Attributes
    ----------
    positive, negative : numpy.ndarray
        ``log10 |lambda|`` of the nodes of either sign, ascending.
    positive_weights, negative_weights : numpy.ndarray
        Their masses.
    floor : float
        Noise floor: below this modulus nothing is told from zero.
    unresolved_mass : float
        Mass below the floor. The three masses sum to one.
    resolution : float
        Distance of the Ritz values next to zero that are no converged eigenvalues, at least the floor: below it these steps tell
        masses, and no shape. Zero and the smallest eigenvalues are the last that a run resolves on this scale.
    """

    positive: np.ndarray
    positive_weights: np.ndarray
    negative: np.ndarray
    negative_weights: np.ndarray
    floor: float
    unresolved_mass: float
    resolution: float = 0.0

    def density(self, x: Any, sign: Literal["positive", "negative"] = "positive") -> np.ndarray:
        """Density of one sign per decade, at ``x = log10 |lambda|``; it integrates to the mass of that sign.

        The Gaussians stand in the logarithm, so that their Jacobian is already in them.
        """
        if sign not in ("positive", "negative"):
            raise ValueError(f"The argument sign must be 'positive' or 'negative', but is {sign!r}.")
        nodes, weights = getattr(self, sign), getattr(self, f"{sign}_weights")
        x = np.asarray(x, dtype=np.float64)
        if len(nodes) == 0:
            return np.zeros(x.shape)
        first, _ = gaussians(x, nodes, weights, adaptive_widths(nodes, 0.02))
        return first

    def plot(self, path: PathLike | None = None, ax: Any = None) -> Any:
        """Draw both signs, with the unresolved region shaded; needs matplotlib.

        Parameters
        ----------
        path : str or path, optional
            File to write.
        ax : matplotlib.axes.Axes, optional
            Axes to draw on.

        Returns
        -------
        matplotlib.axes.Axes
            The axes.
        """
        from ..plots import log_spectrum as draw

        axes = draw(self, ax)
        if path is not None:
            figure: Any = axes.figure
            figure.savefig(path)
        return axes


def log_spectrum(S: SpectralDensity) -> LogSpectrum:
    """Push the nodes of a measure through ``log10 |.|``."""
    nodes, weights, floor = S.nodes, S.weights, S.noise_floor
    up, down = nodes > floor, nodes < -floor
    order = np.argsort(np.abs(nodes[down]), kind="stable")
    return LogSpectrum(
        positive=np.log10(nodes[up]),
        positive_weights=weights[up],
        negative=np.log10(np.abs(nodes[down][order])),
        negative_weights=weights[down][order],
        floor=floor,
        unresolved_mass=float(weights[~(up | down)].sum()),
        resolution=max(floor, _spacing_at_zero(S)),
    )


def _spacing_at_zero(S: SpectralDensity) -> float:
    """Mean over the probes of the distance between the two nodes nearest to zero that are no converged eigenvalues."""
    spacings = []
    for rule, sharp in zip(S.deflation.rules, S.deflation.sharp, strict=True):
        nodes = rule.nodes[~sharp]
        if len(nodes) > 1:
            nearest = nodes[np.argsort(np.abs(nodes))[:2]]
            spacings.append(abs(float(nearest[1] - nearest[0])))
    return float(np.mean(spacings)) if spacings else 0.0
