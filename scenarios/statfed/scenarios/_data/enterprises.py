"""Generated registers of enterprises: skewed employment and turnover by activity and size class."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

ACTIVITIES = {"C": "manufacturing", "F": "construction", "G": "trade", "I": "food and lodging", "M": "services"}
FORMS = {"sole": "sole proprietor", "company": "", "other": ""}
SIZES: Mapping[str, int] = {"1": 1, "2-9": 2, "10-49": 10, "50-249": 50, "250+": 250}
"""Size classes, with the fewest persons employed in each."""
MOST_EMPLOYED, MOST_TURNOVER = 1_000, 200_000.0
"""Persons, and thousand EUR a year: both are top-coded there by every register."""
REGISTERS: Mapping[str, float] = {"north": 0.5, "south": 0.32, "islands": 0.18}
_MIX: Mapping[str, tuple[float, ...]] = {  # activities
    "north": (0.18, 0.16, 0.28, 0.10, 0.28),
    "south": (0.12, 0.20, 0.32, 0.16, 0.20),
    "islands": (0.06, 0.18, 0.28, 0.34, 0.14),
}
_LARGE = {"C": 1.3, "F": 0.6, "G": 0.5, "I": 0.6, "M": 0.3}  # of log persons employed
_WORTH = {"C": 4.9, "F": 4.5, "G": 5.1, "I": 3.8, "M": 4.3}  # log thousand EUR a person


def generated(enterprises: int, seed: int) -> dict[str, pd.DataFrame]:
    """So many enterprises in three regional registers."""
    return {
        name: _register(round(enterprises * share), _MIX[name], np.random.default_rng([seed, 7301, place]))
        for place, (name, share) in enumerate(REGISTERS.items())
    }


def _register(count: int, mix: tuple[float, ...], rng: np.random.Generator) -> pd.DataFrame:
    activity = rng.choice(list(ACTIVITIES), count, p=mix)
    level = np.array([_LARGE[one] for one in activity])
    employed = np.clip(np.floor(np.exp(level + rng.normal(0, 1.35, count))), 1, MOST_EMPLOYED).astype(np.int64)
    sole = rng.random(count) < 0.75 * np.exp(-(employed - 1) / 4.0)
    form = np.where(sole, "sole", np.where(rng.random(count) < 0.93, "company", "other"))
    worth = np.array([_WORTH[one] for one in activity])
    turnover = np.exp(worth - 0.3 * sole + 1.04 * np.log(employed) + rng.normal(0, 0.7, count))
    return pd.DataFrame(
        {
            "activity": activity,
            "form": form,
            "size": np.array(list(SIZES), object)[np.searchsorted(list(SIZES.values()), employed, side="right") - 1],
            "employed": employed,
            "turnover": np.clip(turnover, 0.0, MOST_TURNOVER).round(1),
        }
    )
