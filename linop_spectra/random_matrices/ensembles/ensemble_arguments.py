"""What the ensembles ask of their arguments."""

from __future__ import annotations

import numbers
from typing import Any, Literal

import numpy as np

from ..._memory import format_bytes, parse_budget
from ...backends import Backend, get_backend
from ..laws.law import check_whole

Ensemble = Literal["goe", "gue"]


def check_seed(seed: Any) -> int:
    """A whole number of at least zero, or a ValueError."""
    if isinstance(seed, (bool, np.bool_)) or not isinstance(seed, numbers.Integral) or seed < 0:
        raise ValueError(f"The argument seed must be a whole number of at least 0, but is {seed!r}.")
    return int(seed)


def ensemble_dtype(ensemble: Any, dtype: Any) -> np.dtype:
    """The type of the entries of a real symmetric (``"goe"``) or complex Hermitian (``"gue"``) matrix."""
    if not isinstance(ensemble, str) or ensemble not in ("goe", "gue"):
        raise ValueError(f"The argument ensemble is {ensemble!r}, but must be 'goe' (real symmetric) or 'gue' (complex Hermitian).")
    wanted = "f" if ensemble == "goe" else "c"
    resolved = np.dtype(({"f": np.float64, "c": np.complex128}[wanted]) if dtype is None else dtype)
    if resolved.kind != wanted:
        raise TypeError(
            f"The argument dtype is {resolved}, but ensemble={ensemble!r} needs a {'real' if wanted == 'f' else 'complex'} floating type; "
            "'goe' is real symmetric, 'gue' complex Hermitian."
        )
    return resolved


def check_real(dtype: Any, why: str) -> np.dtype:
    """A real floating type of vectors, or a TypeError."""
    resolved = np.dtype(dtype)
    if resolved.char not in "fd":
        raise TypeError(f"The argument dtype is {resolved}, but {why}; pass float32 or float64.")
    return resolved


def real_numbers(name: str, values: Any, *, least: float | None = None) -> np.ndarray:
    """Finite real numbers, shape (n,) with n at least one, as float64; or a ValueError that names the argument."""
    try:
        numbers_given = np.asarray(values)
    except ValueError:  # rows of several lengths
        numbers_given = np.asarray(None)
    if numbers_given.dtype.kind not in "iuf" or numbers_given.ndim != 1 or numbers_given.size == 0:
        raise ValueError(
            f"The argument {name} must be real numbers, shape (n,), but has shape {numbers_given.shape} and dtype {numbers_given.dtype}."
        )
    result = numbers_given.astype(np.float64)
    if not np.all(np.isfinite(result)):
        raise ValueError(f"The argument {name} must be finite, but entry {int(np.argmin(np.isfinite(result)))} is not.")
    if least is not None and result.min() < least:
        raise ValueError(f"The argument {name} must be at least {least:g}, but its smallest entry is {result.min():g}.")
    return result


def numbers_or_law(name: str, values: Any, count_name: str, count: Any, *, least: float | None = None) -> np.ndarray:
    """Numbers as they are, or the quantiles at ``(i + 1/2) / count`` of a law."""
    if hasattr(values, "quantile"):
        if count is None:
            raise ValueError(f"The argument {name} is a law, of which any number of quantiles can be taken; pass {count_name}= too.")
        number = check_whole(count_name, count, 1)
        return real_numbers(name, values.quantile((np.arange(number) + 0.5) / number), least=least)
    result = real_numbers(name, values, least=least)
    if count is not None and check_whole(count_name, count, 1) != len(result):
        raise ValueError(f"The argument {count_name} is {count}, but {name} has {len(result)} entries; leave {count_name} out.")
    return result


def budget_in_bytes(memory_budget: int | float | str | None, backend: str | Backend | None) -> int:
    """The memory budget in bytes, of the device where a backend keeps its arrays."""
    return parse_budget(memory_budget, total=get_backend(backend).total_memory())


def check_fits(what: str, size: float, budget: int, instead: str) -> None:
    """MemoryError when an ensemble that must be held takes more than the budget."""
    if size > budget:
        raise MemoryError(
            f"{what} takes {format_bytes(size)}, over the budget of {format_bytes(budget)}; "
            f"pass memory_budget= to allow more, or {instead}."
        )
