"""Attacks of a coordinator: it writes asks and their arrays as it likes, in any order, and sees what a holder sends."""

import numpy as np

from statfed.strategies.analyses._crosstab import POWER
from statfed.strategies.analyses.table import MAGNIFIED
from tests.attacks.analyst import ALL, bisected
from tests.attacks.finding import NOTHING, Finding, attack
from tests.attacks.population import ENTERPRISE_LARGE, PERSON
from tests.attacks.world import No, Session, World

INCOME = PERSON.secret["income"]
STEEP = 40.0


def _income(got: float | None) -> Finding:
    return Finding(got, INCOME, ALL)


def _step(session: Session, columns: int, b: list[float], name: str = "step", **more: object) -> dict[str, np.ndarray]:
    """One ask at coefficients b of [1, columns], which are not centred."""
    arrays = {"mean": np.zeros(columns + 1), "present": np.zeros(0, np.int64), "coefficients": np.array(b, np.float64)}
    return session.ask(name, arrays | more, holder="a")  # type: ignore[arg-type]


def _isolating() -> list[float]:
    """A linear predictor that is 0 at the target, whose age and month nobody else has, and steep everywhere else."""
    return [-STEEP * (100 * 47 + 17), STEEP * 100, STEEP, 0.0]


@attack("K2", "coordinator", "glm", "bounded arrays, order of asks, leverage")
def information_of_one_record(world: World) -> Finding:
    try:
        session = world.session("glm", {"formula": "illness ~ age + entry + income", "family": "binomial"})
        session.ask("start")
        found = _step(session, 3, _isolating())["information"]
    except No:
        return NOTHING
    return _income(float(found[0, 3] / found[0, 0]))


@attack("K2", "coordinator", "glm", "order of asks")
def information_of_one_record_without_a_start(world: World) -> Finding:
    try:
        session = world.session("glm", {"formula": "illness ~ age + entry + income", "family": "binomial"})
        found = _step(session, 3, _isolating())["information"]
    except No:
        return NOTHING
    return _income(float(found[0, 3] / found[0, 0]))


@attack("K2", "coordinator", "glm", "bounded arrays, order of asks, leverage")
def information_after_an_honest_step(world: World) -> Finding:
    """The method's own start first, then the crafted step as if it were the next one."""
    try:
        session = world.session("glm", {"formula": "illness ~ age + entry + income", "family": "binomial"})
        start = session.ask("start")
        mean = start["sums"] / start["records"]
        present = np.zeros(0, np.int64)
        rate = float(start["response"]) / float(start["weight"])
        b = np.array([np.log(rate / (1 - rate)), 0.0, 0.0, 0.0])
        session.ask("step", {"mean": mean, "present": present, "coefficients": b})
        shift = mean[:3]
        b = np.array(_isolating())
        b[0] += b[1:] @ shift
        found = session.ask("step", {"mean": mean, "present": present, "coefficients": b}, holder="a")["information"]
    except No:
        return NOTHING
    return _income(float(found[0, 3] / found[0, 0] + shift[2]))


@attack("K2", "coordinator", "glmm", "bounded arrays, order of asks, leverage")
def information_of_a_mixed_model(world: World) -> Finding:
    options = {"formula": "illness ~ age + entry + income", "family": "binomial", "group": "sex"}
    try:
        session = world.session("glmm", options)
        session.ask("start")
        found = _step(session, 3, _isolating(), effects=np.zeros(2))["information"]
    except No:
        return NOTHING
    return _income(float(found[0, 3] / found[0, 0]))


@attack("K2", "coordinator", "glm", "separation is asked of the last step alone, frequency of its counts")
def separation_in_any_half_space(world: World) -> Finding:
    """Bisection of the largest income among the ill: how many are on one side of a plane?"""
    try:
        session = world.session("glm", {"formula": "illness ~ income", "family": "binomial"})
        session.ask("start")
        ill = int(_step(session, 1, [-1e9, 1.0], "separation")["against"])

        def above(income: float) -> bool:
            return int(_step(session, 1, [-10 * income, 10.0], "separation")["against"]) != ill

        return _income(bisected(above, 90_000.0, ALL, 8))
    except No:
        return NOTHING


@attack("K2", "coordinator", "glmm", "separation is asked of the last step alone, frequency of its counts")
def separation_of_a_mixed_model(world: World) -> Finding:
    try:
        session = world.session("glmm", {"formula": "illness ~ income", "family": "binomial", "group": "sex"})
        session.ask("start")
        none = {"effects": np.zeros(2)}
        ill = int(_step(session, 1, [-1e9, 1.0], "separation", **none)["against"])

        def above(income: float) -> bool:
            return int(_step(session, 1, [-10 * income, 10.0], "separation", **none)["against"]) != ill

        return _income(bisected(above, 90_000.0, ALL, 8))
    except No:
        return NOTHING


@attack("K2", "coordinator", "glm", "frequency of invalid records and of the others")
def records_outside_the_range_of_a_family(world: World) -> Finding:
    """Under the identity link of a Poisson model those with an income above x have no mean: counted, or refused."""
    try:
        session = world.session("glm", {"formula": "hours ~ income", "family": "poisson", "link": "identity"})
        session.ask("start")
        _step(session, 1, [ALL, -0.1])
    except No:
        return NOTHING

    def above(income: float) -> bool:
        try:
            return int(_step(session, 1, [income, -1.0])["invalid"]) > 0
        except No:
            return True

    return _income(bisected(above, 90_000.0, ALL, 8))


