"""A model as a function of the values of its variables: what both kinds of models share, and plain ``tf.Module`` objects."""

from __future__ import annotations

import abc
import contextlib
import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ..common import listed, matching_names
from .repairs import right_moments


class Program(abc.ABC):
    """A model whose variables take given values while a graph is traced.

    Attributes
    ----------
    names, rest_names : tuple of str
        The parameters that count, and all other variables.
    initial, initial_rest : list of tensor
        Copies of their values.
    model : object
        What a `BatchLoss` calls.
    """

    names: tuple[str, ...]
    rest_names: tuple[str, ...]
    initial: list[Any]
    initial_rest: list[Any]
    model: Any
    batch_statistics = False
    is_regularized = False
    forward_mode = False
    compute_dtypes: tuple[Any, ...] = ()
    statistics: tuple[str, ...] | None = None
    """Those of `rest_names` that are moving statistics of batch normalisation in use; None where that is not known."""

    @abc.abstractmethod
    def bound(self, pieces: Sequence[Any], rest: Sequence[Any]) -> contextlib.AbstractContextManager[list[Any]]:
        """Context in which the variables have these values; what to differentiate with respect to."""

    @abc.abstractmethod
    def call(self, inputs: Any) -> Any:
        """The model's outputs; inside `bound`."""

    def collecting(
        self, pieces: Sequence[Any], rest: Sequence[Any]
    ) -> contextlib.AbstractContextManager[Callable[[], Sequence[Any]]]:
        """As `bound`, with batch normalisation in training; a function that tells what `statistics` are on the batch."""
        raise TypeError(f"The running statistics of a {type(self).__name__} are not known.")

    @abc.abstractmethod
    def converted(self, dtype: Any) -> Program:
        """A copy that computes in another precision."""

    def regularization(self) -> Any:
        """What layers add to the loss whatever the batch, inside `bound`; None where there is nothing."""
        return None

    def refuse_captures(self, captured: Sequence[Any]) -> None:  # noqa: B027 -- nothing to refuse where variables are assigned
        """Raise when a graph reads variables past the values in their place."""

    def carries_mask(self, outputs: Any) -> bool:
        """Whether outputs carry a mask that a loss would have to know."""
        return False

    def read_file(self, path: Any) -> dict[str, Any] | None:
        """Values of variables by name from a file in the model's own format; None for other files."""
        return None

    def ordered_names(self, count: int) -> tuple[str, ...] | None:
        """Names of the variables that a list of so many arrays stands for."""
        return self.names if count == len(self.names) else None


def choose(variables: dict[str, Any], patterns: str | list[str] | None) -> list[str]:
    """Names of the variables that count, by pattern.

    Raises
    ------
    TypeError, ValueError
        When there is none, or one cannot be differentiated.
    """
    if not variables:
        raise ValueError("The argument model has no trainable variable; set trainable on the layers that count.")
    chosen = matching_names(variables, patterns)
    for name in chosen:
        dtype = tf.as_dtype(variables[name].dtype)
        if not dtype.is_floating:
            raise TypeError(
                f"The variable {name!r} has dtype {dtype.name}, but curvature needs real floating parameters; leave it out with "
                "parameters=, or make it not trainable."
            )
        if 0 in tuple(variables[name].shape):
            raise ValueError(f"The variable {name!r} is empty (shape {tuple(variables[name].shape)}); leave it out with parameters=.")
    return chosen


class ModuleProgram(Program):
    """A ``tf.Module`` with ``__call__``: our own deep copy, whose variables are assigned at the beginning of each graph.

    Parameters
    ----------
    model : tf.Module
        The user's module; it is left alone.
    patterns : str, list of str or None
        Names of the parameters that count.
    dtype : tf.DType or None
        Precision of the copy.
    """

    def __init__(self, model: Any, patterns: str | list[str] | None, dtype: Any) -> None:
        if not callable(model):
            raise TypeError(f"The argument model ({type(model).__name__}) cannot be called; a tf.Module needs a __call__ method.")
        _refuse_keras_inside(model)
        everything = module_variables(model)
        trainable = {name: variable for name, variable in everything.items() if variable.trainable}
        self._adopt(model, choose(trainable, patterns), dtype)

    def converted(self, dtype: Any) -> ModuleProgram:
        """A copy in another precision."""
        made = object.__new__(ModuleProgram)
        made._adopt(self.model, list(self.names), dtype)
        return made

    def _adopt(self, model: Any, names: list[str], dtype: Any) -> None:
        self.model = own = _private_copy(model, dtype)
        variables = module_variables(own)
        self._variables = [variables[name] for name in names]
        self._rest = [variable for name, variable in variables.items() if name not in names]
        self.names = tuple(names)
        self.rest_names = tuple(name for name in variables if name not in names)
        self.initial = [tf.identity(variable) for variable in self._variables]
        self.initial_rest = [tf.identity(variable) for variable in self._rest]
        self.compute_dtypes = tuple({variable.dtype for variable in variables.values() if variable.dtype.is_floating})
        self._mode: dict[str, Any] = {}
        with contextlib.suppress(TypeError, ValueError):
            if "training" in inspect.signature(own.__call__).parameters:
                self._mode = {"training": False}

    @contextlib.contextmanager
    def bound(self, pieces: Sequence[Any], rest: Sequence[Any]) -> Iterator[list[Any]]:
        """The copy's variables, after they were assigned in the graph."""
        with right_moments():
            for variable, value in zip([*self._variables, *self._rest], [*pieces, *rest], strict=True):
                variable.assign(value)
            yield list(self._variables)

    def call(self, inputs: Any) -> Any:
        """The model on a batch's inputs: a tensor, a tuple of arguments, or a mapping of named ones; not in training."""
        if isinstance(inputs, dict):
            return self.model(**inputs, **self._mode)
        if isinstance(inputs, tuple | list):
            return self.model(*inputs, **self._mode)
        return self.model(inputs, **self._mode)


