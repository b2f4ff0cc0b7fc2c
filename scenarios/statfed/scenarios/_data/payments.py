"""Generator of payments between enterprises: who buys from whom, in which industry and region, through which bank.

Firm by firm, not from a model of margins: an enterprise buys by the recipe of its division, each kind of input from
few suppliers, near ones more likely than far ones, how much more depends on what is bought. Sizes are skewed, and so
are the banks' shares by region and division.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from statfed.core.errors import UsageError

Floats = NDArray[np.float64]
LARGEST = 2_500.0
"""Thousand euros that one enterprise pays to one node in a year, at most; public. What is above goes through the
central bank's system for large values and is not in these records."""
LARGEST_GROUP = 30_000.0
"""Thousand euros of all payments of one enterprise group in a year, at most; public."""
RELATIONS = 12
"""Nodes that one enterprise buys from, at most."""
OTHER = 0.05
"""Share of purchases outside the recipe of the buyer's division."""

DIVISIONS = {
    "agri": "primary",
    "food": "industry",
    "wood": "industry",
    "chem": "industry",
    "metal": "industry",
    "mach": "industry",
    "build": "building",
    "whole": "trade",
    "retail": "trade",
    "trans": "transport",
    "it": "services",
    "prof": "services",
}
"""Division to section."""
SECTIONS = tuple(dict.fromkeys(DIVISIONS.values()))
REGIONS = {"north": (0, 230), "coast": (-120, 60), "centre": (0, 0), "east": (190, 30), "south": (60, -210)}
"""Kilometres east and north of the capital."""
BANDS = {"same-region": 0.0, "near": 150.0, "middle": 260.0, "far": float("inf")}
"""Class of a pair of regions by the distance between their centres, kilometres at most."""

_RECIPES = {  # what a division buys, in tenths of its outlay; read like a row of an input-output table
    "agri": {"agri": 2, "chem": 3, "whole": 2, "mach": 1, "trans": 1, "prof": 1},
    "food": {"agri": 5, "food": 1, "wood": 1, "trans": 1, "whole": 1, "prof": 1},
    "wood": {"agri": 3, "wood": 3, "chem": 1, "trans": 2, "mach": 1},
    "chem": {"chem": 5, "whole": 2, "trans": 1, "prof": 1, "it": 1},
    "metal": {"metal": 5, "mach": 2, "trans": 1, "whole": 2},
    "mach": {"metal": 5, "mach": 2, "it": 1, "prof": 1, "whole": 1},
    "build": {"wood": 2, "metal": 3, "build": 2, "whole": 2, "prof": 1},
    "whole": {"food": 2, "chem": 1, "mach": 2, "whole": 2, "trans": 2, "it": 1},
    "retail": {"food": 3, "whole": 4, "wood": 1, "trans": 1, "prof": 1},
    "trans": {"mach": 2, "chem": 3, "trans": 3, "whole": 1, "it": 1},
    "it": {"it": 5, "prof": 3, "mach": 1, "retail": 1},
    "prof": {"prof": 4, "it": 3, "retail": 1, "build": 1, "trans": 1},
}
_REACH = {  # kilometres over which a region's chance to supply falls by e
    "agri": 90, "food": 130, "wood": 120, "chem": 300, "metal": 250, "mach": 320,
    "build": 50, "whole": 110, "retail": 40, "trans": 120, "it": 400, "prof": 160,
}  # fmt: skip
_BANKS = {  # share of enterprises by where they are, and by what they do
    "bank-national": ({}, {}, 3.0),
    "bank-savings": ({"north": 3.0, "south": 3.0, "centre": 0.5}, {"build": 2.0, "retail": 2.0}, 1.6),
    "bank-rural": ({"east": 2.0}, {"agri": 8.0, "food": 2.0, "wood": 2.0}, 0.8),
    "bank-trade": ({"coast": 3.0}, {"whole": 3.0, "trans": 3.0, "chem": 2.0}, 1.0),
    "bank-online": ({"centre": 2.0}, {"it": 5.0, "prof": 3.0}, 0.5),
}


