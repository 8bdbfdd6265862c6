"""The tasks of products.py, one network and number of batches at a time: times in turns, errors, and memory in fresh processes."""

# ruff: noqa: D102 -- a method is the section of its name

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import pathlib
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

import numpy as np
import scipy.sparse.linalg
from core_common import in_turns, ratio, show

SECTIONS = ("gradient", "hessian", "ggn", "build", "slq", "top")
AGREE = 1e-4
AGREE_ACROSS_KINKS = 5e-3
"""The same where two compilers round inputs of ReLU or of max pooling near their kinks to different sides."""
WRONG_FOR_LAYER_NORM = "curvlinops (its Hessian takes forward mode through jacrev, which torch gets wrong for layer normalisation)"

# Of curvlinops' time, by network and number of batches; of one gradient, by framework.
PEER_TARGETS = {
    "hessian": {"mlp": {1: 0.45, 8: 0.35}, "cnn": 0.6, "cnn_bn": 0.6, "gpt": 0.6},
    "ggn": {"mlp": 0.6, "cnn": 0.6, "cnn_bn": 0.6, "gpt": 0.6},
    "slq": {"mlp": {1: 0.5, 8: 0.45}, "cnn": {1: 0.5, 8: 0.7}, "cnn_bn": {1: 0.5, 8: 0.7}, "gpt": 0.5},
    "top": {"mlp": 0.35, "cnn": 0.35, "cnn_bn": 0.35, "gpt": 0.35},
}
GRADIENT_TARGETS = {
    "torch": {"hessian": {"mlp": 2.4, "cnn": 2.4, "cnn_bn": 2.4, "gpt": 2.6}, "ggn": 1.5, "build": 1.0},
    "jax": {"hessian": 1.8, "ggn": 1.3},
}


def seconds(function: Callable[[], Any], clock: Callable[[], float]) -> float:
    """Time of one call."""
    began = clock()
    function()
    return clock() - began


def target(table: Any, *keys: Any) -> float | None:
    """The entry of a nested table that may stop early."""
    for key in keys:
        if isinstance(table, Mapping):
            table = table.get(key)
    return None if isinstance(table, Mapping) else table


def verdict(measured: float, wanted: float | None) -> str:
    """A target with MET or MISSED."""
    return "" if wanted is None else f" [at most {wanted:g}: {'MET' if measured <= wanted else 'MISSED'}]"


