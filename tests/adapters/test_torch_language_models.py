"""Pretrained models' architectures, built small and without a download, and the losses made for them."""

import collections
import copy
import dataclasses
import types
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from torch_networks import dense_gauss_newton, relative  # noqa: E402

import linop_spectra as ls  # noqa: E402
from linop_spectra.adapters.torch import token_cross_entropy  # noqa: E402
from linop_spectra.curvature import LanguageModelLoss, LogitsLoss  # noqa: E402

nn = torch.nn
functional = nn.functional
WORDS, LENGTH, CLASSES = 11, 5, 3
SMALL = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 6}
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2}


def gpt2(**options):
    config = transformers.GPT2Config(vocab_size=WORDS, n_positions=8, n_embd=4, n_layer=1, n_head=2, **SPECIAL, **options)
    return transformers.GPT2LMHeadModel(config)


def llama(**options):
    config = transformers.LlamaConfig(
        vocab_size=WORDS, num_key_value_heads=1, max_position_embeddings=8, **SMALL, **SPECIAL, **options
    )
    return transformers.LlamaForCausalLM(config)


def bert(kind=transformers.BertForSequenceClassification, **options):
    return kind(transformers.BertConfig(vocab_size=WORDS, max_position_embeddings=8, **SMALL, **{"num_labels": CLASSES, **options}))


def vit(**options):
    config = transformers.ViTConfig(image_size=4, patch_size=2, num_channels=1, num_labels=CLASSES, **SMALL, **options)
    return transformers.ViTForImageClassification(config)


def build(make, **options):
    """In double precision and evaluation mode, with weights of a size at which curvature is no rounding error."""
    torch.manual_seed(0)
    model = make(**options).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def sequences(count=3, seed=1, lengths=(5, 3, 4)):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, WORDS, (count, LENGTH), generator=generator)
    mask = (torch.arange(LENGTH) < torch.tensor(lengths[:count]).unsqueeze(1)).long()
    ids[mask == 0] = 0  # the padding token of BERT
    return ids, mask


def tokens(**entries):
    ids, mask = sequences()
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.where(mask == 1, ids, -100), **entries}


def texts():
    ids, mask = sequences()
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([0, 2, 1])}


def images():
    generator = torch.Generator().manual_seed(2)
    return {
        "pixel_values": torch.randn(3, 1, 4, 4, dtype=torch.float64, generator=generator),
        "labels": torch.tensor([0, 2, 1]),
    }


class Logits(nn.Module):
    """A model as a function of a batch, without labels and caches."""

    def __init__(self, model, **options):
        super().__init__()
        self.model, self.options = model, options

    def forward(self, batch):
        return self.model(**{name: value for name, value in batch.items() if name not in ("labels", "weights")}, **self.options).logits


def double_backward(model, loss, v):
    """Hessian products with the columns of `v`, on the model's own parameters."""
    parameters = list(model.parameters())
    with sdpa_kernel(SDPBackend.MATH):
        gradient = nn.utils.parameters_to_vector(torch.autograd.grad(loss(model), parameters, create_graph=True))
        columns = [torch.autograd.grad(gradient, parameters, torch.as_tensor(column), retain_graph=True) for column in v.T]
    return np.stack([nn.utils.parameters_to_vector(column).numpy() for column in columns], axis=1)


def shifted(logits, labels, weights=None):
    """The mean over the predicted tokens, as textbooks write it."""
    losses = functional.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], ignore_index=-100, reduction="none")
    weights = (labels[:, 1:] != -100).to(losses.dtype) * (1.0 if weights is None else weights)
    return (losses * weights).sum() / weights.sum()


def own(logits, labels):
    return functional.cross_entropy(logits, labels)


MODELS = {
    "gpt2": (gpt2, tokens, LanguageModelLoss(), shifted, {"use_cache": False}),
    "llama": (llama, tokens, LanguageModelLoss(), shifted, {"use_cache": False}),
    "bert": (bert, texts, LogitsLoss(), own, {}),
    "vit": (vit, images, LogitsLoss("cross_entropy"), own, {}),
}


