"""The table of losses in the documentation: each row is run, against torch's own loss of all examples at once."""

import pathlib
import re

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import linop_spectra as ls  # noqa: E402

nn = torch.nn
functional = nn.functional
PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "losses.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(.+?)` \|.*\| (yes|no) \| (yes|no) \|$", PAGE.split("## Losses of whole batches")[0], re.MULTILINE)
N, C = 11, 3
NAMES = {
    "cross_entropy": functional.cross_entropy,
    "binary_cross_entropy": functional.binary_cross_entropy_with_logits,
    "mse": functional.mse_loss,
}


def evaluated(code):
    weight = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    return eval(code, {"nn": nn, "functional": functional, "weight": weight})


def setting(code):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, C)).double()
    inputs, numbers = torch.randn(N, 4, dtype=torch.float64), torch.rand(N, C, dtype=torch.float64)
    if ("NLLLoss" in code and "Poisson" not in code) or "KLDiv" in code:
        model.append(nn.LogSoftmax(dim=1))
    if ("cross_entropy" in code and "binary" not in code) or "CrossEntropy" in code or code == "nn.NLLLoss()":
        return model, inputs, torch.arange(N) % C
    if "KLDiv" in code:
        return model, inputs, numbers / numbers.sum(1, keepdim=True)
    if "SoftMarginLoss" in code or "BCE" in code or "binary" in code:
        labels = (numbers > 0.5).double()
        return model, inputs, 2 * labels - 1 if code == "nn.SoftMarginLoss()" else labels
    return model, inputs, numbers


def reference(code, outputs, targets):
    loss = evaluated(code)
    result = (NAMES[loss] if isinstance(loss, str) else loss)(outputs, targets)
    return result[0] / result[1] if isinstance(result, tuple) else result


def test_the_table_is_read():
    assert len(ROWS) == 20
    assert len({code for code, _, _ in ROWS}) == 20


@pytest.mark.parametrize(("code", "gauss_newton", "fisher"), ROWS, ids=[row[0] for row in ROWS])
def test_row(code, gauss_newton, fisher):
    model, inputs, targets = setting(code)
    objective = ls.objective(model, evaluated(code), (inputs, targets), batch_size=4)
    expected = reference(code, model(inputs), targets)
    assert objective.value() == pytest.approx(expected.item(), rel=1e-12)
    slope = nn.utils.parameters_to_vector(torch.autograd.grad(expected, list(model.parameters())))
    np.testing.assert_allclose(objective.gradient(), slope.numpy(), atol=1e-12)
    assert ls.check_operator(objective.hessian()).passed
    assert np.abs(objective.hessian().to_dense()).max() > 0
    if gauss_newton == "yes":
        operator = objective.ggn()
        assert ls.check_operator(operator).passed
        assert np.trace(operator.to_dense()) > 1e-3
    else:
        with pytest.raises(TypeError, match="would be zero; leave out the last log-softmax"):
            objective.ggn()
    if fisher == "yes":
        np.testing.assert_allclose(objective.fisher().to_dense(), objective.ggn().to_dense(), atol=1e-13)
    else:
        with pytest.raises(TypeError, match="Fisher matrix"):
            objective.fisher()
    assert objective.fisher("empirical").positive_semidefinite


def test_a_divergence_differs_from_cross_entropy_by_a_constant():
    code = 'nn.KLDivLoss(reduction="batchmean")'
    model, inputs, targets = setting(code)
    divergence = ls.objective(model, evaluated(code), (inputs, targets), batch_size=4)
    entropy = ls.objective(model[:-1], "cross_entropy", (inputs, targets), batch_size=4)
    np.testing.assert_allclose(divergence.hessian().to_dense(), entropy.hessian().to_dense(), atol=1e-12)