class Bench:
    """Times of one framework's sides on one problem."""

    def __init__(self, framework: str, name: str, num_batches: int, options: Any) -> None:
        from products_models import problem

        self.framework, self.options = framework, options
        self.clock = time.process_time if options.cpu_time else time.perf_counter
        self.problem = problem(name, num_batches, small=options.small)
        self.sides, missing = _sides(framework, self.problem)
        for line in missing:
            print(line)
        if options.small:
            for side in self.sides.values():
                side.steps = 12
        self.ours = "ours" if framework == "torch" else "ours in jax"
        self.peer = "curvlinops" if framework == "torch" else "matfree"
        self.unit = _gradient(framework, self.problem, self.sides)
        self.v = np.random.default_rng(1).standard_normal(self.problem.num_parameters).astype(np.float32)
        self.results: dict[str, Any] = {"name": name, "batches": num_batches, "framework": framework, "missing": missing}
        self.results["parameters"] = self.problem.num_parameters
        self.label = f"{framework} {name} x{num_batches}"

    def run(self) -> dict[str, Any]:
        if not self.sides:
            return self.results
        for section in self.options.sections:
            began = time.perf_counter()
            found = getattr(self, section)()
            if found:
                self.results[section] = {**found, "seconds": time.perf_counter() - began}
            gc.collect()
        return self.results

    # -- sections ------------------------------------------------------------------------------------------------------

    def gradient(self) -> dict[str, Any]:
        runs: dict[str, Callable[[], Any]] = {"gradient": self.unit}
        if self.ours in self.sides:
            runs[self.ours] = self.sides[self.ours].build("hessian").objective.gradient
        for run in runs.values():
            run()
        return self._against("gradient", self._in_turns(runs, self.options.rounds or (3 if self.options.small else 9)))

    def hessian(self) -> dict[str, Any]:
        return self._products("hessian")

    def ggn(self) -> dict[str, Any]:
        return self._products("ggn")

    def _products(self, matrix: str) -> dict[str, Any]:
        from products_models import reference

        exact = reference(self.problem, matrix)(self.v)
        runs: dict[str, Callable[[], Any]] = {"gradient": self.unit}
        errors: dict[str, float] = {}
        engines: dict[str, str] = {}
        results: dict[str, np.ndarray] = {}
        for name, side in self.sides.items():
            if name == "ours unverified":
                continue
            operator = side.fast(matrix)
            if operator is None:
                continue
            run = side.product(operator, self.v)
            results[name] = product = side.ordered(run()) if hasattr(side, "ordered") else run()
            errors[name] = float(np.linalg.norm(product - exact) / np.linalg.norm(exact))
            if hasattr(operator, "engine"):
                engines[name] = operator.engine
            runs[name] = run
        times = self._in_turns(runs, self.options.rounds or (3 if self.options.small else 9))
        found: dict[str, Any] = {"errors": errors, "engines": engines, **self._against(matrix, times)}
        for name, value in errors.items():
            print(f"  {name}: relative error of the product {value:.1e}{'; ' + engines[name] if name in engines else ''}")
        wrong = self.problem.name == "gpt" and matrix == "hessian"
        if wrong and "curvlinops" in errors:
            print(f"  WRONG: {WRONG_FOR_LAYER_NORM}: error {errors['curvlinops']:.1e}; ours is compared with double precision")
        # XLA rounds otherwise than torch, and so sees other sides of kinks.
        foreign = self.framework == "jax" and self.problem.kinked
        for name in [n for n in errors if n.startswith("ours") or (n == "curvlinops" and not wrong)]:
            assert errors[name] <= (AGREE_ACROSS_KINKS if foreign else AGREE), f"the product of {name} is off by {errors[name]:.1e}"
        if self.peer in results and self.ours in results and not (wrong and self.peer == "curvlinops"):
            differ = float(np.linalg.norm(results[self.ours] - results[self.peer]) / np.linalg.norm(results[self.peer]))
            print(f"  {self.ours} and {self.peer} differ by {differ:.1e}")
            assert differ <= (AGREE_ACROSS_KINKS if foreign else AGREE), f"products of both sides differ by {differ:.1e}"
        return found

    def build(self) -> dict[str, Any]:
        """From the model to an operator that has its linearisation: construction, and what the first product takes longer."""
        found: dict[str, Any] = {}
        rounds = self.options.rounds or (3 if self.options.small else 5)
        for matrix in ("hessian", "ggn"):
            times: dict[str, list[float]] = {"gradient": []}
            for _ in range(rounds):
                times["gradient"].append(seconds(self.unit, self.clock))
                for name, side in self.sides.items():
                    if name in ("ours recomputed", "ours unverified"):
                        continue
                    began = self.clock()
                    operator = side.build(matrix)
                    if operator is None:
                        continue
                    constructed = self.clock() - began
                    run = side.product(operator, self.v)
                    first, later = seconds(run, self.clock), min(seconds(run, self.clock), seconds(run, self.clock))
                    times.setdefault(name, []).append(constructed + max(0.0, first - later))
                    times.setdefault(f"{name} (constructor)", []).append(constructed)
            arrays = {name: np.array(values) for name, values in times.items()}
            found[matrix] = self._against("build", arrays, title=f"build {matrix}", fair=False)
        return found

    def slq(self) -> dict[str, Any]:
        runs = {}
        for name, side in self.sides.items():
            if name != "ours unverified" and (run := side.slq(side.fast("hessian"))) is not None:
                runs[name] = run
        return self._against("slq", self._long(runs), units=False)

    def top(self) -> dict[str, Any]:
        exact = self._largest()
        runs, errors = {}, {}
        for name, side in self.sides.items():
            run = side.top(side.fast("hessian"))
            if run is None:
                continue
            if side.guesses:
                run = self._guessed(run, exact)
            runs[name] = run
            errors[name] = _eigenvalue_error(run(), exact)
        found = self._against("top", self._long(runs, warm=True), units=False)
        for name, value in errors.items():
            steps = getattr(runs[name], "steps", None)
            guess = f", with the best number of steps known beforehand ({steps})" if steps else ""
            print(f"  {name}: largest relative error of an eigenvalue {value:.1e}{guess}{' WRONG' if value > 2e-3 else ''}")
        return {**found, "errors": {name: float(value) for name, value in errors.items()}, "eigenvalues": exact.tolist()}

    def _in_turns(self, runs: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, np.ndarray]:
        with mock.patch("core_common.seconds", lambda run: seconds(run, self.clock)):
            return in_turns(runs, rounds)

    # -- parts ---------------------------------------------------------------------------------------------------------

    def _largest(self) -> np.ndarray:
        """The largest eigenvalues by ARPACK, from products that were compared with double precision."""
        from products_sides import K

        side = next(iter(self.sides.values()))
        n = self.problem.num_parameters
        operator = side.fast("hessian")

        def product(v: np.ndarray) -> np.ndarray:
            run = side.product(operator, np.ascontiguousarray(v.reshape(-1), dtype=np.float32))
            return side.ordered(run()) if hasattr(side, "ordered") else run()

        linear = scipy.sparse.linalg.LinearOperator((n, n), matvec=product, dtype=np.float32)
        start = np.random.default_rng(2).standard_normal(n).astype(np.float32)
        values = scipy.sparse.linalg.eigsh(linear, K, which="LM", tol=1e-5, v0=start, return_eigenvectors=False)
        return np.sort(values)

    def _guessed(self, run: Callable[..., np.ndarray], exact: np.ndarray) -> Callable[[], np.ndarray]:
        """`run` with the fewest steps of a ladder that reach the tolerance; the search is not timed."""
        from products_sides import TOLERANCE

        for steps in (10, 15, 20, 30, 40, 60, 90):
            if _eigenvalue_error(run(steps), exact) <= TOLERANCE:
                break

        def guessed() -> np.ndarray:
            return run(steps)

        guessed.steps = steps  # type: ignore[attr-defined]
        return guessed

    def _long(self, runs: Mapping[str, Callable[[], Any]], *, warm: bool = False) -> dict[str, np.ndarray]:
        if not warm and self.framework == "jax":  # compiling is not counted on either side
            for run in runs.values():
                run()
        return self._in_turns(runs, self.options.long_rounds or (1 if self.options.small else 2))

    def _against(
        self, section: str, times: Mapping[str, np.ndarray], *, title: str = "", units: bool = True, fair: bool = True
    ) -> dict[str, Any]:
        """Ratios to the peer and to one gradient, printed beside their targets."""
        name, batches = self.results["name"], self.results["batches"]
        targets = {} if self.options.small else {"peer": PEER_TARGETS, "gradient": GRADIENT_TARGETS}  # tiny networks have none
        found: dict[str, Any] = {"milliseconds": {side: 1e3 * float(np.median(values)) for side, values in times.items()}}
        milliseconds = ", ".join(f"{side} {value:.1f}" for side, value in found["milliseconds"].items())
        print(f"{self.label} {title or section}: ms {milliseconds}", flush=True)
        found["to peers"], found["to gradient"], found["verdicts"] = {}, {}, []
        ours = [side for side in times if side.startswith("ours") and "(" not in side]
        for side in ours if fair else []:
            for peer in times:
                if peer == "gradient" or peer.startswith("ours"):
                    continue
                r = ratio(times[side], times[peer])
                found["to peers"][f"{side} / {peer}"] = r
                wanted = target(targets, "peer", section, name, batches) if (side, peer) == ("ours", "curvlinops") else None
                word = verdict(r["median"], wanted)
                if wanted is not None:
                    found["verdicts"].append({"against": peer, "ratio": r["median"], "target": wanted, "met": r["median"] <= wanted})
                print(f"  {side} / {peer}: {show(r)}{word}")
        if units and "gradient" in times:
            for side in times:
                if side == "gradient":
                    continue
                r = ratio(times[side], times["gradient"])
                found["to gradient"][side] = r
                wanted = target(targets, "gradient", self.framework, section, name) if side == self.ours else None
                if wanted is not None:
                    found["verdicts"].append({"against": "gradient", "ratio": r["median"], "target": wanted, "met": r["median"] <= wanted})
                print(f"  {side}: {show(r)} gradients{verdict(r['median'], wanted)}", flush=True)
        return found


