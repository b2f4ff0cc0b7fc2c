"""Bounds of the largest contributors from power sums: a dominated cell is hidden whatever public bound and words, and
what the sums tell a coordinator of the largest is wide."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from statfed.core.codebook import Codebook
from statfed.core.disclosure import Rules
from statfed.core.method import Arrays, read_question
from statfed.core.result import Result
from statfed.core.terms import Terms
from statfed.federation import Federation
from statfed.strategies.protections._words import words_of
from tests.covering import rest_whole
from tests.federate import codebook_of, table_of

RULES = Rules(minimum_frequency=None, p_percent=None, dominance_n=1, dominance_k=90.0)
COLUMNS = {"branch": ["x", "y"], "turnover": ("number", 0, 1e9)}
FIRMS = codebook_of(COLUMNS | {"firm": {"type": "id", "role": "enterprise"}})
RECORDS = codebook_of(COLUMNS)


def holders() -> dict[str, pd.DataFrame]:
    """Branch x: one enterprise has 4,000 of 4,119; branch y: nobody has more than a fiftieth."""
    frames = {}
    for name in ("north", "south", "west"):
        small = {"branch": ["x"] * 20 + ["y"] * 50, "turnover": [1.0 + i / 25 for i in range(20)] + [10.0] * 50}
        frame = pd.DataFrame(small).assign(firm=[f"{name}-{i}" for i in range(70)])
        if name == "north":
            giant = pd.DataFrame({"branch": ["x"], "turnover": [4000.0], "firm": ["giant"]})
            frame = pd.concat([frame, giant], ignore_index=True)
        frames[name] = frame
    return frames


def shown(result: Result) -> dict[str, float | None]:
    rows = result.to_dict()["cells"]
    return {row["branch"]: row["total"] for row in rows}


@pytest.mark.parametrize(
    ("protection", "largest"),
    rest_whole(
        product(["plain", "secure-aggregation", "homomorphic-encryption"], [None, 5e3, 1e6, 1e9]),
        lambda protection, largest: protection == "plain" or largest in (None, 1e9),
    ),
)
def test_a_dominated_cell_is_hidden_however_loose_the_largest_contributor(
    protection: str, largest: float | None
) -> None:
    with Federation(holders(), FIRMS, protection=protection, disclosure=RULES) as federation:
        released = shown(federation.table("branch", value="turnover", largest_contributor=largest))
    assert released["x"] is None


@pytest.mark.parametrize("protection", ["plain", "secure-aggregation"])
def test_a_dominated_cell_of_records_is_hidden_under_a_loose_codebook(protection: str) -> None:
    frames = {name: frame.drop(columns="firm") for name, frame in holders().items()}
    with Federation(frames, RECORDS, protection=protection, disclosure=RULES) as federation:
        assert shown(federation.table("branch", value="turnover"))["x"] is None


def test_a_safe_cell_is_shown_where_the_public_bound_says_something() -> None:
    tables = {}
    for protection in ("plain", "secure-aggregation"):
        frames = {name: pd.concat([frame[frame.branch == "y"]] * 4) for name, frame in holders().items()}
        for name, frame in frames.items():
            frame["firm"] = [f"{name}-{i}" for i in range(len(frame))]
        rules = RULES.model_copy(update={"dominance_k": 50.0})
        with Federation(frames, FIRMS, protection=protection, disclosure=rules) as federation:
            tables[protection] = shown(federation.table("branch", value="turnover", largest_contributor=1e4))
    assert tables["plain"] == tables["secure-aggregation"] == {"x": 0.0, "y": pytest.approx(6000.0)}


@pytest.mark.parametrize("protection", ["plain", "secure-aggregation"])
def test_an_enterprise_in_parts_at_all_holders_is_hidden_unless_none_is_declared(protection: str) -> None:
    """The parts of `giant` are 70 % of branch x together, and no part is a third of it."""
    part = pd.DataFrame({"branch": ["x"], "turnover": [70.0], "firm": ["giant"]})
    frames = {name: pd.concat([frame[frame.firm != "giant"], part]) for name, frame in holders().items()}
    tables = {}
    for nested in (False, True):
        rules = RULES.model_copy(update={"dominance_k": 60.0})
        with Federation(frames, FIRMS, protection=protection, disclosure=rules) as federation:
            found = federation.table("branch", value="turnover", largest_contributor=250.0, nested_enterprises=nested)
        tables[nested] = shown(found)
    assert tables[False]["x"] is None
    assert tables[True]["x"] is not None  # what a wrong declaration does


def interval(values: NDArray[np.float64], power: int) -> float:
    """Width, over the largest value, of what sum, number and sum of powers leave of the largest value."""
    n, total, powers = len(values), values.sum(), (values**power).sum()

    def too_large(most: float) -> bool:
        return bool(most**power + (n - 1) * (max(total - most, 0.0) / (n - 1)) ** power > powers)

    low, high = (powers / total) ** (1 / (power - 1)), powers ** (1 / power)
    least = low
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if too_large(middle) else (middle, high)
    return float((low - least) / values.max())


def test_what_a_table_sends_leaves_the_largest_contributor_of_a_skewed_cell_wide() -> None:
    """Eighth powers left less than a fifth of it. The power is read off what a holder sends."""
    frame = pd.DataFrame({"branch": ["x"] * 3, "turnover": [8.0, 2.0, 1.0], "firm": ["a", "b", "c"]})
    sent = sums_of("table", frame, FIRMS, rows=["branch"], value="turnover", largest_contributor=16.0)
    shares = np.array([8.0, 2.0, 1.0]) / 16.0
    power = next(p for p in range(1, 12) if np.isclose(sent["power0"][0] / 2.0**64, (shares**p).sum()))
    rng = np.random.default_rng(1)
    widths = [interval(rng.lognormal(0.0, 2.0, 50), power) for _ in range(100)]
    assert np.median(widths) > 0.6
    assert np.median([interval(rng.lognormal(0.0, 2.0, 50), 8) for _ in range(100)]) < 0.2


def sums_of(method: str, frame: pd.DataFrame, book: Codebook, **options: object) -> Arrays:
    """What a holder of these records sends to the first ask of a method."""
    terms = Terms.model_validate({"method": method, "options": options, "codebook": book, "holders": ("a",), "seed": 1})
    module, question = read_question(terms)
    return module.contribute(table_of(frame, book), question, next(module.coordinate(question)))


@pytest.mark.parametrize("value", [None, "turnover"])
def test_who_learns_what_says_what_squares_tell(value: str | None) -> None:
    options = {"rows": ["branch"]} | ({"value": value} if value else {})
    for private in (None, {"epsilon": 1.0, "delta": 1e-6}):
        terms = Terms.model_validate(
            {
                "method": "table",
                "options": options,
                "codebook": RECORDS,
                "holders": ("a", "b", "c"),
                "privacy": private,
                "seed": 1,
            }
        )
        said = words_of(terms).total
        assert ("the largest contributor of a cell lies between" in said) == (value is not None and private is None)
