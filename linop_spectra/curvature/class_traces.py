"""Traces of the parts of B2, one for each pair of classes, from shared products."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from ..estimators.sampling import mean_with_error
from ..results import Estimate, PathLike, register, save_result


@register("class traces")
@dataclasses.dataclass(frozen=True, eq=False)
class ClassTraces:
    """Traces of :math:`B_{2,c,c'}`, the spread of the gradients of one pair of classes.

    Attributes
    ----------
    samples : numpy.ndarray
        Quadratic forms of the random vectors, shape (num_probes, num_classes, num_classes); the traces themselves, shape (1,
        num_classes, num_classes), where they are exact.
    exact : bool
        Whether there is no statistical error.
    num_matvecs : int
        Products with the Jacobian.
    seconds : float
        Wall-clock time.
    """

    samples: np.ndarray
    exact: bool
    num_matvecs: int
    seconds: float

    @property
    def values(self) -> np.ndarray:
        """Traces of :math:`B_{2,c,c'}`, shape (num_classes, num_classes)."""
        return np.asarray(self.samples.mean(axis=0))

    @property
    def standard_errors(self) -> np.ndarray:
        """Standard errors of `values`, of the same shape; infinite for a single random vector."""
        return self._errors(self.samples)

    @property
    def per_class(self) -> np.ndarray:
        """Traces of :math:`B_{2,c}`, shape (num_classes,)."""
        return np.asarray(self.values.sum(axis=1))

    @property
    def per_class_standard_errors(self) -> np.ndarray:
        """Standard errors of `per_class`, of the same shape."""
        return self._errors(self.samples.sum(axis=2))

    def estimate(self, c: int | None = None, other: int | None = None) -> Estimate:
        """One trace with its interval.

        Parameters
        ----------
        c : int, optional
            Class of the examples; all of them together when left out, which is the trace of `B2`.
        other : int, optional
            The other class; all of them together when left out.

        Returns
        -------
        Estimate
            With standard error and degrees of freedom.
        """
        chosen = self.samples if c is None else self.samples[:, c : c + 1]
        chosen = chosen if other is None else chosen[:, :, other : other + 1]
        if chosen.shape[1] == 0 or chosen.shape[2] == 0:
            raise ValueError(f"There are {self.samples.shape[1]} classes, numbered from 0, but class {c} and {other} were asked for.")
        values = chosen.sum(axis=(1, 2))
        mean, error, degrees = (float(values[0]), 0.0, math.inf) if self.exact else mean_with_error(values)
        return Estimate(
            mean,
            standard_error=error,
            degrees_of_freedom=degrees,
            num_matvecs=self.num_matvecs,
            seconds=self.seconds,
            method="exact" if self.exact else "hutchinson",
        )

    def _errors(self, samples: np.ndarray) -> np.ndarray:
        count = samples.shape[0]
        if self.exact:
            return np.zeros(samples.shape[1:])
        if count < 2:
            return np.full(samples.shape[1:], np.inf)
        return np.asarray(samples.std(axis=0, ddof=1) / math.sqrt(count))

    def save(self, path: PathLike) -> None:
        """Write the traces to `path` (``.npz``); `linop_spectra.load` reads them back."""
        scalars = {name: getattr(self, name) for name in ("exact", "num_matvecs", "seconds")}
        save_result(path, "class traces", scalars, {"samples": self.samples})

    @classmethod
    def _from_file(cls, scalars: dict[str, Any], arrays: dict[str, np.ndarray]) -> ClassTraces:
        fields: dict[str, Any] = {**scalars, **arrays}
        return cls(**fields)

    def __str__(self) -> str:
        lines = [f"trace of B2: {self.estimate()}"]
        lines += [
            f"  class {c}: {value:.6g}" + ("" if self.exact else f" +- {error:.2g}")
            for c, (value, error) in enumerate(zip(self.per_class, self.per_class_standard_errors, strict=True))
        ]
        return "\n".join(lines)
