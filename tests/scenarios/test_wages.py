"""Scenario `wages`: its population, its figures against other libraries, and what its release levels do."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from statfed.core.disclosure import Rules
from statfed.core.errors import UsageError
from statfed.core.result import Result
from statfed.core.scenario import EXACT, Figure, Level, World, private
from statfed.federation import Federation
from statfed.lab.compare.questions import Questions
from statfed.lab.compare.statistics import write_sources
from statfed.lab.compare.trial import Technique
from statfed.scenarios import wages
from statfed.scenarios._data import payroll

SUPPRESS = wages.LEVELS[1]
BILLS: dict[str, Any] = {"rows": ["industry"], "columns": ["region"], "value": "wage", "nested_enterprises": True}
SQUARES: dict[str, Any] = {"rows": ["industry"], "value": "square", "nested_enterprises": True}


@pytest.fixture(scope="module")
def world() -> World:
    return wages.world("quick", 1)


@pytest.fixture(scope="module")
def jobs(world: World) -> pd.DataFrame:
    return pd.concat(world.holders.values(), ignore_index=True)


def questions(world: World, folder: Path, protection: str = "plain", level: Level = EXACT) -> Questions:
    sources = write_sources(world, folder / "sources")
    return Questions(sources, world.codebook, Technique(protection, level), 1, folder / "work")


def unsafe(bills: "pd.Series[float]") -> bool:
    """(2, 90 %) dominance or the 10 % rule, in the words of the handbook."""
    ranked = np.sort(bills.to_numpy(float))[::-1]
    rest = ranked[2:].sum()
    return bool(ranked[:2].sum() > 0.9 * ranked.sum() or rest < 0.1 * ranked[:1].sum())


def rows_of(result: Result, jobs: pd.DataFrame, value: str) -> list[tuple[str, bool]]:
    """Every row's status, and whether its pooled enterprises make it unsafe."""
    found = []
    for row in [*result.tables["cells"], *result.tables["margins"]]:
        here = jobs
        for name in result.by:
            here = here if row[name] is None else here[here[name] == row[name]]
        found.append((str(row["status"]), unsafe(here.groupby("enterprise")[value].sum())))
    return found


def test_margins_are_those_of_a_labour_market_and_holders_differ(world: World, jobs: pd.DataFrame) -> None:
    pooled = wages.pooled(world)
    assert 0.10 < pooled["gap"] < 0.18
    assert 0.06 < pooled["adjusted"] < 0.09 < pooled["gap"]
    assert 15 < jobs["hourly"].median() < 22
    part_time = jobs.groupby("sex")["part_time"].mean()
    assert part_time["f"] > 2.5 * part_time["m"]
    assert (jobs["hourly"] == payroll.HIGHEST).mean() < 0.001
    sizes = [len(frame) for frame in world.holders.values()]
    assert max(sizes) > 5 * min(sizes)
    energy = jobs[jobs["industry"] == "D"].groupby("enterprise")["wage"].sum().sort_values(ascending=False)
    assert energy.index[0] == "utility"
    assert energy.iloc[0] > 0.8 * energy.sum()
    assert pooled["hhi/D"] > 0.6
    assert pooled["hhi/H"] < 0.08


def test_every_enterprise_is_wholly_with_one_holder_and_below_the_public_bound(world: World) -> None:
    known: set[str] = set()
    for frame in world.holders.values():
        here = set(frame["enterprise"])
        assert not known & here
        known |= here
        assert frame.groupby(["enterprise", "industry"])["wage"].sum().max() < wages._LARGEST_BILL * 1e6


def test_a_holder_has_the_same_jobs_whoever_else_takes_part(world: World) -> None:
    alone = payroll.with_squares(payroll.employees("retailer", 1, np.random.default_rng([1, 4301, 2])))
    pd.testing.assert_frame_equal(alone, world.holders["retailer"])


def test_squares_add_up_to_the_squared_wage_bills_of_enterprises(jobs: pd.DataFrame) -> None:
    by = jobs.groupby(["enterprise", "industry"])
    np.testing.assert_allclose(by["square"].sum(), by["wage"].sum() ** 2 / 1e6, rtol=1e-12)


