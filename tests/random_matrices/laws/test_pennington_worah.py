"""The law of Pennington and Worah against the paper's quartic equation, its limits and sampled layers."""

import numpy as np
import pytest

from linop_spectra.random_matrices import MarchenkoPastur
from linop_spectra.random_matrices.laws.activation import activation_moments
from linop_spectra.random_matrices.laws.pennington_worah import PenningtonWorah
from linop_spectra.random_matrices.laws.wishart_product_law import WishartProduct

PARAMETERS = [
    (1.0, 1.0, 0.39429, 0.36688),
    (1.0, 1.0, 0.34085, 0.25),
    (0.3, 0.6, 1.0, 0.5),
    (0.6, 0.3, 1.0, 0.5),
    (0.05, 0.05, 1.0, 0.5),
    (0.04, 0.02, 2.0, 1.8),
    (5.0, 2.0, 1.0, 0.5),
    (50.0, 0.5, 1.0, 0.7),
    (0.02, 0.04, 1.0, 0.9),
]


@pytest.mark.parametrize(
    "activation, mean, eta, zeta",
    [
        (np.tanh, 0.0, 0.39429449, 0.36687916),
        (lambda z: np.maximum(z, 0), 1 / np.sqrt(2 * np.pi), 0.5 - 0.5 / np.pi, 0.25),
        (lambda z: (z**2 - 1) / np.sqrt(2), 0.0, 1.0, 0.0),
        (lambda z: 3 * z + 1, 1.0, 9.0, 9.0),
        (np.sign, 0.0, 1.0, 2 / np.pi),
        (np.abs, np.sqrt(2 / np.pi), 1 - 2 / np.pi, 0.0),
        (lambda z: z**3, 0.0, 15.0, 9.0),
        (np.sin, 0.0, (1 - np.exp(-2)) / 2, np.exp(-1)),
        (lambda z: (z > 0.3).astype(int), 0.38208857781, 0.38208857781 * 0.61791142219, (np.exp(-0.045) / np.sqrt(2 * np.pi)) ** 2),
    ],
)
def test_moments_of_activations(activation, mean, eta, zeta):
    found = activation_moments(activation)
    assert [found.mean, found.eta, found.zeta] == pytest.approx([mean, eta, zeta], abs=1e-8)


@pytest.mark.parametrize("parameters", PARAMETERS)
def test_density_has_the_mass_and_the_moments(parameters):
    """The density comes from roots and their branch, the moments from the series at infinity."""
    law = PenningtonWorah(*parameters)
    atom = sum(mass for _, mass in law.atoms)
    assert atom == pytest.approx(max(0.0, 1 - parameters[1] / parameters[0]))
    x, w = [], []
    for a, b in law.support:
        t = np.pi * (np.arange(3000) + 0.5) / 3000
        x.append((a + b) / 2 - (b - a) / 2 * np.cos(t))
        w.append(law.pdf(x[-1]) * (b - a) / 2 * np.sin(t) * np.pi / 3000)
    x, w = np.concatenate(x), np.concatenate(w)
    assert w.sum() == pytest.approx(1 - atom, abs=2e-3 if parameters[0] == parameters[1] else 1e-7)
    nodes, weights = law.gauss_rule(6)
    for k in (1, 2, 5):
        assert w @ x**k == pytest.approx(law.moment(k), rel=1e-6)
        assert weights @ nodes**k == pytest.approx(law.moment(k), rel=1e-9)
    assert law.moment(1) == pytest.approx(parameters[2])
    assert law.cdf(law.quantile(0.97)) == pytest.approx(max(0.97, atom), abs=1e-9)


@pytest.mark.parametrize("parameters", PARAMETERS)
def test_transform_solves_the_quartic_equation_of_the_paper(parameters):
    phi, psi, eta, zeta = parameters
    law = PenningtonWorah(*parameters)
    z = np.array([1 + 1j, -0.3 + 0.1j, 0.5j, 3 + 0.01j, -2.0 + 0j])
    t, g = 1 / (z * psi), law.cauchy(z)
    p = (g - (1 - psi) / z) * z / psi
    both = (1 + (p - 1) * phi) * (1 + (p - 1) * psi)
    np.testing.assert_allclose(1 + (eta - zeta) * t * both + both * t * zeta / (1 - both * t * zeta), p, rtol=1e-8)
    assert np.all(g[:-1].imag < 0) and g[-1].imag == 0
    assert law.stieltjes(1 - 1j) == np.conj(law.stieltjes(1 + 1j))
    # Means over the support are known only to the right branch.
    nodes, weights = law.gauss_rule(40)
    far = 3 * law.support[-1][1] * np.array([1.0, -1.0, 1j])
    np.testing.assert_allclose(law.stieltjes(far), [(weights / (nodes - at)).sum() for at in far], rtol=1e-9)


