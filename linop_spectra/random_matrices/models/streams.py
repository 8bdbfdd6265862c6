"""Seeds of the parts of a model, each apart from the others and from the user's own seeds."""

from __future__ import annotations

import hashlib
import numbers
from typing import Any

import numpy as np

from ..ensembles.entries import normal_entries


def derived_seed(seed: Any, domain: str, index: int) -> int:
    """The seed of one part of a model: a hash of the user's seed, what the part is for, and its number.

    Raises
    ------
    ValueError
        When the seed is no whole number of at least 0.

    Examples
    --------
    >>> derived_seed(0, "batch", 1) == derived_seed(0, "batch", 1) != derived_seed(0, "batch", 2)
    True
    """
    seed = check_seed(seed)
    return int.from_bytes(hashlib.sha256(f"{seed}/{domain}/{index}".encode()).digest()[:8], "little")


def normal_array(shape: tuple[int, ...], *, scale: float, seed: Any, domain: str, dtype: Any = np.float64) -> np.ndarray:
    """Independent normals of standard deviation `scale`, in C order of the stream of (seed, domain)."""
    resolved, count = np.dtype(dtype), int(np.prod(shape))
    if count == 0:
        return np.zeros(shape, resolved)
    return normal_entries(0, count, scale=scale, seed=check_seed(seed), domain=domain, dtype=resolved).reshape(shape)


def check_seed(seed: Any) -> int:
    """A whole number of at least 0, or a ValueError."""
    if isinstance(seed, (bool, np.bool_)) or not isinstance(seed, numbers.Integral) or seed < 0:
        raise ValueError(f"The argument seed must be a whole number of at least 0, but is {seed!r}.")
    return int(seed)
