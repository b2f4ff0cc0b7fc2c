"""Reference scenario `hotspots`: small areas with unusually many emergency calls, found from counts of five centres.

The case is that of health or safety statistics in which every call is in the register of the centre that took it, and
centres take calls across their borders: only the sum over registers shows an area whole. The parties release one table
of counts, small areas by periods of four weeks, under the technique that is compared; everything else the analyst does
with the released counts and public numbers of residents, and spends no further budget.

Estimated is the relative risk of each area and period: its calls over those expected if all residents had the period's
overall rate, drawn towards the mean of the areas around it as far as chance (and privacy noise) warrants. An area is a
hotspot while its smoothed risk is above `THRESHOLD`.

The unit of protection is a call at all levels but the last, where it is a patient with at most three calls a register.

Source of the smoothing: Marshall 1991, Mapping disease and mortality rates using empirical Bayes estimators, Applied
Statistics 40.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from statfed.core import VERSION
from statfed.core.codebook import Codebook, make_codebook
from statfed.core.disclosure import Rules
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
from statfed.scenarios._data import incidents

Floats = NDArray[np.float64]

SIDE: Mapping[Profile, int] = {"quick": 12, "full": 30}
PERIODS: Mapping[Profile, int] = {"quick": 6, "full": 13}
THRESHOLD = 1.5
PATIENT_CALLS = 3

ABOUT = read_about(__file__)

PERSON = private(3.0, "shared", unit="person", max_records_per_unit=PATIENT_CALLS)
LEVELS: Sequence[Level] = (
    EXACT,
    Level("suppress", "counts under 10, and further ones", disclosure=Rules()),
    Level("round-5", "random rounding to base 5", disclosure=Rules(method="random-round", base=5)),
    private(3.0),
    private(1.0),
    private(1.0, "shared"),
    replace(PERSON, id=f"{PERSON.id}-patient", title=f"{PERSON.title}, of a patient with {PATIENT_CALLS} calls"),
)


def smoothed(count: Floats, expected: Floats, near: NDArray[np.bool_], noise: float) -> tuple[Floats, Floats]:
    """Relative risks and their variances, (areas, periods) each, by empirical Bayes with local means.

    count: calls, NaN where not known; expected: (areas, periods), positive; near: (areas, areas), which areas a mean is
    taken over; noise: variance of privacy noise in each count.
    With r = count / expected, m the mean of r around an area weighted by expected, and chance = m / expected + noise /
    expected^2, an area's own risk varies around m by a (method of moments over all areas and periods, at least 0), and
    the estimate is m + w (r - m) with w = a / (a + chance). Its variance is a (1 - w), and that of m for its part.
    """
    known = np.isfinite(count)
    amount, base = np.where(known, count, 0.0), np.where(known, expected, 0.0)
    total = near @ base
    mean = np.divide(near @ amount, total, out=np.ones_like(total), where=total > 0)
    mean = np.maximum(mean, 0.0)
    chance = mean / expected + noise / expected**2
    rate = np.where(known, count / expected, mean)
    beside = 1 - np.divide(base, total, out=np.zeros_like(total), where=total > 0)
    spread = ((rate - mean) ** 2 - beside * chance)[known]
    weight = (expected * beside)[known]
    between = max(0.0, float((weight * spread).sum() / max((weight * beside[known]).sum(), 1e-12)))
    share = np.where(known, between / np.maximum(between + chance, 1e-12), 0.0)
    around = np.divide(near @ (base**2 * chance), total**2, out=np.zeros_like(total), where=total > 0)
    return mean + share * (rate - mean), between * (1 - share) + (1 - share) ** 2 * around


def found(values: Mapping[str, float | None]) -> frozenset[str]:
    """Areas and periods whose relative risk is above the threshold."""
    return frozenset(name for name, value in values.items() if value is not None and value > THRESHOLD)


def disagreement(one: frozenset[str], other: frozenset[str]) -> float:
    """1 - F1 of one list of hotspots against another; 0 where both are empty."""
    return 1.0 - 2 * len(one & other) / (len(one) + len(other)) if one or other else 0.0


def missed(figures: Figures, pooled: Reference) -> float:
    """`disagreement` of the hotspots found with those found from pooled counts; an unreleased figure is none."""
    return disagreement(found({name: figure.value for name, figure in figures.items()}), found(pooled))


SUCCESS = Success("1 - F1 of the hotspots against those found from pooled counts", missed, 0.1)
"""0.1: two lists of pooled hotspots, drawn by chance from the same risks, disagree by 0.10 to 0.14 in the quick profile
(seeds 1 to 3) and by 0.12 in the full one; a technique may change the list by no more than chance does."""


def codebook(areas: Sequence[str], periods: Sequence[str]) -> Codebook:
    """What the centres agree on."""
    columns = {
        "patient": {"type": "id", "role": "unit", "required": True},
        "area": {"type": "category", "categories": list(areas), "required": True},
        "period": {"type": "category", "categories": list(periods), "label": "four weeks", "required": True},
    }
    return make_codebook({"title": "Emergency calls", "columns": columns}, "hotspots")


def world(profile: Profile, seed: int) -> World:
    """Registers of calls. truth: relative risks that calls were drawn with, against the period's mean."""
    where, periods = incidents.ground(SIDE[profile], seed), tuple(f"p{i:02d}" for i in range(1, PERIODS[profile] + 1))
    risk = incidents.risks(where, len(periods), seed)
    relative = risk / (where.population @ risk / where.population.sum())
    holders = incidents.calls(where, risk, periods, seed)
    names = tuple(incidents.CENTRES)
    serves = {name: tuple(((where.first == i) | (where.second == i)).tolist()) for i, name in enumerate(names)}
    return World(
        holders=holders,
        codebook=codebook(where.areas, periods),
        origin=f"synthetic: generator of statfed {VERSION}, seed {seed}, {len(where.areas)} areas",
        public={
            "holders": names,
            "areas": where.areas,
            "periods": periods,
            "population": tuple(where.population.tolist()),
            "adjacent": where.adjacent,
            "serves": serves,
        },
        truth=_named(where.areas, periods, relative),
    )


