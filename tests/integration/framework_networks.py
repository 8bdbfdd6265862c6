"""The same small networks in torch, JAX and Keras on TensorFlow, and what says which of their numbers is which.

Names and layouts of torch are the common ones. Each of the other frameworks gives, for arrays in the common layout, the arrays of its own
layout, by transposing, cutting and joining. Applied to numbered entries, the same function tells where every entry of a vector goes.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import torch
from flax import nnx
from jax import lax
from keras import layers
from torch import nn

import linop_spectra as ls

EXAMPLES, CLASSES, LENGTH, BATCH = 11, 3, 4, 4  # the last batch is uneven
Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Network:
    """A network in all frameworks.

    Attributes
    ----------
    inputs, targets, loss
        The data, with channels first and as NumPy arrays, and the name of the loss.
    torch : callable
        A ``torch.nn.Module`` in evaluation mode.
    jax, jax_arrays : callable
        ``apply(params, inputs)``, and its pytree for arrays in the common layout.
    keras, keras_arrays : callable
        A Keras model, and its arrays by name for arrays in the common layout.
    statistics : dict
        Running statistics of batch normalisation by torch's names.
    weight_decay : float
        Of the objective.
    uneven : bool
        Whether JAX and Keras get several batches too; JAX compiles anew for each size, and TensorFlow takes its time for each.
    """

    inputs: np.ndarray
    targets: np.ndarray
    loss: str
    torch: Callable[[], nn.Module]
    jax: Callable[[Any, Any], Any]
    jax_arrays: Callable[[Arrays], Any]
    keras: Callable[[], keras.Model]
    keras_arrays: Callable[[Arrays], Arrays]
    statistics: Arrays = dataclasses.field(default_factory=dict)
    weight_decay: float = 0.0
    uneven: bool = False

    def torch_model(self, dtype: str) -> nn.Module:
        """The torch module with the weights that all frameworks get."""
        model = self.torch().to(getattr(torch, dtype)).eval()
        generator = np.random.default_rng(5)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    gain = "norm" in name and name.endswith("weight")
                    parameter.copy_(torch.tensor(0.5 * generator.standard_normal(parameter.shape) + gain))
            for name, value in self.statistics.items():
                model.get_buffer(name).copy_(torch.tensor(value))
        return model

    def weights(self) -> Arrays:
        """Values of the weights in the common layout."""
        model = self.torch_model("float64")
        return {name: p.detach().numpy().copy() for name, p in model.named_parameters() if p.requires_grad}

    @property
    def batch_size(self) -> int | None:
        """That of JAX and Keras; torch always gets several batches."""
        return BATCH if self.uneven else None

    def channels_last(self) -> np.ndarray:
        """The inputs as JAX and Keras take them."""
        return np.moveaxis(self.inputs, 1, -1) if self.inputs.ndim == 4 else self.inputs


class Side:
    """A network's objective in one framework, with vectors in the common order of entries.

    Parameters
    ----------
    objective : Objective
        The objective.
    places : dict
        For each parameter of the framework, the common number of each of its entries.
    """

    def __init__(self, objective: ls.Objective, places: Arrays) -> None:
        self.objective, self.places = objective, places
        together = np.concatenate([place.ravel() for place in places.values()])
        assert np.array_equal(np.sort(together), np.arange(objective.num_parameters))
        assert set(objective.blocks) == set(places)

    def vector(self, common: np.ndarray) -> Any:
        """A vector in the common order as one of the framework's objective."""
        return self.objective.flatten({name: common[place].astype(self.objective.dtype) for name, place in self.places.items()})

    def common(self, vector: Any) -> np.ndarray:
        """The way back."""
        out = np.full(self.objective.num_parameters, np.nan)
        for name, piece in self.objective.unflatten(vector).items():
            out[self.places[name]] = np.asarray(piece)
        return out

    def product(self, operator: Any, common: np.ndarray) -> np.ndarray:
        """Product of an operator with the columns of a matrix, in the common order."""
        columns = np.stack([self.vector(column) for column in common.T], axis=1)
        return np.stack([self.common(column) for column in (operator @ columns).T], axis=1)


def numbered(weights: Arrays) -> Arrays:
    """The number of each entry, in arrays of the weights' shapes."""
    ends = np.cumsum([value.size for value in weights.values()])
    return {
        name: np.arange(end - value.size, end).reshape(value.shape) for end, (name, value) in zip(ends, weights.items(), strict=True)
    }


