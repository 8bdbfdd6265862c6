"""Section ``slq``: time to a given error of a log-determinant against imate, primate and matfree; time of a product; memory.

The matrices have eigenvalues in closed form. imate takes stored matrices only, so both sides get the same CSR matrix. For each
side, samples at several step counts give the bias and the variance; the cheapest pair (steps, probes) whose predicted
error is the target is run with other seeds, its error is measured, and these runs are timed in turns.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
from core_common import in_turns, profile, ratio, seconds, show, show_profile

import linop_spectra as ls

Estimator = Callable[[int, int, int], float]  # (steps, probes, seed) to the log-determinant
IMATE_NEVER = 1e-15  # no early stop


def grid(side: int) -> tuple[sp.csr_array, float]:
    """Five-point Laplacian of a square grid plus 0.1, and its log-determinant."""
    line = sp.diags_array([-np.ones(side - 1), 2 * np.ones(side), -np.ones(side - 1)], offsets=(-1, 0, 1))
    one = 2 - 2 * np.cos(np.pi * np.arange(1, side + 1) / (side + 1))
    unit = sp.eye_array(side)
    matrix = sp.kron(line, unit) + sp.kron(unit, line) + 0.1 * sp.eye_array(side * side)
    return sp.csr_array(matrix), float(np.sum(np.log(one[:, None] + one + 0.1)))


def with_outliers(side: int) -> tuple[sp.csr_array, float]:
    """A narrow bulk from 1 to 1.08 and thirty eigenvalues from 1e2 to 1e4, as of a kernel matrix plus noise.

    The outliers' vectors are spread over a hundred coordinates each (25 when small). On single coordinates probes of signs would
    see them without any error, which no matrix from practice allows.
    """
    line, _ = grid(side)
    one = 2 - 2 * np.cos(np.pi * np.arange(1, side + 1) / (side + 1))
    outliers, size = np.geomspace(1e2, 1e4, 30), 100 if side > 100 else 25
    bulk = sp.eye_array(side * side) + 0.01 * (line - 0.1 * sp.eye_array(side * side))
    blocks = [np.eye(size) + (value - 1) / size for value in outliers]
    value = np.sum(np.log1p(0.01 * (one[:, None] + one))) + np.sum(np.log(outliers))
    return sp.csr_array(sp.block_diag((bulk, *blocks))), float(value)


def linop_spectra(matrix: Any, reorthogonalize: str) -> Estimator:
    operator = ls.aslinearoperator(matrix, hermitian=True)
    return lambda steps, probes, seed: (
        ls.logdet(operator, num_steps=steps, num_probes=probes, seed=seed, reorthogonalize=reorthogonalize).value
    )


def imate(matrix: Any, orthogonalize: int, threads: int) -> Estimator:
    import imate as peer

    stored = sp.csr_matrix(matrix)
    return lambda steps, probes, seed: float(
        peer.logdet(
            stored, method="slq", min_num_samples=probes, max_num_samples=probes, lanczos_degree=steps, error_rtol=IMATE_NEVER,
            orthogonalize=orthogonalize, seed=seed + 1, num_threads=threads,
        )
    )  # fmt: skip


def primate(matrix: Any) -> Estimator:
    from primate.operators import MatrixFunction
    from primate.trace import hutch

    stored = sp.csr_matrix(matrix)
    return lambda steps, probes, seed: float(
        hutch(MatrixFunction(stored, np.log, deg=steps, dtype=stored.dtype.type), converge="count", count=probes, seed=seed)
    )


class Matfree:
    """One compiled program for each pair (steps, probes); the product is a gather and a segment sum, the fastest of three tried."""

    def __init__(self, matrix: Any, reorthogonalize: str) -> None:
        import jax

        jax.config.update("jax_enable_x64", matrix.dtype.itemsize == 8)
        from jax import numpy as jnp

        self.n, self.dtype, self.reorthogonalize = matrix.shape[0], matrix.dtype, reorthogonalize
        rows = np.repeat(np.arange(self.n), np.diff(matrix.indptr))
        self.stored = tuple(jnp.asarray(x) for x in (matrix.data, matrix.indices, rows))
        self.programs: dict[tuple[int, int], Any] = {}
        self.compile_seconds = 0.0

    def __call__(self, steps: int, probes: int, seed: int) -> float:
        """The log-determinant."""
        import jax

        keys = jax.random.split(jax.random.PRNGKey(seed), probes)
        if (steps, probes) not in self.programs:
            program = jax.jit(self._program(steps))
            self.compile_seconds = seconds(lambda: jax.block_until_ready(program.lower(keys, self.stored).compile()))
            self.programs[steps, probes] = program
            program(keys, self.stored)
        return float(self.programs[steps, probes](keys, self.stored).mean())

    def _program(self, steps: int) -> Any:
        import jax
        from jax import numpy as jnp
        from matfree import decomp, funm, stochtrace

        def product(vector: Any, stored: Any) -> Any:
            data, columns, rows = stored
            return jax.ops.segment_sum(data * vector[columns], rows, num_segments=self.n, indices_are_sorted=True)

        integrand = funm.monte_carlo_funm_sym_logdet(decomp.tridiag_sym(steps, reortho=self.reorthogonalize))
        estimate = stochtrace.estimator_monte_carlo(integrand, stochtrace.sampler_signs(jnp.ones(self.n, self.dtype), num=1))
        return lambda keys, stored: jax.lax.map(lambda key: estimate(product, key, stored), keys)  # one probe at a time: bounded memory


def estimators(matrix: Any, threads: int, *, only: str = "", quiet: bool = False) -> dict[str, Estimator]:
    """Every side that can be imported, with and without reorthogonalisation where it has both."""
    makers: dict[str, Callable[[], Estimator]] = {
        "ours full": lambda: linop_spectra(matrix, "full"),
        "ours none": lambda: linop_spectra(matrix, "none"),
        "imate none": lambda: imate(matrix, 0, threads),
        "imate full": lambda: imate(matrix, -1, threads),
        "primate": lambda: primate(matrix),
        "matfree full": lambda: Matfree(matrix, "full"),
        "matfree none": lambda: Matfree(matrix, "none"),
    }
    made: dict[str, Estimator] = {}
    for label, make in makers.items():
        if only and label != only:
            continue
        try:
            estimator = make()
            estimator(5, 1, 0)
            made[label] = estimator
        except ImportError as error:
            if not quiet:
                print(f"left out: {label} ({error})")
    return made


def budget(
    estimator: Estimator, exact: float, targets: tuple[float, ...], ladder: tuple[int, ...], samples: int, limit: float, unit: int
) -> dict[float, Any]:
    """For each target the cheapest (steps, probes) by bias and variance of single probes; None where no step count is enough.

    The bias of few steps is seen against the most steps with the same probes, and so without their noise; what is left of the
    bias there counts when it is more than three standard errors. A sample is one run of `unit` probes: two for us, who decide on
    multiplicities with a second probe, so that the error of one probe does not tell that of several.
    """
    values: dict[int, np.ndarray] = {}
    cost: dict[int, float] = {}
    began = time.perf_counter()
    for steps in ladder:
        estimator(steps, unit, 0)
        found, times = np.empty(samples), np.empty(samples)
        for index in range(samples):
            start = time.perf_counter()
            found[index] = estimator(steps, unit, 1000 + index)
            times[index] = time.perf_counter() - start
        if np.isfinite(found).all():
            values[steps], cost[steps] = found / exact - 1, float(np.median(times))
        if time.perf_counter() - began > limit:
            break
    if not values:
        return dict.fromkeys(targets)
    most = values[max(values)]
    left = float(np.mean(most))
    left = left if abs(left) > 3 * float(np.std(most, ddof=1)) / np.sqrt(samples) else 0.0
    best: dict[float, Any] = dict.fromkeys(targets)
    for steps, errors in values.items():
        bias = float(np.mean(errors - most)) + left
        for target in targets:
            room = target**2 - bias**2
            if room > 0:
                units = max(1, int(np.ceil(float(np.var(errors, ddof=1)) / room)))
                probes, predicted = unit * units, units * cost[steps]
                if best[target] is None or predicted < best[target]["predicted"]:
                    best[target] = {"steps": steps, "probes": probes, "predicted": predicted, "bias": bias}
    return best


def run(options: Any) -> dict[str, Any]:
    small = options.small
    side, targets, samples, seeds, rounds = (60, (1e-2, 3e-3), 10, 4, 3) if small else (316, (1e-3, 2e-4), 16, 8, 5)
    ladder, limit = ((8, 16, 32, 48), 10.0) if small else ((8, 12, 16, 24, 32, 48, 64, 96), 20.0)
    rounds = options.rounds or rounds
    results: dict[str, Any] = {}
    for title, make in (("grid", grid), ("outliers", with_outliers)):
        for dtype in (np.float64, np.float32):
            matrix, exact = make(side)
            matrix = matrix.astype(dtype)
            name = f"{title} {np.dtype(dtype).name}"
            print(f"{name}: n = {matrix.shape[0]:,}, {matrix.nnz:,} entries, log-determinant {exact:.6g}", flush=True)
            sides = estimators(matrix, options.threads, quiet=bool(results))
            result = results[name] = {"n": matrix.shape[0], "exact": exact}
            result["products"] = per_product(sides, rounds, 10 if small else 20)
            result["profiles"] = profiles(matrix)
            result["targets"] = {str(t): None for t in targets}
            budgets = {
                label: budget(estimator, exact, targets, ladder, samples, limit, 2 if label.startswith("ours") else 1)
                for label, estimator in sides.items()
            }
            for target in targets:
                chosen = {label: budgets[label][target] for label in sides}
                result["targets"][str(target)] = to_error(sides, chosen, exact, target, seeds, rounds, 0.3 if small else 5.0)
    results["memory"] = memory(side, options.threads, 10 if small else 30)
    return {"side": side, "results": results}


def per_product(sides: dict[str, Estimator], rounds: int, probes: int) -> dict[str, Any]:
    """Time of a run of several probes by the number of its products, and ours over imate's and the others'."""
    steps = 30
    calls = {label: (lambda estimator=estimator: estimator(steps, probes, 7)) for label, estimator in sides.items()}
    for call in calls.values():
        call()
    times = {label: values / (steps * probes) for label, values in in_turns(calls, rounds).items()}
    print("   us per product: " + ", ".join(f"{label} {1e6 * np.median(values):.0f}" for label, values in times.items()))
    result: dict[str, Any] = {label: {"seconds": float(np.median(values))} for label, values in times.items()}
    for mine in ("none", "full"):
        for label in ("imate none", "imate full", "primate", f"matfree {mine}"):
            if label in times and not (label.startswith("imate") and label.split()[1] != mine):
                result[f"ours {mine} / {label}"] = ratio(times[f"ours {mine}"], times[label])
                print(f"   per product, ours {mine} / {label}: {show(result[f'ours {mine} / {label}'])}", flush=True)
    return result


def profiles(matrix: Any) -> dict[str, Any]:
    """Where our runs spend their time."""
    result = {}
    for mine in ("none", "full"):

        def make(backend: Any) -> Any:
            return ls.aslinearoperator(matrix, hermitian=True, backend=backend)

        def work(operator: Any, mine: str = mine) -> None:
            ls.logdet(operator, num_steps=30, num_probes=4, reorthogonalize=mine)

        result[mine] = profile(make, work)
        print(f"   profile, ours {mine}, 30 steps x 4 probes: {show_profile(result[mine])}")
    return result


def to_error(
    sides: dict[str, Estimator], chosen: dict[str, Any], exact: float, target: float, seeds: int, rounds: int, longest_run: float
) -> dict[str, Any]:
    """Measured error and time of each side at its own budget, and the ratio of our faster setting to each peer's."""
    result: dict[str, Any] = {}
    unreached: dict[str, Any] = {}
    for label, plan in chosen.items():
        if plan is None:
            print(f"   error {target:.0e}: {label} does not reach it: its bias is larger at every step count tried")
            continue
        if plan["predicted"] > longest_run:
            needed = f"{plan['probes']:,} probes of {plan['steps']} steps, {plan['predicted']:.1f} s"
            print(f"   error {target:.0e}: {label} would need {needed}: not run")
            unreached[label] = plan
            continue
        for _ in range(4):  # the budget was a prediction: twice the probes where the measured error is beyond chance
            errors = [sides[label](plan["steps"], plan["probes"], seed) / exact - 1 for seed in range(seeds)]
            plan["rms_error"] = float(np.sqrt(np.mean(np.square(errors))))
            if plan["rms_error"] <= 1.4 * target:
                result[label] = plan
                break
            plan = {**plan, "probes": 2 * plan["probes"], "predicted": 2 * plan["predicted"]}
        else:
            spent = f"{plan['steps']} steps x {plan['probes'] // 2} probes"
            print(f"   error {target:.0e}: {label} misses it: {plan['rms_error']:.1e} at {spent}")
    if not result:
        return {"not run": unreached}
    calls = {label: (lambda label=label: sides[label](chosen[label]["steps"], chosen[label]["probes"], 3)) for label in result}
    longest = sum(float(plan["predicted"]) for plan in result.values())
    times = in_turns(calls, max(1, min(rounds, int(120 / max(longest, 1e-3)))))
    for label, values in times.items():
        plan = result[label]
        plan["seconds"] = float(np.median(values))
        extra = f", compiling {sides[label].compile_seconds:.1f} s not counted" if isinstance(sides[label], Matfree) else ""
        print(
            f"   error {target:.0e}: {label}: {1e3 * plan['seconds']:.1f} ms ({plan['steps']} steps x {plan['probes']} probes), "
            f"measured {plan['rms_error']:.1e}{extra}"
        )
    ours = min((label for label in times if label.startswith("ours")), key=lambda label: result[label]["seconds"], default=None)
    if ours is not None:
        for label in times:
            if not label.startswith("ours"):
                result[f"{ours} / {label}"] = ratio(times[ours], times[label])
                print(f"   error {target:.0e}: {ours} / {label}: {show(result[f'{ours} / {label}'])}", flush=True)
    return {**result, "not run": unreached}


