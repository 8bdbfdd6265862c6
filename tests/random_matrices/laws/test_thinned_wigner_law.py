"""Atom and moments of thinned Wigner matrices, against sampled ones."""

import numpy as np
import pytest
from scipy import sparse
from scipy.sparse import csgraph

from linop_spectra.random_matrices import Semicircle
from linop_spectra.random_matrices.laws.thinned_wigner_law import thinned_wigner_atom, thinned_wigner_moment


def thinned(n, degree, seed):
    rng = np.random.default_rng(seed)
    upper = sparse.triu(sparse.random(n, n, density=degree / n, random_state=rng, data_rvs=rng.standard_normal), k=1)
    return ((upper + upper.T) / np.sqrt(degree)).tocsr()


@pytest.mark.parametrize("degree, atom", [(1, 0.456), (2, 0.216), (5, 0.0074)])
def test_atom_has_the_published_values(degree, atom):
    assert thinned_wigner_atom(degree) == pytest.approx(atom, abs=5e-4 if degree < 5 else 5e-5)


@pytest.mark.parametrize("degree", [0.3, 1.0, 2.5, 3.5, 6.0])
def test_atom_is_the_share_without_partner_in_a_large_graph(degree):
    """The rank of generic weights on a graph is that of its bipartite double cover's matching."""
    n = 100_000
    graph = thinned(n, degree, seed=4)
    share = np.mean(csgraph.maximum_bipartite_matching(graph) < 0)
    assert thinned_wigner_atom(degree) == pytest.approx(share, abs=5 / np.sqrt(n))


def test_atom_in_the_limits_and_across_e():
    assert thinned_wigner_atom(1e-6) == pytest.approx(1 - 1e-6, abs=1e-9)
    assert 0 <= thinned_wigner_atom(30.0) == pytest.approx(np.exp(-30), rel=0.1, abs=1e-14)
    degrees = np.linspace(2.5, 3.0, 101)
    atoms = np.array([thinned_wigner_atom(d) for d in degrees])
    assert np.all(np.diff(atoms) < 0) and np.abs(np.diff(atoms)).max() < 2e-3


@pytest.mark.parametrize("degree", [0.5, 2.0, 10.0])
def test_moments(degree):
    moments = [thinned_wigner_moment(degree, k) for k in range(7)]
    assert moments[:6] == pytest.approx([1, 0, 1, 0, 2 + 3 / degree, 0])
    # Sixth: 5 trees of three edges; 6 pairs with one edge doubled, weight 3; one edge, weight 15.
    assert moments[6] == pytest.approx(5 + 6 * 3 / degree + 15 / degree**2)


def test_moments_of_a_large_sample():
    """Traces of powers of a sample of n = 40,000; the bounds are five standard errors from ten parts."""
    n, degree = 40_000, 3.0
    a = thinned(n, degree, seed=1)
    a2 = a @ a
    for k, diagonal in ((4, a2.multiply(a2).sum(axis=1)), (6, (a2 @ a).power(2).sum(axis=1)), (8, (a2 @ a2).power(2).sum(axis=1))):
        parts = np.asarray(diagonal).ravel().reshape(10, -1).mean(axis=1)
        error = parts.std(ddof=1) / np.sqrt(10)
        assert abs(parts.mean() - thinned_wigner_moment(degree, k)) < 5 * error < thinned_wigner_moment(degree, k) / 2


def test_many_entries_give_the_semicircle():
    for k in (2, 4, 8, 12):
        assert thinned_wigner_moment(1e9, k) == pytest.approx(Semicircle().moment(k), rel=1e-6)


@pytest.mark.parametrize("function", [thinned_wigner_atom, lambda degree: thinned_wigner_moment(degree, 4)])
@pytest.mark.parametrize("degree", [0.0, -1.0, np.nan, np.inf, "2"])
def test_bad_degree(function, degree):
    with pytest.raises(ValueError, match="The argument degree, the mean number of entries in a row, must be a positive finite number"):
        function(degree)
    with pytest.raises(ValueError, match="The argument k "):
        thinned_wigner_moment(1.0, -2)
