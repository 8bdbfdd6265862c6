"""Methods in the loops of PyTorch, JAX and Keras: each face does the steps of the method itself."""

import sys
from pathlib import Path

import numpy as np
import pytest

import linop_spectra as ls

sys.path.insert(0, str(Path(__file__).parents[1] / "optim"))
from descent_methods import Averaged

GENERATOR = np.random.default_rng(0)
X, Y = GENERATOR.standard_normal((24, 3)), GENERATOR.integers(0, 2, 24)
W, B = GENERATOR.standard_normal((2, 3)), GENERATOR.standard_normal(2)
PARTS = [slice(0, 8), slice(8, 16), slice(16, 24)]
STEPS = 5


def reference():
    """Five steps of the method written out for softmax regression, in NumPy."""
    w, b, mean = W.copy(), B.copy(), None
    for step in range(STEPS):
        x, y = X[PARTS[step % 3]], Y[PARTS[step % 3]]
        logits = x @ w.T + b
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p = (p / p.sum(axis=1, keepdims=True) - np.eye(2)[y]) / len(y)
        gradient = [p.T @ x, p.sum(axis=0)]
        mean = gradient if mean is None else [0.5 * old + new for old, new in zip(mean, gradient, strict=True)]
        w, b = w - 0.1 * mean[0], b - 0.1 * mean[1]
    return w, b


