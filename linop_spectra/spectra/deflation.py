"""Implicit deflation: a converged simple eigenvalue has weight 1/n, whatever the probe says.

A single probe gives an isolated eigenvalue the weight chi^2_1 / n, whose standard deviation is 141 % of its mean. The weight
of a simple eigenvalue is known, though: 1/n. Pinning it there, and rescaling the rest, removes most of the sampling error of
outlier spectra at no cost (Bhattacharjee, Jayaram, Musco, Musco and Ray, 2024, give the theory of the deflated rates).

It is right for simple eigenvalues only, hence two guards. With two or more probes and a stored basis the test is exact: the
weight that probe 2 gives to a simple eigenvalue equals the squared overlap of probe 2 with the Ritz vector found from probe 1,
while a multiple eigenvalue takes more. A selective run has locked eigenvectors instead, found from a vector of their own: only
their eigenvalues are pinned, after the same test of each probe. With one probe only chance speaks: a weight that a simple
eigenvalue would have once in a thousand times is left alone, and so is everything when all converged weights together are that
unlikely.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy

from ..krylov import LanczosResult
from .quadrature import GaussRule, gauss_rule

CONVERGED = 1e-3
"""A Ritz value may be pinned when its residual is below this share of the norm and ..."""
ISOLATED = 10.0
"""... below its gap by this factor."""
ROUNDING = 1e3
"""... and its gap is at least so many units of rounding of the norm: closer eigenvalues cannot be told from one."""
GUARD_LEVEL = 1e-3
"""Chance that the guard of a single probe objects to a simple eigenvalue (10.83 times 1/n for a real probe)."""
STRICT_LEVEL = 0.05
"""Chance that, after one objection, it objects to all the others although they are simple."""


@dataclasses.dataclass(frozen=True, eq=False)
class Atom:
    """An isolated converged eigenvalue, as all probes see it.

    Attributes
    ----------
    value : float
        Ritz value of the probe with the smallest residual.
    residual : float
        Its residual norm.
    shift : float
        Bound on its error: residual squared over gap.
    weight : float
        Mean Gauss weight over the probes that resolve it.
    simple : bool
        Whether it passed the guard.
    places : tuple of int
        Index of its node in the rule of each probe.
    """

    value: float
    residual: float
    shift: float
    weight: float
    simple: bool
    places: tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Deflation:
    """Rules of all probes split into pinned eigenvalues and the rest.

    Attributes
    ----------
    rules : tuple of GaussRule
        One for each probe, as measured.
    atoms : tuple of Atom
        Isolated converged eigenvalues, ascending, pinned or not.
    pinned : numpy.ndarray
        Values of the pinned ones, ascending.
    sharp : tuple of numpy.ndarray
        For each probe, which nodes are isolated and converged (bool, shape (k,)).
    rest : tuple of (numpy.ndarray, numpy.ndarray)
        For each probe nodes and weights of what is not pinned; the weights sum to one.
    rest_sharp : tuple of numpy.ndarray
        The part of `sharp` that belongs to `rest`.
    n : int
        Order of the operator.
    objections : tuple of float
        Values that the guard refused to pin.
    verified : bool
        Whether multiplicities were tested, with a second probe or with locked eigenvectors.
    """

    rules: tuple[GaussRule, ...]
    atoms: tuple[Atom, ...]
    pinned: np.ndarray
    sharp: tuple[np.ndarray, ...]
    rest: tuple[tuple[np.ndarray, np.ndarray], ...]
    rest_sharp: tuple[np.ndarray, ...]
    n: int
    objections: tuple[float, ...]
    verified: bool

    @property
    def rest_dimension(self) -> int:
        """Number of eigenvalues that are not pinned."""
        return self.n - len(self.pinned)

    def of_probe(self, probe: int) -> tuple[np.ndarray, np.ndarray]:
        """Weights at the nodes of one probe's rule, pinned ones included (they sum to one), and which of them are pinned."""
        rule = self.rules[probe]
        is_pinned = np.zeros(len(rule.nodes), dtype=bool)
        is_pinned[[atom.places[probe] for atom in self.atoms if atom.value in self.pinned]] = True
        weights = np.full(len(rule.nodes), 1.0 / self.n)
        weights[~is_pinned] = self.rest_dimension / self.n * self.rest[probe][1]
        return weights, is_pinned

    def pooled(self) -> tuple[np.ndarray, np.ndarray]:
        """All nodes in ascending order and their weights, which sum to one."""
        share = self.rest_dimension / self.n / len(self.rules)
        nodes = np.concatenate([self.pinned, *(x for x, _ in self.rest)])
        weights = np.concatenate([np.full(len(self.pinned), 1.0 / self.n), *(share * w for _, w in self.rest)])
        order = np.argsort(nodes, kind="stable")
        return nodes[order], weights[order]


