"""Section ``eigsh``: six eigenpairs of the collection's matrices, against ARPACK at equal true residuals and against LAPACK."""

from __future__ import annotations

import os
import pathlib
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.io
import scipy.sparse
import scipy.sparse.linalg
from core_common import in_turns, profile, ratio, show, show_profile

import linop_spectra as ls

K = 6
LEVEL = 1e-8  # largest residual allowed, relative to the norm of the matrix
# ours asks for residuals relative to the norm, ARPACK relative to each eigenvalue: beside a large norm its tolerance may exceed one.
LADDERS = {
    "ours": tuple(10.0**-e for e in range(2, 15)),
    "unverified": tuple(10.0**-e for e in range(2, 15)),
    "arpack": tuple(10.0**-e for e in range(-8, 15)),
}
TARGET = 1.5


def folder() -> pathlib.Path | None:
    """Where the matrices are, or None."""
    root = pathlib.Path(__file__).resolve().parent.parent
    for candidate in (os.environ.get("LINOP_SPECTRA_DATA"), root.parent / "shared" / "data"):
        if candidate and (pathlib.Path(candidate) / "matrices").is_dir():
            return pathlib.Path(candidate) / "matrices"
    return None


def load(path: pathlib.Path) -> tuple[Any, str]:
    """A Hermitian CSR matrix, and what was done to make it one. Entries of pattern files are ones."""
    matrix = scipy.sparse.csr_matrix(scipy.io.mmread(path))
    matrix = matrix.astype(np.complex128 if matrix.dtype.kind == "c" else np.float64)
    if abs(matrix - matrix.conj().T).max() == 0:
        return matrix, ""
    return ((matrix + matrix.conj().T) / 2).tocsr(), "the symmetric part (A + A^H) / 2 was taken"