@dataclass(frozen=True)
class Economy:
    """What does not change from year to year. regions: names; firms: number of enterprises."""

    regions: tuple[str, ...]
    firms: int
    mix: Floats  # (regions, divisions), probabilities of an enterprise
    choice: Floats  # (nodes, nodes), probability that a purchase goes to a node, rows add up to 1

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names, region by region."""
        return tuple(f"{region}-{division}" for region in self.regions for division in DIVISIONS)


def distances(regions: tuple[str, ...]) -> Floats:
    """Kilometres between the centres of regions, (regions, regions)."""
    places = np.array([REGIONS[region] for region in regions], float)
    return np.asarray(np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1)))


def bands(regions: tuple[str, ...]) -> NDArray[np.int64]:
    """Index in `BANDS` of every pair of nodes, (nodes, nodes)."""
    by_region = np.searchsorted(list(BANDS.values()), distances(regions))
    return np.kron(by_region, np.ones((len(DIVISIONS),) * 2, np.int64)).astype(np.int64)


def economy(rng: np.random.Generator, regions: int, firms: int) -> Economy:
    """Draw what each region is specialised in, and who can supply whom."""
    if not 2 <= regions <= len(REGIONS):
        raise UsageError(f"regions: got {regions}; want 2 to {len(REGIONS)}")
    names = tuple(REGIONS)[:regions]
    size = 1.0 / (1.0 + np.arange(regions)) ** 0.7
    special = rng.dirichlet(np.full(len(DIVISIONS), 2.5), regions)
    mix = size[:, None] * special
    recipe = np.array([[_RECIPES[i].get(j, 0) for j in DIVISIONS] for i in DIVISIONS], float) / 10
    recipe = (1 - OTHER) * recipe + OTHER * recipe.mean(axis=0)
    near = np.exp(-distances(names)[:, :, None] / np.array(list(_REACH.values()))[None, None])  # (from, to, division)
    supply = near * mix[None] ** 0.8 * rng.lognormal(0.0, 0.5, (regions, regions, len(DIVISIONS)))
    supply /= supply.sum(axis=1, keepdims=True)  # of one division's goods, by region of the supplier
    choice = np.einsum("ij,rsj->risj", recipe, supply).reshape(regions * len(DIVISIONS), -1)
    return Economy(names, firms, mix / mix.sum(), choice)


def year(economy: Economy, rng: np.random.Generator) -> pd.DataFrame:
    """The relations of one year, a row each: enterprise, group, payer, payee, band, amount (thousand euros), bank.

    A group has all its accounts with one bank: dominance is judged by groups, and sums cannot match them across banks.
    """
    nodes, firms = len(economy.nodes), economy.firms
    home = rng.choice(nodes, firms, p=economy.mix.ravel())
    outlay = np.minimum(120.0 * rng.lognormal(0.0, 1.5, firms), LARGEST_GROUP)
    wanted = np.minimum(1 + rng.poisson(0.8 * np.log1p(outlay / 20.0)), RELATIONS)
    payer = np.repeat(np.arange(firms), wanted)
    cumulated = economy.choice.cumsum(axis=1)
    spot = rng.random(len(payer)) * cumulated[home[payer], -1]
    payee = (cumulated[home[payer]] < spot[:, None]).sum(axis=1)
    part = rng.gamma(0.8, size=len(payer))
    amount = outlay[payer] * part / np.bincount(payer, part)[payer]
    frame = pd.DataFrame({"firm": payer, "payee": payee, "amount": amount})
    frame = frame.groupby(["firm", "payee"])["amount"].sum().reset_index()
    group = np.where(rng.random(firms) < 0.04, rng.integers(0, max(firms // 100, 1), firms) + firms, np.arange(firms))
    of_group = np.bincount(group[frame["firm"]], frame["amount"])[group[frame["firm"]]]
    frame["amount"] = (frame["amount"] * np.minimum(1.0, LARGEST_GROUP / of_group)).clip(0.1, LARGEST).round(1)
    pair = bands(economy.regions)
    names, levels = np.array(economy.nodes), np.array(list(BANDS))
    bank = _banks(economy, home, rng)[np.unique(group, return_index=True)[1]][np.unique(group, return_inverse=True)[1]]
    return pd.DataFrame(
        {
            "enterprise": [f"e{firm:06d}" for firm in frame["firm"]],
            "group": [f"g{group[firm]:06d}" for firm in frame["firm"]],
            "payer": names[home[frame["firm"]]],
            "payee": names[frame["payee"]],
            "band": levels[pair[home[frame["firm"]], frame["payee"]]],
            "amount": frame["amount"].to_numpy(),
            "bank": bank[frame["firm"]],
        }
    )


def _banks(economy: Economy, home: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.str_]:
    """The bank of every enterprise."""
    region, division = np.divmod(np.arange(len(economy.nodes)), len(DIVISIONS))
    divisions = tuple(DIVISIONS)
    likes = np.array(
        [
            [base * by_region.get(economy.regions[r], 1.0) * by_division.get(divisions[d], 1.0)
             for r, d in zip(region, division, strict=True)]
            for by_region, by_division, base in _BANKS.values()
        ]
    )  # fmt: skip
    share = (likes / likes.sum(axis=0)).cumsum(axis=0)[:, home]
    names: NDArray[np.str_] = np.array(list(_BANKS))
    return np.asarray(names[(share < rng.random(len(home))).sum(axis=0)])


HOLDERS = tuple(_BANKS)
