"""The same networks in JAX, and the sides there: this library, and matfree on top of ``jit(jvp(grad))``."""

# ruff: noqa: D102 -- methods are documented by products_sides.Side

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import torch
from products_models import Problem
from products_sides import TOLERANCE, K, Run

Parameters = dict[str, jax.Array]


def network(of: Problem) -> tuple[Callable[[Parameters, jax.Array], jax.Array], Parameters]:
    """``apply(parameters, inputs)`` with the classes along the last axis, and the weights of the torch model under its names."""
    parameters = {name: jnp.asarray(p.detach().numpy()) for name, p in of.model.named_parameters()}
    if of.name == "gpt":
        return _gpt(of.model), parameters
    layers: list[tuple[str, Any]] = list(of.model.named_children())
    buffers = {name: jnp.asarray(b.numpy()) for name, b in of.model.named_buffers()}

    def apply(p: Parameters, x: jax.Array) -> jax.Array:
        for name, layer in layers:
            if isinstance(layer, torch.nn.Linear):
                x = x @ p[f"{name}.weight"].T + p[f"{name}.bias"]
            elif isinstance(layer, torch.nn.Conv2d):
                x = jax.lax.conv(x, p[f"{name}.weight"], (1, 1), "SAME") + p[f"{name}.bias"][:, None, None]
            elif isinstance(layer, torch.nn.BatchNorm2d):
                scale = p[f"{name}.weight"] * jax.lax.rsqrt(buffers[f"{name}.running_var"] + layer.eps)
                shift = p[f"{name}.bias"] - scale * buffers[f"{name}.running_mean"]
                x = x * scale[:, None, None] + shift[:, None, None]
            elif isinstance(layer, torch.nn.MaxPool2d):
                x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
            elif isinstance(layer, torch.nn.Flatten):
                x = x.reshape(len(x), -1)
            else:
                x = jax.nn.relu(x)
        return x

    return apply, parameters


