"""Curvature in the metric of a preconditioner."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dense_torch import assert_close, case, classifier, to_dense  # noqa: E402

import linop_spectra as ls  # noqa: E402
from linop_spectra.adapters.torch.adam import adam_preconditioner  # noqa: E402
from linop_spectra.curvature import preconditioned  # noqa: E402

nn = torch.nn


def positive(n, seed=0):
    return np.random.default_rng(seed).uniform(0.1, 5.0, n)


@pytest.mark.parametrize("matrix", ["hessian", "ggn", "residual"])
def test_against_dense(matrix):
    objective, _ = case("masked")
    operator = getattr(objective, matrix)()
    d = positive(objective.num_parameters)
    expected = to_dense(operator) / np.sqrt(np.outer(d, d))
    by_name = {name: d[place].reshape(objective.unflatten(d)[name].shape) for name, place in objective.blocks.items()}
    for form in (d, list(d), torch.from_numpy(d), by_name, ls.diagonal_operator(d)):
        scaled = preconditioned(operator, form)
        assert_close(scaled, expected)
        assert (scaled.hermitian, scaled.positive_semidefinite) == (operator.hermitian, operator.positive_semidefinite)
        assert ls.check_operator(scaled).passed
    # The eigenvalues of P^-1 A, from the matrix that is not symmetric.
    eigenvalues = np.sort(np.linalg.eigvals(to_dense(operator) / d[:, None]).real)
    np.testing.assert_allclose(np.linalg.eigvalsh(to_dense(scaled)), eigenvalues, atol=1e-10)


def test_blocks():
    objective, _ = case("masked")
    d = positive(objective.num_parameters)
    scaled = preconditioned(objective.hessian(), d)
    index = np.r_[objective.blocks["2.weight"], objective.blocks["2.bias"]]
    assert_close(scaled.block("2"), to_dense(scaled)[np.ix_(index, index)])
    assert "kept" in scaled.block("2").engine
    with pytest.raises(ValueError, match="name is 'a'"):
        preconditioned(np.eye(2), np.ones(2)).block("a")


def test_small_second_moments_in_single_precision():
    """Squares of gradients of 1e-16 are positive still."""
    scaled = preconditioned(np.eye(3, dtype=np.float32), np.array([1e-32, 1.0, 1e30]))
    np.testing.assert_allclose(scaled.to_dense().diagonal(), [1e32, 1.0, 1e-30], rtol=1e-6)
    assert scaled.dtype == np.float32


@pytest.mark.parametrize("last", [0.0, -1.0, np.nan, np.inf])
def test_entries_that_are_not_positive(last):
    objective, _ = case("masked")
    assert objective.num_parameters == 43
    with pytest.raises(ValueError, match="not positive and finite"):
        preconditioned(objective.hessian(), np.r_[np.ones(42), last])


def test_other_bad_arguments():
    objective, _ = case("masked")
    hessian = objective.hessian()
    with pytest.raises(ValueError, match=r"shape \(3,\), but must be a diagonal of shape \(43,\)"):
        preconditioned(hessian, np.ones(3))
    with pytest.raises(TypeError, match="compress"):
        preconditioned(hessian, objective.ggn())
    with pytest.raises(TypeError, match=r"objective\.flatten"):
        preconditioned(np.eye(3), {"a": np.ones(3)})
    with pytest.raises(ValueError, match=r"lack '0\.weight'"):
        preconditioned(hessian, {"a": np.ones(3)})
    with pytest.raises(ValueError, match="only a square matrix"):
        preconditioned(objective.jacobian(), np.ones(43))


def trained(optimizer_class=torch.optim.Adam, named=False, steps=5, **options):
    model = classifier()
    torch.manual_seed(1)
    x, y = torch.randn(30, 4).double(), torch.randint(0, 3, (30,))
    optimizer = optimizer_class(model.named_parameters() if named else model.parameters(), lr=0.01, **options)
    gradients = []
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        gradients.append(np.concatenate([p.grad.numpy().ravel() for p in model.parameters()]))
        optimizer.step()
    optimizer.zero_grad()
    return model, optimizer, np.array(gradients), ls.objective(model, "cross_entropy", (x, y))


def by_hand(gradients, beta, eps, largest=False):
    """Kingma and Ba's recursion, written out."""
    v, most = np.zeros(gradients.shape[1]), np.zeros(gradients.shape[1])
    for g in gradients:
        v = beta * v + (1 - beta) * g**2
        most = np.maximum(most, v)
    return np.sqrt((most if largest else v) / (1 - beta ** len(gradients))) + eps


