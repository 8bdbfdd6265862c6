"""Softmax cross-entropy with the classes along the last axis, and its first and second derivative in closed form.

With logits `z`, their softmax `p`, targets `t` and weights `w` of each position, the sum is ``sum_i w_i (logsumexp z_i - z_i[t_i])``, its
gradient ``w_i (p_i - e_{t_i})`` and its second derivative along `u` ``w_i p_i (u_i - <p_i, u_i>)``. Written so, a linearised gradient keeps
the gradient and the softmax, where the derivatives of the elementary functions keep several arrays more of the logits' size. One minus the
probability of the target is the sum of the others': the difference would lose it to rounding.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


@jax.custom_jvp
def summed_cross_entropy(logits: Any, targets: Any, weights: Any) -> Any:
    """Sum over positions of the weighted cross-entropy.

    Parameters
    ----------
    logits : array
        Shape (..., classes), of single precision at least.
    targets : array
        Integers of shape (...); anything where the weight is zero.
    weights : array
        Shape (...), of the logits' type; constant in all derivatives.

    Returns
    -------
    array
        A scalar.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> value, slope = jax.value_and_grad(summed_cross_entropy)(jnp.zeros((1, 2)), jnp.array([0]), jnp.ones(1))
    >>> round(float(value), 4), slope.tolist()
    (0.6931, [[-0.5, 0.5]])
    """
    chosen = jnp.where(weights != 0, targets, 0)
    picked = jnp.take_along_axis(logits, chosen[..., None], axis=-1)[..., 0]
    others = jax.nn.logsumexp(jnp.where(_hot(chosen, logits), -jnp.inf, logits), axis=-1)
    # A logit of minus infinity counts nothing at a position without weight.
    return jnp.sum(jnp.where(weights != 0, weights * jax.nn.softplus(others - picked), 0))


def _hot(targets: Any, logits: Any) -> Any:
    """Mask of the targets' logits."""
    return targets[..., None] == jnp.arange(logits.shape[-1])


@jax.custom_jvp
def _slope(logits: Any, targets: Any, weights: Any) -> Any:
    hot = _hot(targets, logits)
    others = jnp.where(hot, 0, jax.nn.softmax(logits, axis=-1))
    return weights[..., None] * jnp.where(hot, -jnp.sum(others, axis=-1, keepdims=True), others)


@summed_cross_entropy.defjvp
def _sum_jvp(primals: Any, tangents: Any) -> tuple[Any, Any]:
    # A product of vectors: the transpose of a sum would keep its factor once for each logit.
    return summed_cross_entropy(*primals), jnp.vdot(_slope(*primals), tangents[0])


@_slope.defjvp
def _slope_jvp(primals: Any, tangents: Any) -> tuple[Any, Any]:
    logits, _, weights = primals
    return _slope(*primals), curvature_product(logits, weights, tangents[0])


def curvature_product(logits: Any, weights: Any, u: Any) -> Any:
    """The Hessian of `summed_cross_entropy` in the logits, times `u`: at each position ``w (diag p - p p^T)``."""
    p = jax.nn.softmax(logits, axis=-1)
    # Constants make no difference, but where p is nearly one they would cancel.
    u = u - jnp.take_along_axis(u, jnp.argmax(p, axis=-1, keepdims=True), axis=-1)
    return p * (weights[..., None] * (u - jnp.sum(p * u, axis=-1, keepdims=True)))
