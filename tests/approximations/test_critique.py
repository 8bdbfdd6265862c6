"""The table of what an approximation loses: rows against dense matrices, verdicts, costs, and awkward matrices."""

import math
import warnings

import numpy as np
import pytest
from helpers import BACKENDS, DTYPES, goe, rotated
from scipy import stats
from test_diagonal_approximations import hidden

import linop_spectra as ls
from linop_spectra.approximations import Critique, approximate, critique
from linop_spectra.approximations.critique import _loss_of
from linop_spectra.approximations.critique_rows import judge
from linop_spectra.approximations.critique_truth import distance, probe_products

SPECTRUM = np.r_[-2.0, 8.0, 6.0, 5.0, np.linspace(-0.5, 1.0, 396)]
PROPERTIES = (
    "trace", "frobenius_norm", "frobenius_error", "spectral_norm", "smallest_eigenvalue", "negative_mass", "effective_dimension",
    "num_outliers", "wasserstein", "kolmogorov", "top_subspace_overlap",
)  # fmt: skip


def dense_row(matrix, other, property, damping, k=5):
    """Truth and approximation by dense algebra."""
    w, u = np.linalg.eigh(matrix)
    x, v = np.linalg.eigh(other)
    order, own = np.argsort(-abs(w))[:k], np.argsort(-abs(x))[:k]
    share = lambda e: np.sum(np.maximum(e, 0) / (np.maximum(e, 0) + damping))  # noqa: E731
    return {
        "trace": (w.sum(), x.sum()),
        "frobenius_norm": (np.linalg.norm(matrix), np.linalg.norm(other)),
        "frobenius_error": (0.0, np.linalg.norm(matrix - other)),
        "spectral_norm": (abs(w).max(), abs(x).max()),
        "smallest_eigenvalue": (w[0], x[0]),
        "negative_mass": (np.mean(w < -1e-9), np.mean(x < -1e-9)),
        "effective_dimension": (share(w), share(x)),
        "wasserstein": (0.0, stats.wasserstein_distance(w, x)),
        "kolmogorov": (0.0, stats.ks_2samp(w, x).statistic),
        "top_subspace_overlap": (1.0, np.sum((u[:, order].T @ v[:, own]) ** 2) / k),
    }[property]


@pytest.mark.parametrize("form", ["dense", "products"])
@pytest.mark.parametrize("kind, options", [
    ("diagonal", {}), ("block", {"partition": 100}), ("low_rank_plus_diagonal", {"rank": 6}),
    ("low_rank_plus_diagonal", {"rank": 6, "remainder": "scalar"}),
])  # fmt: skip
def test_every_row(form, kind, options):
    matrix = rotated(SPECTRUM)
    approximation = approximate(matrix, kind, **options)
    table = critique(matrix if form == "dense" else hidden(matrix), approximation, num_steps=60, num_probes=4, dampings=[3.0], seed=1)
    assert [row.property for row in table.rows] == [*PROPERTIES, "newton_step_cosine[3]"]
    other = np.asarray(approximation.to_dense())
    for row in table.rows:
        if row.property in ("num_outliers", "newton_step_cosine[3]"):
            continue
        truth, value = dense_row(matrix, other, row.property, 3.0)
        for estimate, exact in ((row.truth, truth), (row.estimate, value)):
            low, high = estimate.confidence_interval(0.999)
            assert low - 1e-6 <= exact <= high + 1e-6, (row, exact)
            if form == "dense":
                assert estimate.value == pytest.approx(exact, abs=1e-6)
    row = table["newton_step_cosine[3]"]
    g = hidden(matrix).backend.probes(400, (0,), kind="normal", seed=1, domain="critique gradient", dtype=np.dtype(float))[0]
    one, two = np.linalg.solve(matrix + 3 * np.eye(400), g), np.linalg.solve(other + 3 * np.eye(400), g)
    assert row.approximation == pytest.approx(one @ two / np.linalg.norm(one) / np.linalg.norm(two), abs=1e-5)
    assert row.null == pytest.approx(one @ g / np.linalg.norm(one) / np.linalg.norm(g), abs=1e-5)
    assert table["num_outliers"].truth.value == 4
    assert any("random right side" in note for note in table.notes)


