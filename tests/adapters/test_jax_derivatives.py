"""Hessian and Gauss-Newton products of all kinds of JAX models, against dense autodiff, finite differences and torch."""

import numpy as np
import pytest

jax = pytest.importorskip("jax")
pytest.importorskip("flax")

import jax.numpy as jnp  # noqa: E402
from jax_networks import NETWORKS, double_precision, mlp, nnx_cnn, normal, references, relative  # noqa: E402, F401

import linop_spectra as ls  # noqa: E402


@pytest.mark.parametrize("name", NETWORKS)
def test_products_equal_dense_autodiff_and_differences(name):
    case, gradient, hessian, ggn = references(name)
    # For one of them two batches of different sizes; each size compiles anew.
    batch_size = 3 if name == "mlp" else None
    objective = ls.objective(case.model, "cross_entropy", case.data, batch_size=batch_size, **case.arguments)
    np.testing.assert_array_equal(objective.parameters(), case.theta)
    assert relative(objective.gradient(), gradient) < 1e-13
    v = normal(objective.num_parameters, 2, seed=1)
    for operator, dense in ((objective.hessian(), hessian), (objective.ggn(), ggn)):
        assert relative(operator @ v, dense @ v) < 1e-12
        assert relative(operator @ v[:, 0], dense @ v[:, 0]) < 1e-12
    if batch_size is not None:
        assert "linearised by jax.linearize, once for all of them; all 2 batches are kept" in objective.hessian().engine
        assert "outputs linearised once by jax.linearize" in objective.ggn().engine
    step = 1e-6
    sides = [objective.with_parameters(np.asarray(case.theta) + sign * step * v[:, 0]).gradient() for sign in (1, -1)]
    assert relative((sides[0] - sides[1]) / (2 * step), hessian @ v[:, 0]) < 1e-7
    # Single-precision statistics of batch normalisation are copied for the check; elsewhere most programs are there already.
    if name in ("nnx cnn", "mlp"):
        check = ls.check_operator(objective.hessian() if name == "nnx cnn" else objective.ggn())
        assert check.passed, str(check)
        assert check.finite_difference_error < 1e-7


def test_products_that_are_computed_anew():
    case, _, hessian, ggn = references("linen cnn")
    objective = ls.objective(case.model, "cross_entropy", case.data, batch_size=5, memory_budget=1, **case.arguments)
    v = normal(objective.num_parameters, 2, seed=1)
    for operator, dense in ((objective.hessian(), hessian), (objective.ggn(), ggn)):
        assert relative(operator @ v[:, 0], dense @ v[:, 0]) < 1e-12
        assert relative(operator @ v, dense @ v) < 1e-12
        assert "0 of 1 batches are kept" in operator.engine
    assert "jax.jvp of the gradient" in objective.hessian().engine


def test_the_check_finds_a_wrong_derivative():
    @jax.custom_jvp
    def wrong(x):
        return jnp.sin(x)

    wrong.defjvp(lambda primals, tangents: (wrong(primals[0]), 0.9 * jnp.cos(primals[0]) * tangents[0]))
    data = normal(6, 3), normal(6, 2, seed=1)
    objective = ls.objective(lambda p, x: wrong(x @ p), "mse", data, params=jnp.asarray(normal(3, 2, seed=2)))
    for operator in (objective.hessian(), objective.ggn()):
        check = ls.check_operator(operator)
        assert not check.passed
        assert check.finite_difference_error > 1e-2


def test_single_precision():
    case, gradient, hessian, ggn = references("mlp")
    params = jax.tree_util.tree_map(lambda x: x.astype(jnp.float32), case.arguments["params"])
    objective = ls.objective(case.model, "cross_entropy", case.data, params=params)
    v = normal(objective.num_parameters, seed=1)
    for operator, dense in ((objective.hessian(), hessian), (objective.ggn(), ggn)):
        product = operator @ v.astype(np.float32)
        assert product.dtype == operator.dtype == np.float32
        assert 1e-10 < relative(product, dense @ v) < 2e-6
        assert operator.unit_rounding == np.finfo(np.float32).eps
    wide = ls.objective(case.model, "cross_entropy", case.data, params=params, dtype="float64")
    assert wide.gradient().dtype == np.float64
    assert relative(wide.gradient(), gradient) < 1e-6  # the parameters themselves were rounded
    narrow = ls.objective(case.model, "cross_entropy", case.data, dtype="float32", **case.arguments)
    np.testing.assert_array_equal(narrow.gradient(), objective.gradient())


def test_half_precision_and_mixed_types():
    case, _, hessian, ggn = references("mlp")
    params = jax.tree_util.tree_map(lambda x: x.astype(jnp.bfloat16), case.arguments["params"])
    objective = ls.objective(case.model, "cross_entropy", case.data, params=params)
    assert objective.dtype == np.float32
    assert objective.functions.unit_rounding == float(jnp.finfo(jnp.bfloat16).eps)
    v = normal(objective.num_parameters, seed=1)
    assert 1e-4 < relative(objective.hessian() @ v.astype(np.float32), hessian @ v) < 0.1
    assert 1e-4 < relative(objective.ggn() @ v.astype(np.float32), ggn @ v) < 0.1
    params["first"] = case.arguments["params"]["first"]
    mixed = ls.objective(case.model, "cross_entropy", case.data, params=params)
    assert mixed.dtype == np.float64
    assert mixed.unflatten(mixed.parameters())["second.w"].dtype == np.float32
    assert mixed.gradient().dtype == np.float64