def node_rounding(run: LanczosResult, rules: tuple[GaussRule, ...]) -> float:
    """Rounding of the nodes by the recurrence: ``4 eps |A| sqrt(k)``."""
    return 4 * float(np.finfo(run.dtype).eps) * max(rule.norm for rule in rules) * float(np.sqrt(run.num_steps))


def sharp_nodes(rule: GaussRule, eps: float) -> np.ndarray:
    """Which nodes have converged to an isolated eigenvalue, in arithmetic with unit rounding `eps`."""
    gaps = rule.gaps
    return (rule.residuals <= CONVERGED * rule.norm) & (ISOLATED * rule.residuals < gaps) & (gaps > ROUNDING * eps * rule.norm)


def without_copies(rule: GaussRule, eps: float) -> GaussRule:
    """Drop nodes that rounding made: a multiple eigenvalue comes again once it has converged, with no weight of its own.

    Such a node is made of rounding alone (its eigenvector meets the probe in less than a unit of it), or lies at rounding
    distance from the node that it copies. The weight goes to the nearest node that stays.
    """
    rule = _as_one(rule, eps)
    order = np.argsort(-rule.weights, kind="stable")
    kept = np.ones(len(order), dtype=bool)
    weights = rule.weights.copy()
    near = ROUNDING * eps * rule.norm
    for position, i in enumerate(order[1:], start=1):
        larger = order[:position][kept[order[:position]]]
        nearest = larger[np.argmin(np.abs(rule.nodes[larger] - rule.nodes[i]))]
        copied = abs(rule.nodes[nearest] - rule.nodes[i]) <= near and rule.weights[i] < eps * rule.weights[nearest]
        if copied or rule.weights[i] < 10 * eps**2:
            kept[i] = False
            weights[nearest] += rule.weights[i]
    if kept.all():
        return rule
    return dataclasses.replace(
        rule, nodes=rule.nodes[kept], weights=weights[kept], residuals=rule.residuals[kept], vectors=rule.vectors[:, kept]
    )


def _as_one(rule: GaussRule, eps: float) -> GaussRule:
    """Nodes closer than rounding become one: their eigenvectors are any mixture, and only what they are together is determined.

    The probe's part in their span is the Ritz vector of both.
    """
    group = np.concatenate([[0], np.cumsum(np.diff(rule.nodes) > 4 * eps * rule.norm * np.sqrt(len(rule.nodes)))])
    if len(group) == group[-1] + 1 or rule.norm == 0.0:
        return rule
    norms = np.sqrt(np.bincount(group, rule.weights))
    part = rule.vectors[0] / np.where(norms > 0, norms, 1.0)[group]
    lonely = norms[group] == 0.0
    part[lonely] = 1.0 / np.sqrt(np.bincount(group)[group[lonely]])
    vectors = np.stack([np.bincount(group, row * part) for row in rule.vectors])
    return dataclasses.replace(
        rule, nodes=np.bincount(group, part**2 * rule.nodes), weights=np.bincount(group, rule.weights),
        residuals=np.abs(np.bincount(group, part * rule.residuals * np.sign(rule.vectors[-1]))), vectors=vectors,
    )  # fmt: skip


