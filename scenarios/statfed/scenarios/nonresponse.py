"""Scenario `nonresponse`: who takes part in a survey and what it costs to reach them, across countries' paradata.

The case of the work programme's topic on response rates: each country's institute keeps the contact records of its own
gross sample and may not hand them over, yet whether a country's low response comes from whom it sampled, how it
contacted them or from the country itself can only be told across countries. A logistic model of response with a random
intercept for countries (analysis `glmm`) tells how much countries differ once their samples are alike; a Poisson model
of the number of contact attempts tells what fieldwork effort a kind of person takes; tables give response rates.

No differentially private level: neither `glmm` nor `glm` has a private form, and a level is the same for all questions
of a scenario.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize
from sklearn.linear_model import PoissonRegressor

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
    read_about,
)
from statfed.scenarios._data import fieldwork

ABOUT = read_about(__file__)

LEVELS: Sequence[Level] = (
    EXACT,
    Level(
        "suppress-30", "at least 30 persons in a cell, secondary suppression", disclosure=Rules(minimum_frequency=30)
    ),
    Level("round", "counts rounded to base 5, margins kept", disclosure=Rules(method="controlled-round", base=5)),
)

ALLOWED = {"response": 0.05, "effort": 0.02, "spread": 0.05, "rate": 0.01, "adjusted": 0.01}
"""Error that the use of a figure allows, by the first part of its name.

Rates: one percentage point, the precision at which response rates are compared between countries and rounds. Log odds
0.05: at a rate of 50 % a little more than such a point. Log rates 0.02: 2 % of the attempts, below what a fieldwork
budget is planned to. The spread of countries as the log odds that it is measured in.
"""

FORMULA = "responded ~ C(age) + C(sex) + C(area) + C(dwelling) + C(mode) + log(attempts)"
_PERSON = "C(age) + C(sex) + C(area) + C(dwelling) + C(mode)"
_DOMAINS = ("age", "dwelling")
_SCALE: Mapping[Profile, int] = {"quick": 1, "full": 8}
_CATEGORIES = {
    "country": tuple(fieldwork.COUNTRIES),
    "age": fieldwork.AGES,
    "sex": fieldwork.SEXES,
    "area": fieldwork.AREAS,
    "dwelling": fieldwork.DWELLINGS,
    "mode": fieldwork.MODES,
}
_USUAL = 2.0  # attempts of the person that adjusted rates are for
Vector = NDArray[Any]


def world(profile: Profile, seed: int) -> World:
    """The countries' gross samples. quick: 7,600 persons; full: 61,000."""
    holders = {name: fieldwork.gross_sample(name, _SCALE[profile], seed) for name in fieldwork.COUNTRIES}
    columns = {
        name: Column(type="category", categories=dict.fromkeys(codes, ""), required=True)
        for name, codes in _CATEGORIES.items()
    }
    columns["attempts"] = Column(type="integer", low=1, high=fieldwork.MOST_ATTEMPTS, required=True)
    columns["responded"] = Column(type="boolean", required=True)
    truth = {f"response/{name}": value for name, value in fieldwork.RESPONSE.items()}
    truth |= {f"effort/{name}": value for name, value in fieldwork.EFFORT.items()}
    return World(
        holders,
        Codebook(title="Contact records of sampled persons", columns=columns),
        f"generated paradata of {sum(map(len, holders.values())):,} sampled persons, seed {seed}",
        public={"holders": tuple(holders), "countries": tuple(holders)},
        truth=truth | {"spread": fieldwork.SPREAD},
    )


