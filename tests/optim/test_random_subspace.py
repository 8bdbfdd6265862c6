"""Methods in random subspaces, and the scan over radii and dimensions."""

import numpy as np
import pytest
from descent_methods import Averaged

import linop_spectra as ls
from linop_spectra.curvature.subspace import random_rows
from linop_spectra.optim.newton.lanczos_newton import LanczosNewton
from linop_spectra.optim.subspace.goldilocks import GoldilocksScan, goldilocks_scan
from linop_spectra.optim.subspace.random_subspace import RandomSubspace

torch = pytest.importorskip("torch")


def isotropic(n=20, seed=0):
    """A linear model whose squared error has equal curvature in all n directions."""
    generator = np.random.default_rng(seed)
    x = np.linalg.qr(generator.standard_normal((3 * n, n)))[0]
    model = torch.nn.Linear(n, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.as_tensor(generator.standard_normal((1, n))))
    return ls.objective(model, "mse", (torch.as_tensor(x), torch.as_tensor(x @ generator.standard_normal((n, 1)))))


def test_least_loss_in_a_plane_of_an_isotropic_quadratic():
    """On average (1 - d/n) L_0; the share is Beta((n - d)/2, d/2)."""
    obj, d, n, trials = isotropic(), 5, 20, 200
    theta, start = obj.parameters(), obj.value()
    left = []
    for seed in range(trials):
        method = RandomSubspace(LanczosNewton(damping=1e-10, num_steps=5), dimension=d, seed=seed)
        after, _ = method.step(obj, theta)
        left.append(obj.with_parameters(after).value() / start)
        if seed < 3:
            rows = random_rows(obj, d, seed)
            assert np.linalg.norm((after - theta) - (rows @ (after - theta)) @ rows) < 1e-12 * np.linalg.norm(after - theta)
    error = np.sqrt((n - d) * d / (n**2 * (n / 2 + 1)) / trials)
    assert abs(np.mean(left) - (1 - d / n)) < 4 * error
    assert np.std(left) == pytest.approx(error * np.sqrt(trials), rel=0.2)


def test_it_is_the_method_on_the_coordinates():
    """Three steps of a method with memory, written out."""
    obj = isotropic()
    rows = random_rows(obj, 4, seed=1)
    theta = start = obj.parameters()
    method = RandomSubspace(Averaged(learning_rate=2.0), dimension=4, seed=1)
    expected, mean = start.copy(), 0
    for _ in range(3):
        theta, info = method.step(obj, theta)
        mean = 0.5 * mean + rows @ obj.with_parameters(expected).gradient()
        expected = expected - 2.0 * mean @ rows
    np.testing.assert_allclose(theta, expected, atol=1e-13)
    assert info.step == 2 and method.steps_taken == 2 + 1


def test_resumed_runs_are_bit_identical(tmp_path):
    obj = isotropic()

    def make():
        return RandomSubspace(Averaged(learning_rate=2.0, noise=0.1), dimension=4, seed=1)

    whole, first, second = make(), make(), make()
    theta = half = obj.parameters()
    for _ in range(6):
        theta, _ = whole.step(obj, theta)
    for _ in range(3):
        half, _ = first.step(obj, half)
    first.save(tmp_path / "state.npz")
    second.restore(tmp_path / "state.npz")
    for _ in range(3):
        half, _ = second.step(obj, half)
    np.testing.assert_array_equal(half, theta)
    with pytest.raises(ValueError, match="other settings: method"):
        RandomSubspace(Averaged(learning_rate=1.0, noise=0.1), dimension=4, seed=1).restore(tmp_path / "state.npz")


