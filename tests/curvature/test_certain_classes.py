"""Single precision where a model is nearly certain: ``p - 1`` must not lose what the other classes have."""

import numpy as np
import pytest

import linop_spectra as ls

CLASSES, FEATURES = 3, 4


def data():
    """Inputs, weights and the classes, each right with a probability of 1 - 1e-3 to 1 - 1e-10."""
    generator = np.random.default_rng(3)
    x, w = generator.standard_normal((40, FEATURES)), generator.standard_normal((CLASSES, FEATURES)) * 10
    x, w = np.float32(x), np.float32(w)
    p = softmax(np.float64(x) @ np.float64(w).T)
    others = np.sort(p, axis=1)[:, :-1].sum(axis=1)
    chosen = (others < 1e-3) & (others > 1e-10)
    assert chosen.sum() >= 6
    return x[chosen], w, p[chosen].argmax(axis=1)


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def truth(x, w, y, binary):
    """Loss, gradient and Hessian of a linear model in double precision, with ``1 - p`` as the sum of the others."""
    x, w = np.float64(x), np.float64(w)
    z = x @ w.T
    hot = np.eye(CLASSES)[y]
    if binary:
        sign = 1 - 2 * hot
        losses, slope = np.logaddexp(0, sign * z), sign / (1 + np.exp(-sign * z))
        curvature = np.einsum("nc,cd->ncd", 1 / (1 + np.exp(-z)) / (1 + np.exp(z)), np.eye(CLASSES))
        count = z.size
    else:
        p = softmax(z)
        others = np.where(hot, 0, p).sum(axis=1, keepdims=True)
        losses, slope = -np.log1p(-others), np.where(hot, -others, p)
        rest = np.where(hot, others, 1 - p)  # 1 - p
        curvature = np.einsum("nc,cd->ncd", p * rest, np.eye(CLASSES)) - np.einsum("nc,nd->ncd", p, p) * (1 - np.eye(CLASSES))
        count = len(x)
    hessian = np.einsum("ncd,ni,nj->cidj", curvature, x, x).reshape(w.size, w.size)
    return losses.sum() / count, (slope.T @ x).ravel() / count, hessian / count


def in_torch(x, w, targets, loss):
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(FEATURES, CLASSES, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.as_tensor(w))
    return ls.objective(model, loss, (torch.as_tensor(x), torch.as_tensor(targets))), np.arange(w.size)


def in_torch_tokens(x, w, targets, loss):
    torch = pytest.importorskip("torch")

    class Model(torch.nn.Linear):
        def forward(self, inputs_embeds):
            return super().forward(inputs_embeds)

    model = Model(FEATURES, CLASSES, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.as_tensor(w))
    batch = {"inputs_embeds": torch.as_tensor(x)[None], "labels": torch.as_tensor(targets)[None]}
    return ls.objective(model, ls.LanguageModelLoss(causal=False), [batch]), np.arange(w.size)


def in_jax(x, w, targets, loss):
    jax = pytest.importorskip("jax")
    params = {"w": jax.numpy.asarray(w)}
    return ls.objective(lambda q, z: z @ q["w"].T, loss, (x, targets), params=params), np.arange(w.size)


def in_keras(x, w, targets, loss):
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.Input((FEATURES,)), keras.layers.Dense(CLASSES, use_bias=False)])
    model.set_weights([w.T])
    return ls.objective(model, loss, (x, targets)), np.arange(w.size).reshape(CLASSES, FEATURES).T.ravel()


FRAMEWORKS = {"torch": in_torch, "torch tokens": in_torch_tokens, "jax": in_jax, "keras": in_keras}
TARGETS = ("classes", "one-hot", "labels")


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_loss_gradient_and_hessian(framework, targets):
    x, w, y = data()
    if targets == "classes":
        objective, order = FRAMEWORKS[framework](x, w, y, "cross_entropy")
    elif framework == "torch tokens":
        pytest.skip("the labels of a language model are classes")
    else:
        hot = np.float32(np.eye(CLASSES))[y]
        objective, order = FRAMEWORKS[framework](x, w, hot, "cross_entropy" if targets == "one-hot" else "binary_cross_entropy")
    value, gradient, hessian = truth(x, w, y, targets == "labels")
    assert objective.value() == pytest.approx(value, rel=1e-5)
    found = np.asarray(objective.gradient(), dtype=np.float64)
    assert np.abs(found - gradient[order]).max() < 1e-5 * np.abs(gradient).max()
    dense = np.asarray(objective.hessian().to_dense(), dtype=np.float64)
    assert np.abs(dense - hessian[np.ix_(order, order)]).max() < 1e-5 * np.abs(hessian).max()
