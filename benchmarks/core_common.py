"""What the sections of core.py share: timing in turns, bandwidth, a backend that times itself, versions."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

import numpy as np
import scipy.linalg
from scipy.linalg import blas

import linop_spectra as ls
from linop_spectra.backends import get_backend

PEERS = {"imate": "imate", "scikit-primate": "primate", "matfree": "matfree"}


def versions(threads: int) -> dict[str, str]:
    """Versions of both sides, threads, processor, and the load that the run began with."""
    found = {"linop_spectra": ls.__version__, "python": platform.python_version(), "threads": str(threads), "cores": str(os.cpu_count())}
    for package in ("numpy", "scipy", "jax", *PEERS):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    if hasattr(os, "getloadavg"):
        found["load"] = f"{os.getloadavg()[0]:.2f}"
    return found


def seconds(function: Callable[[], Any]) -> float:
    """Wall-clock time of one call."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def in_turns(functions: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, np.ndarray]:
    """Times of every function, one call of each per round; the order turns round, so that none always follows the same other."""
    names = list(functions)
    if not names:
        return {}
    times = {name: np.empty(rounds) for name in names}
    for index in range(rounds):
        for name in names[index % len(names) :] + names[: index % len(names)]:
            times[name][index] = seconds(functions[name])
    return times


def ratio(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    """Median of the ratios of the rounds, with the smallest and the largest."""
    ratios = np.asarray(ours) / np.asarray(theirs)
    return {"median": float(np.median(ratios)), "least": float(ratios.min()), "most": float(ratios.max())}


def show(r: Mapping[str, float]) -> str:
    """A ratio with its spread."""
    return f"{r['median']:.2f} ({r['least']:.2f} to {r['most']:.2f})"


def bandwidth(rows: np.ndarray, rounds: int) -> dict[str, float]:
    """Bytes per second of one pass over `rows` by either GEMV, and of ``y += a x`` on the same bytes; the best of several."""
    # Tiny factors, not zero: with zero a BLAS returns without reading anything.
    w, c = np.ones(rows.shape[1], rows.dtype), np.full(rows.shape[0], 1e-30, rows.dtype)
    gemv, axpy = blas.get_blas_funcs(("gemv", "axpy"), (rows,))
    x, y = rows[: len(rows) // 2].reshape(-1), rows[len(rows) // 2 : len(rows) // 2 * 2].reshape(-1)
    calls: dict[str, tuple[Callable[[], Any], float]] = {
        "gemv_t": (lambda: gemv(1.0, rows.T, w, trans=1), rows.nbytes),
        "gemv_n": (lambda: gemv(1.0, rows.T, c, beta=1.0, y=w, overwrite_y=1), rows.nbytes),
        "axpy": (lambda: axpy(x, y, a=1e-30), 3 * x.nbytes),  # two reads and one write
    }
    times = in_turns({name: call for name, (call, _) in calls.items()}, rounds)
    return {name: size / float(times[name].min()) for name, (_, size) in calls.items()}


class TimedBackend(type(get_backend("numpy"))):  # type: ignore[misc]
    """The NumPy backend, which adds up the time spent in its methods, and the basis vectors that Gram-Schmidt reads."""

    METHODS = ("asarray", "gemv_t", "gemv_n_sub", "dot", "norm", "axpy", "scale_into", "combine", "empty", "probes", "fetch")

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.rows_read = 0
        self._inside = 0.0

    def timed(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """`method`, its own time booked under `name` without that of timed calls inside it."""

        def call(*args: Any, **kwargs: Any) -> Any:
            if name == "gemv_t":
                self.rows_read += args[0].shape[0]
            outside, self._inside = self._inside, 0.0
            began = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                passed = time.perf_counter() - began
                self.spent[name] += passed - self._inside
                self.calls[name] += 1
                self._inside = outside + passed

        return call

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        return self.timed(name, value) if name in TimedBackend.METHODS else value

    @contextlib.contextmanager
    def small_problems(self) -> Iterator[None]:
        """Book the dense eigenproblems of the host as well."""
        with contextlib.ExitStack() as stack:
            for module, name in ((np.linalg, "eigh"), (scipy.linalg, "eigh"), (scipy.linalg, "eigh_tridiagonal")):
                stack.enter_context(mock.patch.object(module, name, self.timed("small eigenproblems", getattr(module, name))))
            yield


def profile(make: Callable[[Any], Any], work: Callable[[Any], Any]) -> dict[str, Any]:
    """Where `work` on the operator of `make` spends its time: products, backend, small eigenproblems, and Python between them.

    The whole is the fastest of some runs without any clock inside, so that the clocks' own time is not taken for Python's.
    """
    backend = TimedBackend()
    plain, operator = make(get_backend("numpy")), make(backend)
    operator._matmat = backend.timed("products", operator._matmat)
    totals: list[float] = []
    clocks: list[dict[str, float]] = []
    began = time.perf_counter()
    while len(totals) < 2 or (len(totals) < 9 and time.perf_counter() - began < 2.0):
        totals.append(seconds(lambda: work(plain)))
        backend.spent.clear()
        backend.calls.clear()
        backend.rows_read = 0
        with backend.small_problems():
            work(operator)
        clocks.append(dict(backend.spent.most_common()))
    total, spent = min(totals), min(clocks, key=lambda found: sum(found.values()))
    spent = {**spent, "python between them": max(0.0, total - sum(spent.values()))}
    return {"seconds": total, "spent": spent, "calls": dict(backend.calls), "rows_read": backend.rows_read}


def show_profile(result: Mapping[str, Any]) -> str:
    """Shares in percent, the large ones."""
    shares = {name: value / result["seconds"] for name, value in result["spent"].items()}
    parts = [f"{name} {100 * share:.0f} %" for name, share in sorted(shares.items(), key=lambda item: -item[1]) if share > 0.01]
    return ", ".join(parts)
