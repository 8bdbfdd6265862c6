"""Losses of language models and of classifiers of texts in JAX, against torch's and against dense derivatives."""

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402
from jax_networks import double_precision, normal, relative  # noqa: E402, F401

import linop_spectra as ls  # noqa: E402
from linop_spectra.adapters.jax.token_cross_entropy import summed_cross_entropy  # noqa: E402
from linop_spectra.curvature import LanguageModelLoss, LogitsLoss  # noqa: E402

WORDS, LENGTH = 7, 5


def params():
    return {"table": jnp.asarray(normal(WORDS, 3, seed=1)), "mix": jnp.asarray(normal(3, 3, seed=2))}


def model(p, batch):
    """Each position sees the ones before it; what the mask leaves out counts nothing."""
    hidden = p["table"][batch["input_ids"]]
    if "attention_mask" in batch:
        hidden = hidden * batch["attention_mask"][..., None]
    return {"logits": jnp.tanh(jnp.cumsum(hidden, axis=1) @ p["mix"]) @ p["table"].T}


def tokens(count, length=LENGTH, seed=3):
    return np.random.default_rng(seed).integers(0, WORDS, (count, length))


def batches(kind):
    """Batches of unequal size and length."""
    found = []
    for count, length in ((3, LENGTH), (2, 4)):
        batch = {"input_ids": tokens(count, length)}
        if kind == "mask":
            batch["attention_mask"] = (np.arange(length)[None, :] < length - np.arange(count)[:, None]).astype(np.int64)
        if kind in ("labels", "not causal", "weights", "weights of sequences"):
            batch["labels"] = np.where(tokens(count, length, seed=5) == 2, -100, tokens(count, length, seed=4))
        if kind == "weights":
            batch["importance"] = np.abs(normal(count, length, seed=6))
        if kind == "weights of sequences":
            batch["importance"] = np.array([0.5, 0.0, 2.0])[:count]
        found.append(batch)
    return found


def options(kind):
    return {"causal": kind != "not causal", "weights": "importance" if "weights" in kind else None}


def counted(kind, batch):
    """Example, position, label and weight of every term of the loss, one by one, from the definition."""
    terms = []
    for i, length in enumerate([batch["input_ids"].shape[1]] * len(batch["input_ids"])):
        for j in range(length):
            place = j + 1 if kind != "not causal" else j
            if place >= length:
                continue
            if "labels" in batch:
                label = int(batch["labels"][i, place])
            else:
                label = int(batch["input_ids"][i, place]) if batch.get("attention_mask", np.ones((9, 9)))[i, place] else -100
            weight = 1.0
            if "importance" in batch:
                weight = batch["importance"][i] if batch["importance"].ndim == 1 else batch["importance"][i, place]
            if label != -100:
                terms.append((i, j, label, weight))
    *places, weights = map(np.array, zip(*terms, strict=True))
    return *places, weights


KINDS = ("input_ids", "mask", "labels", "not causal", "weights", "weights of sequences")


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_matrices_against_the_definition(kind):
    data = batches(kind)
    objective = ls.objective(model, LanguageModelLoss(**options(kind)), data, params=params())
    theta, unravel = jax.flatten_util.ravel_pytree(params())

    @jax.jit
    def whole(t):
        total, norm = 0.0, 0.0
        for batch in data:
            logits = model(unravel(t), batch)["logits"]
            examples, positions, words, weights = counted(kind, batch)
            rows = logits[examples, positions]
            total += (weights * (jax.nn.logsumexp(rows, axis=1) - rows[np.arange(len(words)), words])).sum()
            norm += weights.sum()
        return total / norm

    assert objective.value() == pytest.approx(float(whole(theta)), rel=1e-12)
    if kind == "weights":  # the others differ in numbers that the value has shown

        def slope(t):
            found = jax.grad(whole)(t)
            return found, found

        hessian, gradient = jax.jit(jax.jacfwd(slope, has_aux=True))(theta)
        np.testing.assert_allclose(objective.gradient(), gradient, atol=1e-13)
        assert relative(objective.hessian().to_dense(), hessian) < 1e-12
        assert ls.check_operator(objective.ggn()).passed