def test_a_job_that_goes_moves_the_sum_of_squares_by_no_more_than_the_bound(world: World) -> None:
    """Noise for one record covers one job only if this holds: the other jobs' squares change with it."""
    bound = world.codebook.columns["square"].high
    assert bound is not None
    for frame in world.holders.values():
        bill = frame.groupby(["enterprise", "industry"])["wage"].transform("sum")
        moved = (bill**2 - (bill - frame["wage"]) ** 2) / 1e6
        assert moved.max() <= bound
        squares = frame.groupby(["enterprise", "industry"])["wage"].transform(lambda wage: (wage**2).sum())
        rest = ((bill**2 - (bill - frame["wage"]) ** 2) * (squares - frame["wage"] ** 2)) / 1e12
        assert (rest + (frame["wage"] * bill / 1e6) ** 2).max() <= bound**2
        one = frame.iloc[[0]]
        others = payroll.with_squares(frame.drop(index=one.index).drop(columns="square"))
        assert frame["square"].sum() - others["square"].sum() == pytest.approx(moved.iloc[0], rel=1e-6)


def test_the_pooled_reference_is_that_of_an_independent_regression(world: World, jobs: pd.DataFrame) -> None:
    fit = smf.ols("np.log(hourly) ~ C(sex, Treatment('m')) + C(occupation) + C(industry) + part_time + age", jobs).fit()
    (name,) = (name for name in fit.params.index if name.endswith("[T.f]"))
    assert wages.pooled(world)["adjusted"] == pytest.approx(1 - np.exp(fit.params[name]), rel=1e-9)


def test_the_true_adjusted_gap_is_what_many_worlds_have_on_average() -> None:
    worlds = [wages.world("quick", seed) for seed in range(11, 19)]
    found = np.array([wages.pooled(world)["adjusted"] for world in worlds])
    truth = worlds[0].truth["adjusted"]
    assert abs(found.mean() - truth) < 3 * found.std(ddof=1) / np.sqrt(len(found))


def test_exact_figures_are_the_pooled_ones(world: World, tmp_path: Path) -> None:
    figures, pooled = wages.compute(questions(world, tmp_path), world.public), wages.pooled(world)
    assert figures.keys() == pooled.keys()
    for name, figure in figures.items():
        assert figure.value is not None
        allowed = wages.TOLERANCE / 2 if name.startswith("hourly") else 1e-9 * abs(pooled[name])
        assert abs(figure.value - pooled[name]) <= allowed, name
    adjusted = figures["adjusted"]
    assert adjusted.low is not None
    assert adjusted.high is not None
    assert adjusted.low < pooled["adjusted"] < adjusted.high


def test_one_employer_alone_has_figures_of_the_same_names(world: World, tmp_path: Path) -> None:
    only = replace(world, holders={"utility": world.holders["utility"]})
    figures = wages.compute(questions(only, tmp_path), {"holders": ("utility",)})
    assert figures.keys() == wages.pooled(world).keys()
    assert figures["hhi/D"].value == pytest.approx(1.0)
    assert figures["hhi/C"].value is None
    assert figures["hourly/C/p50"].value is None


def test_compute_nodes_find_the_unsafe_rows_and_no_others(world: World, jobs: pd.DataFrame, tmp_path: Path) -> None:
    result = questions(world, tmp_path, "multi-party", SUPPRESS)("table", **SQUARES)
    rows = rows_of(result, jobs, "square")
    assert all(status == "suppressed" for status, bad in rows if bad)
    assert 0 < sum(bad for _, bad in rows) < len(rows)


def test_sums_alone_hide_every_unsafe_row_and_safe_ones_with_them(
    world: World, jobs: pd.DataFrame, tmp_path: Path
) -> None:
    ask = questions(world, tmp_path, "secure-aggregation", SUPPRESS)
    bills = rows_of(ask("table", **BILLS), jobs, "wage")
    rows = bills + rows_of(ask("table", **SQUARES), jobs, "square")
    assert all(status == "suppressed" for status, bad in rows if bad)
    assert sum(status == "suppressed" and not bad for status, bad in rows) > 0
    assert any(status == "suppressed" for status, _ in bills)


