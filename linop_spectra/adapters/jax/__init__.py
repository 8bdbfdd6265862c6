"""JAX: derivatives of apply functions with their parameters, and of flax and equinox modules."""

from .objective import jax_objective

__all__ = ["jax_objective"]
