"""Attacks of an ordinary analyst: questions through an honest coordinator, releases of pooled results as answers."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from statfed.core.result import Result
from tests.attacks.finding import NOTHING, Finding, attack
from tests.attacks.population import ENTERPRISE, PERSON, PERSONS, changed
from tests.attacks.world import World

INCOME, BENEFIT, GRANT = (PERSON.secret[name] for name in ("income", "benefit", "grant"))
ALL, MANY = 200_000.0, 61_234.0


def _only(result: Result | None, column: str, table: str = "", **where: object) -> float | None:
    """A figure of the one row that `where` is true of."""
    if result is None:
        return None
    rows = result.tables[table or next(iter(result.tables))]
    found = [row.get(column) for row in rows if all(row.get(key) == value for key, value in where.items())]
    return float(found[0]) if len(found) == 1 and isinstance(found[0], int | float) else None


def _income(got: float | None) -> Finding:
    return Finding(got, INCOME, ALL)


def _minus(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


def bisected(above: Callable[[float], bool], low: float, high: float, steps: int) -> float:
    """The value between low and high at which an answer turns from yes to no."""
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if above(middle) else (low, middle)
    return (low + high) / 2


# Formulas ------------------------------------------------------------------------------------------------------------


def _sum_of_coefficients(found: Result) -> float:
    return float(sum(_number(row, "estimate") for row in found.tables["coefficients"]))


BUMP = "I(1/(1+1e7*((age-47)**2+(entry-17)**2)))"


def _fitted(world: World, method: str, formula: str, at: float, **options: object) -> float | None:
    found = world.asked(method, {"formula": formula, **options})
    if found is None:
        return None
    intercept, slope = (row["estimate"] for row in found.tables["coefficients"])
    return float(intercept) + at * float(slope)  # type: ignore[arg-type]


@attack("K1", "analyst", "ols", "formula functions, leverage")
def formula_that_is_one_at_the_target(world: World) -> Finding:
    return _income(_fitted(world, "ols", f"income ~ {BUMP}", 1.0))


@attack("K1", "analyst", "glm", "formula functions, leverage")
def formula_of_a_generalised_linear_model(world: World) -> Finding:
    return _income(_fitted(world, "glm", f"income ~ {BUMP}", 1.0, family="gaussian"))


@attack("K1", "analyst", "ols", "formula functions, leverage")
def formula_with_an_exponential(world: World) -> Finding:
    bump = "exp(0-9*abs(age-47)-9*abs(entry-17))"
    return _income(_fitted(world, "ols", f"income ~ {bump}", 1.0))


@attack("K1", "analyst", "ols", "leverage")
def regression_on_a_column_that_one_person_has(world: World) -> Finding:
    found = world.asked("ols", {"formula": "income ~ grant"})
    if found is None:
        return NOTHING
    intercept, slope = (float(row["estimate"]) for row in found.tables["coefficients"])  # type: ignore[arg-type]
    return _income(intercept + GRANT * slope)


@attack("K1", "analyst", "ols", "leverage")
def regression_on_a_column_that_differs_for_one(world: World) -> Finding:
    return _income(_fitted(world, "ols", "income ~ posts", 2.0))


@attack("K1", "analyst", "ols", "leverage of linear combinations")
def regression_on_two_columns_whose_difference_is_the_target(world: World) -> Finding:
    """Neither column singles anybody out; their difference does."""
    found = world.asked("ols", {"formula": "income ~ hours + I(hours*posts)"})
    if found is None:
        return NOTHING
    b = [float(row["estimate"]) for row in found.tables["coefficients"]]  # type: ignore[arg-type]
    return _income(b[0] + 41.5 * b[1] + 83.0 * b[2])


@attack("D3", "analyst", "ols", "frequency of levels")
def level_of_one_person(world: World) -> Finding:
    return _income(_fitted(world, "ols", "income ~ C(list)", 1.0))


@attack("D3", "analyst", "ols", "frequency of cells of interactions")
def interaction_whose_cell_is_the_target(world: World) -> Finding:
    """Many are in the club and many in the union; one person is in both."""
    found = world.asked("ols", {"formula": "income ~ C(club)*C(union)"})
    if found is None:
        return NOTHING
    return _income(_sum_of_coefficients(found))


@attack("L5", "analyst", "ols", "pinned codebook")
def level_of_one_person_in_a_column_that_is_called_a_psu(world: World) -> Finding:
    book = changed(PERSONS, list={"role": "psu"})
    found = world.asked("ols", {"formula": "income ~ C(list)"}, codebook=book)
    if found is None:
        return NOTHING
    return _income(_sum_of_coefficients(found))


# Weights -------------------------------------------------------------------------------------------------------------


@attack("L1", "analyst", "mean", "columns of weights")
def mean_with_a_weight_that_one_person_has(world: World) -> Finding:
    return _income(_only(world.asked("mean", {"columns": ["income"], "weight": "grant"}), "mean"))


@attack("L1", "analyst", "total", "columns of weights")
def ratio_of_two_totals_with_that_weight(world: World) -> Finding:
    made = _only(world.asked("total", {"columns": ["income"], "weight": "grant"}), "estimate")
    size = _only(world.asked("count", {"weight": "grant"}), "estimate")
    return _income(made / size if made and size else None)


@attack("L1", "analyst", "count", "columns of weights")
def count_with_a_secret_as_weight(world: World) -> Finding:
    got = _only(world.asked("count", {"weight": "grant"}), "estimate")
    return Finding(got, GRANT, 50_000.0)


@attack("L1", "analyst", "table", "columns of weights")
def table_with_that_weight(world: World) -> Finding:
    options = {"rows": ["sex"], "value": "income", "weight": "grant"}
    got = _only(world.asked("table", options), "total", sex="f")
    size = _only(world.asked("table", {"rows": ["sex"], "weight": "grant"}), "total", sex="f")
    return _income(got / size if got and size else None)


@attack("L1", "analyst", "histogram", "columns of weights")
def histogram_with_that_weight(world: World) -> Finding:
    found = world.asked("histogram", {"column": "income", "bins": 400, "weight": "grant"})
    rows = [] if found is None else next(iter(found.tables.values()))
    full: list[Any] = [row for row in rows if isinstance(total := row.get("total"), float) and total > 1]
    return _income((float(full[0]["lower"]) + float(full[0]["upper"])) / 2 if len(full) == 1 else None)


@attack("L1", "analyst", "ratio", "columns of weights")
def ratio_with_that_weight(world: World) -> Finding:
    options = {"numerator": "income", "denominator": "posts", "weight": "grant"}
    got = _only(world.asked("ratio", options), "estimate")
    return _income(None if got is None else 2 * got)


@attack("L1", "analyst", "quantile", "columns of weights")
def quantile_with_that_weight(world: World) -> Finding:
    options = {"columns": ["income"], "probabilities": [0.5], "weight": "grant"}
    return _income(_only(world.asked("quantile", options), "estimate"))


@attack("L2", "analyst", "total", "columns of weights")
def total_with_and_without_a_weight_that_differs_for_one(world: World) -> Finding:
    with_, without = (
        _only(world.asked("total", {"columns": ["income"], **more}), "estimate") for more in ({"weight": "posts"}, {})
    )
    return _income(_minus(with_, without))


@attack("L5", "analyst", "total", "pinned codebook")
def role_of_a_weight_that_the_asker_gives(world: World) -> Finding:
    book = changed(PERSONS, posts={"role": "weight"}, weight={"role": None})
    found = world.asked("total", {"columns": ["income"], "weight": "posts"}, codebook=book)
    plain = _only(world.asked("total", {"columns": ["income"]}), "estimate")
    return _income(_minus(_only(found, "estimate"), plain))


@attack("L14", "analyst", "calibrate", "frequency of cells, weights")
def calibration_to_totals_that_leave_one_person(world: World) -> Finding:
    margins = {"list": {"long": 1e-6, "short": 1.0}}
    found = world.asked("calibrate", {"margins": margins, "columns": ["income"]})
    return _income(_only(found, "estimate", "estimates", statistic="mean"))


# Products ------------------------------------------------------------------------------------------------------------


@attack("L4", "analyst", "covariance", "leverage of products")
def covariance_with_a_column_that_one_person_has(world: World) -> Finding:
    found = world.asked("covariance", {"columns": ["grant", "income"]})
    mean = _only(world.asked("mean", {"columns": ["income"]}), "mean")
    pair = _only(found, "covariance", name_1="grant", name_2="income")
    if found is None or pair is None or mean is None:
        return NOTHING
    n = float(found.facts["observations"])  # type: ignore[arg-type]
    return _income(mean + pair * (n - 1) / GRANT)


@attack("L4", "analyst", "variance", "leverage of squares")
def variance_of_a_column_that_one_person_has(world: World) -> Finding:
    found = world.asked("variance", {"columns": ["grant"]})
    spread, n = _only(found, "estimate"), _only(found, "count")
    got = None if spread is None or n is None else math.sqrt(spread * n)
    return Finding(got, GRANT, 50_000.0)


@attack("L4", "analyst", "pca", "leverage of products")
def principal_components_of_a_column_that_one_person_has(world: World) -> Finding:
    found = world.asked("pca", {"columns": ["grant", "income"]})
    mean = _only(world.asked("mean", {"columns": ["income"]}), "mean")
    if found is None or mean is None:
        return NOTHING
    v, e = np.zeros((2, 2)), np.zeros(2)
    for row in found.tables["loadings"]:
        v[["grant", "income"].index(str(row["name"])), int(_number(row, "component")) - 1] = _number(row, "loading")
    for row in found.tables["components"]:
        e[int(_number(row, "component")) - 1] = _number(row, "eigenvalue")
    n = float(found.facts["observations"])  # type: ignore[arg-type]
    return _income(mean + float((v @ np.diag(e) @ v.T)[0, 1]) * (n - 1) / GRANT)


def _number(row: object, key: str) -> float:
    value = row.get(key)  # type: ignore[attr-defined]
    return float(value) if isinstance(value, int | float) else math.nan


@attack("L4", "analyst", "ttest", "leverage, dominance")
def t_test_of_a_column_that_one_person_has(world: World) -> Finding:
    found = world.asked("ttest", {"columns": ["grant"]})
    mean, n = _only(found, "estimate"), _only(found, "count")
    return Finding(None if mean is None or n is None else mean * n, GRANT, 50_000.0)


@attack("L4", "analyst", "describe", "dominance")
def description_of_a_column_that_one_person_has(world: World) -> Finding:
    found = world.asked("describe", {"columns": ["grant"]})
    mean, n = _only(found, "mean"), _only(found, "count")
    return Finding(None if mean is None or n is None else mean * n, GRANT, 50_000.0)


# Contributors --------------------------------------------------------------------------------------------------------


@attack("L6", "analyst", "mean", "frequency of contributors")
def mean_of_twelve_records_of_one_person(world: World) -> Finding:
    found = world.asked("mean", {"columns": ["income"], "by": ["region"]})
    return Finding(_only(found, "mean", region="far"), MANY, ALL)


@attack("L6", "analyst", "mean", "frequency of contributors")
def mean_where_all_records_are_of_one_person(world: World) -> Finding:
    return Finding(_only(world.asked("mean", {"columns": ["income"]}, ["region = far"]), "mean"), MANY, ALL)


@attack("L6", "analyst", "table", "frequency of contributors")
def table_with_a_cell_of_one_person(world: World) -> Finding:
    total = _only(world.asked("table", {"rows": ["region"], "value": "income"}), "total", region="far")
    return Finding(None if total is None else total / 12, MANY, ALL)


@attack("L6", "analyst", "ols", "leverage of contributors")
def dummy_of_twelve_records_of_one_person(world: World) -> Finding:
    found = world.asked("ols", {"formula": "income ~ C(region)"})
    b = {} if found is None else {str(row["name"]): row["estimate"] for row in found.tables["coefficients"]}
    far = next((name for name in b if "far" in name), None)
    return Finding(None if far is None else float(b["Intercept"]) + float(b[far]), MANY, ALL)  # type: ignore[arg-type]


@attack("L7", "analyst", "table", "pinned codebook", people="enterprises")
def codebook_that_forgets_enterprises(world: World) -> Finding:
    book = changed(world.codebook, enterprise=None)
    found = world.asked("table", {"rows": ["sector"], "value": "turnover"}, codebook=book)
    others = [float(row["total"]) for row in found.tables["cells"] if row["sector"] == "mining"] if found else []  # type: ignore[arg-type]
    return Finding(others[0] if others else None, ENTERPRISE.secret["turnover"], 1e6)


@attack("D1", "analyst", "total", "dominance", people="enterprises")
def total_that_one_enterprise_dominates(world: World) -> Finding:
    found = world.asked("total", {"columns": ["turnover"], "by": ["sector"]})
    return Finding(_only(found, "estimate", sector="mining"), ENTERPRISE.secret["turnover"], 1e6)


@attack("D1", "analyst", "ols", "leverage of contributors", people="enterprises")
def dummy_that_one_enterprise_dominates(world: World) -> Finding:
    """The mean of the sector times its size is nearly its total."""
    found = world.asked("ols", {"formula": "turnover ~ C(sector) - 1"})
    sizes = world.asked("count", {"by": ["sector"]})
    n = _only(sizes, "estimate", sector="mining")
    rows = [] if found is None else found.tables["coefficients"]
    mean = next((float(row["estimate"]) for row in rows if "mining" in str(row["name"])), None)  # type: ignore[arg-type]
    return Finding(mean * n if mean and n else None, ENTERPRISE.secret["turnover"], 1e6)


# Questions that are refused for some data ----------------------------------------------------------------------------


@attack("L3", "analyst", "table", "no error of data ahead of the rules", people="enterprises")
def bound_of_the_largest_contributor(world: World) -> Finding:
    """Whether the bound holds was an error of its own, ahead of every rule."""

    def above(bound: float) -> bool:
        options = {"rows": ["region"], "value": "turnover", "largest_contributor": bound}
        try:
            world.release("table", options)
        except Exception as error:  # noqa: BLE001  # any difference in words is an answer
            return "largest" in str(error)
        return False

    return Finding(bisected(above, 1.0, 1e6, 8), ENTERPRISE.secret["turnover"], 1e6)


@attack("K3b", "analyst", "count", "empty populations are refused like small ones", former=True)
def filters_that_are_empty_or_small(world: World) -> Finding:
    where = ["age >= 47", "age <= 47", "entry >= 17", "entry <= 17"]

    def above(income: float) -> bool:
        return world.asked("count", {}, [*where, f"income >= {income}"]) is None

    return _income(bisected(above, 0.0, ALL, 8))


@attack("K3b", "analyst", "mean", "empty populations are refused like small ones", former=True)
def filters_that_leave_out_nobody_or_one(world: World) -> Finding:
    """Those with less than x: all but the target, or all: the complement is small or empty."""
    world.asked("count", {}, ["age >= 47"])

    def above(income: float) -> bool:
        return world.asked("count", {}, ["age >= 47", f"income < {income}"]) is None

    return _income(bisected(above, 95_000.0, ALL, 7))


def _texts(world: World, where: list[str]) -> str:
    try:
        world.release("total", {"columns": ["benefit"]}, where)
    except Exception as error:  # noqa: BLE001  # any difference in words is an answer
        return str(error)
    return ""


@attack("K3c", "analyst", "total", "one refusal", policies={"disclosure": {"zeros": "protect"}}, former=True)
def words_of_refusals(world: World) -> Finding:
    where = ["age >= 47", "age <= 47", "entry >= 17", "entry <= 17"]
    small, empty = _texts(world, [*where, "income >= 1"]), _texts(world, [*where, "income >= 199999"])
    if small == empty:
        return NOTHING

    def above(income: float) -> bool:
        return _texts(world, [*where, f"income >= {income}"]) == small

    return _income(bisected(above, 0.0, ALL, 8))


@attack("K3a", "analyst", "mean", "pinned codebook")
def bounds_in_a_codebook_of_the_askers_own(world: World) -> Finding:
    """Whether the data fit is told before anything else."""

    def above(high: float) -> bool:
        book = changed(PERSONS, income={"high": high})
        try:
            world.release("mean", {"columns": ["income"]}, codebook=book)
        except Exception as error:  # noqa: BLE001  # any difference in words is an answer
            return "fit" in str(error)
        return False

    return _income(bisected(above, 0.0, ALL, 8))


@attack("K3a", "analyst", "mean", "pinned codebook")
def values_that_are_declared_missing(world: World) -> Finding:
    """With all values above x declared missing the maximum would be found one by one; here: is the target's value x?"""
    book = changed(PERSONS, income={"missing": [INCOME]})
    plain = world.asked("mean", {"columns": ["income"]})
    less = world.asked("mean", {"columns": ["income"]}, codebook=book)
    n, m = _only(plain, "count"), _only(less, "count")
    return _income(INCOME if n is not None and m is not None and n - m == 1 else None)