def test_the_matrix_itself_is_a_perfect_approximation():
    for source in (rotated(SPECTRUM), hidden(rotated(SPECTRUM))):
        table = critique(source, ls.aslinearoperator(rotated(SPECTRUM), hermitian=True), dampings=[3.0, 5.0])
        assert {row.verdict for row in table.rows} <= {"ok", "unresolved"}
        assert table["frobenius_error"].verdict == table["spectral_norm"].verdict == table["top_subspace_overlap"].verdict == "ok"
        assert table["newton_step_cosine[5]"].approximation == pytest.approx(1, abs=1e-6)


def test_products_are_counted():
    matrix = rotated(np.r_[10.0, 8.0, np.linspace(0, 1, 998)])
    count = 0

    def product(x):
        nonlocal count
        count += x.shape[1] if x.ndim == 2 else 1
        return matrix @ x

    source = ls.aslinearoperator(product, shape=matrix.shape, dtype=float, hermitian=True)
    diagonal = approximate(matrix, "diagonal")
    table = critique(source, {"one": diagonal, "two": approximate(matrix, "scalar")}, num_steps=20, num_probes=2)
    assert table.num_matvecs == count == source.num_matvecs
    # Another approximation costs no products with the matrix.
    assert critique(source, diagonal, num_steps=20, num_probes=2).num_matvecs == table.num_matvecs
    # A density from before saves its own.
    S = ls.spectral_density(hidden(matrix), num_steps=20, num_probes=2)
    saved = critique(source, diagonal, num_steps=20, num_probes=2, truth=S)
    assert saved.num_matvecs <= table.num_matvecs - 40
    assert saved["frobenius_norm"].truth.value == pytest.approx(table.of("one")["frobenius_norm"].truth.value, rel=1e-12)


def test_the_frobenius_error_is_covered():
    """95 % intervals of 300 runs with sixteen products."""
    matrix = rotated(SPECTRUM)
    approximation = approximate(matrix, "diagonal")
    exact, hits = np.linalg.norm(matrix - approximation.to_dense()), 0
    for seed in range(300):
        low, high = distance(approximation, *probe_products(hidden(matrix), 16, seed)).confidence_interval(0.95)
        hits += low <= exact <= high
    assert hits >= stats.binom.ppf(1e-4, 300, 0.93)  # three long rows make the squares skewed


def test_several_approximations_in_one_table():
    matrix = rotated(SPECTRUM)
    named = {"diag": approximate(matrix, "diagonal"), "low rank": approximate(matrix, "low_rank_plus_diagonal", rank=6)}
    table = critique(matrix, named)
    assert table.names == ("diag", "low rank") and len(table.rows) == 2 * len(table.properties)
    text = str(table)
    lines = [line for line in text.splitlines() if not line.startswith("Note")]
    assert lines[0].split()[:3] == ["property", "matrix", "diag"] and len(lines) == 2 + len(table.properties)
    starts = [lines[1].find("-", 0), lines[1].find("  -") + 2]
    assert all(len(line) <= 2 or line[starts[1] - 2 : starts[1]] == "  " for line in lines[2:])
    alone = critique(matrix, named["low rank"])
    pairs = [[(row.property, row.approximation) for row in one.rows] for one in (table.of("low rank"), alone)]
    assert pairs[0] == pairs[1]
    assert table.of("low rank")["spectral_norm"].verdict == "ok" and table.of("diag")["spectral_norm"].verdict == "meaningless"
    with pytest.raises(KeyError, match="There is no approximation 'kfac'"):
        table.of("kfac")
    with pytest.raises(KeyError, match=r"has 2 rows for 'trace'; choose an approximation by .of\(name\)"):
        table["trace"]
    with pytest.raises(KeyError, match="has no 'tracee'"):
        table["tracee"]
    assert critique(matrix, [named["diag"], named["diag"]]).names == ("diagonal", "diagonal 2")


def test_the_table_prints_saves_and_loads(tmp_path):
    matrix = rotated(SPECTRUM)
    table = critique(matrix, approximate(matrix, "diagonal"), seed=2)
    text = str(table)
    assert "random basis" in text.splitlines()[0] and "spectral_norm" in text and "meaningless" in text
    assert "<pre>" in table._repr_html_() and "diagonal" in repr(table)
    table.save(tmp_path / "table.npz")
    again = ls.load(tmp_path / "table.npz")
    assert isinstance(again, Critique) and str(again) == text and again.rows == table.rows and again.notes == table.notes
    assert [row.approximation for row in again.rows] == [row.approximation for row in table.rows]


