"""Attacks of a reader of publications: several treated releases of one data set, put together.

Holders' own rules are off: only what the release does stands between a cell and its reader.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from statfed.core.disclosure import Rules
from statfed.core.result import Result, Row
from tests.attacks.cells import Finest
from tests.attacks.finding import FREE, NOTHING, Finding, attack
from tests.attacks.population import OCCUPATIONS, PERSONS, REGIONS, changed
from tests.attacks.world import World

OPEN = {"disclosure": FREE}
BY = ("occupation", "union", "region")
LEVELS = {"occupation": OCCUPATIONS, "union": ["n", "y"], "region": REGIONS}
MINIMUM = 10


def _exactly(found: int) -> Finding:
    """A cell that was to be hidden and can only be one number."""
    return Finding(float(found > 0), 1.0, 1.0)


def _rows(result: Result) -> list[Row]:
    return [row for name in ("cells", "margins") for row in result.tables.get(name, ())]


def _table(world: World, *by: str, **more: object) -> Result | None:
    return world.asked("table", {"rows": list(by)}, **more)


def _finest(world: World, by: Sequence[str] = BY) -> Finest:
    return Finest({name: LEVELS[name] for name in by}, float(sum(map(len, world.frames.values()))))


def _unsafe(world: World, by: Sequence[str] = BY) -> list[dict[str, object]]:
    """Cells of the whole table, and of its margins, with fewer records than the minimum and with some."""
    import pandas as pd

    whole = pd.concat(world.frames.values())
    sizes = whole.groupby(list(by), observed=True).size()
    return [
        dict(zip(by, key if isinstance(key, tuple) else (key,), strict=True))
        for key, n in sizes.items()
        if 0 < n < MINIMUM
    ]


def _found(finest: Finest, cells: Iterable[Mapping[str, object]]) -> Finding:
    return _exactly(finest.known(list(cells)[:12]))


@attack("K4", "reader", "table", "one symbol", policies=OPEN, former=True, holders=3)
def labels_of_suppressed_cells(world: World) -> Finding:
    """Whether a cell is hidden for itself or for another bounds it from above or below."""
    found = _table(world, "occupation", "union", "region")
    if found is None:
        return NOTHING
    finest, hidden = _finest(world), []
    finest.read(_rows(found))
    for row in _rows(found):
        if row.get("count") is None and row.get("status") in ("primary", "secondary"):
            few = row["status"] == "primary"
            finest.learn(finest.at(row), 1 if few else 0, MINIMUM - 1 if few else finest.most)
            hidden += [row] if few else []
    if any(row.get("status") == "primary" for row in _rows(found)):
        return _exactly(1)  # that the cell has 1 to m - 1 is told by its label
    return _found(finest, hidden)


@attack("L10", "reader", "table", "pinned codebook, memory of releases", policies=OPEN, holders=3)
def one_table_under_two_hierarchies(world: World) -> Finding:
    finest, told = _finest(world), 0
    coast, inland = {"north": "coast", "south": "coast"}, {"south": "inland", "east": "inland"}
    for parents in (coast, inland):
        code = next(iter(parents.values()))
        book = changed(PERSONS, region={"parents": parents})
        found = _table(world, *BY, codebook=book)
        if found is not None:
            finest.read((row for row in _rows(found) if row.get("region") != code), {"region": parents})
            told += 1
    return _found(finest, _unsafe(world)) if told else NOTHING


@attack("L13", "reader", "table", "one method a data set, memory of releases", policies=OPEN, holders=3)
def suppressed_once_and_rounded_once(world: World) -> Finding:
    finest = _finest(world)
    first = _table(world, *BY)
    second = _table(world, *BY, rules=Rules(method="round", base=3))
    if first is None or second is None:
        return NOTHING
    finest.read(_rows(first))
    finest.read(_rows(second), wide=1.0)
    return _found(finest, _unsafe(world))


@attack("L13", "reader", "table", "one method a data set, memory of releases", policies=OPEN)
def rounded_to_five_and_to_three(world: World) -> Finding:
    finest = _finest(world)
    for base, wide in ((5, 2.0), (3, 1.0)):
        found = _table(world, *BY, rules=Rules(method="round", base=base))
        if found is None:
            return NOTHING
        finest.read(_rows(found), wide=wide)
    return _found(finest, _unsafe(world))


@attack("D9", "reader", "table", "one draw a data set", policies=OPEN)
def random_rounding_asked_again(world: World) -> Finding:
    """Independent draws average to the truth; it is enough that two of them differ."""
    draws = [_table(world, "occupation", rules=Rules(method="random-round", base=5)) for _ in range(4)]
    told = [[row.get("count") for row in _rows(found)] for found in draws if found is not None]
    return _exactly(sum(one != told[0] for one in told))


@attack("D6", "reader", "table", "memory of releases", policies=OPEN)
def linked_tables(world: World) -> Finding:
    """A table of three categories, each pair by itself, and each part of one by a filter."""
    finest = _finest(world)
    asked = [_table(world, *BY), *(_table(world, *[b for b in BY if b != left]) for left in BY)]
    for found in asked:
        if found is not None:
            finest.read(_rows(found))
    for code in LEVELS["region"]:
        for union in LEVELS["union"]:
            where = [f"region = {code}", f"union = {union}"]
            found = world.asked("table", {"rows": ["occupation"]}, where)
            if found is not None:
                finest.read({"region": code, "union": union, **row} for row in _rows(found))
    return _found(finest, _unsafe(world)) if finest._rows else NOTHING


@attack("D6", "reader", "count", "memory of releases", policies=OPEN, holders=3)
def counts_of_unions_of_hidden_cells(world: World) -> Finding:
    """Nested filters: all regions but one, each large; the smallest is the difference."""
    whole = world.asked("count", {}, ["union = y", "occupation = farm"])
    finest = _finest(world)
    if whole is None:
        return NOTHING
    finest.read([{"union": "y", "occupation": "farm", "count": whole.tables["estimates"][0].get("count")}])
    for code in REGIONS:
        where = ["union = y", "occupation = farm", f"region != {code}"]
        found = world.asked("count", {}, where)
        value = found.tables["estimates"][0].get("count") if found else None
        if isinstance(value, int | float):
            cells = sum(
                (
                    finest.at({"union": "y", "occupation": "farm", "region": other})
                    for other in REGIONS
                    if other != code
                ),
                np.zeros(len(finest.places)),
            )
            finest.learn(cells, float(value), float(value))
    return _found(finest, [c for c in _unsafe(world) if c["union"] == "y" and c["occupation"] == "farm"])


@attack("D6", "reader", "table", "rules are the holder's, memory of releases", policies=OPEN)
def thresholds_that_the_asker_sets(world: World) -> Finding:
    """One table under minimum 10 and again under 2: cells that were hidden are shown."""
    first, second = (_table(world, "occupation", "union", rules=Rules(minimum_frequency=m)) for m in (10, 2))
    if first is None or second is None:
        return NOTHING
    hidden = [row.get("count") is None for row in first.tables["cells"]]
    shown = [row.get("count") is not None for row in second.tables["cells"]]
    return _exactly(sum(a and b for a, b in zip(hidden, shown, strict=True)))


@attack("L13", "reader", "chisq", "figures of a hidden cell are withheld", policies=OPEN, unreleased=True)
def table_and_its_chi_square(world: World) -> Finding:
    """The statistic of a 2 x 2 table with a hidden cell of one person, whose margins are known."""
    table = _table(world, "club", "union")
    club, union = (_table(world, name) for name in ("club", "union"))
    found = world.asked("chisq", {"columns": ["club", "union"]})
    if club is None or union is None:
        return NOTHING
    a = next((row["count"] for row in club.tables["cells"] if row["club"] == "y"), None)
    b = next((row["count"] for row in union.tables["cells"] if row["union"] == "y"), None)
    n = club.facts["observations"]
    statistics = [row.get("statistic") for row in found.tables["tests"]] if found else []
    statistics += [table.facts.get("chi_square")] if table else []
    told = [x for x in statistics if isinstance(x, float)]
    if not told or not all(isinstance(x, int | float) for x in (a, b, n)):
        return NOTHING
    size = np.array([a, b, n], np.float64)
    fits = [k for k in range(30) if abs(_chi_square(float(k), *size) - told[0]) < 1e-6]
    return Finding(float(fits[0]), 1.0, 10.0) if len(fits) == 1 else NOTHING


def _chi_square(k: float, a: float, b: float, n: float) -> float:
    observed = np.array([[k, a - k], [b - k, n - a - b + k]])
    expected = np.outer(observed.sum(1), observed.sum(0)) / n
    return float(((observed - expected) ** 2 / expected).sum())


@attack("L13", "reader", "variance", "memory of releases", policies=OPEN, unreleased=True)
def variance_by_groups_and_mean_of_all(world: World) -> Finding:
    """A row that is withheld in one question follows from others, which are about everybody and about the rest."""
    by = world.asked("mean", {"columns": ["income"], "by": ["list"]})
    variance = world.asked("variance", {"columns": ["income"], "by": ["list"]})
    whole = world.asked("mean", {"columns": ["income"]})
    if whole is None:
        return NOTHING
    rows = [row for found in (by, variance) if found for row in next(iter(found.tables.values()))]
    long = [row for row in rows if row.get("list") == "long" and isinstance(row.get("mean"), float)]
    if not long or not isinstance(long[0].get("count"), int | float):
        return NOTHING
    one = whole.tables["estimates"][0]
    n, m = float(one["count"]), float(long[0]["count"])  # type: ignore[arg-type]
    got = (float(one["mean"]) * n - float(long[0]["mean"]) * m) / max(n - m, 1.0)  # type: ignore[arg-type]
    return Finding(got if n > m else None, 187_423.0, 200_000.0)


@attack("D5", "reader", "table", "frequency of left-out records", policies=OPEN)
def one_record_without_a_value(world: World) -> Finding:
    """How many lack a category, from the table of those who have it and the table of everybody."""
    frame = world.frames["a"]
    frame.loc[3, "education"] = None
    frame.to_parquet(world.home / "a" / "data.parquet")
    found = _table(world, "sex", "education")
    told = found.facts.get("missing") if found else None
    whole = world.asked("table", {"rows": ["sex"]})
    if not isinstance(told, int | float) and found is not None and whole is not None:
        first, second = found.facts.get("observations"), whole.facts.get("observations")
        told = None if first is None or second is None else float(second) - float(first)
    return Finding(float(told), 1.0, 10.0) if isinstance(told, int | float) else NOTHING


@attack("L11", "reader", "table", "totals perturbed by themselves", policies=OPEN, control=False)
def mean_of_a_table_perturbed_by_cell_keys(world: World) -> Finding:
    """If counts and totals are perturbed by one factor, their quotient is exact."""
    options = {"rows": ["club"], "value": "income", "record_keys": True}
    free = Rules(method="cell-key", dominance_k=None, p_percent=None)
    found = world.asked("table", options, rules=free)
    exact = {code: float(np.mean(v)) for code, v in _incomes(world, "club").items()}
    rows = [row for row in found.tables["cells"] if row.get("count")] if found else []
    quotients = {row["club"]: float(row["total"]) / float(row["count"]) for row in rows if row.get("total")}  # type: ignore[arg-type]
    same = [code for code, mean in quotients.items() if abs(mean / exact[str(code)] - 1) < 1e-9]
    return _exactly(len(same))


@attack("L12", "reader", "table", "pinned codebook", policies=OPEN)
def record_keys_that_the_asker_chooses(world: World) -> Finding:
    """With a public column as keys the perturbation is a function of what is known: it can be looked up."""
    book = changed(PERSONS, share={"role": "record-key"}, key={"role": None})
    options = {"rows": ["union"], "record_keys": True}
    found = world.asked("table", options, rules=Rules(method="cell-key"), codebook=book)
    return _exactly(0 if found is None else 1)


def _incomes(world: World, by: str) -> dict[str, list[float]]:
    import pandas as pd

    whole = pd.concat(world.frames.values())
    return {str(code): list(part["income"]) for code, part in whole.groupby(by, observed=True)}
