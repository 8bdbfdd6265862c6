"""What each layer has of parameters, gradient and curvature, from products that are there already."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from ...backends import Array
from ..blocks import layer_of
from ..objective import Objective
from .metric import CURVATURE, Metric, plain
from .shared_run import SharedRun

MOST_VECTORS, MOST_NUMBERS = 12, 4_000_000
"""Converged eigenvectors that are taken out of the traces: so many, or more where they have so few numbers together."""


@dataclasses.dataclass(frozen=True)
class LayerRow:
    """One layer.

    Attributes
    ----------
    name : str
        Of the layer.
    num_parameters : int
        In it.
    parameter_norm, gradient_norm : float
        Euclidean norms.
    trace : Metric
        Of the diagonal block of the Hessian.
    energy : float
        Share of its rows in the squared Frobenius norm of the whole matrix.
    top_eigenvector : float
        Share of it in the squared eigenvector of the largest eigenvalue.
    """

    name: str
    num_parameters: int
    parameter_norm: float
    gradient_norm: float
    trace: Metric
    energy: float
    top_eigenvector: float

    def __str__(self) -> str:
        low, high = self.trace.confidence_interval()
        return (
            f"{self.name}: {self.num_parameters:,} parameters, trace {self.trace.value:.4g} ± {(high - low) / 2:.2g}, "
            f"{self.energy:.1%} of the squared Frobenius norm, {self.top_eigenvector:.1%} of the top eigenvector"
        )

    def to_json(self) -> dict[str, Any]:
        """The row as plain objects."""
        numbers = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "trace"}
        return plain({**numbers, "trace": self.trace.to_json()})


def layers_of(objective: Objective) -> dict[str, list[slice]]:
    """Places of the parameters of each layer, by its name."""
    groups: dict[str, list[slice]] = {}
    for name, place in objective.blocks.items():
        groups.setdefault(layer_of(name), []).append(place)
    return groups


def trace_of(layer: str) -> str:
    """Name of the metric in the row of a layer."""
    return f"trace of {layer}"


def layer_table(shared: SharedRun, *, sampling: bool = False) -> tuple[LayerRow, ...]:
    """A row for each layer, without further products.

    The trace of a block is that of the converged eigenvectors, exactly, and the mean of ``P z_l.(H z)_l`` over the probes z for the rest,
    in the order of what each probe leaves. Its standard error is ``sqrt(2 P |(H z)_l|^2 / probes)`` of the rest, an upper bound for
    symmetric matrices. With ``sampling=True`` the traces also carry the sampling of the data, from the products of
    `SharedRun.influence`. Norms and shares are given without intervals.

    Raises
    ------
    ValueError
        When the run kept no vectors.
    """
    if not shared.keeps_vectors:
        raise ValueError("The Lanczos run kept no vectors, which the table of layers is made of; raise its memory_budget.")
    objective, S, backend = shared.objective, shared.density, shared.operator.backend
    starts, products = shared.starts()
    m, n = int(starts.shape[0]), S.dimension
    groups = layers_of(objective)
    energy = np.array([[_squares(backend, products[p, place]) for p in range(m)] for place in _flat(groups)])
    values, where = shared.converged(max(MOST_VECTORS, MOST_NUMBERS // n), simple=True)
    vectors: Any = shared.ritz_rows(where) if where else []
    # Take the converged pairs out of the products: what is left varies less from probe to probe.
    for p in range(m):
        for index, value in enumerate(values):
            overlap = float(np.real(backend.fetch([backend.dot(vectors[index, :], starts[p, :])])[0]))
            backend.axpy(-value * overlap, vectors[index, :], products[p, :])
    top = shared.ritz_rows([-1])[0]
    theta = objective.parameters()
    rows, first = [], 0
    for name, places in groups.items():
        own = energy[first : first + len(places)]
        first += len(places)
        forms = np.array([n * sum(_inner(backend, starts[p, place], products[p, place]) for place in places) for p in range(m)])
        left = np.array([n * sum(_squares(backend, products[p, place]) for place in places) for p in range(m)])
        known = sum(value * sum(_squares(backend, vectors[index, place]) for place in places) for index, value in enumerate(values))
        size = sum(place.stop - place.start for place in places)
        trace = Metric(
            float(known) + float(forms.mean()),
            standard_error=math.sqrt(2 * float(left.mean()) / m),
            num_matvecs=m,
            name=trace_of(name),
            unit=CURVATURE,
            note=f"{len(values)} eigenvectors exactly, the rest by {m} probes",
            method="stochastic",
            rounding_error=shared.density.noise_floor * size,
        )
        if sampling:
            trace = shared.influence.carry(trace, shared.influence.block(places))
        rows.append(
            LayerRow(
                name, size, math.sqrt(sum(_squares(backend, theta[place]) for place in places)),
                math.sqrt(sum(_squares(backend, shared.gradient[place]) for place in places)), trace,
                float(own.sum() / energy.sum()) if energy.sum() > 0 else 0.0, sum(_squares(backend, top[place]) for place in places),
            )
        )  # fmt: skip
    return tuple(rows)


def print_layers(rows: tuple[LayerRow, ...]) -> str:
    """The table as text."""
    width = max([5, *(len(row.name) for row in rows)])
    lines = [
        f"{'layer':{width}s} {'parameters':>12s} {'|w|':>10s} {'|g|':>10s} {'trace':>11s} {'+-':>9s} {'energy':>8s} {'top vector':>10s}"
    ]
    for row in rows:
        low, high = row.trace.confidence_interval()
        lines.append(
            f"{row.name:{width}s} {row.num_parameters:12,d} {row.parameter_norm:10.4g} {row.gradient_norm:10.4g} {row.trace.value:11.4g} "
            f"{(high - low) / 2:9.2g} {row.energy:8.1%} {row.top_eigenvector:10.1%}"
        )
    return "\n".join(lines)


def _flat(groups: dict[str, list[slice]]) -> list[slice]:
    return [place for places in groups.values() for place in places]


def _squares(backend: Any, x: Array) -> float:
    return float(np.real(backend.fetch([backend.norm(x)])[0])) ** 2


def _inner(backend: Any, x: Array, y: Array) -> float:
    return float(np.real(backend.fetch([backend.dot(x, y)])[0]))
