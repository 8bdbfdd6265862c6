"""Sections of the report that say what was measured: the model, the plan, the check, and how to do it again."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._memory import format_bytes
from .._progress import Progress
from .output import versions
from .report_page import Section
from .report_work import Work


def model_section(work: Work, section: Section, progress: Progress) -> None:
    """The matrix; of an objective also model, data and parameters."""
    operator, objective = work.operator, work.objective
    loss = None if objective is None else work.attempt(section, "the loss", objective.value)  # reads the data, which says how many batches
    facts: list[tuple[str, Any]] = [
        ("target", work.target.name), ("order", work.order), ("type of the numbers", str(operator.dtype)),
    ]  # fmt: skip
    if objective is None:
        facts.append(("operator", type(operator).__name__))
        section.facts("matrix", facts)
        return
    functions = objective.functions
    framework = type(functions).__module__.split(".")[2]
    facts += [
        ("framework", {"torch": "PyTorch", "jax": "JAX", "tensorflow": "TensorFlow"}.get(framework, framework)),
        ("parameters", objective.num_parameters), ("arrays of parameters", len(objective.blocks)),
        ("examples", objective.num_examples), ("batches", objective.data.num_batches), ("weight decay", objective.weight_decay),
    ]  # fmt: skip
    if loss is not None:
        facts.append(("loss", loss))
    facts += _classes(objective)
    section.facts("matrix", facts)
    theta = objective.unflatten(objective.parameters())
    rows = []
    for name, place in objective.blocks.items():
        shape = tuple(int(size) for size in theta[name].shape) if name in theta else ()
        rows.append((name, " × ".join(map(str, shape)) or "scalar", place.stop - place.start, (place.stop - place.start) / work.order))
    section.table("parameters", ("name", "shape", "numbers", "share"), rows, "Arrays of parameters")


def _classes(objective: Any) -> list[tuple[str, Any]]:
    """Accuracy and classes of a classifier; nothing for other objectives."""
    from ..landscape.metrics import Accuracy

    try:
        return [("accuracy on these data", float(Accuracy(objective)(objective)))]
    except (TypeError, ValueError):
        return []


def plan_section(work: Work, section: Section, progress: Progress) -> None:
    """Cost of the spectrum, known beforehand."""
    from ..spectra import plan

    probes = work.probes if work.objective is not None else "auto"  # as the report of an objective takes them
    found = plan(work.operator, num_steps=min(work.extent.steps, work.order), num_probes=probes, seed=work.seed)  # type: ignore[arg-type]
    section.facts(
        "plan",
        [
            ("Lanczos steps", found.num_steps), ("random probes", found.num_probes), ("products", found.num_matvecs),
            ("expected seconds", found.seconds), ("seconds of the first product", found.first_product_seconds),
            ("Lanczos vectors", format_bytes(found.bytes)), ("memory budget", format_bytes(found.memory_budget)),
            ("Lanczos vectors kept", found.reorthogonalize),
            ("expected interval width of the share of eigenvalues below the median", found.interval_width),
            ("relative standard error of the trace before pinning", found.relative_trace_error),
        ],
        "Spectral density of the matrix, planned from two timed products",
    )  # fmt: skip
    section.num_matvecs = 2


def check_section(work: Work, section: Section, progress: Progress) -> None:
    """Whether the operator is what it says it is."""
    from ..operators import check_operator

    found = check_operator(work.operator, seed=work.seed)
    bound, difference_bound = found.tolerance, found.finite_difference_tolerance
    rows: list[tuple[str, Any, Any, str]] = []
    for name, error, limit in (
        ("determinism", found.determinism_error, bound), ("linearity", found.linearity_error, bound),
        ("symmetry", found.symmetry_error, bound), ("adjoint", found.adjoint_error, bound),
        ("finite differences of the gradient", found.finite_difference_error, difference_bound),
    ):  # fmt: skip
        verdict = "does not apply" if error is None else "passed" if error <= limit else "FAILED"
        rows.append((name, error, limit if error is not None else None, verdict))
    section.table("check", ("check", "relative error", "bound", "verdict"), rows)
    section.data["passed"], section.data["finite"] = found.passed, found.finite
    section.num_matvecs = 5
    if found.passed:
        section.text("All checks passed: products are finite, repeat, are linear and symmetric, and are the derivative they claim to be.")
        return
    failed = [name for name, _, _, verdict in rows if verdict == "FAILED"]
    what = "its products are not finite" if not found.finite else f"it fails on {' and '.join(failed)}"
    section.text(f"The operator did not pass its check: {what}. The numbers below rest on it, so repair it first.", "alarm")


def again_section(work: Work, section: Section, arguments: Sequence[str], sections: Sequence[Section]) -> None:
    """The call, the versions, and what each section cost."""
    command = shlex.join(["linop-spectra", *arguments])
    section.text("This command makes the same report:")
    section.text(command, "code")
    steps, seed = min(work.extent.steps, work.order), work.seed
    if work.objective is not None:
        section.text("And these lines its numbers, with obj the objective that the target returns:")
        matrix = "" if work.target.matrix == "hessian" else f"matrix={work.target.matrix!r}, "
        truth = "truth=report, " if uses_density(work) else ""
        section.text(
            "import linop_spectra as ls\n"
            f"report = ls.curvature_report(obj, {matrix}num_steps={steps}, extra={list(work.extent.extras)}, seed={seed})\n"
            f"diagonal = ls.approximate(obj, 'diagonal', {matrix}num_matvecs={work.diagonal_products}, seed={seed})\n"
            f"critique = ls.critique(obj, diagonal, {matrix}num_steps={work.extent.steps}, {truth}seed={seed})\n"
            "print(report, critique)",
            "code",
        )
    else:
        section.text("And this line its spectrum, with A the matrix that the target gives:")
        section.text(f"import linop_spectra as ls\nS = ls.spectral_density(A, num_steps={steps}, seed={seed})", "code")
    found = versions()
    section.facts("versions", [*found.items(), ("seed", seed)], "Versions and seed")
    rows = [(one.title, one.num_matvecs, float(one.seconds), float(one.processor_seconds)) for one in sections]
    total = math.fsum(row[2] for row in rows)
    section.table("cost", ("section", "products", "seconds", "processor seconds"), rows, f"What each section took, {total:.3g} s in all")
    section.data |= {"command": command, "versions": found, "seed": seed}


def uses_density(work: Work) -> bool:
    """Whether the critique takes the spectrum from the earlier run; small matrices it forms and takes apart itself."""
    from ..krylov.dense import DENSE, is_stored_matrix

    small = work.order <= 4 * work.extent.steps or (is_stored_matrix(work.operator) and work.order <= DENSE)
    return work.density is not None and not small and bool(np.isfinite(work.density.nodes).all())
