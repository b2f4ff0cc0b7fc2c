"""A generated country of zones, its commuters and visitors, and the devices that mobile network operators see of them.

Zones lie on a plane around one large city and several towns, with a rank-size law of population. Commuters follow a
gravity law. Each operator sees a person with a probability that depends on its share of the local market, independently
of the others, so that a person may have devices with two of them or with none; its share of a country's roamers depends
on its agreements. Orders of magnitude, not those of a certain country: a third of the residents commute, shares of the
market are those of a country with three large operators and a discounter, visitors are an eighth of the residents.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

REGIONS = ("capital", "east", "west")
COUNTRIES = {
    "DE": "Germany",
    "NL": "Netherlands",
    "FR": "France",
    "GB": "United Kingdom",
    "PL": "Poland",
    "US": "United States",
    "CN": "China",
    "other": "other countries",
}
OPERATORS = {
    "operator-a": (0.43, 0.0),
    "operator-b": (0.31, 0.2),
    "operator-c": (0.20, -0.5),
    "operator-d": (0.06, 0.5),
}
"""Share of the market, and how its logarithm grows with the density of the zone."""
_LOYALTY = 3.0  # of a country's roamers to an operator's network: small is more uneven between countries
_EQUIPPED = 0.96  # devices per person, over all operators
_COMMUTING = 0.33  # of the residents, to another zone
_REACH = 12.0  # km at which the gravity law has fallen by e
_ABROAD = (0.30, 0.19, 0.13, 0.12, 0.09, 0.07, 0.03, 0.07)  # of the visitors
_UNEVEN = 0.02  # standard deviation of the log of devices per person, between zones


@dataclass(frozen=True)
class Country:
    """What is true of persons. regions: of each zone; density: log of population, standardised; commuters: (from, to);
    visitors: (zone, country); equipped: (zones,), devices per person less the country's level, a
    factor."""

    zones: tuple[str, ...]
    regions: tuple[str, ...]
    population: NDArray[np.int64]
    density: NDArray[np.float64]
    commuters: NDArray[np.int64]
    visitors: NDArray[np.int64]
    equipped: NDArray[np.float64]


def country(zones: int, persons: int, rng: np.random.Generator) -> Country:
    """A country of so many zones and about so many persons."""
    rank = np.arange(1, zones + 1) ** -0.8
    population = np.rint(persons * rank / rank.sum()).astype(np.int64)
    place = rng.normal(0, 1, (zones, 2)) * np.where(np.arange(zones) < zones // 4, 6.0, 22.0)[:, None]
    place[0] = 0.0
    distance = np.hypot(*(place[:, None] - place[None]).transpose(2, 0, 1))
    central = np.argsort(np.argsort(distance[0])) < max(2, zones // 4)
    regions = tuple(
        "capital" if near else "east" if x > 0 else "west" for near, x in zip(central, place[:, 0], strict=True)
    )
    jobs = population**1.15
    pull = jobs[None] * np.exp(-distance / _REACH)
    np.fill_diagonal(pull, 0.0)
    leaving = rng.binomial(population, _COMMUTING)
    commuters = np.stack([rng.multinomial(n, p / p.sum()) for n, p in zip(leaving, pull, strict=True)])
    taste = rng.dirichlet(np.array(_ABROAD) * 25, zones)
    guests = rng.poisson(0.12 * population * rng.lognormal(0, 0.5, zones))
    visitors = np.stack([rng.multinomial(n, p) for n, p in zip(guests, taste, strict=True)])
    log = np.log(population)
    density = (log - log.mean()) / log.std()
    equipped = np.exp(rng.normal(0, _UNEVEN, zones))
    codes = tuple(f"Z{i + 1:02d}" for i in range(zones))
    return Country(codes, regions, population, density, commuters, visitors, equipped)


def devices(operator: str, of: Country, rng: np.random.Generator) -> pd.DataFrame:
    """The operator's devices: kind, zone where they spend the nights, destination of commuters, country of visitors,
    nights of visitors in the zone (0 for those who pass through), and a random key."""
    attraction = {name: size * np.exp(slope * of.density) for name, (size, slope) in OPERATORS.items()}
    market = attraction[operator] / sum(attraction.values())
    share = np.minimum(_EQUIPPED * of.equipped * market, 1.0)
    commuters = rng.binomial(of.commuters, share[:, None])
    staying = rng.binomial(of.population - of.commuters.sum(axis=1), share)
    size = OPERATORS[operator][0]
    roaming = rng.beta(_LOYALTY * size, _LOYALTY * (1 - size), len(COUNTRIES))
    visitors = rng.binomial(of.visitors, roaming[None, :])
    codes, abroad = np.array(of.zones, object), np.array(list(COUNTRIES), object)
    home, work = (np.repeat(axis.reshape(-1), commuters.reshape(-1)) for axis in np.indices(commuters.shape))
    where, origin = (np.repeat(axis.reshape(-1), visitors.reshape(-1)) for axis in np.indices(visitors.shape))
    resident = pd.DataFrame({"kind": "resident", "zone": np.repeat(codes, staying)})
    commuter = pd.DataFrame({"kind": "commuter", "zone": codes[home], "destination": codes[work]})
    visitor = pd.DataFrame({"kind": "visitor", "zone": codes[where], "country": abroad[origin]})
    visitor["nights"] = np.minimum(rng.geometric(0.32, len(visitor)) - 1, 31)
    frame = pd.concat([resident, commuter, visitor], ignore_index=True)
    frame = frame.reindex(columns=["kind", "zone", "destination", "country", "nights"])
    frame["nights"] = frame["nights"].astype("Int64")
    return frame.assign(key=rng.random(len(frame))).sample(frac=1.0, random_state=rng).reset_index(drop=True)