@attack("K3b", "analyst", "count", "equal populations are refused like nearly equal ones", former=True)
def scan_that_is_refused_once(world: World) -> Finding:
    """From above everybody down, in steps of 1 % of the range: all are answered but the last."""
    world.asked("count", {}, ["age >= 47"])
    for income in np.arange(ALL, 180_000.0, -0.01 * ALL):
        if world.asked("count", {}, ["age >= 47", f"income < {income}"]) is None:
            return _income(float(income)) if income < ALL else NOTHING
    return NOTHING


# Sequences -----------------------------------------------------------------------------------------------------------


def _sum(world: World, where: list[str]) -> float | None:
    return _only(world.asked("total", {"columns": ["income"]}, where), "estimate")


@attack("differencing", "analyst", "total", "differencing guard")
def difference_of_two_totals(world: World) -> Finding:
    return _income(_minus(_sum(world, []), _sum(world, ["list = long"])))


@attack("differencing", "analyst", "total", "differencing guard, limit of distinct figures")
def difference_of_three_totals(world: World) -> Finding:
    """Older than 46, older than 47, and the target's contemporaries by month: each pair differs by many."""
    first, second = _sum(world, ["age >= 47"]), _sum(world, ["age >= 48"])
    third = _sum(world, ["age >= 47", "age <= 47", "list = long"])
    return _income(_minus(_minus(first, second), third))


