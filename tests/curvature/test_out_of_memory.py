"""Memory that runs out inside a product: smaller plans, the same matrix, and the plan in the error."""

import typing

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import linop_spectra as ls  # noqa: E402

nn = torch.nn


class Limited(nn.Linear):
    """Refuses more rows than fit, as an allocator would, and counts how often."""

    failures: typing.ClassVar[list] = []

    def __init__(self, rows, error=None):
        super().__init__(3, 2)
        self.rows = rows
        self.error = error or RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")

    def forward(self, x):
        if torch.is_grad_enabled() and len(x) > self.rows:
            self.failures.append(len(x))
            raise self.error
        return super().forward(x).tanh()


def data(count=13):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, generator=generator, dtype=torch.float64), torch.randint(0, 2, (count,), generator=generator)


def pair(rows, **options):
    torch.manual_seed(0)
    limited = Limited(rows, **options).double()
    free = Limited(10**6).double()
    free.load_state_dict(limited.state_dict())
    return limited, free


@pytest.mark.filterwarnings("ignore:Memory ran out inside a product")
@pytest.mark.parametrize("matrix", ["hessian", "ggn"])
@pytest.mark.parametrize("error", [None, torch.OutOfMemoryError("CUDA out of memory."), MemoryError()], ids=["cpu", "cuda", "numpy"])
def test_batches_are_cut_until_they_fit(matrix, error):
    limited, free = pair(4, error=error)
    operator, expected = (getattr(ls.objective(m, "cross_entropy", data(), batch_size=10), matrix)() for m in (limited, free))
    v = np.random.default_rng(0).standard_normal((8, 3))
    np.testing.assert_allclose(operator @ v, expected @ v, rtol=1e-12)
    assert "pieces" in operator.engine
    np.testing.assert_allclose(operator @ v[:, 0], expected @ v[:, 0], rtol=1e-12)


def test_each_step_is_said():
    limited, _ = pair(4)
    hessian = ls.objective(limited, "cross_entropy", data(), batch_size=10).hessian()
    with pytest.warns(UserWarning, match="Memory ran out") as caught:
        _ = hessian @ np.ones((8, 2))
    steps = [str(warning.message).partition(": ")[2] for warning in caught]
    assert steps == [
        "nothing is kept between products any more.",
        "vectors are multiplied one at a time.",
        "each batch is cut into 2 pieces.",
        "each batch is cut into 4 pieces.",
    ]


@pytest.mark.filterwarnings("ignore:Memory ran out inside a product")
def test_the_smallest_plan_is_reported():
    limited, _ = pair(0)
    hessian = ls.objective(limited, "cross_entropy", data()).hessian()
    with pytest.raises(MemoryError, match=r"smallest plan: 0 of .* each batch in 13 pieces .*batch_size.*can't allocate memory"):
        _ = hessian @ np.ones(8)


@pytest.mark.filterwarnings("ignore:Memory ran out inside a product")
def test_losses_that_do_not_add_up_are_not_cut():
    limited, _ = pair(4)

    def contrast(outputs, targets):
        return (outputs - outputs.mean(dim=0)).square().sum(), len(outputs)

    hessian = ls.objective(limited, contrast, data(), batch_size=10).hessian()
    with pytest.raises(MemoryError, match="smallest plan"):
        _ = hessian @ np.ones(8)


def test_other_errors_are_not_retried():
    limited, _ = pair(4, error=RuntimeError("shapes do not fit"))
    limited.failures.clear()
    hessian = ls.objective(limited, "cross_entropy", data(), batch_size=10).hessian()
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        _ = hessian @ np.ones(8)
    # The first forward pass in double precision is tried once more with the narrower types that a model may insist on.
    assert len(limited.failures) == 2


# -- what does not go through the products of a curvature operator -----------------------------------------------------

