"""Matrices that are held or made anew: the same matrix, and the same products."""

import numpy as np
import pytest
from helpers import BACKENDS, DTYPES, eps, random_array

import linop_spectra as ls
from linop_spectra.random_matrices import wigner, wishart
from linop_spectra.random_matrices.ensembles import ensemble


def make_wigner(dtype, **options):
    return wigner(61, variance=2.0, seed=4, ensemble="gue" if np.dtype(dtype).kind == "c" else "goe", dtype=dtype, **options)


def make_wishart(dtype, **options):
    return wishart(23, 157, seed=4, dtype=dtype, population=np.linspace(0, 3, 23), **options)


@pytest.mark.parametrize("panel", [1, 300, 4_000, 40_000])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_wigner_matrix_is_the_same_to_the_bit_whatever_the_pieces(dtype, panel, monkeypatch):
    reference = make_wigner(dtype)
    assert reference.stored and len(list(reference.panels())) == 1
    dense = reference.to_dense()
    np.testing.assert_array_equal(dense, dense.conj().T)
    monkeypatch.setattr(ensemble, "PANEL_BYTES", panel)
    held = make_wigner(dtype)
    anew = make_wigner(dtype, memory_budget=1000)
    assert held.stored and not anew.stored and "stored" in repr(held) and "regenerated in every product" in repr(anew)
    for other in (held, anew):
        np.testing.assert_array_equal(other.to_dense(), dense)
        x = random_array((61, 5), dtype, 0)
        np.testing.assert_allclose(other @ x, dense @ x, atol=200 * eps(dtype))
    assert len(list(anew.panels())) > 1


@pytest.mark.parametrize("panel", [1, 300, 4_000])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_data_of_a_wishart_matrix_are_the_same_to_the_bit(dtype, panel, monkeypatch):
    def data(operator):
        return np.vstack([operator._panel(first, last) for first, last in operator.panels()])

    reference = make_wishart(dtype)
    expected = data(reference)
    dense = expected.T @ expected.conj()
    monkeypatch.setattr(ensemble, "PANEL_BYTES", panel)
    held = make_wishart(dtype)
    formed = make_wishart(dtype, memory_budget=3 * held.gram_bytes)
    anew = make_wishart(dtype, memory_budget=1000)
    assert held.stored and not held.gram_stored and formed.gram_stored and not anew.stored and not anew.gram_stored
    assert "formed once and stored" in repr(formed) and "regenerated in every product" in repr(anew)
    assert "157 samples, stored" in repr(held)
    for other in (reference, held, formed, anew):
        np.testing.assert_array_equal(data(other), expected)
        x = random_array((23, 5), dtype, 0)
        np.testing.assert_allclose(other @ x, dense @ x, atol=500 * eps(dtype))
        assert ls.check_operator(other).passed


@pytest.mark.parametrize("make", [make_wigner, make_wishart])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 3])
def test_products_are_the_same_to_the_bit_held_or_not(make, dtype, k, monkeypatch):
    monkeypatch.setattr(ensemble, "PANEL_BYTES", 1000)
    held, anew = make(dtype), make(dtype, memory_budget=1000)
    x = random_array((held.shape[0], k), dtype, 1)
    np.testing.assert_array_equal(held @ x, anew @ x)
    np.testing.assert_array_equal(held @ x, held @ x)
    runs = [ls.lanczos(operator, 8, seed=1) for operator in (held, anew)]
    np.testing.assert_array_equal(runs[0].alphas, runs[1].alphas)
    np.testing.assert_array_equal(runs[0].betas, runs[1].betas)


@pytest.mark.parametrize("make", [make_wigner, make_wishart])
def test_sums_over_many_panels_are_made_in_double_precision(make, monkeypatch):
    monkeypatch.setattr(ensemble, "PANEL_BYTES", 1)
    operator = make(np.float32)
    panels = [operator._panel(first, last).astype(float) for first, last in operator.panels()]
    if make is make_wishart:
        exact = sum(panel.T @ panel for panel in panels)
    else:
        exact = np.zeros(operator.shape)
        for row, panel in enumerate(panels):
            exact[row, : row + 1] = exact[: row + 1, row] = panel[0]
    x = np.abs(random_array((operator.shape[0], 1), np.float32, 0))
    size = np.abs(exact) @ x
    assert np.all(np.abs(operator @ x - exact @ x.astype(float)) <= 2 * eps(np.float32) * size)


@pytest.mark.parametrize("make", [make_wigner, make_wishart])
@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_has_the_same_matrix(make, name):
    for dtype in (np.float32, np.complex128):
        reference = make(dtype)
        for budget in (None, 1000):
            other = make(dtype, backend=BACKENDS[name](), memory_budget=budget)
            dense = other.backend.to_numpy(other.to_dense())
            np.testing.assert_allclose(dense, reference.to_dense(), atol=20 * eps(dtype))
            assert ls.check_operator(other).passed