def _eigenvalue_error(found: np.ndarray, exact: np.ndarray) -> float:
    return float(np.max(np.abs(np.sort(found) - exact) / np.abs(exact)))


def _sides(framework: str, of: Any) -> tuple[dict[str, Any], list[str]]:
    if framework == "torch":
        from products_sides import sides
    else:
        try:
            from products_jax import sides
        except ImportError as error:
            return {}, [f"JAX is left out: {error}; pip install jax"]
    return sides(of)


def _gradient(framework: str, of: Any, sides: Mapping[str, Any]) -> Callable[[], Any]:
    from products_models import gradient

    if framework == "torch":
        plain = of.copied()
        return lambda: gradient(plain)
    run: Callable[[], Any] = next(iter(sides.values())).gradient() if sides else lambda: None
    run()
    return run


def timed(framework: str, name: str, num_batches: int, options: Any) -> dict[str, Any]:
    """All sections of one network in this process, which is a fresh one."""
    warnings.simplefilter("ignore")
    return Bench(framework, name, num_batches, options).run()


# -- memory ------------------------------------------------------------------------------------------------------------


def measured_memory(framework: str, name: str, num_batches: int, options: Any) -> dict[str, Any]:
    """Growth of the resident memory, in MB, of each side and section, each in a fresh process of its own."""
    if not pathlib.Path("/proc/self/status").exists():
        print("memory is left out: this system has no /proc/self/status")
        return {}
    warnings.simplefilter("ignore")
    if framework == "torch":
        import products_sides as _  # noqa: F401 -- once, for all the processes that are forked off; JAX must not be
    names = ("ours", "ours recomputed", "curvlinops", "eigenthings", "pyhessian") if framework == "torch" else ("ours in jax", "matfree")
    found: dict[str, dict[str, float]] = {}
    for section in options.sections:
        if section == "build":
            continue
        for side in ("gradient",) if section == "gradient" else names:
            megabytes = _in_fresh_process(framework, name, num_batches, options, section, side)
            if megabytes is not None:
                found.setdefault(section, {})[side] = megabytes
        if section in found:
            line = ", ".join(f"{side} {megabytes:.0f}" for side, megabytes in found[section].items())
            print(f"{framework} {name} x{num_batches} {section}: peak MB above what it began with: {line}", flush=True)
    return found


