"""Reference scenario `mobility`: residents, commuters and visitors from the devices of several mobile operators.

The case of statistics from data of several mobile network operators: each sees its own subscribers and the roamers that
use its network, its shares of the market differ from zone to zone, and neither its customers' movements nor its local
market shares may be shown to a competitor. Together they give residents by zone, a matrix of commuters between zones,
and overnight visitors by zone and country of the SIM card.

Devices are scaled to persons by public totals: every zone of a region gets the region's residents in the population
register over its devices. What the scaling cannot repair is that zones of one region differ in the share of persons
with a device. Most of the matrix is small flows, of single persons in the least frequent ones.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from statfed.core.codebook import Codebook, Column
from statfed.core.disclosure import OFF, Rules
from statfed.core.result import Result, Row
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
    private,
    read_about,
)
from statfed.scenarios._data import devices

ABOUT = read_about(__file__)

FREQUENT = Rules(dominance_k=None, p_percent=None)
"""Fewest 10 devices behind a cell: tables of counts have no contributions that could dominate."""
KEYED = OFF.model_copy(update={"method": "cell-key"})
LEVELS: Sequence[Level] = (
    EXACT,
    Level("suppress", "at least 10 devices in a cell, secondary suppression", disclosure=FREQUENT),
    Level("cell-key", "noise of at most 5 from record keys", disclosure=KEYED),
    private(3.0),
    private(3.0, "shared"),
    private(1.0, "shared"),
)

TOLERANCE = 0.05
"""A third of the 15 % within which modelled flows have to be of counted ones for a transport model to be accepted (UK
Department for Transport, transport analysis guidance, unit M3.1): the matrix may use up a part of that, since the
model's own errors come on top."""

_ZONES: Mapping[Profile, int] = {"quick": 12, "full": 40}
_PERSONS: Mapping[Profile, int] = {"quick": 120_000, "full": 1_500_000}


def world(profile: Profile, seed: int) -> World:
    """The operators' devices in one month. quick: 12 zones, 120,000 persons; full: 40 zones, 1,500,000 persons."""
    true = devices.country(_ZONES[profile], _PERSONS[profile], np.random.default_rng([seed, 5201]))
    holders = {
        name: devices.devices(name, true, np.random.default_rng([seed, 5202, i]))
        for i, name in enumerate(devices.OPERATORS)
    }
    region = dict(zip(true.zones, true.regions, strict=True))
    residents = pd.Series(true.population).groupby(list(true.regions)).sum()
    truth = {f"residents/{zone}": float(n) for zone, n in zip(true.zones, true.population, strict=True)}
    for zone, row in zip(true.zones, true.commuters, strict=True):
        truth |= {f"commuters/{zone}/{to}": float(n) for to, n in zip(true.zones, row, strict=True) if to != zone}
    return World(
        holders,
        codebook(true.zones),
        f"generated devices of {sum(map(len, holders.values())):,} residents and roamers, seed {seed}",
        public={"holders": tuple(holders), "region": region, "residents": residents.to_dict()},
        truth=truth,
    )


def codebook(zones: Sequence[str]) -> Codebook:
    """What all operators agree to."""
    places = dict.fromkeys(zones, "")
    columns = {
        "kind": Column(
            type="category", categories=dict.fromkeys(("resident", "commuter", "visitor"), ""), required=True
        ),
        "zone": Column(type="category", label="zone of the nights", categories=places, required=True),
        "destination": Column(type="category", label="zone of the working days, of commuters", categories=places),
        "country": Column(type="category", label="country of the SIM card, of visitors", categories=devices.COUNTRIES),
        "nights": Column(type="integer", label="nights in the zone, of visitors", low=0, high=31),
        "key": Column(type="number", low=0, high=1, role="record-key"),
    }
    return Codebook(title="Devices of one month", columns=columns)