def test_same_seed_same_table():
    matrix = rotated(SPECTRUM)
    diagonal = approximate(matrix, "diagonal")
    one, two, other = (str(critique(hidden(matrix), diagonal, num_steps=30, num_probes=2, seed=seed)) for seed in (4, 4, 5))
    assert one == two != other


def test_a_diagonal_that_carries_information_beats_the_null():
    """Two groups of parameters of different scale, each with a random basis: the diagonal sees the groups and no more."""
    matrix = np.zeros((600, 600))
    matrix[:300, :300] = 10 * rotated(np.linspace(0.5, 1.5, 300), seed=1)
    matrix[300:, 300:] = 0.1 * rotated(np.linspace(0.5, 1.5, 300), seed=2)
    table = critique(matrix, approximate(matrix, "diagonal"), dampings=[0.01])
    for property in ("frobenius_norm", "frobenius_error", "wasserstein", "newton_step_cosine[0.01]"):
        assert property in table.beats_null["diagonal"], property
    assert table["newton_step_cosine[0.01]"].approximation > 0.9 > table["newton_step_cosine[0.01]"].null
    haar = rotated(np.r_[np.linspace(5, 15, 300), np.linspace(0.05, 0.15, 300)])
    assert critique(haar, approximate(haar, "diagonal"), dampings=[0.01]).beats_null["diagonal"] == ()


def test_dampings_by_default():
    """Shares of the norm, and twice the most negative curvature on top."""
    for low, lift in ((-3.0, 6.0), (0.5, 0.0)):
        matrix = np.diag(np.r_[low, np.linspace(1, 10, 29)])
        table = critique(matrix, approximate(matrix, "diagonal"))
        steps = [row.property for row in table.rows if row.property.startswith("newton")]
        assert steps == [f"newton_step_cosine[{lift + share * 10:.3g}]" for share in (0.001, 0.01, 0.1)]
        assert any("most negative curvature" in note for note in table.notes) == (lift > 0)
        share = np.diag(matrix)[np.diag(matrix) > 0]
        assert table["effective_dimension"].truth.value == pytest.approx(np.sum(share / (share + lift + 0.1)))


def test_steps_that_did_not_converge_are_uncertain():
    """Twenty iterations at a condition number of 1e5: the cosine is off, and its interval says so."""
    matrix = rotated(np.logspace(-5, 0, 300))
    other = np.diag(np.linspace(1, 2, 300))
    g = np.random.default_rng(0).standard_normal(300)
    row = critique(hidden(matrix), other, num_steps=1, num_probes=1, num_pairs=1, gradient=g, dampings=[0.0])["newton_step_cosine[0]"]
    one, two = np.linalg.solve(matrix, g), np.linalg.solve(other, g)
    exact = one @ two / np.linalg.norm(one) / np.linalg.norm(two)
    low, high = row.estimate.confidence_interval(0.95)
    assert abs(row.approximation - exact) > 1e-3 and low <= exact <= high and row.verdict == "unresolved"


def test_zeros_are_no_outliers():
    matrix = rotated(np.r_[np.zeros(200), np.linspace(1, 1.3, 195), 20.0, 22.0, 24.0, 26.0, 28.0])
    row = critique(hidden(matrix), approximate(matrix, "low_rank", rank=150))["num_outliers"]
    assert row.truth.value == row.approximation == 5


def test_operators_that_are_no_approximations_of_ours():
    """A plain diagonal operator is compared as the diagonal is."""
    matrix = rotated(SPECTRUM)
    ours = critique(matrix, approximate(matrix, "diagonal"), dampings=[3.0])
    plain = critique(matrix, ls.diagonal_operator(np.diag(matrix)), dampings=[3.0])
    for one, other in zip(ours.rows, plain.rows, strict=True):
        assert other.approximation == pytest.approx(one.approximation, rel=1e-5, abs=1e-9) and other.null == one.null
    assert plain.names == ("approximation",)


def test_agreement_by_coincidence():
    """Half of the diagonal of a Wigner matrix is negative, as half of its eigenvalues are: by symmetry, not by information."""
    matrix = goe(300, np.random.default_rng(0))
    row = critique(matrix, approximate(matrix, "diagonal"))["negative_mass"]
    assert row.relative_error < 0.1 and row.verdict == "meaningless" and "coincidence" in row.note


