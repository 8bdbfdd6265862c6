"""Small float64 Keras networks and modules, and their derivatives by other means than the library's."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

CLASSES = 3


class Tied(keras.Model):
    """Tokens in, one class for each position out, the same matrix at both ends."""

    def __init__(self):
        super().__init__(name="tied")
        self.embedding = layers.Embedding(5, 4, dtype="float64")
        self.middle = layers.Dense(4, "tanh", dtype="float64")

    def call(self, tokens):
        return keras.ops.matmul(self.middle(self.embedding(tokens)), keras.ops.transpose(self.embedding.embeddings))


class Network(tf.Module):
    """A plain module: weights in a list, a shared one, a buffer that each call changes, and its own tf.function."""

    def __init__(self, dtype=tf.float64):
        super().__init__()
        generator = np.random.default_rng(0)
        self.weights = [tf.Variable(generator.standard_normal(shape), dtype=dtype) for shape in [(4, 4), (4, CLASSES)]]
        self.bias = tf.Variable(np.zeros(CLASSES), dtype=dtype)
        self.again = self.weights[0]
        self.calls = tf.Variable(0.0, trainable=False, dtype=dtype)
        self.slope = tf.constant(0.5, dtype)

    @tf.function
    def __call__(self, x, training=True):
        if training:
            x = tf.random.normal(tf.shape(x), dtype=x.dtype)
        self.calls.assign_add(1.0)
        hidden = tf.tanh(x @ self.weights[0]) @ self.again * self.slope
        return hidden @ self.weights[1] + self.bias + 0.1 * self.calls


def _sequential(*stack, shape):
    return keras.Sequential([keras.Input(shape, dtype="float64"), *stack])


def dense(units, activation=None, **options):
    return layers.Dense(units, activation, dtype="float64", **options)


def _image(*stack):
    first = layers.Conv2D(3, 3, dtype="float64")
    return _sequential(first, *stack, layers.Flatten(dtype="float64"), dense(CLASSES), shape=(5, 5, 2))


def _attention():
    inputs = keras.Input((4, 6), dtype="float64")
    mixed = layers.MultiHeadAttention(2, 3, dtype="float64")(inputs, inputs)
    normal = layers.LayerNormalization(dtype="float64")(layers.Add(dtype="float64")([inputs, mixed]))
    hidden = dense(5, "gelu")(normal)
    return keras.Model(inputs, dense(CLASSES)(layers.Flatten(dtype="float64")(hidden)))


NETWORKS = {
    "tanh": lambda: _sequential(dense(5, "tanh"), dense(CLASSES), shape=(4,)),
    "layer norm": lambda: _sequential(
        dense(5), layers.LayerNormalization(dtype="float64"), layers.UnitNormalization(dtype="float64"), dense(CLASSES), shape=(4,)
    ),
    "group norm": lambda: _image(layers.GroupNormalization(3, dtype="float64"), layers.Activation("silu", dtype="float64")),
    "batch norm": lambda: _image(
        layers.BatchNormalization(dtype="float64"), layers.ReLU(dtype="float64"), layers.MaxPooling2D(2, dtype="float64")
    ),
    "attention": _attention,
    "lstm": lambda: _sequential(layers.LSTM(2, dtype="float64"), dense(CLASSES), shape=(3, 2)),
    "tied": Tied,
}


def make(name, examples=7, seed=0):
    """A network with its inputs and class labels, as NumPy arrays."""
    keras.utils.set_random_seed(seed)
    generator = np.random.default_rng(seed)
    model = NETWORKS[name]()
    if name == "tied":
        tokens = generator.integers(0, 5, (examples, 3))
        model(tokens)
        return model, tokens, generator.integers(0, 5, (examples, 3))
    for variable in model.variables:
        if variable.dtype == "float64":
            offset = 1.5 if variable.name in ("moving_variance", "gamma") else 0.0
            variable.assign(np.asarray(variable.numpy()) + offset + 0.3 * generator.uniform(-1, 1, variable.shape))
    inputs = generator.standard_normal((examples, *model.input_shape[1:]))
    return model, inputs, generator.integers(0, CLASSES, examples)


def cross_entropy(logits, targets):
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=logits))


def state_of(model):
    return [np.asarray(variable.numpy()).copy() for variable in model.variables]


def _variables(model):
    found = model.trainable_variables
    return [getattr(variable, "value", variable) if isinstance(variable, keras.Variable) else variable for variable in found]


def gradient(model, loss):
    """Flat gradient by one tape on the model's own variables, without a graph."""
    variables = _variables(model)
    with tf.GradientTape() as tape:
        total = loss(model)
    found = tape.gradient(total, variables, unconnected_gradients="zero")
    return np.concatenate([np.ravel(tf.convert_to_tensor(g).numpy()) for g in found])


def gradient_difference(model, loss, v, step=1e-6):
    """Central difference of the gradient along `v`."""
    variables = _variables(model)
    before, sides = [variable.numpy() for variable in variables], []
    ends = np.cumsum([value.size for value in before])[:-1]
    for sign in (1, -1):
        for variable, value, piece in zip(variables, before, np.split(v, ends), strict=True):
            variable.assign(value + sign * step * piece.reshape(value.shape))
        sides.append(gradient(model, loss))
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)
    return (sides[0] - sides[1]) / (2 * step)


def gauss_newton(model, outputs_of, targets):
    """``J^T H J`` from the Jacobian by single backward passes and the loss Hessian from its textbook form."""
    variables = _variables(model)
    with tf.GradientTape(persistent=True) as tape:
        outputs = outputs_of(model)
    jacobian = tape.jacobian(outputs, variables, experimental_use_pfor=False, unconnected_gradients="zero")
    rows = np.concatenate([j.numpy().reshape(int(tf.size(outputs)), -1) for j in jacobian], axis=1)
    p = tf.nn.softmax(outputs).numpy().reshape(-1, outputs.shape[-1])
    rows = rows.reshape(p.shape[0], p.shape[1], -1)
    return sum(j.T @ (np.diag(q) - np.outer(q, q)) @ j for j, q in zip(rows, p, strict=True)) / targets.size


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def torch_twin(name, model):
    """The networks 'tanh' and 'batch norm' in torch, with the same weights."""
    torch = pytest.importorskip("torch")
    weights = [np.asarray(w) for w in model.get_weights()]
    if name == "tanh":
        twin = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, CLASSES)).double()
        state = [weights[0].T, weights[1], weights[2].T, weights[3]]
    else:
        norm = torch.nn.BatchNorm2d(3, eps=model.layers[1].epsilon)
        pool = torch.nn.MaxPool2d(2)
        twin = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), norm, torch.nn.ReLU(), pool, torch.nn.Flatten(), torch.nn.Linear(3, CLASSES))
        twin = twin.double().eval()
        kernel, bias, gamma, beta, mean, variance, last, last_bias = weights
        norm.running_mean.copy_(torch.as_tensor(mean))
        norm.running_var.copy_(torch.as_tensor(variance))
        state = [kernel.transpose(3, 2, 0, 1), bias, gamma, beta, last.T, last_bias]
    with torch.no_grad():
        for parameter, value in zip(twin.parameters(), state, strict=True):
            parameter.copy_(torch.as_tensor(value.copy()))
    return twin