def _in_fresh_process(framework: str, name: str, num_batches: int, options: Any, section: str, side: str) -> float | None:
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_growth, args=(sender, framework, name, num_batches, options, section, side))
    process.start()
    sender.close()
    try:
        result: float | None = receiver.recv()
    except EOFError:
        result = None
    process.join()
    return result


def _growth(sender: Any, framework: str, name: str, num_batches: int, options: Any, section: str, side: str) -> None:
    # The same on a tiny network first: libraries read parts of themselves when they are first used, some 50 MB.
    if not options.small:
        _work(framework, name, 1, True, section if section in ("gradient", "ggn") else "hessian", side)()
    work = _work(framework, name, num_batches, options.small, section, side)
    gc.collect()
    with contextlib.suppress(OSError):  # then the peak of loading counts where it was higher
        pathlib.Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to the present
    before = _status("VmRSS")
    done = work()
    growth = (_status("VmHWM") - before) / 1e3
    sender.send(growth if done else None)
    sender.close()
    os._exit(0)  # threads of a library may wait for something that a forked process does not have


def _work(framework: str, name: str, num_batches: int, small: bool, section: str, side: str) -> Callable[[], bool]:
    """What is to be measured, from the building of an operator on; returns False when the side cannot do it."""
    from products_models import problem

    of = problem(name, num_batches, small=small)
    sides, _ = _sides(framework, of)
    v = np.ones(of.num_parameters, dtype=np.float32)
    gradient = _gradient(framework, of, sides) if section == "gradient" else None

    def work() -> bool:
        if gradient is not None:
            gradient()
            return True
        if side not in sides or (operator := sides[side].fast("ggn" if section == "ggn" else "hessian")) is None:
            return False
        if section in ("hessian", "ggn"):
            run = sides[side].product(operator, v)
            run()
        else:
            run = getattr(sides[side], section)(operator)
        if run is None:
            return False
        run()
        return True

    return work


def _status(key: str) -> float:
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(key)).split()[1])