def compute(ask: Ask, public: Mapping[str, Any]) -> Figures:
    """Three tables of counts. Residents and commuters are scaled to the register's residents of each region."""
    at_home = ask("table", share=0.2, where="kind in resident,commuter", rows=["zone"])
    flows = ask("table", share=0.5, where="kind == commuter", rows=["zone"], columns=["destination"])
    guests = ask("table", share=0.3, where=["kind == visitor", "nights >= 1"], rows=["zone"], columns=["country"])
    factor = _factors(at_home, public)
    figures = {f"residents/{row['zone']}": _scaled(row, factor[str(row["zone"])]) for row in at_home.tables["cells"]}
    for row in flows.tables["cells"]:
        if row["zone"] != row["destination"]:
            name = f"commuters/{row['zone']}/{row['destination']}"
            figures[name] = _scaled(row, factor[str(row["zone"])])
    for row in guests.tables["cells"]:
        figures[f"visitors/{row['zone']}/{row['country']}"] = _scaled(row, 1.0)
    return figures


def pooled(world: World) -> Reference:
    """The same figures by pandas from all devices together."""
    frame = pd.concat(world.holders.values(), ignore_index=True)
    region = pd.Series(world.public["region"])
    zones, countries = list(region.index), list(devices.COUNTRIES)
    at_home = frame[frame["kind"] != "visitor"].groupby("zone").size().reindex(zones, fill_value=0)
    factor = region.map(world.public["residents"]) / at_home.groupby(region).transform("sum")
    moving = frame[frame["kind"] == "commuter"]
    matrix = pd.crosstab(moving["zone"], moving["destination"]).reindex(index=zones, columns=zones, fill_value=0)
    guests = frame[(frame["kind"] == "visitor") & (frame["nights"] >= 1)]
    abroad = pd.crosstab(guests["zone"], guests["country"]).reindex(index=zones, columns=countries, fill_value=0)
    found = dict(zip((f"residents/{zone}" for zone in zones), (at_home * factor).to_numpy(float), strict=True))
    for zone, row in zip(zones, matrix.mul(factor, axis=0).to_numpy(float), strict=True):
        found |= {f"commuters/{zone}/{to}": n for to, n in zip(zones, row, strict=True) if to != zone}
    for zone, row in zip(zones, abroad.to_numpy(float), strict=True):
        found |= {f"visitors/{zone}/{code}": n for code, n in zip(countries, row, strict=True)}
    return {name: float(value) for name, value in found.items()}


def misplaced(figures: Figures, pooled: Reference) -> float:
    """Largest, over the three tables, of the share of persons who are put into a wrong cell or are not shown.

    Of each table the larger of what its cells lack and of what they have too much, over the pooled total: for tables
    with the same total half the sum of absolute differences, the total variation distance. A suppressed cell lacks all.
    """
    shares = []
    for table in ("residents", "commuters", "visitors"):
        names = [name for name in figures if name.startswith(f"{table}/")]
        shown = np.array([figures[name].value or 0.0 for name in names])
        wanted = np.array([pooled[name] for name in names])
        away = shown - wanted
        shares.append(max(np.maximum(-away, 0.0).sum(), np.maximum(away, 0.0).sum()) / wanted.sum())
    return float(max(shares))


SUCCESS = Success("persons misplaced or not shown, share of the worst of three tables", misplaced, TOLERANCE)


def _factors(at_home: Result, public: Mapping[str, Any]) -> dict[str, float | None]:
    """By zone: the region's residents in the register over its devices; None where devices are not known or none."""
    region: Mapping[str, str] = public["region"]
    found: dict[str, float | None] = {}
    for name, residents in public["residents"].items():
        counts = [row["count"] for row in at_home.tables["cells"] if region[str(row["zone"])] == name]
        known = [n for n in counts if isinstance(n, int | float)]
        number = sum(known) if len(known) == len(counts) else 0
        found |= {zone: residents / number if number else None for zone in region if region[zone] == name}
    return found


def _scaled(row: Row, factor: float | None) -> Figure:
    """A cell as a figure, with its interval where the row has a standard error: of counting, and of privacy noise."""
    count, error = row["count"], row.get("std_error")
    if not isinstance(count, int | float) or factor is None:
        return Figure(None)
    if not isinstance(error, int | float):
        return Figure(count * factor)
    return Figure(count * factor, max(0.0, count - 1.96 * error) * factor, (count + 1.96 * error) * factor)
