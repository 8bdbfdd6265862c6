"""The door to all adapters: find the framework of a model without importing any, then hand over to its adapter."""

from __future__ import annotations

from typing import Any

from ..backends import Backend
from ..curvature import Objective

_FRAMEWORKS = {
    "torch": "torch",
    "flax": "JAX",
    "equinox": "JAX",
    "haiku": "JAX",
    "jax": "JAX",
    "jaxlib": "JAX",
    "keras": "Keras",
    "tf_keras": "Keras",
    "tensorflow": "TensorFlow",
}


def framework_of(model: Any) -> str | None:
    """Name of the framework that a model belongs to, told by the modules that define its class; None for others.

    Examples
    --------
    >>> import torch
    >>> framework_of(torch.nn.Linear(2, 2)), framework_of("a string")
    ('torch', None)
    """
    packages = [base.__module__.partition(".")[0] for base in type(model).__mro__]
    # A Keras model on the torch backend is a torch module too: the more specific name comes first.
    for wanted in ("keras", "tf_keras"):
        if wanted in packages:
            return _FRAMEWORKS[wanted]
    return next((_FRAMEWORKS[package] for package in packages if package in _FRAMEWORKS), None)


def objective(
    model: Any,
    loss: Any,
    data: Any,
    *,
    params: Any = None,
    parameters: str | list[str] | None = None,
    batch_size: int | None = None,
    batch_norm: str | None = None,
    weight_decay: float = 0.0,
    dtype: Any = None,
    backend: str | Backend | None = None,
    memory_budget: int | float | str | None = None,
) -> Objective:
    """Loss of a model over data as a function of its parameters, with its gradient and every curvature matrix.

    Parameters and buffers are copied, so that training the model on does not change the objective, and the model is left
    exactly as it is: parameters, buffers, gradients, modes and random states.

    Parameters
    ----------
    model : torch.nn.Module, Keras model, tf.Module, flax or equinox module, or callable
        The model. Of torch modules, wrappers for compilation and data parallelism are taken off. A function
        ``apply(params, inputs)`` of JAX comes with `params`.
    loss : str, callable, loss object of the framework, or BatchLoss
        ``"cross_entropy"``: logits with the classes along dimension 1 (torch) or the last axis (JAX, Keras, TensorFlow), integer,
        one-hot or soft targets, mean over positions whose target is not -100. ``"binary_cross_entropy"``: logits, mean over
        elements. ``"mse"``: mean over all elements, no factor 1/2. A loss object of the framework keeps its weights, smoothing and
        reduction. A callable ``(outputs, targets)`` returns a mean over the examples, or ``(sum, number_of_terms)``; in JAX also an
        array of terms. What does not split into outputs and targets is a `BatchLoss`.
    data : tuple of two arrays, iterable of batches, or None
        ``(inputs, targets)``; or batches, from something that can be iterated again, such as a list or a DataLoader; or None
        for a loss of the parameters alone. The first pass is kept where half of `memory_budget` holds it.
    params : pytree, optional
        Parameters of a JAX function, or the variables of a flax linen module. Leaves that are no floating numbers, and flax's
        collections besides ``"params"``, are constant.
    parameters : str or list of str, optional
        Patterns such as ``"*.weight"`` or ``"encoder.*"`` of the parameters that count; all that require gradients by default.
        Frozen ones are left out.
    batch_size : int, optional
        Examples in a batch when `data` is a pair of arrays; by default all of them where the memory budget allows.
    batch_norm : {"eval", "train"}, optional
        How batch normalisation works, whatever the model's mode: by running statistics or by those of the batch. Must be given
        when a layer is in training mode.
    weight_decay : float
        Adds ``weight_decay / 2 * |theta|^2`` to the loss, and so the multiple of the identity to Hessian and Gauss-Newton
        matrix.
    dtype : {"float32", "float64"}, optional
        Work in this precision, on a copy of the model.
    backend : {"numpy", "cupy"}, optional
        Arrays of the vectors; NumPy for a model on the CPU and CuPy for one on a CUDA device by default.
    memory_budget : int, float or str, optional
        Bytes, or text such as ``"4GB"``; by default 40 % of the device's memory. Half of it is for data, a quarter for what one
        operator keeps.

    Returns
    -------
    Objective
        With ``value()``, ``gradient()``, ``hessian()``, ``ggn()``, ``fisher()`` and more. Nothing is computed yet.

    Raises
    ------
    TypeError, ValueError
        When an argument does not fit, with what was found and how to mend it.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    >>> objective = ls.objective(model, "cross_entropy", (torch.randn(20, 4), torch.randint(0, 3, (20,))))
    >>> hessian = objective.hessian()
    >>> hessian.shape, ls.check_operator(hessian).passed
    ((67, 67), True)
    """
    options: dict[str, Any] = {
        "parameters": parameters, "batch_size": batch_size, "batch_norm": batch_norm, "weight_decay": weight_decay, "dtype": dtype,
        "backend": backend, "memory_budget": memory_budget,
    }  # fmt: skip
    framework = framework_of(model)
    if framework == "JAX" or (framework is None and callable(model) and params is not None):
        from .jax import jax_objective

        return jax_objective(model, loss, data, params=params, **options)
    if params is not None:
        kind = "module" if framework == "torch" else "model"
        raise TypeError(
            "The argument params is for models without parameters of their own; this one "
            f"({type(model).__name__}, a {framework or 'Python'} {kind}) is not of that kind, so leave it out."
        )
    if framework == "torch":
        from .torch import torch_objective

        return torch_objective(model, loss, data, **options)
    if framework == "Keras":
        from .keras import keras_objective

        return keras_objective(model, loss, data, **options)
    if framework == "TensorFlow":
        from .tensorflow import tensorflow_objective

        return tensorflow_objective(model, loss, data, **options)
    raise TypeError(
        f"The argument model is a {type(model).__name__}, but must be a torch.nn.Module, a Keras model, a tf.Module, a flax or equinox "
        "module, or a function apply(params, inputs) of JAX together with params=. Any other matrix is an operator by "
        "linop_spectra.aslinearoperator."
    )
