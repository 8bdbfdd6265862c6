"""XTrace and XNysTrace as functions of small matrices, and an unbiased estimate of their variance.

Both average m estimates ``t_i`` of the trace. Each takes the trace exactly in a space that the vectors other than i span, and
uses vector i as a probe of what is left (Epperly, Tropp and Webber, *XTrace: making the most of every sample in stochastic
trace estimation*, SIAM J. Matrix Anal. Appl. 45, 2024; sections 2, 3 and, for the probe's length, "resphering" in the supplement).

Standard error
--------------
The spread of the ``t_i`` alone says too little: vector i is a probe in one of them and spans the space in all the others, so
that their errors ``e_i`` are correlated. What the correlation is can be measured without bias. Let ``t_i^(j)`` be the same
estimate without vector j at all. Given all vectors but j, ``e_j`` has mean zero, and ``e_i^(j)`` does not depend on vector j:

    E e_i^(j) e_j = 0,  hence  E e_i e_j = E (t_i - t_i^(j)) (t_j - t_j^(i)),

because the true trace drops out of the differences. With the variance ``s^2`` of the ``t_i``, which has the expectation
``E e_i^2 - E e_i e_j``,

    Var mean(t) = s^2 / m + mean over pairs of (t_i - t_i^(j)) (t_j - t_j^(i))       in expectation, exactly.

The delete-one jackknife of the whole mean overestimates it (Efron and Stein, *The jackknife estimate of variance*, Ann. Stat. 9,
1981), here two to four times in the standard error; the plain spread underestimates it, up to three times.

The second term is noisy where the spectrum decays fast. Neither estimator depends on the lengths of the vectors, which
may thus be taken as Gaussian; Gaussian vectors mixed by a unitary matrix are Gaussian again; and all that is needed are
small matrices. The variance is therefore averaged over a few such mixtures, at no further products. It is never taken below the
average of the first term. Student's t with m - 1 degrees of freedom then covers 92 to 98 % at a nominal 95 % on spectra from flat
to 0.7^i, real and complex, from five vectors on (``tests/estimators/test_leave_out.py``); where there are just as many vectors as
large outliers over a small bulk, 88 %.

All functions take stacks of matrices: leading axes are independent problems.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import special

from ..backends.probes import random_vector

ROTATIONS = 10
_MANY = 100


@dataclasses.dataclass(frozen=True, eq=False)
class RangeForms:
    """What XTrace needs: p vectors that only span and m that also probe, in coordinates of a basis Q of all products.

    Attributes
    ----------
    Y : numpy.ndarray
        Products of the probing vectors ``Q^H A Omega``, shape (..., p + m, m).
    S : numpy.ndarray
        Their duals, columns of ``R^-H`` for the triangular factor R of all products: orthogonal to the products of all other vectors.
    H : numpy.ndarray
        ``Q^H A Q``, shape (..., p + m, p + m).
    W, T : numpy.ndarray
        ``Q^H Omega`` and ``(A Q)^H Omega`` of the probing vectors, shape (..., p + m, m).
    gram : numpy.ndarray
        ``Omega^H Omega`` of the probing vectors, shape (..., m, m).
    n : int
        Order of the operator.
    """

    Y: np.ndarray
    S: np.ndarray
    H: np.ndarray
    W: np.ndarray
    T: np.ndarray
    gram: np.ndarray
    n: int

    @classmethod
    def of(cls, R: np.ndarray, H: np.ndarray, W: np.ndarray, T: np.ndarray, gram: np.ndarray, n: int) -> RangeForms:
        """From the triangular factor R of the products, spanning vectors first, shape (..., p + m, p + m)."""
        p = R.shape[-1] - W.shape[-1]
        return cls(R[..., p:], _h(np.linalg.inv(R))[..., p:], H, W, T, gram, n)

    @property
    def probing(self) -> int:
        """Number m of probing vectors."""
        return int(self.W.shape[-1])

    @property
    def squares(self) -> np.ndarray:
        """Squared lengths of the probing vectors, shape (..., m)."""
        return np.real(_diagonal(self.gram))

    def mixed(self, mixture: np.ndarray, dual: np.ndarray) -> RangeForms:
        """The same for vectors ``Omega @ mixture``; `dual` is the inverse of ``mixture^H``; both of shape (..., m, m)."""
        gram = _h(mixture) @ self.gram @ mixture
        return RangeForms(self.Y @ mixture, self.S @ dual, self.H, self.W @ mixture, self.T @ mixture, gram, self.n)

    def estimates(self) -> tuple[np.ndarray, np.ndarray]:
        """``t_i`` of shape (..., m), and ``t_i^(j)`` at [..., i, j]; the diagonal of the latter holds ``t_i``."""
        Y, H, W, T, n = self.Y, self.H, self.W, self.T, self.n
        m, rank = self.probing, H.shape[-1]
        # Without vector i the space loses the direction s_i.
        S = self.S / np.linalg.norm(self.S, axis=-2, keepdims=True)
        Sh = _h(S)
        A = Sh @ W
        X = W - S * _diagonal(A)[..., None, :]
        K, C = Sh @ H @ S, Sh @ S
        HX = H @ X
        outside = np.sum(W.conj() * Y - X.conj() * Y - T.conj() * X + X.conj() * HX, axis=-2)
        perp = np.maximum(self.squares - np.sum(np.abs(X) ** 2, axis=-2), _ROUNDING * self.squares)
        inside = np.trace(H, axis1=-2, axis2=-1)[..., None] - _diagonal(K)
        t = np.real(inside + (n - rank + 1) / perp * outside)

        # Without vector j too it loses s', the part of s_j that is orthogonal to s_i.
        own = np.eye(m, dtype=bool)
        size = np.where(own, 1.0, np.maximum(1 - np.abs(C) ** 2, _ROUNDING))

        def along(B: np.ndarray) -> np.ndarray:
            """``s'^H b_i`` at [i, j] from ``s_j^H b_i`` at [j, i]."""
            return (np.swapaxes(B, -1, -2) - C.conj() * _diagonal(B)[..., :, None]) / np.sqrt(size)

        Kt = np.swapaxes(K, -1, -2)
        k = (_diagonal(K)[..., None, :] - C.conj() * K - C * Kt + np.abs(C) ** 2 * _diagonal(K)[..., :, None]) / size
        a = along(A)
        change = a.conj() * along(Sh @ Y) + a * along(Sh @ T).conj()
        change = change - a.conj() * along(Sh @ HX) - a * along(Sh @ (_h(H) @ X)).conj() + np.abs(a) ** 2 * k
        both = inside[..., :, None] - k + (n - rank + 2) / (perp[..., :, None] + np.abs(a) ** 2) * (outside[..., :, None] + change)
        return t, np.where(own, t[..., :, None], np.real(both))