def deflate(run: LanczosResult, *, pin: bool) -> Deflation:
    """Find isolated converged eigenvalues and, if `pin`, give the simple ones the weight 1/n.

    Parameters
    ----------
    run : LanczosResult
        A run with uniform probes.
    pin : bool
        Whether to pin at all.

    Returns
    -------
    Deflation
        The split measure.
    """
    n = run.dimension
    eps = float(np.finfo(run.dtype).eps)
    rules = tuple(without_copies(gauss_rule(*run.jacobi(probe)), eps) for probe in range(run.num_probes))
    sharp = tuple(sharp_nodes(rule, eps) for rule in rules)
    # Converged values of two probes differ by the rounding of the recurrence.
    rounding = 10 * eps * np.sqrt(run.num_steps) * max(rule.norm for rule in rules)
    matches = _match(rules, sharp, rounding)
    half = 1.0 if np.dtype(run.dtype).kind == "c" else 0.5
    verified = run.start_overlaps is not None and len(rules) > 1
    certain = np.ones(len(matches), dtype=bool)
    if verified:
        simple = _verified_simple(run, rules, matches)
    else:
        simple = _plausibly_simple(rules, matches, n, half)
        if not run.keeps_basis and len(run.locked_values):
            verified = True
            # What is not locked may be a repetition.
            certain, tested = _locked_simple(run, rules, matches, rounding)
            simple[certain] = tested[certain]
    atoms = tuple(_atom(rules, match, bool(ok)) for match, ok in zip(matches, simple, strict=True))
    chosen = [match for match, ok in zip(matches, simple & certain, strict=True) if pin and ok]
    rest, rest_sharp = _rest(rules, sharp, chosen)
    if any(len(nodes) == 0 for nodes, _ in rest) and len(chosen) != n:
        # Nothing is left to carry the remaining eigenvalues: some pinned ones must be multiple after all.
        chosen, (rest, rest_sharp) = [], _rest(rules, sharp, [])
        atoms = tuple(dataclasses.replace(atom, simple=False) for atom in atoms)
    pinned = np.array([_atom(rules, match, True).value for match in chosen])
    return Deflation(
        rules, tuple(sorted(atoms, key=lambda atom: atom.value)), np.sort(pinned), sharp, rest, rest_sharp, n,
        tuple(atom.value for atom in atoms if not atom.simple), verified,
    )  # fmt: skip


Match = tuple[int, ...]


def _match(rules: tuple[GaussRule, ...], sharp: tuple[np.ndarray, ...], rounding: float) -> list[Match]:
    """Eigenvalues that every probe resolves, as one node index for each probe."""
    matches = []
    for index in np.flatnonzero(sharp[0]):
        match = [int(index)]
        for rule, mask in zip(rules[1:], sharp[1:], strict=True):
            distance = np.abs(rule.nodes - rules[0].nodes[index])
            nearest = int(np.argmin(distance))
            if not mask[nearest] or distance[nearest] > rules[0].residuals[index] + rule.residuals[nearest] + rounding:
                break
            match.append(nearest)
        else:
            matches.append(tuple(match))
    return matches


def _atom(rules: tuple[GaussRule, ...], match: Match, simple: bool) -> Atom:
    best = min(range(len(rules)), key=lambda probe: rules[probe].residuals[match[probe]])
    rule, index = rules[best], match[best]
    residual, gap = float(rule.residuals[index]), float(rule.gaps[index])
    weight = float(np.mean([one.weights[i] for one, i in zip(rules, match, strict=True)]))
    return Atom(float(rule.nodes[index]), residual, residual * (residual / gap), weight, simple, match)


def _verified_simple(run: LanczosResult, rules: tuple[GaussRule, ...], matches: list[Match]) -> np.ndarray:
    """Compare each probe's weight with its squared overlap with the Ritz vector of probe 0."""
    assert run.start_overlaps is not None
    n, first = run.dimension, rules[0]
    k = len(first.vectors)
    eps = float(np.finfo(run.dtype).eps)
    rounding = max(1e3 * eps, 4 * float(np.finfo(run.basis_dtype).eps))  # vectors may be kept in a narrower type
    simple = np.ones(len(matches), dtype=bool)
    for probe in range(1, len(rules)):
        rule = rules[probe]
        overlaps = np.abs(first.vectors.T @ run.start_overlaps[probe, :k]) ** 2
        for position, match in enumerate(matches):
            i, j = match[0], match[probe]
            weight, overlap = n * rule.weights[j], n * overlaps[i]
            # First-order errors of the two Ritz vectors, in units of the standard size 1/sqrt(n) of an overlap.
            angle = sum((r.residuals[node] + 10 * eps * r.norm) / r.gaps[node] for r, node in ((first, i), (rule, j)))
            tolerance = 4 * (1 + np.sqrt(max(weight, overlap))) * angle + rounding * (1 + weight)
            simple[position] &= bool(abs(weight - overlap) <= tolerance)
    return simple


