"""Laws given by their transform alone, against closed forms of the same laws."""

import dataclasses

import numpy as np
import pytest
from law_checks import check_consistency

from linop_spectra.random_matrices import MarchenkoPastur, Semicircle, SpectralLaw
from linop_spectra.random_matrices.laws.numerical_law import NumericalLaw


@dataclasses.dataclass(frozen=True)
class FromTransform(NumericalLaw):
    """A law of which only support, atoms and transform are used."""

    law: SpectralLaw

    @property
    def support(self):
        return self.law.support

    @property
    def atoms(self):
        return self.law.atoms

    def stieltjes(self, z):
        return self.law.stieltjes(z)


LAWS = [Semicircle(), Semicircle(1e-8), *(MarchenkoPastur(c, 2.0) for c in (1e-4, 0.25, 1.0, 1.0001, 4.0))]


@pytest.mark.parametrize("exact", LAWS, ids=str)
def test_everything_follows_from_the_transform(exact):
    law = FromTransform(exact)
    q = np.concatenate([[0, 1e-9, 1e-5], np.linspace(0.001, 1, 301)])
    x = exact.quantile(q)
    np.testing.assert_allclose(law.cdf(x), exact.cdf(x), atol=1e-12)
    np.testing.assert_allclose(law.quantile(q), x, atol=1e-11 * (x.max() - x.min()))
    np.testing.assert_allclose(law.pdf(x[x != 0]), exact.pdf(x[x != 0]), rtol=1e-9, atol=1e-12)
    scale = exact.support[0][1] ** np.arange(8.0)
    np.testing.assert_allclose(law.moments(8) / scale, exact.moments(8) / scale, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(law.var(), exact.var(), rtol=1e-12)
    for one, other in zip(law.jacobi_coefficients(100), exact.jacobi_coefficients(100), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-11 * exact.support[0][1])


def test_an_edge_that_cannot_be_told_from_a_hard_one():
    exact = MarchenkoPastur(1 + 1e-9)
    x = np.concatenate([10.0 ** -np.arange(1, 25), np.linspace(0.1, 4, 50)])
    np.testing.assert_allclose(FromTransform(exact).cdf(x), exact.cdf(x), atol=2e-9)


@pytest.mark.parametrize("exact", [Semicircle(2.0), MarchenkoPastur(0.25, 2.0), MarchenkoPastur(1.0)], ids=str)
def test_transforms_by_inversion_are_the_closed_forms(exact):
    law = FromTransform(exact)
    w = np.array([-0.3, -1e-3, -1e-9, 0.0, 1e-6, 0.01, 0.2, 0.3])
    np.testing.assert_allclose(law.r_transform(w), exact.r_transform(w), rtol=1e-11, atol=1e-13)
    assert isinstance(law.r_transform(0.1), float) and law.r_transform(np.full((2, 3), 0.1)).shape == (2, 3)
    off = np.array([0.1 - 0.2j, -0.2 + 0.3j, 0.2 - 1e-4j, 0.01j, 1e-5 + 1e-5j, 0.1 + 0j])
    np.testing.assert_allclose(law.r_transform(off), exact.r_transform(off), rtol=1e-11)
    if exact.support[0][0] >= 0:
        w = np.array([-0.9, -0.3, -1e-3, 0.0, 1e-7, 0.01, 0.3, -0.2 + 0.1j])
        np.testing.assert_allclose(law.s_transform(w), exact.s_transform(w), rtol=1e-10)


def test_no_inverse_is_an_error():
    law = FromTransform(MarchenkoPastur(4.0))
    with pytest.raises(ValueError, match=r"The argument w has the value 0.3, but outside this law the Cauchy transform stays below 0.1666"):
        law.r_transform([0.1, 0.3])
    with pytest.raises(ValueError, match=r"does not exist there"):
        law.r_transform(0.3 + 0.1j)
    with pytest.raises(ValueError, match=r"exists only above -0.25, minus the mass that is not at zero"):
        law.s_transform(-0.3)
    with pytest.raises(ValueError, match="The argument w must be finite"):
        law.r_transform(np.nan)
    with pytest.raises(ValueError, match="The argument w meets the pole of the r_transform"):
        MarchenkoPastur(0.5).r_transform(2.0)


def test_consistency_with_atoms():
    for exact in (MarchenkoPastur(4.0), MarchenkoPastur(1.0), Semicircle(0.3)):
        check_consistency(FromTransform(exact))


def test_a_law_that_does_not_add_up_is_refused():
    @dataclasses.dataclass(frozen=True)
    class Short(FromTransform):
        @property
        def atoms(self):
            return []

    with pytest.raises(ArithmeticError, match=r"The density of Short integrates to 0.25, but the mass beside its atoms is 1"):
        Short(MarchenkoPastur(4.0)).cdf(1.0)


def test_bad_arguments_are_named():
    law = FromTransform(Semicircle())
    for call, name in ((lambda: law.moment(-1), "k"), (lambda: law.quantile(1.1), "q"), (lambda: law.jacobi_coefficients(0), "k")):
        with pytest.raises(ValueError, match=f"The argument {name} "):
            call()