def test_unresolved_where_the_truth_is_not_known_well_enough():
    matrix = rotated(np.r_[np.full(20, 10.0), np.full(1980, 0.01)][:1000])
    few = critique(hidden(matrix), ls.aslinearoperator(matrix, hermitian=True), num_steps=4, num_probes=1, dampings=[1.0])
    assert few["wasserstein"].verdict == "unresolved" and few["trace"].truth.standard_error > 0


@pytest.mark.parametrize("error, uncertainty, verdict", [
    (0.0, 0.0, "ok"), (0.09, 0.0, "ok"), (0.11, 0.0, "biased"), (0.6, 0.0, "meaningless"), (0.3, 0.15, "biased"), (0.3, 0.3, "unresolved"),
    (0.08, 0.05, "ok"), (0.12, 0.05, "biased"), (2.0, 1.0, "meaningless"), (2.0, 1.7, "biased"), (np.nan, 0.0, "meaningless"),
    (np.inf, 0.0, "meaningless"), (0.0, np.inf, "unresolved"),
])  # fmt: skip
def test_verdicts(error, uncertainty, verdict):
    assert judge(error, uncertainty) == verdict


@pytest.mark.parametrize("name", ["zero", "identity", "negative", "order one", "order two"])
@pytest.mark.parametrize("kind", ["diagonal", "scalar"])
def test_awkward_matrices(name, kind):
    matrix = {
        "zero": np.zeros((20, 20)), "identity": np.eye(20), "negative": -np.diag(np.arange(1.0, 21)), "order one": np.array([[2.0]]),
        "order two": np.array([[0.0, 1.0], [1.0, 0.0]]),
    }[name]  # fmt: skip
    for source in (matrix, hidden(matrix)):
        table = critique(source, approximate(matrix, kind))
        exact = (kind == "diagonal" and name != "order two") or name in ("zero", "identity", "order one")
        for row in table.rows:
            assert not math.isnan(row.relative_error), row
            if exact:
                # Eigenvectors of a multiple eigenvalue are not determined.
                open_question = row.property == "top_subspace_overlap" and name in ("zero", "identity")
                assert row.verdict == ("unresolved" if open_question else "ok"), row
        str(table)


def test_large_multiples_of_the_identity():
    """By products alone: all rounding, nothing to resolve."""
    for factor in (0.0, 1.0):
        source = ls.aslinearoperator(lambda x, factor=factor: factor * x, shape=(3000, 3000), dtype=float, hermitian=True)
        table = critique(source, approximate(source, "scalar", num_matvecs=10))
        assert all(row.verdict == "ok" for row in table.rows if row.property != "top_subspace_overlap")


def test_a_singular_approximation_has_no_step():
    matrix = np.diag([1.0, 2.0, 3.0])
    table = critique(matrix, np.diag([0.0, 2.0, 3.0]), dampings=[0.0])
    row = critique(matrix, approximate(np.diag([0.0, 2.0, 3.0]), "diagonal"), dampings=[0.0])["newton_step_cosine[0]"]
    assert math.isnan(row.approximation) and row.verdict == "meaningless" and "has no inverse" in row.note
    assert len(table.rows) == 12


@pytest.mark.parametrize("dtype", DTYPES)
def test_types(dtype):
    matrix = rotated(SPECTRUM[:60], dtype=dtype)
    for source in (matrix, hidden(matrix)):
        table = critique(source, approximate(matrix, "diagonal"), num_steps=10, num_probes=2)
        assert table["trace"].relative_error < 0.3 and table["spectral_norm"].truth.value == pytest.approx(8, rel=1e-3)


@pytest.mark.parametrize("name", BACKENDS)
def test_on_every_backend(name):
    backend, matrix = BACKENDS[name](), rotated(SPECTRUM[:60])
    expected = critique(hidden(matrix), approximate(hidden(matrix), "diagonal"), num_steps=10, num_probes=2, seed=3)
    found = critique(hidden(matrix, backend), approximate(hidden(matrix, backend), "diagonal"), num_steps=10, num_probes=2, seed=3)
    for one, two in zip(expected.rows, found.rows, strict=True):
        assert two.approximation == pytest.approx(one.approximation, rel=1e-4, abs=1e-6), one.property


def test_steps_that_an_approximation_did_not_solve_are_noted():
    """What the approximation's own solve warns of is a note of its rows, and no warning of the call."""
    matrix = rotated(np.r_[np.zeros(30), np.linspace(1, 2, 30)])
    table = critique(matrix, {"block": approximate(hidden(matrix), "block", partition=[60], dense_limit=0)}, dampings=[0.0, 0.5])
    assert "solved to a relative residual of" in table["newton_step_cosine[0]"].note
    assert table["newton_step_cosine[0.5]"].note == "" and table["newton_step_cosine[0.5]"].verdict == "ok"


