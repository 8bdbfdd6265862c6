"""Four figures of what is often said about Lanczos and is not so; docs/folklore.md tells what they show.

Run: ``python benchmarks/folklore.py`` (about two minutes on one core; ``--quick`` leaves out the million). The numbers are printed.
"""

import argparse
import pathlib

import numpy as np
from scipy import linalg

import linop_spectra as ls
from linop_spectra.plots.style import BULK, NORMAL, OUTLIER, SMALL, TEXT, UNRESOLVED, dress, new_figure

IMAGES = pathlib.Path(__file__).resolve().parent.parent / "docs" / "images"


def bulk(n):
    """A semicircle on [-2, 2] by its quantiles."""
    return ls.random_matrices.Semicircle().quantile((np.arange(n) + 0.5) / n)


def ritz(run, probe, k):
    """Ritz values of the first k steps."""
    alphas, betas = run.jacobi(probe)
    return linalg.eigvalsh_tridiagonal(alphas[:k], betas[: k - 1])


def label(ax, title, x, y):
    """Title and names of the axes."""
    ax.set_title(title, fontsize=NORMAL, color=TEXT, loc="left")
    ax.set_xlabel(x, fontsize=SMALL, color=TEXT)
    ax.set_ylabel(y, fontsize=SMALL, color=TEXT)
    dress(ax)


def save(figure, name):
    """Write one figure."""
    figure.savefig(IMAGES / f"folklore_{name}.png", metadata={"Software": None})


def mirror():
    """Ritz values of H and of mu - H after each step."""
    values, mu = np.r_[bulk(1995), [-6.0, -3.0, 4.0, 5.0, 9.0]], 3.0
    start = np.random.default_rng(0).standard_normal(2000)
    runs = [ls.lanczos(ls.diagonal_operator(v), 40, start=start) for v in (values, mu - values)]
    worst = max(np.abs(ritz(runs[1], 0, k) - (mu - ritz(runs[0], 0, k)[::-1])).max() for k in range(1, 41))
    figure = new_figure(7.2, 3.6)
    for ax, run, title, v in zip(figure.subplots(1, 2), runs, ("H", "3 − H"), (values, mu - values), strict=True):
        for k in range(1, 31):
            ax.plot(np.full(k, k), ritz(run, 0, k), ".", color=BULK, markersize=3)
        for place in v[-5:]:
            ax.axhline(place, color=OUTLIER, linewidth=0.8)
        label(ax, f"Ritz values of {title}", "step", "Ritz value")
    save(figure, "mirror")
    print(f"mirror: largest difference of mirrored Ritz values in 40 steps {worst:.1e}")


def both_ends():
    """Error of the largest and the smallest Ritz value."""
    n, probes, k, place = 10_000, 40, 20, 4.25
    run = ls.lanczos(ls.diagonal_operator(np.r_[bulk(n - 2), [-place, place]]), k, num_probes=probes)
    errors = np.array([[[abs(ritz(run, p, j)[end] - sign * place) / place for j in range(1, k + 1)] for p in range(probes)]
                       for end, sign in ((-1, 1), (0, -1))])  # fmt: skip
    ax = new_figure(7.2, 3.8).add_subplot()
    for error, colour, name in zip(errors, (OUTLIER, BULK), ("largest", "smallest"), strict=True):
        steps, ends = np.arange(1, k + 1), np.quantile(np.maximum(error, 1e-17), [0.1, 0.9], axis=0)
        ax.semilogy(steps, np.median(error, axis=0), color=colour, label=f"{name}: median of {probes} starts")
        ax.fill_between(steps, *ends, color=colour, alpha=0.15, linewidth=0)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(fontsize=SMALL, frameon=False)
    label(ax, "Both ends converge at once (band: 80 % of the starts)", "step", "relative error")
    save(ax.figure, "both_ends")
    first = (errors < 0.01).argmax(axis=2) + 1
    wins = [int((first[0] < first[1]).sum()), int((first[0] > first[1]).sum())]
    middle = np.median(first, axis=1)
    print(f"both ends: 1 % after {middle[0]:g} (top) and {middle[1]:g} (bottom) steps; top first {wins[0]}, bottom {wins[1]} of {probes}")