MATRICES = {
    "monte-carlo fisher": lambda objective: objective.fisher("mc", num_samples=2),
    "empirical fisher": lambda objective: objective.fisher("empirical"),
    "residual": lambda objective: objective.residual(),
    "covariance": lambda objective: objective.gradient_covariance(),
    "second moment": lambda objective: objective.gradient_covariance(centered=False),
    "jacobian": lambda objective: objective.jacobian(),
    "transposed jacobian": lambda objective: objective.jacobian().H,
    "kernel": lambda objective: objective.ntk(),
    "means of classes": lambda objective: objective.class_structure().A1,
}


@pytest.mark.filterwarnings("ignore:Memory ran out inside a product")
@pytest.mark.parametrize("name", MATRICES)
def test_every_matrix_is_the_same_in_smaller_plans(name):
    limited, free = pair(4)
    operator, expected = (MATRICES[name](ls.objective(m, "cross_entropy", data(), batch_size=10)) for m in (limited, free))
    v = np.random.default_rng(0).standard_normal((operator.shape[1], 3))
    limited.failures.clear()
    np.testing.assert_allclose(operator @ v, expected @ v, rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(operator @ v[:, 1], expected @ v[:, 1], rtol=1e-11, atol=1e-14)
    assert len(limited.failures) > 2


@pytest.mark.filterwarnings("ignore:Memory ran out inside a product")
def test_vectors_one_at_a_time_alone():
    """Where that is enough, as it is for a forward mode that holds as many directions as there are vectors."""
    _, free = pair(4)
    for name in ("covariance", "monte-carlo fisher", "jacobian"):
        operator, expected = (MATRICES[name](ls.objective(free, "cross_entropy", data(), batch_size=10)) for _ in range(2))
        kept = operator._space._linearizations if name == "jacobian" else operator._linearizations
        kept.retreat()
        kept.retreat()
        assert kept.one_by_one
        v = np.random.default_rng(0).standard_normal((8, 3))
        np.testing.assert_allclose(operator @ v, expected @ v, rtol=1e-12, atol=1e-15)


def test_gradient_and_value():
    limited, free = pair(4)
    objective, expected = (ls.objective(m, "cross_entropy", data(), batch_size=10, weight_decay=0.1) for m in (limited, free))
    with pytest.warns(UserWarning, match="pass over the data: each batch is cut into [24] pieces") as caught:
        gradient = objective.gradient()
    assert len(caught) == 2
    np.testing.assert_allclose(gradient, expected.gradient(), rtol=1e-12)
    limited.failures.clear()
    np.testing.assert_allclose(objective.gradient(), gradient, rtol=1e-14)  # the plan is remembered
    assert not limited.failures

    class Forward(Limited):
        def forward(self, x):
            with torch.enable_grad():
                return super().forward(x)

    narrow = Forward(4).double()
    narrow.load_state_dict(free.state_dict())
    objective = ls.objective(narrow, "cross_entropy", data(), batch_size=10, weight_decay=0.1)
    with pytest.warns(UserWarning, match="each batch is cut into [24] pieces"):
        value = objective.value()
    assert value == pytest.approx(expected.value(), rel=1e-12)


def test_the_gradient_of_a_loss_that_does_not_add_up():
    limited, _ = pair(4)

    def contrast(outputs, targets):
        return (outputs - outputs.mean(dim=0)).square().sum(), len(outputs)

    with pytest.raises(MemoryError, match=r"smallest plan: whole batches, which cannot be cut.*can't allocate memory"):
        ls.objective(limited, contrast, data(), batch_size=10).gradient()


@pytest.mark.filterwarnings("ignore:Memory ran out inside a product")
def test_outputs_whose_rows_are_no_examples_are_not_cut():
    """Pieces of them, one after another, are not the outputs of the batch."""
    limited, _ = pair(4)
    loss = ls.BatchLoss(outputs=lambda model, batch: model(batch).T, loss=lambda outputs, batch: (outputs.square().sum(), len(batch)))
    with pytest.raises(MemoryError, match="smallest plan"):
        _ = ls.objective(limited, loss, [data()[0]]).jacobian() @ np.ones(8)
