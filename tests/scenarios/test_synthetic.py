"""Scenarios of synthetic data: figures against DuckDB and statsmodels, worlds, measures of use, one trial by tables."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

from statfed.core.codebook import Codebook, Column
from statfed.core.errors import UsageError
from statfed.core.result import Result
from statfed.core.scenario import EXACT, Figure, Level, World, private
from statfed.core.synthetic import edits
from statfed.core.synthetic.coded import Coded
from statfed.lab.compare.bench import tried
from statfed.lab.compare.statistics import bench_of, write_sources
from statfed.lab.compare.trial import Cell, Technique
from statfed.scenarios import (
    _synthesis,
    synthetic_census,
    synthetic_households,
    synthetic_register,
    synthetic_twin,
    synthetic_wages,
)
from statfed.scenarios._data import adults, dwellers, enterprises, jobs


@pytest.fixture(scope="module")
def census() -> World:
    return synthetic_census.world("quick", 1)


@pytest.fixture(scope="module")
def twin() -> World:
    return synthetic_twin.world("quick", 1)


def together(world: World) -> pd.DataFrame:
    return pd.concat(world.holders.values(), ignore_index=True)


# Figures


def test_shares_and_means_equal_sql(census: World) -> None:
    people, found = together(census), synthetic_census.pooled(census)
    with duckdb.connect() as connection:
        connection.register("people", people)
        told = connection.sql("select marital, high, count(*) / sum(count(*)) over () from people group by all")
        for marital, high, share in told.fetchall():
            assert found[f"table/marital x high/{marital}|{str(high).lower()}"] == pytest.approx(share)
        for education, weeks in connection.sql("select education, avg(weeks) from people group by all").fetchall():
            assert found[f"mean/weeks/{education}"] == pytest.approx(weeks)
    tables = [value for name, value in found.items() if name.startswith("table/")]
    assert sum(tables) == pytest.approx(2.0)


def test_coefficients_and_their_errors_equal_statsmodels(twin: World) -> None:
    import statsmodels.formula.api as models

    found = together(twin).assign(part=lambda frame: frame["part_time"].astype(float))
    told = synthetic_twin.pooled(twin)
    categories = {"sex": "m", "age": "15-24", "occupation": "1"}
    terms = " + ".join(f"C({name}, Treatment('{first}'))" for name, first in categories.items())
    fitted = models.ols(f"np.log(hourly) ~ {terms} + part", found).fit()
    for name, estimate in fitted.params.items():
        if name == "Intercept":
            continue
        ours = "part_time=true" if name == "part" else f"{name[2:].split(',')[0]}={name.split('[T.')[1][:-1]}"
        assert told[f"coefficient/{ours}"] == pytest.approx(estimate, rel=1e-8)
        assert told[f"error/{ours}"] == pytest.approx(fitted.bse[name], rel=1e-8)


def test_a_coefficient_that_records_do_not_determine_is_not_there() -> None:
    codebook = Codebook(
        columns={
            "a": Column(type="category", categories={"x": "", "y": "", "z": ""}, required=True),
            "b": Column(type="boolean", required=True),
        }
    )
    frame = pd.DataFrame({"a": ["x", "y", "x", "y"], "b": [True, True, False, False]})
    found = _synthesis.coefficients(frame, np.array([1.0, 2.0, 1.0, 2.0]), ("a", "b"), codebook)
    assert found["coefficient/a=y"] == pytest.approx(1.0)
    assert math.isnan(found["coefficient/a=z"])
    same = frame.assign(b=frame["a"] == "y")
    assert all(map(math.isnan, _synthesis.coefficients(same, np.ones(4), ("a", "b"), codebook).values()))
    assert _synthesis.told({"coefficient/a=z": math.nan}) == {"coefficient/a=z": Figure(None)}


def test_gini_equals_the_mean_difference() -> None:
    values = np.random.default_rng(0).lognormal(2, 1, 300)
    want = np.abs(values[:, None] - values[None]).mean() / (2 * values.mean())
    assert _synthesis.gini(values) == pytest.approx(want)


# Measures of use


def test_errors_are_by_kind_and_what_did_not_come_out_is_infinitely_wrong() -> None:
    pooled = {"table/t/a": 0.6, "table/t/b": 0.4, "table/u/a": 1.0, "mean/x/a": 10.0, "gini/x": 0.3}
    told = {"table/t/a": 0.5, "table/t/b": 0.5, "table/u/a": 1.0, "mean/x/a": 11.0, "gini/x": 0.25}
    figures = {name: Figure(value) for name, value in told.items()}
    assert _synthesis.errors(figures, pooled) == pytest.approx({"table": 0.05, "mean": 0.1, "gini": 0.05})
    limits = {"table": 0.1, "mean": 0.05, "gini": 0.1}
    assert _synthesis.worst(limits)(figures, pooled) == pytest.approx(2.0)
    assert _synthesis.worst(limits)(figures | {"gini/x": Figure(None)}, pooled) == math.inf


def test_a_twin_misleads_by_sign_order_and_rank() -> None:
    pooled = {
        "coefficient/a": 0.1, "error/a": 0.01, "coefficient/b": 0.01, "error/b": 0.01,
        "mean/h/1": 10.0, "mean/h/2": 20.0,
    }  # fmt: skip
    figures = {name: Figure(value) for name, value in pooled.items()}
    assert synthetic_twin.misled(figures, pooled) == 0.0
    assert synthetic_twin.misled(figures | {"coefficient/b": Figure(-1.0)}, pooled) == 0.0  # was never clear
    for wrong in (-0.1, 0.04, 0.21, None):
        assert synthetic_twin.misled(figures | {"coefficient/a": Figure(wrong)}, pooled) == 0.5
    assert synthetic_twin.misled(figures | {"mean/h/1": Figure(21.0)}, pooled) == 0.5


# Records


class Nobody:
    """Nothing is asked before the level is looked at."""

    def __init__(self, level: Level) -> None:
        self.level = level

    def __call__(self, analysis: str, **_: Any) -> Result:
        raise AssertionError(analysis)

    def gives(self, analysis: str) -> bool:
        return True


def test_a_level_has_the_method_that_suits_it() -> None:
    suppress = synthetic_wages.LEVELS[1]
    assert [_synthesis.method_of(one) for one in (EXACT, suppress, private(1.0))] == ["cart", "margins", "aim"]
    with pytest.raises(UsageError, match="got method margins; want a level of cart, aim"):
        _synthesis.made(Nobody(suppress), synthetic_census.codebook(), {"cart": (), "aim": ()})


def test_classes_of_wages_hold_the_wages_and_are_drawn_within_their_limits() -> None:
    found = together(synthetic_wages.world("quick", 1))
    limits: Mapping[str, tuple[float, float]] = jobs.PAY
    low, high = np.array([limits[code] for code in found["pay"]]).T
    assert ((low <= found["hourly"]) & ((found["hourly"] < high) | (high == 100))).all()
    drawn = _synthesis.within(found, "pay", limits)
    assert ((low <= drawn) & (drawn < high)).all()
    assert len(np.unique(drawn)) > 0.9 * len(drawn)


def test_enterprises_obey_the_edits_and_one_of_another_size_does_not() -> None:
    codebook = synthetic_register.codebook()
    found = together(synthetic_register.world("quick", 1))
    table: dict[str, Any] = {
        name: [column.levels.index(one) for one in found[name]] if column.levels else found[name].astype(float)
        for name, column in codebook.columns.items()
    }
    table = {name: np.array(values) for name, values in table.items()}
    rules = edits.clauses(codebook)
    assert edits.obeys(Coded(codebook, table), rules).all()
    moved = table | {"size": (table["size"] + 1) % len(enterprises.SIZES)}
    assert not edits.obeys(Coded(codebook, moved), rules).any()


def test_figures_of_households_are_those_of_their_members() -> None:
    """Reckoned from the members as they were before they were folded, person by person."""
    told = synthetic_households.pooled(synthetic_households.world("quick", 1))
    people = pd.concat(dwellers.generated(5_000, 1).values(), ignore_index=True)
    grown = people[people["age"] != "0-13"].groupby("household").size()
    small = people[people["age"] == "0-13"].groupby("household").size().reindex(grown.index, fill_value=0)
    people["equivalised"] = people["income"] / people["household"].map(1 + 0.5 * (grown - 1) + 0.3 * small)
    line = 0.6 * np.quantile(people["equivalised"], 0.5, method="inverted_cdf")
    poor = people["equivalised"] < line
    assert told["share/poor"] == pytest.approx(poor.mean())
    assert told["share/poor children"] == pytest.approx(poor[people["age"] == "0-13"].mean())
    sizes = people.groupby("household").agg(size=("age", "size"), region=("region", "first"))
    assert told["table/region x size/west|3"] == pytest.approx(
        ((sizes["size"] == 3) & (sizes["region"] == "west")).sum() / 5_000
    )
    assert told["table/age x work/25-39|self"] == pytest.approx(
        ((people["age"] == "25-39") & (people["work"] == "self")).mean()
    )


def test_published_adults_have_the_codes_of_generated_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = []
    for place, (age, work, school, marital, sex) in enumerate(
        [
            ("40", "Private", "Bachelors degree(BA AB BS)", "Married-civilian spouse present", "Female"),
            ("95", "Not in universe", "7th and 8th grade", "Widowed", "Male"),
            ("30", "Self-employed-incorporated", "Doctorate degree(PhD EdD)", "Divorced", "Male"),
            ("50", "Federal government", "High school graduate", "Never married", "Female"),
            ("5", "Not in universe", "Children", "Never married", "Male"),
        ]
    ):
        row = ["?"] * 42
        row[0], row[1], row[4], row[7], row[12] = age, work, school, marital, sex
        row[16], row[39], row[41] = "0", str(place), "50000+." if place == 2 else "- 50000."
        lines.append(", ".join(row))
    monkeypatch.setattr(adults, "read_members", lambda *_: {adults.FILE: "\n".join(lines).encode()})
    found = pd.concat(adults.published(1).values()).sort_values("weeks").reset_index(drop=True)
    assert found["age"].tolist() == [40, 90, 30, 50]
    assert found["education"].tolist() == ["bachelor", "basic", "higher", "upper"]
    assert found["marital"].tolist() == ["married", "widowed", "separated", "never"]
    assert found["work"].tolist() == ["private", "none", "self", "public"]
    assert found["sex"].tolist() == ["f", "m", "m", "f"]
    assert found["high"].tolist() == [False, False, True, False]
    monkeypatch.setenv("STATFED_CACHE", str(tmp_path))
    assert not adults.available()


def test_jobs_from_released_tables_keep_what_the_tables_tell(tmp_path: Path) -> None:
    world = synthetic_wages.world("quick", 1)
    pooled = synthetic_wages.pooled(world)
    bench = bench_of(synthetic_wages, world, write_sources(world, tmp_path), pooled)
    trial = tried(bench, Cell("synthetic-wages", "quick", Technique("plain", synthetic_wages.LEVELS[1]), 1))
    found = _synthesis.errors(trial.figures, pooled)
    assert found["table"] < 0.03
    assert found["coefficient"] < synthetic_wages.LIMITS["coefficient"]
    assert found["quantile"] < synthetic_wages.LIMITS["quantile"]
    assert trial.measures["violations"] == 0
