"""The numbers of a spectrum with their errors, as a table for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

LEVEL = 0.95


def summarise(result: Any) -> dict[str, Any]:
    """All numbers of the table, with their intervals.

    Parameters
    ----------
    result : SpectralDensity
        The spectrum.

    Returns
    -------
    dict
        Plain numbers, lists and dictionaries.
    """
    (smallest, smallest_residual), (largest, largest_residual) = result.extreme_eigenvalues()
    trace = result.trace()
    low, high = trace.confidence_interval(LEVEL)
    negative = result.negative_mass()
    # A residual holds in exact arithmetic; the noise floor is what rounding adds.
    rounding = result.noise_floor
    return {
        "dimension": result.dimension,
        "num_steps": result.num_steps,
        "num_probes": result.num_probes,
        "num_matvecs": result.num_matvecs,
        "seconds": result.seconds,
        "status": result.status,
        "converged": result.converged,
        "largest_eigenvalue": {"value": largest, "error": largest_residual + rounding, "residual_norm": largest_residual},
        "smallest_eigenvalue": {"value": smallest, "error": smallest_residual + rounding, "residual_norm": smallest_residual},
        "trace": {
            "value": trace.value, "low": low, "high": high, "level": LEVEL,
            "standard_error": trace.standard_error, "quadrature_error": trace.quadrature_error,
            "rounding_error": trace.rounding_error,
        },
        "negative_mass": {"low": negative[0], "high": negative[1], "threshold": result.noise_floor},
        "bulk_edges": list(result.bulk_edges()),
        "num_outliers": len(result.outliers()),
        "outliers": [
            {
                "value": outlier.value, "error": outlier.residual_norm + rounding, "residual_norm": outlier.residual_norm,
                "weight": outlier.weight, "multiplicity": outlier.multiplicity,
            }
            for outlier in result.outliers()
        ],
        "noise_floor": result.noise_floor,
        "wasserstein_bound": result.wasserstein_bound,
        "kolmogorov_bound": result.kolmogorov_bound,
        "explanation": result.explain(),
    }


def rows(numbers: dict[str, Any]) -> list[tuple[str, str]]:
    """The table: name and text of each quantity."""
    trace, negative = numbers["trace"], numbers["negative_mass"]
    a, b = numbers["bulk_edges"]
    return [
        ("status", numbers["status"]),
        ("dimension", f"{numbers['dimension']:,}"),
        ("steps, probes, products", f"{numbers['num_steps']}, {numbers['num_probes']}, {numbers['num_matvecs']:,}"),
        ("seconds", f"{numbers['seconds']:.1f}"),
        ("largest eigenvalue", eigenvalue(numbers["largest_eigenvalue"])),
        ("smallest eigenvalue", eigenvalue(numbers["smallest_eigenvalue"])),
        ("trace", interval(trace)),
        ("negative mass", bracket(negative)),
        ("bulk", f"{a:.4g} to {b:.4g}"),
        ("outliers", str(numbers["num_outliers"])),
        ("noise floor", f"{numbers['noise_floor']:.2g}"),
        ("Wasserstein bound", f"{numbers['wasserstein_bound']:.2g}"),
        ("Kolmogorov bound", f"{numbers['kolmogorov_bound']:.2g}"),
    ]


def eigenvalue(entry: dict[str, float]) -> str:
    """An eigenvalue with its error: residual and rounding."""
    return f"{entry['value']:.6g} ± {entry['error']:.1g}"


def interval(entry: dict[str, float]) -> str:
    """An estimate with its interval."""
    return f"{entry['value']:.5g} ({100 * entry['level']:g} %: {entry['low']:.5g} to {entry['high']:.5g})"


def bracket(entry: dict[str, float]) -> str:
    """A share between two bounds."""
    return f"{100 * entry['low']:.3g} % to {100 * entry['high']:.3g} %"


def format_table(columns: Sequence[Sequence[str]]) -> str:
    """Lines of text with the cells of each column aligned.

    Examples
    --------
    >>> print(format_table([["", "trace"], ["before", "1.5"]]))
           before
    trace  1.5
    """
    widths = [max(len(cell) for cell in column) for column in columns]

    def line(row: Sequence[str]) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()

    return "\n".join(line(row) for row in zip(*columns, strict=True))