def in_torch(network: Network, dtype: str) -> Side:
    model, weights = network.torch_model(dtype), network.weights()
    inputs = torch.tensor(network.inputs if network.inputs.dtype.kind == "i" else network.inputs.astype(dtype))
    targets = torch.tensor(network.targets if network.targets.dtype.kind == "i" else network.targets.astype(dtype))
    made = ls.objective(model, network.loss, (inputs, targets), batch_size=BATCH, weight_decay=network.weight_decay)
    return Side(made, numbered(weights))


def _data(network: Network, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    arrays = network.channels_last(), network.targets
    return tuple(array if array.dtype.kind == "i" else array.astype(dtype) for array in arrays)


def in_jax(network: Network, dtype: str) -> Side:
    weights = network.weights()
    params = jax.tree.map(lambda value: jnp.asarray(value, dtype), network.jax_arrays(weights | network.statistics))
    numbers = network.jax_arrays(numbered(weights) | network.statistics)
    paths = jax.tree_util.tree_flatten_with_path(numbers)[0]
    places = {".".join(str(getattr(key, "key", getattr(key, "idx", key))) for key in path): place for path, place in paths}
    made = ls.objective(
        network.jax, network.loss, _data(network, dtype), params=params, batch_size=network.batch_size, weight_decay=network.weight_decay
    )
    return Side(made, {name: place for name, place in places.items() if not name.startswith("batch_stats")})


def in_keras(network: Network, dtype: str) -> Side:
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    try:
        model = network.keras()
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])
    weights = network.weights()
    values = network.keras_arrays(weights | network.statistics)
    for variable in model.variables:
        if "seed_generator" not in variable.path:
            variable.assign(values[variable.path.removeprefix(f"{model.name}/")])
    places = network.keras_arrays(numbered(weights) | network.statistics)
    made = ls.objective(model, network.loss, _data(network, dtype), batch_size=network.batch_size, weight_decay=network.weight_decay)
    return Side(made, {name: place for name, place in places.items() if "moving" not in name})


def in_flax(network: Network, dtype: str) -> Side:
    """The convolutional network as a flax nnx module."""
    weights = network.weights()
    model = FlaxConvolutional(dtype)
    tree, numbers = (network.jax_arrays(values | network.statistics) for values in (weights, numbered(weights)))
    for part in tree.values():
        for layer, arrays in part.items():
            for name, value in arrays.items():
                getattr(getattr(model, layer), name).set_value(jnp.asarray(value, dtype))
    places = {f"{layer}.{name}": place for layer, arrays in numbers["params"].items() for name, place in arrays.items()}
    return Side(ls.objective(model, network.loss, _data(network, dtype), batch_norm="eval"), places)


FRAMEWORKS = {"torch": in_torch, "jax": in_jax, "keras": in_keras, "flax": in_flax}

# -- perceptron --------------------------------------------------------------------------------------------------------

_GENERATOR = np.random.default_rng(0)


def _normal(*shape):
    return _GENERATOR.standard_normal(shape)


def _labels(*shape, classes=CLASSES):
    return _GENERATOR.integers(0, classes, shape)


def _perceptron_in_jax(p, x):
    for layer in p[:-1]:
        x = jnp.tanh(x @ layer["w"] + layer["b"])
    return x @ p[-1]["w"] + p[-1]["b"]


PERCEPTRON = Network(
    inputs=_normal(EXAMPLES, 4),
    targets=_GENERATOR.integers(0, 2, (EXAMPLES, CLASSES)).astype(float),
    loss="binary_cross_entropy",
    torch=lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, CLASSES)),
    jax=_perceptron_in_jax,
    jax_arrays=lambda w: [{"w": w[f"{i}.weight"].T, "b": w[f"{i}.bias"]} for i in (0, 2, 4)],
    keras=lambda: keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(5, "tanh", name="first"),
            layers.Dense(4, "tanh", name="second"),
            layers.Dense(CLASSES, name="third"),
        ]
    ),
    keras_arrays=lambda w: {
        f"{layer}/{name}": value
        for layer, i in (("first", 0), ("second", 2), ("third", 4))
        for name, value in (("kernel", w[f"{i}.weight"].T), ("bias", w[f"{i}.bias"]))
    },
    weight_decay=0.01,
)

# -- convolutions and batch normalisation by running statistics ---------------------------------------------------------

EPSILON, SIDE = 1e-3, 6


class TorchConvolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, eps=EPSILON)
        self.conv2, self.norm2 = nn.Conv2d(3, 2, 3, padding="same"), nn.BatchNorm2d(2, eps=EPSILON)
        self.head = nn.Linear(2 * 2 * 2, CLASSES)

    def forward(self, x):
        x = torch.max_pool2d(torch.relu(self.norm1(self.conv1(x))), 2)
        return self.head(nn.functional.silu(self.norm2(self.conv2(x))).flatten(1))


class FlaxConvolutional(nnx.Module):
    def __init__(self, dtype):
        options = {"rngs": nnx.Rngs(0), "param_dtype": dtype}
        self.conv1 = nnx.Conv(2, 3, (3, 3), padding="VALID", **options)
        self.conv2 = nnx.Conv(3, 2, (3, 3), padding="SAME", **options)
        self.norm1, self.norm2 = nnx.BatchNorm(3, epsilon=EPSILON, **options), nnx.BatchNorm(2, epsilon=EPSILON, **options)
        self.head = nnx.Linear(8, CLASSES, **options)

    def __call__(self, x):
        x = nnx.max_pool(nnx.relu(self.norm1(self.conv1(x))), (2, 2), strides=(2, 2))
        return self.head(nnx.silu(self.norm2(self.conv2(x))).reshape(len(x), -1))


def _convolutional_in_jax(variables, x):
    p, statistics = variables["params"], variables["batch_stats"]

    def block(x, number, padding):
        conv, norm, running = p[f"conv{number}"], p[f"norm{number}"], statistics[f"norm{number}"]
        x = lax.conv_general_dilated(x, conv["kernel"], (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")) + conv["bias"]
        return (x - running["mean"]) * lax.rsqrt(running["var"] + EPSILON) * norm["scale"] + norm["bias"]

    x = jnp.maximum(block(x, 1, "VALID"), 0)
    x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    x = block(x, 2, "SAME")
    return (x * jax.nn.sigmoid(x)).reshape(len(x), -1) @ p["head"]["kernel"] + p["head"]["bias"]


def _head_of_channels_last(weight):
    """Weights of a dense layer whose inputs were flattened with the channels first, for channels that come last."""
    return weight.reshape(-1, 2, 2, 2).transpose(2, 3, 1, 0).reshape(8, -1)


def _convolutional_jax_arrays(w):
    params = {"head": {"kernel": _head_of_channels_last(w["head.weight"]), "bias": w["head.bias"]}}
    for i in (1, 2):
        params[f"conv{i}"] = {"kernel": w[f"conv{i}.weight"].transpose(2, 3, 1, 0), "bias": w[f"conv{i}.bias"]}
        params[f"norm{i}"] = {"scale": w[f"norm{i}.weight"], "bias": w[f"norm{i}.bias"]}
    statistics = {f"norm{i}": {"mean": w[f"norm{i}.running_mean"], "var": w[f"norm{i}.running_var"]} for i in (1, 2)}
    return {"params": params, "batch_stats": statistics}


def _convolutional_keras_arrays(w):
    tree = _convolutional_jax_arrays(w)
    names = {"scale": "gamma", "mean": "moving_mean", "var": "moving_variance"}
    found = {}
    for part in tree.values():
        for layer, arrays in part.items():
            for name, value in arrays.items():
                found[f"{layer}/{'beta' if name == 'bias' and 'norm' in layer else names.get(name, name)}"] = value
    return found


CONVOLUTIONAL = Network(
    inputs=_normal(EXAMPLES, 2, SIDE, SIDE),
    targets=_labels(EXAMPLES),
    loss="cross_entropy",
    torch=TorchConvolutional,
    jax=_convolutional_in_jax,
    jax_arrays=_convolutional_jax_arrays,
    keras=lambda: keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 2)),
            layers.Conv2D(3, 3, name="conv1"),
            layers.BatchNormalization(epsilon=EPSILON, name="norm1"),
            layers.ReLU(),
            layers.MaxPooling2D(2),
            layers.Conv2D(2, 3, padding="same", name="conv2"),
            layers.BatchNormalization(epsilon=EPSILON, name="norm2"),
            layers.Activation("silu"),
            layers.Flatten(),
            layers.Dense(CLASSES, name="head"),
        ]
    ),
    keras_arrays=_convolutional_keras_arrays,
    statistics={
        "norm1.running_mean": _normal(3),
        "norm1.running_var": np.array([0.5, 1.0, 2.0]),
        "norm2.running_mean": _normal(2),
        "norm2.running_var": np.array([1.5, 0.8]),
    },
)

# -- recurrent networks ------------------------------------------------------------------------------------------------