@pytest.mark.parametrize("name", MODELS)
def test_products_equal_dense_autodiff_and_differences(name):
    make, batch, loss, reference, options = MODELS[name]
    batch, model = batch(), build(make, attn_implementation="sdpa")
    function, labels = Logits(model, **options), batch["labels"]
    accuracy = 3e-6 if name == "llama" else 1e-11  # the reference rounds to single precision in normalisation
    before = {key: value.clone() for key, value in model.state_dict().items()}, model.config.to_dict()
    objective = ls.objective(model, loss, [batch])
    assert objective.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert objective.value() == pytest.approx(reference(function(batch), labels).item(), rel=accuracy)
    # The model's own takes logits in single precision, and writes to its configuration.
    assert objective.value() == pytest.approx(copy.deepcopy(model)(**batch).loss.item(), rel=1e-6)
    gauss_newton = dense_gauss_newton(function, batch, lambda z: reference(z, labels))
    v = np.random.default_rng(3).standard_normal((objective.num_parameters, 2))
    curved = double_backward(function, lambda m: reference(m(batch), labels), v)
    for recomputed in (objective, ls.objective(model, loss, [batch], memory_budget=1)):
        assert relative(recomputed.hessian() @ v, curved) < accuracy
        assert relative(recomputed.ggn() @ v[:, 0], gauss_newton @ v[:, 0]) < accuracy
        assert relative(recomputed.ggn() @ v, gauss_newton @ v) < accuracy
    for operator in (objective.hessian(), objective.ggn(), objective.fisher("exact")):
        check = ls.check_operator(operator)
        assert check.passed, str(check)
    assert ls.check_operator(objective.hessian()).finite_difference_error < 1e-6
    assert before[1] == model.config.to_dict()
    assert all(torch.equal(before[0][key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", MODELS)
def test_other_implementation_of_attention(name):
    make, batch, loss, _, _ = MODELS[name]
    batch = batch()
    fused, eager = (ls.objective(build(make, attn_implementation=how), loss, [batch]) for how in ("sdpa", "eager"))
    v = np.random.default_rng(3).standard_normal(fused.num_parameters)
    for matrix in ("hessian", "ggn"):
        operator = getattr(eager, matrix)()
        # In eager attention some round to single precision; here everything stays in double.
        assert relative(operator @ v, getattr(fused, matrix)() @ v) < 1e-11
        assert ls.check_operator(operator).passed


def test_tied_embeddings_count_once():
    model = build(gpt2)
    assert model.lm_head.weight is model.transformer.wte.weight
    objective = ls.objective(model, LanguageModelLoss(), [tokens()])
    assert "transformer.wte.weight" in objective.blocks
    assert "lm_head.weight" not in objective.blocks
    untied = build(gpt2, tie_word_embeddings=False)
    assert ls.objective(untied, LanguageModelLoss(), [tokens()]).num_parameters == objective.num_parameters + WORDS * 4


def test_uneven_batches_masks_and_weights_are_one_mean():
    model, batch = build(gpt2), tokens()
    generator = torch.Generator().manual_seed(5)
    weights = torch.rand(3, LENGTH, dtype=torch.float64, generator=generator)
    whole = {**batch, "weights": weights}
    # The second batch is cut to the longest of its own sequences.
    parts = [{name: value[:1] for name, value in whole.items()}, {name: value[1:, :4] for name, value in whole.items()}]
    loss = LanguageModelLoss(weights="weights")
    together, apart = ls.objective(model, loss, [whole]), ls.objective(model, loss, parts)
    logits = Logits(model, use_cache=False)(batch)
    assert together.value() == pytest.approx(shifted(logits, batch["labels"], weights[:, 1:]).item(), rel=1e-13)
    assert apart.value() == pytest.approx(together.value(), rel=1e-13)
    v = np.random.default_rng(0).standard_normal(together.num_parameters)
    for name in ("hessian", "ggn"):
        assert relative(getattr(apart, name)() @ v, getattr(together, name)() @ v) < 1e-12
    per_sequence = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)
    objective = ls.objective(model, loss, [{**batch, "weights": per_sequence}])
    assert objective.value() == pytest.approx(shifted(logits, batch["labels"], per_sequence[:, None]).item(), rel=1e-13)


def test_without_labels_the_inputs_are_predicted_where_the_mask_is():
    model, batch = build(gpt2), tokens()
    labelled = ls.objective(model, LanguageModelLoss(), [batch])
    plain = ls.objective(model, LanguageModelLoss(), [{name: batch[name] for name in ("input_ids", "attention_mask")}])
    assert plain.value() == labelled.value()
    unmasked = ls.objective(model, LanguageModelLoss(), [{"input_ids": batch["input_ids"]}])
    assert unmasked.functions.loss_sum(unmasked.point, next(unmasked.batches()))[1] == 3 * (LENGTH - 1)


@dataclasses.dataclass
class Texts:
    input_ids: object
    attention_mask: object
    labels: object


@pytest.mark.parametrize("kind", ["encoding", "user dict", "dataclass", "named tuple", "namespace"])
def test_batches_of_other_kinds(kind):
    model, batch = build(gpt2), tokens()
    make = {
        "encoding": transformers.BatchEncoding,
        "user dict": collections.UserDict,
        "dataclass": lambda entries: Texts(**entries),
        "named tuple": lambda entries: collections.namedtuple("Texts", entries)(**entries),
        "namespace": lambda entries: types.SimpleNamespace(**entries),
    }[kind]
    expected = ls.objective(model, LanguageModelLoss(), [batch])
    objective = ls.objective(model, LanguageModelLoss(), [make(batch)])
    v = np.ones(objective.num_parameters)
    assert objective.num_examples == 3
    np.testing.assert_array_equal(objective.hessian() @ v, expected.hessian() @ v)
    np.testing.assert_array_equal(objective.ggn() @ v, expected.ggn() @ v)
    assert ls.check_operator(objective.hessian()).passed


def test_entries_that_are_no_arrays_stay_out():
    model, batch = build(gpt2), tokens()
    more = {**batch, "text": ["a", "b", "c"], "source": "here"}
    objective, expected = (ls.objective(model, LanguageModelLoss(), [entries]) for entries in (more, batch))
    assert objective.value() == expected.value()
    assert ls.check_operator(objective.hessian()).passed


def test_closed_forms_in_a_vision_model(monkeypatch):
    """Layers are replaced where they are large; its patches are a convolution, which always is."""
    from linop_spectra.adapters.torch import second_derivatives

    model, batch = build(vit), images()
    for matrix in ("hessian", "ggn"):
        operator = getattr(ls.objective(model, LogitsLoss(), [batch]), matrix)()
        v = np.random.default_rng(0).standard_normal(operator.shape[0])
        expected = operator @ v
        assert "derivatives of convolution" in operator.engine
        with monkeypatch.context() as patch:
            patch.setattr(second_derivatives, "SMALLEST", 0)
            replaced = getattr(ls.objective(model, LogitsLoss(), [batch]), matrix)()
            assert relative(replaced @ v, expected) < 1e-11
        assert "layer normalisation" in replaced.engine


def test_the_loss_that_a_model_computes_itself():
    model, batch = build(llama), tokens()

    def loss(module, batch):
        terms = (batch["labels"][:, 1:] != -100).sum()
        return module(**batch).loss * terms, terms

    objective, reference = (ls.objective(model, form, [batch]) for form in (ls.BatchLoss(loss), LanguageModelLoss()))
    v = np.random.default_rng(0).standard_normal(objective.num_parameters)
    assert objective.value() == pytest.approx(reference.value(), rel=1e-13)  # double precision throughout, also in its loss
    assert relative(objective.hessian() @ v, reference.hessian() @ v) < 1e-12


def test_masked_language_models_have_labels_at_their_own_positions():
    model, batch = build(bert, kind=transformers.BertForMaskedLM), tokens()
    batch["labels"][:, ::2] = -100
    objective = ls.objective(model, LanguageModelLoss(causal=False), [batch])
    assert objective.value() == pytest.approx(model(**batch).loss.item(), rel=1e-12)
    v = np.random.default_rng(0).standard_normal((objective.num_parameters, 2))
    expected = double_backward(Logits(model), lambda m: functional.cross_entropy(m(batch).transpose(1, 2), batch["labels"]), v)
    assert relative(objective.hessian() @ v, expected) < 1e-11
    for operator in (objective.hessian(), objective.ggn()):
        assert ls.check_operator(operator).passed


def test_classes_of_tokens():
    model = build(bert, kind=transformers.BertForTokenClassification)
    batch = {**texts(), "labels": torch.randint(0, CLASSES, (3, LENGTH), generator=torch.Generator().manual_seed(0))}
    objective = ls.objective(model, LanguageModelLoss(causal=False), [batch])
    assert objective.value() == pytest.approx(model(**batch).loss.item(), rel=1e-12)
    assert ls.check_operator(objective.ggn()).passed


def test_encoder_and_decoder():
    config = transformers.T5Config(
        vocab_size=WORDS, d_model=4, d_kv=2, d_ff=6, num_layers=1, num_heads=2, decoder_start_token_id=0, dropout_rate=0.0
    )
    model, batch = build(lambda: transformers.T5ForConditionalGeneration(config)), tokens()
    objective = ls.objective(model, LanguageModelLoss(causal=False), [batch])
    assert objective.value() == pytest.approx(model(**batch).loss.item(), rel=1e-6)
    for operator in (objective.hessian(), objective.ggn()):
        check = ls.check_operator(operator)
        assert check.passed, str(check)


@pytest.mark.parametrize("criterion", ["mse", "binary_cross_entropy"])
def test_regression_and_several_labels(criterion):
    if criterion == "mse":
        model, labels = build(bert, num_labels=1, problem_type="regression"), torch.tensor([0.5, -1.0, 2.0]).double()
    else:
        model = build(bert, problem_type="multi_label_classification")
        labels = torch.tensor([[1, 0, 1], [0, 0, 1], [1, 1, 0]]).double()
    batch = {**texts(), "labels": labels}
    objective = ls.objective(model, LogitsLoss(criterion), [batch])
    assert objective.value() == pytest.approx(model(**batch).loss.item(), rel=1e-12)
    assert ls.check_operator(objective.hessian()).passed
    assert ls.check_operator(objective.ggn()).passed
    by_module = LogitsLoss(nn.MSELoss() if criterion == "mse" else nn.BCEWithLogitsLoss())
    assert ls.objective(model, by_module, [batch]).value() == objective.value()


class LowRank(nn.Module):
    """A frozen linear map plus a product of two thin matrices."""

    def __init__(self, base, rank=2):
        super().__init__()
        self.base = base.requires_grad_(False)
        rows, columns = base.weight.shape
        self.lora_a = nn.Parameter(torch.randn(rank, columns, dtype=base.weight.dtype) / 2)
        self.lora_b = nn.Parameter(torch.randn(rows, rank, dtype=base.weight.dtype) / 2)

    def forward(self, x):
        return self.base(x) + x @ self.lora_a.T @ self.lora_b.T


@pytest.mark.parametrize("frozen", [True, False])
def test_low_rank_adapters_alone(frozen):
    model = build(llama)
    attention = model.model.layers[0].self_attn
    torch.manual_seed(4)
    attention.q_proj, attention.v_proj = LowRank(attention.q_proj), LowRank(attention.v_proj)
    if frozen:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("lora_" in name)
        objective = ls.objective(model, LanguageModelLoss(), [tokens()])
    else:
        objective = ls.objective(model, LanguageModelLoss(), [tokens()], parameters="*.lora_*")
        everything = ls.objective(model, LanguageModelLoss(), [tokens()])
        rows = np.concatenate([np.arange(everything.num_parameters)[everything.blocks[name]] for name in objective.blocks])
        v = np.random.default_rng(0).standard_normal(rows.size)
        padded = np.zeros(everything.num_parameters)
        padded[rows] = v
        assert relative(objective.hessian() @ v, (everything.hessian() @ padded)[rows]) < 1e-11
    assert sorted(objective.blocks) == sorted(name for name, _ in model.named_parameters() if "lora_" in name)
    for operator in (objective.hessian(), objective.ggn()):
        assert ls.check_operator(operator).passed


def test_checkpointing_of_the_model_is_switched_off_on_the_copy():
    quiet = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    model, batch = build(gpt2, **quiet), tokens()
    expected = ls.objective(model, LanguageModelLoss(), [batch])
    switch_on = getattr(model.train(), "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    switch_on()
    marks = [getattr(module, "gradient_checkpointing", False) for module in model.modules()]
    assert any(marks)
    objective = ls.objective(model, LanguageModelLoss(), [batch])
    v = np.ones(objective.num_parameters)
    np.testing.assert_array_equal(objective.hessian() @ v, expected.hessian() @ v)
    assert [getattr(module, "gradient_checkpointing", False) for module in model.modules()] == marks


def test_dropout_of_a_pretrained_model_is_refused():
    with pytest.raises(ValueError, match=r"stochastic.*model.eval\(\)"):
        ls.objective(build(gpt2).train(), LanguageModelLoss(), [tokens()])


@pytest.mark.parametrize("make", [gpt2, llama])
def test_half_precision(make):
    model, batch = build(make).float(), tokens()
    reference, rounded = (ls.objective(m, LanguageModelLoss(), [batch]) for m in (model, copy.deepcopy(model).bfloat16()))
    assert rounded.dtype == np.float32
    assert rounded.value() == pytest.approx(reference.value(), rel=0.02)
    v = np.random.default_rng(0).standard_normal(reference.num_parameters).astype(np.float32)
    for name in ("hessian", "ggn"):
        assert relative(getattr(rounded, name)() @ v, getattr(reference, name)() @ v) < 0.1


# -- the loss itself ---------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[1, 7 * 3, 1 << 22], ids=["one position", "three positions", "all positions"])
def at_once(request, monkeypatch):
    monkeypatch.setattr(token_cross_entropy, "_ELEMENTS", request.param)


def random_positions(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 5, 7, dtype=torch.float64, generator=generator)
    targets = torch.randint(0, 7, (2, 5), generator=generator)
    weights = torch.rand(2, 5, dtype=torch.float64, generator=generator)
    targets[0, 3], weights[0, 3] = -100, 0
    return logits.to(dtype), targets, weights.to(torch.promote_types(dtype, torch.float32))


@pytest.mark.usefixtures("at_once")
def test_cross_entropy_in_parts_and_its_derivatives():
    logits, targets, weights = random_positions()
    logits.requires_grad_()

    def reference(z):
        chosen = z.gather(2, targets.clamp(min=0).unsqueeze(2)).squeeze(2)
        return (weights * (z.logsumexp(2) - chosen)).sum()

    def ours(z):
        return token_cross_entropy.summed_cross_entropy(z, targets, weights)

    assert ours(logits).item() == pytest.approx(reference(logits).item(), rel=1e-14)
    assert torch.autograd.gradcheck(ours, logits) and torch.autograd.gradgradcheck(ours, logits)
    u = torch.randn(2, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(torch.func.grad(ours)(logits), torch.func.grad(reference)(logits))
    curved = torch.autograd.functional.hvp(reference, logits, u)[1]
    torch.testing.assert_close(torch.autograd.functional.hvp(ours, logits, u)[1], curved)
    torch.testing.assert_close(token_cross_entropy.curvature_product(logits.detach(), weights)(u), curved)
    # A third derivative, of the curvature along `u`.
    thirds = []
    for function in (ours, reference):
        (slope,) = torch.autograd.grad(function(logits) * logits[0, 0, 0], logits, create_graph=True)
        (second,) = torch.autograd.grad((slope * u).sum(), logits, create_graph=True)
        thirds.append(torch.autograd.grad((second * u.flip(0)).sum(), logits)[0])
    torch.testing.assert_close(*thirds)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cross_entropy_in_narrow_types(dtype):
    logits, targets, weights = random_positions(dtype)
    exact = logits.double().requires_grad_()
    u = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(1)).to(dtype)
    rounding = 4 * torch.finfo(dtype).eps
    value = token_cross_entropy.summed_cross_entropy(logits.requires_grad_(), targets, weights)
    assert value.dtype == torch.float32
    wide = token_cross_entropy.summed_cross_entropy(exact, targets, weights.double())
    assert value.item() == pytest.approx(wide.item(), rel=1e-6)
    (slope,), (expected,) = torch.autograd.grad(value, logits), torch.autograd.grad(wide, exact)
    assert slope.dtype == dtype
    torch.testing.assert_close(slope.double(), expected, rtol=rounding, atol=rounding)
    curved = token_cross_entropy.curvature_product(logits.detach(), weights)(u)
    expected = token_cross_entropy.curvature_product(exact.detach(), weights.double())(u.double())
    assert curved.dtype == dtype
    torch.testing.assert_close(curved.double(), expected, rtol=rounding, atol=rounding)


@pytest.mark.usefixtures("at_once")
def test_fisher_matrices_of_tokens():
    model, batch = Bigrams().double(), tokens()
    objective = ls.objective(model, LanguageModelLoss(), [batch])
    exact, gauss_newton = objective.fisher("exact").to_dense(), objective.ggn().to_dense()
    np.testing.assert_allclose(exact, gauss_newton, atol=1e-15)
    # The same draws as of a loss whose classes are along dimension 1, with the last position left out.
    labels = torch.cat([batch["labels"][:, 1:], torch.full((3, 1), -100)], dim=1)
    plain = ls.objective(nn.Sequential(model, Transposed()), "cross_entropy", [(batch["input_ids"], labels)])
    for kind, options in (("mc", {"num_samples": 3, "seed": 7}), ("empirical", {})):
        found, expected = (o.fisher(kind, **options).to_dense() for o in (objective, plain))
        np.testing.assert_allclose(found, expected, atol=1e-14)


class Transposed(nn.Module):
    def forward(self, x):
        return x.transpose(1, 2)


class Bigrams(nn.Module):
    def __init__(self, words=WORDS):
        super().__init__()
        self.table = nn.Embedding(words, words)

    def forward(self, input_ids, **_):
        return self.table(input_ids)


@pytest.mark.parametrize(
    ("change", "loss", "error", "message"),
    [
        ({"labels": None}, LanguageModelLoss(causal=False), KeyError, r"no entry 'labels', only 'input_ids', 'attention_mask'"),
        ({"labels": torch.full((3, 5), WORDS)}, LanguageModelLoss(), ValueError, "logits for 11 tokens"),
        ({"labels": torch.zeros(3, 4, dtype=torch.long)}, LanguageModelLoss(), ValueError, r"labels of shape \(3, 4\) do not fit"),
        ({"labels": torch.zeros(3, 5)}, LanguageModelLoss(), TypeError, "pass integers"),
        ({"labels": [1, 2, 3]}, LanguageModelLoss(), TypeError, "is a list"),
        ({"w": -torch.ones(3, 5)}, LanguageModelLoss(weights="w"), ValueError, "at least zero"),
        ({"w": torch.ones(5)}, LanguageModelLoss(weights="w"), ValueError, "fit neither"),
        ({}, LanguageModelLoss(weights="importance"), KeyError, "no entry 'importance'"),
        ({"labels": torch.full((3, 5), -100)}, LanguageModelLoss(), ValueError, "0 terms"),
    ],
)
def test_what_does_not_fit_is_said_in_a_sentence(change, loss, error, message):
    batch = {name: value for name, value in {**tokens(), **change}.items() if value is not None}
    with pytest.raises(error, match=message):
        ls.objective(Bigrams(), loss, [batch]).value()


class Softmax(Bigrams):
    def forward(self, input_ids, **_):
        return super().forward(input_ids).softmax(-1)


def test_batches_and_models_of_no_use():
    with pytest.raises(TypeError, match="needs a mapping"):
        ls.objective(Bigrams(), LanguageModelLoss(), [sequences()[0]]).value()
    with pytest.raises(TypeError, match="without logits"):
        ls.objective(build(bert, kind=transformers.BertModel), LogitsLoss(), [texts()]).value()
    with pytest.raises(ValueError, match="needs logits"):
        ls.objective(Softmax(), LanguageModelLoss(), [tokens()]).value()
    with pytest.raises(TypeError, match="must be a loss of outputs and targets"):
        LogitsLoss(LanguageModelLoss())


class LiveMemory(torch.utils._python_dispatch.TorchDispatchMode):
    """Peak of the storages of at least `least` bytes that torch's operations made and that are alive."""

    def __init__(self, least):
        super().__init__()
        self.least, self.alive, self.peak = least, {}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage.nbytes() >= self.least:
                    self.alive[storage._cdata] = torch.multiprocessing.reductions.StorageWeakRef(storage), storage.nbytes()
        self.alive = {key: (ref, size) for key, (ref, size) in self.alive.items() if not ref.expired()}
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
        return result


def test_few_arrays_of_the_size_of_the_vocabulary(monkeypatch):
    """The logits, two of the graph, the vector and its product; torch's own loss needs about twice as many."""
    words, positions = 4000, 64
    monkeypatch.setattr(token_cross_entropy, "_ELEMENTS", 8 * words)
    torch.manual_seed(0)

    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = nn.Embedding(words, 4), nn.Linear(4, words, bias=False)

        def forward(self, input_ids, **_):
            return self.head(torch.tanh(self.embedding(input_ids)))

    def naive(outputs, batch):
        return functional.cross_entropy(outputs[:, :-1].flatten(0, 1), batch["input_ids"][:, 1:].flatten(), reduction="sum"), positions - 1

    batch = {"input_ids": torch.randint(0, words, (1, positions))}
    peaks, one = {}, 4 * words * positions
    plain = ls.BatchLoss(outputs=lambda module, batch: module(**batch), loss=naive)
    for name, loss in (("ours", LanguageModelLoss()), ("plain", plain)):
        for matrix in ("hessian", "ggn"):
            operator = getattr(ls.objective(Small(), loss, [batch]), matrix)()
            v = np.ones(operator.shape[0], np.float32)
            with LiveMemory(one // 2) as memory, warnings.catch_warnings():
                operator @ v
                operator @ v
            peaks[name, matrix] = memory.peak / one
    print(peaks)
    assert peaks["ours", "hessian"] <= 6
    assert peaks["ours", "ggn"] <= 6
    assert peaks["plain", "hessian"] > peaks["ours", "hessian"]
