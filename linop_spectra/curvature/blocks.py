"""Diagonal blocks of curvature matrices, by names of parameters and layers."""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Mapping

import numpy as np

from ..backends import Array
from ..operators import LinearOperator
from ..operators.submatrix import SubmatrixOperator


def members(blocks: Mapping[str, slice], name: str) -> tuple[str, ...]:
    """Parameters that a name stands for: itself, all in the layer of that name, or all that match it as a pattern.

    Raises
    ------
    ValueError
        When there is none.

    Examples
    --------
    >>> places = {"0.weight": slice(0, 6), "0.bias": slice(6, 8), "10.weight": slice(8, 10)}
    >>> members(places, "0"), members(places, "*.weight")
    (('0.weight', '0.bias'), ('0.weight', '10.weight'))
    """
    if name in blocks:
        return (name,)
    found = tuple(own for own in blocks if own.startswith((f"{name}.", f"{name}/")))
    found = found or tuple(own for own in blocks if fnmatch.fnmatchcase(own, name))
    if not found:
        some = ", ".join(map(repr, list(blocks)[:12])) + (f" and {len(blocks) - 12} more" if len(blocks) > 12 else "")
        raise ValueError(f"The argument name is {name!r}, which is no parameter, no layer and matches none of them; there are {some}.")
    return found


def layer_of(name: str) -> str:
    """The layer that a parameter belongs to: its name up to the last dot or slash; its own name where there is none.

    Examples
    --------
    >>> layer_of("encoder.0.weight"), layer_of("dense/kernel"), layer_of("scale")
    ('encoder.0', 'dense', 'scale')
    """
    cut = max(name.rfind("."), name.rfind("/"))
    return name[:cut] if cut > 0 else name


class BlockOperator(SubmatrixOperator):
    """A diagonal block of a curvature matrix.

    Parameters
    ----------
    whole : LinearOperator
        A matrix with ``blocks``, the rows of each parameter.
    name : str
        Of a parameter or a layer, or a pattern; see `CurvatureOperator.block`.

    Attributes
    ----------
    name : str
        What was asked for.
    parameter_names : tuple of str
        The parameters in it, in the order of its rows.
    """

    def __init__(self, whole: LinearOperator, name: str) -> None:
        self.name = name
        self._places: Mapping[str, slice] = whole.blocks  # type: ignore[attr-defined]
        self.parameter_names = members(self._places, name)
        index = np.concatenate([np.arange(self._places[own].start, self._places[own].stop) for own in self.parameter_names])
        super().__init__(whole, index, index)

    def _matmat(self, x: Array) -> Array:
        restricted = getattr(self.inner, "restricted", None)
        with restricted(self.parameter_names) if restricted is not None else contextlib.nullcontext():
            return super()._matmat(x)

    @property
    def engine(self) -> str:
        """How products of the whole matrix are computed."""
        return getattr(self.inner, "engine", "")

    @property
    def blocks(self) -> Mapping[str, slice]:
        """Rows of each parameter in the block."""
        sizes = [self._places[own].stop - self._places[own].start for own in self.parameter_names]
        ends = np.cumsum(sizes).tolist()
        return {own: slice(end - size, end) for own, size, end in zip(self.parameter_names, sizes, ends, strict=True)}

    def derivative_error(self, seed: int = 0) -> float | None:
        """That of the whole matrix."""
        return self.inner.derivative_error(seed)

    def _details(self) -> str:
        return self.name
