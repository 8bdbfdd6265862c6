"""Means of gradients by class: a map of them, and the eigenvalues of their Gram matrices as markers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from .style import BULK, GRID, LARGE, NORMAL, OUTLIER, SMALL, TEXT, dress, new_axes, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Method = Literal["auto", "tsne", "mds"]
_LEAST_WEIGHT = 1e-12
_MOST_DIGITS = 20
"""Classes up to which each point is written as the number of its second class."""
_PARTS = {"A1": ("o", OUTLIER), "A2": ("D", "#009E73"), "B1": ("s", BULK), "A1+A2+B1": ("|", TEXT)}


def class_means(
    structure: Any, ax: Axes | None = None, *, method: Method = "auto", names: Sequence[str] | None = None, seed: int = 0,
    title: str | None = None,
) -> Axes:  # fmt: skip
    r"""Draw the class means :math:`g_c` and cross-class means :math:`g_{c,c'}` of a classifier in the plane, by their distances.

    Each circle is the mean of one class, with its number or name; around it stand its cross-class means, each written as the number of
    its second class (as dots beyond 20 classes). Clusters by first class are what makes :math:`A_1` the home of the outliers
    (Papyan, 2020, figure 6). All distances come from one Gram matrix, so that nothing of the size of the model is embedded.

    Parameters
    ----------
    structure : ClassStructure
        What to draw; only ``num_classes``, ``cross_class_weights`` and ``gram`` are used, the last at the cost of a product for each pair.
    ax : matplotlib.axes.Axes, optional
        Where to draw; axes of a new figure by default.
    method : {"auto", "tsne", "mds"}
        t-SNE by scikit-learn (neighbours are right, large distances mean nothing), classical scaling (distances are as right as a plane
        allows), or the first where scikit-learn is installed and there are enough points.
    names : sequence of str, optional
        Of the classes; their numbers by default.
    seed : int
        Of t-SNE.
    title : str, optional
        Title; by default the method.

    Returns
    -------
    matplotlib.axes.Axes
        The axes; ``ax.figure.savefig(path)`` writes the picture.

    Raises
    ------
    ImportError
        When matplotlib is not installed, or t-SNE is asked for without scikit-learn.
    ValueError
        When the method is unknown, names do not fit, or fewer than three means are there.
    """
    classes = int(structure.num_classes)
    if method not in get_args(Method):
        raise ValueError(f"The argument method is {method!r}, but must be one of {', '.join(map(repr, get_args(Method)))}.")
    if names is not None and len(names) != classes:
        raise ValueError(f"The argument names holds {len(names)} names for {classes} classes; pass one for each.")
    pairs, present, gram = _inner_products(structure)
    if len(pairs) < 3:
        raise ValueError(f"A map needs at least three cross-class means, but there are {len(pairs)}.")
    places, used = _embed(gram, method, seed)
    ax = new_axes(6.2, 5.0) if ax is None else ax
    dress(ax)
    colors = _colors(classes)
    labels = [str(c) for c in range(classes)] if names is None else [str(name) for name in names]
    for (c, other), (x, y) in zip(pairs, places[: len(pairs)], strict=True):
        if classes <= _MOST_DIGITS:
            ax.text(x, y, str(other), color=colors[c], fontsize=SMALL - 1, ha="center", va="center", clip_on=True, gid="pair")
        else:
            ax.plot(x, y, ".", color=colors[c], markersize=3, gid="pair")
    for c, (x, y) in zip(present, places[len(pairs) :], strict=True):
        ax.plot(x, y, "o", color=colors[c], markersize=15, markeredgecolor="white", markeredgewidth=0.8, gid="class mean", zorder=4)
        shade = "white" if _dark(colors[c]) else TEXT
        ax.annotate(labels[c], (x, y), color=shade, fontsize=SMALL, fontweight="bold", ha="center", va="center", zorder=5)
    margin = 0.06 * np.ptp(places, axis=0).max()
    ax.set_xlim(places[:, 0].min() - margin, places[:, 0].max() + margin)
    ax.set_ylim(places[:, 1].min() - margin, places[:, 1].max() + margin)
    if used == "tsne":
        ax.set_xticks([])
        ax.set_yticks([])
    ax.set_xlabel("first coordinate", fontsize=NORMAL, color=TEXT)
    ax.set_ylabel("second coordinate", fontsize=NORMAL, color=TEXT)
    default = "class means (circles) and cross-class means, " + ("t-SNE" if used == "tsne" else "classical scaling")
    ax.set_title(default if title is None else title, fontsize=LARGE if title is not None else NORMAL, color=TEXT, loc="left")
    return ax


def gram_spectra(result: Any, ax: Axes | None = None, *, title: str | None = None) -> Axes:
    """Draw the eigenvalues of the parts of a class structure as markers on a logarithmic axis, a line for each part.

    Parameters
    ----------
    result : ClassStructure or mapping of str to array
        Eigenvalues by part, shape (number of eigenvalues,); of a class structure those of A1, A2, B1 and of their sum.
    ax : matplotlib.axes.Axes, optional
        Where to draw; axes of a new figure by default.
    title : str, optional
        Title; none by default.

    Returns
    -------
    matplotlib.axes.Axes
        The axes; ``ax.figure.savefig(path)`` writes the picture.

    Raises
    ------
    ImportError
        When matplotlib is not installed.
    ValueError
        When no part has a positive eigenvalue.
    """
    found = result if isinstance(result, Mapping) else {part: result.spectrum(part) for part in _PARTS}
    arrays = {str(part): np.asarray(values, dtype=float) for part, values in found.items()}
    top = max((float(values.max()) for values in arrays.values() if len(values)), default=0.0)
    if not top > 0:
        raise ValueError("The argument result holds no positive eigenvalue, so that there is nothing to draw on a logarithmic axis.")
    # What is smaller than rounding of the largest is a zero of the Gram matrix.
    shown = {part: values[values > 1e-10 * top] for part, values in arrays.items()}
    ax = new_axes(6.4, 0.9 + 0.5 * len(shown)) if ax is None else ax
    dress(ax)
    ax.set_xscale("log")
    for row, (part, values) in enumerate(shown.items()):
        symbol, color = _PARTS.get(part, ("x", BULK))
        ax.plot([0, 1], [row, row], color=GRID, linewidth=0.8, transform=ax.get_yaxis_transform(), zorder=0)
        face = color if symbol in "|x" else "none"
        ax.plot(values, np.full(len(values), row), symbol, color=color, markerfacecolor=face, markersize=9 if symbol == "|" else 6,
                linestyle="none", gid=f"markers {part}")  # fmt: skip
    low = min(float(values.min()) for values in shown.values() if len(values))
    ax.set_xlim(low / 3, 3 * top)
    ax.set_ylim(len(shown) - 0.5, -0.5)
    zeros = {part: len(arrays[part]) - len(shown[part]) for part in shown}
    ax.set_yticks(
        range(len(shown)),
        [f"{part} ({len(shown[part])}{f', {zeros[part]} zero' if zeros[part] else ''})" for part in shown],
    )  # fmt: skip
    ax.grid(False, axis="y")
    ax.set_xlabel(f"eigenvalue λ; the largest is {number(top)}", fontsize=NORMAL, color=TEXT)
    if title is not None:
        ax.set_title(title, fontsize=LARGE, color=TEXT, loc="left")
    return ax


def _inner_products(structure: Any) -> tuple[list[tuple[int, int]], list[int], np.ndarray]:
    """Pairs, classes, and the inner products of all their means: those of pairs first."""
    classes = int(structure.num_classes)
    weights = np.asarray(structure.cross_class_weights, dtype=float)
    kept = np.flatnonzero(weights.reshape(-1) > _LEAST_WEIGHT * weights.max())
    roots = np.sqrt(weights.reshape(-1)[kept])
    gram = np.asarray(structure.gram("A1+A2+B1"), dtype=float)[np.ix_(kept, kept)] / np.outer(roots, roots)
    pairs = [(int(place // classes), int(place % classes)) for place in kept]
    present, rows = [], []
    for c in range(classes):
        row = np.array([weights[pair] if pair[0] == c and pair[1] != c else 0.0 for pair in pairs])
        if row.sum() > 0:
            present.append(c)
            rows.append(row / row.sum())
    combine = np.vstack([np.eye(len(pairs)), *rows]) if rows else np.eye(len(pairs))
    return pairs, present, combine @ gram @ combine.T


def _embed(gram: np.ndarray, method: Method, seed: int) -> tuple[np.ndarray, str]:
    """Points in the plane for inner products, shape (m, 2), and the method that was used."""
    squares = np.diag(gram)
    distances = np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2 * gram, 0.0))
    if method != "mds" and (method == "tsne" or len(gram) >= 12):
        try:
            from sklearn.manifold import TSNE
        except ImportError as error:
            if method == "tsne":
                raise ImportError(
                    "t-SNE needs scikit-learn, which is not installed; run: pip install scikit-learn, or pass method='mds'."
                ) from error
        else:
            scale = distances.max() or 1.0
            perplexity = min(max(2.0, np.sqrt(len(gram))), (len(gram) - 1) / 3)
            model = TSNE(metric="precomputed", init="random", perplexity=perplexity, random_state=seed)
            return np.asarray(model.fit_transform(distances / scale), dtype=float), "tsne"
    centred = gram - gram.mean(axis=0) - gram.mean(axis=1)[:, None] + gram.mean()
    values, vectors = np.linalg.eigh((centred + centred.T) / 2)
    top = np.sqrt(np.maximum(values[-1:-3:-1], 0.0))
    return vectors[:, -1:-3:-1] * top, "mds"


def _colors(count: int) -> list[tuple[float, ...]]:
    """Colours that differ in lightness too; the lightest end, which white paper swallows, is left out."""
    from matplotlib import colormaps

    return [tuple(colormaps["viridis"](x)) for x in np.linspace(0.0, 0.8, count)]


def _dark(color: tuple[float, ...]) -> bool:
    return 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] < 0.55
