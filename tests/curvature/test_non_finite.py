"""A loss that is not finite has an error of its own, the same in every framework."""

import numpy as np
import pytest

import linop_spectra as ls
from linop_spectra.curvature import NonFiniteLossError

X, Y = np.ones((4, 2), np.float32), np.ones((4, 1), np.float32)


def torch_objective():
    torch = pytest.importorskip("torch")
    return ls.objective(torch.nn.Linear(2, 1), "mse", (torch.tensor(X), torch.tensor(Y)))


def jax_objective():
    pytest.importorskip("jax")
    return ls.objective(lambda w, x: x @ w, "mse", (X, Y), params=np.ones((2, 1), np.float32))


def keras_objective():
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    return ls.objective(model, "mse", (X, Y))


@pytest.mark.parametrize("make", [torch_objective, jax_objective, keras_objective])
@pytest.mark.parametrize("question", ["value", "gradient"])
@pytest.mark.parametrize("far", [np.float32(1e25), np.float32(np.nan)])
def test_every_framework_raises_it(make, question, far):
    objective = make()
    there = objective.with_parameters(np.full(objective.num_parameters, far))
    with pytest.raises(NonFiniteLossError, match="The loss of a batch is not finite") as caught:
        getattr(there, question)()
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, FloatingPointError)
    assert np.isfinite(objective.value())
