"""The coordinator's half of a generalised linear model: Fisher scoring by asks for sums at trial coefficients."""

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from statfed.core.errors import Refused, UsageError
from statfed.core.method import Ask, Total
from statfed.strategies.analyses._families import Family
from statfed.strategies.analyses._regression import Basis, Vector, identified, whitening

PATIENCE = 8  # iterations from which separation is looked for
MOVING = 1e-4  # of the linear predictor, root mean square over records: a step below it is convergence
HALVINGS = 30
NOISE = 1e-26  # of the deviance: a gain below is rounding


@dataclass(frozen=True)
class Search:
    """What stays the same over iterations. weights: sum of the frequency weights. moved: is there an offset or an
    exposure? tolerance: in standard errors."""

    family: Family
    arrays: Mapping[str, NDArray[Any]]
    basis: Basis
    weights: float
    moved: bool
    max_iterations: int
    tolerance: float

    def ask(self, name: str, b: Vector) -> Ask:
        return Ask(name, {**self.arrays, "coefficients": b})


@dataclass(frozen=True)
class At:
    """The sums at coefficients b of [1, columns]."""

    b: Vector
    total: Total

    @property
    def deviance(self) -> float:
        """Infinite where a mean leaves the family's range."""
        return math.inf if self.total["invalid"] else float(self.total["deviance"])

    def information(self, free: Sequence[int]) -> Vector:
        inner: Vector = self.total["information"][np.ix_(free, free)]
        return inner

    def coarseness(self, free: Sequence[int]) -> float:
        """What the gain of a step may be by what the encoding of the score has taken or added."""
        return float(
            np.sum((np.abs(whitening(self.information(free)).T) @ self.total.resolution["score"][list(free)]) ** 2)
        )

    def step(self, free: Sequence[int]) -> Vector:
        """The step of Fisher scoring in the coefficients `free`, 0 elsewhere."""
        w = whitening(self.information(free))
        step = np.zeros(len(self.b))
        step[list(free)] = w @ (w.T @ self.total["score"][list(free)])
        return step


def course(before: Sequence[Ask], ask: Ask, most: Mapping[str, int]) -> str:
    """Why an ask of an iterative fit cannot come after those before it; empty where it can.

    most: how often asks are made, beside the first one. What is not the point that the sums are taken at stays the same
    from the second ask on; where the points may lie is decided by how records weigh there.
    """
    made = [one for one in before if one.name == ask.name]
    if len(made) >= most.get(ask.name, 0):
        return f"got {ask.name} number {len(made) + 1}; want {most.get(ask.name, 0)} at most"
    moving = {"coefficients", "effects", "beta"}
    for one in before[1:2]:
        kept = [name for name in {*one.arrays, *ask.arrays} - moving if not _same(one.arrays, ask.arrays, name)]
        if kept:
            return f"got other {', '.join(sorted(kept))} than in the asks before; want them kept"
    return ""


def _same(a: Mapping[str, NDArray[Any]], b: Mapping[str, NDArray[Any]], name: str) -> bool:
    return name in a and name in b and np.array_equal(a[name], b[name])


def first(search: Search, mean: float) -> Generator[Ask, Total, tuple[float, At, Basis, tuple[str, ...]]]:
    """Deviance of the model with a constant alone, and where to start: there, if the design holds the constant.

    Also the basis of the columns that are identified, and notes on others."""
    basis = search.basis
    free, constant = basis.free, [basis.free[j] for j in basis.design.constant]
    b = np.zeros(basis.size)
    b[0] = search.family.predictor(mean)
    initial = None
    if search.moved or not constant:
        initial = At(np.zeros(basis.size), (yield search.ask("initial", np.array([mean]))))
    if initial is not None and search.moved:
        b = initial.step((0,))
    at = At(b, (yield search.ask("step", b)))
    if search.moved:
        at, _ = yield from maximised(search, at, (0,))
    null = float(at.total["deviance"])
    if initial is None or constant:
        b = np.zeros(basis.size)
        b[constant] = at.b[0]
        at = At(b, at.total)
        reduced, notes = identified(at.information(free), basis)
        b[[j for j in free if j not in reduced.free]] = 0.0
        return (
            null,
            At(b, at.total if len(reduced.free) == len(free) else (yield search.ask("step", b))),
            reduced,
            notes,
        )
    reduced, notes = identified(initial.information(free), basis)
    b = initial.step(reduced.free)
    return null, At(b, (yield search.ask("step", b))), reduced, notes