class TestTorch:
    torch = pytest.importorskip("torch")

    def model(self, *more):
        model = self.torch.nn.Sequential(self.torch.nn.Linear(3, 2), *more).double()
        with self.torch.no_grad():
            model[0].weight.copy_(self.torch.as_tensor(W))
            model[0].bias.copy_(self.torch.as_tensor(B))
        return model

    def batches(self):
        return [[self.torch.as_tensor(X[part]), self.torch.as_tensor(Y[part])] for part in PARTS]

    def test_trains_in_place_as_the_method_does(self):
        model = self.model()
        storage = model[0].weight.data_ptr()
        optimizer = ls.optim.torch_optimizer(Averaged(), model, "cross_entropy")
        assert isinstance(optimizer, self.torch.optim.Optimizer)
        for step in range(STEPS):
            info = optimizer.step(self.batches()[step % 3])
        w, b = reference()
        np.testing.assert_allclose(model[0].weight.detach().numpy(), w, atol=1e-12)
        np.testing.assert_allclose(model[0].bias.detach().numpy(), b, atol=1e-12)
        assert info.step == STEPS - 1 and model[0].weight.data_ptr() == storage and model[0].weight.grad is None

    def test_a_loader_is_one_step_over_all_its_batches(self):
        one, other = self.model(), self.model()
        ls.optim.torch_optimizer(Averaged(), one, "cross_entropy").step(self.batches())
        ls.optim.torch_optimizer(Averaged(), other, "cross_entropy").step((self.torch.as_tensor(X), self.torch.as_tensor(Y)))
        np.testing.assert_allclose(one[0].weight.detach().numpy(), other[0].weight.detach().numpy(), atol=1e-14)

    def test_state_dicts_resume(self, tmp_path):
        whole, model = self.model(), self.model()
        optimizer = ls.optim.torch_optimizer(Averaged(noise=0.01), whole, "cross_entropy")
        for step in range(4):
            optimizer.step(self.batches()[step % 3])
        first = ls.optim.torch_optimizer(Averaged(noise=0.01), model, "cross_entropy")
        for step in range(2):
            first.step(self.batches()[step])
        self.torch.save({"model": model.state_dict(), "optimizer": first.state_dict()}, tmp_path / "checkpoint.pt")
        held = self.torch.load(tmp_path / "checkpoint.pt", weights_only=True)
        again = self.model()
        again.load_state_dict(held["model"])
        second = ls.optim.torch_optimizer(Averaged(noise=0.01), again, "cross_entropy")
        second.load_state_dict(held["optimizer"])
        for step in range(2, 4):
            second.step(self.batches()[step % 3])
        assert self.torch.equal(again[0].weight, whole[0].weight)
        with pytest.raises(ValueError, match="no state of a method"):
            second.load_state_dict(self.torch.optim.SGD(model.parameters()).state_dict())

    def test_learning_rate_schedulers_of_torch(self):
        model = self.model()
        optimizer = ls.optim.torch_optimizer(Averaged(learning_rate=0.4), model, "cross_entropy")
        scheduler = self.torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
        rates = []
        for batch in self.batches():
            rates.append(optimizer.step(batch).learning_rate)
            scheduler.step()
        assert rates == [0.4, 0.2, 0.1]

    def test_running_statistics_follow(self):
        torch = self.torch
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 2)).double()
        model.eval()
        x, y = (torch.as_tensor(X), torch.as_tensor(Y))
        optimizer = ls.optim.torch_optimizer(Averaged(), model, "cross_entropy", batch_norm="train")
        before = model[1].running_mean.clone()
        optimizer.step((x, y))
        expected = 0.9 * before + 0.1 * model[0](x).mean(dim=0)
        torch.testing.assert_close(model[1].running_mean, expected.detach())
        assert not model.training and not model[1].training

    def test_tied_and_frozen_parameters(self):
        torch = self.torch
        model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3), torch.nn.Linear(3, 2)).double()
        model[1].weight = model[0].weight
        model[2].bias.requires_grad_(False)
        frozen = model[2].bias.clone()
        start = model[0].weight.clone()
        ls.optim.torch_optimizer(Averaged(), model, "cross_entropy").step(self.batches()[0])
        assert torch.equal(model[2].bias, frozen) and model[1].weight is model[0].weight and not torch.equal(model[0].weight, start)

    def test_batch_losses_take_their_batch_whole(self):
        model = self.model()
        loss = ls.BatchLoss(lambda m, b: (self.torch.nn.functional.cross_entropy(m(b["x"]), b["y"], reduction="sum"), len(b["y"])))
        optimizer = ls.optim.torch_optimizer(Averaged(), model, loss)
        for step in range(STEPS):
            x, y = self.batches()[step % 3]
            optimizer.step({"x": x, "y": y})
        np.testing.assert_allclose(model[0].weight.detach().numpy(), reference()[0], atol=1e-12)

    def test_curvature_may_come_from_other_data(self):
        class Curved(Averaged):
            def _propose(self, start):
                proposal = super()._propose(start)
                proposal.details = {"curvature_loss": start.curvature.value()}
                return proposal

        model = self.model()
        one, other = self.batches()[:2]
        expected = ls.objective(model, "cross_entropy", tuple(other)).value()
        info = ls.optim.torch_optimizer(Curved(), model, "cross_entropy").step(one, other)
        assert info.details["curvature_loss"] == pytest.approx(expected, rel=1e-12)

    def test_warm_up_from_a_rate_of_zero(self):
        model = self.model()
        optimizer = ls.optim.torch_optimizer(Averaged(), model, "cross_entropy")
        scheduler = self.torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 2)
        rates = []
        for batch in self.batches():
            rates.append(optimizer.step(batch).learning_rate)
            scheduler.step()
        assert rates == [0.0, 0.05, 0.1]

    def test_a_state_that_does_not_belong_leaves_everything_as_it_was(self):
        optimizer = ls.optim.torch_optimizer(Averaged(learning_rate=0.3), self.model(), "cross_entropy")
        optimizer.step(self.batches()[0])
        smaller = self.torch.nn.Linear(3, 2, bias=False).double()
        for other, model in ((ls.optim.CubicNewton(), self.model()), (Averaged(learning_rate=0.7), smaller)):
            stranger = ls.optim.torch_optimizer(other, model, "cross_entropy")
            stranger.step(self.batches()[0])
            before = optimizer.method.state_dict()
            with pytest.raises(ValueError, match="state"):
                optimizer.load_state_dict(stranger.state_dict())
            after = optimizer.method.state_dict()
            assert after["num_steps"] == before["num_steps"] and (after["state"]["mean"] == before["state"]["mean"]).all()
            assert optimizer.method.learning_rate == 0.3 and optimizer.param_groups[0]["lr"] == 0.3
        assert optimizer.step(self.batches()[1]).learning_rate == 0.3

    def test_parameters_are_chosen_when_it_is_made(self):
        model = self.model()
        optimizer = ls.optim.torch_optimizer(Averaged(), model, "cross_entropy")
        optimizer.step(self.batches()[0])
        with pytest.raises(ValueError, match="parameters of the model"):
            optimizer.add_param_group({"params": [self.torch.nn.Parameter(self.torch.zeros(2))]})
        model[0].bias.requires_grad_(False)
        before = model[0].weight.clone()
        with pytest.raises(ValueError, match=r"'0\.bias'.*make a new optimiser"):
            optimizer.step(self.batches()[1])
        assert self.torch.equal(before, model[0].weight)
        model[0].bias.requires_grad_(True)
        optimizer.step(self.batches()[1])

    def test_bad_arguments(self):
        with pytest.raises(TypeError, match=r"a method of linop_spectra\.optim"):
            ls.optim.torch_optimizer(self.torch.optim.SGD, self.model(), "mse")
        with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
            ls.optim.torch_optimizer(Averaged(), "model", "mse")
        with pytest.raises(TypeError, match="not a closure"):
            ls.optim.torch_optimizer(Averaged(), self.model(), "mse").step(lambda: 1.0)


