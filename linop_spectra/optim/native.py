"""Optimisers of torch, optax and Keras as methods of this library.

The wrappers themselves belong to the adapters, which stand above this package: they are looked up when one is asked for.
"""

from __future__ import annotations

import abc
from typing import Any, ClassVar

from .evaluation import Start
from .faces import adapter
from .optimizer import NO_GRADIENT, Optimizer
from .stability import StableProposal

_WRAPPERS = {
    "keras": ("keras_native_optimizer", "NativeKerasOptimizer"),
    "torch": ("torch.native_optimizer", "NativeTorchOptimizer"),
    "optax": ("jax.native_optimizer", "NativeOptaxOptimizer"),
}
STARTED = "started"
"""Entry of the state that says that the native optimiser's own state was taken over."""


def as_optimizer(native: Any, *, evaluate: bool = True) -> Optimizer:
    """A framework's optimiser as a method of this library.

    A step is the one that the optimiser would take from the objective's gradient. It is taken on copies: neither the model nor the
    optimiser that was passed change. The settings of a torch or Keras optimiser are read at each step, so that a scheduler may work on it;
    the state that it has when the first step is taken is copied, and lives in `Optimizer.state` from then on. So the step can be rejected,
    guarded, saved and resumed like that of any other method.

    Parameters
    ----------
    native : torch.optim.Optimizer, optax.GradientTransformation, keras.optimizers.Optimizer or Optimizer
        Of torch: made from the parameters of the objective's model, or else from as many in the same order; a parameter that it does not
        hold stays where it is. What asks for a closure or for sparse gradients is refused. Of optax: for models of JAX; a transformation
        that asks for a ``value_fn`` is refused. Of Keras: for any model. A method of this library is returned as it is.
    evaluate : bool
        Whether the loss after each step is evaluated, as for `linop_spectra.optim.HeavyBall`.

    Returns
    -------
    Optimizer
        A step costs one gradient and, with `evaluate`, one value of the loss. `StepInfo.learning_rate` is the largest of a torch
        optimiser's groups, and known of optax where ``inject_hyperparams`` shows it.

    Raises
    ------
    TypeError
        When it is no optimiser, or one that asks for what a step does not have.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Linear(3, 1)
    >>> x = torch.randn(20, 3)
    >>> objective = ls.objective(model, "mse", (x, x.sum(dim=1, keepdim=True)))
    >>> method = ls.optim.as_optimizer(torch.optim.AdamW(model.parameters(), lr=0.1))
    >>> run = ls.optim.minimize(method, objective, 50)
    >>> bool(run.losses[-1] < 0.05 * run.losses[0]), bool((objective.parameters() == ls.objective(model, "mse", (x, x)).parameters()).all())
    (True, True)
    """
    if isinstance(native, Optimizer):
        return native
    packages = [base.__module__.partition(".")[0] for base in type(native).__mro__]
    for package, (module, name) in _WRAPPERS.items():
        if package in packages:
            made: Optimizer = getattr(adapter(module), name)(native, evaluate=evaluate)
            return made
    hint = ""
    if isinstance(native, type) or callable(native):
        hint = f"; {getattr(native, '__name__', 'it')} is what makes one: call it first, as in torch.optim.SGD(model.parameters(), lr=0.1)"
    raise TypeError(
        f"The optimiser is a {type(native).__name__}, but must be a method of linop_spectra.optim, a torch.optim.Optimizer, a "
        f"transformation of optax or a keras.optimizers.Optimizer{hint}."
    )


class NativeOptimizer(Optimizer):
    """A framework's optimiser; a subclass takes the step in ``_native_step``.

    Parameters
    ----------
    native : object
        The optimiser; left as it is.
    evaluate : bool
        Whether the loss after each step is evaluated.
    """

    _settings: ClassVar[tuple[str, ...]] = ("optimizer", "evaluate")

    def __init__(self, native: Any, *, evaluate: bool = True) -> None:
        super().__init__()
        self.native = native
        self.evaluate = bool(evaluate)
        self._evaluates = self.evaluate

    @property
    def optimizer(self) -> str:
        """Name of the optimiser. Its settings may change while it is used, and are no part of the method's."""
        return type(self.native).__name__

    @abc.abstractmethod
    def _native_step(self, start: Start) -> StableProposal:
        """The step, on copies."""

    def _propose(self, start: Start) -> StableProposal:
        proposal = self._native_step(start)
        proposal.state[STARTED] = True
        if start.gradient_norm == 0 and start.norm(proposal.step) == 0:
            proposal.message = NO_GRADIENT
        return proposal