def detection(sizes):
    """Step that first has an outlier to one per cent."""
    thetas = (1.5, 2.0, 3.0, 4.0, 8.0)
    ax = new_figure(7.2, 4.2).add_subplot()
    for n, colour, probes in zip(sizes, (UNRESOLVED, BULK, OUTLIER), (40, 15, 7), strict=False):
        middle, laws = [], []
        values = bulk(n - 1)
        for theta in thetas:
            place, law = theta + 1 / theta, np.log(n) / (2 * np.log(theta))
            k = int(law) + 16
            run = ls.lanczos(ls.diagonal_operator(np.append(values, place)), k, num_probes=probes, reorthogonalize="none")
            first = [next((j for j in range(1, k + 1) if ritz(run, p, j)[-1] > 0.99 * place), k) for p in range(probes)]
            middle.append(np.median(first))
            laws.append(law)
            print(f"detection: n {n:8d} theta {theta:3g} law {law:5.1f} median {middle[-1]:5.1f} from {min(first)} to {max(first)}")
            ax.plot([law, law], np.quantile(first, [0.1, 0.9]), color=colour, linewidth=1.2)
            if n == sizes[-1]:
                ax.annotate(f"θ = {theta:g}", (law, middle[-1]), (6, -10), textcoords="offset points", fontsize=SMALL, color=TEXT)
        ax.plot(laws, middle, "o", color=colour, markersize=5, label=f"P = {n:,}")
    line = np.array([0.0, 20.0])
    ax.fill_between(line, line + 2, line + 8, color=BULK, alpha=0.1, linewidth=0, label="law + 2 to law + 8")
    ax.plot(line, line, color=UNRESOLVED, linewidth=0.8, label="law")
    ax.axhline(10, color=TEXT, linewidth=0.8, linestyle="--")
    ax.text(19.8, 10.3, "“ten steps are enough”", ha="right", fontsize=SMALL, color=TEXT)
    ax.set_xlim(0, 20)
    ax.set_ylim(0, 30)
    ax.legend(fontsize=SMALL, frameon=False, loc="upper left")
    label(ax, "Step that has the outlier to one per cent: median, 80 % of the starts", "law: ln P / (2 ln θ)", "step")
    save(ax.figure, "detection")


def ghosts():
    """Ritz values and weights with and without reorthogonalisation."""
    n, steps = 2000, 120
    outliers = np.array([6.0, 8.0, 10.0])
    values = np.r_[bulk(n - 3), outliers]
    start = np.random.default_rng(3).standard_normal(n)
    exact = start**2 / (start @ start)
    plain, full = (ls.lanczos(ls.diagonal_operator(values), steps, start=start, reorthogonalize=kind) for kind in ("none", "full"))
    places, counts, relative = np.arange(5, steps + 1, 5), [], []
    for k in places:
        alphas, betas = plain.jacobi(0)
        nodes, vectors = linalg.eigh_tridiagonal(alphas[:k], betas[: k - 1])
        near = np.abs(nodes - 10) < 1e-3
        counts.append(int(near.sum()))
        relative.append(abs((vectors[0] ** 2)[near].sum() / exact[-1] - 1) if near.any() else 1.0)
    figure = new_figure(7.2, 3.6)
    left, right = figure.subplots(1, 2)
    left.step(places, counts, where="post", color=OUTLIER, label="copies of the eigenvalue 10")
    left.axhline(1, color=BULK, linewidth=0.8, label="with reorthogonalisation")
    left.legend(fontsize=SMALL, frameon=False)
    label(left, "Ghosts come", "step", "Ritz values there")
    right.semilogy(places, np.maximum(relative, 1e-17), ".-", color=OUTLIER)
    label(right, "and their weights add up to the one weight", "step", "relative error of their sum")
    save(figure, "ghosts")
    x, nodes = (values + 2) / 6 - 1, (plain.ritz_values[0] + 2) / 6 - 1
    degrees = np.arange(2 * (steps - int(plain.num_ghosts[0])))[:, None]
    moments = np.cos(degrees * np.arccos(np.clip(x, -1, 1))) @ exact
    found = np.cos(degrees * np.arccos(np.clip(nodes, -1, 1))) @ plain.weights[0]
    for place, weight in zip(outliers, exact[-3:], strict=True):
        copies = np.abs(plain.ritz_values[0] - place) < 1e-6
        once = np.abs(full.ritz_values[0] - place) < 1e-6
        several, one = plain.weights[0][copies].sum() / weight - 1, full.weights[0][once].sum() / weight - 1
        print(f"ghosts: {copies.sum()} copies of {place:g} weigh {abs(several):.1e} off, the one node of a full run {abs(one):.1e}")
    worst = np.abs(found - moments).max()
    print(f"ghosts: {plain.num_ghosts[0]} of {steps} nodes; {len(degrees)} Chebyshev moments off by {worst:.1e} at most")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out the million")
    quick = parser.parse_args().quick
    mirror()
    both_ends()
    ghosts()
    detection((10**4, 10**5) if quick else (10**4, 10**5, 10**6))
