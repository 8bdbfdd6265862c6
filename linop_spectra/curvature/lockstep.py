"""Spectra of several curvature matrices of one objective, each step of all runs from one pass over the batches."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._memory import parse_budget
from .._progress import Progress
from ..backends import Array
from ..operators import LinearOperator
from ..spectra import SpectralDensity
from .lane import Lane, in_lockstep
from .matrices import CurvatureOperator
from .out_of_memory import in_smaller_plans
from .output_space import OutputSpaceOperator


def lockstep_densities(
    operators: Mapping[str, LinearOperator], *, num_steps: int, num_probes: int, seed: int, memory_budget: Any = None,
    time_budget: float | None = None, progress: Progress = None, description: str = "spectra",
) -> tuple[dict[str, SpectralDensity], int, float]:  # fmt: skip
    """Densities of several matrices by runs in lockstep; each is the one that `spectral_density` gives.

    Matrices of one kind share a pass over the batches in each step; see `multiply`.

    Returns
    -------
    tuple
        The densities by name, products with single vectors, and seconds.
    """
    began = time.perf_counter()
    if memory_budget is None:  # all bases together take the share of one
        first = next(iter(operators.values()))
        memory_budget = parse_budget(None, total=first.backend.total_memory()) / len(operators)
    lanes = [
        Lane("matrix", name, operator, num_steps, num_probes, seed, planned_for=operator, memory_budget=memory_budget)
        for name, operator in operators.items()
    ]

    def answer(running: list[Lane]) -> None:
        wanted = [(lane, rows) for lane in running for rows in lane.vectors()]
        products = multiply([lane.source for lane, _ in wanted], [rows for _, rows in wanted])
        for (lane, _), product in zip(wanted, products, strict=True):
            lane.operator.answers.append(product)

    return in_lockstep(
        lanes, answer, num_steps=num_steps, time_budget=time_budget, progress=progress, description=description, began=began
    )


def multiply(operators: Sequence[LinearOperator], blocks: Sequence[Array]) -> list[Array]:
    """Products of several matrices with blocks of rows of their own, as columns; passes are shared where that is possible.

    Curvature operators that share their linearized batches go over them once together. Parts of one class structure go through the
    Jacobian together, forward and back. Anything else is multiplied on its own.
    """
    out: list[Array] = [None] * len(operators)
    groups: dict[Any, list[int]] = {}
    for index, operator in enumerate(operators):
        if isinstance(operator, OutputSpaceOperator) and operator._active is None:
            key: Any = ("space", id(operator._space))
        elif isinstance(operator, CurvatureOperator) and not isinstance(operator, OutputSpaceOperator):
            key = ("batches", id(operator._linearizations))
        else:
            key = ("alone", index)
        groups.setdefault(key, []).append(index)
    for (kind, _), members in groups.items():
        if len(members) == 1 or kind == "alone":
            products = [operators[i].matmat(blocks[i].T) for i in members]
        else:
            together = _over_batches if kind == "batches" else _through_outputs
            products = together([operators[i] for i in members], [blocks[i] for i in members])
        for i, product in zip(members, products, strict=True):
            out[i] = product
    return out


def share_linearizations(operators: Sequence[CurvatureOperator]) -> None:
    """Let operators of one objective, fresh from their making, keep one set of linearized batches together."""
    for operator in operators[1:]:
        operator._linearizations = operators[0]._linearizations


def _over_batches(operators: Sequence[Any], blocks: Sequence[Array]) -> list[Array]:
    kept = operators[0]._linearizations
    if kept.one_by_one:
        return [operator.matmat(rows.T) for operator, rows in zip(operators, blocks, strict=True)]

    def run() -> list[Array]:
        if kept.one_by_one:  # memory ran out meanwhile
            return [operator.matmat(rows.T) for operator, rows in zip(operators, blocks, strict=True)]
        return _one_pass(operators, blocks)

    products = in_smaller_plans(run, kept.retreat, lambda: f"{kept.sentence()}, one vector at a time")
    for operator, rows in zip(operators, blocks, strict=True):
        operator.num_matvecs += rows.shape[0]
    return products


def _one_pass(operators: Sequence[Any], blocks: Sequence[Array]) -> list[Array]:
    first = operators[0]
    functions, backend = first.objective.functions, first.backend
    rows = [backend.empty(tuple(block.shape), first.dtype) for block in blocks]
    terms = 0.0
    with functions.session():
        columns = [[functions.to_native(block[j, :]) for j in range(block.shape[0])] for block in blocks]
        totals = [[functions.accumulator(own[j]) for j in range(own.shape[0])] for own in rows]
        for part in first._linearizations.parts(sum(int(block.shape[0]) for block in blocks)):
            for operator, own, sums in zip(operators, columns, totals, strict=True):
                operator._add_products(part, own, sums)
            terms += part.linearization.num_terms
        for operator, sums in zip(operators, totals, strict=True):
            for total in sums:
                total.finish(operator._factor(terms))
    for operator, block, own in zip(operators, blocks, rows, strict=True):
        if operator.identity_multiple:
            own += operator.identity_multiple * block
        operator._started = True
    return [own.T for own in rows]


def _through_outputs(operators: Sequence[Any], blocks: Sequence[Array]) -> list[Array]:
    space, backend = operators[0]._space, operators[0].backend
    total = sum(int(block.shape[0]) for block in blocks)
    stacked, first = backend.empty((total, operators[0].shape[0]), operators[0].dtype), 0
    kernels = []
    for operator, block in zip(operators, blocks, strict=True):
        stacked[first : first + block.shape[0], :] = block
        kernels += [operator._kernel] * int(block.shape[0])
        first += int(block.shape[0])
        operator.num_matvecs += int(block.shape[0])
    products = backend.empty(tuple(stacked.shape), operators[0].dtype)
    for start in range(0, total, space.block):
        stop = min(start + space.block, total)
        outputs = space.push(stacked[start:stop, :].T)
        for row, kernel in zip(outputs, kernels[start:stop], strict=True):
            row[:] = kernel(row)

        def of_batch(j: int, index: int, outputs: np.ndarray = outputs) -> np.ndarray:
            return outputs[j, space.batches[index]]

        products[start:stop, :] = space.pull(stop - start, of_batch)
    out, first = [], 0
    for block in blocks:
        out.append(products[first : first + int(block.shape[0]), :].T)
        first += int(block.shape[0])
    return out