@jax.custom_vjp
def _square(x):
    return x**2


_square.defvjp(lambda x: (x**2, x), lambda x, g: (2 * x * g,))


def test_functions_without_forward_mode():
    data = normal(6, 3), normal(6, 2, seed=1)
    params = jnp.asarray(normal(3, 2, seed=2))
    special, plain = (
        ls.objective(lambda p, x, f=f: f(x @ p), "mse", data, params=params)
        for f in (_square, jnp.square)
    )
    v = normal(6, seed=3)
    for operator, same in ((special.hessian(), plain.hessian()), (special.ggn(), plain.ggn())):
        assert relative(operator @ v, same @ v) < 1e-14
        assert ls.check_operator(operator).passed
    assert "custom_vjp function, which has no forward mode" in special.ggn().engine


@jax.custom_vjp
def _kernel(x):
    return jnp.sin(x)


@jax.custom_vjp
def _slope(x):
    return jnp.cos(x)


_slope.defvjp(lambda x: (jnp.cos(x), x), lambda x, g: (-jnp.sin(x) * g,))
_kernel.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (_slope(x) * g,))


def test_kernels_whose_backward_pass_is_a_kernel_too():
    data, params = (normal(6, 3), normal(6, 2, seed=1)), jnp.asarray(normal(3, 2, seed=2))
    special, plain = (ls.objective(lambda p, x, f=f: f(x @ p), "mse", data, params=params) for f in (_kernel, jnp.sin))
    np.testing.assert_allclose(special.gradient(), plain.gradient(), rtol=1e-13)
    np.testing.assert_allclose(special.ggn().to_dense(), plain.ggn().to_dense(), rtol=1e-12)
    with pytest.raises(RuntimeError, match="define it by jax"):
        _ = special.hessian() @ np.ones(6)


def test_the_same_weights_in_torch():
    torch = pytest.importorskip("torch")
    case = mlp()
    first, second = case.arguments["params"]["first"], case.arguments["params"]["second"]
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).double()
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), (first["w"].T, first["b"], second["w"].T, second["b"]), strict=True):
            parameter.copy_(torch.tensor(np.asarray(value)))
    ours = ls.objective(case.model, "cross_entropy", case.data, **case.arguments)
    theirs = ls.objective(model, "cross_entropy", case.data)
    matrices = [
        lambda o: o.hessian(), lambda o: o.ggn(), lambda o: o.residual(), lambda o: o.fisher("mc", num_samples=2, seed=3),
        lambda o: o.fisher("empirical"), lambda o: o.gradient_covariance(), lambda o: o.ntk(),
    ]  # fmt: skip
    for matrix in matrices:
        spectra = [np.linalg.eigvalsh(matrix(objective).to_dense()) for objective in (ours, theirs)]
        np.testing.assert_allclose(*spectra, atol=1e-11)


def test_the_same_convolutions_in_torch():
    torch = pytest.importorskip("torch")
    case = nnx_cnn()
    net = case.model
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 3, 3), torch.nn.BatchNorm2d(3, eps=net.norm.epsilon), torch.nn.ReLU(), torch.nn.MaxPool2d(2, 1),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 3),
    ).double().eval()  # fmt: skip

    def tensor(variable, *axes):
        return torch.tensor(np.transpose(np.asarray(variable[...]), axes or None).copy())

    model.load_state_dict(
        {
            "0.weight": tensor(net.conv.kernel, 3, 2, 0, 1), "0.bias": tensor(net.conv.bias), "1.weight": tensor(net.norm.scale),
            "1.bias": tensor(net.norm.bias), "1.running_mean": tensor(net.norm.mean), "1.running_var": tensor(net.norm.var),
            "6.weight": tensor(net.head.kernel, 1, 0), "6.bias": tensor(net.head.bias),
        },
        strict=False,
    )  # fmt: skip
    x, y = case.data
    ours = ls.objective(net, "cross_entropy", (x, y))
    theirs = ls.objective(model, "cross_entropy", (np.transpose(x, (0, 3, 1, 2)).copy(), y))
    assert ours.value() == pytest.approx(theirs.value(), rel=1e-13)
    for name in ("hessian", "ggn"):
        spectra = [np.linalg.eigvalsh(getattr(objective, name)().to_dense()) for objective in (ours, theirs)]
        np.testing.assert_allclose(*spectra, atol=1e-10)


@pytest.mark.parametrize("memory_budget", [None, 1], ids=["kept", "recomputed"])
def test_the_residual_by_itself(memory_budget):
    case, _, hessian, ggn = references("mlp")
    objective = ls.objective(case.model, "cross_entropy", case.data, batch_size=5, memory_budget=memory_budget, **case.arguments)
    (batch,) = objective.batches()
    v = normal(objective.num_parameters, seed=1)
    for num_products in (None, 1) if memory_budget is None else (2,):
        with objective.functions.session():
            linearization = objective.functions.linearize(objective.point, batch, num_products=num_products)
            product = linearization.residual(objective.functions.to_native(v))
        assert linearization.num_terms == 5
        found = objective.flatten(list(product)) / 5
        assert relative(found, (hessian - ggn) @ v) < 1e-12
        assert not found[objective.blocks["second.b"]].any()
    assert relative(objective.residual() @ v, (hessian - ggn) @ v) < 1e-12