@dataclasses.dataclass(frozen=True, eq=False)
class NystromForms:
    """What XNysTrace needs, for a positive definite operator: p vectors that only span and m that also probe.

    Attributes
    ----------
    whole : numpy.ndarray
        Trace of the Nystrom approximation ``Y (Omega^H A Omega)^-1 Y^H`` by all vectors, shape (...).
    inverse : numpy.ndarray
        Of ``Omega^H A Omega``, its block of the probing vectors, shape (..., m, m).
    V : numpy.ndarray
        Gram matrix of the columns of ``Y (Omega^H A Omega)^-1``, likewise.
    rest : numpy.ndarray
        Inverse of ``Omega^H Omega``, likewise.
    squares : numpy.ndarray
        Squared lengths of the probing vectors, shape (..., m).
    count : int
        Number p + m of all vectors.
    n : int
        Order of the operator.
    """

    whole: np.ndarray
    inverse: np.ndarray
    V: np.ndarray
    rest: np.ndarray
    squares: np.ndarray
    count: int
    n: int

    @classmethod
    def of(cls, R: np.ndarray, core: np.ndarray, gram: np.ndarray, n: int, probing: int) -> NystromForms:
        """From small matrices of all vectors, spanning ones first.

        Parameters
        ----------
        R : numpy.ndarray
            Any factor of the products: ``R^H R = Y^H Y``, shape (..., r, p + m).
        core, gram : numpy.ndarray
            ``Omega^H A Omega`` and ``Omega^H Omega``, shape (..., p + m, p + m).
        n : int
            Order of the operator.
        probing : int
            Number m.
        """
        last = slice(core.shape[-1] - probing, None)
        values, vectors = np.linalg.eigh((core + _h(core)) / 2)
        # What is below rounding is rounding, and may not be negative.
        values = np.maximum(values, np.finfo(np.float64).eps * values[..., -1:])
        half = vectors / np.sqrt(values)[..., None, :]
        factor = R @ half
        V = factor @ _h(half[..., last, :])
        return cls(
            np.sum(np.abs(factor) ** 2, axis=(-2, -1)), half[..., last, :] @ _h(half[..., last, :]), _h(V) @ V,
            np.linalg.inv(gram)[..., last, last], np.real(_diagonal(gram))[..., last], core.shape[-1], n,
        )  # fmt: skip

    @property
    def probing(self) -> int:
        """Number m of probing vectors."""
        return int(self.inverse.shape[-1])

    def mixed(self, mixture: np.ndarray, dual: np.ndarray) -> NystromForms:
        """The same for vectors ``Omega @ mixture``; `dual` is the inverse of ``mixture^H``. Lengths are not kept up."""
        inverse, V, rest = (_h(dual) @ B @ dual for B in (self.inverse, self.V, self.rest))
        return dataclasses.replace(self, inverse=inverse, V=V, rest=rest)

    def estimates(self) -> tuple[np.ndarray, np.ndarray]:
        """``t_i`` of shape (..., m), and ``t_i^(j)`` at [..., i, j]; the diagonal of the latter holds ``t_i``."""
        n, m, count, whole, inverse, rest, G = self.n, self.probing, self.count, self.whole, self.inverse, self.rest, self.V
        # One over the diagonal of `rest` is the squared length of a vector that is orthogonal to all others.
        d, g, v = (np.maximum(np.real(_diagonal(B)), _TINY) for B in (inverse, rest, G))
        # Leaving out vector i takes v_i v_i^H / d_i away, and the probe finds 1 / d_i in what is left.
        t = whole[..., None] - v / d + (n - count + 1) * g / d
        own = np.eye(m, dtype=bool)
        share = inverse / d[..., None, :]
        d2 = np.where(own, 1.0, np.maximum(d[..., :, None] - np.abs(inverse) ** 2 / d[..., None, :], _ROUNDING * d[..., :, None]))
        v2 = v[..., :, None] - 2 * np.real(G * share.conj()) + np.abs(share) ** 2 * v[..., None, :]
        g2 = g[..., :, None] - np.abs(rest) ** 2 / g[..., None, :]
        both = whole[..., None, None] - (v / d)[..., None, :] - v2 / d2 + (n - count + 2) * g2 / d2
        return t, np.where(own, t[..., :, None], both)


