"""Section ``lanczos``: what a run costs beyond its products, in units of the time that memory needs for it."""

from __future__ import annotations

from typing import Any

import numpy as np
from core_common import bandwidth, in_turns, profile, ratio, seconds, show, show_profile

import linop_spectra as ls


def floor_bytes(n: int, k: int, itemsize: int) -> int:
    """Bytes that k steps must move: one Gram-Schmidt pass reads all vectors so far twice; the recurrence moves six vectors."""
    return (k * (k + 1) + 6 * k) * n * itemsize


def run(options: Any) -> dict[str, Any]:
    n, k, rounds = (100_000, 60, 3) if options.small else (1_000_000, 100, 7)
    rounds = options.rounds or rounds
    results = {}
    for dtype in (np.float32, np.float64):
        diagonal = np.linspace(0.0, 1.0, n, dtype=dtype)
        diagonal[-10:] += np.arange(1, 11, dtype=dtype)  # a bulk and ten outliers, as of a trained network
        results[np.dtype(dtype).name] = measure(diagonal, k, rounds)
    return {"n": n, "k": k, "rounds": rounds, "target": 1.3, "dtypes": results}


def measure(diagonal: np.ndarray, k: int, rounds: int) -> dict[str, Any]:
    n, dtype = len(diagonal), diagonal.dtype
    A = ls.diagonal_operator(diagonal)
    vector = A.backend.empty((1, n), dtype)
    vector[...] = 1 / np.sqrt(n)

    def products() -> None:
        for _ in range(k):
            A.matmat(vector.T)

    rows = A.backend.empty((k, n), dtype)
    first_touch = seconds(lambda: rows.fill(1.0))
    again = seconds(lambda: rows.fill(1.0))
    rates: dict[str, float] = {}

    def memory() -> None:
        for name, rate in bandwidth(rows, 1).items():
            rates[name] = max(rate, rates.get(name, 0.0))

    def lanczos() -> None:
        ls.lanczos(A, k, reorthogonalize="full")

    lanczos()
    times = in_turns({"lanczos": lanczos, "products": products, "memory": memory}, rounds)
    # Two floors: at the best rate that anything reached, and at that of the better GEMV, which is what BLAS offers for the pass.
    needed = floor_bytes(n, k, dtype.itemsize)
    floor, gemv_floor = needed / max(rates.values()), needed / max(rates["gemv_t"], rates["gemv_n"])
    overhead = times["lanczos"] - times["products"]
    result, gemv_result = ratio(overhead, np.full(rounds, floor)), ratio(overhead, np.full(rounds, gemv_floor))
    where = profile(lambda backend: ls.diagonal_operator(diagonal, backend=backend), lambda A: ls.lanczos(A, k, reorthogonalize="full"))
    passes = where["rows_read"] / (k * (k + 1) / 2)
    print(
        f"{dtype.name}, n = {n:,}, k = {k}: run {np.median(times['lanczos']):.3f} s, products {np.median(times['products']):.3f} s, "
        f"floor {floor:.3f} s at {max(rates.values()) / 1e9:.1f} GB/s: overhead / floor = {show(result)}, target below 1.3"
    )
    print(f"   against the floor at the rate of the better GEMV, {gemv_floor:.3f} s: {show(gemv_result)}")
    print("   bandwidth, GB/s: " + ", ".join(f"{name} {rate / 1e9:.1f}" for name, rate in rates.items()))
    print(f"   {show_profile(where)}; Gram-Schmidt passes per step: {passes:.2f}")
    print(f"   the basis's memory, written for the first time: {first_touch:.3f} s, again: {again:.3f} s")
    return {
        "overhead_over_floor": result, "overhead_over_gemv_floor": gemv_result, "gemv_floor_seconds": gemv_floor,
        "seconds": {name: list(value) for name, value in times.items() if name != "memory"},
        "floor_seconds": floor, "bytes_per_second": rates, "profile": where, "passes_per_step": passes,
        "first_touch_seconds": first_touch, "second_touch_seconds": again,
    }  # fmt: skip