def test_nothing_warns():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source = hidden(goe(700, np.random.default_rng(1)))
        critique(source, approximate(source, "diagonal", num_matvecs=8), num_steps=10, num_probes=2)


@pytest.mark.parametrize("change, words", [
    ({"approximation": np.eye(5)}, r"has shape \(5, 5\), but the matrix has shape \(6, 6\)"),
    ({"approximation": {}}, "The argument approximation is empty"),
    ({"approximation": np.triu(np.ones((6, 6)))}, "needs a Hermitian"),
    ({"A": np.triu(np.ones((6, 6)))}, "critique needs a Hermitian"),
    ({"matrix": "ggn"}, "chooses a matrix of an objective"),
    ({"dampings": []}, "dampings is empty"),
    ({"dampings": [-1.0]}, "damping must be zero or positive"),
    ({"gradient": np.ones(5)}, r"gradient must have shape \(6,\)"),
    ({"num_steps": 0}, "num_steps"),
    ({"num_pairs": 0}, "num_pairs"),
    ({"num_probes": 0}, "num_probes"),
    ({"tolerances": (0.5, 0.1)}, "tolerances must be two"),
    ({"truth": ls.spectral_density(np.eye(4), num_steps=1)}, "of order 4, but this one has order 6"),
])  # fmt: skip
def test_wrong_arguments(change, words):
    arguments = {"A": np.diag(np.arange(1.0, 7)), "approximation": np.eye(6), **change}
    with pytest.raises(ValueError, match=words):
        critique(**arguments)


