"""Where the Krylov vectors of a run are kept: a plan from sizes and the stated budget, never from a timing."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from typing import Literal, get_args

import numpy as np

from .._memory import DEFAULT_SHARE, format_bytes, parse_budget, total_memory
from ..backends import Backend
from ..operators import LinearOperator
from .basis import EXACT_ROWS, Basis, DenseBasis, StoredBasis
from .selective import LEAST_PAIRS, MOST_ROWS, rows_that_fit, vectors_of

Reorthogonalize = Literal["auto", "full", "compressed", "host", "selective", "none"]
Storage = Literal["full", "compressed", "host", "selective", "none"]
_logger = logging.getLogger("linop_spectra")


@dataclasses.dataclass(frozen=True)
class BasisPlan:
    """What becomes of the vectors of a run.

    Attributes
    ----------
    storage : {"full", "compressed", "host", "selective", "none"}
        As they are; in a narrower type; in the memory of the host; not kept, but orthogonal to eigenvectors that are; or not kept.
    dtype : str
        Real type of the stored numbers.
    bytes : int
        What the vectors take.
    budget : int
        What they may take.
    search_rows : int
        Vectors of the search for eigenvectors, of a selective run.
    """

    storage: Storage
    dtype: str
    bytes: int
    budget: int
    search_rows: int = 0

    @property
    def keeps_vectors(self) -> bool:
        """Whether the vectors of all steps are kept."""
        return self.storage not in ("selective", "none")

    def basis(self, backend: Backend, n: int, dtype: np.dtype) -> Basis:
        """An empty basis of this kind."""
        return make_basis(self.storage, self.dtype, backend, n, dtype)


def make_basis(storage: str, storage_dtype: str, backend: Backend, n: int, dtype: np.dtype) -> Basis:
    """An empty basis for vectors of type `dtype`."""
    if storage == "full":
        return DenseBasis(backend, n, dtype)
    return StoredBasis(backend, n, dtype, storage=storage_dtype, on_host=storage == "host")


def basis_bytes(operator: LinearOperator, num_steps: int, num_probes: int, storage_dtype: str | None = None) -> int:
    """Bytes of the vectors that a run with reorthogonalisation keeps, in the type of the operator or a narrower one."""
    real = np.dtype(operator.dtype.char.lower()).itemsize
    share = np.dtype(storage_dtype).itemsize / real if storage_dtype else 1.0
    return int(num_probes * (num_steps + 1) * operator.shape[0] * operator.dtype.itemsize * share)


def plan_basis(
    operator: LinearOperator, num_steps: int, num_probes: int, reorthogonalize: str, memory_budget: int | float | str | None
) -> BasisPlan:
    """The plan for a run.

    ``"auto"`` takes the first that fits the budget: all vectors as they are; in single precision (of a run in double
    precision); in half precision; in the memory of the host (of a run on a device); a few eigenvectors. Nothing that fits means no
    vectors.

    Raises
    ------
    ValueError
        When `reorthogonalize` is unknown.
    MemoryError
        When what was asked for is over a stated budget.
    """
    if reorthogonalize not in get_args(Reorthogonalize):
        raise ValueError(
            f"The argument reorthogonalize is {reorthogonalize!r}, but must be one of {', '.join(map(repr, get_args(Reorthogonalize)))}."
        )
    budget = parse_budget(memory_budget, total=operator.backend.total_memory())
    own = operator.dtype.char.lower()

    def plan(storage: Storage, dtype: str) -> BasisPlan:
        needed = basis_bytes(operator, num_steps, num_probes, dtype)
        if storage != "full":  # the newest stay as they are
            needed += basis_bytes(operator, EXACT_ROWS - 1, num_probes)
        return BasisPlan(storage, np.dtype(dtype).name, needed, budget)

    full = plan("full", own)
    narrow = [plan("compressed", dtype) for dtype in (["float32", "float16"] if own == "d" else ["float16"])]
    on_device = operator.backend.name != "numpy"
    host = dataclasses.replace(plan("host", own), budget=int(DEFAULT_SHARE * total_memory()))
    own_vectors = 2 * basis_bytes(operator, 0, num_probes)
    one_vector = basis_bytes(operator, 0, 1)

    def selective(rows: int) -> list[BasisPlan]:
        needed = own_vectors + vectors_of(rows) * one_vector
        return [BasisPlan("selective", np.dtype(own).name, needed, budget, rows)] if rows else []

    # The order limits the search: beyond it there is nothing to find.
    room = min(rows_that_fit((budget - own_vectors) // one_vector), operator.shape[0])
    choices = {
        "auto": [full, *narrow, *([host] if on_device else []), *selective(room)],
        "selective": selective(room or min(MOST_ROWS, operator.shape[0])),
        "full": [full],
        "compressed": narrow,
        # Without a device the vectors are in the memory of the host already.
        "host": [host if on_device else full],
        "none": [],
    }[reorthogonalize]
    chosen = next((choice for choice in choices if choice.bytes <= choice.budget), None)
    if chosen is None and reorthogonalize == "auto":
        warnings.warn(
            f"The Lanczos basis of {num_probes} x {num_steps + 1} vectors takes {format_bytes(full.bytes)}, "
            f"{format_bytes(narrow[-1].bytes)} in half precision, over the memory budget of {format_bytes(budget)}: running without "
            "reorthogonalisation. Densities stay right, but Ritz values repeat and are not pinned; take fewer steps or probes, or "
            "pass memory_budget=.",
            stacklevel=4,
        )
    elif chosen is None and choices:
        if memory_budget is not None and reorthogonalize == "selective":
            least = own_vectors + vectors_of(3 * LEAST_PAIRS) * one_vector
            raise MemoryError(
                f"Selective orthogonalisation takes at least {format_bytes(least)} for {num_probes} probes, over the memory budget of "
                f"{format_bytes(budget)}; take fewer probes, raise memory_budget, or use reorthogonalize='none'."
            )
        if memory_budget is not None:
            raise MemoryError(
                f"The Lanczos basis of {num_probes} x {num_steps + 1} vectors takes {format_bytes(choices[-1].bytes)}, over the "
                f"memory budget of {format_bytes(choices[-1].budget)}; take fewer steps or probes, raise memory_budget, or use "
                "reorthogonalize='auto'."
            )
        chosen = choices[-1]
    result = chosen or BasisPlan("none", np.dtype(own).name, own_vectors, budget)
    _logger.info(
        "Lanczos plan: %d steps from %d probes, storage %r in %s, %s of vectors.",
        num_steps, num_probes, result.storage, result.dtype, format_bytes(result.bytes),
    )  # fmt: skip
    return result
