"""Ratios of consecutive spacings: which local statistics eigenvalues have, without unfolding."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any, Literal

import numpy as np

from ...results import Estimate, PathLike, html_table, register, save_result
from ..laws.law import check_positive, like

Ensemble = Literal["poisson", "goe", "gue", "gse"]

MEAN_RATIOS: dict[str, float] = {"poisson": 2 * math.log(2) - 1, "goe": 0.5307, "gue": 0.5996, "gse": 0.6744}
"""Mean of the ratio for large matrices (Atas, Bogomolny, Giraud and Roux, 2013, Table I); exact for independent eigenvalues."""
_BETAS = {"goe": 1, "gue": 2, "gse": 4}
_LEAST = 3


def ratio_density(ratio: Any, ensemble: Ensemble) -> Any:
    """Density of the ratio of consecutive spacings, the smaller over the larger, on [0, 1].

    For random matrices the surmise, exact for 3 x 3 matrices and within about 0.03 of large ones:
    ``p(r) = 2 / Z (r + r^2)^beta / (1 + r + r^2)^(1 + 3 beta / 2)``; for independent eigenvalues exactly ``2 / (1 + r)^2``.

    Parameters
    ----------
    ratio : array
        Places; zero outside of [0, 1].
    ensemble : {"poisson", "goe", "gue", "gse"}
        Independent eigenvalues, or real, complex or quaternion random matrices.

    Returns
    -------
    array
        The shape of `ratio`.

    References
    ----------
    Y. Y. Atas, E. Bogomolny, O. Giraud and G. Roux, *Distribution of the ratio of consecutive level spacings in random matrix ensembles*,
    Phys. Rev. Lett. 110 (2013), 084101, equation (7).

    Examples
    --------
    >>> round(ratio_density(0.5, "goe"), 6), ratio_density(1.0, "poisson")
    (1.249597, 0.5)
    """
    if ensemble not in MEAN_RATIOS:
        raise ValueError(f"The argument ensemble is {ensemble!r}, but must be 'poisson', 'goe', 'gue' or 'gse'.")
    r = np.asarray(ratio, dtype=np.float64)
    inside = (r >= 0) & (r <= 1)
    at = np.where(inside, r, 0.0)
    if ensemble == "poisson":
        out = 2 / (1 + at) ** 2
    else:
        beta = _BETAS[ensemble]
        root3 = math.sqrt(3)
        norm = {1: 8 / 27, 2: 4 * math.pi / (81 * root3), 4: 4 * math.pi / (729 * root3)}[beta]
        out = 2 / norm * (at + at**2) ** beta / (1 + at + at**2) ** (1 + 1.5 * beta)
    return like(np.where(inside, out, np.where(np.isnan(r), np.nan, 0.0)))


@register("spacing ratios")
@dataclasses.dataclass(frozen=True, eq=False)
class SpacingRatios:
    """Ratios of consecutive spacings of a list of eigenvalues.

    Attributes
    ----------
    ratios : numpy.ndarray
        The smaller over the larger of each pair of neighbouring spacings, between 0 and 1, in the order of the eigenvalues.
    mean : Estimate
        Their mean with its standard error, which accounts for the correlation of neighbours.
    p_values : dict of str to float
        For each class the two-sided chance of a mean as far from its reference value.
    num_degenerate : int
        Eigenvalues that repeat another within the tolerance and were dropped.
    seconds : float
        Wall-clock time.
    """

    ratios: np.ndarray
    mean: Estimate
    p_values: dict[str, float]
    num_degenerate: int
    seconds: float = 0.0

    @property
    def num_matvecs(self) -> int:
        """Products with an operator: none."""
        return 0

    @property
    def nearest(self) -> str:
        """The class whose reference value is nearest to the mean."""
        return min(MEAN_RATIOS, key=lambda name: abs(MEAN_RATIOS[name] - self.mean.value))

    def __str__(self) -> str:
        names = {"poisson": "independent eigenvalues", "goe": "real random matrices (GOE)", "gue": "complex ones (GUE)", "gse": "GSE"}
        fits = [names[name] for name, p in self.p_values.items() if p >= 0.01]
        text = f"The mean spacing ratio is {self.mean.value:.4f} ± {self.mean.standard_error:.4f} ({len(self.ratios)} ratios), "
        text += f"consistent with {' and '.join(fits)}." if fits else f"like none of the classes; the nearest is {names[self.nearest]}."
        if self.num_degenerate:
            text += f" {self.num_degenerate} repeated eigenvalue{'s were' if self.num_degenerate != 1 else ' was'} dropped."
        return text

    def _repr_html_(self) -> str:
        rows = [("mean ratio", str(self.mean)), *((f"p-value, {name}", f"{p:.3g}") for name, p in self.p_values.items())]
        return html_table([*rows, ("repeated eigenvalues dropped", f"{self.num_degenerate}")])

    def plot(self, path: PathLike | None = None, ax: Any = None) -> Any:
        """Draw the histogram of the ratios under the densities of the classes; needs matplotlib.

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
        from ...plots.law import ratio_histogram

        grid = np.linspace(0, 1, 201)
        curves = {name: (grid, np.asarray(ratio_density(grid, name))) for name in ("poisson", "goe", "gue")}
        axes = ratio_histogram(self.ratios, curves, ax, title=f"mean {self.mean.value:.4f} ± {self.mean.standard_error:.4f}")
        if path is not None:
            figure: Any = axes.figure
            figure.savefig(path)
        return axes

    def save(self, path: PathLike) -> None:
        """Write the ratios to `path` (``.npz``); `linop_spectra.load` reads them back."""
        scalars = {"mean": dataclasses.asdict(self.mean), "p_values": self.p_values, "num_degenerate": self.num_degenerate}
        save_result(path, "spacing ratios", {**scalars, "seconds": self.seconds}, {"ratios": self.ratios})

    @classmethod
    def _from_file(cls, scalars: dict[str, Any], arrays: dict[str, np.ndarray]) -> SpacingRatios:
        return cls(arrays["ratios"], Estimate(**scalars.pop("mean")), **scalars)


