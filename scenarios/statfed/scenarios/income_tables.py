"""Reference scenario `income-tables`: incomes by region and age, from tax registers and a sample of non-filers.

The case is that of countries in which one national authority collects the taxes of most regions and some regions
collect their own (in Spain the tax agency and the foral treasuries, from whose returns INE compiles its atlas of
household income), and whose filing threshold leaves a fifth of adults out: the office has to add several registers and
its own weighted sample up to one table, and may see none of the registers.

Every adult is one record with one holder, so that protecting a record protects a person. Estimated are numbers of
adults by region, age and main source of income (240 cells); total income by region and age with its design-based
interval (48 cells); and mean income, the quotient of the two. Registers are strata taken with certainty and add no
variance; that of the office's sample comes from its strata and households.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from statfed.core import VERSION
from statfed.core.codebook import Codebook, make_codebook
from statfed.core.disclosure import Rules
from statfed.core.result import Row, Scalar
from statfed.core.scenario import (
    EXACT,
    Ask,
    Figure,
    Figures,
    Level,
    Profile,
    Reference,
    Success,
    World,
    private,
    read_about,
)
from statfed.scenarios._data import incomes

ADULTS: Mapping[Profile, int] = {"quick": 240_000, "full": 2_400_000}
COMMON = ("R1", "R2", "R3", "R4", "R5")
"""Regions whose taxes the national authority collects."""
OWN = {"region-6": "R6", "region-7": "R7", "region-8": "R8"}
"""Registers of regions that collect themselves."""

ABOUT = read_about(__file__)

LEVELS: Sequence[Level] = (
    EXACT,
    Level("suppress", "cells from fewer than 10 records or dominated ones, and further ones", disclosure=Rules()),
    Level("cell-key", "cell-key noise of at most 5 records", disclosure=Rules(method="cell-key", base=5)),
    private(10.0),
    private(3.0),
    private(1.0),
    private(10.0, "shared"),
)


def median_error(figures: Figures, pooled: Reference) -> float:
    """Median relative error of the figures whose pooled value is not 0; one that was not released counts as 1."""
    errors = [
        1.0 if figures[name].value is None else abs(float(figures[name].value or 0.0) - value) / value
        for name, value in pooled.items()
        if value != 0
    ]
    return float(np.median(errors))


SUCCESS = Success("median relative error of a figure; suppressed counts as 100 %", median_error, 0.05)
"""5 %: up to such a coefficient of variation an estimate has the project's best grade (`_survey.QUALITY`). Sampling by
itself moves the median figure by 1.6 % in the quick profile, so that this is the larger error, but one users accept."""


def codebook() -> Codebook:
    """What the five agree on. weight is public up to its bound, on which the noise of private levels depends."""
    needed = {"required": True}
    listed = {
        "region": [region.code for region in incomes.REGIONS],
        "age": incomes.AGES,
        "sex": incomes.SEXES,
        "source": incomes.SOURCES,
        "stratum": ("tax-authority", *OWN, *(f"survey-{region.code}" for region in incomes.REGIONS)),
    }
    columns: dict[str, dict[str, Any]] = {
        name: {"type": "category", "categories": list(codes)} | needed for name, codes in listed.items()
    }
    columns["stratum"] |= {"role": "stratum"}
    columns["psu"] = {"type": "id", "role": "psu", "label": "household, or the whole register"} | needed
    columns["person"] = {"type": "id", "role": "unit"} | needed
    columns["key"] = {"type": "number", "low": 0, "high": 1, "role": "record-key"} | needed
    columns["weight"] = {"type": "number", "low": 0, "high": incomes.MOST_WEIGHT, "role": "weight"} | needed
    columns["income"] = {"type": "number", "low": 0, "high": incomes.TOP_CODE, "unit": "EUR a year"} | needed
    table = {
        "title": "Adults and their incomes",
        "columns": columns,
        "design": {"lonely_psu": "certainty", "psu_spans_holders": False},
    }
    return make_codebook(table, "income-tables")


def world(profile: Profile, seed: int) -> World:
    """Registers and sample of one country. truth: figures of the whole population."""
    people = {region.code: incomes.adults(region, ADULTS[profile], seed) for region in incomes.REGIONS}
    holders = {"tax-authority": incomes.register(pd.concat([people[code] for code in COMMON]), "tax-authority")}
    holders |= {name: incomes.register(people[code], name) for name, code in OWN.items()}
    drawn = [incomes.sample(people[region.code], region, seed) for region in incomes.REGIONS]
    holders["nso"] = pd.concat(drawn, ignore_index=True)
    return World(
        holders=holders,
        codebook=codebook(),
        origin=f"synthetic: generator of statfed {VERSION}, seed {seed}, about {ADULTS[profile]:,} adults",
        public={"holders": tuple(holders)},
        truth=_figures(pd.concat(people.values()).assign(weight=1.0)),
    )


def compute(ask: Ask, public: Mapping[str, Any]) -> dict[str, Figure]:  # noqa: ARG001
    """Two tables. Design-based variances have no private form: there intervals take records as a simple random sample,
    which is too wide for registers, and contain the noise.

    Under cell keys the mean is a quotient of two perturbed numbers; suppressed in one table it is suppressed.
    """
    persons = ask("table", share=0.4, rows=("region", "age"), columns=("source",), weight="weight")
    design = persons.privacy is None
    income = ask("table", share=0.6, rows=("region",), columns=("age",), value="income", weight="weight", design=design)
    figures = {
        _name("persons", row, "region", "age", "source"): _plain(row["total"]) for row in persons.tables["cells"]
    }
    adults: dict[tuple[Scalar, Scalar], Scalar] = {
        (row["region"], row["age"]): row["total"]
        for row in persons.tables["margins"]
        if row["source"] is None and row["region"] is not None and row["age"] is not None
    }
    limits = income.conf_int()
    for row, (_, limit) in zip(income.tables["cells"], limits.iterrows(), strict=True):
        known = row["total"] is not None and bool(np.isfinite(limit["lower"]))
        low, high = (float(limit["lower"]), float(limit["upper"])) if known else (None, None)
        figures[_name("income", row, "region", "age")] = Figure(_number(row["total"]), low, high)
        total, number = _number(row["total"]), _number(adults[row["region"], row["age"]])
        mean = total / number if total is not None and number else None
        figures[_name("mean", row, "region", "age")] = Figure(mean)
    return figures


def pooled(world: World) -> dict[str, float]:
    """The same figures by SQL over all records together."""
    return _figures(pd.concat(world.holders.values()))


def _figures(people: pd.DataFrame) -> dict[str, float]:
    """Weighted figures of a table of persons, by DuckDB; 0 persons where a combination does not occur."""
    codes = [region.code for region in incomes.REGIONS]
    found = {f"persons|{'|'.join(at)}": 0.0 for at in product(codes, incomes.AGES, incomes.SOURCES)}
    with duckdb.connect() as connection:
        connection.register("people", people)
        cells = "select region, age, source, sum(weight) from people group by all"
        for region, age, source, number in connection.sql(cells).fetchall():
            found[f"persons|{region}|{age}|{source}"] = number
        cells = "select region, age, sum(weight * income), sum(weight) from people group by all order by all"
        for region, age, total, number in connection.sql(cells).fetchall():
            found |= {f"income|{region}|{age}": total, f"mean|{region}|{age}": total / number}
    return found


def _name(what: str, row: Row, *by: str) -> str:
    return "|".join((what, *(str(row[column]) for column in by)))


def _number(value: Scalar) -> float | None:
    return None if value is None else float(value)


def _plain(value: Scalar) -> Figure:
    return Figure(_number(value))
