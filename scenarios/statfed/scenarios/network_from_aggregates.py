"""Reference scenario `network-from-aggregates`: who supplies whom, inferred from margins that banks may release.

An idea of the HLG-MOS Blue Skies Thinking Network: where nobody may put transactions together, infer the network from
aggregates. Five banks hold the payments of their enterprises. Three tables leave them, protected: what the enterprises
of each node (a division in a region) paid, what each node was paid, and payments by distance class. The analyst knows
the national input-output table and the number of links of a benchmark year, and reconstructs the weighted network
between nodes: iterative proportional fitting, link probabilities of the fitness model, and an ensemble for intervals.

The truth is known here, so the inference itself is judged, not the protection alone: `measures`. From the margins
without the benchmark table no valid network follows, whatever the protection (`METHODS`); with it one does.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from statfed.core import VERSION
from statfed.core.codebook import Codebook, Column
from statfed.core.disclosure import Rules
from statfed.core.result import Result
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
from statfed.scenarios._data import payments
from statfed.scenarios._data.network import (
    draw,
    fit,
    link_auc,
    link_probabilities,
    misplaced,
    possible_links,
    reconciled,
)

Floats = NDArray[np.float64]
Method = Literal["margins", "distances", "table"]
METHODS: tuple[Method, ...] = ("margins", "distances", "table")
"""What the analyst uses: strengths of nodes alone (maximum entropy), distance classes too (gravity), and the benchmark
year's national table as prior."""
DRAWS = 200
DRAWS_PER_FIT = 5
"""Networks of the ensemble in all, and those from one draw of uncertain margins."""
SEED = 20150  # of the analyst's draws: the same in every trial, so that techniques are compared and not draws
SHARES = {"payer": 0.4, "payee": 0.4, "band": 0.2}
SIZES = {"quick": (3, 8_000), "full": (5, 60_000)}  # regions, enterprises

ABOUT = read_about(__file__)

ROUNDED = Level(
    "round",
    "controlled rounding to millions, no dominance rules",
    disclosure=Rules(dominance_k=None, p_percent=None, method="controlled-round", base=1_000),
)
LEVELS: Sequence[Level] = (
    EXACT,
    ROUNDED,
    private(10.0),
    private(3.0),
    private(1.0),
    private(3.0, "shared"),
)

LIMITS: Mapping[str, float] = {"misplaced": 1 / 3, "link_auc": 0.8, "degree_error": 0.2, "coverage": 0.9}
"""When an inferred network is valid for a map of supply dependence. Conventions: two thirds of the weight are with the
right pair; links are told from others as well as "excellent discrimination" asks (Hosmer and Lemeshow 2000, section
5.2.4); the number of partners is right to a fifth; intervals that claim 95 % hold at least 90 %."""


def measures(figures: Figures, pooled: Reference) -> dict[str, float]:
    """How good an inferred network is, against the true one.

    misplaced: share of the weight that is with another pair; link_auc: see `link_auc`, scored by expected weight;
    degree_error: mean |difference| of out- and in-degrees over the mean degree; coverage: share of all pairs whose
    weight lies in its 95 % interval; link_coverage: the same of pairs that are linked.
    """
    flows = [name for name in figures if name.startswith("flow ")]
    found = np.array([figures[name].value or 0.0 for name in flows])
    true = np.array([pooled[name] for name in flows])
    held = np.array([_holds(figures[name], pooled[name]) for name in flows])
    degrees = [name for name in figures if "degree " in name]
    gaps = [abs((figures[name].value or 0.0) - pooled[name]) for name in degrees]
    return {
        "misplaced": misplaced(found, true),
        "link_auc": link_auc(found, true),
        "degree_error": float(np.mean(gaps) / np.mean([pooled[name] for name in degrees])),
        "coverage": float(held.mean()),
        "link_coverage": float(held[true > 0].mean()),
    }


def worst(figures: Figures, pooled: Reference) -> float:
    """The measure that misses its limit most, as a multiple of the error allowed: above 1 is not valid."""
    found = measures(figures, pooled)
    errors = {
        name: (1 - found[name]) / (1 - limit) if name in ("link_auc", "coverage") else found[name] / limit
        for name, limit in LIMITS.items()
    }
    return math.inf if any(math.isnan(error) for error in errors.values()) else max(errors.values())


