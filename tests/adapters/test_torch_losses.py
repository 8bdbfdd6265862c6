"""Every loss against torch's own, over uneven batches, with its closed-form Gauss-Newton matrix against autodiff."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch_networks import dense_gauss_newton, dense_hessian  # noqa: E402

import linop_spectra as ls  # noqa: E402

functional = torch.nn.functional
nn = torch.nn
N, C = 11, 4


def setting(outputs=C):
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, outputs)).double()
    return model, torch.randn(N, 3, dtype=torch.float64)


def classes():
    return torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 3, 2, 1])


def soft():
    generator = torch.Generator().manual_seed(5)
    return torch.softmax(torch.randn(N, C, generator=generator, dtype=torch.float64), dim=1)


def masked():
    targets = classes()
    targets[[0, 1, 2, 3, 9]] = -100  # a whole batch of four and one more
    return targets


WEIGHT = torch.tensor([0.5, 1.0, 2.0, 0.25], dtype=torch.float64)
BINARY = (soft() > 0.25).double()
CASES = {
    "cross_entropy": ("cross_entropy", classes(), functional.cross_entropy),
    "int32 classes": ("cross_entropy", classes().int(), lambda z, t: functional.cross_entropy(z, t.long())),
    "masked": ("cross_entropy", masked(), functional.cross_entropy),
    "soft": ("cross_entropy", soft(), functional.cross_entropy),
    "one-hot": ("cross_entropy", functional.one_hot(classes()), lambda z, t: functional.cross_entropy(z, t.double())),
    "mse": ("mse", soft(), functional.mse_loss),
    "binary": ("binary_cross_entropy", BINARY, functional.binary_cross_entropy_with_logits),
    "integer binary": (
        "binary_cross_entropy", BINARY.long(), lambda z, t: functional.binary_cross_entropy_with_logits(z, t.double())
    ),
}  # fmt: skip
MODULES = {
    "plain": (nn.CrossEntropyLoss(), classes()),
    "weights": (nn.CrossEntropyLoss(weight=WEIGHT), classes()),
    "weights and mask": (nn.CrossEntropyLoss(weight=WEIGHT), masked()),
    "smoothing": (nn.CrossEntropyLoss(label_smoothing=0.2), masked()),
    "weights, smoothing and mask": (nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=0.2, ignore_index=1), classes()),
    "soft with weights and smoothing": (nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=0.2), soft()),
    "sum": (nn.CrossEntropyLoss(reduction="sum"), masked()),
    "mse": (nn.MSELoss(), soft()),
    "mse sum": (nn.MSELoss(reduction="sum"), soft()),
    "binary": (nn.BCEWithLogitsLoss(pos_weight=WEIGHT), BINARY),
    "binary with weight": (nn.BCEWithLogitsLoss(weight=WEIGHT, pos_weight=WEIGHT), BINARY),
    "binary sum": (nn.BCEWithLogitsLoss(reduction="sum"), BINARY),
    "huber": (nn.HuberLoss(delta=0.3), soft()),
    "huber sum": (nn.HuberLoss(delta=0.3, reduction="sum"), soft()),
}


def check(loss, targets, reference, model, inputs, gauss_newton=True):
    objective = ls.objective(model, loss, (inputs, targets), batch_size=4)
    expected = reference(model(inputs), targets)
    assert objective.value() == pytest.approx(expected.item(), rel=1e-12)
    gradient = torch.nn.utils.parameters_to_vector(torch.autograd.grad(expected, list(model.parameters()))).numpy()
    np.testing.assert_allclose(objective.gradient(), gradient, atol=1e-12)
    hessian = dense_hessian(model, lambda m: reference(m(inputs), targets))
    np.testing.assert_allclose(objective.hessian().to_dense(), hessian, atol=1e-12 * max(1, abs(hessian).max()))
    if gauss_newton:
        expected = dense_gauss_newton(model, inputs, lambda z: reference(z, targets))
        np.testing.assert_allclose(objective.ggn().to_dense(), expected, atol=1e-12 * max(1, abs(expected).max()))
    return objective


@pytest.mark.parametrize("case", CASES)
def test_named_losses(case):
    loss, targets, reference = CASES[case]
    objective = check(loss, targets, reference, *setting())
    assert objective.ggn().positive_semidefinite


@pytest.mark.parametrize("case", MODULES)
def test_loss_modules(case):
    module, targets = MODULES[case]
    check(module, targets, module, *setting())


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_negative_log_likelihood_module(weight):
    model, inputs = setting()
    module = nn.NLLLoss(weight=weight)
    # Linear in the outputs: there is no Gauss-Newton matrix to speak of.
    check(module, masked(), module, nn.Sequential(model, nn.LogSoftmax(dim=1)), inputs, gauss_newton=False)


@pytest.mark.parametrize("targets", ["classes", "soft"])
def test_class_dimension_is_the_second(targets):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, C * 5), nn.Unflatten(1, (C, 5))).double()
    inputs = torch.randn(N, 3, dtype=torch.float64)
    labels = torch.randint(0, C, (N, 5))
    labels[2:5, 1:] = -100
    labels = labels if targets == "classes" else torch.softmax(torch.randn(N, C, 5, dtype=torch.float64), dim=1)
    module = nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=0.1)
    check(module, labels, module, model, inputs)
    check("cross_entropy", labels, functional.cross_entropy, model, inputs)


@pytest.mark.parametrize("form", ["mean", "pair"])
def test_callables(form):
    model, inputs = setting()
    targets = soft()

    def mean(outputs, targets):
        return (outputs - targets).abs().pow(3).sum(dim=1).mean()

    def pair(outputs, targets):
        return (outputs - targets).abs().pow(3).sum(), len(outputs)

    check(mean if form == "mean" else pair, targets, mean, model, inputs)


def test_batch_losses_of_one_and_of_two_steps():
    model, inputs = setting()
    mask = torch.tensor([1.0, 0, 0, 0, 0, 1, 1, 0, 1, 1, 1], dtype=torch.float64)
    batches = [{"x": inputs[i : i + 4], "t": classes()[i : i + 4], "mask": mask[i : i + 4]} for i in range(0, N, 4)]

    def loss(outputs, batch):
        losses = functional.cross_entropy(outputs, batch["t"], reduction="none")
        return (batch["mask"] * losses).sum(), batch["mask"].sum()

    def reference(outputs, targets):
        return (mask * functional.cross_entropy(outputs, targets, reduction="none")).sum() / mask.sum()

    whole = ls.objective(model, ls.BatchLoss(lambda m, batch: loss(m(batch["x"]), batch)), batches)
    split = ls.objective(model, ls.BatchLoss(outputs=lambda m, batch: m(batch["x"]), loss=loss), batches)
    hessian = dense_hessian(model, lambda m: reference(m(inputs), classes()))
    for objective in (whole, split):
        assert objective.num_examples == N
        assert objective.value() == pytest.approx(reference(model(inputs), classes()).item(), rel=1e-13)
        np.testing.assert_allclose(objective.hessian().to_dense(), hessian, atol=1e-13)
        assert ls.check_operator(objective.hessian()).passed
    np.testing.assert_allclose(
        split.ggn().to_dense(), dense_gauss_newton(model, inputs, lambda z: reference(z, classes())), atol=1e-13
    )
    with pytest.raises(TypeError, match=r"outputs=fn\(model, batch\)"):
        whole.ggn()


def test_a_loss_of_the_parameters_alone():
    model = nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0]]))

    def rosenbrock(module, batch):
        assert batch is None
        x, y = module.weight[0]
        return (1 - x) ** 2 + 100 * (y - x**2) ** 2, 1

    objective = ls.objective(model, ls.BatchLoss(rosenbrock), None)
    assert objective.value() == 100.0
    np.testing.assert_allclose(objective.hessian().to_dense(), [[402.0, -400.0], [-400.0, 200.0]])
    assert ls.check_operator(objective.hessian()).passed
    with pytest.raises(TypeError, match="BatchLoss"):
        ls.objective(model, "mse", None)


def test_all_positions_masked_is_said():
    model, inputs = setting()
    objective = ls.objective(model, "cross_entropy", (inputs, torch.full((N,), -100)))
    for ask in (objective.value, objective.gradient, lambda: objective.hessian() @ np.ones(objective.num_parameters)):
        with pytest.raises(ValueError, match="0 terms"):
            ask()


@pytest.mark.parametrize(
    ("loss", "targets", "error", "message"),
    [
        ("mse", torch.randn(N), ValueError, r"outputs of shape \(11, 4\) with targets of shape \(11,\)"),
        ("binary_cross_entropy", torch.ones(N), ValueError, "both shapes must be equal"),
        ("cross_entropy", torch.zeros(N, 1, dtype=torch.long), ValueError, "do not fit"),
        ("cross_entropy", torch.zeros(N), TypeError, "pass integers"),
        ("cross_entropy", classes() + 1, ValueError, "from 1 to 4"),
        ("hinge", classes(), ValueError, "'hinge'"),
        (3.0, classes(), TypeError, "argument loss is a float"),
        (nn.CrossEntropyLoss(reduction="none"), classes(), ValueError, "reduction='none'"),
        (lambda z, t: functional.cross_entropy(z, t, reduction="none"), classes(), TypeError, r"not a scalar but of shape \(11,\)"),
        (ls.BatchLoss(lambda m, b: m(b[0]).sum()), classes(), TypeError, r"pair \(sum, number_of_terms\)"),
        (lambda z, t: z.sum() * float("nan"), classes(), ValueError, "not finite"),
    ],
)
def test_what_does_not_fit_is_said_in_a_sentence(loss, targets, error, message):
    model, inputs = setting()
    with pytest.raises(error, match=message) as caught:
        ls.objective(model, loss, (inputs, targets)).value()
    assert str(caught.value).endswith(".")


def test_classes_last_are_pointed_out():
    model = nn.Linear(3, C)
    with pytest.raises(ValueError, match="move the classes to dimension 1"):
        ls.objective(model, "cross_entropy", (torch.randn(2, 5, 3), torch.zeros(2, 5, dtype=torch.long))).value()


def test_probabilities_are_refused():
    model, inputs = setting()
    softmax, sigmoid = nn.Sequential(model, nn.Softmax(dim=1)), nn.Sequential(model, nn.Sigmoid())
    for loss in ("cross_entropy", nn.CrossEntropyLoss()):
        objective = ls.objective(softmax, loss, (inputs, classes()))
        for ask in (objective.value, objective.gradient, lambda o=objective: o.ggn() @ np.ones(o.num_parameters)):
            with pytest.raises(ValueError, match="needs logits"):
                ask()
    with pytest.raises(ValueError, match="needs logits"):
        ls.objective(sigmoid, "binary_cross_entropy", (inputs, BINARY)).value()


@pytest.mark.parametrize("arguments", [{}, {"outputs": len}, {"fn": len, "outputs": len, "loss": len}])
def test_batch_loss_takes_one_form_or_the_other(arguments):
    with pytest.raises(TypeError, match="BatchLoss takes either"):
        ls.BatchLoss(**arguments)