def test_nothing_is_made_before_the_first_product_and_then_once():
    class Counting(type(wigner(2))):
        made = 0

        def _panel(self, first, last):
            type(self).made += 1
            return super()._panel(first, last)

    def counting(budget):
        Counting.made = 0
        return Counting(50, 1.0, "goe", np.dtype(float), seed=0, memory_budget=budget, backend=None)

    held = counting(None)
    assert Counting.made == 0
    for _ in range(3):
        held @ np.ones((50, 2))
    assert Counting.made == len(list(held.panels()))
    anew = counting(5000)
    for _ in range(3):
        anew @ np.ones((50, 2))
    assert Counting.made == 3 * len(list(anew.panels())) > 3


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("budget", [None, 4000])
def test_an_interruption_while_it_is_made_leaves_it_usable(error, budget, monkeypatch):
    monkeypatch.setattr(ensemble, "PANEL_BYTES", 1000)
    operator = make_wishart(float, memory_budget=budget) if budget is None else make_wishart(float, memory_budget=budget + 300)
    expected = operator.to_dense()
    fresh = make_wishart(float, memory_budget=operator.memory_budget)
    make, calls = fresh._panel, []

    def fail(first, last):
        calls.append(first)
        if len(calls) == 3:
            raise error
        return make(first, last)

    monkeypatch.setattr(fresh, "_panel", fail)
    with pytest.raises(error):
        fresh @ np.ones(23)
    np.testing.assert_array_equal(fresh.to_dense(), expected)


def test_the_budget_holds():
    """What is held is no more than the budget, the waste of the diagonal blocks included, for budgets around the size."""
    n = 700
    triangle = n * (n + 1) // 2 * 8
    for budget in range(triangle - 10_000, 2 * triangle, 200_000):
        operator = wigner(n, memory_budget=budget)
        operator @ np.ones(n)
        held = 0 if operator._held is None else sum(panel.nbytes for panel in operator._held)
        assert held <= budget and (held > 0) == operator.stored
        assert operator.num_bytes == held if held else operator.num_bytes > budget
    assert wigner(n, memory_budget=2 * triangle).stored


def test_a_matrix_of_any_order_is_an_object_of_nothing():
    operator = wigner(10**8, seed=1)
    assert not operator.stored and next(operator.panels()) == (0, 724) and "40000000 GB" not in repr(operator)
    assert "regenerated" in repr(operator) and "regenerated" in repr(wishart(10**8, 10**8))


def test_regenerated_is_much_smaller_than_the_matrix():
    """A matrix of 40 GB is an object of nothing, and its first rows are at hand."""
    operator = wigner(100_000, seed=1, memory_budget="1GB")
    assert not operator.stored and operator.num_bytes > 39e9
    panels = list(operator.panels())
    assert all((last - first) * last * 8 <= ensemble.PANEL_BYTES for first, last in panels)
    assert [first for first, _ in panels] == [0, *(last for _, last in panels[:-1])] and panels[-1][1] == 100_000
    assert operator._panel(0, 3).shape == (3, 3)


@pytest.mark.parametrize("make", [lambda **o: wigner(5, **o), lambda **o: wishart(5, 5, **o)])
@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"seed": -1}, ValueError, "The argument seed must be a whole number of at least 0, but is -1"),
        ({"seed": 1.5}, ValueError, "The argument seed must be a whole number"),
        ({"seed": True}, ValueError, "The argument seed must be a whole number"),
        ({"seed": None}, ValueError, "The argument seed must be a whole number"),
        ({"memory_budget": "much"}, ValueError, "The argument memory_budget is 'much'"),
        ({"memory_budget": -5}, ValueError, "The argument memory_budget must be positive"),
        ({"backend": "abacus"}, ValueError, "The argument backend is 'abacus'"),
        ({"dtype": int}, TypeError, "The argument dtype is int64"),
    ],
)
def test_bad_options_are_named(make, options, error, words):
    with pytest.raises(error, match=words):
        make(**options)


@pytest.mark.parametrize("make", [make_wigner, make_wishart])
def test_wrong_shapes_and_not_a_number(make):
    operator = make(float)
    with pytest.raises(ValueError, match=r"needs a vector of length"):
        operator @ np.ones(7)
    with pytest.raises(ValueError, match=r"needs a block of vectors"):
        operator @ np.ones((7, 2))
    assert np.all(np.isnan(operator @ np.full(operator.shape[0], np.nan)))