def peak_memory(label: str, side: int, threads: int, steps: int) -> float | None:
    """Bytes by which one run of two probes raises the resident memory of a fresh process (for matfree, with its compiler's)."""
    matrix, _ = grid(side)
    estimator = estimators(matrix, threads, only=label, quiet=True).get(label)
    if estimator is None:
        return None
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts anew
    before = _status("VmRSS")
    estimator(steps, 2, 0)
    return 1024.0 * (_status("VmHWM") - before)


def _status(name: str) -> float:
    with open("/proc/self/status") as file:
        return next(float(line.split()[1]) for line in file if line.startswith(name + ":"))


def memory(side: int, threads: int, steps: int) -> dict[str, Any]:
    """Peak memory of each side beyond the matrix and the libraries, float64."""
    if not os.path.exists("/proc/self/clear_refs"):
        return {}
    result: dict[str, Any] = {}
    context = multiprocessing.get_context("spawn")
    for label in ("ours full", "ours none", "imate none", "imate full", "primate", "matfree full", "matfree none"):
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            size = pool.submit(peak_memory, label, side, threads, steps).result()
        if size is not None:
            result[label] = {"bytes": size, "vectors": size / (8 * side * side)}
    shown = ", ".join(f"{label} {x['vectors']:.0f}" for label, x in result.items())
    print(f"   memory of a run of {steps} steps and two probes beside the matrix, in vectors: {shown}")
    return {"steps": steps, "probes": 2, **result}