@attack("differencing", "analyst", "mean", "differencing guard, limit of distinct figures")
def parts_of_a_whole(world: World) -> Finding:
    """All, less those below the target's month, less those above, where the rest is the target alone."""
    filters = _lonely(world)
    if filters is None:
        return NOTHING
    base, column, value = filters
    parts = [_sum(world, [*base, *more]) for more in ([], [f"{column} < {value}"], [f"{column} > {value}"])]
    return _income(_minus(_minus(parts[0], parts[1]), parts[2]))


def _lonely(world: World) -> tuple[list[str], str, int] | None:
    """Conditions under which the target alone has its own age or month; the attacker knows everybody's."""
    import pandas as pd

    everybody = pd.concat(world.frames.values())
    for column in ("age", "entry"):
        other = "entry" if column == "age" else "age"
        value, centre = int(PERSON.known[column]), int(PERSON.known[other])
        for width in range(40, 0, -1):
            near = everybody[(everybody[other] - centre).abs() <= width]
            if (near[column] == value).sum() == 1:
                return [f"{other} >= {centre - width}", f"{other} <= {centre + width}"], column, value
    return None


@attack("differencing", "analyst", "mean", "differencing guard, joint leverage of all figures")
def inclusion_and_exclusion(world: World) -> Finding:
    """Members of the club, of the union, of neither: many each, and one person is in both."""
    club, union = _sum(world, ["club = y"]), _sum(world, ["union = y"])
    whole, neither = _sum(world, []), _sum(world, ["club = n", "union = n"])
    return _income(_minus(_minus(club, whole), _minus(None if union is None else -union, neither)))