class TestJax:
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")

    @pytest.fixture(autouse=True)
    def _double(self):
        before = self.jax.config.jax_enable_x64
        self.jax.config.update("jax_enable_x64", True)
        yield
        self.jax.config.update("jax_enable_x64", before)

    def params(self):
        return {"layers": [{"w": self.jax.numpy.asarray(W), "b": self.jax.numpy.asarray(B)}], "steps": self.jax.numpy.asarray(3)}

    @staticmethod
    def apply(params, x):
        return x @ params["layers"][0]["w"].T + params["layers"][0]["b"]

    def test_trains_as_the_method_does(self):
        transformation = ls.optim.optax_transformation(Averaged(), self.apply, "cross_entropy")
        params = self.params()
        state = transformation.init(params)
        for step in range(STEPS):
            part = PARTS[step % 3]
            updates, state = transformation.update(None, state, params, data=(X[part], Y[part]))
            params = self.optax.apply_updates(params, updates)
        w, b = reference()
        np.testing.assert_allclose(params["layers"][0]["w"], w, atol=1e-12)
        np.testing.assert_allclose(params["layers"][0]["b"], b, atol=1e-12)
        assert int(params["steps"]) == 3 and state.num_steps == STEPS and state.info["loss"] > 0

    def test_states_are_values(self):
        transformation = ls.optim.optax_transformation(Averaged(), self.apply, "cross_entropy")
        params = self.params()
        updates, first = transformation.update(None, transformation.init(params), params, data=(X, Y))
        moved = self.optax.apply_updates(params, updates)
        one, _ = transformation.update(None, first, moved, data=(X, Y))
        transformation.update(None, transformation.init(params), params, data=(X[:4], Y[:4]))
        two, _ = transformation.update(None, first, moved, data=(X, Y))
        np.testing.assert_array_equal(one["layers"][0]["w"], two["layers"][0]["w"])

    def test_chains_with_others(self):
        method = ls.optim.optax_transformation(Averaged(), self.apply, "cross_entropy")
        chained = self.optax.chain(method, self.optax.scale(0.5))
        params = self.params()
        whole, _ = method.update(None, method.init(params), params, data=(X, Y))
        half, _ = chained.update(None, chained.init(params), params, data=(X, Y))
        np.testing.assert_allclose(half["layers"][0]["w"], 0.5 * whole["layers"][0]["w"])

    def test_bad_calls(self):
        transformation = ls.optim.optax_transformation(Averaged(), self.apply, "cross_entropy")
        params = self.params()
        state = transformation.init(params)
        with pytest.raises(ValueError, match="data is missing"):
            transformation.update(None, state, params)
        with pytest.raises(ValueError, match="params is missing"):
            transformation.update(None, state, data=(X, Y))
        with pytest.raises(TypeError, match=r"inside of jax\.jit"):
            self.jax.jit(lambda p: transformation.update(None, state, p, data=(X, Y))[0])(params)


