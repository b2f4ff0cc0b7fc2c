"""Reference scenario `synthetic-households`: synthetic households, with who lives together, from four regional surveys.

Students and developers of social statistics need households whose members go together: partners of like age, children
with their parents, incomes with who works. Each office folds its members into one record a household
(`statfed.core.synthetic.folding`), so that a household is what is protected, and rules of the codebook say which slots
are there. Synthetic records are unfolded; figures are those of social statistics: households by size, persons by age
and work, couples by both ages, equivalised income (modified OECD scale), its Gini coefficient and the risk of poverty.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from statfed.core import VERSION
from statfed.core.codebook import Codebook, Column, slot
from statfed.core.scenario import (
    EXACT,
    Ask,
    Figures,
    Level,
    Profile,
    Reference,
    Success,
    World,
    private,
    read_about,
)
from statfed.core.synthetic.coded import Coded, coded
from statfed.core.synthetic.folding import Plan, fold, unfold, wide_codebook
from statfed.scenarios import _synthesis
from statfed.scenarios._data import dwellers

ABOUT = read_about(__file__)

LEVELS: Sequence[Level] = (EXACT, private(10.0), private(3.0), private(1.0))

HOUSEHOLDS: Mapping[Profile, int] = {"quick": 5_000, "full": 60_000}
PLAN = Plan(most=dwellers.MOST, order=("age-",), shared=("region", "income"))
"""The eldest stands in the first slot."""

LIMITS = {"table": 0.1, "mean": 0.15, "gini": 0.05, "share": 0.05}
"""Error that teaching and developing programs allow: one in ten in another cell of a table, means by 15 %, a Gini
coefficient by .05, and the risk of poverty by 5 points: of the order that countries differ by, so that what is shown is
plausible, and no result."""

SUCCESS = Success(
    "largest error over what its use allows: tables 10 %, mean income 15 %, Gini 0.05, risk of poverty 5 points",
    _synthesis.worst(LIMITS),
    1.0,
)


def members() -> Codebook:
    """What the offices agree on of persons."""

    def listed(label: str, codes: Sequence[str]) -> Column:
        return Column(type="category", label=label, categories=dict.fromkeys(codes, ""), required=True)

    columns = {
        "household": Column(type="id", role="unit", required=True),
        "region": listed("region", list(dwellers.REGIONS)),
        "income": Column(type="number", unit="EUR a year", low=0, high=dwellers.TOP_CODE, required=True),
        "age": listed("age class", list(dwellers.AGES)),
        "work": listed("work", dwellers.WORK),
    }
    return Codebook(title="Members of households", columns=columns)


def codebook() -> Codebook:
    """Of folded records, one a household. It follows from that of members."""
    wide = wide_codebook(members(), PLAN)
    return wide.model_copy(update={"columns": {n: one for n, one in wide.columns.items() if n != "household"}})


def world(profile: Profile, seed: int) -> World:
    """Households of four offices, folded. quick: 5,000; full: 60,000."""
    people = dwellers.generated(HOUSEHOLDS[profile], seed)
    return World(
        {name: folded(frame) for name, frame in people.items()},
        codebook(),
        f"synthetic: generator of statfed {VERSION}, {HOUSEHOLDS[profile]:,} households, seed {seed}",
        public={"holders": tuple(people)},
    )


def folded(people: pd.DataFrame) -> pd.DataFrame:
    """One record a household, as a holder has it: codes as text, nothing in slots beyond the size."""
    import pyarrow as pa

    names = ["region", "income", "age", "work"]
    table = coded(pa.Table.from_pandas(people[names], preserve_index=False), members())
    return _frame(fold(table, people["household"].to_numpy(), PLAN).table)


def compute(ask: Ask, public: Mapping[str, Any]) -> Figures:  # noqa: ARG001
    """One fit, one draw of households, and the figures of their members."""
    slots = [slot(name, k) for k in range(1, PLAN.most + 1) for name in ("age", "work")]
    order = ("members", "region", *slots, "income")
    return _synthesis.told(figures(_synthesis.drawn(ask, codebook(), {"cart": order, "aim": order})))


def pooled(world: World) -> Reference:
    """The same figures of all offices' households together."""
    import pyarrow as pa

    together = pd.concat(world.holders.values(), ignore_index=True)
    return figures(coded(pa.Table.from_pandas(together, preserve_index=False), world.codebook))


def figures(table: Coded) -> dict[str, float]:
    """What social statistics ask of households, and of who is in them."""
    households, (people, unit) = _frame(table), unfold(table)
    persons = _frame(people)
    book = codebook()
    equivalised = households["income"].to_numpy(np.float64) / scale(persons["age"].to_numpy(), unit)
    poor = equivalised < 0.6 * weighted_median(equivalised, households["members"].to_numpy(np.float64))
    households["size"] = households["members"].astype(int).astype(str)
    sizes = Codebook(columns={"region": book.columns["region"], "size": _sizes()})
    couples = households[households["members"] > 1]
    return {
        **_synthesis.shares(households, sizes, "region", "size"),
        **_synthesis.shares(persons, members(), "age", "work"),
        **_synthesis.shares(couples, _elders(book), "age_1", "age_2"),
        **_synthesis.means(households.assign(equivalised=equivalised), "equivalised", "size", sizes),
        "gini/equivalised": _synthesis.gini(equivalised[unit]),
        "share/poor": float(poor[unit].mean()),
        "share/poor children": float(poor[unit][persons["age"] == "0-13"].mean()),
    }


def scale(age: NDArray[Any], unit: NDArray[np.int64]) -> NDArray[np.float64]:
    """Consumption units of each household, (households,): 1, and .5 for others of 14 and over, .3 for children."""
    child = age == "0-13"
    others = np.bincount(unit, ~child) - 1
    return np.asarray(1 + 0.5 * np.maximum(others, 0) + 0.3 * np.bincount(unit, child), np.float64)


def weighted_median(values: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
    """The least value up to which there is half of the weight or more."""
    order = np.argsort(values)
    sums = np.cumsum(weight[order])
    return float(values[order][np.searchsorted(sums, sums[-1] / 2)])


def _sizes() -> Column:
    codes = dict.fromkeys(map(str, range(1, PLAN.most + 1)), "")
    return Column(type="category", categories=codes, required=True)


def _elders(book: Codebook) -> Codebook:
    return Codebook(columns={name: book.columns[name] for name in ("age_1", "age_2")})


def _frame(table: Coded) -> pd.DataFrame:
    """Codes as text, numbers as they are; null where a slot is not there."""
    found: dict[str, Any] = {}
    for name, values in table.columns.items():
        levels = table.codebook.columns[name].levels
        found[name] = np.array([*levels, None], object)[values] if levels else values
    found |= {"members": found["members"].astype(np.int64)} if "members" in found else {}
    return pd.DataFrame(found)
