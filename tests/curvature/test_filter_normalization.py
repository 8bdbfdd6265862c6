"""Filters of norm one: the loss stays, the curvature scales as it must."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import linop_spectra as ls  # noqa: E402


def make(batch_norm="train"):
    torch.manual_seed(0)
    norms = torch.nn.BatchNorm2d(3, eps=1e-16), torch.nn.GroupNorm(2, 2, eps=1e-16)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(2, 3, 2, bias=False), norms[0], torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(12, 10, bias=False),
        torch.nn.Unflatten(1, (2, 5)), norms[1], torch.nn.Flatten(), torch.nn.Linear(10, 3),
    ).double()  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    data = torch.randn(11, 2, 3, 3, dtype=torch.float64, generator=generator), torch.randint(0, 3, (11,), generator=generator)
    return model, ls.objective(model, "cross_entropy", data, batch_norm=batch_norm)


def test_curvature_scales_with_the_inverse_square():
    model, objective = make()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    normalized = objective.filter_normalized()
    assert normalized.value() == pytest.approx(objective.value(), rel=1e-10)
    before, after = objective.parameters(), normalized.parameters()
    ratio = np.divide(before, after, out=np.ones_like(before), where=after != 0)  # biases of normalisation begin at zero
    filters = ratio[objective.blocks["0.weight"]].reshape(3, -1)
    np.testing.assert_allclose(filters, filters[:, :1] * np.ones(8), rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(after[objective.blocks["0.weight"]].reshape(3, -1), axis=1), 1, rtol=1e-12)
    # Five outputs are normalised together by the group norm: a filter of one output alone may not be rescaled.
    np.testing.assert_array_equal(ratio[objective.blocks["8.weight"]], 1)
    np.testing.assert_array_equal(ratio[objective.blocks["4.weight"]], 1)
    # f(D^-1 theta) = f(theta) for every positive D that scales filters, so H(D^-1 theta) = D H(theta) D.
    expected = ratio[:, None] * objective.hessian().to_dense() * ratio
    np.testing.assert_allclose(normalized.hessian().to_dense(), expected, atol=1e-9 * np.abs(expected).max())
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


def test_what_is_not_scale_invariant_is_said():
    _, objective = make()
    with pytest.raises(ValueError, match=r"'8\.weight' are rescaled"):
        objective.filter_normalized("8.weight")
    with pytest.raises(ValueError, match="matches no weight"):
        objective.filter_normalized("*.bias")
    with pytest.raises(ValueError, match="tolerance"):
        objective.filter_normalized(tolerance=0)
    with pytest.raises(ValueError, match="not scale-invariant anywhere"):
        make("eval")[1].filter_normalized()


def test_outputs_along_the_last_axis():
    jax = pytest.importorskip("jax")
    generator = np.random.default_rng(0)

    def apply(params, x):
        h = x @ params["w"]
        h = (h - h.mean(0)) / jax.numpy.sqrt(h.var(0))
        return jax.numpy.tanh(h) @ params["v"]

    params = {"w": generator.standard_normal((4, 6)).astype("float32"), "v": generator.standard_normal((6, 3)).astype("float32")}
    data = generator.standard_normal((20, 4)).astype("float32"), generator.integers(0, 3, 20)
    objective = ls.objective(apply, "cross_entropy", data, params=params)
    normalized = objective.filter_normalized()
    weights = normalized.parameters()[objective.blocks["w"]].reshape(4, 6)
    np.testing.assert_allclose(np.linalg.norm(weights, axis=0), 1, rtol=1e-6)
    np.testing.assert_array_equal(normalized.parameters()[objective.blocks["v"]], params["v"].ravel())