SUCCESS = Success("worst validity measure of the network, as a multiple of the error allowed", worst, 1.0)


@dataclass(frozen=True)
class Margins:
    """Released margins in the order of `SHARES` and of the codebook. spread: standard errors, 0 where exact; sums: the
    grand total of each table."""

    values: tuple[Floats, ...]
    spread: tuple[Floats, ...]
    sums: tuple[float, ...]


def codebook(regions: int) -> Codebook:
    """Columns of a bank's table; nodes of the first `regions` regions."""
    nodes = [f"{region}-{division}" for region in tuple(payments.REGIONS)[:regions] for division in payments.DIVISIONS]
    return Codebook(
        title="Yearly payments of enterprises to nodes",
        columns={
            "enterprise": Column(type="id", role="unit", label="paying enterprise"),
            "group": Column(type="id", role="enterprise", label="its enterprise group, which dominance is judged by"),
            "payer": _category(nodes, "division and region of the payer"),
            "payee": _category(nodes, "division and region of the payee"),
            "band": _category(list(payments.BANDS), "distance class of the two regions"),
            "amount": Column(
                type="number",
                unit="thousand EUR",
                low=0,
                high=payments.LARGEST,
                required=True,
                label="paid in the year",
            ),
        },
    )


def _category(codes: Sequence[str], label: str) -> Column:
    return Column(type="category", categories=dict.fromkeys(codes, ""), required=True, label=label)


def world(profile: Profile, seed: int) -> World:
    """This year's payments by bank; a benchmark year of the same economy gives the public table and density.

    The network is one, so that a bank's payments do depend on who else is in it.
    """
    regions, firms = SIZES[profile]
    rng = np.random.default_rng([seed, SEED])
    economy = payments.economy(rng, regions, firms)
    now, benchmark = payments.year(economy, rng), payments.year(economy, rng)
    divisions = [frame.str.rsplit("-", n=1).str[1] for frame in (benchmark["payer"], benchmark["payee"])]
    table = benchmark["amount"].groupby(divisions).sum().unstack(fill_value=0)
    names = list(payments.DIVISIONS)
    holders = {name: now[now["bank"] == name].drop(columns="bank").reset_index(drop=True) for name in payments.HOLDERS}
    made = World(
        holders=holders,
        codebook=codebook(regions),
        origin=f"synthetic: enterprises that buy by recipes, generator of statfed {VERSION}, seed {seed}",
        public={
            "holders": payments.HOLDERS,
            "nodes": economy.nodes,
            "bands": payments.bands(economy.regions),
            "benchmark": table.reindex(index=names, columns=names, fill_value=0.0).to_numpy(),
            "links": len(benchmark[["payer", "payee"]].drop_duplicates()),
        },
    )
    return World(made.holders, made.codebook, made.origin, made.synthetic, made.public, pooled(made))


def compute(ask: Ask, public: Mapping[str, Any]) -> Figures:
    """Ask for the margins, and infer the network."""
    return inferred(released(ask), public)


def released(ask: Ask) -> Margins:
    """The three margins, protected as the level says."""
    bound = payments.LARGEST_GROUP
    found = [
        _margin(
            ask(
                "table", share=share, rows=(column,), value="amount", largest_contributor=bound, nested_enterprises=True
            )
        )
        for column, share in SHARES.items()
    ]
    values, spread, sums = zip(*found, strict=True)
    return Margins(values, spread, sums)