def test_limits():
    x = np.linspace(0.1, 12, 40)
    product = WishartProduct([0.5, 1 / 0.8])
    assert PenningtonWorah(0.4, 0.8, 3.0, 0.0).cdf(x) == pytest.approx(MarchenkoPastur(ratio=0.5).cdf(x / 3))
    for zeta, tolerance in ((3.0, 1e-12), (3.0 * (1 - 1e-8), 1e-3)):
        law = PenningtonWorah(0.4, 0.8, 3.0, zeta)
        np.testing.assert_allclose(law.cdf(x), product.cdf(x / 3), atol=tolerance)
        assert law.moment(3) == pytest.approx(27 * product.moment(3), rel=1e-6)
    near = PenningtonWorah(0.4, 0.8, 3.0, 1e-8)
    np.testing.assert_allclose(near.cdf(x), MarchenkoPastur(ratio=0.5).cdf(x / 3), atol=1e-6)


@pytest.mark.parametrize(
    "activation, n0, n1, m",
    [
        (np.tanh, 900, 900, 900),
        (lambda z: np.maximum(z, 0) - 1 / np.sqrt(2 * np.pi), 900, 900, 900),
        (lambda z: (z**2 - 1) / np.sqrt(2), 900, 900, 900),
        (np.tanh, 300, 400, 800),
        (np.sign, 60, 700, 500),
    ],
)
def test_sampled_layers(activation, n0, n1, m):
    rng = np.random.default_rng(0)
    y = activation(rng.standard_normal((n1, n0)) @ rng.standard_normal((n0, m)) / np.sqrt(n0))
    eigenvalues = np.linalg.eigvalsh(y @ y.T / m)
    eigenvalues[: max(0, n1 - m)] = 0.0
    law = PenningtonWorah.from_activation(activation, input_ratio=n0 / m, width_ratio=n0 / n1)
    levels = (np.arange(n1) + 0.5) / n1
    used = eigenvalues > 0
    assert law.ratio == pytest.approx(n1 / m)
    assert np.abs(law.cdf(eigenvalues) - levels)[used].max() < (0.02 if n0 == 900 else 0.03)
    if n0 != n1:
        swapped = PenningtonWorah(law.width_ratio, law.input_ratio, law.eta, law.zeta)
        assert np.abs(swapped.cdf(eigenvalues) - levels)[used].max() > 0.05


@pytest.mark.parametrize("zeta", [0.0, 1e-10, 0.3, 0.99])
@pytest.mark.parametrize("ratio", [0.06, 3.5])
def test_square_outputs_have_a_hard_edge_at_zero(ratio, zeta):
    law = PenningtonWorah(ratio, ratio, 1.0, zeta)
    assert law.support[0][0] == 0 and not law.atoms and law.cdf(0.0) == 0 and law.pdf(1e-6) > 10
    # Of a Gaussian layer with the same moments: eta^2 (1 + n_1 / m) + zeta^2 n_1 / n_0.
    assert law.moment(2) == pytest.approx(2 + zeta * zeta / ratio, rel=1e-9)
    nodes, weights = law.gauss_rule(3)
    assert weights @ nodes**2 == pytest.approx(law.moment(2), rel=1e-8)


def test_linear_layers_have_the_rank_of_their_inputs():
    law = PenningtonWorah(0.06, 0.06, 1.0, 1.0)
    assert law.atoms == [(0.0, pytest.approx(0.94))] and law.cdf(0.0) == pytest.approx(0.94) and law.support[0][0] > 1


def test_activations_differ():
    """The law is no single curve: the distance between two activations of equal variance is far above the test's tolerance."""
    x = np.linspace(0.01, 3, 50)
    linear, curved = PenningtonWorah(1.0, 1.0, 1.0, 0.93), PenningtonWorah(1.0, 1.0, 1.0, 0.0)
    assert np.abs(linear.cdf(x) - curved.cdf(x)).max() > 0.05


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((0.0, 1.0, 1.0, 0.5), "The argument input_ratio, .* positive finite"),
        ((1.0, -1.0, 1.0, 0.5), "The argument width_ratio, .* positive finite"),
        ((1.0, 1.0, 0.0, 0.0), "The argument eta, .* positive finite"),
        ((1.0, 1.0, 1.0, 1.1), "The argument zeta, .* is between 0 and eta = 1 "),
        ((1.0, 1.0, 1.0, -0.1), "The argument zeta, .* is between 0 and eta = 1 "),
        ((1.0, 1.0, 1.0, np.nan), "The argument zeta, .* must be a finite number"),
    ],
)
def test_bad_parameters_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        PenningtonWorah(*arguments)


@pytest.mark.parametrize(
    "activation, words",
    [
        ("tanh", "must be a function of an array"),
        (lambda z: 1.0, "must return real numbers of the shape"),
        (lambda z: z + 1j, "must return real numbers"),
        (lambda z: np.full_like(z, 2.0), "is constant"),
        (lambda z: np.where(z > 1, np.nan, z), "must be finite"),
        (lambda z: z.nothing, "the call failed"),
    ],
)
def test_bad_activations_are_named(activation, words):
    with pytest.raises(ValueError, match=words):
        activation_moments(activation)
