"""Every operator with torch arrays in the core, as on a device without CuPy, and with batches that are not kept."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dense_torch import case  # noqa: E402

import linop_spectra as ls  # noqa: E402
from linop_spectra.curvature import blockwise_spectra, preconditioned  # noqa: E402

OPERATORS = {
    "hessian": lambda o: o.hessian(),
    "ggn": lambda o: o.ggn(),
    "exact": lambda o: o.fisher(),
    "mc": lambda o: o.fisher("mc", num_samples=2),
    "empirical": lambda o: o.fisher("empirical"),
    "residual": lambda o: o.residual(),
    "covariance": lambda o: o.gradient_covariance(),
    "jacobian": lambda o: o.jacobian(),
    "kernel": lambda o: o.ntk(),
    "inputs": lambda o: o.input_hessian(),
    "activations": lambda o: o.activation_hessian("0"),
    "block": lambda o: o.hessian().block("2"),
    "preconditioned": lambda o: preconditioned(o.ggn(), np.linspace(0.5, 2.0, o.num_parameters)),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_torch_arrays(name):
    plain, other = case("masked")[0], case("masked", backend="torch:cpu")[0]
    make = OPERATORS[name]
    operator = make(other)
    dense = operator.to_dense()
    assert isinstance(dense, torch.Tensor)
    np.testing.assert_allclose(ls.to_numpy(dense), make(plain).to_dense(), rtol=0, atol=1e-14)
    assert ls.check_operator(operator).passed
    assert "kept" in operator.engine


@pytest.mark.parametrize("name", OPERATORS)
def test_products_leave_their_argument_alone_and_are_no_shared_buffers(name):
    objective, _ = case("masked")
    operator = OPERATORS[name](objective)
    x = np.random.default_rng(0).standard_normal((operator.shape[1], 2))
    before = x.copy()
    first = operator @ x
    kept = np.array(first)
    operator @ (2 * x)
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_allclose(np.stack([operator @ x[:, 0], operator @ x[:, 1]], axis=1), first, rtol=0, atol=1e-14)
    assert (operator @ np.zeros((operator.shape[1], 0))).shape == (operator.shape[0], 0)


def test_blockwise_spectra_of_torch_arrays():
    plain, other = case("masked")[0], case("masked", backend="torch:cpu")[0]
    one, two = (blockwise_spectra(objective, "ggn", by="layer", num_steps=6) for objective in (plain, other))
    for name in one:
        np.testing.assert_allclose(one[name].nodes, two[name].nodes, atol=1e-12)