def _locked_simple(
    run: LanczosResult, rules: tuple[GaussRule, ...], matches: list[Match], rounding: float
) -> tuple[np.ndarray, np.ndarray]:
    """Which eigenvalues are locked ones, and which of those are simple: each probe's weight is its squared overlap."""
    n, eps = run.dimension, float(np.finfo(run.dtype).eps)
    found, simple = np.zeros(len(matches), dtype=bool), np.zeros(len(matches), dtype=bool)
    for value, residual, overlaps in zip(run.locked_values, run.locked_residuals, run.locked_overlaps.T, strict=True):
        near = [
            np.flatnonzero(np.abs(rule.nodes - value) <= rule.residuals + residual + rounding).tolist() for rule in rules
        ]
        match = tuple(nodes[0] for nodes in near if len(nodes) == 1)
        # Two nodes at one value may be a copy, or neighbours that the residuals do not tell apart.
        if len(match) < len(rules) or match not in matches or found[matches.index(match)]:
            continue
        position = matches.index(match)
        gaps = np.array([rule.gaps[node] for rule, node in zip(rules, match, strict=True)])
        own = np.array([rule.residuals[node] for rule, node in zip(rules, match, strict=True)])
        # First-order errors of the Ritz vectors and the locked one, in units of the standard size 1/sqrt(n) of an overlap.
        angles = (own + residual + 20 * eps * max(rule.norm for rule in rules)) / gaps
        if np.any(ISOLATED * angles >= 1):
            continue
        weights, sizes = n * np.array([rule.weights[node] for rule, node in zip(rules, match, strict=True)]), n * overlaps
        tolerances = 4 * (1 + np.sqrt(np.maximum(weights, sizes))) * angles + 1e3 * eps * (1 + weights)
        found[position], simple[position] = True, bool(np.all(np.abs(weights - sizes) <= tolerances))
    return found, simple


def _plausibly_simple(rules: tuple[GaussRule, ...], matches: list[Match], n: int, half: float) -> np.ndarray:
    """Which weights a simple eigenvalue could have by chance; none when all of them together could not."""
    if not matches or n == 1:
        return np.ones(len(matches), dtype=bool)
    probes = len(rules)
    weights = np.array([[rule.weights[i] for rule, i in zip(rules, match, strict=True)] for match in matches]).mean(axis=1)

    def unlikely(total: float, count: int, level: float) -> bool:
        if count == 0 or count >= n:
            return False
        return bool(scipy.stats.beta.sf(min(total, 1.0), probes * half * count, probes * half * (n - count)) < level)

    simple = np.array([not unlikely(weight, 1, GUARD_LEVEL) for weight in weights])
    # Where one is multiple its neighbours may be too: after an objection the others are held to a stricter test.
    level = GUARD_LEVEL if simple.all() else STRICT_LEVEL
    if unlikely(float(weights[simple].sum()), int(simple.sum()), level):
        simple[:] = False
    return simple


def _rest(
    rules: tuple[GaussRule, ...], sharp: tuple[np.ndarray, ...], chosen: list[Match]
) -> tuple[tuple[tuple[np.ndarray, np.ndarray], ...], tuple[np.ndarray, ...]]:
    rest, rest_sharp = [], []
    for probe, rule in enumerate(rules):
        keep = np.ones(len(rule.nodes), dtype=bool)
        keep[[match[probe] for match in chosen]] = False
        weights = rule.weights[keep]
        total = weights.sum()
        rest.append((rule.nodes[keep], weights / total if total > 0 else weights))
        rest_sharp.append(sharp[probe][keep])
    return tuple(rest), tuple(rest_sharp)
