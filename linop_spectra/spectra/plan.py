"""What a run would cost and what its error bars would be, before it is started."""

from __future__ import annotations

import dataclasses
import math
import time
import warnings
from typing import Any, Literal

import numpy as np

from .._memory import format_bytes
from ..backends import Array, Backend
from ..krylov.lanczos import check_count
from ..krylov.selective import most_products, pairs_of
from ..krylov.storage import BasisPlan, plan_basis
from ..operators import aslinearoperator
from ..results import html_table
from .bounds import sampling_interval
from .budget import signal_to_noise
from .slq import DEFAULT_STEPS, default_probes


@dataclasses.dataclass(frozen=True)
class Plan:
    """Cost and expected precision of a spectral density.

    Attributes
    ----------
    dimension : int
        Order n.
    dtype : str
        Type of the vectors.
    num_steps, num_probes : int
        Of the run.
    num_matvecs : int
        Products, the ones that test the operator included, and those of the search for eigenvectors at most.
    first_product_seconds : float
        Time of the first product, which may include what is prepared once; NaN where nothing was timed.
    seconds : float
        Expected time of all products, from one timed product, and of the orthogonalisation; NaN where nothing was timed.
    bytes : int
        Of the Lanczos vectors that the run would keep.
    memory_budget : int
        Bytes allowed for them.
    reorthogonalize : {"full", "compressed", "host", "selective", "none"}
        What the budget allows, as in `linop_spectra.lanczos`.
    interval_width : float
        Full width of the 95 % interval of the share of eigenvalues below the median: sampling, and quadrature for a smooth bulk.
    relative_trace_error : float
        Relative standard error of the trace from these probes if no eigenvalue is pinned, ``sqrt(2) |A|_F / (sqrt(p) |tr A|)``
        (complex: without the first root), from the timed product; NaN where nothing was timed. Pinning makes it smaller.
    """

    dimension: int
    dtype: str
    num_steps: int
    num_probes: int
    num_matvecs: int
    first_product_seconds: float
    seconds: float
    bytes: int
    memory_budget: int
    reorthogonalize: str
    interval_width: float
    relative_trace_error: float

    @property
    def probe_snr(self) -> float:
        """Signal-to-noise ratio of the trace from one probe, ``|tr A| / (sqrt(2) |A|_F)``; see `linop_spectra.spectra.probe_snr`."""
        if self.relative_trace_error == 0:
            return math.inf
        return 1 / (self.relative_trace_error * math.sqrt(self.num_probes))

    def _rows(self) -> list[tuple[str, str]]:
        fits = {
            "full": "fits", "compressed": "fits in a narrower type", "host": "fits in the memory of the host",
            "selective": "two vectors of each probe and some eigenvectors: the basis does not fit, only their eigenvalues are pinned;",
            "none": "two vectors of each probe: the basis does not fit, nothing is pinned",
        }[self.reorthogonalize]  # fmt: skip
        rows = [
            ("operator", f"order {self.dimension:,}, {self.dtype}"),
            ("run", f"{self.num_steps} steps from {self.num_probes} probes"),
            ("products", f"{self.num_matvecs:,}"),
            ("basis", f"{format_bytes(self.bytes)} ({fits} within {format_bytes(self.memory_budget)})"),
            ("expected interval width", f"{self.interval_width:.4f} for the share of eigenvalues below the median (95 %)"),
        ]
        if math.isfinite(self.seconds):
            rows.insert(3, ("expected time", f"{self.seconds:.3g} s (first product {self.first_product_seconds:.3g} s)"))
            rows.append(
                (
                    "trace before pinning",
                    f"relative standard error about {self.relative_trace_error:.2g} (one probe: signal to noise {self.probe_snr:.2g})",
                )
            )
        return rows

    def __str__(self) -> str:
        return "\n".join(f"{name:24s} {value}" for name, value in self._rows())

    def _repr_html_(self) -> str:
        return html_table(self._rows())


