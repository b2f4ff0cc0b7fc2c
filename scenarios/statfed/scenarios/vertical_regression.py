"""Reference scenario `vertical-regression`: a regression whose columns lie in two registers of the same persons.

A tax office knows incomes, ages and education, a health register knows conditions and days in hospital of the same
persons; the question is how they go together. Fitted over those who are in both: income by least squares, and whether
somebody is employed by logistic regression, each on age and education (the tax office's) and on conditions and days in
hospital (the health register's). Figures are the coefficients and their standard errors, 24 in all.

No party learns who is in both registers, and nothing per person comes out. It takes a linkage that computes over the
matched: two parties alone, who get sizes and totals, cannot fit a model here.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from statfed.core import VERSION
from statfed.core.codebook import Codebook, make_codebook
from statfed.core.disclosure import Rules
from statfed.core.scenario import (
    EXACT,
    Ask,
    Figures,
    Level,
    Matching,
    Profile,
    Reference,
    Success,
    World,
    read_about,
)
from statfed.scenarios._data import taxed
from statfed.scenarios._data.numbers import RULE, issued
from statfed.scenarios._models import design, figures_of, in_errors, least_squares, logistic

SIZES: Mapping[Profile, taxed.Sizes] = {
    "quick": taxed.Sizes(tax=2_400, health=1_600, both=1_300, issued=200_000),
    "full": taxed.Sizes(tax=16_000, health=12_000, both=10_000, issued=2_000_000),
}
TERMS = "age + C(education) + conditions + stays"

ABOUT = read_about(__file__)

LEVELS: Sequence[Level] = (
    EXACT,
    Level("suppress", "models of 10 persons or more in every level, rules of a release", disclosure=Rules()),
    Level("suppress-30", "the same from 30 persons on", disclosure=Rules(minimum_frequency=30)),
)
SUCCESS = Success("largest error of a coefficient, in its standard errors, or of a standard error", in_errors, 0.01)
"""A hundredth of what sampling by itself moves a coefficient by: nobody would read it differently."""


def guesses(public: Mapping[str, Any]) -> Iterable[str]:
    """All person numbers that were issued."""
    return issued(public["issued"])


MATCHED = Matching(key="id", guesses=guesses)


def codebook() -> Codebook:
    """What both registers agree on: each has its own columns beside the person number."""
    needed = {"required": True}
    columns: dict[str, dict[str, Any]] = {
        "id": {"type": "id", "key": RULE, "label": "person number"} | needed,
        "age": {"type": "integer", "low": taxed.YOUNGEST, "high": taxed.OLDEST, "unit": "years"} | needed,
        "education": {"type": "category", "categories": list(taxed.EDUCATION)} | needed,
        "income": {"type": "number", "low": 0, "high": taxed.MOST_INCOME, "unit": "thousand EUR a year"} | needed,
        "employed": {"type": "boolean"} | needed,
        "conditions": {"type": "integer", "low": 0, "high": taxed.MOST_CONDITIONS} | needed,
        "stays": {"type": "integer", "low": 0, "high": taxed.MOST_STAYS, "unit": "days"} | needed,
    }
    return make_codebook({"title": "Persons in a tax and a health register", "columns": columns}, "vertical-regression")


def world(profile: Profile, seed: int) -> World:
    """Both registers. truth: coefficients of the logistic model; incomes are cut off at both ends, and have none."""
    sizes = SIZES[profile]
    tax, health = taxed.registers(sizes, seed)
    holders = {"tax-office": tax, "health-register": health}
    return World(
        holders=holders,
        codebook=codebook(),
        origin=f"synthetic: registers of statfed {VERSION}, seed {seed}, {sizes.tax:,} and {sizes.health:,} persons",
        public={"holders": tuple(holders), "issued": sizes.issued},
        truth={f"glm/{name}": beta for name, beta in taxed.EMPLOYED.items()},
    )


def compute(ask: Ask, public: Mapping[str, Any]) -> Figures:  # noqa: ARG001
    """Two models."""
    linear = ask("ols", formula=f"income ~ {TERMS}")
    odds = ask("glm", formula=f"employed ~ {TERMS}", family="binomial")
    return figures_of("ols", linear) | figures_of("glm", odds)


def pooled(world: World) -> Reference:
    """The same figures from the plain join: least squares by QR, logistic regression by scikit-learn."""
    joined = world.holders["tax-office"].merge(world.holders["health-register"], on="id")
    names = tuple(taxed.INCOME)
    x = design(joined, names)
    linear = least_squares("ols", x, joined["income"].to_numpy(float), names)
    return {**linear, **logistic("glm", x, joined["employed"].to_numpy(bool), names)}
