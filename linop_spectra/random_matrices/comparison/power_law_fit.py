"""Fit of a power law to the tail of a spectrum, with its goodness of fit and its rivals."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import numpy as np

from ..laws.law import check_positive, check_whole
from ..laws.power_law import PowerLaw

_LEAST_TAIL = 10
_MOST_LOWERS = 200


@dataclasses.dataclass(frozen=True)
class LikelihoodRatio:
    """Vuong's comparison of a power law with another law on the same tail.

    Attributes
    ----------
    alternative : str
        The other law.
    log_ratio : float
        Log-likelihood of the power law less that of the other, each at its own best parameters.
    statistic : float
        The same over its standard error: standard normal where both are equally far from the truth. Positive favours the power law.
    p_value : float
        Two-sided: that the sign is chance. Where it is not small the data do not tell the two apart.
    """

    alternative: str
    log_ratio: float
    statistic: float
    p_value: float


@dataclasses.dataclass(frozen=True)
class PowerLawFit:
    """A power law fitted to the values above a lower end.

    Attributes
    ----------
    exponent : float
        Of the density, by maximum likelihood.
    standard_error : float
        Of the exponent, ``(exponent - 1) / sqrt(num_tail)``, for independent values. Eigenvalues repel each other and vary less.
    lower : float
        Where the power law begins.
    num_tail : int
        Values at or above it.
    kolmogorov : float
        Largest distance between the distribution functions of the tail and of the fit.
    p_value : float or None
        Share of samples drawn from the fit, and fitted anew, that are as far from their fit. Below 0.1 the power law is ruled out;
        a large value does not prove it. None without a bootstrap.
    tail : numpy.ndarray
        The values at or above `lower`, ascending, shape (num_tail,).
    """

    exponent: float
    standard_error: float
    lower: float
    num_tail: int
    kolmogorov: float
    p_value: float | None
    tail: np.ndarray = dataclasses.field(repr=False, compare=False)

    @property
    def law(self) -> PowerLaw:
        """The fitted law of the tail."""
        return PowerLaw(exponent=self.exponent, lower=self.lower)

    @property
    def rank_exponent(self) -> float:
        """The s where the eigenvalues fall off with their rank like ``i^-s``: ``1 / (exponent - 1)``."""
        return 1 / (self.exponent - 1)

    def likelihood_ratio(self, alternative: Literal["exponential", "lognormal"] = "lognormal") -> LikelihoodRatio:
        """Comparison with another law of the same tail: a shifted exponential, or a lognormal cut off at `lower`.

        The lognormal has the power law as a limit: where the power law holds, their likelihoods are about equal.

        Parameters
        ----------
        alternative : {"exponential", "lognormal"}
            The other law.

        Returns
        -------
        LikelihoodRatio
            Its sign says which law is nearer, its p-value whether that can be told.

        Raises
        ------
        ValueError
            When the alternative is not one of these.

        References
        ----------
        Q. H. Vuong, *Likelihood ratio tests for model selection and non-nested hypotheses*, Econometrica 57 (1989).
        """
        if alternative not in ("exponential", "lognormal"):
            raise ValueError(f'The argument alternative must be "exponential" or "lognormal", but is {alternative!r}.')
        from scipy import special

        logs = np.log(self.tail / self.lower)
        own = math.log((self.exponent - 1) / self.lower) - self.exponent * logs
        if alternative == "exponential":
            scale = float(np.mean(self.tail - self.lower))
            other = -math.log(scale) - (self.tail - self.lower) / scale
        else:
            other = _lognormal_log_density(logs) - np.log(self.tail)
        difference = own - other
        total, spread = float(difference.sum()), float(difference.std())
        # Two laws that coincide on the tail differ by rounding only.
        if spread <= 1e-9:
            return LikelihoodRatio(alternative, total, 0.0, 1.0)
        statistic = total / (spread * math.sqrt(self.num_tail))
        return LikelihoodRatio(alternative, total, statistic, float(special.erfc(abs(statistic) / math.sqrt(2))))


def fit_power_law(eigenvalues: Any, lower: float | None = None, *, num_samples: int = 200, seed: int = 0) -> PowerLawFit:
    """Power law of the upper tail of a spectrum, by the method of Clauset, Shalizi and Newman.

    The exponent is that of maximum likelihood, the lower end the one whose tail is nearest its fit, and the p-value that of a
    bootstrap, in which the lower end is sought anew in every sample. Lines fitted to logarithmic histograms, the usual
    way, are biased and come without a test.

    Parameters
    ----------
    eigenvalues : array
        Real values, shape (n,); only the tail of positive values is fitted. For the tail of negative ones pass ``-eigenvalues``.
    lower : float, optional
        Where the tail begins, if that is not to be estimated. An estimated end leaves at least ten values; of more than 200 values,
        200 evenly spaced ranks are tried.
    num_samples : int
        Of the bootstrap: the p-value has a standard error of at most ``1 / (2 sqrt(num_samples))``. With 0 there is none.
    seed : int
        Of the bootstrap.

    Returns
    -------
    PowerLawFit
        With `likelihood_ratio` against other laws.

    Raises
    ------
    ValueError
        When there are fewer than ten values in the tail, they are all equal, are not finite real numbers, or are the nodes of a
        `SpectralDensity`.

    Notes
    -----
    Test and standard error take the values as independent. Eigenvalues are not: exact ranks ``i^-s`` lie nearer to the law than
    any sample, so that a p-value near one is what a power-law spectrum shows.

    References
    ----------
    A. Clauset, C. R. Shalizi and M. E. J. Newman, *Power-law distributions in empirical data*, SIAM Review 51 (2009).

    Examples
    --------
    >>> import numpy as np
    >>> from linop_spectra.random_matrices.comparison.power_law_fit import fit_power_law
    >>> fit = fit_power_law(np.arange(1, 1001) ** -0.5, num_samples=20)
    >>> abs(fit.exponent - 3) < 0.2, fit.p_value > 0.1
    (True, True)
    """
    values = _checked(eigenvalues)
    num_samples = check_whole("num_samples", num_samples, 0)
    if lower is not None:
        lower = check_positive("lower", lower, "where the tail begins")
    count = int(np.sum(values >= lower)) if lower is not None else int(np.sum(values > 0))
    if count < _LEAST_TAIL:
        where = f"at or above lower = {lower}" if lower is not None else "above zero"
        raise ValueError(f"The argument eigenvalues has {count} values {where}, but a power law needs at least {_LEAST_TAIL} to be fitted.")
    fitted = _fit(values, lower)
    if fitted is None:
        raise ValueError("The argument eigenvalues has a tail of equal values, to which no power law can be fitted.")
    exponent, start, distance = fitted
    tail = values[values >= start]
    p_value = None
    if num_samples:
        p_value = _bootstrap(values, lower, fitted, num_samples, np.random.default_rng(check_whole("seed", seed, 0)))
    return PowerLawFit(exponent, (exponent - 1) / math.sqrt(tail.size), start, int(tail.size), distance, p_value, tail)


def _checked(eigenvalues: Any) -> np.ndarray:
    """Ascending real values, or a ValueError."""
    if hasattr(eigenvalues, "nodes") and hasattr(eigenvalues, "weights"):
        raise ValueError(
            "The argument eigenvalues is a measured density, whose nodes are those of a quadrature and no sample of eigenvalues: beyond "
            "the converged ones they stand for many eigenvalues each, at places that the rule chose. Pass eigenvalues, such as those of "
            "eigsh(A, k, which='LA').eigenvalues; the smallest of them can be given as lower."
        )
    values = np.asarray(eigenvalues)
    if values.ndim != 1 or values.dtype.kind not in "iuf" or not np.all(np.isfinite(values)):
        raise ValueError(
            "The argument eigenvalues must be a one-dimensional array of finite real numbers, "
            f"but has shape {values.shape} and type {values.dtype}{'' if values.dtype.kind not in 'iuf' else ', or holds others'}."
        )
    return np.sort(values.astype(np.float64))


def _fit(values: np.ndarray, lower: float | None) -> tuple[float, float, float] | None:
    """Exponent, lower end and Kolmogorov distance of ascending values; None where all tails are of equal values."""
    if lower is not None:
        candidates = np.array([np.searchsorted(values, lower, side="left")])
    else:
        first, last = int(np.searchsorted(values, 0.0, side="right")), values.size - _LEAST_TAIL
        candidates = np.unique(np.linspace(first, last, min(_MOST_LOWERS, last - first + 1)).round().astype(int))
        # A tail begins at the first of equal values.
        candidates = np.unique(np.searchsorted(values, values[candidates], side="left"))
    found: tuple[float, float, float] | None = None
    for index in candidates:
        tail = values[index:]
        start = float(values[index]) if lower is None else lower
        logs = np.log(tail / start)
        mean = float(logs.mean())
        if not mean > 1e-12:
            continue
        share = -np.expm1(-logs / mean)
        steps = np.arange(tail.size + 1) / tail.size
        distance = float(max(np.max(share - steps[:-1]), np.max(steps[1:] - share)))
        if found is None or distance < found[2]:
            found = (1 + 1 / mean, start, distance)
    return found


def _bootstrap(
    values: np.ndarray, lower: float | None, fitted: tuple[float, float, float], num_samples: int, rng: np.random.Generator
) -> float:
    """Share of samples from the fit above its lower end, and from the values below it, that are as far from their own fit."""
    exponent, start, distance = fitted
    body, law = values[values < start], PowerLaw(exponent=exponent, lower=start)
    above = 0
    for _ in range(num_samples):
        count = values.size - body.size if lower is not None else int(rng.binomial(values.size, 1 - body.size / values.size))
        sample = law.quantile(rng.random(count))
        if lower is None and body.size:
            sample = np.concatenate([rng.choice(body, values.size - count), sample])
        again = _fit(np.sort(sample), lower)
        above += again is None or again[2] >= distance
    return above / num_samples


def _lognormal_log_density(logs: np.ndarray) -> np.ndarray:
    """Log-density of logarithms that are normal and cut off at zero, at its best parameters."""
    from scipy import optimize, special

    scale = float(logs.mean())  # the exponential limit: mean far below zero

    def log_density(parameters: np.ndarray) -> np.ndarray:
        mean, spread = parameters[0] * scale, math.exp(parameters[1]) * scale
        t = (logs - mean) / spread
        return np.asarray(-t * t / 2 - math.log(spread) - math.log(2 * math.pi) / 2 - special.log_ndtr(mean / spread))

    # The likelihood is flat towards the power law, a mean of minus infinity; the bounds stop short of it.
    best = optimize.minimize(
        lambda parameters: -log_density(parameters).mean(),
        np.array([float(np.median(logs)) / scale, 0.0]),
        method="L-BFGS-B",
        bounds=[(-200.0, 50.0), (-8.0, 6.0)],
    )
    return log_density(best.x)
