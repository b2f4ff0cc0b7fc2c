"""Generated enterprises in a statistical office's register, and borrowers in a central bank's register of loans.

A register of loans has those who owe a bank something above a threshold, of whom the office's sample or sector of the
business register has some. Regions and sectors are unequal, and so are loans: logarithms are normal, the mean is nearly
twice the median, and what is above the largest loan of small enterprises is in another register.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from statfed.scenarios._data.numbers import drawn

REGIONS = ("north-west", "north-east", "centre", "south", "islands")
SECTORS = ("manufacturing", "construction", "trade", "hospitality", "services")
MOST_LOAN = 5_000
"""Thousand euros, of one borrower."""
_REGIONS = (0.29, 0.23, 0.22, 0.18, 0.08)
_SECTORS = (0.19, 0.16, 0.27, 0.10, 0.28)
_SOUTH = {"manufacturing": 0.7, "construction": 1.2, "trade": 1.2, "hospitality": 1.3, "services": 0.9}
"""How much likelier sectors are in the south and on the islands."""


@dataclass(frozen=True)
class Sizes:
    """Records of the office, of the bank, and of those in both; numbers that were issued."""

    office: int
    bank: int
    both: int
    issued: int


def registers(sizes: Sizes, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The office's enterprises (id, region, employees) and the bank's borrowers (id, sector, loans), each in an order
    of its own."""
    rng = np.random.default_rng([seed, 4127, sizes.office, sizes.bank])
    total = sizes.office + sizes.bank - sizes.both
    ids = drawn(total, sizes.issued, rng)
    region = rng.choice(REGIONS, total, p=_REGIONS)
    employees = np.minimum(1 + np.floor(rng.lognormal(1.1, 1.0, total)).astype(int), 249)
    south = np.isin(region, ("south", "islands"))
    weight = np.array(
        [
            [share * (_SOUTH[name] if there else 1.0) for name, share in zip(SECTORS, _SECTORS, strict=True)]
            for there in (False, True)
        ]
    )
    chance = np.cumsum(weight / weight.sum(axis=1, keepdims=True), axis=1)[south.astype(int)]
    sector = np.array(SECTORS)[(rng.random(total)[:, None] > chance).sum(axis=1).clip(max=len(SECTORS) - 1)]
    size = 4.3 + 0.5 * np.log(employees) + 0.4 * (sector == "manufacturing")
    loans = np.clip(np.rint(np.exp(rng.normal(size, 1.0))), 30, MOST_LOAN).astype(int)
    office = pd.DataFrame({"id": ids, "region": region, "employees": employees}).iloc[: sizes.office]
    bank = pd.DataFrame({"id": ids, "sector": sector, "loans": loans}).iloc[total - sizes.bank :]
    return _shuffled(office, rng), _shuffled(bank, rng)


def _shuffled(frame: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    return frame.iloc[rng.permutation(len(frame))].reset_index(drop=True)
