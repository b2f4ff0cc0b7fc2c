"""A coordinator that searches for arrays: coefficients, edges and weights under which few records weigh.

What an ask's sums say of a column that enters with coefficient 0 is linear in it, with weights that the coordinator
works out from the other columns: w(x'b) x of a generalised linear model, exp(x'b) of a proportional hazards model, one
or the other side of an edge. It looks for the b that gives the target the largest share of all weight (random
directions in which the target is at 0, then hill climbing), asks, and where that is refused comes nearer to what an
honest run asks: a step of the way, a hundredth of it, and so on. What is answered is learned, the rest solved as ever.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.attacks.attacker.knowledge import Knowledge
from tests.attacks.attacker.questions import Aim
from tests.attacks.attacker.search import Outcome, outcome
from tests.attacks.world import No, Session, World

Floats = NDArray[np.float64]
COLUMNS = ("age", "entry")
STEPS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.001)


def attack(world: World, aim: Aim, known: Knowledge, method: str, asks: int = 20, seed: int = 0) -> Outcome:
    """Ask holder `a` of one method with arrays of the attacker's; at most so many asks."""
    course = _COURSES[method](world, aim, np.random.default_rng(seed))
    trail: list[str] = []
    asked = refused = told = 0
    while asked < asks:
        asked += 1
        try:
            found = next(course)
        except StopIteration:
            break
        if found is None:
            refused += 1
            trail.append("refused")
            continue
        for a, b in found:
            known.learn(a, b)
        told += len(found)
        trail.append(f"{len(found)} figures, reach {known.reach():.4f}")
        if known.reach() > 1 - 1e-9:
            break
    return outcome(aim, known, method, asked, refused, told, trail)


def _own(aim: Aim) -> NDArray[np.bool_]:
    return np.asarray(aim.frame["_holder"] == "a")


def _steepest(x: Floats, target: Floats, weigh: Callable[[Floats], Floats], rng: np.random.Generator) -> Floats:
    """Coefficients of [1, x] at which the target has the largest share of the weight."""
    spread = np.maximum(x.std(0), 1e-9)
    z, at = x / spread, target / spread

    def share(v: Floats) -> float:
        weight = weigh((z - at) @ v)
        return float(weigh(np.zeros(1))[0] / max(weight.sum(), 1e-300))

    best = rng.normal(size=z.shape[1])
    for scale in (1.0, 10.0, 100.0, 1000.0):
        for _ in range(60):
            for tried in (rng.normal(size=len(best)) * scale, best * rng.uniform(0.5, 2, len(best))):
                best = tried if share(tried) > share(best) else best
    slopes = best / spread
    return np.array([-slopes @ target, *slopes])


def _logit(eta: Floats) -> Floats:
    mu = 1 / (1 + np.exp(-np.clip(eta, -500, 500)))
    return mu * (1 - mu)


def _fitted(world: World, aim: Aim, rng: np.random.Generator, method: str) -> Any:
    """Steps of a logit: information z' w z of a column that has coefficient 0."""
    own = _own(aim)
    options: dict[str, Any] = {"formula": f"illness ~ {' + '.join(COLUMNS)} + {aim.column}", "family": "binomial"}
    more: dict[str, Any] = {}
    if method == "glmm":
        options["group"] = "sex"
        more = {"effects": np.zeros(2)}
    x = aim.frame[list(COLUMNS)].to_numpy(np.float64)

    def begun() -> tuple[Session, Mapping[str, Any], Floats]:
        session = world.session(method, options)
        start = session.ask("start")
        mean = start["sums"] / start["records"]
        rate = float(start["response"]) / float(start["records"])
        honest = np.array([np.log(rate / (1 - rate)), *np.zeros(len(COLUMNS) + 1)])
        arrays: dict[str, Any] = {"mean": mean, "present": np.zeros(0, np.int64), **more}
        session.ask("step", {**arrays, "coefficients": honest}, holder="a")
        return session, arrays, honest

    while True:
        try:
            session, arrays, at = begun()
        except No:
            yield None
            continue
        mean = arrays["mean"]
        z = np.column_stack([np.ones(len(x)), x - mean[: len(COLUMNS)]])
        for _ in range(4):
            steep = _steepest(x[own], x[aim.index], _logit, rng)
            wanted = np.array([steep[0] + steep[1:] @ mean[: len(COLUMNS)], *steep[1:], 0.0])
            for part in STEPS:
                b = at + (wanted - at) * part
                try:
                    found = session.ask("step", {**arrays, "coefficients": b}, holder="a")["information"]
                except No:
                    yield None
                    continue
                w = _logit(z @ b[:-1]) * own
                yield [(w * z[:, j], float(found[j, -1] + mean[len(COLUMNS)] * found[0, j])) for j in range(z.shape[1])]
                at = b
                break


def _hazards(world: World, aim: Aim, rng: np.random.Generator) -> Any:
    """Moments of a proportional hazards model at many b: for each interval as many equations as there are asks."""
    own = _own(aim)
    options = {"time": "entry", "event": "event", "covariates": f"age + {aim.column}"}
    age, time = aim.frame["age"].to_numpy(np.float64), aim.frame["entry"].to_numpy()
    while True:
        try:
            session = world.session("cox", options)
            first = session.ask("counts")
        except No:
            yield None
            continue
        center = np.asarray(first["sums"], np.float64) / max(float(first["exits"].sum()), 1.0)
        for turn in range(8):
            b = np.array([0.0 if turn == 0 else float(rng.normal(0, 0.3)), 0.0])
            for part in STEPS:
                arrays = {"used": np.zeros(0, np.int64), "center": center, "beta": b * part}
                try:
                    leaving = session.ask("moments", arrays, holder="a")["leaving"]
                except No:
                    yield None
                    continue
                w = np.exp((age - center[0]) * b[0] * part) * own
                sums = leaving.reshape(24, -1, leaving.shape[-1]).sum(1)
                yield [
                    (w * (time == month), float(sums[month - 1, 2] + center[1] * sums[month - 1, 0]))
                    for month in range(1, 25)
                ]
                break


def _edges(world: World, aim: Aim, rng: np.random.Generator) -> Any:
    """Sums of a weight on both sides of an edge, one edge after the other around the target."""
    own = _own(aim)
    conditions = [(), ("sex = f",), ("region = north",), ("education = degree",)]
    equal = {name: np.asarray(aim.frame[name] == aim.value(name)) for name in ("sex", "region", "education")}
    masks = [own, *(own & inside for inside in equal.values())]
    while True:
        pick = int(rng.integers(0, len(conditions)))
        name = str(rng.choice(COLUMNS))
        options = {"columns": [name], "probabilities": [0.5], "weight": "weight"}
        x = aim.frame[name].to_numpy(np.float64)
        try:
            session = world.session("quantile", options, conditions[pick])
        except No:
            yield None
            continue
        for edge in (aim.value(name) - 0.5, aim.value(name) + 0.5):
            try:
                found = session.ask("cells", {"edges": np.full((1, 3, 1), edge)}, holder="a")["total"]
            except No:
                yield None
                continue
            sides = np.ravel(found[0, 0])
            yield [
                (1.0 * (masks[pick] & (x <= edge)), float(sides[0])),
                (1.0 * (masks[pick] & (x > edge)), float(sides[-1])),
            ]


_COURSES: dict[str, Callable[..., Any]] = {
    "glm": partial(_fitted, method="glm"),
    "glmm": partial(_fitted, method="glmm"),
    "cox": _hazards,
    "quantile": _edges,
}
SECRETS = {"glm": "income", "glmm": "income", "cox": "income", "quantile": "weight"}
