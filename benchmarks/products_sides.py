"""The sides that products.py compares on torch models: this library, curvlinops, hessian-eigenthings and PyHessian."""

# ruff: noqa: D101, D102 -- methods are documented by Side

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse.linalg
import torch
from products_models import Problem

Run = Callable[[], Any]
K, TOLERANCE = 5, 1e-3


class Side:
    """One library on one problem. What it cannot do is None."""

    package = ""
    steps = 50
    """Of `slq`."""

    def __init__(self, problem: Problem) -> None:
        if self.package:
            importlib.import_module(self.package)
        self.problem = problem.copied()

    def build(self, matrix: str) -> Any:
        """An operator, as the library makes it by default: what `build` measures."""
        raise NotImplementedError

    def fast(self, matrix: str) -> Any:
        """An operator without checks that cost products, where the library lets one switch them off."""
        return self.build(matrix)

    def product(self, operator: Any, v: np.ndarray) -> Run:
        """One product with `v`, given in whatever form the library likes best; its result is a flat NumPy array."""
        raise NotImplementedError

    def slq(self, operator: Any) -> Run | None:
        """A spectral density by `steps` steps from one probe."""
        return None

    def top(self, operator: Any) -> Callable[..., np.ndarray] | None:
        """The K eigenvalues of largest modulus to TOLERANCE; with ``steps`` where the number of steps must be guessed."""
        return None

    guesses = False


class Ours(Side):
    """linop_spectra. Operators are new for each long task, so that their linearisation counts."""

    def build(self, matrix: str) -> Any:
        import linop_spectra as ls

        objective = ls.objective(self.problem.model, "cross_entropy", self.problem.batches)
        return objective.hessian() if matrix == "hessian" else objective.ggn()

    def product(self, operator: Any, v: np.ndarray) -> Run:
        return lambda: operator @ v

    def slq(self, operator: Any) -> Run | None:
        import linop_spectra as ls

        # Deflation is this library's own extra, with products of its own: all sides do the same here.
        return lambda: ls.spectral_density(self.build("hessian"), num_steps=self.steps, num_probes=1, deflate=False)

    def top(self, operator: Any) -> Callable[..., np.ndarray] | None:
        import linop_spectra as ls

        return lambda: ls.eigsh(self.build("hessian"), K, which="LM", tol=TOLERANCE).eigenvalues


class Unverified(Ours):
    """The same without the search for missed pairs."""

    def top(self, operator: Any) -> Callable[..., np.ndarray] | None:
        import linop_spectra as ls

        return lambda: ls.eigsh(self.build("hessian"), K, which="LM", tol=TOLERANCE, verify=False).eigenvalues


class Recomputed(Ours):
    """The same with nothing kept from one product to the next, as where memory is short."""

    def build(self, matrix: str) -> Any:
        operator = super().build(matrix)
        operator._linearizations._budget = 0  # a memory_budget this small would cut the data as well
        return operator

    def slq(self, operator: Any) -> Run | None:
        return None

    def top(self, operator: Any) -> Callable[..., np.ndarray] | None:
        return None


class Curvlinops(Side):
    package = "curvlinops"

    def build(self, matrix: str, **options: Any) -> Any:
        from curvlinops import GGNLinearOperator, HessianLinearOperator

        kind = HessianLinearOperator if matrix == "hessian" else GGNLinearOperator
        model = self.problem.model
        return kind(model, torch.nn.CrossEntropyLoss(), list(model.parameters()), self.problem.batches, **options)

    def fast(self, matrix: str) -> Any:
        return self.build(matrix, check_deterministic=False)

    def product(self, operator: Any, v: np.ndarray) -> Run:
        w = torch.from_numpy(v)
        return lambda: (operator @ w).detach().numpy()

    def slq(self, operator: Any) -> Run | None:
        from curvlinops import lanczos_approximate_spectrum

        return lambda: lanczos_approximate_spectrum(operator, self.steps)

    def top(self, operator: Any) -> Callable[..., np.ndarray] | None:
        def run() -> np.ndarray:
            return scipy.sparse.linalg.eigsh(operator.to_scipy(), K, which="LM", tol=TOLERANCE)[0]

        return run