FEATURES, STATES = 2, 3


class TorchLSTM(nn.Module):
    """One class for each step; only one of torch's two biases counts, because the others have one."""

    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.LSTM(FEATURES, STATES, batch_first=True), nn.Linear(STATES, CLASSES)
        self.cell.bias_hh_l0.requires_grad_(False).zero_()

    def forward(self, x):
        return self.head(self.cell(x)[0]).movedim(-1, 1)


class TorchGRU(nn.Module):
    """The last state only."""

    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.GRU(FEATURES, STATES, batch_first=True), nn.Linear(STATES, 2)

    def forward(self, x):
        return self.head(self.cell(x)[0][:, -1])


def _lstm_in_jax(p, x):
    def step(carry, row):
        hidden, memory = carry
        gates = row @ p["kernel"] + hidden @ p["recurrent"] + p["bias"]
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        memory = jax.nn.sigmoid(f) * memory + jax.nn.sigmoid(i) * jnp.tanh(g)
        hidden = jax.nn.sigmoid(o) * jnp.tanh(memory)
        return (hidden, memory), hidden

    zeros = jnp.zeros((len(x), STATES), x.dtype)
    _, states = lax.scan(step, (zeros, zeros), jnp.swapaxes(x, 0, 1))
    return jnp.swapaxes(states, 0, 1) @ p["head"]["kernel"] + p["head"]["bias"]


def _gru_in_jax(p, x):
    def step(hidden, row):
        from_input, from_state = row @ p["kernel"] + p["bias"][0], hidden @ p["recurrent"] + p["bias"][1]
        z, r, _ = jnp.split(jax.nn.sigmoid(from_input + from_state), 3, axis=-1)
        proposed = jnp.tanh(from_input[:, 2 * STATES :] + r * from_state[:, 2 * STATES :])
        return z * hidden + (1 - z) * proposed, None

    last, _ = lax.scan(step, jnp.zeros((len(x), STATES), x.dtype), jnp.swapaxes(x, 0, 1))
    return last @ p["head"]["kernel"] + p["head"]["bias"]


def _update_first(stacked):
    """Gates (reset, update, proposal) of torch in the order (update, reset, proposal)."""
    reset, update, proposal = np.split(stacked, 3)
    return np.concatenate([update, reset, proposal])


def _recurrent_arrays(w, order, bias):
    return {
        "kernel": order(w["cell.weight_ih_l0"]).T,
        "recurrent": order(w["cell.weight_hh_l0"]).T,
        "bias": bias,
        "head": {"kernel": w["head.weight"].T, "bias": w["head.bias"]},
    }


def _lstm_arrays(w):
    return _recurrent_arrays(w, lambda x: x, w["cell.bias_ih_l0"])


def _gru_arrays(w):
    return _recurrent_arrays(w, _update_first, np.stack([_update_first(w[f"cell.bias_{of}_l0"]) for of in ("ih", "hh")]))


def _recurrent_keras_arrays(kind, tree):
    cell = {"kernel": tree["kernel"], "recurrent_kernel": tree["recurrent"], "bias": tree["bias"]}
    found = {f"{kind}/{kind}_cell/{name}": value for name, value in cell.items()}
    return found | {f"head/{name}": value for name, value in tree["head"].items()}


_SEQUENCES = _normal(EXAMPLES, LENGTH, FEATURES)

LSTM = Network(
    inputs=_SEQUENCES,
    targets=_labels(EXAMPLES, LENGTH),
    loss="cross_entropy",
    torch=TorchLSTM,
    jax=_lstm_in_jax,
    jax_arrays=_lstm_arrays,
    keras=lambda: keras.Sequential(
        [keras.Input((LENGTH, FEATURES)), layers.LSTM(STATES, return_sequences=True, name="lstm"), layers.Dense(CLASSES, name="head")]
    ),
    keras_arrays=lambda w: _recurrent_keras_arrays("lstm", _lstm_arrays(w)),
)

GRU = Network(
    inputs=_SEQUENCES,
    targets=_normal(EXAMPLES, 2),
    loss="mse",
    torch=TorchGRU,
    jax=_gru_in_jax,
    jax_arrays=_gru_arrays,
    keras=lambda: keras.Sequential(
        [keras.Input((LENGTH, FEATURES)), layers.GRU(STATES, unroll=True, name="gru"), layers.Dense(2, name="head")]
    ),
    keras_arrays=lambda w: _recurrent_keras_arrays("gru", _gru_arrays(w)),
)

# -- transformer blocks ------------------------------------------------------------------------------------------------