class TestObjectives:
    """Gradient and loss of an objective; the same table in every framework."""

    def test_frameworks_agree(self):
        examples = pytest.importorskip("test_example_gradients")
        jax = pytest.importorskip("jax")
        settings = {"jax_enable_x64": True, "jax_disable_most_optimizations": True}  # the second compiles quickly
        before = {name: jax.config.values[name] for name in settings}
        for name, value in settings.items():
            jax.config.update(name, value)
        try:
            tables = {}
            for name, make in examples.FRAMEWORKS.items():
                objective = make("mse")
                named = {"d": approximate(objective, "diagonal"), "g": approximate(objective, "squared_gradients")}
                tables[name] = critique(objective, named)
        finally:
            for name, value in before.items():
                jax.config.update(name, value)
        for name, table in tables.items():
            for one, two in zip(tables["torch"].rows, table.rows, strict=True):
                assert one.property.partition("[")[0] == two.property.partition("[")[0]
                assert two.approximation == pytest.approx(one.approximation, rel=1e-6, abs=1e-9), (name, one.property)
                assert two.truth.value == pytest.approx(one.truth.value, rel=1e-6, abs=1e-9), (name, one.property)

    def test_steps_and_losses(self):
        examples = pytest.importorskip("test_example_gradients")
        objective = examples.in_torch("cross_entropy")
        approximation = approximate(objective, "diagonal", matrix="ggn")
        table = critique(objective, approximation, matrix="ggn", dampings=[0.5, 2.0, 4.0])
        g, dense = objective.gradient(), np.asarray(objective.ggn().to_dense())
        own, theta = np.diag(np.diag(dense)), objective.parameters()
        step, taken = (np.linalg.solve(m + 2 * np.eye(len(g)), g) for m in (dense, own))
        start = objective.value()
        row = table["predicted_decrease"]
        assert row.approximation == pytest.approx(g @ taken - 0.5 * taken @ own @ taken, rel=1e-10)
        assert row.truth.value == pytest.approx(start - objective.with_parameters(theta - taken).value(), rel=1e-10)
        row = table["loss_decrease"]
        assert row.truth.value == pytest.approx(start - objective.with_parameters(theta - step).value(), rel=1e-10)
        cauchy = g * (g @ g) / (g @ dense @ g)
        assert row.null == pytest.approx(start - objective.with_parameters(theta - cauchy).value(), rel=1e-10)
        assert not any("random right side" in note for note in table.notes)
        np.testing.assert_array_equal(objective.parameters(), theta)

    def test_of_an_operator_that_knows_its_objective(self):
        examples = pytest.importorskip("test_example_gradients")
        objective = examples.in_torch("mse")
        approximation = approximate(objective, "diagonal")
        assert str(critique(objective.hessian(), approximation)) == str(critique(objective, approximation))

    def test_a_quadratic_is_predicted_exactly(self):
        """A loss and a gradient of the user's own, without an objective."""
        matrix, g = rotated(np.linspace(1, 3, 30)), np.random.default_rng(0).standard_normal(30)
        operator = ls.aslinearoperator(matrix, hermitian=True)
        table = critique(operator, operator, gradient=g, loss=lambda step: float(g @ step + 0.5 * step @ matrix @ step), dampings=[0.1])
        row = table["predicted_decrease"]
        assert row.approximation == pytest.approx(row.truth.value, rel=1e-6) and row.verdict == "ok"
        assert table["loss_decrease"].truth.value > table["loss_decrease"].null > 0

    def test_a_diagonal_step_that_raises_the_loss_says_why(self):
        """A gradient in a leading eigenvector that is spread over all entries: the exact diagonal's step is far too long."""
        n = 200
        u = np.random.default_rng(0).standard_normal(n)
        u /= np.linalg.norm(u)
        matrix, g, damping = 5 * np.outer(u, u) + 0.01 * np.eye(n), 0.3 * u, 0.5
        loss = lambda step: float(g @ step + 0.5 * step @ matrix @ step)  # noqa: E731
        table = critique(matrix, approximate(matrix, "diagonal"), gradient=g, loss=loss, dampings=[damping])
        step = g / (np.diag(matrix) + damping)
        decrease, best = -loss(-step), (g @ step) / (step @ matrix @ step)
        row = table["predicted_decrease"]
        assert row.truth.value == pytest.approx(decrease, rel=1e-9) and decrease < 0 < row.approximation
        assert "the loss rises because" in row.note and f"({best:.2g} of the step)" in row.note
        assert table["loss_decrease"].approximation == pytest.approx(decrease, rel=1e-9)
        # With a third-order term that the matrix knows nothing of, it is the quadratic model that is to blame.
        cubic = lambda step: loss(step) - 40 * float(u @ step) ** 3  # noqa: E731
        row = critique(matrix, matrix, gradient=g, loss=cubic, dampings=[damping])["predicted_decrease"]
        assert "not quadratic that far" in row.note
        fine = critique(matrix, matrix, gradient=g, loss=loss, dampings=[1.0])["predicted_decrease"]
        assert "rises" not in row.note and ";" not in fine.note

    @pytest.fixture
    def trained(self):
        torch = pytest.importorskip("torch")
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(1)
        y = torch.arange(120) % 4
        x = 2 * torch.randn(4, 8, generator=generator).double()[y] + torch.randn(120, 8, generator=generator).double()
        model = torch.nn.Sequential(torch.nn.Linear(8, 24), torch.nn.Tanh(), torch.nn.Linear(24, 4)).double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for _ in range(40):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        optimizer.zero_grad()
        return ls.objective(model, "cross_entropy", (x, y), batch_size=30)

    def test_a_report_saves_the_products_of_steps_and_eigenvectors(self, trained):
        report = ls.curvature_report(trained, num_steps=60, num_probes=1, batches=False)
        diagonal = approximate(trained, "diagonal", method="exact")
        options = {"num_steps": 60, "num_probes": 1, "num_pairs": 3}
        alone, saved = critique(trained, diagonal, **options), critique(trained, diagonal, truth=report, **options)
        dense, g, theta = np.asarray(trained.hessian().to_dense()), trained.gradient(), trained.parameters()
        w, u = np.linalg.eigh(dense)
        for row in saved.rows:
            if not row.property.startswith("newton_step_cosine"):
                continue
            damping = 2 * max(-w[0], 0) + {0: 1e-3, 1: 1e-2, 2: 1e-1}[list(saved.properties).index(row.property) - 11] * abs(w).max()
            one, two = np.linalg.solve(dense + damping * np.eye(len(g)), g), g / (np.diag(dense) + damping)
            exact = one @ two / np.linalg.norm(one) / np.linalg.norm(two)
            low, high = row.estimate.confidence_interval(0.95)
            assert low - 1e-6 <= exact <= high + 1e-6 and row.approximation == pytest.approx(exact, abs=1e-3)
        middle = 2 * max(-w[0], 0) + 1e-2 * abs(w).max()
        step = np.linalg.solve(dense + middle * np.eye(len(g)), g)
        decrease = trained.value() - trained.with_parameters(theta - step).value()
        assert saved["loss_decrease"].truth.value == pytest.approx(decrease, rel=1e-3)
        top = u[:, np.argsort(-abs(w))[:3]]
        entries = np.argsort(-abs(np.diag(dense)))[:3]
        overlap, interval = np.sum(top[entries] ** 2) / 3, saved["top_subspace_overlap"].estimate.confidence_interval(0.95)
        assert interval[0] - 1e-9 <= overlap <= interval[1] + 1e-9
        assert saved["top_subspace_overlap"].approximation == pytest.approx(overlap, abs=1e-2)
        assert saved.num_matvecs <= alone.num_matvecs - 120  # the density, the pairs, and three solves

    def test_a_report_at_other_parameters_gives_no_steps(self, trained):
        """The run along another gradient is not taken for this one's steps."""
        theta = trained.parameters()
        elsewhere = trained.with_parameters(theta + 0.3 * np.random.default_rng(0).standard_normal(len(theta)))
        report = ls.curvature_report(elsewhere, num_steps=60, num_probes=1, batches=False)
        diagonal = approximate(trained, "diagonal", method="exact")
        found = critique(trained, diagonal, truth=report, num_steps=60, dampings=[1.0])["newton_step_cosine[1]"]
        dense, g = np.asarray(trained.hessian().to_dense()), trained.gradient()
        one, two = np.linalg.solve(dense + np.eye(len(g)), g), g / (np.diag(dense) + 1)
        assert found.approximation == pytest.approx(one @ two / np.linalg.norm(one) / np.linalg.norm(two), abs=1e-5)

    def test_at_a_minimum(self):
        torch = pytest.importorskip("torch")
        model = torch.nn.Linear(3, 1, bias=False).double()
        x = torch.eye(3).double()
        objective = ls.objective(model, "mse", (x, model(x).detach()))
        table = critique(objective, approximate(objective, "diagonal"))
        assert any("the gradient is zero" in note for note in table.notes)
        assert all(row.verdict == "ok" for row in table.rows if row.property != "top_subspace_overlap")

    def test_kronecker_factors(self):
        examples = pytest.importorskip("test_example_gradients")
        objective = examples.in_torch("mse")
        table = critique(objective, {kind: approximate(objective, kind) for kind in ("kfac", "ekfac")}, matrix="ggn")
        assert table.of("ekfac")["trace"].truth.value > 0 and not any("Gauss-Newton" in note for note in table.notes)
        hessian = critique(objective, approximate(objective, "kfac"))
        assert any(note.startswith("kfac stands for the Gauss-Newton matrix") for note in hessian.notes)
        assert table.of("ekfac")["frobenius_error"].approximation <= table.of("kfac")["frobenius_error"].approximation * (1 + 1e-9)


