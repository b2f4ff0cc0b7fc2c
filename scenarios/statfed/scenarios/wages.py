"""Reference scenario `wages`: pay gap, wages and concentration among enterprises that do not show each other payrolls.

The case of Boston's wage gap reports: employers agreed to a common figure on condition that nobody, the statistician
included, sees the payroll of one of them. Here three very large enterprises and two registers of small ones hold
records of jobs, and an office asks for the pay gap between women and men, raw by occupation and adjusted; quartiles of
hourly wages; wage bills by industry and region; and the Herfindahl-Hirschman index of each industry.

Enterprises are what disclosure control is about: where one has nearly all of a cell, the second largest can subtract
itself and know the first. A sum hides which holder gave what, and not that. The index needs the square of each
enterprise's wage bill, and squares add up over enterprises and not over jobs. Each holder therefore gives every record
`square`, the wage times the wage bill of the enterprise in the record's industry: its sum over an enterprise's records
is the bill squared, and no table of enterprises is needed. The sum of squares is released as a table of its own under
the same rules, because a total can be safe and the index not: with bills of 100, 10 and a hundred times 1 the second
largest knows from the total that the first is below 200, and from the sum of squares that it is 100.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from statfed.core.codebook import Codebook, Column
from statfed.core.disclosure import Rules
from statfed.core.result import Result
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
from statfed.scenarios._data import payroll

ABOUT = read_about(__file__)

LEVELS: Sequence[Level] = (
    EXACT,
    Level("suppress", "at least 10 jobs, (2,90) dominance, 10 % rule, secondary suppression", disclosure=Rules()),
    private(10.0),
    private(1.0),
    private(10.0, "shared"),
)

ALLOWED = {"gap": 0.01, "adjusted": 0.01, "hhi": 0.01, "hourly": 0.01, "bill": 0.01}
"""Error that the use of a figure allows, by the first part of its name; of `hourly` and `bill` relative to the figure.

Gaps: one percentage point, a fifth of the 5 % from which Directive (EU) 2023/970, article 10, wants pay assessed.
Index: 100 points of 10,000, the change from which the United States' merger guidelines of 2023 presume harm in a
concentrated market. Wages and bills: 1 %, well below their growth of 2 to 5 % a year, whose direction they show.
"""

FORMULA = "log(hourly) ~ C(sex) + C(occupation) + C(industry) + part_time + age"
_WOMEN = "C(sex)[T.f]"
TOLERANCE = 0.1
"""EUR an hour, width in which a quartile is found: half of it is 0.3 % of the lowest median."""
_QUARTILES = {"p25": 0.25, "p50": 0.5, "p75": 0.75}
_SCALE: Mapping[Profile, int] = {"quick": 1, "full": 12}
_LARGEST_BILL = 40.0  # million EUR a month of one enterprise in one industry, times the scale: public


def world(profile: Profile, seed: int) -> World:
    """The holders' jobs of one month. quick: 58,000 jobs; full: 690,000. Every enterprise is wholly with one holder."""
    scale = _SCALE[profile]
    holders = {
        name: payroll.with_squares(
            payroll.employees(name, scale, np.random.default_rng([seed, 4301, i])), _LARGEST_BILL * scale
        )
        for i, name in enumerate(payroll.HOLDERS)
    }
    return World(
        holders,
        codebook(scale),
        f"generated payrolls of {sum(map(len, holders.values())):,} jobs, seed {seed}",
        public={"holders": tuple(holders)},
        truth={"adjusted": 1.0 - math.exp(payroll.ADJUSTED)},
    )


def codebook(scale: int) -> Codebook:
    """What all holders agree to. The bound of `square` is twice its largest value: a job that comes or goes also
    changes the bill that the other jobs of its enterprise are multiplied by, and bill^2 - (bill - wage)^2 is at most
    2 bill x wage, so that noise for one record covers one job."""
    most = payroll.HIGHEST * payroll.MOST_HOURS
    square = 2.0 * most * _LARGEST_BILL * scale
    columns = {
        "enterprise": Column(type="id", role="enterprise", required=True),
        "sex": Column(type="category", categories=payroll.SEXES, required=True),
        "occupation": Column(type="category", label="ISCO-08", categories=payroll.OCCUPATIONS, required=True),
        "industry": Column(type="category", label="NACE of local unit", categories=payroll.INDUSTRIES, required=True),
        "region": Column(type="category", categories=payroll.REGIONS, required=True),
        "part_time": Column(type="boolean", required=True),
        "age": Column(type="integer", unit="years", low=15, high=75, required=True),
        "hours": Column(type="number", unit="hours a month", low=0, high=payroll.MOST_HOURS, required=True),
        "hourly": Column(type="number", unit="EUR", low=payroll.LOWEST, high=payroll.HIGHEST, required=True),
        "wage": Column(type="number", unit="EUR a month", low=0, high=most, required=True),
        "square": Column(
            type="number", label="wage x wage bill", unit="EUR x million EUR", low=0, high=square, required=True
        ),
    }
    return Codebook(title="Jobs of one month", columns=columns)


