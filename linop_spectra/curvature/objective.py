"""The objective: model functions, parameters and data, from which values, gradients and matrices follow."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np

from ..backends import Array
from .class_structure import ClassStructure, class_structure
from .data import Batches
from .filter_normalization import filter_normalized
from .fisher import fisher_operator
from .gradient_covariance import GradientCovarianceOperator
from .input_hessian import InputHessianOperator
from .jacobian import JacobianOperator, NeuralTangentKernel
from .linearization import Batch, ModelFunctions, Point
from .matrices import GaussNewtonOperator, HessianOperator, OutputCurvatureOperator
from .out_of_memory import Pieces, in_smaller_plans
from .residual import ResidualOperator


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
        NonFiniteLossError
            When the loss is not finite; a ValueError and a FloatingPointError.
        """
        return self.value_from(*in_smaller_plans(self._loss_sum, self._pieces.retreat, self._pieces.sentence))

    def value_from(self, total: float, terms: float) -> float:
        """`value`, given the sum of all terms at these parameters and their number.

        Raises
        ------
        ValueError
            When there are no terms.
        """
        value = total * self.scale(terms)
        if self.weight_decay:
            theta = self.parameters()
            value += 0.5 * self.weight_decay * float(self.functions.backend.dot(theta, theta))
        return value

    def gradient(self) -> Array:
        """Gradient of `value`, as a vector of shape (num_parameters,).

        Where memory runs out, batches are cut into pieces, as far as the loss adds up over them, and a warning says so.

        Raises
        ------
        MemoryError
            When memory runs out all the same.
        """
        return self.value_and_gradient()[1]

    def value_and_gradient(self) -> tuple[float, Array]:
        """`value` and `gradient` in one pass over the data.

        Returns
        -------
        float
            The loss.
        array
            Its gradient, shape (num_parameters,).

        Raises
        ------
        NonFiniteLossError
            When the loss is not finite; a ValueError and a FloatingPointError.
        MemoryError
            When memory runs out although batches were cut into pieces.
        """
        value, gradient = in_smaller_plans(self._loss_gradient, self._pieces.retreat, self._pieces.sentence)
        if self.weight_decay:
            theta = self.parameters()
            value += 0.5 * self.weight_decay * float(self.functions.backend.dot(theta, theta))
            gradient += self.weight_decay * theta
        return value, gradient

    @functools.cached_property
    def _pieces(self) -> Pieces:
        """Into what batches are cut since memory ran out."""
        return Pieces(self)

    def _loss_sum(self) -> tuple[float, float]:
        total = terms = 0.0
        with self.functions.session():
            for batch in self._pieces.batches():
                batch_total, batch_terms = self.functions.loss_sum(self.point, batch)
                total, terms = total + batch_total, terms + batch_terms
        return total, terms

    def _loss_gradient(self) -> tuple[float, Array]:
        out = self.functions.backend.empty((self.num_parameters,), self.dtype)
        loss = terms = 0.0
        with self.functions.session():
            total = self.functions.accumulator(out)
            for batch in self._pieces.batches():
                batch_loss, batch_terms = self.functions.add_gradient(self.point, batch, total)
                loss, terms = loss + batch_loss, terms + batch_terms
            total.finish(self.scale(terms))
        return loss * self.scale(terms), out

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

    def fisher(
        self, kind: Literal["exact", "mc", "empirical"] = "exact", *, num_samples: int = 1, seed: int = 0
    ) -> OutputCurvatureOperator:
        r"""Fisher matrix of the likelihood whose negative logarithm the loss is, as an operator.

        Squared errors belong to normal elements of variance 1/2, cross-entropy to a class for each position and binary cross-entropy
        to a label for each element, each with the weight that the loss gives it.

        Parameters
        ----------
        kind : {"exact", "mc", "empirical"}
            ``"exact"``: expectation over targets of the model; equal to the Gauss-Newton matrix. ``"mc"``: for targets drawn
            once for each term, an unbiased estimate and a fixed matrix. ``"empirical"``: :math:`\frac1T \sum_n g_n g_n^\top` with
            the gradients of the examples' summed losses and the number of terms `T`. Weight decay adds its multiple of the identity
            to the first two, and nothing to the empirical one.
        num_samples : int
            Targets drawn for each term, with ``"mc"``.
        seed : int
            Of the targets; the same in every framework and for every batch size.

        Raises
        ------
        TypeError
            When the loss is no negative logarithm of a known likelihood, or for ``"empirical"`` does not show its examples.
        ValueError
            For ``"empirical"``, in the first product: when rows of the outputs are no examples, or the loss mixes them.

        Examples
        --------
        >>> import torch, linop_spectra as ls
        >>> model = torch.nn.Linear(3, 2)
        >>> objective = ls.objective(model, "cross_entropy", (torch.randn(8, 3), torch.randint(0, 2, (8,))))
        >>> bool(abs(objective.fisher().to_dense() - objective.ggn().to_dense()).max() == 0)
        True
        >>> objective.fisher("mc", num_samples=4).positive_semidefinite
        True
        """
        return fisher_operator(self, kind, num_samples, seed)

    def residual(self) -> ResidualOperator:
        """Hessian minus Gauss-Newton matrix, both from one pass over the batches, as an operator.

        Raises
        ------
        TypeError
            When the loss does not say what the model's outputs are.
        """
        return ResidualOperator(self)

    def gradient_covariance(self, *, centered: bool = True) -> GradientCovarianceOperator:
        r"""Covariance of the gradient of one example drawn at random, as an operator.

        :math:`\frac1N \sum_n (N/T)^2 g_n g_n^\top - g g^\top` with the gradients :math:`g_n` of the summed losses of `N` examples,
        `T` terms and the gradient :math:`g`; weight decay is in neither.

        Parameters
        ----------
        centered : bool
            False leaves the last term out.

        Raises
        ------
        TypeError
            When the loss does not show its examples, or batch statistics couple them.
        ValueError
            In the first product: when rows of the outputs are no examples, or the loss mixes them.

        Examples
        --------
        >>> import torch, linop_spectra as ls
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> with torch.no_grad():
        ...     _ = model.weight.zero_()
        >>> objective = ls.objective(model, "mse", (torch.ones(2, 1), torch.tensor([[1.0], [3.0]])))
        >>> objective.gradient_covariance().to_dense()  # gradients -2 and -6
        array([[4.]], dtype=float32)
        """
        return GradientCovarianceOperator(self, centered=centered)

    def jacobian(self) -> JacobianOperator:
        """Jacobian of the outputs of all examples, shape (num_outputs, num_parameters), as an operator with its adjoint.

        The outputs stand batch after batch, each in C order. Making it costs one forward pass, which finds their number.

        Raises
        ------
        TypeError
            When the loss does not say what the model's outputs are.
        """
        return JacobianOperator(self)

    def ntk(self) -> NeuralTangentKernel:
        r"""Empirical neural tangent kernel :math:`J J^\top`, shape (num_outputs, num_outputs), as an operator; see `jacobian`."""
        return NeuralTangentKernel(JacobianOperator(self))

    def input_hessian(self) -> InputHessianOperator:
        """Hessian of the objective with respect to the inputs of all examples, as an operator.

        Real arrays among the inputs count, batch after batch, each in C order. Examples do not interact, unless batch statistics couple
        them. All batches are held.

        Raises
        ------
        TypeError
            When the inputs are no real numbers, or a `BatchLoss` does not say what the inputs are.

        Examples
        --------
        >>> import torch, linop_spectra as ls
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(torch.tensor([[1.0, 2.0]]))
        >>> objective = ls.objective(model, "mse", (torch.ones(2, 2), torch.zeros(2, 1)))
        >>> objective.input_hessian().to_dense()  # w w^T for each of two examples
        array([[1., 2., 0., 0.],
               [2., 4., 0., 0.],
               [0., 0., 1., 2.],
               [0., 0., 2., 4.]], dtype=float32)
        """
        return InputHessianOperator(self, lambda functions, point, batch: functions.of_inputs(point, batch))

    def activation_hessian(self, layer: str) -> InputHessianOperator:
        """Hessian of the objective with respect to what is added to the outputs of a layer, as an operator.

        Parameters
        ----------
        layer : str
            Name of a module, such as ``"encoder.0"``; it must run once in a forward pass and give one array. In JAX the path of a module
            of flax or equinox, or a name that ``jax.ad_checkpoint.checkpoint_name(array, name)`` gives to an array in a function. In Keras
            on TensorFlow the path of a layer.

        Raises
        ------
        ValueError
            When there is no such module.
        TypeError
            When it does not give one array, runs several times, or runs inside of a loop of JAX.
        """
        return InputHessianOperator(self, lambda functions, point, batch: functions.of_activation(point, batch, layer))

    def class_structure(self) -> ClassStructure:
        """The Gauss-Newton matrix of a classifier as a sum of four parts, means of classes and spreads around them; one forward pass.

        Returns
        -------
        ClassStructure
            With the parts ``A1``, ``A2``, ``B1`` and ``B2`` as operators, the means, and small matrices with the same eigenvalues.

        Raises
        ------
        TypeError
            When the loss is no softmax cross-entropy.
        ValueError
            When the targets are distributions over the classes.
        """
        return class_structure(self)

    # -- others like it ------------------------------------------------------------------------------------------------

    def with_parameters(self, parameters: Any) -> Objective:
        """The same objective at other parameters.

        Parameters
        ----------
        parameters : array, mapping, str or path
            A vector of shape (num_parameters,); named arrays: a state dict of torch (what it says about buffers and about
            parameters that were left out is used too), a pytree of JAX, weights of Keras by name or in order; or a file with one:
            ``.npz``, for torch also ``.pt`` (read with weights only), for torch and JAX ``.safetensors``.

        Returns
        -------
        Objective
            Shares functions and data with this one.
        """
        return self._derived(point=self.functions.point_from(parameters, self.point))

    def filter_normalized(self, parameters: str | list[str] | None = None, *, tolerance: float = 1e-3) -> Objective:
        """The same objective at filters of norm one, where that leaves the loss as it is; the model itself is left alone.

        Behind a layer with normalisation the scale of a filter (the weights of one output) has no effect on the loss, but divides
        its curvature by its square, so that matrices compare only at equal norms.

        Parameters
        ----------
        parameters : str or list of str, optional
            Patterns of names of weights; by default all that the loss allows.
        tolerance : float
            Relative change of the loss up to which a weight counts as scale-invariant: the small number that normalisation adds to
            a variance makes it so only nearly.

        Returns
        -------
        Objective
            Shares functions and data with this one. It costs a pass over the data for each weight, at most two.

        Raises
        ------
        ValueError
            When a weight that was asked for, or every weight, changes the loss with its scale. Batch normalisation by running
            statistics does.

        Examples
        --------
        >>> import torch, linop_spectra as ls
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 6, bias=False), torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 3))
        >>> objective = ls.objective(model, "cross_entropy", (torch.randn(20, 4), torch.randint(0, 3, (20,))), batch_norm="train")
        >>> weights = objective.filter_normalized().parameters()[objective.blocks["0.weight"]].reshape(6, 4)
        >>> (weights**2).sum(axis=1).round(4)
        array([1., 1., 1., 1., 1., 1.], dtype=float32)
        """
        return filter_normalized(self, parameters, tolerance)

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