@pytest.mark.parametrize("named", [False, True])
def test_adam(named):
    model, optimizer, gradients, objective = trained(named=named, betas=(0.8, 0.95), eps=1e-3)
    expected = by_hand(gradients, 0.95, 1e-3)
    for source in (optimizer, optimizer.state_dict()):
        np.testing.assert_allclose(adam_preconditioner(objective, source), expected, rtol=1e-12)
        np.testing.assert_allclose(adam_preconditioner(objective, source, model=model), expected, rtol=1e-12)
    np.testing.assert_allclose(adam_preconditioner(objective, optimizer, eps=0.5), expected - 1e-3 + 0.5, rtol=1e-12)


def test_the_diagonal_is_what_a_step_divides_by():
    """A step of Adam without momentum, by torch itself."""
    model, optimizer, _, objective = trained(betas=(0.0, 0.9), eps=1e-2, steps=3)
    before = objective.parameters()
    x, y = next(iter(objective.batches()))
    nn.functional.cross_entropy(model(x), y).backward()
    gradient = np.concatenate([p.grad.numpy().ravel() for p in model.parameters()])
    optimizer.step()
    after = np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])
    np.testing.assert_allclose(after - before, -0.01 * gradient / adam_preconditioner(objective, optimizer), rtol=1e-9)


def test_variants():
    _, optimizer, gradients, objective = trained(torch.optim.AdamW, amsgrad=True)
    np.testing.assert_allclose(adam_preconditioner(objective, optimizer), by_hand(gradients, 0.999, 1e-8, largest=True), rtol=1e-12)


def test_a_part_of_the_parameters_in_another_order():
    model = classifier()
    torch.manual_seed(1)
    x, y = torch.randn(30, 4).double(), torch.randint(0, 3, (30,))
    groups = [{"params": [model[2].bias, model[2].weight]}, {"params": [model[0].weight, model[0].bias], "eps": 1e-2}]
    optimizer = torch.optim.Adam(groups)
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
    part = ls.objective(model, "cross_entropy", (x, y), parameters="*.weight")
    found = adam_preconditioner(part, optimizer, model=model)
    expected = [(model[0].weight.grad.abs() + 1e-2).ravel(), (model[2].weight.grad.abs() + 1e-8).ravel()]
    np.testing.assert_allclose(found, torch.cat(expected).numpy(), rtol=1e-9)
    with pytest.raises(ValueError, match="holds 4 parameters without names, but the objective has 2"):
        adam_preconditioner(part, optimizer)
    with pytest.raises(ValueError, match="has shape"):
        adam_preconditioner(ls.objective(model, "cross_entropy", (x, y)), optimizer)


def test_optimisers_that_are_no_adam():
    model, optimizer, _, objective = trained(torch.optim.SGD)
    with pytest.raises(ValueError, match="no second moment"):
        adam_preconditioner(objective, optimizer)
    with pytest.raises(ValueError, match="no second moment"):
        adam_preconditioner(objective, torch.optim.Adam(model.parameters()))
    with pytest.raises(TypeError, match=r"must be a torch\.optim\.Adam"):
        adam_preconditioner(objective, model)
    other = classifier(seed=5)
    with pytest.raises(ValueError, match="does not hold the parameter"):
        adam_preconditioner(objective, trained()[1], model=other)


def test_the_optimiser_is_left_alone():
    _, optimizer, _, objective = trained()
    before = {k: v.clone() for k, v in next(iter(optimizer.state.values())).items()}
    preconditioned(objective.hessian(), adam_preconditioner(objective, optimizer)).to_dense()
    assert all(torch.equal(v, before[k]) for k, v in next(iter(optimizer.state.values())).items())