def compute(ask: Ask, public: Mapping[str, Any]) -> dict[str, Figure]:
    """One table; then smoothing. Areas that no holder asked serves have no figure."""
    areas, periods = public["areas"], public["periods"]
    table = ask("table", rows=("area",), columns=("period",))
    row, column = {code: i for i, code in enumerate(areas)}, {code: i for i, code in enumerate(periods)}
    count = np.full((len(areas), len(periods)), np.nan)
    for cell in table.tables["cells"]:
        if cell["count"] is not None:
            count[row[str(cell["area"])], column[str(cell["period"])]] = float(cell["count"])
    noise = 0.0
    if table.privacy is not None:  # sampling variance of the grand total is 0: its standard error is all noise
        whole = next(one for one in table.tables["margins"] if one["area"] is None and one["period"] is None)
        noise = float(whole["std_error"] or 0.0) ** 2 / count.size
    served = np.any([public["serves"][name] for name in public["holders"]], axis=0)
    value, variance = _risks(np.where(served[:, None], count, np.nan), public, noise)
    low, high = _interval(value, variance)
    shown = served[:, None] & np.isfinite(count)
    return {
        f"risk|{area}|{period}": Figure(float(value[i, j]), float(low[i, j]), float(high[i, j]))
        if shown[i, j]
        else Figure(None)
        for i, area in enumerate(areas)
        for j, period in enumerate(periods)
    }


def pooled(world: World) -> dict[str, float]:
    """The same figures from counts by pandas over all registers together."""
    areas, periods = world.public["areas"], world.public["periods"]
    calls = pd.concat(world.holders.values())
    count = pd.crosstab(calls["area"], calls["period"]).reindex(index=areas, columns=periods, fill_value=0)
    value, _ = _risks(count.to_numpy(np.float64), world.public, 0.0)
    return _named(areas, periods, value)


def _risks(count: Floats, public: Mapping[str, Any], noise: float) -> tuple[Floats, Floats]:
    """Smoothed relative risks against the period's overall rate, where counts are known."""
    population = np.array(public["population"])[:, None]
    known = np.isfinite(count)
    residents = np.where(known, population, 0.0).sum(axis=0)
    rate = np.maximum(np.nansum(count, axis=0), 1.0) / np.maximum(residents, 1.0)
    return smoothed(count, population * rate, np.asarray(public["adjacent"]), noise)


def _interval(value: Floats, variance: Floats) -> tuple[Floats, Floats]:
    """95 % interval of a gamma distribution with this mean and variance."""
    mean, spread = np.maximum(value, 1e-9), np.maximum(variance, 1e-12)
    shape, scale = mean**2 / spread, spread / mean
    low, high = stats.gamma.ppf(0.025, shape, scale=scale), stats.gamma.ppf(0.975, shape, scale=scale)
    return np.asarray(low, np.float64), np.asarray(high, np.float64)


def _named(areas: Sequence[str], periods: Sequence[str], values: Floats) -> dict[str, float]:
    return {f"risk|{a}|{p}": float(values[i, j]) for i, a in enumerate(areas) for j, p in enumerate(periods)}
