"""Optimisers in the loops of PyTorch, JAX and Keras.

The objects themselves belong to the adapters, which stand above this package: they are looked up when one is asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

from .optimizer import Optimizer


def torch_optimizer(optimizer: Optimizer, model: Any, loss: Any, **options: Any) -> Any:
    """A ``torch.optim.Optimizer`` that trains a module by a method of this library.

    ``step(batch)`` computes loss, gradient and curvature itself: there is nothing to call ``backward()`` on. Learning-rate schedulers of
    torch work where the method has a constant `learning_rate`.

    Parameters
    ----------
    optimizer : Optimizer
        The method.
    model : torch.nn.Module
        What is trained, in place.
    loss : str, callable, loss module or BatchLoss
        As for `linop_spectra.objective`.
    **options
        ``parameters``, ``batch_size``, ``batch_norm``, ``weight_decay``, ``dtype``, ``backend``, ``memory_budget`` of
        `linop_spectra.objective`. With ``batch_norm="train"`` running statistics follow by one more forward pass in each step.

    Returns
    -------
    torch.optim.Optimizer
        With ``step(batch, curvature_batch=None)``, which returns a `StepInfo`, and a ``state_dict`` that holds the method's state.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Linear(3, 1)
    >>> x = torch.randn(20, 3)
    >>> optimizer = ls.optim.torch_optimizer(ls.optim.LanczosNewton(damping=1e-4, num_steps=4), model, "mse")
    >>> infos = [optimizer.step((x, x.sum(dim=1, keepdim=True))) for _ in range(3)]
    >>> infos[-1].loss < 1e-6 * infos[0].loss
    True
    """
    return adapter("torch.optimizer").TorchOptimizer(optimizer, model, loss, **options)


def optax_transformation(optimizer: Optimizer, model: Any, loss: Any, **options: Any) -> Any:
    """An ``optax.GradientTransformationExtraArgs`` that trains a model of JAX by a method of this library.

    ``update(None, state, params, data=batch, curvature_data=None)`` computes loss, gradient and curvature itself; gradients that are
    passed are not used. The method decides on the host: call it outside of ``jax.jit`` (its parts are compiled).

    Parameters
    ----------
    optimizer : Optimizer
        The method. It is used for its settings; its state lives in optax's state.
    model : callable or module
        ``apply(params, inputs)``, or what `linop_spectra.objective` takes together with ``params=``.
    loss : str, callable or BatchLoss
        As for `linop_spectra.objective`.
    **options
        ``parameters``, ``batch_size``, ``batch_norm``, ``weight_decay``, ``dtype``, ``backend``, ``memory_budget`` of
        `linop_spectra.objective`.

    Returns
    -------
    optax.GradientTransformationExtraArgs
        Its updates are to be added to the parameters by ``optax.apply_updates``; ``state.info`` has the numbers of the last step.

    Examples
    --------
    >>> import jax, optax, linop_spectra as ls
    >>> x = jax.random.normal(jax.random.key(0), (20, 3))
    >>> method = ls.optim.LanczosNewton(damping=1e-4, num_steps=4)
    >>> transformation = ls.optim.optax_transformation(method, lambda params, x: x @ params["w"], "mse")
    >>> params = {"w": jax.numpy.zeros((3, 1))}
    >>> state = transformation.init(params)
    >>> for _ in range(3):
    ...     updates, state = transformation.update(None, state, params, data=(x, x.sum(axis=1, keepdims=True)))
    ...     params = optax.apply_updates(params, updates)
    >>> params["w"].round(3).ravel().tolist()
    [1.0, 1.0, 1.0]
    """
    return adapter("jax.optimizer").optax_transformation(optimizer, model, loss, **options)


def keras_train_step(optimizer: Optimizer, model: Any, loss: Any, **options: Any) -> Any:
    """A training step for a loop over batches that trains a Keras model, on any backend, by a method of this library.

    Parameters
    ----------
    optimizer : Optimizer
        The method.
    model : keras.Model
        What is trained, in place.
    loss : str, callable, Keras loss or BatchLoss
        As for `linop_spectra.objective`.
    **options
        As for `torch_optimizer`. With ``batch_norm="train"`` moving statistics follow by one more forward pass in each step.

    Returns
    -------
    callable
        ``train_step(batch, curvature_batch=None)`` returns a `StepInfo`.

    Examples
    --------
    >>> import os
    >>> _ = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    >>> import keras, numpy as np, linop_spectra as ls
    >>> keras.utils.set_random_seed(0)
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    >>> x = np.random.default_rng(0).standard_normal((20, 3)).astype("float32")
    >>> train_step = ls.optim.keras_train_step(ls.optim.LanczosNewton(damping=1e-4, num_steps=4), model, "mse")
    >>> infos = [train_step((x, x.sum(axis=1, keepdims=True))) for _ in range(3)]
    >>> infos[-1].loss < 1e-6 * infos[0].loss
    True
    """
    return adapter("keras_optimizer").KerasTrainStep(optimizer, model, loss, **options)


def adapter(name: str) -> Any:
    """A module of the adapters."""
    return importlib.import_module(f"{__package__.rpartition('.')[0]}.adapters.{name}")
