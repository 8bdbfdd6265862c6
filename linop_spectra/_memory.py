"""Memory budgets: bytes or text such as "4GB"; by default a fixed share of the machine's total memory.

The default depends on the total, never on what happens to be free, so that the same run takes the same plan twice.
"""

from __future__ import annotations

import os
import re

DEFAULT_SHARE = 0.4
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def total_memory() -> int:
    """Physical memory of the host in bytes."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):  # not every system answers
        return 8 * 2**30


def parse_budget(budget: int | float | str | None, *, total: int | None = None) -> int:
    """Turn a memory budget into bytes.

    Parameters
    ----------
    budget : int, float, str or None
        Bytes, text such as ``"4GB"``, ``"512 MiB"``; None is 40 % of the total memory.
    total : int, optional
        Total memory in bytes that None refers to; the host's when not given.

    Returns
    -------
    int
        Bytes.

    Raises
    ------
    ValueError
        When the text is no amount of memory or the amount is not positive.

    Examples
    --------
    >>> parse_budget("4GB"), parse_budget("512 MiB"), parse_budget(1e6)
    (4000000000, 536870912, 1000000)
    """
    if budget is None:
        return int(DEFAULT_SHARE * (total_memory() if total is None else total))
    if isinstance(budget, str):
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMGT]?I?)B?\s*", budget.upper())
        if match is None:
            raise ValueError(f"The argument memory_budget is {budget!r}, which is no amount of memory; write bytes or text such as '4GB'.")
        amount = float(match.group(1)) * _UNITS[match.group(2)]
    else:
        amount = float(budget)
    if not 0 < amount < float("inf"):
        raise ValueError(f"The argument memory_budget must be positive, but is {budget!r}; write bytes or text such as '4GB'.")
    return int(amount)


def format_bytes(amount: float) -> str:
    """Bytes for people, in decimal units.

    Examples
    --------
    >>> format_bytes(2_140_000_000)
    '2.14 GB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if abs(amount) < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"