Forms = RangeForms | NystromForms


def mean_and_variance(forms: Forms, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Estimate of the trace and of its variance, for at least two probing vectors.

    Parameters
    ----------
    forms : RangeForms or NystromForms
        The small matrices, of Gaussian vectors or of vectors on a sphere.
    seed : int
        Of the mixtures.

    Returns
    -------
    tuple of numpy.ndarray
        Mean of the leave-one-out estimates, and its variance; one number for each leading index.
    """
    value = forms.estimates()[0].mean(axis=-1)
    m = forms.probing
    spread, total = [], []
    for rotation in range(ROTATIONS if m <= _MANY else 2):
        t, without = forms.mixed(*_mixture(forms, seed, rotation)).estimates()
        D = t[..., :, None] - without
        spread.append(t.var(axis=-1, ddof=1) / m)
        total.append(spread[-1] + np.sum(D * np.swapaxes(D, -1, -2), axis=(-2, -1)) / (m * (m - 1)))
    return value, np.maximum(np.mean(total, axis=0), np.mean(spread, axis=0))


def _mixture(forms: Forms, seed: int, rotation: int) -> tuple[np.ndarray, np.ndarray]:
    """The lengths of Gaussian vectors instead of those given, times a uniform unitary matrix; and the inverse of its adjoint."""
    m, complex_valued = forms.probing, np.iscomplexobj(forms.gram if isinstance(forms, RangeForms) else forms.rest)
    kind = np.dtype(np.complex128 if complex_valued else np.float64)
    draws = random_vector(m * (m + 1), kind="normal", seed=seed, domain="trace mixture", index=rotation, dtype=kind)
    uniform = special.ndtr(np.real(draws[:m]) * (np.sqrt(2) if complex_valued else 1.0))
    half = 1.0 if complex_valued else 0.5
    stretch = np.sqrt(special.gammaincinv(half * forms.n, uniform) / half / forms.squares)[..., :, None]
    unitary = np.linalg.qr(draws[m:].reshape(m, m))[0]
    return stretch * unitary, unitary / stretch


_TINY = np.finfo(np.float64).tiny
# Differences below this are rounding: two vectors take the same direction away from the space.
_ROUNDING = 100 * np.finfo(np.float64).eps


def _h(x: np.ndarray) -> np.ndarray:
    return np.swapaxes(x, -1, -2).conj()


def _diagonal(x: np.ndarray) -> np.ndarray:
    return np.diagonal(x, axis1=-2, axis2=-1)