@pytest.mark.parametrize(("kind", "matrices"), [("mask", ("hessian", "ggn")), ("weights", ("residual",))])
def test_equal_to_torch(kind, matrices):
    """The matrices of weighted terms besides the residual stand against the definition above."""
    torch = pytest.importorskip("torch")

    class Same(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = torch.nn.Parameter(torch.tensor(normal(3, 3, seed=2)))
            self.table = torch.nn.Parameter(torch.tensor(normal(WORDS, 3, seed=1)))

        def forward(self, input_ids, attention_mask=None):
            hidden = self.table[input_ids]
            if attention_mask is not None:
                hidden = hidden * attention_mask[..., None]
            return {"logits": torch.tanh(hidden.cumsum(1) @ self.mix) @ self.table.T}

    data = batches(kind)
    loss = LanguageModelLoss(**options(kind))
    ours = ls.objective(model, loss, data, params=params())
    theirs = ls.objective(Same(), loss, [{name: torch.tensor(array) for name, array in batch.items()} for batch in data])
    assert ours.value() == pytest.approx(theirs.value(), rel=1e-13)
    v = normal(ours.num_parameters, 2)
    for matrix in matrices:
        np.testing.assert_allclose(getattr(ours, matrix)() @ v, getattr(theirs, matrix)() @ v, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(ours.fisher("mc", seed=2) @ v, theirs.fisher("mc", seed=2) @ v, rtol=1e-10, atol=1e-13)


def test_a_classifier_by_its_logits():
    def classify(p, batch):
        return (jnp.tanh(batch["pixels"] @ p["w"]) @ p["v"],)

    own = {"w": jnp.asarray(normal(4, 3)), "v": jnp.asarray(normal(3, 3, seed=1))}
    x, y = normal(6, 4), np.random.default_rng(0).integers(0, 3, 6)
    named = ls.objective(classify, LogitsLoss("cross_entropy", labels="kind"), [{"pixels": x, "kind": y}], params=own)
    plain = ls.objective(lambda p, z: classify(p, {"pixels": z})[0], "cross_entropy", (x, y), params=own)
    for matrix in ("hessian", "ggn"):
        np.testing.assert_allclose(getattr(named, matrix)().to_dense(), getattr(plain, matrix)().to_dense(), atol=1e-14)
    # A single output is compared with labels without an axis for it.
    single = {"w": own["w"], "v": own["v"][:, :1]}
    regression = ls.objective(classify, LogitsLoss("mse"), [{"pixels": x, "labels": normal(6)}], params=single)
    assert ls.check_operator(regression.ggn()).passed
    with pytest.raises(KeyError, match="no entry 'labels', only 'pixels', 'kind'"):
        ls.objective(classify, LogitsLoss("mse"), [{"pixels": x, "kind": y}], params=own).value()


def test_derivatives_in_closed_form():
    """To third order, in float32, with masked positions, and where nothing overflows."""
    z, w = jnp.asarray(normal(3, 4)), jnp.asarray([1.0, 0.0, 2.0])
    t = jnp.asarray([0, -100, 3], dtype=jnp.int8)

    def plain(z):
        log_p = z - jnp.log(jnp.exp(z).sum(axis=-1, keepdims=True))
        return -sum(w[i] * log_p[i, label] for i, label in ((0, 0), (2, 3)))

    def ours(z):
        return summed_cross_entropy(z, t, w)

    for derivative in (jax.grad, jax.hessian, lambda f: jax.jacrev(jax.jacrev(jax.grad(f)))):
        np.testing.assert_allclose(jax.jit(derivative(ours))(z), jax.jit(derivative(plain))(z), atol=1e-14)
    far = jnp.asarray([[1e4, -1e4, -jnp.inf]], dtype=jnp.float32)
    value, slope = jax.value_and_grad(lambda z: summed_cross_entropy(z, jnp.array([1]), jnp.ones(1, jnp.float32)))(far)
    assert float(value) == 2e4
    np.testing.assert_array_equal(slope, [[1.0, -1.0, 0.0]])


def test_a_linearised_gradient_keeps_little_of_the_vocabulary():
    """The gradient in the logits and their softmax, besides what the model keeps."""
    words, positions = 1000, 40

    def wide(p, batch):
        return p["hidden"] @ p["head"]

    own = {"hidden": jnp.asarray(normal(1, positions, 2)), "head": jnp.asarray(normal(2, words, seed=1))}
    data = [{"input_ids": np.zeros((1, positions), dtype=int)}]
    objective = ls.objective(wide, LanguageModelLoss(), data, params=own)
    kept = objective.functions.retained_bytes(objective.point, next(objective.batches()))
    assert kept < 2.3 * 8 * words * positions


def test_what_is_refused():
    own = params()
    data = batches("labels")

    def objective(fn=model, loss=None, batch=None):
        return ls.objective(fn, loss or LanguageModelLoss(), [batch or data[0]], params=own)

    with pytest.raises(ValueError, match="labels are from 0 to 9, for some of which"):
        objective(batch={**data[0], "labels": np.full((3, LENGTH), 9) * (np.arange(LENGTH) > 2)}).value()
    with pytest.raises(TypeError, match="labels have dtype float64"):
        objective(batch={**data[0], "labels": np.ones((3, LENGTH))}).value()
    with pytest.raises(ValueError, match=r"\(3, 5, 7\) and the labels of shape \(3, 4\) do not fit"):
        objective(batch={**data[0], "labels": data[0]["labels"][:, 1:]}).value()
    weighted = LanguageModelLoss(weights="w")
    with pytest.raises(ValueError, match=r"weights of shape \(2,\) fit neither"):
        objective(loss=weighted, batch={**data[0], "w": np.ones(2)}).value()
    with pytest.raises(ValueError, match="'w' must be at least zero"):
        objective(loss=weighted, batch={**data[0], "w": -np.ones(3)}).value()
    with pytest.raises(ValueError, match="probabilities already"):
        objective(fn=lambda p, batch: jax.nn.softmax(model(p, batch)["logits"])).value()
    with pytest.raises(TypeError, match="returns a float without logits"):
        objective(fn=lambda p, batch: 1.0).value()
    with pytest.raises(TypeError, match="needs a mapping such as"):
        ls.objective(model, LanguageModelLoss(), [tokens(2)], params=own).value()