class TestKeras:
    keras = pytest.importorskip("keras")

    def model(self):
        model = self.keras.Sequential([self.keras.Input((3,), dtype="float64"), self.keras.layers.Dense(2, dtype="float64")])
        model.set_weights([W.T, B])
        return model

    def test_trains_as_the_method_does(self):
        model = self.model()
        train_step = ls.optim.keras_train_step(Averaged(), model, "cross_entropy")
        for step in range(STEPS):
            info = train_step((X[PARTS[step % 3]], Y[PARTS[step % 3]]))
        w, b = reference()
        np.testing.assert_allclose(model.get_weights()[0], w.T, atol=1e-12)
        np.testing.assert_allclose(model.get_weights()[1], b, atol=1e-12)
        assert info.step == STEPS - 1 and train_step.method.steps_taken == STEPS

    def test_moving_statistics_follow(self):
        layers = self.keras.layers
        model = self.keras.Sequential(
            [self.keras.Input((3,)), layers.Dense(4), layers.BatchNormalization(momentum=0.9), layers.Dense(2)]
        )
        before = model.get_weights()[4]
        ls.optim.keras_train_step(Averaged(), model, "cross_entropy", batch_norm="train")((X.astype("float32"), Y))
        hidden = X.astype("float32") @ model.get_weights()[0] + model.get_weights()[1]
        np.testing.assert_allclose(model.get_weights()[4], 0.9 * before + 0.1 * hidden.mean(axis=0), atol=1e-5)

    def test_moving_statistics_of_loaders_and_without_dropout(self):
        layers = self.keras.layers
        model = self.keras.Sequential(
            [self.keras.Input((3,)), layers.Dropout(0.5), layers.Dense(4), layers.BatchNormalization(momentum=0.9), layers.Dense(2)]
        )
        x = X.astype("float32")
        before, drawn = model.layers[2].moving_mean.numpy(), np.asarray(model.layers[0].seed_generator.state)
        ls.optim.keras_train_step(Averaged(), model, "cross_entropy", batch_norm="train")([(x[:12], Y[:12]), (x[12:], Y[12:])])
        kernel, bias = model.layers[1].get_weights()
        for part in (x[:12], x[12:]):
            before = 0.9 * before + 0.1 * (part @ kernel + bias).mean(axis=0)
        np.testing.assert_allclose(model.layers[2].moving_mean.numpy(), before, atol=1e-5)
        np.testing.assert_array_equal(np.asarray(model.layers[0].seed_generator.state), drawn)

    def test_moving_statistics_of_batch_losses(self):
        layers = self.keras.layers
        model = self.keras.Sequential([self.keras.Input((3,)), layers.BatchNormalization(momentum=0.9), layers.Dense(1)])
        loss = ls.BatchLoss(lambda m, b: (self.keras.ops.sum(m(b) ** 2), b.shape[0]))
        ls.optim.keras_train_step(Averaged(), model, loss, batch_norm="train")(X.astype("float32"))
        np.testing.assert_allclose(model.layers[0].moving_mean.numpy(), 0.1 * X.mean(axis=0), atol=1e-5)

    def test_bad_arguments(self):
        with pytest.raises(TypeError, match="a model of Keras 3"):
            ls.optim.keras_train_step(Averaged(), "model", "mse")
        with pytest.raises(TypeError, match=r"a method of linop_spectra\.optim"):
            ls.optim.keras_train_step("sgd", self.model(), "mse")