def inferred(margins: Margins, public: Mapping[str, Any], method: Method = "table") -> Figures:
    """Expected weights and degrees with the ensemble's 95 % intervals. Uncertain margins are drawn anew as well."""
    nodes: tuple[str, ...] = public["nodes"]
    rng = np.random.default_rng(SEED)
    weights, links = _network(margins, public, method)
    certain = not any(spread.any() for spread in margins.spread)
    each, draws = (weights, links), []
    for number in range(DRAWS):
        if not certain and number % DRAWS_PER_FIT == 0:
            each = _network(_redrawn(margins, rng), public, method, rough=True)
        draws.append(draw(*each, rng))
    drawn = np.array(draws)
    figures = {}
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    for i, payer in enumerate(nodes):
        for j, payee in enumerate(nodes):
            figures[f"flow {payer} > {payee}"] = Figure(float(weights[i, j]), float(low[i, j]), float(high[i, j]))
    for axis, word in ((1, "outdegree"), (0, "indegree")):
        low, high = np.quantile((drawn > 0).sum(axis=1 + axis), [0.025, 0.975], axis=0)
        for i, value in enumerate(links.sum(axis=axis)):
            figures[f"{word} {nodes[i]}"] = Figure(float(value), float(low[i]), float(high[i]))
    return figures


def pooled(world: World) -> Reference:
    """The true network, from all banks' records."""
    nodes = world.public["nodes"]
    everything = pd.concat(world.holders.values())
    flows = everything.pivot_table(index="payer", columns="payee", values="amount", aggfunc="sum", fill_value=0.0)
    true = flows.reindex(index=nodes, columns=nodes, fill_value=0.0)
    weights = true.to_numpy(float)
    found = {f"flow {i} > {j}": float(weights[a, b]) for a, i in enumerate(nodes) for b, j in enumerate(nodes)}
    found |= {f"outdegree {i}": float(n) for i, n in zip(nodes, (weights > 0).sum(axis=1), strict=True)}
    return found | {f"indegree {j}": float(n) for j, n in zip(nodes, (weights > 0).sum(axis=0), strict=True)}


def _holds(figure: Figure, value: float) -> bool:
    return figure.low is not None and figure.high is not None and figure.low <= value <= figure.high


def _margin(result: Result) -> tuple[Floats, Floats, float]:
    """Totals of one table, their standard errors (of noise and records under privacy, else 0), and the grand total.

    Suppressed totals share what is left of the grand total evenly; their spread is that of shares of which nothing is
    known (uniform on the simplex).
    """
    rows, whole = result.tables["cells"], result.tables["margins"][-1]["total"]
    shown = [row["total"] for row in rows]
    values = np.array([np.nan if value is None else float(value) for value in shown])
    spread = np.zeros(len(values))
    if result.privacy is not None:
        spread = np.array([float(row["std_error"] or 0.0) for row in rows])
    hidden = np.isnan(values)
    if hidden.any():
        k = int(hidden.sum())
        share = max(0.0, float(whole or 0.0) - float(values[~hidden].sum())) / k
        values[hidden], spread[hidden] = share, share * math.sqrt((k - 1) / (k + 1))
    return values, spread, float(values.sum() if whole is None else whole)


def _redrawn(margins: Margins, rng: np.random.Generator) -> Margins:
    """Margins as they might be, given what was released."""
    errors = tuple(spread * rng.normal(size=spread.shape) for spread in margins.spread)
    values = tuple(value + error for value, error in zip(margins.values, errors, strict=True))
    sums = tuple(total + float(error.sum()) for total, error in zip(margins.sums, errors, strict=True))
    return Margins(values, margins.spread, sums)


def _network(
    margins: Margins,
    public: Mapping[str, Any],
    method: Method,
    rough: bool = False,
) -> tuple[Floats, Floats]:
    """Expected weights and link probabilities. rough: to the accuracy that one draw of noisy margins deserves."""
    out, into, totals = reconciled(margins.values, margins.spread, margins.sums)
    n, tolerance, most = len(out), *((1e-3, 50) if rough else (1e-9, 1_000))
    prior = np.ones((n, n))
    if method == "table":
        division = np.arange(n) % len(payments.DIVISIONS)
        prior = np.asarray(public["benchmark"], float)[np.ix_(division, division)]
    groups = None if method == "margins" else public["bands"]
    fitted = fit(prior, out, into, groups, None if groups is None else totals, tolerance, most)
    possible = possible_links(fitted.weights)
    if not possible.any():
        return fitted.weights, np.zeros((n, n))
    return fitted.weights, link_probabilities(fitted.weights, min(float(public["links"]), 0.99 * float(possible.sum())))