def test_an_index_can_give_an_enterprise_away_where_its_total_does_not(world: World) -> None:
    """Bills of 100, 10 and a hundred of 1: from the total the first is below 200, from the squares it is 100."""
    bills = [100.0, 10.0] + [1.0] * 100
    frame = pd.DataFrame({"enterprise": [f"e{i}" for i in range(102)], "industry": "C", "wage": bills})
    frame = payroll.with_squares(frame)
    frame["square"] *= 1e6 / 100
    frame["wage"] *= 10
    parts = {f"h{i}": frame.iloc[i::3].reset_index(drop=True) for i in range(3)}
    rules = Rules(minimum_frequency=None, dominance_k=None, p_percent=10.0)
    codebook = world.codebook.model_copy(
        update={
            "columns": {name: world.codebook.columns[name] for name in ("enterprise", "industry", "wage", "square")}
        }
    )
    with Federation(parts, codebook, seed=1, disclosure=rules) as federation:
        total = federation.table("industry", value="wage", nested_enterprises=True)
        squares = federation.table("industry", value="square", nested_enterprises=True)
    status = [[row["status"] for row in one.tables["cells"] if row["industry"] == "C"] for one in (total, squares)]
    assert status == [["released"], ["suppressed"]]


def noisy(world: World, folder: Path, level: Level, **options: Any) -> Sequence[Mapping[str, Any]]:
    return questions(world, folder, "plain", level)("table", **options).tables["cells"]


def test_noise_that_hides_a_job_does_not_hide_an_enterprise(world: World, jobs: pd.DataFrame, tmp_path: Path) -> None:
    """One table at epsilon 10: the second largest gets the utility's bill to within 10 %, which the rule forbids."""
    bills = jobs[jobs["industry"] == "D"].groupby("enterprise")["wage"].sum().sort_values(ascending=False)
    rows = noisy(world, tmp_path, private(10.0), rows=["industry"], value="wage", nested_enterprises=True)
    (released,) = (row["total"] for row in rows if row["industry"] == "D")
    guess = released - bills.iloc[1]
    assert abs(guess - bills.iloc[0]) < 0.1 * bills.iloc[0]


def test_errors_of_the_gap_shrink_as_epsilon_grows(world: World, tmp_path: Path) -> None:
    pooled, errors = wages.pooled(world), []
    pay = {"rows": ["occupation"], "columns": ["sex"], "value": "hourly"}
    for epsilon in (1.0, 30.0):
        rows = noisy(world, tmp_path / f"{epsilon:g}", private(epsilon), **pay)
        mean = {(row["occupation"], row["sex"]): row["total"] / row["count"] for row in rows}
        gaps = {o: 1 - mean[o, "f"] / mean[o, "m"] for o in payroll.OCCUPATIONS}
        errors.append(np.mean([abs(gap - pooled[f"gap/{o}"]) for o, gap in gaps.items()]))
    assert errors[1] < errors[0] / 3


def test_the_measure_takes_the_worst_figure_in_units_of_what_its_use_allows() -> None:
    pooled = {"adjusted": 0.08, "gap/1": 0.1, "bill/C": 1000.0, "hhi/C": 0.2}
    figures = {"adjusted": Figure(0.08), "gap/1": Figure(0.105), "bill/C": Figure(1002.0), "hhi/C": Figure(None)}
    assert wages.worst(figures, pooled) == pytest.approx(0.5)
    assert wages.worst(figures | {"hhi/C": Figure(0.23)}, pooled) == pytest.approx(3.0)
    assert wages.worst(figures | {"adjusted": Figure(None)}, pooled) == np.inf


def test_a_wage_bill_above_the_public_bound_is_refused_since_noise_rests_on_it() -> None:
    frame = payroll.employees("retailer", 1, np.random.default_rng([1, 4301, 2]))
    largest = frame.groupby(["enterprise", "industry"])["wage"].sum().max() / 1e6
    assert len(payroll.with_squares(frame, largest + 0.01)) == len(frame)
    with pytest.raises(UsageError, match="square: got a wage bill above"):
        payroll.with_squares(frame, largest - 0.01)