# The square root of the length of a head is exact in single precision, in which Keras on TensorFlow holds its inverse.
WIDTH, HEADS, HIDDEN = 8, 2, 5


class TorchEncoder(nn.Module):
    """torch's own block, normalised after each part, with GELU; one class for each position."""

    def __init__(self):
        super().__init__()
        self.block = nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, dropout=0.1, activation="gelu", batch_first=True)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x):
        return self.head(self.block(x)).movedim(-1, 1)


class TorchDecoder(nn.Module):
    """Causal attention without biases by the fused function, normalised before each part, with SiLU; the mean over positions."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mix, self.out = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.linear1, self.linear2 = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x):
        q, k, v = (
            part.unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(1, 2) for part in self.mix(self.norm1(x)).chunk(3, dim=-1)
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        x = x + self.linear2(nn.functional.silu(self.linear1(self.norm2(x))))
        return self.head(x.mean(1))


def _layer_norm(p, x):
    x = x - x.mean(-1, keepdims=True)
    return x * lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5) * p["gamma"] + p["beta"]


def _attention(p, x, causal=False):
    def projected(name):
        part = p[name]
        return jnp.einsum("nld,dhk->nlhk", x, part["kernel"]) + part.get("bias", 0)

    q, k, v = (projected(name) for name in ("query", "key", "value"))
    scores = jnp.einsum("nqhk,nshk->nhqs", q, k) / (WIDTH // HEADS) ** 0.5
    if causal:
        scores = jnp.where(jnp.tril(jnp.ones(scores.shape[-2:], bool)), scores, -jnp.inf)
    mixed = jnp.einsum("nhqs,nshk->nqhk", jax.nn.softmax(scores), v)
    return jnp.einsum("nqhk,hkd->nqd", mixed, p["attention_output"]["kernel"]) + p["attention_output"].get("bias", 0)


def _dense(p, x):
    return x @ p["kernel"] + p["bias"]


def _encoder_in_jax(p, x):
    x = _layer_norm(p["norm1"], x + _attention(p["attention"], x))
    x = _layer_norm(p["norm2"], x + _dense(p["linear2"], jax.nn.gelu(_dense(p["linear1"], x), approximate=False)))
    return _dense(p["head"], x)


def _decoder_in_jax(p, x):
    x = x + _attention(p["attention"], _layer_norm(p["norm1"], x), causal=True)
    x = x + _dense(p["linear2"], jax.nn.silu(_dense(p["linear1"], _layer_norm(p["norm2"], x))))
    return _dense(p["head"], x.mean(1))


def _gelu(x):
    """GELU in the precision of its argument; the one of TensorFlow divides by the square root of two in single precision."""
    return 0.5 * x * (1 + keras.ops.erf(x * 0.5**0.5))


def _encoder_in_keras():
    inputs = keras.Input((LENGTH, WIDTH))
    mixed = layers.MultiHeadAttention(HEADS, WIDTH // HEADS, dropout=0.1, name="attention")(inputs, inputs)
    x = layers.LayerNormalization(epsilon=1e-5, name="norm1")(layers.Add()([inputs, mixed]))
    hidden = layers.Dropout(0.1)(layers.Dense(HIDDEN, _gelu, name="linear1")(x))
    x = layers.LayerNormalization(epsilon=1e-5, name="norm2")(layers.Add()([x, layers.Dense(WIDTH, name="linear2")(hidden)]))
    return keras.Model(inputs, layers.Dense(CLASSES, name="head")(x))


def _decoder_in_keras():
    inputs = keras.Input((LENGTH, WIDTH))
    normal = layers.LayerNormalization(epsilon=1e-5, name="norm1")(inputs)
    attention = layers.MultiHeadAttention(HEADS, WIDTH // HEADS, use_bias=False, name="attention")
    x = layers.Add()([inputs, attention(normal, normal, use_causal_mask=True)])
    hidden = layers.Dense(HIDDEN, "silu", name="linear1")(layers.LayerNormalization(epsilon=1e-5, name="norm2")(x))
    x = layers.Add()([x, layers.Dense(WIDTH, name="linear2")(hidden)])
    return keras.Model(inputs, layers.Dense(CLASSES, name="head")(layers.GlobalAveragePooling1D()(x)))


def _block_arrays(w, mix, out, inside=""):
    """Attention in parts with an axis of heads, everything else by the names of the layers."""
    attention = {}
    for i, name in enumerate(("query", "key", "value")):
        rows = slice(i * WIDTH, (i + 1) * WIDTH)
        attention[name] = {"kernel": w[mix.format("weight")][rows].T.reshape(WIDTH, HEADS, -1)}
        if mix.format("bias") in w:
            attention[name]["bias"] = w[mix.format("bias")][rows].reshape(HEADS, -1)
    attention["attention_output"] = {"kernel": w[f"{out}.weight"].T.reshape(HEADS, -1, WIDTH)}
    if f"{out}.bias" in w:
        attention["attention_output"]["bias"] = w[f"{out}.bias"]
    found = {"attention": attention, "head": {"kernel": w["head.weight"].T, "bias": w["head.bias"]}}
    for i in (1, 2):
        found[f"norm{i}"] = {"gamma": w[f"{inside}norm{i}.weight"], "beta": w[f"{inside}norm{i}.bias"]}
        found[f"linear{i}"] = {"kernel": w[f"{inside}linear{i}.weight"].T, "bias": w[f"{inside}linear{i}.bias"]}
    return found


def _encoder_arrays(w):
    return _block_arrays(w, "block.self_attn.in_proj_{}", "block.self_attn.out_proj", "block.")


def _decoder_arrays(w):
    return _block_arrays(w, "mix.{}", "out")


def _paths(tree, prefix=""):
    """A tree of dicts as one, with the keys joined as Keras joins them."""
    found = {}
    for name, value in tree.items():
        found.update(_paths(value, f"{prefix}{name}/") if isinstance(value, dict) else {prefix + name: value})
    return found


ENCODER = Network(
    inputs=_normal(EXAMPLES, LENGTH, WIDTH),
    targets=_labels(EXAMPLES, LENGTH),
    loss="cross_entropy",
    torch=TorchEncoder,
    jax=_encoder_in_jax,
    jax_arrays=_encoder_arrays,
    keras=_encoder_in_keras,
    keras_arrays=lambda w: _paths(_encoder_arrays(w)),
)

DECODER = Network(
    inputs=_normal(EXAMPLES, LENGTH, WIDTH),
    targets=_labels(EXAMPLES),
    loss="cross_entropy",
    torch=TorchDecoder,
    jax=_decoder_in_jax,
    jax_arrays=_decoder_arrays,
    keras=_decoder_in_keras,
    keras_arrays=lambda w: _paths(_decoder_arrays(w)),
)

# -- embedding with a tied output --------------------------------------------------------------------------------------

WORDS, DIMENSIONS = 6, 4


class TorchTied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.middle = nn.Embedding(WORDS, DIMENSIONS), nn.Linear(DIMENSIONS, DIMENSIONS)
        self.head = nn.Linear(DIMENSIONS, WORDS, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.head(torch.tanh(self.middle(self.embedding(tokens)))).movedim(-1, 1)


class KerasTied(keras.Model):
    def __init__(self):
        super().__init__(name="tied")
        self.embedding = layers.Embedding(WORDS, DIMENSIONS, name="embedding")
        self.middle = layers.Dense(DIMENSIONS, "tanh", name="middle")
        self(np.zeros((1, LENGTH), dtype=int))

    def call(self, tokens):
        return keras.ops.matmul(self.middle(self.embedding(tokens)), keras.ops.transpose(self.embedding.embeddings))


def _masked(targets):
    """Some positions count for nothing, and so does a whole example."""
    targets[[0, 3, 9], [1, 2, 0]] = -100
    targets[6] = -100
    return targets


TIED = Network(
    inputs=_labels(EXAMPLES, LENGTH, classes=WORDS),
    targets=_masked(_labels(EXAMPLES, LENGTH, classes=WORDS)),
    loss="cross_entropy",
    torch=TorchTied,
    jax=lambda p, tokens: jnp.tanh(_dense(p["middle"], p["embedding"][tokens])) @ p["embedding"].T,
    jax_arrays=lambda w: {"embedding": w["embedding.weight"], "middle": {"kernel": w["middle.weight"].T, "bias": w["middle.bias"]}},
    keras=KerasTied,
    keras_arrays=lambda w: {
        "embedding/embeddings": w["embedding.weight"],
        "middle/kernel": w["middle.weight"].T,
        "middle/bias": w["middle.bias"],
    },
    uneven=True,
)

NETWORKS = {
    "perceptron": PERCEPTRON, "convolutional": CONVOLUTIONAL, "lstm": LSTM, "gru": GRU, "encoder": ENCODER, "decoder": DECODER,
    "tied": TIED,
}  # fmt: skip
