"""Two generated lists of one population whose keys differ by typing errors, and what is true of the units on both.

The design of the pilot of Statistics Netherlands and Statistics Canada: units lie in small *places* (goods and month; a
postcode), on which both lists agree, and have a name and a number, of which the second list has some wrong. Some units
have a namesake in their place, so that links are false now and then. Being on the first list says nothing of being on
the second.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from statfed.scenarios._data.registers import mistyped

PER_PLACE = 2.0
"""Units of a place, in the mean."""
_HEADS = ("ab", "ber", "cor", "del", "eu", "fin", "gra", "hol", "in", "jan", "kro", "lam", "mer", "nor", "os", "pel")
_TAILS = ("ta", "ni", "do", "ra", "le", "co", "mi", "so", "va", "nex", "tor", "lin", "das", "mo", "ker", "rik")
_KINDS = ("trading", "logistics", "foods", "metals", "chemicals", "textiles", "works", "supplies", "brothers", "group")


@dataclass(frozen=True)
class Design:
    """units: of the population; listed: share of them on each list; errors: probability that a part of the key is wrong
    on the second; namesakes: share of units that have the name of another in their place; cells: their shares, by name;
    spread: standard deviation of the logarithm of values."""

    units: int
    listed: tuple[float, float]
    errors: float
    namesakes: float
    cells: dict[str, float]
    spread: float


@dataclass(frozen=True)
class Drawn:
    """place, name, number, cell, value: of every unit; first, second: units on each list, in its order; second_name,
    second_number: as the second list has them."""

    place: NDArray[np.int64]
    name: NDArray[np.object_]
    number: NDArray[np.object_]
    cell: NDArray[np.str_]
    value: NDArray[np.float64]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    second_name: list[str | None]
    second_number: list[str | None]

    @property
    def common(self) -> pd.DataFrame:
        """The units on both lists: cell and value of each."""
        both = np.intersect1d(self.first, self.second)
        return pd.DataFrame({"cell": self.cell[both], "value": self.value[both]})


def drawn(design: Design, seed: int) -> Drawn:
    """One population and its two lists."""
    rng = np.random.default_rng([seed, design.units, 9127])
    place = rng.integers(0, max(round(design.units / PER_PLACE), 1), design.units)
    name = _names(design.units, rng)
    order = np.argsort(place, kind="stable")
    beside = order[1:][place[order[1:]] == place[order[:-1]]]
    before = order[:-1][place[order[1:]] == place[order[:-1]]]
    alike = rng.random(len(beside)) < design.namesakes
    name[beside[alike]] = name[before[alike]]
    number = np.array([f"{value:05d}" for value in rng.integers(0, 100_000, design.units)], dtype=object)
    on = [rng.permutation(np.flatnonzero(rng.random(design.units) < share)) for share in design.listed]
    wrong = rng.random((2, len(on[1]))) < design.errors
    return Drawn(
        place=place,
        name=name,
        number=number,
        cell=rng.choice(list(design.cells), design.units, p=list(design.cells.values())),
        value=np.round(rng.lognormal(4.0, design.spread, design.units), 1).clip(0.1, 9_999.9),
        first=on[0],
        second=on[1],
        second_name=[
            mistyped(str(name[i]), "name", rng) if bad else str(name[i]) for i, bad in zip(on[1], wrong[0], strict=True)
        ],
        second_number=[
            mistyped(str(number[i]), "postcode", rng) if bad else str(number[i])
            for i, bad in zip(on[1], wrong[1], strict=True)
        ],
    )


def _names(count: int, rng: np.random.Generator) -> NDArray[np.object_]:
    drawn_parts = (rng.choice(part, count) for part in (_HEADS, _TAILS, _TAILS, _KINDS))
    return np.array([f"{a}{b}{c} {kind}" for a, b, c, kind in zip(*drawn_parts, strict=True)], dtype=object)
