"""Freezing of the softmax of Gaussian logits: quadrature against samples, closed forms and the limit of many classes."""

import numpy as np
import pytest
from scipy import integrate, special

from linop_spectra.random_matrices.models import expected_uncertainty, freezing_scale, frozen_participation


@pytest.mark.parametrize("scale", [0.001, 1.0, 2.0, 5.0, 15.0])
@pytest.mark.parametrize("boost", [0.0, 4.0, -3.0])
def test_quadrature_against_samples(scale, boost):
    rng = np.random.default_rng(0)
    logits = scale * rng.standard_normal((40_000, 10))
    logits[:, 0] += boost
    values = 1 - (special.softmax(logits, axis=1) ** 2).sum(axis=1)
    error = values.std() / 200
    assert expected_uncertainty(10, scale, label_boost=boost) == pytest.approx(values.mean(), abs=4 * error + 1e-13)


@pytest.mark.parametrize("scale", [0.1, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("boost", [0.0, 2.0])
def test_two_classes_are_one_integral(scale, boost):
    """With p = sigmoid(d), d normal of variance 2 scale^2 around the boost, 1 - sum p^2 = 2 p (1 - p)."""
    def integrand(t):
        d = boost + np.sqrt(2) * scale * t
        return 2 * special.expit(d) * special.expit(-d) * np.exp(-t * t / 2) / np.sqrt(2 * np.pi)

    centre = -boost / (np.sqrt(2) * scale)
    expected = integrate.quad(integrand, -12, 12, points=[np.clip(centre, -12, 12)], epsabs=1e-13, limit=500)[0]
    assert expected_uncertainty(2, scale, label_boost=boost) == pytest.approx(expected, abs=1e-11)


def test_the_published_traces():
    """Traces 1.341, 1.191, 0.906, 0.457, 0.152 for D (s_c^2 + s_E^2) = 1.49; the last digits there are of one draw of logits."""
    found = [1.49 * expected_uncertainty(10, scale) for scale in (0.001, 1, 2, 5, 15)]
    assert found == pytest.approx([1.341, 1.191, 0.906, 0.457, 0.152], rel=0.04)
    assert found[0] == pytest.approx(1.341, rel=1e-6)


def test_limits():
    assert expected_uncertainty(7, 0.0) == pytest.approx(1 - 1 / 7, rel=1e-13)
    assert expected_uncertainty(7, 1e-6) == pytest.approx(1 - 1 / 7, rel=1e-9)
    p = special.softmax([3.0, 0, 0])
    assert expected_uncertainty(3, 0.0, label_boost=3.0) == pytest.approx(1 - (p**2).sum(), rel=1e-12)
    # Small scales: 1 - sum p^2 loses (C - 1) / C^2 s^2 to first order.
    loss = (1 - 1 / 10) - expected_uncertainty(10, 0.01)
    assert loss == pytest.approx(9 / 100 * 1e-4, rel=1e-3)
    scales = [0.1, 1, 2, 4, 8, 16]
    assert np.all(np.diff([expected_uncertainty(10, s) for s in scales]) < 0)


def test_freezing():
    assert freezing_scale(10) == pytest.approx(2.146, abs=5e-4)
    # Between two and three freezing scales the limit is approached as the number of classes grows.
    for factor in (2.0, 4.0):
        gaps = []
        for classes in (10**2, 10**4, 10**8):
            scale = factor * freezing_scale(classes)
            limit = frozen_participation(classes, scale)
            assert limit == pytest.approx(1 - 1 / factor)
            gaps.append(abs(1 - expected_uncertainty(classes, scale) - limit))
        assert gaps[0] > gaps[1] > gaps[2] and gaps[2] < 0.04
    hot = 0.3 * freezing_scale(10**8)
    assert frozen_participation(10**8, hot) == 0 and 1 - expected_uncertainty(10**8, hot) < 1e-5


def test_bad_input():
    for call, message in [
        (lambda: expected_uncertainty(1, 1.0), "num_classes"),
        (lambda: expected_uncertainty(3, -1.0), "logit_scale"),
        (lambda: expected_uncertainty(3, np.nan), "logit_scale"),
        (lambda: expected_uncertainty(3, 1.0, label_boost=np.inf), "label_boost"),
        (lambda: freezing_scale(0), "num_classes"),
        (lambda: frozen_participation(5, -1.0), "logit_scale"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
