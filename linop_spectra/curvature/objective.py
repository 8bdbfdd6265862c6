"""The objective: model functions, parameters and data, from which values, gradients and matrices follow."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..backends import Array
from .data import Batches
from .linearization import Batch, ModelFunctions, Point
from .matrices import GaussNewtonOperator, HessianOperator


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Objective:
    """A loss as a function of parameters, over fixed data; made by `linop_spectra.objective`.

    The parameters were copied when the objective was made: training the model on does not change it. Objectives with other
    parameters or data share the model's functions with this one and cost nothing to make.

    Attributes
    ----------
    functions : ModelFunctions
        Model and loss as pure functions, from an adapter.
    point : object
        Parameters in the adapter's form.
    data : Batches
        The batches.
    weight_decay : float
        Adds ``weight_decay / 2 * |theta|^2`` to the loss.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> model = torch.nn.Linear(4, 3)
    >>> inputs, targets = torch.randn(10, 4), torch.randint(0, 3, (10,))
    >>> objective = ls.objective(model, "cross_entropy", (inputs, targets), batch_size=4)
    >>> objective.num_parameters, objective.num_examples, objective.gradient().shape
    (15, 10, (15,))
    """

    functions: ModelFunctions
    point: Point
    data: Batches
    weight_decay: float = 0.0

    # -- what it is ----------------------------------------------------------------------------------------------------

    @property
    def num_parameters(self) -> int:
        """Length of the parameter vector."""
        return self.functions.num_parameters

    @property
    def num_examples(self) -> int:
        """Examples in the data; for a loader this may cost the first pass over it."""
        return self.data.num_examples

    @property
    def dtype(self) -> np.dtype:
        """Type of vectors: the widest of the parameters' types, at least float32."""
        return self.functions.dtype

    @property
    def blocks(self) -> Mapping[str, slice]:
        """Place of each parameter in the vector, by name."""
        return self.functions.blocks

    def parameters(self) -> Array:
        """The parameters as a vector of shape (num_parameters,), copied."""
        return self.functions.flat(self.point)

    def flatten(self, tree: Any) -> Array:
        """Named arrays, shaped like the parameters, as one vector.

        Parameters
        ----------
        tree : mapping or sequence
            One array for each parameter, by name or in order.

        Returns
        -------
        array
            Shape (num_parameters,).
        """
        return self.functions.flatten(tree)

    def unflatten(self, vector: Any) -> Any:
        """A vector of shape (num_parameters,) as named arrays of the framework; see `flatten`."""
        return self.functions.unflatten(vector)

    # -- what it is worth ----------------------------------------------------------------------------------------------

    def value(self) -> float:
        """The loss: the sum of all terms divided by their number, plus the weight decay term.

        Raises
        ------
        ValueError
            When the loss is not finite.
        """
        total = terms = 0.0
        with self.functions.session():
            for batch in self.batches():
                batch_total, batch_terms = self.functions.loss_sum(self.point, batch)
                total, terms = total + batch_total, terms + batch_terms
        value = total * self.scale(terms)
        if self.weight_decay:
            theta = self.parameters()
            value += 0.5 * self.weight_decay * float(self.functions.backend.dot(theta, theta))
        return value

    def gradient(self) -> Array:
        """Gradient of `value`, as a vector of shape (num_parameters,)."""
        out = self.functions.backend.empty((self.num_parameters,), self.dtype)
        with self.functions.session():
            total, terms = self.functions.accumulator(out), 0.0
            for batch in self.batches():
                terms += self.functions.add_gradient(self.point, batch, total)[1]
            total.finish(self.scale(terms))
        if self.weight_decay:
            out += self.weight_decay * self.parameters()
        return out

    def scale(self, terms: float) -> float:
        """Factor between the sum of all terms and the objective.

        Raises
        ------
        ValueError
            When there are no terms.
        """
        if not self.functions.averages:
            return 1.0
        if not terms > 0:
            raise ValueError(
                f"The loss has {terms:g} terms over the whole data (every position masked or ignored, or weights that sum to "
                "zero), so that its mean is not defined; pass data with at least one term."
            )
        return 1.0 / terms

    def batches(self) -> Iterator[Batch]:
        """One pass over the prepared batches."""
        self.data.plan(self.point)
        return iter(self.data)

    # -- matrices ------------------------------------------------------------------------------------------------------

    def hessian(self) -> HessianOperator:
        """Hessian of the objective, as an operator; nothing is computed before its first product."""
        return HessianOperator(self)

    def ggn(self) -> GaussNewtonOperator:
        """Generalised Gauss-Newton matrix, as an operator; weight decay adds its multiple of the identity here too.

        Raises
        ------
        TypeError
            When the loss does not say what the model's outputs are.
        """
        return GaussNewtonOperator(self)

    # -- others like it ------------------------------------------------------------------------------------------------

    def with_parameters(self, parameters: Any) -> Objective:
        """The same objective at other parameters.

        Parameters
        ----------
        parameters : array, mapping, str or path
            A vector of shape (num_parameters,); a state dict (what it says about buffers and about parameters that were left
            out is used too); or a file ``.pt`` (read with weights only), ``.npz`` or ``.safetensors`` with one.

        Returns
        -------
        Objective
            Shares functions and data with this one.
        """
        return self._derived(point=self.functions.point_from(parameters, self.point))

    def with_data(self, data: Any) -> Objective:
        """The same objective on other data, in any form that `linop_spectra.objective` takes."""
        return self._derived(data=self.functions.batches(data))

    def subset(self, per_class: int, seed: int = 0) -> Objective:
        """The same objective on randomly chosen examples, equally many of each class.

        Parameters
        ----------
        per_class : int
            Examples of each class that occurs.
        seed : int
            Of the choice.

        Raises
        ------
        TypeError
            When the batches are not pairs of inputs and class labels.
        ValueError
            When a class has fewer examples.
        """
        if per_class < 1:
            raise ValueError(f"The argument per_class is {per_class}, but must be at least one.")
        batches = list(self.batches())
        labels = [self.functions.labels(batch) for batch in batches]
        everything = np.concatenate(labels)
        generator = np.random.default_rng(seed)
        chosen = np.zeros(everything.size, dtype=bool)
        for label in np.unique(everything[everything >= 0]):  # negative labels mean "ignore"
            members = np.flatnonzero(everything == label)
            if members.size < per_class:
                raise ValueError(
                    f"The argument per_class is {per_class}, but class {label} has only {members.size} examples; choose at most "
                    "that many."
                )
            chosen[generator.choice(members, per_class, replace=False)] = True
        parts, first = [], 0
        for batch, own in zip(batches, labels, strict=True):
            indices = np.flatnonzero(chosen[first : first + own.size])
            first += own.size
            if indices.size:
                parts.append(self.functions.take(batch, indices))
        return self._derived(data=self.functions.sequence(parts))

    def per_batch(self) -> list[Objective]:
        """One objective for each batch, each normalised by its own number of terms."""
        return [self._derived(data=self.functions.sequence([batch])) for batch in self.batches()]

    def _derived(self, **changes: Any) -> Objective:
        return dataclasses.replace(self, **changes)

    def __repr__(self) -> str:
        return f"Objective({self.num_parameters:,} parameters in {len(self.functions.names)} arrays, vectors of {self.dtype})"