def compute(ask: Ask, public: Mapping[str, Any]) -> Figures:
    """Four questions: the response model, the effort model, and tables of outcomes by country and domain.

    One country alone has no spread of countries to estimate: its response model is without the random intercept.
    """
    alone = len(public["holders"]) == 1
    model = ask("glm", formula=FORMULA) if alone else ask("glmm", formula=FORMULA, group="country")
    effort = ask("glm", formula=f"I(attempts - 1) ~ {_PERSON} + C(country)", family="poisson")
    tables = [ask("table", rows=["country", domain], columns=["responded"]) for domain in _DOMAINS]
    response, further = _coefficients(model), _coefficients(effort)
    figures = {f"response/{name}": response.get(name, Figure(None)) for name in fieldwork.RESPONSE}
    figures |= {f"effort/{name}": further.get(name, Figure(None)) for name in fieldwork.EFFORT}
    figures["spread"] = Figure(None) if alone else _spread(model)
    effects = dict.fromkeys(public["holders"], 0.0) if alone else _effects(model)
    for country in public["countries"]:
        usual = response["Intercept"].value, response["log(attempts)"].value, effects.get(country)
        figures[f"adjusted/{country}"] = Figure(None if None in usual else _adjusted(*usual))  # type: ignore[arg-type]
    for domain, table in zip(_DOMAINS, tables, strict=True):
        figures |= dict(_rates(table, domain, public["countries"]))
    return figures


def pooled(world: World) -> Reference:
    """The same figures from all records together: see `_laplace` for the response model."""
    persons = pd.concat(world.holders.values(), ignore_index=True)
    names, columns = _columns(persons)
    country = pd.get_dummies(persons["country"]).to_numpy(np.float64)
    x = np.column_stack([np.ones(len(persons)), columns, np.log(persons["attempts"])])
    beta, spread, effects = _laplace(x, country, persons["responded"].to_numpy(np.float64))
    response = dict(zip(["Intercept", *names, "log(attempts)"], beta, strict=True))
    regression = PoissonRegressor(alpha=0.0, solver="newton-cholesky", tol=1e-12, max_iter=200)
    regression.fit(np.column_stack([columns, country[:, 1:]]), persons["attempts"] - 1)
    found = {f"response/{name}": float(response[name]) for name in fieldwork.RESPONSE}
    found |= {f"effort/{name}": float(b) for name, b in zip(names, regression.coef_, strict=False)}
    found["spread"] = spread
    for name, effect in zip(world.holders, effects, strict=True):
        found[f"adjusted/{name}"] = _adjusted(response["Intercept"], response["log(attempts)"], effect)
    for domain in _DOMAINS:
        for name in world.holders:
            here = persons[persons["country"] == name].groupby(domain)["responded"].mean()
            found |= {f"rate/{name}/{code}": float(rate) for code, rate in here.items()}
        found |= {f"rate/all/{code}": float(rate) for code, rate in persons.groupby(domain)["responded"].mean().items()}
    found |= {f"rate/{name}": float(rate) for name, rate in persons.groupby("country")["responded"].mean().items()}
    return found | {"rate/all": float(persons["responded"].mean())}


def worst(figures: Figures, pooled: Reference) -> float:
    """Largest error of a released figure over what its use allows (`ALLOWED`); infinite without the spread."""
    if figures["spread"].value is None:
        return math.inf
    return max(
        abs(figure.value - pooled[name]) / ALLOWED[name.partition("/")[0]]
        for name, figure in figures.items()
        if figure.value is not None
    )


SUCCESS = Success(
    "largest error over what its use allows: rates 1 point, log odds 0.05, log rates of attempts 0.02", worst, 1.0
)


def _coefficients(model: Result) -> dict[str, Figure]:
    limits = model.conf_int().set_index("name")
    return {
        name: Figure(_number(row["estimate"]), float(limits["lower"][name]), float(limits["upper"][name]))
        for row in model.tables["coefficients"]
        if (name := str(row["name"]))
    }


def _spread(model: Result) -> Figure:
    """Standard deviation of country effects; its interval is symmetric in the logarithm."""
    sigma, error = _number(model.facts["sigma"]), _number(model.facts["log_sigma_std_error"])
    if not sigma or error is None:
        return Figure(sigma)
    return Figure(sigma, sigma * math.exp(-1.96 * error), sigma * math.exp(1.96 * error))


def _effects(model: Result) -> dict[str, float | None]:
    return {str(row["country"]): _number(row["estimate"]) for row in model.tables["groups"]}


