"""From what the user names on the command line to an operator."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import os
import pathlib
import sys
from types import ModuleType
from typing import Any

import numpy as np

from ..operators import LinearOperator, aslinearoperator
from .errors import CommandError, explain_failure, is_ours

_MATRIX_SUFFIXES = (".mtx", ".mtx.gz", ".npz")
_FORMS = "write file.py:factory, module:factory, or the name of a .mtx, .mtx.gz or .npz file"
_RETURNS = "it should return an Objective (or one and held-out data), a LinearOperator, or a symmetric matrix that aslinearoperator takes"


@dataclasses.dataclass(frozen=True)
class Target:
    """What is to be analysed.

    Attributes
    ----------
    operator : LinearOperator
        The operator.
    name : str
        For titles: what the user wrote, and which matrix of it.
    matrix : str or None
        ``"hessian"`` or ``"ggn"`` for an Objective, otherwise None.
    file : str or None
        The user's file, to find their line in a traceback.
    held_out : object
        What stands second where a factory returns ``(objective, held_out)``: an Objective of the same model, or data; otherwise None.
    """

    operator: LinearOperator
    name: str
    matrix: str | None = None
    file: str | None = None
    held_out: Any = None


def load_target(text: str, matrix: str | None = None) -> Target:
    """Load what TARGET names.

    Parameters
    ----------
    text : str
        ``file.py:factory``, ``module:factory``, or a matrix file.
    matrix : str, optional
        ``"hessian"`` or ``"ggn"``: which matrix of an Objective; only for an Objective.

    Returns
    -------
    Target
        The operator and its name.

    Raises
    ------
    CommandError
        In one sentence, when there is no such thing or it is no operator.
    """
    file: str | None = None
    if text.lower().endswith(_MATRIX_SUFFIXES):
        value, origin = _read_matrix(text), f"The matrix in {text!r}"
    else:
        location, colon, name = text.rpartition(":")
        if not colon or not location or not name:
            raise CommandError(f"The argument TARGET is {text!r}, which names neither a factory nor a matrix file; {_FORMS}.")
        module = _load_file(location) if location.endswith(".py") else _load_module(location)
        file = getattr(module, "__file__", None)
        value, origin = _call_factory(module, location, name, file), f"The factory {name!r} of {location!r}"
    held_out = None
    if isinstance(value, tuple) and len(value) == 2 and _is_objective(value[0]):
        value, held_out = value
    if _is_objective(value):
        chosen = matrix or "hessian"
        return Target(getattr(value, chosen)(), f"{chosen} of {text}", chosen, file, held_out)
    if matrix is not None:
        raise CommandError(
            f"The argument --operator is {matrix!r}, but {text!r} gives an object of type {type(value).__name__}, which has no "
            "such matrix; drop --operator, or return an Objective from the factory."
        )
    try:
        operator = aslinearoperator(value)
    except (TypeError, ValueError) as error:
        raise CommandError(f"{origin} gives an object of type {type(value).__name__}, but {_RETURNS}: {error}") from error
    if operator.shape[0] != operator.shape[1]:
        raise CommandError(
            f"{origin} has shape {operator.shape}, but a spectrum needs a square symmetric operator; "
            "for a data matrix pass A.T @ A."
        )
    return Target(operator, text, None, file)


def _is_objective(value: Any) -> bool:
    return callable(getattr(value, "hessian", None)) and callable(getattr(value, "ggn", None))


def _read_matrix(text: str) -> Any:
    if not pathlib.Path(text).is_file():
        raise CommandError(f"The argument TARGET is {text!r}, but there is no such file; {_FORMS}.")
    try:
        return _read_npz(text) if text.lower().endswith(".npz") else _read_market(text)
    except CommandError:
        raise
    except Exception as error:  # readers raise whatever they stumble over
        raise CommandError(
            f"The file {text!r} cannot be read as a matrix ({type(error).__name__}: {' '.join(str(error).split())}); "
            "write it again with scipy.io.mmwrite, scipy.sparse.save_npz or numpy.savez."
        ) from error


def _read_market(text: str) -> Any:
    from scipy.io import mmread

    return mmread(text, spmatrix=False)


def _read_npz(text: str) -> Any:
    with np.load(text, allow_pickle=False) as archive:
        names = archive.files
        if "format" in names and "shape" in names:
            import scipy.sparse

            return scipy.sparse.load_npz(text)
        if len(names) != 1:
            listed = ", ".join(repr(name) for name in names[:5]) or "none"
            raise CommandError(
                f"The file {text!r} holds {len(names)} arrays ({listed}), so which one is the matrix is not clear; "
                "save one dense array with numpy.savez or a sparse matrix with scipy.sparse.save_npz."
            )
        return archive[names[0]]


def _load_file(location: str) -> ModuleType:
    path = pathlib.Path(location)
    if not path.is_file():
        raise CommandError(f"The argument TARGET names the file {location!r}, but there is no such file; {_FORMS}.")
    name = f"_linop_spectra_target_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise CommandError(f"The file {location!r} cannot be loaded as Python; {_FORMS}.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles in the file look themselves up here
    _put_on_path(str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise CommandError(f"The file {location!r} cannot be loaded: {explain_failure(error, module.__file__)}.") from error
    return module


def _load_module(location: str) -> ModuleType:
    _put_on_path(os.getcwd())
    try:
        return importlib.import_module(location)
    except ModuleNotFoundError as error:
        if error.name is not None and (location == error.name or location.startswith(f"{error.name}.")):
            raise CommandError(
                f"The argument TARGET names the module {location!r}, but there is none of that name here; {_FORMS}."
            ) from error
        raise CommandError(f"The module {location!r} cannot be loaded: {explain_failure(error)}.") from error
    except (Exception, SystemExit) as error:
        raise CommandError(f"The module {location!r} cannot be loaded: {explain_failure(error)}.") from error


def _put_on_path(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)


def _call_factory(module: ModuleType, location: str, name: str, file: str | None) -> Any:
    factory = getattr(module, name, None)
    if factory is None:
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
        listed = f"it defines {', '.join(own[:8])}" if own else "it defines no function"
        raise CommandError(f"The argument TARGET names {name!r}, but {location!r} has nothing of that name; {listed}.")
    if not callable(factory):
        return factory
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise CommandError(
            f"The factory {name!r} of {location!r} is called without arguments, but: {error}; give its parameters defaults."
        ) from error
    except ValueError:
        pass  # some built-in functions have no signature
    try:
        return factory()
    except (Exception, SystemExit) as error:
        if is_ours(error):
            raise CommandError(f"The factory {name!r} of {location!r} failed: {error}") from error
        raise CommandError(f"The factory {name!r} of {location!r} failed: {explain_failure(error, file)}.") from error