@attack("D6", "analyst", "count", "memory of releases")
def table_and_then_a_count_of_the_hidden_row(world: World) -> Finding:
    """Suppression hides cells of a table; another question asks for the rest of the same line."""
    table = world.asked("table", {"rows": ["region"], "columns": ["list"]})
    north = _only(table, "count", "margins", region="north", list=None) or _only(
        table, "count", region="north", list=None
    )
    long = _only(world.asked("count", {}, ["region = north", "list = long"]), "estimate")
    got = _minus(north, long)
    return Finding(got, 1.0, 10.0)


@attack("roster", "analyst", "total", "rosters", holders=3)
def total_of_changing_sets_of_holders(world: World) -> Finding:
    """What one holder has is the difference; under secure aggregation nobody should know."""
    first = _sum(world, [])
    second = _only(world.asked("total", {"columns": ["income"]}, holders=("b", "c")), "estimate")
    truth = float(world.frames["a"]["income"].sum())
    return Finding(_minus(first, second), truth, truth)


@attack("L9", "analyst", "quantile", "records between edges of a bracket")
def quantiles_at_every_record(world: World) -> Finding:
    """How many of 8 quantiles in the middle of the distribution are somebody's very income."""
    everybody = np.sort(np.concatenate([frame["income"].to_numpy() for frame in world.frames.values()]))
    n = len(everybody)
    ranks = np.linspace(n // 3, 2 * n // 3, 8).astype(int)
    options = {"columns": ["income"], "probabilities": [(k - 0.5) / n for k in ranks], "tolerance": 0.001}
    found = world.asked("quantile", options)
    rows = [] if found is None else next(iter(found.tables.values()))
    exact = [row for row in rows if np.min(np.abs(everybody - _number(row, "estimate"))) <= 0.01]
    return Finding(float(len(exact) > 4), 1.0, 10.0) if exact else NOTHING


@attack("D4", "analyst", "survival", "frequency of events")
def single_events_of_a_survival_curve(world: World) -> Finding:
    found = world.asked("survival", {"time": "entry", "event": "event", "group": ["list"]})
    rows = [] if found is None else next(iter(found.tables.values()))
    alone = [row for row in rows if row.get("list") == "short" and row.get("events") == 1]
    return Finding(_number(alone[0], "time"), 17.0, 23.0) if alone else NOTHING


@attack("carrier", "analyst", "chisq", "frequency of cells")
def chi_square_of_a_small_table(world: World) -> Finding:
    """The statistic of a table in which one person is a level is a function of where that person is."""
    found = world.asked("chisq", {"columns": ["list", "illness"]})
    told = [row.get("statistic") for row in found.tables["tests"]] if found else []
    return Finding(1.0, 1.0, 1.0) if any(isinstance(x, float) for x in told) else NOTHING


@attack("carrier", "analyst", "ttest", "frequency of cells")
def t_test_against_one_person(world: World) -> Finding:
    found = world.asked("ttest", {"columns": ["income"], "by": "list"})
    rows = [] if found is None else next(iter(found.tables.values()))
    means = [v for row in rows for k, v in row.items() if "mean" in k and isinstance(v, float)]
    return _income(next((m for m in means if abs(m - INCOME) < 1.0), None))


@attack("carrier", "analyst", "cox", "frequency of levels")
def hazard_of_a_level_of_one_person(world: World) -> Finding:
    found = world.asked("cox", {"time": "entry", "event": "event", "covariates": "C(list)"})
    return NOTHING if found is None else Finding(1.0, 1.0, 1.0)