class Solver:
    """One side: solves at a tolerance, and finds the loosest one at which the true residuals are small enough."""

    def __init__(self, name: str, solve: Callable[[Any, str, float], tuple[np.ndarray, np.ndarray]], matrix: Any, which: str) -> None:
        self.name, self.solve, self.matrix, self.which = name, solve, matrix, which

    def __call__(self, matrix: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """Values and vectors at the tolerance that was settled on; of `matrix` where it is given, a counting copy."""
        return self.solve(self.matrix if matrix is None else matrix, self.which, self.tol)

    def settle(self, norm: float, exact: np.ndarray | None, budget: float) -> dict[str, Any]:
        """The loosest tolerance of the ladder whose residuals are at most LEVEL and whose eigenvalues are the right ones.

        Tolerances whose residuals are small enough but whose eigenvalues are others (a copy of a multiple one is missing, say)
        are listed under ``wrong_at``. One solve may take `budget` seconds.
        """
        wrong_at: list[float] = []
        found: dict[str, Any] = {}
        for tol in LADDERS[self.name]:
            self.tol = tol
            counted, count = self._counting(time.perf_counter() + budget)
            try:
                values, vectors = self(counted)
            except (scipy.sparse.linalg.ArpackError, TimeoutError, ls.LanczosInterrupted) as error:
                found = found or {"failed": f"{type(error).__name__} at tol {self.tol:.0e} after {count[0]} products"}
                break
            # Of the matrix itself: neither side's own word.
            residual = float(np.max(np.linalg.norm(self.matrix @ vectors - vectors * values, axis=0))) / norm
            if residual > LEVEL:
                continue
            found = {"tol": self.tol, "residual": residual, "products": count[0], "values": np.sort(values)}
            found["error"] = float(np.max(np.abs(np.sort(values) - exact))) / norm if exact is not None else None
            # A pair with this residual is that near some eigenvalue. Farther from the wanted one it is another's.
            if exact is None or found["error"] <= 10 * LEVEL:
                break
            wrong_at.append(self.tol)
        if not found:
            return {"failed": f"residual {residual:.0e} at tol {self.tol:.0e}"}
        self.tol = found.get("tol", self.tol)
        return {**found, "wrong_at": wrong_at, "checked": exact is not None}

    def _counting(self, deadline: float) -> tuple[scipy.sparse.linalg.LinearOperator, list[int]]:
        count = [0]

        def product(x: np.ndarray) -> np.ndarray:
            if time.perf_counter() > deadline:
                raise TimeoutError
            count[0] += 1 if x.ndim == 1 else x.shape[1]
            return self.matrix @ x

        return scipy.sparse.linalg.LinearOperator(self.matrix.shape, product, dtype=self.matrix.dtype, matmat=product), count


def ours(matrix: Any, which: str, tol: float, verify: bool = True) -> tuple[np.ndarray, np.ndarray]:
    operator = ls.aslinearoperator(matrix, hermitian=True)  # both sides take the user's word for it
    result = ls.eigsh(operator, K, which=which, tol=tol, verify=verify)  # type: ignore[arg-type]
    return result.eigenvalues, np.asarray(result.eigenvectors)


def unverified(matrix: Any, which: str, tol: float) -> tuple[np.ndarray, np.ndarray]:
    """Without the search for missed pairs, which ARPACK does not have either."""
    return ours(matrix, which, tol, verify=False)


def arpack(matrix: Any, which: str, tol: float) -> tuple[np.ndarray, np.ndarray]:
    start = np.random.default_rng(0).standard_normal(matrix.shape[0])
    values, vectors = scipy.sparse.linalg.eigsh(matrix, K, which=which, tol=tol, v0=start)
    return values, vectors


def wanted(spectrum: np.ndarray, which: str) -> np.ndarray:
    """The eigenvalues that `which` asks for, ascending."""
    order = {"LA": np.argsort(-spectrum), "SA": np.argsort(spectrum), "LM": np.argsort(-np.abs(spectrum))}[which]
    return np.sort(spectrum[order[:K]])


def run(options: Any) -> dict[str, Any] | None:
    place = folder()
    if place is None:
        print("left out: no folder of matrices; set LINOP_SPECTRA_DATA to the folder that has `matrices` in it")
        return None
    rounds, dense_up_to, budget = (3, 1300, 10.0) if options.small else (7, 5500, 120.0)
    rounds = options.rounds or rounds
    rows = []
    print(f"k = {K}, residuals at most {LEVEL:.0e} of the norm; ratio = time of linop_spectra / time of ARPACK, median (least to most)")
    for path in sorted(place.glob("*.mtx.gz"), key=lambda path: path.stat().st_size):
        name = path.name.removesuffix(".mtx.gz")
        if options.matrices and not any(name.startswith(prefix) for prefix in options.matrices):
            continue
        if options.small and not options.matrices and path.stat().st_size > 60_000:
            continue
        matrix, note = load(path)
        n = matrix.shape[0]
        spectrum = np.linalg.eigvalsh(matrix.toarray()) if n <= dense_up_to else None
        if spectrum is not None:
            norm = float(np.max(np.abs(spectrum)))
        else:
            norm = float(abs(scipy.sparse.linalg.eigsh(matrix, 1, which="LM", tol=1e-3, return_eigenvectors=False)[0]))
        for which in ("LA", "SA", "LM"):
            exact = None if spectrum is None else wanted(spectrum, which)
            rows.append({"matrix": name, "n": n, "which": which, "note": note, **compare(matrix, which, norm, exact, rounds, budget)})
            print(_line(rows[-1]), flush=True)
    _summary(rows)
    return {"k": K, "level": LEVEL, "rounds": rounds, "target": TARGET, "rows": rows, "profiles": _profiles(place, rows)}


def compare(matrix: Any, which: str, norm: float, exact: np.ndarray | None, rounds: int, budget: float) -> dict[str, Any]:
    sides = [Solver(solve.__name__, solve, matrix, which) for solve in (ours, unverified, arpack)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {side.name: side.settle(norm, exact, budget) for side in sides}
        usable = {side.name: side for side in sides if "failed" not in found[side.name]}
        longest = max([0.0, *(in_turns(usable, 1)[name][0] for name in usable)])
        times = in_turns(usable, max(1, min(rounds, int(5.0 / max(longest, 1e-3)))))
    for name, values in times.items():
        found[name]["seconds"] = float(np.median(values))
    if "unverified" in usable and "arpack" in usable:
        found["ratio unverified"] = ratio(times["unverified"], times["arpack"])
    if "ours" in usable and "arpack" in usable:
        found["ratio"] = ratio(times["ours"], times["arpack"])
        found["differ"] = float(np.max(np.abs(found["ours"]["values"] - found["arpack"]["values"]))) / norm
    for name in usable:
        found[name]["values"] = list(found[name]["values"])
    return found


def _line(row: dict[str, Any]) -> str:
    parts = []
    for name in LADDERS:
        side = row[name]
        if "failed" in side:
            parts.append(f"{name} FAILED: {side['failed']}")
            continue
        verdict = "" if side["checked"] else " (eigenvalues not checked)"
        if side["wrong_at"]:
            verdict = f", WRONG at tol {side['wrong_at'][0]:.0e} to {side['wrong_at'][-1]:.0e}"
        tol = f"tol {side['tol']:.0e}, residual {side['residual']:.0e}"
        parts.append(f"{name} {1e3 * side['seconds']:.1f} ms, {side['products']} products, {tol}{verdict}")
    if "ratio" in row:
        products = row["ours"]["products"] / max(row["arpack"]["products"], 1)
        other = f" (unverified {row['ratio unverified']['median']:.2f})" if "ratio unverified" in row else ""
        differ = " THE TWO DIFFER" if row["differ"] > 10 * LEVEL else ""
        parts.append(f"ratio {show(row['ratio'])}{other}, products {products:.2f}{differ}")
    return f"{row['matrix']:18s} n = {row['n']:6d} {row['which']}: " + "; ".join(parts) + (f"; {row['note']}" if row["note"] else "")


def _summary(rows: list[dict[str, Any]]) -> None:
    for key in ("ratio", "ratio unverified"):
        ratios = [row[key]["median"] for row in rows if key in row]
        if ratios:
            within = sum(value <= TARGET for value in ratios)
            spread = f"least {min(ratios):.2f}, most {max(ratios):.2f}"
            print(f"{key}: median {np.median(ratios):.2f}, {spread}; within {TARGET}: {within} of {len(ratios)}")
    for name in LADDERS:
        wrong = [f"{row['matrix']} {row['which']}" for row in rows if row[name].get("wrong_at")]
        failed = [f"{row['matrix']} {row['which']}" for row in rows if "failed" in row[name]]
        print(f"{name}: wrong: {', '.join(wrong) or 'none'}; failed: {', '.join(failed) or 'none'}")


def _profiles(place: pathlib.Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Where ours spends its time: on the three slowest by ratio, and where products are cheapest."""
    both = [row for row in rows if "ratio" in row]
    slow = sorted(both, key=lambda row: -row["ratio"]["median"])[:3] + [row for row in both if row["n"] > 100][:1]
    profiles = {}
    for row in slow:
        matrix, _ = load(place / f"{row['matrix']}.mtx.gz")

        def make(backend: Any, matrix: Any = matrix) -> Any:
            return ls.aslinearoperator(matrix, hermitian=True, backend=backend)

        def work(operator: Any, which: str = row["which"], tol: float = row["ours"]["tol"]) -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ls.eigsh(operator, K, which=which, tol=tol)  # type: ignore[arg-type]

        name = f"{row['matrix']} {row['which']}"
        result = profiles[name] = profile(make, work)
        step = (result["spent"]["python between them"]) / max(row["ours"]["products"], 1)
        print(f"profile of {name}: {show_profile(result)}; Python {1e6 * step:.0f} us per product")
    return profiles