def test_rejections_and_bad_arguments():
    obj = isotropic()
    method = RandomSubspace(Averaged(learning_rate=1e300), dimension=4)
    after, info = method.step(obj, obj.parameters())
    np.testing.assert_array_equal(after, obj.parameters())
    assert not info.accepted and "not finite" in info.message
    with pytest.raises(FloatingPointError):
        RandomSubspace(Averaged(), dimension=4).step(obj, np.full(20, np.nan))
    with pytest.raises(ValueError, match="between 1 and the 20 parameters"):
        RandomSubspace(Averaged(), dimension=21).step(obj, obj.parameters())
    with pytest.raises(ValueError, match="at least 1"):
        RandomSubspace(Averaged(), dimension=0)
    with pytest.raises(TypeError, match=r"a method of linop_spectra\.optim"):
        RandomSubspace("sgd", dimension=3)


@pytest.mark.parametrize("method", [ls.optim.KFAC(), ls.optim.Sophia(estimator="gnb")], ids=["KFAC", "Sophia"])
def test_methods_that_need_layers_say_so(method):
    obj = classifier()
    with pytest.raises(TypeError, match="not to coordinates in a subspace"):
        RandomSubspace(method, dimension=4).step(obj, obj.parameters())


@pytest.mark.parametrize(
    "method",
    [
        ls.optim.HessianFree(), ls.optim.SaddleFreeNewton(damping=0.1), ls.optim.TrustRegionNewton(), ls.optim.CubicNewton(),
        ls.optim.AdaHessian(learning_rate=0.05), ls.optim.HeavyBall(learning_rate=0.1),
    ],
    ids=lambda method: type(method).__name__,
)  # fmt: skip
def test_methods_that_need_products_work(method):
    obj = classifier()
    theta, inside = obj.parameters(), RandomSubspace(method, dimension=8)
    for _ in range(6):
        theta, _ = inside.step(obj, theta)
    assert obj.with_parameters(theta).value() < obj.value()


def classifier():
    generator = torch.Generator().manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            scale = (2 / parameter.shape[-1]) ** 0.5 if parameter.ndim == 2 else 0.0
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    y = torch.arange(80) % 4
    means = 1.5 * torch.randn(4, 6, generator=generator, dtype=torch.float64)
    x = means[y] + torch.randn(80, 6, generator=generator, dtype=torch.float64)
    return ls.objective(model, "cross_entropy", (x, y))


def test_the_goldilocks_zone_of_a_small_network(tmp_path):
    """The ratio has a hump at the scale of a good initialisation, and wider planes reach less loss."""
    obj = classifier()
    scan = goldilocks_scan(
        obj, [0.2, 1.0, 10.0], [2, 24], lambda: LanczosNewton(damping=0.05, num_steps=8), 15, metrics="accuracy", plane_dimension=12
    )
    matrix = obj.hessian().to_dense()
    dense = np.trace(matrix) / np.linalg.norm(matrix)
    assert abs(scan.ratios[1] - dense) < 5 * scan.ratio_errors[1] + 1e-6 * dense
    assert scan.ratios[1] > scan.ratios[0] and scan.ratios[1] > scan.ratios[2]
    assert scan.losses[1, 1] < scan.losses[1, 0] < scan.start_losses[1]
    assert scan.metrics["accuracy"][1, 1] > 0.8 and scan.num_matvecs > 0
    assert "radius" in str(scan)
    scan.save(tmp_path / "scan.npz")
    back = ls.load(tmp_path / "scan.npz")
    assert isinstance(back, GoldilocksScan) and str(back) == str(scan)
    pytest.importorskip("matplotlib")
    back.plot(tmp_path / "scan.png")
    assert (tmp_path / "scan.png").stat().st_size > 10_000


def test_bad_arguments_of_the_scan():
    obj = classifier()
    for radii, dimensions, method, error, words in (
        ([], [2], Averaged, ValueError, "radii"), ([-1.0], [2], Averaged, ValueError, "radii"),
        ([1.0], [0], Averaged, ValueError, "dimensions"), ([1.0], [2], Averaged(), TypeError, "fresh optimiser"),
    ):  # fmt: skip
        with pytest.raises(error, match=words):
            goldilocks_scan(obj, radii, dimensions, method, 2)
