"""Planted directions of spiked ensembles."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...backends import to_numpy
from ..laws.law import like
from .ensemble_arguments import real_numbers
from .entries import normal_entries

_TOLERANCE = 1e-6


def planted_spikes(spikes: Any, order: int, *, least: float | None = None) -> np.ndarray:
    """One strength or a list of them as an array, shape (r,) with r at most the order; or a ValueError."""
    values = real_numbers("spikes", np.atleast_1d(np.asarray(spikes)), least=least)
    if len(values) > order:
        raise ValueError(f"The argument spikes has {len(values)} entries, but a matrix of order {order} has at most {order} directions.")
    return values


def planted_directions(directions: Any, order: int, count: int, *, seed: int, dtype: np.dtype) -> np.ndarray:
    """Orthonormal columns, shape (order, count): the given ones after a check, else uniformly random ones."""
    wide = np.dtype(np.complex128 if dtype.kind == "c" else np.float64)
    if directions is None:
        normal = normal_entries(0, order * count, scale=1.0, seed=seed, domain="ensemble/spikes", dtype=wide)
        return uniform_basis(normal.reshape(count, order).T).astype(dtype)
    given = to_numpy(directions)
    given = given[:, None] if given.ndim == 1 else given
    if given.dtype.kind not in "biuf" + ("c" if dtype.kind == "c" else "") or given.shape != (order, count):
        raise ValueError(
            f"The argument directions must be {'real' if dtype.kind != 'c' else 'real or complex'} numbers of shape ({order}, {count}), "
            f"one column for each spike, but has shape {given.shape} and dtype {given.dtype}."
        )
    columns = given.astype(wide)
    error = np.abs(columns.conj().T @ columns - np.eye(count)).max()
    if not error < _TOLERANCE:
        raise ValueError(
            f"The columns of the argument directions must be orthonormal, but their inner products are off by {like(error):.2g}; "
            "pass the Q of numpy.linalg.qr."
        )
    return columns.astype(dtype)


def uniform_basis(normal: np.ndarray) -> np.ndarray:
    """Orthonormal columns that are uniform (Haar) when the entries of `normal` are independent normals (Mezzadri, 2007)."""
    basis, triangle = np.linalg.qr(normal)
    phases = np.diag(triangle).copy()
    moduli = np.abs(phases)
    return basis * np.where(moduli > 0, phases / np.where(moduli > 0, moduli, 1), 1)
