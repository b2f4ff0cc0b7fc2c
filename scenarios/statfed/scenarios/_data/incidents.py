"""Seeded emergency calls in a square of small areas, taken by five dispatch centres, with planted hotspots.

Margins are set to be plausible: 110 calls per 1,000 residents and year; areas of 600 to 9,000 residents, densest around
one city; a quarter of the patients call again; winter a tenth above summer. Each centre serves the areas nearest to it,
and a fifth of the calls from areas at a border are taken by the centre on the other side, so that no centre sees such
an area whole.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]

PER_RESIDENT = 0.110 * 4 / 52
"""Calls of a resident in four weeks."""
CENTRES = {"centre-city": (0.45, 0.48), "centre-north": (0.12, 0.30), "centre-east": (0.40, 0.92)}
CENTRES |= {"centre-south": (0.88, 0.62), "centre-west": (0.75, 0.08)}
"""Where each centre lies in the square: row and column, from 0 to 1."""
ACROSS = 0.2
"""Share of a border area's calls that the neighbouring centre takes."""
AGAIN = 0.25


@dataclass(frozen=True)
class Ground:
    """Public facts of the square. side: areas in a row; population: (areas,); first, second: (areas,) numbers of the
    centre that serves an area, and of the one that takes calls across the border, -1 where there is none."""

    side: int
    population: Floats
    first: Whole
    second: Whole

    @property
    def areas(self) -> tuple[str, ...]:
        """Codes, row by row: `a0304` is in the fourth row and fifth column."""
        return tuple(f"a{row:02d}{column:02d}" for row in range(self.side) for column in range(self.side))

    @property
    def adjacent(self) -> NDArray[np.bool_]:
        """Which areas touch, corners and the area itself included: (areas, areas)."""
        row, column = np.divmod(np.arange(self.side**2), self.side)
        near: NDArray[np.bool_] = (np.abs(row[:, None] - row) <= 1) & (np.abs(column[:, None] - column) <= 1)
        return near


def ground(side: int, seed: int) -> Ground:
    """Areas, residents and centres of a square."""
    rng = np.random.default_rng([seed, 20_411])
    row, column = np.divmod(np.arange(side**2), side)
    at = np.column_stack([row, column]) / (side - 1)
    city = np.exp(-((at - np.array(CENTRES["centre-city"])) ** 2).sum(axis=1) / 0.05)
    population = np.clip((1_600 + 4_800 * city) * np.exp(0.35 * rng.standard_normal(side**2)), 600, 9_000)
    distance = np.linalg.norm(at[:, None] - np.array(list(CENTRES.values())), axis=2)
    order = np.argsort(distance, axis=1)
    nearest = np.take_along_axis(distance, order, axis=1)
    border = nearest[:, 1] - nearest[:, 0] < 1.5 / (side - 1)
    return Ground(side, np.rint(population), order[:, 0], np.where(border, order[:, 1], -1))


def risks(where: Ground, periods: int, seed: int) -> Floats:
    """True relative risk of a resident by area and period, (areas, periods): 1 on the whole without hotspots.

    Areas differ lastingly by 10 %. One area in 24 is the middle of a hotspot: it and the areas that share a side with
    it have 1.8 to 3 times the risk for two or three periods.
    """
    rng = np.random.default_rng([seed, 20_412])
    side = where.side
    risk = np.exp(0.10 * rng.standard_normal(side**2))[:, None] * np.ones(periods)
    risk *= 1 + 0.05 * np.cos(2 * np.pi * np.arange(periods) / 13)
    row, column = np.divmod(np.arange(side**2), side)
    for middle in rng.choice(side**2, max(3, side**2 // 24), replace=False):
        inside = np.abs(row - row[middle]) + np.abs(column - column[middle]) <= 1
        start, length = rng.integers(0, periods - 1), rng.integers(2, 4)
        times = np.zeros(periods, bool)
        times[start : start + length] = True
        risk[np.ix_(inside, times)] *= rng.uniform(1.8, 3.0)
    return risk


def calls(where: Ground, risk: Floats, codes: tuple[str, ...], seed: int) -> dict[str, pd.DataFrame]:
    """Each centre's calls: patient, area, period. codes: of the periods.

    A patient has the same id at every centre. A call is in one centre's register only.
    """
    rng = np.random.default_rng([seed, 20_413])
    count = rng.poisson(PER_RESIDENT * where.population[:, None] * risk)
    area = np.repeat(np.arange(len(count)), count.sum(axis=1))
    period = np.concatenate([np.repeat(np.arange(count.shape[1]), each) for each in count])
    person = np.arange(len(area))
    again = rng.random(len(area)) < AGAIN
    first = np.concatenate([[0], np.cumsum(count.sum(axis=1))])[area]
    earlier = first + (rng.random(len(area)) * (person - first)).astype(np.int64)
    person = np.where(again, earlier, person)  # somebody of the same area who called before
    across = (rng.random(len(area)) < ACROSS) & (where.second[area] >= 0)
    taken = np.where(across, where.second[area], where.first[area])
    table = pd.DataFrame(
        {
            "patient": [f"{one:08d}" for one in person],
            "area": np.array(where.areas)[area],
            "period": np.array(codes)[period],
        }
    )
    shuffled = rng.permutation(len(table))
    table, taken = table.iloc[shuffled], taken[shuffled]
    return {name: table[taken == i].reset_index(drop=True) for i, name in enumerate(CENTRES)}