class Eigenthings(Side):
    package = "hessian_eigenthings"
    guesses = True

    def build(self, matrix: str) -> Any:
        import hessian_eigenthings as he

        loss = torch.nn.functional.cross_entropy
        if matrix == "hessian":
            return he.HessianOperator(self.problem.model, self.problem.batches, he.supervised_loss(loss))
        return he.GGNOperator(self.problem.model, self.problem.batches, he.supervised_forward, he.supervised_loss_of_output(loss))

    def product(self, operator: Any, v: np.ndarray) -> Run:
        w = torch.from_numpy(v)
        return lambda: operator.matvec(w).detach().numpy()

    def slq(self, operator: Any) -> Run | None:
        import hessian_eigenthings as he

        return lambda: he.spectral_density(operator, num_runs=1, lanczos_steps=self.steps, seed=0)

    def top(self, operator: Any) -> Callable[..., np.ndarray] | None:
        import hessian_eigenthings as he

        def run(steps: int = 20) -> np.ndarray:
            return he.lanczos(operator, k=K, max_iter=steps, seed=0, which="LM").eigenvalues.numpy()

        return run


class PyHessian(Side):
    package = "pyhessian"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        if not _has_eig():
            torch.eig = _eig  # its density() calls a function that torch has no longer

    def build(self, matrix: str) -> Any:
        from pyhessian import hessian

        if matrix != "hessian":
            return None
        batches, loss = self.problem.batches, torch.nn.CrossEntropyLoss()
        for parameter in self.problem.model.parameters():
            parameter.grad = None  # backward() adds to what an earlier one left
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, that backward(create_graph=True) leaks memory
            if len(batches) == 1:
                return hessian(self.problem.model, loss, data=batches[0], cuda=False)
            return hessian(self.problem.model, loss, dataloader=batches, cuda=False)

    def product(self, operator: Any, v: np.ndarray) -> Run:
        from pyhessian.utils import hessian_vector_product

        parts = torch.from_numpy(v).split([p.numel() for p in operator.params])
        w = [part.view(p.shape) for part, p in zip(parts, operator.params, strict=True)]

        def run() -> np.ndarray:
            rows = operator.dataloader_hv_product(w)[1] if operator.full_dataset else hessian_vector_product(
                operator.gradsH, operator.params, w
            )
            return torch.cat([row.reshape(-1) for row in rows]).numpy()

        return run

    def slq(self, operator: Any) -> Run | None:
        return lambda: operator.density(iter=self.steps, n_v=1)

    def top(self, operator: Any) -> Callable[..., np.ndarray] | None:
        return lambda: np.array(operator.eigenvalues(maxIter=100, tol=TOLERANCE, top_n=K)[0])


def _has_eig() -> bool:
    try:
        torch.eig(torch.eye(2), eigenvectors=True)
    except (AttributeError, RuntimeError):
        return False
    return True


def _eig(matrix: torch.Tensor, eigenvectors: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    values, vectors = torch.linalg.eigh(matrix)
    return torch.stack([values, torch.zeros_like(values)], dim=1), vectors


SIDES: dict[str, type[Side]] = {
    "ours": Ours,
    "ours recomputed": Recomputed,
    "ours unverified": Unverified,
    "curvlinops": Curvlinops,
    "eigenthings": Eigenthings,
    "pyhessian": PyHessian,
}
PACKAGES = {
    "curvlinops": "curvlinops-for-pytorch",
    "eigenthings": "hessian-eigenthings",
    "pyhessian": "pyhessian",
    "matfree": "matfree",
}


def sides(of: Problem) -> tuple[dict[str, Side], list[str]]:
    """The sides that are installed, and a line for each that is not."""
    found: dict[str, Side] = {}
    missing = []
    for name, kind in SIDES.items():
        try:
            found[name] = kind(of)
        except ImportError as error:
            missing.append(f"{name} is left out: {error}; pip install {PACKAGES.get(name, name)}")
    return found, missing