def _adjusted(intercept: float, attempts: float, effect: float) -> float:
    """Response rate in a country of the reference person (all reference categories) after two attempts."""
    return 1 / (1 + math.exp(-(intercept + attempts * math.log(_USUAL) + effect)))


def _rates(table: Result, domain: str, countries: Sequence[str]) -> Iterator[tuple[str, Figure]]:
    """Response rates of cells and margins with Wilson's interval; none where a count is missing."""
    count = {
        tuple(row[name] for name in table.by): _number(row["count"])
        for row in (*table.tables["cells"], *table.tables["margins"])
    }
    for country in (*countries, None):
        for code in (*_CATEGORIES[domain], None):
            n, yes = count.get((country, code, None)), count.get((country, code, "true"))
            name = "/".join(("rate", country or "all", *([code] if code else [])))
            yield name, Figure(None) if not n or yes is None else _wilson(yes, n)


def _wilson(yes: float, n: float) -> Figure:
    rate, z = yes / n, 1.96
    centre, half = rate + z**2 / (2 * n), z * math.sqrt(max(rate * (1 - rate), 0.0) / n + z**2 / (4 * n**2))
    return Figure(rate, (centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n))


def _columns(persons: pd.DataFrame) -> tuple[list[str], Vector]:
    """Indicators of all categories but the first of each column."""
    names, columns = [], []
    for name in ("age", "sex", "area", "dwelling", "mode"):
        for code in _CATEGORIES[name][1:]:
            names.append(f"C({name})[T.{code}]")
            columns.append((persons[name] == code).to_numpy(np.float64))
    return names, np.column_stack(columns)


def _laplace(x: Vector, group: Vector, y: Vector) -> tuple[Vector, float, Vector]:
    """Coefficients, spread and modes of effects at the maximum of the Laplace approximation, by its definition.

    The gradient is taken by complex steps (Squire and Trapp 1998) through the search for the modes, and set to 0 by
    MINPACK. Records that are alike are added up first.
    """
    rows, place, size = np.unique(np.column_stack([x, group]), axis=0, return_inverse=True, return_counts=True)
    x, group = rows[:, : x.shape[1]], rows[:, x.shape[1] :]
    yes = np.bincount(place.ravel(), y)

    def step(theta: Vector, u: Vector) -> Vector:
        """Newton's, towards the modes; theta: (coefficients and log spread, cases), u: (groups, cases)."""
        p = 1 / (1 + np.exp(-(x @ theta[:-1] + group @ u)))
        precision = np.exp(-2 * theta[-1])
        score = group.T @ (yes[:, None] - size[:, None] * p) - u * precision
        return np.asarray(u + score / (group.T @ (size[:, None] * p * (1 - p)) + precision))

    def modes(theta: Vector) -> Vector:
        u = np.zeros((group.shape[1], 1))
        for _ in range(25):
            u = step(theta[:, None], u)
        return u

    def objective(theta: Vector, u: Vector) -> Vector:
        variance, eta = np.exp(2 * theta[-1]), x @ theta[:-1] + group @ u
        p = 1 / (1 + np.exp(-eta))
        likelihood = (yes[:, None] * eta - size[:, None] * np.log(1 + np.exp(eta))).sum(0) - (u * u).sum(
            0
        ) / 2 / variance
        return np.asarray(likelihood - np.log(1 + variance * (group.T @ (size[:, None] * p * (1 - p)))).sum(0) / 2)

    def gradient(theta: Vector) -> Vector:
        cases = theta[:, None] + 1e-30j * np.eye(len(theta))
        return np.imag(objective(cases, step(cases, modes(theta)))) / 1e-30

    def loss(theta: Vector) -> float:
        return -float(objective(theta[:, None], modes(theta))[0])

    def descent(theta: Vector) -> Vector:
        return -gradient(theta)

    begin = np.append(np.zeros(x.shape[1]), math.log(0.5))
    rough = optimize.minimize(loss, begin, jac=descent)
    found = optimize.root(gradient, rough.x, tol=1e-13).x
    return found[:-1], float(np.exp(found[-1])), modes(found)[:, 0]


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
