"""Reference scenario `synthetic-register`: a synthetic business register that obeys the register's edit rules.

Three regional registers hold enterprises by activity, legal form, size class, persons employed and turnover. Systems of
the office are tested with synthetic enterprises, which have to pass the same edits as real ones: the size class is that
of the persons employed. The rules stand in the codebook, and records that break one are drawn anew. Figures are what
the tests rest on: enterprises by activity and size, medians of turnover, and how unequal employment is.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from statfed.core import VERSION
from statfed.core.codebook import Codebook, Column
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
from statfed.scenarios import _synthesis
from statfed.scenarios._data import enterprises

ABOUT = read_about(__file__)

LEVELS: Sequence[Level] = (EXACT, private(10.0), private(3.0), private(1.0))

ENTERPRISES: Mapping[Profile, int] = {"quick": 9_000, "full": 120_000}
ORDER = ("activity", "form", "size", "employed", "turnover")

LIMITS = {"table": 0.05, "quantile": 0.2, "gini": 0.05}
"""Error that tests of systems allow: one enterprise in twenty in another cell, medians of turnover by a fifth, and a
Gini coefficient of employment by 0.05: load and the work of editing follow size, not the exact amounts."""

SUCCESS = Success(
    "largest error over what its use allows: table 5 % of enterprises, medians 20 %, Gini 0.05",
    _synthesis.worst(LIMITS),
    1.0,
)


def codebook() -> Codebook:
    """What the registers agree on, the edit rules among it."""
    starts = list(enterprises.SIZES.items())
    rules = [f"size != '{code}' or employed >= {low}" for code, low in starts[1:]]
    rules += [f"size != '{code}' or employed < {after}" for (code, _), (_, after) in pairwise(starts)]
    columns = {
        "activity": Column(type="category", label="NACE", categories=enterprises.ACTIVITIES, required=True),
        "form": Column(type="category", label="legal form", categories=enterprises.FORMS, required=True),
        "size": Column(type="category", categories=dict.fromkeys(enterprises.SIZES, ""), required=True),
        "employed": Column(type="integer", unit="persons", low=1, high=enterprises.MOST_EMPLOYED, required=True),
        "turnover": Column(type="number", unit="1,000 EUR", low=0, high=enterprises.MOST_TURNOVER, required=True),
    }
    return Codebook(title="Enterprises of a register", columns=columns, rules=tuple(rules))


def world(profile: Profile, seed: int) -> World:
    """Enterprises of three registers. quick: 9,000; full: 120,000."""
    holders = enterprises.generated(ENTERPRISES[profile], seed)
    return World(
        holders,
        codebook(),
        f"synthetic: generator of statfed {VERSION}, {sum(map(len, holders.values())):,} enterprises, seed {seed}",
        public={"holders": tuple(holders)},
    )


def compute(ask: Ask, public: Mapping[str, Any]) -> Figures:  # noqa: ARG001
    """One fit, one draw of enterprises that pass the edits, and their figures."""
    return _synthesis.told(figures(_synthesis.made(ask, codebook(), {"cart": ORDER, "aim": ORDER})))


def pooled(world: World) -> Reference:
    """The same figures of all registers' enterprises together."""
    return figures(pd.concat(world.holders.values(), ignore_index=True))


def figures(found: pd.DataFrame) -> dict[str, float]:
    """What tests rest on."""
    turnover = found.groupby("activity")["turnover"].median()
    return {
        **_synthesis.shares(found, codebook(), "activity", "size"),
        **{f"quantile/turnover/{one}": float(turnover.get(one, np.nan)) for one in enterprises.ACTIVITIES},
        "gini/employed": _synthesis.gini(found["employed"].to_numpy(np.float64)),
    }