def spacing_ratios(eigenvalues: Any, *, tolerance: float | None = None) -> SpacingRatios:
    """Ratios of consecutive spacings, their mean, and the class of matrices that it fits.

    The ratio of neighbouring spacings does not depend on the density of the eigenvalues, so that nothing has to be unfolded. It takes
    all eigenvalues of a matrix, or all of an interval (nodes of a Gauss rule are none).

    Parameters
    ----------
    eigenvalues : array
        Real eigenvalues in any order, shape (n,) with at least three different ones. Leave outliers away: their spacings are not those of
        neighbours.
    tolerance : float, optional
        Eigenvalues within this distance of their lower neighbour are taken as one that repeats, and dropped; by default
        ``8 eps sqrt(n)`` times the largest modulus, rounding in double precision. Exact multiplicities are a symmetry, no local statistics.

    Returns
    -------
    SpacingRatios
        Ratios, mean with standard error, and p-values for independent eigenvalues, GOE, GUE and GSE.

    Raises
    ------
    ValueError
        When the eigenvalues are not real numbers of shape (n,), not finite, or too few are different.
    TypeError
        When a spectral density is passed: its nodes are no eigenvalues.

    References
    ----------
    V. Oganesyan and D. A. Huse, Phys. Rev. B 75 (2007), 155111; Atas et al. (2013), see `ratio_density`.

    Examples
    --------
    >>> import numpy as np
    >>> poisson = spacing_ratios(np.random.default_rng(1).uniform(size=4000))
    >>> poisson.nearest, poisson.p_values["poisson"] > 0.01, poisson.p_values["goe"] < 1e-6
    ('poisson', True, True)
    """
    began = time.perf_counter()
    if hasattr(eigenvalues, "nodes"):
        raise TypeError(
            "The argument eigenvalues is a spectral density, whose nodes are not eigenvalues; pass all eigenvalues of a matrix that can be "
            "written down, such as numpy.linalg.eigvalsh(A.to_dense())."
        )
    values = np.asarray(eigenvalues)
    if values.ndim != 1 or values.dtype.kind not in "iuf":
        raise ValueError(
            f"The argument eigenvalues must be a 1-D array of real numbers, but has shape {values.shape} and dtype {values.dtype}."
        )
    values = np.sort(values.astype(np.float64))
    if not np.all(np.isfinite(values)):
        raise ValueError("The argument eigenvalues holds NaN or infinity; leave such values out.")
    largest = float(np.max(np.abs(values), initial=0.0))
    if tolerance is None:
        smallest = 8 * float(np.finfo(np.float64).eps) * math.sqrt(max(len(values), 1)) * largest
    else:
        smallest = 0.0 if tolerance == 0 else check_positive("tolerance", tolerance, "the distance of equal eigenvalues")
    distinct = values[np.concatenate([[True], np.diff(values) > smallest])] if len(values) else values
    if len(distinct) < _LEAST:
        raise ValueError(
            f"The argument eigenvalues has {len(distinct)} different values among {len(values)}; a spacing ratio needs at least three."
        )
    gaps = np.diff(distinct)
    ratios = np.minimum(gaps[:-1], gaps[1:]) / np.maximum(gaps[:-1], gaps[1:])
    error = _standard_error(ratios)
    mean = Estimate(float(ratios.mean()), standard_error=error, method="mean of the spacing ratios")
    return SpacingRatios(ratios, mean, _class_p_values(mean.value, error), len(values) - len(distinct), time.perf_counter() - began)


def _standard_error(ratios: np.ndarray) -> float:
    """Standard error of the mean, with the covariance of ratios that share a spacing or have neighbouring ones."""
    m = len(ratios)
    if m < 2:
        return math.nan
    centred = ratios - ratios.mean()
    variance = float(centred @ centred) / (m - 1)
    # Two lags, weighted as by Newey and West (1987), which keeps the sum from being negative.
    for lag in range(1, min(3, m - 1)):
        variance += 2 * (1 - lag / 3) * float(centred[lag:] @ centred[:-lag]) / m
    return math.sqrt(max(variance, 0.0) / m)


def _class_p_values(mean: float, error: float) -> dict[str, float]:
    from scipy import stats

    if not error > 0:
        return dict.fromkeys(MEAN_RATIOS, math.nan)
    return {name: float(2 * stats.norm.sf(abs(mean - value) / error)) for name, value in MEAN_RATIOS.items()}