def plan(
    A: Any,
    *,
    num_steps: int | None = None,
    num_probes: int | Literal["auto"] = "auto",
    memory_budget: int | float | str | None = None,
    measure: bool = True,
    seed: int = 0,
) -> Plan:
    """Plan a `linop_spectra.spectral_density` without running it.

    Parameters
    ----------
    A : LinearOperator or what `aslinearoperator` takes
        The operator.
    num_steps, num_probes, memory_budget
        As for the run.
    measure : bool
        Whether to time two products (the first may include preparation) with the run's first probe.
    seed : int
        Seed of the probe.

    Returns
    -------
    Plan
        Products, seconds, bytes and the expected width of the interval; prints as a table.

    Examples
    --------
    >>> import numpy as np, linop_spectra as ls
    >>> ls.plan(ls.identity(1000), num_steps=10, num_probes=2).num_matvecs
    21
    """
    operator = aslinearoperator(A)
    backend, n = operator.backend, operator.shape[0]
    if operator.shape[1] != n:
        raise ValueError(f"A spectral density needs a square Hermitian operator, but this one has shape {operator.shape}.")
    steps = min(n, DEFAULT_STEPS if num_steps is None else check_count("num_steps", num_steps))
    probes = default_probes(n) if num_probes == "auto" else check_count("num_probes", num_probes)
    products = steps * probes + (1 if steps > 1 else 0) + (2 if operator.hermitian is None else 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that nothing fits is said in the table
        vectors: BasisPlan = plan_basis(operator, steps, probes, "auto", memory_budget)
    if vectors.storage == "selective":
        products += most_products(vectors.search_rows)
    first = seconds = relative = math.nan
    if measure:
        probe = backend.probes(n, (0,), kind="sphere", seed=seed, domain="probe", dtype=operator.dtype)
        times = []
        for _ in range(2):
            began = time.perf_counter()
            product = operator.matmat(probe.T)
            backend.synchronize()
            times.append(time.perf_counter() - began)
        own = backend.empty((n,), operator.dtype)
        own[...] = product[:, 0]
        alpha, norm = np.real(backend.fetch([backend.dot(probe[0, :], own), backend.norm(own)]))
        first = times[0]
        seconds = max(0.0, times[0] - times[1]) + times[1] * products
        if vectors.storage != "none":
            seconds += _orthogonalisation_seconds(backend, own) * _vectors_passed(vectors, steps, probes)
        ratio = signal_to_noise(float(alpha), float(norm), n, complex_valued=operator.dtype.kind == "c")
        relative = 1 / (ratio * math.sqrt(probes)) if ratio > 0 else math.inf
    half = np.array(0.5)
    low, high = sampling_interval(half, half, n, probes, 0.95, complex_valued=operator.dtype.kind == "c")
    # A smooth bulk gives each of k nodes a weight of about 1/k, and the envelope leaves two of them open.
    width = min(1.0, float(high - low) + (2.0 / steps if steps < n else 0.0))
    return Plan(
        n, str(operator.dtype), steps, probes, products, first, seconds, vectors.bytes, vectors.budget, vectors.storage,
        width, relative,
    )  # fmt: skip


def _vectors_passed(vectors: BasisPlan, steps: int, probes: int) -> float:
    """How many vectors something is orthogonalised against, over the whole run."""
    if vectors.storage == "selective":
        rows = vectors.search_rows
        return most_products(rows) * rows + probes * steps * pairs_of(rows)
    return probes * steps * (steps + 1) / 2


def _orthogonalisation_seconds(backend: Backend, w: Array) -> float:
    """Time of a Gram-Schmidt pass against one vector, from a timed pass against a few."""
    rows = backend.empty((4, w.shape[0]), w.dtype)
    rows[...] = 0
    times = []
    for _ in range(2):
        began = time.perf_counter()
        backend.gemv_n_sub(rows, backend.gemv_t(rows, w), w)
        backend.synchronize()
        times.append(time.perf_counter() - began)
    return min(times) / 4