@attack("K2", "coordinator", "cox", "bounded arrays, leverage")
def moments_of_the_largest(world: World) -> Finding:
    """Weights exp(x'b) of a steep b are those of the record that lies furthest out."""
    try:
        session = world.session("cox", {"time": "entry", "event": "event", "covariates": "income"})
        session.ask("counts")
        arrays = {"used": np.zeros(0, np.int64), "center": np.array([1.6e5]), "beta": np.array([1e-3])}
        found = session.ask("moments", arrays, holder="a")["leaving"].reshape(-1, 3).sum(0)
    except No:
        return NOTHING
    return _income(1.6e5 + float(found[1] / found[0]))


@attack("K2", "coordinator", "ols", "order of asks, bounded arrays")
def meat_at_coefficients_of_the_coordinators(world: World) -> Finding:
    """The squares of residuals at steep coefficients of a column that is constant but for one."""
    try:
        session = world.session("ols", {"formula": "income ~ posts", "robust": "HC0"})
        session.ask("start")
        arrays = {"mean": np.array([1.0, 0.0]), "present": np.zeros(0, np.int64)}
        found = session.ask("meat", arrays | {"coefficients": np.zeros(2)}, holder="a")["products"]
    except No:
        return NOTHING
    square = float(found[1, 1])
    return _income(float(np.sqrt(square)) if square >= 0 else None)


@attack("L9", "coordinator", "quantile", "columns of weights, records between edges")
def weight_between_two_edges(world: World) -> Finding:
    """What lies at 47 of some column: records on each side of both edges are many."""
    from tests.attacks.analyst import _lonely

    lonely = _lonely(world)
    if lonely is None:
        return NOTHING
    base, column, value = lonely
    try:
        session = world.session("quantile", {"columns": [column], "probabilities": [0.5], "weight": "income"}, base)
        totals = [
            session.ask("cells", {"edges": np.full((1, 3, 1), edge)}, holder="a")["total"][0, 0, 0]
            for edge in (value - 0.5, value + 0.5)
        ]
    except No:
        return NOTHING
    return _income(abs(float(np.ravel(totals[1])[0] - np.ravel(totals[0])[0])))


@attack("L9", "coordinator", "quantile", "records between edges, asks a study")
def design_weight_between_two_edges(world: World) -> Finding:
    """The same with a column whose role is weight: the weight itself is the secret."""
    from tests.attacks.analyst import _lonely

    lonely = _lonely(world)
    if lonely is None:
        return NOTHING
    base, column, value = lonely
    truth = float(world.frames["a"]["weight"].iloc[0])
    try:
        session = world.session("quantile", {"columns": [column], "probabilities": [0.5], "weight": "weight"}, base)
        totals = [
            session.ask("cells", {"edges": np.full((1, 3, 1), edge)}, holder="a")["total"]
            for edge in (value - 0.5, value + 0.5)
        ]
    except No:
        return NOTHING
    return Finding(abs(float(totals[1].ravel()[0] - totals[0].ravel()[0])), truth, 50.0)


@attack("K2", "coordinator", "quantile", "records between edges, asks a study")
def distribution_by_moving_edges(world: World) -> Finding:
    """Is anybody's income between two edges? Bisected for one of middle rank."""
    everybody = np.sort(world.frames["a"]["income"].to_numpy())
    middle = everybody[len(everybody) // 2]
    rank = len(everybody) // 2

    try:
        session = world.session("quantile", {"columns": ["income"], "probabilities": [0.5]})

        def above(edge: float) -> bool:
            found = session.ask("cells", {"edges": np.full((1, 3, 1), edge)}, holder="a")["count"].ravel()
            return int(found[0]) <= rank

        got = bisected(above, 0.0, ALL, 18)
    except No:
        return NOTHING
    return Finding(got, float(middle), 100.0)  # within a unit: of a value that lies among many, 1 % would be a guess


@attack("K2", "coordinator", "glm", "asks a study")
def asks_without_end(world: World) -> Finding:
    """Eighty points of a likelihood determine more than a model."""
    rng = np.random.default_rng(5)
    answered = 0
    try:
        session = world.session("glm", {"formula": "illness ~ age", "family": "binomial"})
        session.ask("start")
        for _ in range(80):
            _step(session, 1, list(rng.normal(0, [0.5, 0.01])))
            answered += 1
    except No:
        pass
    return Finding(float(answered >= 70), 1.0, 1.0)


@attack("L16", "coordinator", "table", "low powers", people="enterprises", control=False)
def powers_that_bound_the_largest_contributor(world: World) -> Finding:
    options = {"rows": ["sector"], "value": "turnover", "largest_contributor": 1e6, "nested_enterprises": True}
    where = ["sector = trade"]
    try:
        found = world.session("table", options, where).ask("cells", holder="a")
    except No:
        return NOTHING
    power = max((float(np.max(found[name])) for name in found if name.startswith("power")), default=0.0)
    return Finding(_root(power, found), ENTERPRISE_LARGE, 1e6)


def _root(power: float, found: dict[str, np.ndarray]) -> float | None:
    """The largest, where the sum of 8th powers is scaled so that the public bound is `MAGNIFIED`."""
    return 1e6 * (power / MAGNIFIED) ** (1 / POWER) if power else None
