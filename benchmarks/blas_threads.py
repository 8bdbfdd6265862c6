"""Sets of threads that get into each other's way: NumPy's BLAS and SciPy's, and either of them and torch.

Prints, in one run, the time of a Gram-Schmidt pass (two GEMVs) with one BLAS and with two, and of a Hessian product of a
torch model alone, beside GEMVs by torch, and beside GEMVs by a BLAS.
"""

from __future__ import annotations

import json
import pathlib
import time
from collections.abc import Callable

import numpy as np

from linop_spectra.backends import get_backend

N, ROWS, PASSES, REPEATS = 1_000_000, 16, 4, 9


def seconds(function: Callable[[], None]) -> float:
    """Fastest of several calls."""
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> None:
    backend = get_backend("numpy")
    results = {}
    for dtype in (np.float32, np.float64):
        rows = backend.empty((ROWS, N), dtype)
        rows[...] = np.random.default_rng(0).standard_normal(rows.shape) / np.sqrt(N)
        w = rows[0].copy()

        def one_blas(rows: np.ndarray = rows, w: np.ndarray = w) -> None:
            for _ in range(PASSES):
                backend.gemv_n_sub(rows, backend.gemv_t(rows, w), w)

        def two_blas(rows: np.ndarray = rows, w: np.ndarray = w) -> None:
            for _ in range(PASSES):
                backend.gemv_n_sub(rows, rows @ w, w)

        one, two = seconds(one_blas) / PASSES, seconds(two_blas) / PASSES
        rate = 2 * rows.nbytes / one / 1e9
        name = np.dtype(dtype).name
        results[name] = {"one_blas_ms": 1e3 * one, "two_blas_ms": 1e3 * two, "ratio": two / one, "gigabytes_per_second": rate}
        print(f"{name}: {1e3 * one:.2f} ms with one BLAS ({rate:.0f} GB/s), {1e3 * two:.2f} ms with two, ratio {two / one:.2f}")
    results["torch"] = beside_torch()
    path = pathlib.Path(__file__).parent / "results" / "blas_threads.json"
    path.write_text(json.dumps(results, indent=2) + "\n")


def beside_torch() -> dict[str, float] | None:
    """Milliseconds of one Hessian product of an MLP alone and between GEMVs of either kind."""
    try:
        import torch
    except ImportError:
        print("torch is not installed: the second part is left out")
        return None
    import linop_spectra as ls

    torch.manual_seed(0)
    layers = (torch.nn.Linear(784, 512), torch.nn.ReLU(), torch.nn.Linear(512, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10))
    model = torch.nn.Sequential(*layers)
    data = torch.randn(4000, 784), torch.randint(0, 10, (4000,))
    hessian = ls.objective(model, "cross_entropy", data, batch_size=1536).hessian()
    n = hessian.shape[0]
    results: dict[str, float] = {}
    for name, backend in (("alone", None), ("beside GEMVs by torch", hessian.backend), ("beside GEMVs by a BLAS", get_backend("numpy"))):
        rows = hessian.backend.probes(n, range(ROWS), kind="sphere", seed=0, domain="probe", dtype=np.float32)
        w, times = rows[0].copy(), []
        for _ in range(REPEATS):
            if backend is not None:
                backend.gemv_n_sub(rows, backend.gemv_t(rows, w), w)
            began = time.perf_counter()
            hessian.matmat(rows[:1].T)
            times.append(time.perf_counter() - began)
        results[name] = 1e3 * float(np.median(times))
        print(f"Hessian product {name}: {results[name]:.0f} ms, ratio {results[name] / results['alone']:.2f}")
    return results


if __name__ == "__main__":
    main()
