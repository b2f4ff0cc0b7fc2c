"""Reference scenario `coverage`: how many businesses there are, from an office's register and a provider's list.

Neither list has all. From the number of those on both follows how many there are (capture-recapture), if being on one
list says nothing of being on the other; but names and numbers are written differently, and each missed link makes the
population larger than it is, each false one smaller. Estimated are the population, what either list misses, the matches
and their turnover as the office has it, in all and by region; all of it with intervals, which is what comes back to the
provider too.

All businesses of a postcode are pairs, which misses next to no match; name and house number decide on links. A linkage
unit works out the error rates without a reviewed sample, and the number of matches and the population are corrected by
them. Linkages that join equal keys alone correct nothing, so that they are refused.

Reference is the truth of the generator: the population's size, what each list has of it, and who is on both.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from statfed.core import VERSION
from statfed.core.codebook import Codebook, make_codebook
from statfed.core.disclosure import Rules
from statfed.core.scenario import EXACT, Ask, Figures, Level, Matching, Profile, Reference, Success, World, read_about
from statfed.scenarios._corrected import figure, figures_by_cell, truth_by_cell
from statfed.scenarios._data.lists import Design, drawn
from statfed.scenarios._measures import median_relative_error

ABOUT = read_about(__file__)
REGIONS = {"north": 0.3, "east": 0.2, "south": 0.35, "west": 0.15}
UNITS: Mapping[Profile, int] = {"quick": 3_000, "full": 20_000}
LEVELS: Sequence[Level] = (
    EXACT,
    Level("suppress", "figures of fewer than 10 links, and further ones", disclosure=Rules()),
    Level("suppress-30", "figures of fewer than 30 links, and further ones", disclosure=Rules(minimum_frequency=30)),
)
SUCCESS = Success("median relative error of the figures", median_relative_error, 0.08)
MATCHED = Matching(
    key="business:name,door:digits,postcode",
    block="postcode",
    estimate="coverage",
    options={
        "fuzzy": {
            "threshold": 0.9,
            "level": 0.0,
            "attributes": {
                "business:name": {"bits": 160},
                "door:digits": {"bits": 100, "q": 1, "positional": True},
                "postcode": {"bits": 1},
            },
        }
    },
)
SIZES = {
    "population": "population",
    "missing/office": "missing on the first list",
    "missing/provider": "missing on the second list",
}


def codebook() -> Codebook:
    """What both agree on: each has columns of its own beside the key."""
    needed = {"required": True}
    columns: dict[str, dict[str, Any]] = {
        "postcode": {"type": "id"} | needed,
        "business": {"type": "text", "length": 60, "key": "name"},
        "door": {"type": "id", "key": "digits", "label": "house number and door, five digits"},
        "region": {"type": "category", "categories": list(REGIONS)} | needed,
        "turnover": {"type": "number", "low": 0, "high": 10_000, "unit": "thousand EUR"} | needed,
        "stars": {"type": "integer", "low": 1, "high": 5, "label": "the provider's rating"} | needed,
    }
    return make_codebook({"title": "Businesses on two lists", "columns": columns}, "coverage")


def world(profile: Profile, seed: int) -> World:
    """Both lists. quick: of 3,000 businesses, full: of 20,000; the office has 90 per cent of them, the provider 80."""
    import numpy as np
    import pandas as pd

    made = drawn(Design(UNITS[profile], (0.9, 0.8), 0.2, 0.05, REGIONS, 0.8), seed)
    postcode = np.array([f"{10_000 + place:05d}" for place in made.place], dtype=object)
    ours, theirs = made.first, made.second
    office = pd.DataFrame(
        {
            "postcode": postcode[ours],
            "business": made.name[ours],
            "door": made.number[ours],
            "region": made.cell[ours],
            "turnover": made.value[ours],
        }
    )
    provider = pd.DataFrame(
        {
            "postcode": postcode[theirs],
            "business": made.second_name,
            "door": made.second_number,
            "stars": np.random.default_rng(seed).integers(1, 6, len(theirs)),
        }
    )
    holders, size = {"office": office, "provider": provider}, UNITS[profile]
    missing = {"office": 1 - len(ours) / size, "provider": 1 - len(theirs) / size}
    return World(
        holders=holders,
        codebook=codebook(),
        origin=f"synthetic: lists of statfed {VERSION}, seed {seed}, {size:,} businesses",
        public={"holders": tuple(holders)},
        truth=truth_by_cell(made.common, REGIONS)
        | {"population": float(size)}
        | {f"missing/{name}": share for name, share in missing.items()},
    )


def compute(ask: Ask, public: Mapping[str, Any]) -> Figures:  # noqa: ARG001
    """One question: turnover by region, with numbers of matches and the coverage of both lists."""
    result = ask("total", columns=["turnover"], by=["region"])
    sizes = {row["name"]: row for row in result.tables["coverage"]}
    found = {name: figure(sizes.get(row)) for name, row in SIZES.items()}
    return figures_by_cell(result, "region", REGIONS) | found


def pooled(world: World) -> Reference:
    """The truth: names of units that are the same on both lists are on neither."""
    return world.truth