def test_kinds_stand_for_their_approximations():
    A = ls.aslinearoperator(rotated(1.0 / np.arange(1, 61)), hermitian=True)
    by_name = ls.critique(A, ["diagonal", "scalar"], num_steps=20)
    by_operator = ls.critique(A, [ls.approximate(A, "diagonal"), ls.approximate(A, "scalar")], num_steps=20)
    assert by_name.names == by_operator.names == ("diagonal", "scalar")
    assert [row.approximation for row in by_name.rows] == pytest.approx([row.approximation for row in by_operator.rows], nan_ok=True)
    assert ls.critique(A, "scalar", num_steps=20).names == ("scalar",)
    with pytest.raises(ValueError, match="kind"):
        ls.critique(A, "nothing")


def test_only_a_loss_that_is_not_finite_has_no_value_after_a_step():
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        model.weight.fill_(1.0)
    one = torch.ones(2, 1).double()

    def wall(outputs, targets):
        return ((outputs - targets) ** 2).mean() * (float("inf") if float(outputs.detach().max()) > 9 else 1.0)

    def broken(outputs, targets):
        if float(outputs.detach().max()) > 9:
            raise ValueError("This loss knows no such outputs.")
        return ((outputs - targets) ** 2).mean()

    first, second = (_loss_of(ls.objective(model, loss, (one, one))) for loss in (wall, broken))
    assert first(np.array([1.0])) == second(np.array([1.0])) == 1.0 and math.isnan(first(np.array([10.0])))
    with pytest.raises(ValueError, match="no such outputs"):
        second(np.array([10.0]))