def maximised(search: Search, at: At, free: Sequence[int]) -> Generator[Ask, Total, tuple[At, int]]:
    """Fisher scoring in the coefficients `free` from `at`; and how many steps it took. Where sums are coarser than
    float64 it ends, and a step may raise the deviance, within their resolution.

    Raises UsageError on a start outside the family's range, on separation, and without convergence.
    """
    family = search.family
    if not math.isfinite(at.deviance):
        raise UsageError(
            f"glm: got a start outside the range of {family.name} with the {family.link} link; want another"
        )
    spread = np.sqrt(np.maximum(np.diag(at.total["information"]), 0))
    trace: list[str] = []
    step = np.zeros(len(at.b))
    for iteration in range(search.max_iterations + 1):
        try:
            step = at.step(free)
        except linalg.LinAlgError:
            if family.separable and (yield from _separated(search, step)):
                raise _separation(search, step, spread) from None
            raise _unfinished("the information matrix became singular", trace) from None
        gain = float(step @ at.total["score"])
        scale = 1.0 if family.fixed_scale else float(at.total["pearson"]) / (search.weights - len(free))
        trace.append(f"{iteration}: deviance {at.deviance:.9g}, step {math.sqrt(max(gain, 0) / (scale or 1.0)):.3g}")
        least = search.tolerance**2 * scale + NOISE * abs(at.deviance)
        if gain <= max(least, at.coarseness(free)):
            return at, iteration
        moving = iteration >= PATIENCE and np.abs(step) @ spread > MOVING * spread[0]
        if moving and family.separable and (yield from _separated(search, step)):
            raise _separation(search, step, spread)
        if iteration == search.max_iterations:
            break
        new = None
        for halving in range(HALVINGS):
            b = at.b + step * 0.5**halving
            tried = At(b, (yield search.ask("step", b)))
            unsure = sum(float(one.total.resolution["deviance"]) for one in (at, tried))
            if tried.deviance <= at.deviance + 1e-10 * (abs(at.deviance) + 0.1) + unsure:
                new = tried
                break
        if new is None:
            if gain <= 1e-12 * scale:
                return at, iteration
            raise _unfinished(f"{HALVINGS} halvings of a step did not lower the deviance", trace)
        at = new
    raise _unfinished(f"{search.max_iterations} iterations were not enough", trace)


def replicated(search: Search, at: At, free: Sequence[int], replicates: int) -> Generator[Ask, Total, Vector]:
    """Coefficients of the fit under each replicate weight, (replicates, len(free)): Fisher scoring from the fit `at`.

    Raises UsageError where a fit does not converge.
    """
    b = np.tile(at.b, (replicates, 1))
    for _ in range(search.max_iterations):
        total = yield search.ask("replicates", b)
        largest = 0.0
        for i in range(replicates):
            try:
                w = whitening(total["information"][i][np.ix_(free, free)])
            except linalg.LinAlgError:
                raise _astray(i) from None
            if total["invalid"][i]:
                raise _astray(i)
            half = w.T @ total["score"][i][list(free)]
            b[i, list(free)] += w @ half
            largest = max(largest, float(half @ half))
        if largest <= max(search.tolerance, 1e-7) ** 2:  # squared by the step that was just taken
            return b[:, list(free)]
    raise UsageError(
        f"glm: no convergence under replicate weights: {search.max_iterations} iterations were not enough; want more "
        "of them, or another model"
    )


def _astray(replicate: int) -> UsageError:
    return UsageError(
        f"design: the model has no fit under replicate weight {replicate + 1}; want fewer parameters, or strata and "
        "PSUs in place of replicate weights"
    )


def _separated(search: Search, step: Vector) -> Generator[Ask, Total, bool]:
    """Does the step make no record's fit worse, and move some? Then the likelihood rises along it for ever.

    A holder whose rules are on does not tell: it would count records on both sides of any plane. Then the search ends
    without convergence instead.
    """
    try:
        total = yield search.ask("separation", step)
    except Refused:
        return False
    return bool(total["moved"] > 0 and total["against"] == 0)


def _separation(search: Search, step: Vector, spread: Vector) -> UsageError:
    weight = np.abs(step) * spread
    by_column = dict(zip(search.basis.design.names, weight[list(search.basis.free)], strict=True))
    involved = [name for name, size in by_column.items() if size > 0.1 * weight.max()]
    return UsageError(
        f"formula: separation: some responses are predicted exactly along {', '.join(involved)}, so these coefficients "
        "grow without limit and have no maximum likelihood estimate; want them left out or their levels merged"
    )


def _unfinished(why: str, trace: Sequence[str]) -> UsageError:
    return UsageError(
        f"glm: no convergence: {why}; want another model, start or max_iterations\niteration: deviance, step in "
        "standard errors\n" + "\n".join(trace[-12:])
    )
