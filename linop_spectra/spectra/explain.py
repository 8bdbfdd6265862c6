"""A measured spectrum in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .density import SpectralDensity


def explain(S: SpectralDensity) -> str:
    """Five sentences, one a line."""
    return "\n".join((_run(S), _ends(S), _noise(S), _trace(S), _limits(S)))


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _run(S: SpectralDensity) -> str:
    ended = {
        "complete": "",
        "interrupted": ", and was interrupted before it had done all steps",
        "time budget": ", and ended early because its time budget was spent",
    }[S.status]
    exact = "; the Krylov spaces are invariant, so there is no quadrature error" if all(r.exact for r in S.deflation.rules) else ""
    storage = {
        "full": "",
        "compressed": f"; the Lanczos vectors were kept in {S.run.basis_dtype}",
        "host": "; the Lanczos vectors were kept in the memory of the host",
        "selective": f"; {_plural(len(S.run.locked_values), 'eigenvector')} of largest modulus stood in for the Lanczos vectors, so that "
        "other Ritz values may repeat and are not pinned",
        "none": "; the Lanczos vectors were not kept, so that Ritz values may repeat and none is pinned",
    }[S.run.reorthogonalize]
    return (
        f"The run took {_plural(S.num_steps, 'step')} from {_plural(S.num_probes, 'random probe')} on a matrix of order "
        f"{S.dimension:,}, {_plural(S.num_matvecs, 'product')} in all{ended}{storage}{exact}."
    )


def _ends(S: SpectralDensity) -> str:
    (low, low_residual), (high, high_residual) = S.extreme_eigenvalues()
    outliers = S.outliers()
    pinned = len(S.deflation.pinned)
    witness = "the locked eigenvectors" if S.run.reorthogonalize == "selective" else "a second probe"
    certain = f"{witness} confirmed that they are simple" if S.deflation.verified else "no second probe has tested that they are simple"
    carry = "carries" if pinned == 1 else "carry"
    pins = f", and {_plural(pinned, 'converged eigenvalue')} {carry} the exact weight 1/n ({certain})" if pinned else ""
    return (
        f"The eigenvalues reach from {low:.6g} (residual {low_residual:.1e}) to {high:.6g} (residual {high_residual:.1e}), with "
        f"{_plural(len(outliers), 'outlier')} beyond a bulk of about {S.bulk_edges()[0]:.3g} to {S.bulk_edges()[1]:.3g}{pins}."
    )


def _noise(S: SpectralDensity) -> str:
    low, high = S.negative_mass()
    return (
        f"Below {S.noise_floor:.1e} in modulus rounding decides, so nothing there has a sign; below that the share of negative "
        f"eigenvalues seen by these probes lies between {low:.4f} and {high:.4f}, and up to {S.resolution(0.0):.3f} could sit "
        "exactly at zero."
    )


def _trace(S: SpectralDensity) -> str:
    trace = S.trace()
    low, high = trace.confidence_interval(0.95)
    names = {"probe": "sampling", "quadrature": "quadrature", "rounding": "rounding"}
    source = names[max(trace.sources, key=lambda name: trace.sources[name])]
    if trace.standard_error == 0 and trace.quadrature_error == 0:
        return f"The trace is {trace.value:.6g}, up to rounding."
    return f"The trace is {trace.value:.6g}, in 95 % of cases within {low:.6g} to {high:.6g}; most of that width comes from {source}."


def _limits(S: SpectralDensity) -> str:
    if S.deflation.objections:
        places = ", ".join(f"{value:.4g}" for value in S.deflation.objections[:3])
        return f"The weights at {places} are not those of simple eigenvalues, so they were left as measured: look there for multiplicity."
    if S.deflation.rest_dimension == 0:
        return "Every eigenvalue is resolved, one by one: there is nothing that these probes cannot say."
    steps = "more steps" if _quadrature_dominates(S) else "more probes"
    return (
        f"What these probes cannot say: the share of eigenvalues below any point is known to {S.kolmogorov_bound:.3f} at worst, and "
        f"eigenvalues inside the bulk are not resolved one by one; {steps} would help most."
    )


def _quadrature_dominates(S: SpectralDensity) -> bool:
    d = S.deflation
    largest = [0.0 if rule.exact else float(np.max(weights, initial=0.0)) for rule, (_, weights) in zip(d.rules, d.rest, strict=True)]
    return bool(np.mean(largest) > S.kolmogorov_bound / 2)


def summary_rows(S: SpectralDensity) -> list[tuple[str, str]]:
    """Names and values for a printed or notebook table."""
    (low, low_residual), (high, high_residual) = S.extreme_eigenvalues()
    negative = S.negative_mass()
    rows = [
        ("operator", f"order {S.dimension:,}, {S.run.dtype}"),
        ("run", f"{S.num_steps} steps, {S.num_probes} probes, {S.num_matvecs:,} products, {S.seconds:.3g} s, {S.status}"),
        ("largest eigenvalue", f"{high:.6g} (residual {high_residual:.1e})"),
        ("smallest eigenvalue", f"{low:.6g} (residual {low_residual:.1e})"),
        ("trace", str(S.trace())),
        ("negative mass", f"{negative[0]:.4f} to {negative[1]:.4f} (below -{S.noise_floor:.1e})"),
        ("bulk", f"{S.bulk_edges()[0]:.4g} to {S.bulk_edges()[1]:.4g}"),
        ("outliers", f"{len(S.outliers())}, {len(S.deflation.pinned)} eigenvalues pinned at weight 1/n"),
        ("Wasserstein bound", f"{S.wasserstein_bound:.3g}"),
        ("Kolmogorov bound", f"{S.kolmogorov_bound:.3g}"),
    ]
    if len(S.deflation.pinned) and not S.deflation.verified and S.dimension > 1:
        rows.append(("assumption", "converged eigenvalues are simple: one probe cannot test it"))
    return rows + [("note", note) for note in S.notes]
