"""Approximations of a matrix by name."""

from __future__ import annotations

import importlib
import inspect
from typing import Any, Literal, get_args

from ..curvature.objective import Objective
from ..operators import LinearOperator, aslinearoperator, require_hermitian
from ..operators.matrix import MatrixOperator

Kind = Literal[
    "diagonal", "scalar", "squared_gradients", "ggn_mc", "block", "low_rank", "low_rank_plus_diagonal", "kfac", "ekfac"
]
Matrix = Literal["hessian", "ggn", "fisher"]
_OF_A_MATRIX = {
    "diagonal": ("diagonal", "diagonal_approximation"),
    "scalar": ("diagonal", "scalar_approximation"),
    "block": ("block", "block_approximation"),
    "low_rank": ("low_rank", "low_rank_approximation"),
    "low_rank_plus_diagonal": ("low_rank", "low_rank_plus_diagonal"),
}
OF_AN_OBJECTIVE = {
    "squared_gradients": ("example_gradients", "squared_gradients"),
    "ggn_mc": ("example_gradients", "monte_carlo_ggn"),
    "kfac": ("kfac", "kfac"),
    "ekfac": ("ekfac", "ekfac"),
}
"""Kinds that say themselves which matrix they stand for."""


def approximate(source: Any, kind: Kind, *, matrix: Matrix | None = None, **options: Any) -> LinearOperator:
    r"""A simpler matrix in place of a large one, as an operator with an inverse.

    Parameters
    ----------
    source : Objective, LinearOperator or what `aslinearoperator` takes
        What is approximated: a Hermitian matrix, or one of an objective.
    kind : str
        - ``"diagonal"``: the diagonal. ``method`` is ``"exact"`` (n products; an explicit matrix is read), ``"hutchinson"``,
          ``"xdiag"`` or ``"auto"`` (by default: exact where that costs nothing or is allowed), with ``num_matvecs``, ``tol``, ``seed``,
          ``time_budget`` and ``progress`` of `linop_spectra.diagonal`; ``.standard_error`` has the errors of the entries.
        - ``"scalar"``: the trace over n times the identity; options of `linop_spectra.trace`.
        - ``"block"``: diagonal blocks, of an objective ``by="layer"`` (by default) or ``"parameter"``, else by ``partition``: the order
          of all blocks, a list of orders, or a list or mapping of slices or arrays of rows. Blocks up to ``dense_limit`` (512) rows are
          formed, at one product for each row (an explicit matrix is read); larger ones stay products with the whole.
        - ``"low_rank"``: the ``rank`` (10) eigenpairs of largest modulus; ``which``, ``tol``, ``seed``, ``time_budget`` and ``progress``
          of `linop_spectra.eigsh`.
        - ``"low_rank_plus_diagonal"``: such pairs plus what they leave of the diagonal (``remainder="diagonal"``) or of the trace,
          spread over all other directions (``"scalar"``); ``method`` and ``num_matvecs`` for that.
        - ``"squared_gradients"`` (objectives): diagonal of the empirical Fisher matrix, which is what Adam's second moment stands for
          and no approximation of the Hessian. ``method`` is ``"exact"``, one small gradient for each example, or ``"signs"``,
          ``num_samples`` (16) gradients of each batch in which examples have random signs.
        - ``"ggn_mc"`` (objectives): diagonal of the Gauss-Newton matrix by squared gradients for ``num_samples`` (1) targets drawn from
          the model, ``each="example"`` or, cheaper and noisier, ``"batch"``; unbiased.
        - ``"kfac"``, ``"ekfac"`` (objectives): Kronecker-factored blocks, see `linop_spectra.approximations.kfac`.
    matrix : {"hessian", "ggn", "fisher"}, optional
        Of an objective: the Hessian by default. Kinds that belong to objectives say themselves which matrix they stand for.
    **options
        As above.

    Returns
    -------
    LinearOperator
        With ``kind``, ``method``, ``source_matvecs`` (products with the source that it cost), ``seconds``, a ``diagonal`` where it is
        one, and ``solve(b, damping=)``, the inverse of the approximation plus damping.

    Raises
    ------
    ValueError
        When the kind or an option is wrong, or the matrix is not Hermitian.
    TypeError
        When the kind has no such option, or needs an objective.

    Examples
    --------
    >>> import numpy as np
    >>> from linop_spectra.approximations import approximate
    >>> A = np.array([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 5.0]])
    >>> approximate(A, "diagonal").diagonal
    array([2., 2., 5.])
    >>> approximate(A, "block", partition=[2, 1]) @ [1.0, 0.0, 1.0]
    array([2., 1., 5.])
    >>> approximate(A, "low_rank", rank=1).solve([1.0, 1.0, 1.0], damping=1.0).round(6)
    array([1.      , 1.      , 0.166667])
    """
    if kind in OF_AN_OBJECTIVE:
        if not isinstance(source, Objective):
            raise TypeError(
                f"The kind {kind!r} is made of gradients and layers, so that the argument source must be an Objective, but it is a "
                f"{type(source).__name__}; pass what linop_spectra.objective returned."
            )
        if matrix is not None:
            raise ValueError(f"The kind {kind!r} says itself which matrix it stands for; leave matrix={matrix!r} out.")
        return _call(kind, OF_AN_OBJECTIVE[kind], source, options)
    if kind not in _OF_A_MATRIX:
        raise ValueError(f"The argument kind is {kind!r}, but must be one of {', '.join(map(repr, get_args(Kind)))}.")
    return _call(kind, _OF_A_MATRIX[kind], matrix_of(source, matrix, f"approximate(..., {kind!r})"), options)


def matrix_of(source: Any, matrix: str | None, purpose: str) -> LinearOperator:
    """The Hermitian operator that is meant by an objective and a name, or by an operator.

    Raises
    ------
    ValueError
        When the name is unknown or belongs to no objective, or the operator is not Hermitian.
    """
    if isinstance(source, Objective):
        if matrix is not None and matrix not in get_args(Matrix):
            raise ValueError(f"The argument matrix is {matrix!r}, but must be one of {', '.join(map(repr, get_args(Matrix)))}.")
        return getattr(source, matrix or "hessian")()
    if matrix is not None:
        raise ValueError(f"The argument matrix={matrix!r} chooses a matrix of an objective, but the source is one already; leave it out.")
    operator = aslinearoperator(source)
    require_hermitian(operator, purpose)
    if operator.hermitian:
        return operator
    if isinstance(operator, MatrixOperator):  # stays an explicit matrix
        return aslinearoperator(operator.matrix, dtype=operator.dtype, hermitian=True, backend=operator.backend)
    return aslinearoperator(operator, hermitian=True)


def _call(kind: str, place: tuple[str, str], source: Any, options: dict[str, Any]) -> LinearOperator:
    module, name = place
    function = getattr(importlib.import_module(f".{module}", __package__), name)
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        allowed = None
    else:
        allowed = [key for key, parameter in parameters.items() if parameter.kind is parameter.KEYWORD_ONLY]
    for key in options:
        if allowed is not None and key not in allowed:
            raise TypeError(f"The kind {kind!r} has no option {key!r}; it takes {', '.join(allowed)}.")
    result: LinearOperator = function(source, **options)
    return result
