"""Results of an attribution: tables of what outliers come from, with their file format."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ..results import PathLike, html_table, register, save_result


@dataclasses.dataclass(frozen=True)
class KnockOut:
    """What is left of a spectrum without one component.

    Attributes
    ----------
    wasserstein : float
        Wasserstein-1 distance of the spectra before and after, in units of an eigenvalue. Both runs have the same probes.
    largest : float
        Largest eigenvalue in modulus, with its sign, of what is left.
    num_outliers : int
        Outliers of what is left.
    """

    wasserstein: float
    largest: float
    num_outliers: int


@dataclasses.dataclass(frozen=True)
class GroupShare:
    """How much of a group of outliers is due to one component.

    Attributes
    ----------
    energy : float
        Mean over the group's eigenpairs of ``u^T C u / lambda``: the share of the eigenvalue that the component gives. The shares of parts
        that add up to the matrix add up to one.
    largest_angle : float
        Largest principal angle, in degrees, between the span of the group and the range of the component; with a component of lower rank
        it is 90 where the group has more directions.
    mean_cosine_squared : float
        Mean squared cosine of all principal angles: the share of the group's span that lies in the range. By chance it is rank / n.
    """

    energy: float
    largest_angle: float
    mean_cosine_squared: float


@dataclasses.dataclass(frozen=True, eq=False)
class AttributionRow:
    """One component.

    Attributes
    ----------
    component : str
        Its name.
    rank : int
        Directions of its range that were taken.
    range_energy : float
        Share of the component's trace that those directions hold; below one where it has more of them.
    groups : tuple of GroupShare
        For each group of outliers.
    subtracted, projected : KnockOut
        Of the matrix less the component, and of the matrix on the complement of its range.
    """

    component: str
    rank: int
    range_energy: float
    groups: tuple[GroupShare, ...]
    subtracted: KnockOut
    projected: KnockOut


@register("attribution")
@dataclasses.dataclass(frozen=True, eq=False)
class Attribution:
    """Knock-outs of a matrix's components, and how much of each group of outliers is due to each.

    Attributes
    ----------
    outliers : numpy.ndarray
        Eigenvalues of the outliers, by descending modulus, shape (k,).
    groups : tuple of tuple of int
        First and one past the last place in `outliers` of each group.
    largest : float
        Largest eigenvalue in modulus of the whole matrix, with its sign.
    num_outliers : int
        Outliers that the spectrum of the whole matrix shows.
    dimension : int
        Order of the matrix.
    rows : tuple of AttributionRow
        One for each component.
    num_matvecs : int
        Products with the matrix and with the components.
    seconds : float
        Wall-clock time.
    notes : tuple of str
        What a reader should know.
    """

    outliers: np.ndarray
    groups: tuple[tuple[int, int], ...]
    largest: float
    num_outliers: int
    dimension: int
    rows: tuple[AttributionRow, ...]
    num_matvecs: int
    seconds: float
    notes: tuple[str, ...] = ()

    def __getitem__(self, component: str) -> AttributionRow:
        for row in self.rows:
            if row.component == component:
                return row
        raise KeyError(f"There is no component {component!r}; there are {', '.join(repr(row.component) for row in self.rows)}.")

    def __str__(self) -> str:
        names = [f"{first + 1}-{last}" if last > first + 1 else f"{last}" for first, last in self.groups]
        lines = [
            f"n = {self.dimension:,}, largest eigenvalue {self.largest:.5g}, {self.num_outliers} outliers; groups: "
            + "; ".join(
                f"{name}: {self.outliers[first]:.4g} to {self.outliers[last - 1]:.4g}"
                for name, (first, last) in zip(names, self.groups, strict=True)
            )
        ]
        width = max(9, *(len(row.component) for row in self.rows))
        shares = " ".join(f"{f'energy {name}':>14s} {'angle':>6s}" for name in names)
        lines.append(
            f"{'component':{width}s} {'rank':>6s} {shares} | {'subtracted: W1':>14s} {'largest':>10s} {'outliers':>8s} | "
            f"{'projected: W1':>13s} {'largest':>10s} {'outliers':>8s}"
        )
        for row in self.rows:
            shares = " ".join(f"{100 * share.energy:12.1f} % {share.largest_angle:5.1f}°" for share in row.groups)
            parts = [f"{row.component:{width}s} {row.rank:6d} {shares}"]
            for knock_out, size in ((row.subtracted, 14), (row.projected, 13)):
                parts.append(f"{knock_out.wasserstein:{size}.4g} {knock_out.largest:10.4g} {knock_out.num_outliers:8d}")
            lines.append(" | ".join(parts))
        return "\n".join([*lines, *self.notes])

    def _repr_html_(self) -> str:
        return html_table([(row.component, ", ".join(f"{100 * share.energy:.1f} %" for share in row.groups)) for row in self.rows])

    def save(self, path: PathLike) -> None:
        """Write the table to `path` (``.npz``); `linop_spectra.load` reads it back."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        outliers = fields.pop("outliers")
        fields["rows"] = [dataclasses.asdict(row) for row in self.rows]
        save_result(path, "attribution", fields, {"outliers": outliers})

    @classmethod
    def _from_file(cls, scalars: dict[str, Any], arrays: dict[str, np.ndarray]) -> Attribution:
        rows = tuple(
            AttributionRow(
                **{
                    **row, "groups": tuple(GroupShare(**share) for share in row["groups"]), "subtracted": KnockOut(**row["subtracted"]),
                    "projected": KnockOut(**row["projected"]),
                }
            )
            for row in scalars.pop("rows")
        )  # fmt: skip
        groups = tuple(tuple(group) for group in scalars.pop("groups"))
        notes = tuple(scalars.pop("notes"))
        return cls(**scalars, outliers=arrays["outliers"], rows=rows, groups=groups, notes=notes)
