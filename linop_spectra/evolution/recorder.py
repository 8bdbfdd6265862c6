"""Recording spectra from inside a training loop."""

from __future__ import annotations

import dataclasses
import importlib
import math
import pathlib
import warnings
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from ..curvature import Objective
from ..krylov.lanczos import check_count
from ..results import PathLike
from .edge import Method, stability_threshold
from .snapshot import Matrix, Settings, Snapshot, take_snapshot
from .trajectory import Evolution


class SpectrumRecorder:
    """Spectra recorded while a model trains: ``recorder(step, model)`` in the loop, and `evolution` at the end.

    A call that is not due returns at once. One that is copies the parameters, measures, and leaves model, optimiser and random states
    alone. For trainers that own the loop `keras_callback`, `lightning_callback` and `huggingface_callback` make a callback of it.

    A training that diverges is not stopped: where loss or products are not finite there is no spectrum, which is warned of once and said
    in the notes of `evolution`. Later calls measure again when they are due.

    Parameters
    ----------
    obj : Objective
        Model, loss and data of the measurement; its parameters are replaced by those of each call.
    model : object, optional
        What is trained, where calls shall not have to name it.
    every : int
        Steps between measurements.
    steps : collection of int, optional
        Steps to measure at instead, such as powers of two.
    matrix, num_steps, num_probes, k, tol, seed
        As for `linop_spectra.evolution.evolution`.
    learning_rate : float or callable, optional
        Of the training; a callable is asked with the step.
    method, momentum
        As for `stability_threshold`.
    folder : str or path, optional
        Where each snapshot is written to as it is taken.
    enabled : bool
        False makes every call return at once; it may be set at any time.

    Attributes
    ----------
    snapshots : list of Snapshot
        What was recorded so far; only the last one has its eigenvectors.
    failures : list of (int, str)
        Steps that were due and had no spectrum, because loss or products were not finite, and what was found there.

    Examples
    --------
    >>> import torch, linop_spectra as ls
    >>> from linop_spectra.evolution import SpectrumRecorder
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    >>> x, y = torch.randn(20, 3), torch.randn(20, 1)
    >>> recorder = SpectrumRecorder(ls.objective(model, "mse", (x, y)), every=5, num_steps=8, k=2, learning_rate=0.1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> for step in range(11):
    ...     _ = recorder(step, model)
    ...     optimizer.zero_grad()
    ...     torch.nn.functional.mse_loss(model(x), y).backward()
    ...     _ = optimizer.step()
    >>> recorder.evolution.steps.tolist()
    [0.0, 5.0, 10.0]
    """

    def __init__(
        self, obj: Objective, model: Any = None, *, every: int = 1, steps: Any = None, matrix: Matrix = "hessian", num_steps: int = 32,
        num_probes: int | Literal["auto"] = 1, k: int = 3, tol: float = 1e-4, learning_rate: float | Callable[[int], float] | None = None,
        method: Method = "gd", momentum: float = 0.0, folder: PathLike | None = None, seed: int = 0, enabled: bool = True,
    ) -> None:  # fmt: skip
        if not isinstance(obj, Objective):
            raise TypeError(f"The argument obj is a {type(obj).__name__}, but must be an objective made by linop_spectra.objective.")
        self.objective, self.model, self.enabled = obj, model, enabled
        self.every = check_count("every", every)
        self.steps = None if steps is None else frozenset(int(step) for step in steps)
        self.settings = Settings(matrix, num_steps, num_probes, k, tol, seed)
        self.learning_rate, self.method, self.momentum = learning_rate, method, momentum
        if learning_rate is not None and not callable(learning_rate):
            stability_threshold(learning_rate, method, momentum=momentum)
        self.folder = None if folder is None else pathlib.Path(folder)
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
        self.snapshots: list[Snapshot] = []
        self.failures: list[tuple[int, str]] = []
        self._preconditioned = False

    def due(self, step: int) -> bool:
        """Whether a call at this step would measure."""
        return self.enabled and (step % self.every == 0 if self.steps is None else step in self.steps)

    def __call__(
        self, step: int, parameters: Any = None, *, learning_rate: float | None = None, preconditioner: Any = None, force: bool = False
    ) -> Snapshot | None:
        """Measure, where this step is due.

        Parameters
        ----------
        step : int
            The step, for the schedule and as the moment of the snapshot.
        parameters : model or parameters, optional
            A torch module, a Keras model, or what `Objective.with_parameters` takes, such as a pytree of JAX; by default `model`.
        learning_rate : float, optional
            Of this step.
        preconditioner : array or callable, optional
            As for `linop_spectra.preconditioned`; a callable without arguments is asked only where the step is due.
        force : bool
            Measure in any case.

        Returns
        -------
        Snapshot or None
            None where nothing was due, or the training has diverged.

        Warns
        -----
        RuntimeWarning
            The first time that loss or products are not finite.
        """
        if not force and not self.due(step):
            return None
        source = self.model if parameters is None else parameters
        if source is None:
            raise ValueError(
                "The recorder does not know what to measure: pass the model or its parameters, recorder(step, model), or make it with "
                "model=."
            )
        rate = learning_rate
        if rate is None and self.learning_rate is not None:
            rate = float(self.learning_rate(step)) if callable(self.learning_rate) else float(self.learning_rate)
        if callable(preconditioner):
            preconditioner = preconditioner()
        self._preconditioned |= preconditioner is not None
        before = self.snapshots[-1] if self.snapshots else None
        try:
            snapshot = take_snapshot(
                self.objective.with_parameters(_parameters(source)), self.settings, step, str(step), before,
                learning_rate=math.nan if rate is None else float(rate), preconditioner=preconditioner,
            )  # fmt: skip
        except FloatingPointError as error:
            self._fail(step, error)
            return None
        if before is not None:
            self.snapshots[-1] = dataclasses.replace(before, eigenvectors=None)
        self.snapshots.append(snapshot)
        if self.folder is not None:
            snapshot.save(self.folder / f"step-{int(step):08d}.npz")
        return snapshot

    def _fail(self, step: int, error: FloatingPointError) -> None:
        """Take down that there is no spectrum, and say so once: an error would end the training that is watched."""
        self.failures.append((int(step), str(error)))
        if len(self.failures) == 1:
            warnings.warn(
                f"No spectrum was recorded at step {step}: {error} The training goes on; further steps without a spectrum are in the "
                "recorder's failures.",
                RuntimeWarning, stacklevel=3,
            )  # fmt: skip

    def _notes(self) -> tuple[str, ...]:
        if not self.failures:
            return ()
        (first, reason), count = self.failures[0], len(self.failures)
        where = f"at step {first}" if count == 1 else f"at {count} steps from {first} to {self.failures[-1][0]}"
        return (f"There is no spectrum {where}, where the training had diverged: {reason}",)

    def keras_callback(self, *, per_epoch: bool = False) -> Any:
        """A callback for Keras's ``model.fit(callbacks=[...])`` that calls the recorder; see `adapters.callbacks.keras_callback`.

        Parameters
        ----------
        per_epoch : bool
            Whether its steps are epochs, counted from zero, instead of batches over all epochs.
        """
        return _callbacks().keras_callback(self, per_epoch=per_epoch)

    def lightning_callback(self) -> Any:
        """A callback for a Lightning ``Trainer`` that calls the recorder; see `adapters.callbacks.lightning_callback`."""
        return _callbacks().lightning_callback(self)

    def huggingface_callback(self) -> Any:
        """A callback for a Hugging Face ``Trainer`` that calls the recorder; see `adapters.callbacks.huggingface_callback`."""
        return _callbacks().huggingface_callback(self)

    @property
    def evolution(self) -> Evolution:
        """Everything recorded so far.

        Raises
        ------
        ValueError
            When nothing was recorded yet.
        """
        if not self.snapshots:
            raise ValueError(" ".join(["Nothing was recorded yet:", *(self._notes() or ["no call of the recorder was due."])]))
        name = f"preconditioned {self.settings.matrix}" if self._preconditioned else self.settings.matrix
        return Evolution(tuple(self.snapshots), name, self.method, self.momentum, self._notes())

    def __repr__(self) -> str:
        when = f"every {self.every} steps" if self.steps is None else f"at {len(self.steps)} steps"
        return f"SpectrumRecorder({self.settings.matrix}, {when}, {len(self.snapshots)} snapshots{'' if self.enabled else ', off'})"


def _callbacks() -> Any:
    """The adapters stand above this package: they are looked up when one is asked for."""
    return importlib.import_module(f"{__package__.rpartition('.')[0]}.adapters.callbacks")


def _parameters(source: Any) -> Any:
    """Parameters of what is trained: weights of a Keras model, the state of a torch module, anything else as it is."""
    if callable(getattr(source, "get_weights", None)):
        return [np.asarray(weight) for weight in source.get_weights()]
    if callable(getattr(source, "state_dict", None)):
        return source.state_dict()
    return source