def _gpt(model: Any) -> Callable[[Parameters, jax.Array], jax.Array]:
    depth, heads = len(model.blocks), model.blocks[0].attention.heads

    def apply(p: Parameters, tokens: jax.Array) -> jax.Array:
        def linear(name: str, x: jax.Array) -> jax.Array:
            return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

        def norm(name: str, x: jax.Array) -> jax.Array:
            centred = x - x.mean(axis=-1, keepdims=True)
            variance = (centred**2).mean(axis=-1, keepdims=True)
            return centred * jax.lax.rsqrt(variance + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]

        x = p["words.weight"][tokens] + p["positions"]
        n, t, width = x.shape
        past = jnp.tril(jnp.ones((t, t), dtype=bool))
        for i in range(depth):
            parts = jnp.split(linear(f"blocks.{i}.attention.inwards", norm(f"blocks.{i}.norm1", x)), 3, axis=2)
            q, k, v = (part.reshape(n, t, heads, -1).transpose(0, 2, 1, 3) for part in parts)
            scores = jnp.where(past, (q @ k.transpose(0, 1, 3, 2)) * (width // heads) ** -0.5, -jnp.inf)
            attended = (jax.nn.softmax(scores) @ v).transpose(0, 2, 1, 3).reshape(n, t, width)
            x = x + linear(f"blocks.{i}.attention.outwards", attended)
            wide = jax.nn.gelu(linear(f"blocks.{i}.wide", norm(f"blocks.{i}.norm2", x)), approximate=True)
            x = x + linear(f"blocks.{i}.narrow", wide)
        return norm("norm", x) @ p["head.weight"].T

    return apply


class JaxSide:
    """One side on one problem; vectors come and go in the order of the torch parameters."""

    guesses = False
    steps = 50

    def __init__(self, of: Problem) -> None:
        self.problem = of
        self.apply, self.parameters = network(of)
        self.names = list(self.parameters)
        self.batches = [(jnp.asarray(x.numpy()), jnp.asarray(y.numpy())) for x, y in of.batches]

    def loss(self, parameters: Parameters, x: jax.Array, y: jax.Array) -> jax.Array:
        logarithms = jax.nn.log_softmax(self.apply(parameters, x))
        return -jnp.take_along_axis(logarithms, y[..., None], axis=-1).mean()

    def tree(self, v: np.ndarray) -> Parameters:
        sizes = [self.parameters[name].size for name in self.names]
        parts = np.split(v, np.cumsum(sizes)[:-1])
        return {name: jnp.asarray(part.reshape(self.parameters[name].shape)) for name, part in zip(self.names, parts, strict=True)}

    def in_order(self, tree: Any) -> np.ndarray:
        """A result as a flat vector in the order of the torch parameters."""
        return np.concatenate([np.asarray(tree[name]).reshape(-1) for name in self.names])

    def gradient(self) -> Run:
        """One gradient over all batches: the unit."""
        compiled = jax.jit(jax.grad(self.loss))

        def run() -> Any:
            total = None
            for x, y in self.batches:
                rows = compiled(self.parameters, x, y)
                total = rows if total is None else jax.tree.map(jnp.add, total, rows)
            return jax.block_until_ready(total)

        return run


class OursInJax(JaxSide):
    """linop_spectra. Long tasks begin from a new operator of the same objective: compiling is not counted, on neither side."""

    def build(self, matrix: str) -> Any:
        import linop_spectra as ls

        batches = [(np.asarray(x), np.asarray(y)) for x, y in self.batches]
        self.objective = ls.objective(self.apply, "cross_entropy", batches, params=self.parameters)
        return self.objective.hessian() if matrix == "hessian" else self.objective.ggn()

    fast = build

    def product(self, operator: Any, v: np.ndarray) -> Run:
        w = np.asarray(self.objective.flatten(self.tree(v)))
        return lambda: operator @ w

    def ordered(self, product: Any) -> np.ndarray:
        return self.in_order(self.objective.unflatten(product))

    def slq(self, operator: Any) -> Run | None:
        import linop_spectra as ls

        return lambda: ls.spectral_density(self.objective.hessian(), num_steps=self.steps, num_probes=1, deflate=False)

    def top(self, operator: Any) -> Callable[..., np.ndarray] | None:
        import linop_spectra as ls

        return lambda: ls.eigsh(self.objective.hessian(), K, which="LM", tol=TOLERANCE).eigenvalues


class Matfree(JaxSide):
    """What its documentation does: a jitted product of flat vectors, inside its own loops."""

    guesses = True

    def __init__(self, of: Problem) -> None:
        import matfree.decomp  # noqa: F401 -- only to find out whether it is installed

        super().__init__(of)

    def build(self, matrix: str) -> Any:
        flat, unravel = jax.flatten_util.ravel_pytree(self.parameters)
        self._unravel = unravel

        def of_batch(v: jax.Array, theta: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
            if matrix == "hessian":
                return jax.jvp(jax.grad(lambda t: self.loss(unravel(t), x, y)), (theta,), (v,))[1]

            def outputs(t: jax.Array) -> jax.Array:
                return self.apply(unravel(t), x)

            z, pushed = jax.jvp(outputs, (theta,), (v,))
            probabilities = jax.nn.softmax(z)
            inner = (probabilities * pushed).sum(axis=-1, keepdims=True)
            terms = z.size / z.shape[-1]
            return jax.vjp(outputs, theta)[1](probabilities * (pushed - inner) / terms)[0]

        def product(v: jax.Array) -> jax.Array:
            # Batches as arguments of a scan over their stack: unrolled, eight of them take eight times as long to compile.
            def step(total: jax.Array, batch: Any) -> tuple[jax.Array, None]:
                return total + of_batch(v, flat, *batch), None

            stacked = tuple(jnp.stack(parts) for parts in zip(*self.batches, strict=True))
            return jax.lax.scan(step, jnp.zeros_like(flat), stacked)[0] / len(self.batches)

        if len(self.batches) == 1:
            x, y = self.batches[0]
            return jax.jit(lambda v: of_batch(v, flat, x, y))
        if of_convolutions(self.problem):  # a scan in XLA on the CPU slows convolutions down many times
            compiled = jax.jit(of_batch)

            def looped(v: jax.Array) -> jax.Array:
                total = jnp.zeros_like(flat)
                for x, y in self.batches:
                    total = total + compiled(v, flat, x, y)
                return total / len(self.batches)

            return looped
        return jax.jit(product)

    fast = build

    def product(self, operator: Any, v: np.ndarray) -> Run:
        w = jax.flatten_util.ravel_pytree(self.tree(v))[0]
        return lambda: jax.block_until_ready(operator(w))

    def ordered(self, product: Any) -> np.ndarray:
        return self.in_order(self._unravel(product))

    def slq(self, operator: Any) -> Run | None:
        if of_convolutions(self.problem):
            return None  # its loop inside XLA did not finish within minutes
        from matfree.decomp import tridiag_sym

        n = sum(p.size for p in self.parameters.values())
        signs = jnp.asarray(np.random.default_rng(0).choice([-1.0, 1.0], n).astype(np.float32))
        decompose = jax.jit(lambda v: tridiag_sym(self.steps, reortho="full")(operator, v))

        def run() -> Any:
            _, small, *_ = decompose(signs)
            return np.linalg.eigh(np.asarray(small))

        return run

    def top(self, operator: Any) -> Callable[..., np.ndarray] | None:
        if of_convolutions(self.problem):
            return None
        from matfree.decomp import tridiag_sym
        from matfree.eig import eigh_partial

        n = sum(p.size for p in self.parameters.values())
        start = jnp.asarray(np.random.default_rng(0).standard_normal(n).astype(np.float32))
        compiled: dict[int, Any] = {}

        def run(steps: int = 20) -> np.ndarray:
            if steps not in compiled:
                compiled[steps] = jax.jit(lambda v: eigh_partial(tridiag_sym(steps, reortho="full"))(operator, v))
            values = np.asarray(jax.block_until_ready(compiled[steps](start))[0])
            return values[np.argsort(-np.abs(values))[:K]]

        return run


def of_convolutions(of: Problem) -> bool:
    return of.name.startswith("cnn")


def sides(of: Problem) -> tuple[dict[str, Any], list[str]]:
    """The sides that are there, and a line for each that is not."""
    found: dict[str, Any] = {}
    missing = []
    try:
        from linop_spectra.adapters.jax import jax_objective  # noqa: F401

        found["ours in jax"] = OursInJax(of)
    except ImportError as error:
        missing.append(f"ours in jax is left out: {error}")
    try:
        found["matfree"] = Matfree(of)
    except ImportError as error:
        missing.append(f"matfree is left out: {error}; pip install matfree")
    return found, missing
