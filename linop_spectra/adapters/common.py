"""What every adapter needs: choosing parameters by name, and checking simple arguments."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


def matching_names(names: Iterable[str], patterns: str | Sequence[str] | None) -> list[str]:
    """Names that match at least one pattern, in their own order; all of them for None.

    Raises
    ------
    ValueError
        When a pattern matches nothing.

    Examples
    --------
    >>> matching_names(["0.weight", "0.bias", "2.weight"], "*.weight")
    ['0.weight', '2.weight']
    """
    names = list(names)
    if patterns is None:
        return names
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise ValueError(
                f"The argument parameters holds {pattern!r}, which matches no trainable parameter; available are {listed(names)}."
            )
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


def listed(names: Sequence[str], limit: int = 12) -> str:
    """Names for an error message.

    Examples
    --------
    >>> listed(["a", "b", "c"], limit=2)
    "'a', 'b' and 1 more"
    """
    if not names:
        return "none"
    shown = ", ".join(repr(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def check_batch_size(batch_size: Any) -> None:
    """Raise unless `batch_size` is None or a positive integer."""
    integer = isinstance(batch_size, int | np.integer) and not isinstance(batch_size, bool)
    if batch_size is not None and not (integer and batch_size >= 1):
        raise ValueError(f"The argument batch_size is {batch_size!r}, but must be a positive integer, or None for one batch.")


def check_weight_decay(weight_decay: Any) -> float:
    """`weight_decay` as a number."""
    try:
        value = float(weight_decay)
    except (TypeError, ValueError) as error:
        raise TypeError(f"The argument weight_decay is {weight_decay!r}, but must be a number.") from error
    if not math.isfinite(value):
        raise ValueError(f"The argument weight_decay is {weight_decay!r}, but must be finite.")
    return value


NO_RUNNING_STATISTICS = (
    "The argument batch_norm is 're-estimate', but no batch normalisation layer of the model uses running statistics: there is none, or "
    "the objective was made with batch_norm='train'; leave the argument out."
)
HIDDEN_STATISTICS = (
    "The argument batch_norm is 're-estimate', but a {kind} hides its running statistics, if it has any, from whoever calls it; {fix}, or "
    "keep them (batch_norm='keep')."
)