def compute(ask: Ask, public: Mapping[str, Any]) -> Figures:  # noqa: ARG001
    """Five questions: wage bills, hourly wages by occupation and sex, sums of squares, quartiles, a regression."""
    bills = ask("table", share=0.2, rows=["industry"], columns=["region"], value="wage", nested_enterprises=True)
    pay = ask("table", share=0.3, rows=["occupation"], columns=["sex"], value="hourly", nested_enterprises=True)
    squares = ask("table", share=0.25, rows=["industry"], value="square", nested_enterprises=True)
    quartiles = ask(
        "quantile",
        share=0.15,
        columns=["hourly"],
        by="industry",
        probabilities=list(_QUARTILES.values()),
        tolerance=TOLERANCE,
    )
    model = ask("ols", share=0.1, formula=FORMULA)
    bill, mean, square = _cells(bills, "total"), _means(pay), _cells(squares, "total")
    figures: dict[str, Figure] = {}
    for industry in payroll.INDUSTRIES:
        for region in payroll.REGIONS:
            figures[f"bill/{industry}/{region}"] = Figure(bill[industry, region])
        figures[f"bill/{industry}"] = Figure(bill[industry, None])
        figures[f"hhi/{industry}"] = Figure(_index(square[industry,], bill[industry, None]))
    for occupation in (*payroll.OCCUPATIONS, None):
        name = f"gap/{occupation}" if occupation else "gap"
        figures[name] = Figure(_gap(mean[occupation, "f"], mean[occupation, "m"]))
    for row in quartiles.tables["estimates"]:
        name = next(name for name, p in _QUARTILES.items() if row["probability"] == p)
        figures[f"hourly/{row['industry']}/{name}"] = Figure(
            _number(row["estimate"]), _number(row["lower"]), _number(row["upper"])
        )
    return figures | {"adjusted": _adjusted(model)}


def pooled(world: World) -> Reference:
    """The same figures by pandas and numpy from all records together."""
    jobs = pd.concat(world.holders.values(), ignore_index=True)
    found: dict[str, float] = {}
    for industry in payroll.INDUSTRIES:
        here = jobs[jobs["industry"] == industry]
        for region in payroll.REGIONS:
            found[f"bill/{industry}/{region}"] = float(here.loc[here["region"] == region, "wage"].sum())
        found[f"bill/{industry}"] = float(here["wage"].sum())
        shares = here.groupby("enterprise")["wage"].sum() / here["wage"].sum()
        found[f"hhi/{industry}"] = float((shares**2).sum())
        for name, p in _QUARTILES.items():
            found[f"hourly/{industry}/{name}"] = float(np.quantile(here["hourly"], p, method="inverted_cdf"))
    for occupation in (*payroll.OCCUPATIONS, None):
        there = jobs if occupation is None else jobs[jobs["occupation"] == occupation]
        mean = there.groupby("sex")["hourly"].mean()
        found[f"gap/{occupation}" if occupation else "gap"] = float(1.0 - mean["f"] / mean["m"])
    dummies = pd.get_dummies(jobs[["occupation", "industry"]], drop_first=True)
    others = jobs[["part_time", "age"]]
    columns = np.column_stack([np.ones(len(jobs)), jobs["sex"] == "f", dummies, others]).astype(float)
    coefficients = np.linalg.lstsq(columns, np.log(jobs["hourly"].to_numpy()), rcond=None)[0]
    return found | {"adjusted": float(1.0 - math.exp(coefficients[1]))}


def worst(figures: Figures, pooled: Reference) -> float:
    """Largest error of a released figure over what its use allows (`ALLOWED`); infinite without the adjusted gap."""
    if figures["adjusted"].value is None:
        return math.inf

    def error(name: str, value: float) -> float:
        kind = name.partition("/")[0]
        size = abs(pooled[name]) if kind in ("bill", "hourly") else 1.0
        away = abs(value - pooled[name])
        return 0.0 if away == 0 else math.inf if size == 0 else away / size / ALLOWED[kind]

    return max(error(name, figure.value) for name, figure in figures.items() if figure.value is not None)


SUCCESS = Success(
    "largest error over what its use allows: gaps 1 point, index 100 points of 10,000, wages and bills 1 %", worst, 1.0
)


def _cells(result: Result, column: str) -> dict[tuple[Any, ...], float | None]:
    """A column of cells and margins by the row's codes, None where it sums over one; None as value if suppressed."""
    rows = [*result.tables["cells"], *result.tables["margins"]]
    return {tuple(row[name] for name in result.by): _number(row[column]) for row in rows}


def _means(result: Result) -> dict[tuple[Any, ...], float | None]:
    """Mean of the value in every row; None where suppressed or empty."""
    total, count = _cells(result, "total"), _cells(result, "count")
    return {key: value / n if value is not None and (n := count[key]) else None for key, value in total.items()}


def _gap(women: float | None, men: float | None) -> float | None:
    """Men's mean hourly wage less women's, as a share of men's."""
    return None if women is None or not men else 1.0 - women / men


def _index(square: float | None, bill: float | None) -> float | None:
    """Herfindahl-Hirschman index, 0 to 1, from a sum of squares (EUR x million EUR) and a wage bill (EUR)."""
    return None if square is None or not bill else min(1.0, square * 1e6 / bill**2)


def _adjusted(model: Result) -> Figure:
    """Share of a man's hourly wage that a woman in the same position lacks, from the coefficient of the log wage."""
    (row,) = (row for row in model.tables["coefficients"] if row["name"] == _WOMEN)
    (limits,) = model.conf_int().query("name == @_WOMEN")[["lower", "upper"]].to_numpy()
    low, high = (float(1.0 - math.exp(limit)) for limit in (limits[1], limits[0]))
    return Figure(1.0 - math.exp(float(str(row["estimate"]))), low, high)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
