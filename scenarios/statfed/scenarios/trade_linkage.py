"""Reference scenario `trade-linkage`: trade that two countries both recorded, from records with errors in their keys.

The pilot of Statistics Netherlands (CBS) and Statistics Canada. Exports of one country are imports of the other: a
shipment has its goods (HS-6) and month in both files, and the exporter's name and the mass in kilograms, of which a
fifth is written in another way by the importing country. Estimated are how many shipments both recorded and their value
as the exporting country has it, in all and by mode of transport: ten figures, each with its interval.

Goods and month are the pilot's blocking key, which misses next to no match; name and mass the longer linkage key. A
linkage unit compares keyed encodings within blocks and works out error rates from how many pairs and links records
have, without a reviewed sample; totals are corrected by them. Linkages that join equal keys alone find about two
matches in three and correct nothing, so that they are refused.

Reference is the truth of the generator: which shipments are in both files, and their values.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from statfed.core import VERSION
from statfed.core.codebook import Codebook, make_codebook
from statfed.core.disclosure import Rules
from statfed.core.scenario import EXACT, Ask, Figures, Level, Matching, Profile, Reference, Success, World, read_about
from statfed.scenarios._corrected import figures_by_cell, truth_by_cell
from statfed.scenarios._data.lists import Design, drawn
from statfed.scenarios._measures import median_relative_error

ABOUT = read_about(__file__)
MODES = {"sea": 0.45, "road": 0.3, "air": 0.15, "rail": 0.1}
UNITS: Mapping[Profile, int] = {"quick": 3_000, "full": 20_000}
LEVELS: Sequence[Level] = (
    EXACT,
    Level("suppress", "figures of fewer than 10 links, and further ones", disclosure=Rules()),
    Level("suppress-30", "figures of fewer than 30 links, and further ones", disclosure=Rules(minimum_frequency=30)),
)
SUCCESS = Success("median relative error of the figures", median_relative_error, 0.05)
MATCHED = Matching(
    key="firm:name,mass:digits,goods,month",
    block="goods+month",
    estimate="total",
    options={
        "fuzzy": {
            "threshold": 0.9,
            "level": 0.0,
            "attributes": {
                "firm:name": {"bits": 160},
                "mass:digits": {"bits": 100, "q": 1, "positional": True},
                "goods": {"bits": 1},
                "month": {"bits": 1},
            },
        }
    },
)
"""Every pair of a block could be a match, so `level` is 0; the threshold need not be the best, as its errors are
corrected."""


def codebook() -> Codebook:
    """What both countries agree on: each has columns of its own beside the key."""
    needed = {"required": True}
    columns: dict[str, dict[str, Any]] = {
        "goods": {"type": "id", "label": "HS-6 code"} | needed,
        "month": {"type": "id"} | needed,
        "firm": {"type": "text", "length": 60, "key": "name", "label": "exporter"},
        "mass": {"type": "id", "key": "digits", "label": "kilograms, five digits"},
        "mode": {"type": "category", "categories": list(MODES), "label": "mode of transport"} | needed,
        "value": {"type": "number", "low": 0, "high": 10_000, "unit": "thousand EUR"} | needed,
        "office": {"type": "category", "categories": ["north", "south"], "label": "customs office"} | needed,
    }
    return make_codebook({"title": "Mirror data of trade", "columns": columns}, "trade-linkage")


def world(profile: Profile, seed: int) -> World:
    """Both countries' records. quick: 3,000 shipments, full: 20,000; 95 and 90 per cent of them are recorded."""
    import numpy as np
    import pandas as pd

    made = drawn(Design(UNITS[profile], (0.95, 0.9), 0.2, 0.05, MODES, 0.8), seed)
    goods = np.array([f"{8400 + place // 12:04d}{10 + place % 7 * 10:02d}" for place in made.place], dtype=object)
    month = np.array([f"2025-{place % 12 + 1:02d}" for place in made.place], dtype=object)
    out, back = made.first, made.second
    exports = pd.DataFrame(
        {
            "goods": goods[out],
            "month": month[out],
            "firm": made.name[out],
            "mass": made.number[out],
            "mode": made.cell[out],
            "value": made.value[out],
        }
    )
    imports = pd.DataFrame(
        {
            "goods": goods[back],
            "month": month[back],
            "firm": made.second_name,
            "mass": made.second_number,
            "office": np.random.default_rng(seed).choice(["north", "south"], len(back)),
        }
    )
    holders = {"exporting": exports, "importing": imports}
    return World(
        holders=holders,
        codebook=codebook(),
        origin=f"synthetic: lists of statfed {VERSION}, seed {seed}, {UNITS[profile]:,} shipments",
        public={"holders": tuple(holders)},
        truth=truth_by_cell(made.common, MODES),
    )


def compute(ask: Ask, public: Mapping[str, Any]) -> Figures:  # noqa: ARG001
    """One question: totals of value by mode, with numbers of shipments."""
    return figures_by_cell(ask("total", columns=["value"], by=["mode"]), "mode", MODES)


def pooled(world: World) -> Reference:
    """The truth: names of units that are the same in both files are in neither."""
    return world.truth
