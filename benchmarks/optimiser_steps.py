"""Time of a step of some optimisers in each framework, beside the framework's own step of gradient descent.

Run it from the root of the repository:

    python benchmarks/optimiser_steps.py [torch jax keras] [--out DIR]

Each framework runs in a process of its own with one thread; times are of the processor. Every step gets a mini-batch that the method has
not seen, so that the first step beside the later ones says what is compiled once.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import linop_spectra as ls
from linop_spectra.cli.output import versions
from linop_spectra.results import write_atomically

RESULTS = pathlib.Path(__file__).resolve().parent / "results"
BATCH, STEPS = 128, 25
WIDTHS = (784, 64, 10)
METHODS: dict[str, Callable[[], ls.optim.Optimizer]] = {
    "HeavyBall": lambda: ls.optim.HeavyBall(learning_rate=0.1, evaluate=False),
    "LanczosNewton(num_steps=10)": lambda: ls.optim.LanczosNewton(damping=1.0, num_steps=10),
    "AdaHessian": lambda: ls.optim.AdaHessian(learning_rate=0.05),
    "Sophia": lambda: ls.optim.Sophia(learning_rate=1e-3),
    "KFAC": lambda: ls.optim.KFAC(),
}


def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Random images and labels without end."""
    rng = np.random.default_rng(0)
    while True:
        yield rng.random((BATCH, WIDTHS[0]), dtype=np.float32), rng.integers(0, WIDTHS[-1], BATCH)


def in_torch() -> tuple[Any, Any, Callable[[Any], Any], Callable[[Any], Any]]:
    """Model, its parameters, what turns arrays to the framework's, and a native step."""
    import torch

    torch.set_num_threads(1)
    a, b, c = WIDTHS
    model = torch.nn.Sequential(torch.nn.Linear(a, b), torch.nn.Tanh(), torch.nn.Linear(b, c))
    own = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def native(batch: Any) -> float:
        own.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(batch[0]), batch[1])
        loss.backward()
        own.step()
        return loss.item()

    return model, None, lambda batch: (torch.from_numpy(batch[0]), torch.from_numpy(batch[1])), native


def in_jax() -> tuple[Any, Any, Callable[[Any], Any], Callable[[Any], Any]]:
    """As `in_torch`."""
    import jax
    import jax.numpy as jnp
    import optax

    rng = np.random.default_rng(1)
    a, b, c = WIDTHS
    params = {
        "w1": jnp.asarray(rng.standard_normal((a, b)) / a**0.5, jnp.float32), "b1": jnp.zeros(b),
        "w2": jnp.asarray(rng.standard_normal((b, c)) / b**0.5, jnp.float32), "b2": jnp.zeros(c),
    }  # fmt: skip

    def apply(p: Any, x: Any) -> Any:
        return jnp.tanh(x @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"]

    own = optax.sgd(0.1, momentum=0.9)

    @jax.jit
    def update(p: Any, state: Any, x: Any, y: Any) -> Any:
        loss, gradient = jax.value_and_grad(lambda q: optax.softmax_cross_entropy_with_integer_labels(apply(q, x), y).mean())(p)
        changes, state = own.update(gradient, state, p)
        return optax.apply_updates(p, changes), state, loss

    held = [params, own.init(params)]

    def native(batch: Any) -> float:
        held[0], held[1], loss = update(held[0], held[1], *batch)
        return float(loss)

    return apply, params, lambda batch: (jnp.asarray(batch[0]), jnp.asarray(batch[1].astype(np.int32))), native


def in_keras() -> tuple[Any, Any, Callable[[Any], Any], Callable[[Any], Any]]:
    """As `in_torch`, with TensorFlow below."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    import keras

    a, b, c = WIDTHS

    def make() -> Any:
        return keras.Sequential([keras.Input((a,)), keras.layers.Dense(b, "tanh"), keras.layers.Dense(c)])

    own = make()
    own.compile(keras.optimizers.SGD(0.1, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return make(), None, lambda batch: (tf.constant(batch[0]), tf.constant(batch[1])), lambda batch: own.train_on_batch(*batch)


FRAMEWORKS = {"torch": in_torch, "jax": in_jax, "keras": in_keras}


def measure(framework: str) -> dict[str, Any]:
    """Milliseconds of the first, the second and the median later step of everything."""
    model, params, convert, native = FRAMEWORKS[framework]()
    source = batches()
    objective = ls.objective(model, "cross_entropy", convert(next(source)), **({"params": params} if params is not None else {}))

    def timed(step: Callable[[Any], Any]) -> dict[str, float]:
        found = []
        for _ in range(STEPS):
            batch = convert(next(source))
            began = time.process_time()
            step(batch)
            found.append(1e3 * (time.process_time() - began))
        later = found[5:]
        return {"first": found[0], "second": found[1], "median": float(np.median(later)), "largest": max(later)}

    results = {"native SGD": timed(native)}
    for name, make in METHODS.items():
        method, theta = make(), [objective.parameters()]

        def step(batch: Any, method: Any = method, theta: Any = theta) -> None:
            theta[0], _ = method.step(objective.with_data(batch), theta[0])

        results[name] = timed(step)
    return results


def main(arguments: list[str]) -> int:
    """Measure each framework in a process of its own; print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("frameworks", nargs="*", choices=[*FRAMEWORKS, []])
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    parser.add_argument("--here", action="store_true", help="one framework, in this process, to standard output")
    options = parser.parse_args(arguments)
    if options.here:
        print(json.dumps(measure(options.frameworks[0])))
        return 0
    path = options.out / "optimisers_steps.json"
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3",
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    }  # fmt: skip
    for framework in options.frameworks or FRAMEWORKS:
        command = [sys.executable, __file__, framework, "--here"]
        lines = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.splitlines()
        held = json.loads(path.read_text()) if path.exists() else {}
        held.update({framework: json.loads(lines[-1]), "versions": versions(), "batch": BATCH, "widths": WIDTHS})
        write_atomically(path, lambda stream, held=held: stream.write(json.dumps(held, indent=1).encode()))
        own = held[framework]["native SGD"]["median"]
        for name, row in held[framework].items():
            print(f"{framework:6s} {name:28s} first {row['first']:8.1f} ms, second {row['second']:7.1f}, later {row['median']:7.2f} "
                  f"({row['median'] / own:.1f} native), largest {row['largest']:.1f}", flush=True)  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
