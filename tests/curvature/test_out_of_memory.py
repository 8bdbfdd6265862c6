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
    assert len(limited.failures) == 1
