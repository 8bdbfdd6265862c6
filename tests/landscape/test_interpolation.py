"""The way between two models: its ends, and its barrier."""

import numpy as np
import pytest
from landscape_networks import MAKERS, X, Y, classifier, cross_entropy, held_out, logits, regression

import linop_spectra as ls
import linop_spectra.landscape as landscape


@pytest.mark.parametrize("framework", MAKERS)
def test_ends_are_the_models_to_the_last_bit(framework):
    one = classifier(framework, dtype="float32")
    two = one.with_parameters((1.7 * np.asarray(one.parameters()) + 0.3).astype(np.float32))
    line = landscape.interpolate(one, two, [0.0, 0.25, 1.0, 1.5], metrics="accuracy")
    assert (line.loss[0], line.loss[2]) == (one.value(), two.value())
    a, b = (np.asarray(model.parameters(), dtype=np.float64) for model in (one, two))
    for i in (1, 3):
        t = line.distances[i]
        assert line.loss[i] == pytest.approx(cross_entropy(logits(one, (1 - t) * a + t * b), Y), rel=1e-5)
    np.testing.assert_allclose(line.direction, b - a, rtol=1e-6)


def test_the_other_model_in_every_form(tmp_path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model, other = torch.nn.Linear(5, 3).double(), torch.nn.Linear(5, 3).double()
    objective = ls.objective(model, "cross_entropy", (torch.as_tensor(X), torch.as_tensor(Y)))
    torch.save(other.state_dict(), tmp_path / "other.pt")
    vector = objective.flatten(other.state_dict())
    lines = [landscape.interpolate(objective, form, [0.5]) for form in (vector, other.state_dict(), tmp_path / "other.pt")]
    assert len({float(line.loss[0]) for line in lines}) == 1
    assert len(landscape.interpolate(objective, vector).distances) == 21


def test_barrier_of_a_double_well():
    torch = pytest.importorskip("torch")

    class Well(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.tensor([-1.0], dtype=torch.float64))

    tilted = ls.objective(Well(), ls.BatchLoss(lambda model, _: (((model.w**2 - 1) ** 2 + model.w).sum(), 1)), None)
    line = landscape.interpolate(tilted, np.array([1.0]), np.linspace(-0.2, 1.2, 15), quadratic=True)
    assert line.barrier() == pytest.approx(1.0, rel=1e-12)  # without the tilt, which the chord has too
    # Slope and curvature in the coordinate w = -1 + 2 t.
    assert (line.slope, line.curvature) == (pytest.approx(2.0), pytest.approx(4 * 8.0))
    with pytest.raises(ValueError, match="two models: make the line by interpolate"):
        line.barrier(held_out=True)
    with pytest.raises(ValueError, match="shares 0 and 1"):
        landscape.interpolate(tilted, np.array([1.0]), [0.25, 0.5]).barrier()
    with pytest.raises(ValueError, match="interpolate"):
        landscape.line(tilted, np.array([1.0]), [0.0, 1.0]).barrier()


def test_bad_arguments_are_named(tmp_path):
    objective = classifier("torch")
    with pytest.raises(ValueError, match="same parameters"):
        landscape.interpolate(objective, objective)
    with pytest.raises(ValueError, match="other parameters"):
        landscape.interpolate(objective, regression("torch"))
    with pytest.raises(ValueError, match="fractions"):
        landscape.interpolate(objective, 2 * objective.parameters(), [])
    with pytest.raises(ValueError, match="not finite"):
        landscape.interpolate(objective, np.nan * objective.parameters())
    line = landscape.interpolate(objective, 2 * objective.parameters(), held_out=held_out(objective))
    line.save(tmp_path / "line.npz")
    assert ls.load(tmp_path / "line.npz").barrier(held_out=True) == line.barrier(held_out=True) >= 0