def module_variables(model: Any) -> dict[str, Any]:
    """All variables of a ``tf.Module`` by the path of attributes that leads to them; each once, under its first path."""
    found: dict[str, Any] = {}
    seen: set[int] = set()
    for path, variable in model._flatten(predicate=lambda x: isinstance(x, tf.Variable), with_path=True):
        if id(variable) not in seen:
            seen.add(id(variable))
            found["/".join(map(str, path))] = variable
    return found


def _refuse_keras_inside(model: Any) -> None:
    for module in (model, *model.submodules):
        for name, value in vars(module).items():
            for item in value if isinstance(value, list | tuple) else [value]:
                if any(base.__module__.partition(".")[0] == "keras" for base in type(item).__mro__):
                    raise TypeError(
                        f"The tf.Module holds the Keras layer {name!r}, whose variables it does not list; make the whole a keras.Model."
                    )


def _private_copy(model: Any, dtype: Any) -> Any:
    """A deep copy with variables (and constant tensors) of another precision where one is asked for."""
    memo: dict[int, Any] = {}
    keep = []  # what memo refers to by its address must live on
    for variable in module_variables(model).values():
        wanted = dtype if dtype is not None and variable.dtype.is_floating else variable.dtype
        # As in the variable's own copy, but in the precision that is asked for.
        memo[id(variable)] = tf.Variable(
            tf.cast(variable, wanted), trainable=variable.trainable, name=variable.name.partition(":")[0], dtype=wanted
        )
        keep.append(variable)
    if dtype is not None:
        for module in (model, *model.submodules):
            for value in vars(module).values():
                if tf.is_tensor(value) and not isinstance(value, tf.Variable) and value.dtype.is_floating:
                    memo[id(value)] = tf.cast(value, dtype)
                    keep.append(value)
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:
        raise TypeError(
            f"The argument model ({type(model).__name__}) cannot be copied by copy.deepcopy ({type(error).__name__}: {error}); "
            "remove what cannot be copied from its attributes, so that later training does not change the objective."
        ) from error


RANDOM_OPERATIONS = frozenset(
    {
        "RandomUniform", "RandomStandardNormal", "TruncatedNormal", "RandomUniformInt", "ParameterizedTruncatedNormal", "Multinomial",
        "RandomShuffle", "RandomGamma", "RandomPoisson", "RandomPoissonV2", "StatefulUniform", "StatefulUniformInt",
        "StatefulUniformFullInt", "StatefulStandardNormal", "StatefulStandardNormalV2", "StatefulTruncatedNormal",
        "StatefulRandomBinomial",
    }
)  # fmt: skip


def refuse_random(graph: Any) -> None:
    """Raise when a graph draws random numbers whose state no one can freeze.

    Raises
    ------
    ValueError
        When there is such an operation.
    """
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
    drawn = sorted({node.op for node in nodes} & RANDOM_OPERATIONS)
    if drawn:
        raise ValueError(
            f"The model draws random numbers anew in each pass ({listed(drawn)}), so that the loss is no fixed function of the "
            "parameters; switch dropout and the like off, or use tf.random.stateless_* with a fixed seed."
        )


def finfo_eps(dtype: Any) -> float:
    """Relative rounding of a floating type."""
    known = {"bfloat16": 2.0**-7, "float16": 2.0**-10}
    name = tf.as_dtype(dtype).name
    return known[name] if name in known else float(np.finfo(name).eps)

