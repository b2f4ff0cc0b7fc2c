"""Bias and interval coverage of estimates under linkage errors, over repeated draws, with the naive figure beside them.

    python benchmarks/linkage_errors.py [draws] [units] [word]      # from counts
    python benchmarks/linkage_errors.py linked [draws] [units]      # from encodings, as `statfed link --estimate`
    python benchmarks/linkage_errors.py protocol [units]            # all of it once, between parties of one process

By default 200 draws of 100,000 units, of 2,000 units from encodings; with a word those designs alone that have it in
their name. Totals: pairs of
registers of the design of the pilot of Statistics Netherlands and Statistics Canada (tests/trade.py), with its
assumptions and without one at a time; size of the population from the same draws. Regressions: 5,000 links in five
blocks of which 100 to 70 % are right, shares known with a standard error of .02. Bias is relative; `spread` is the
stated standard error (root of the mean square) over the standard deviation of the errors; coverage is of nominal 95 %
intervals. Prints Markdown.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests.strategies.linkages.fuzzily import run
from tests.trade import CELLS, Linked, draw

from statfed.core.errors import Refused, UsageError
from statfed.core.linkage import Units
from statfed.core.linkage_errors.bootstrap import bootstrap_totals
from statfed.core.linkage_errors.coverage import population_size
from statfed.core.linkage_errors.estimate import Estimate
from statfed.core.linkage_errors.regression import Family, Form, Records, linked_regression
from statfed.core.linkage_errors.totals import blocked_rates, corrected_counts, corrected_totals
from statfed.core.protection import Agreement
from statfed.scenarios._data.lists import Design, Drawn, drawn
from statfed.strategies.linkages import fuzzy
from statfed.strategies.linkages._comparing import Encoded, compare
from statfed.strategies.linkages._encodings import Encoder, tags
from statfed.strategies.linkages._fuzzy_estimates import counted
from statfed.strategies.linkages._fuzzy_options import Options

Floats = NDArray[np.float64]
DESIGNS: dict[str, dict[str, Any]] = {
    "two censuses": {"coverage": 1.0},
    "two registers, 90 % each": {"coverage": 0.9},
    "two samples, 70 % each": {"coverage": 0.7},
    "two samples, linkage key as in the pilot (no false links)": {"coverage": 0.7, "chance": 1e-6},
    "two samples, false links at .25": {"coverage": 0.7, "chance": 0.25},
    "blocks of unequal sizes (log weights' sd .5)": {"coverage": 0.7, "skew": 0.5},
    "2 % of matches disagree on the blocking key": {"coverage": 0.7, "lost": 0.02},
    "keys of small units miswritten more often (.25 and .15)": {"coverage": 0.7, "uneven": 0.1},
    "files dependent (odds ratio 2)": {"coverage": 0.7, "odds_ratio": 2.0},
}
RIGHT = np.array([1.0, 0.95, 0.9, 0.8, 0.7])
BETA = {"linear": np.array([1.0, 2.0, -1.0]), "logistic": np.array([-0.3, 0.8, -0.6])}


def measured(estimates: Sequence[Estimate], truth: Sequence[float], naive: Sequence[float]) -> str:
    """Cells of a row: naive bias, bias, its Monte Carlo standard error, spread, coverage."""
    true = np.array(truth, dtype=float)
    error = np.array([e.value for e in estimates]) - true
    stated = np.sqrt(np.mean([e.std_error**2 for e in estimates]))
    held = np.mean([low <= t <= high for t, (low, high) in zip(true, (e.interval() for e in estimates), strict=True)])
    scale = np.abs(true.mean())
    spread = f"{stated / error.std(ddof=1):.2f}" if error.std() > 1e-6 * scale else "-"
    among = error.std(ddof=1) / np.sqrt(len(error)) / scale
    return f"{(naive - true).mean() / scale:+.2%} | {error.mean() / scale:+.2%} ({among:.2%}) | {spread} | {held:.1%}"


def heading(*first: str) -> None:
    """Of a table of what `measured` gives."""
    columns = [*first, "naive bias", "bias (its error)", "spread", "coverage"]
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")


def totals(draws: int, units: int, word: str) -> None:
    """Totals and the population's size, by design."""
    heading("design", "figure")
    for name, design in DESIGNS.items():
        if word not in name:
            continue
        linked: list[Linked] = []
        found, sizes, alone, refused = [], [], [], 0
        for seed in range(draws):
            one = draw(seed, units, **design)
            try:
                rates = blocked_rates(one.counts, candidates=one.candidates, several_allowed=True)
            except UsageError:
                refused += 1
                continue
            found.append(corrected_counts(rates, one.links, one.blocked, names=CELLS))
            sizes.append(population_size(*one.files, found[-1].total, links=int(one.links.sum())))
            without = blocked_rates(one.counts.sum(axis=0), candidates=one.candidates, several_allowed=True)
            alone.append(corrected_counts(without, one.links, one.blocked).total)
            linked.append(one)
        truth, naive = [float(one.truth.sum()) for one in linked], [float(one.links.sum()) for one in linked]
        for cell in (0, 3):
            figures = (
                [t.cells[cell] for t in found],
                [one.truth[cell] for one in linked],
                [one.links[cell] for one in linked],
            )
            print(f"| {name} | {CELLS[cell]} | {measured(*figures)} |")
        print(f"| {name} | total | {measured([t.total for t in found], truth, naive)} |")
        print(f"| {name} | total, records taken as independent | {measured(alone, truth, naive)} |")
        of_all = [float(units)] * len(sizes), [size.naive or 0.0 for size in sizes]
        print(f"| {name} | population | {measured([size.population for size in sizes], *of_all)} |", flush=True)
        if refused:
            print(f"\n{refused} draws refused\n")


def resampled(draws: int, units: int) -> None:
    """Coverage of the bootstrap's limits, of fewer draws: each refits 100 times."""
    held = {"formula": 0, "bootstrap": 0}
    for seed in range(draws):
        one = draw(seed, units, 0.7)
        rates = blocked_rates(one.counts, candidates=one.candidates)
        corrected = corrected_counts(rates, one.links, one.blocked)
        limits = {
            "formula": corrected.total.interval(),
            "bootstrap": bootstrap_totals(one.counts, rates, corrected, 100, seed).interval()["total"],
        }
        for name, (low, high) in limits.items():
            held[name] += low <= one.truth.sum() <= high
    shown = ", ".join(f"{name} {count / draws:.0%}" for name, count in held.items())
    print(f"\nTotal of two samples of {units:,} units, {draws} draws, coverage: {shown}\n")


DESIGN = Design(2_000, (0.95, 0.9), 0.2, 0.05, {"sea": 0.45, "road": 0.3, "air": 0.15, "rail": 0.1}, 0.8)
SAMPLES = (0.7, 0.7)


def pair_of(made: Drawn) -> tuple[Units, Units]:
    """Both lists as units, with the first's columns."""
    place = np.array([f"{one:06d}" for one in made.place], dtype=object)
    cells = np.array([list(DESIGN.cells).index(one) for one in made.cell], float)
    keys = (
        {"name": made.name[made.first].tolist(), "number": made.number[made.first].tolist()},
        {"name": made.second_name, "number": made.second_number},
    )
    columns = {"cell": cells[made.first], "value": made.value[made.first]}
    return (
        Units({**keys[0], "place": place[made.first].tolist()}, columns),
        Units({**keys[1], "place": place[made.second].tolist()}),
    )


def options(**more: Any) -> Options:
    """Of a fuzzy linkage of such lists: place is the blocking key, name and number the linkage key."""
    attributes = {"name": {"bits": 160}, "number": {"bits": 100, "q": 1, "positional": True}}
    given = {"attributes": attributes, "block": ["place"], "threshold": 0.9, "level": 0.0, "estimate": "coverage"}
    return Options.model_validate(given | more)


def linked(draws: int, units: int) -> None:
    """Lists that are encoded and compared: totals of cells and of values, and the population."""
    heading("design", "figure")
    for name, listed in (("lists of 95 and 90 %", DESIGN.listed), ("two samples, 70 % each", SAMPLES)):
        rows: dict[str, list[tuple[Estimate, float, float]]] = {}
        refused = 0
        for seed in range(draws):
            made = drawn(replace(DESIGN, units=units, listed=listed), seed)
            try:
                for figure, row in _one(made, seed).items():
                    rows.setdefault(figure, []).append(row)
            except (Refused, UsageError):
                refused += 1
        for figure, each in rows.items():
            print(f"| {name} | {figure} | {measured(*zip(*each, strict=True))} |", flush=True)
        if refused:
            print(f"\n{refused} draws refused\n")


def _one(made: Drawn, seed: int) -> dict[str, tuple[Estimate, float, float]]:
    """Estimate, truth and naive figure of one draw, without the protocol."""
    random = np.random.default_rng(seed)
    secret, given, sides = random.bytes(32), options(), []
    pair = pair_of(made)
    for side in pair:
        encoded = Encoder(secret, given.attributes).encode(side.keys)
        sides.append(Encoded(encoded, tags(secret, {"place": side.keys["place"]})))
    found = compare(sides[0], sides[1], given.floor, given.most_compared, given.most_kept)
    real = (np.ones(pair[0].count, bool), np.ones(pair[1].count, bool))
    done = counted(found, 0.9, 0.0, real, sides[0].tags[:, 0])
    rates, weights = done.rates(), done.weights(0).astype(float)
    sea, value = pair[0].columns["cell"] == 0, pair[0].columns["value"]
    common = made.common
    counts = corrected_counts(rates, [weights[sea, 0].sum(), weights[~sea, 0].sum()],
                              [weights[sea, 1].sum(), weights[~sea, 1].sum()])  # fmt: skip
    sums = [weights.T @ value**power for power in (1, 2)]
    total = corrected_totals(
        rates, sums[0][:1], sums[0][1:], links_squared=sums[1][:1], blocked_squared=sums[1][1:]
    ).total
    links = int(weights[:, 0].sum())
    size = population_size(pair[0].count, pair[1].count, counts.total, links=links)
    return {
        "cell of 45 %": (counts.cells[0], float((common["cell"] == "sea").sum()), counts.naive[0]),
        "matches": (counts.total, float(len(common)), float(links)),
        "value": (total, float(common["value"].sum()), float(sums[0][0])),
        "population": (size.population, float(len(made.place)), size.naive or 0.0),
    }


def protocol(units: int) -> None:
    """The whole exchange once: figures beside the truth, processor time and what passes through the coordinator."""
    made = drawn(replace(DESIGN, units=units), 1)
    pair = dict(zip(("bank", "office"), pair_of(made), strict=True))
    levels = tuple(DESIGN.cells)
    values = {"value": {"low": 0, "high": 10_000}}
    given = options(owner="bank", by={"cell": levels}, values=values)
    sizes = {name: side.count for name, side in pair.items()}
    third = fuzzy.third_parties(given)
    agreement = Agreement("run", "study", "fuzzy", tuple(sizes), third, 2, sizes, given)
    started = time.process_time()
    outcome, _ = run(agreement, pair)
    spent = time.process_time() - started
    if outcome.result is not None:
        for table in ("corrected", "totals", "coverage", "rates"):
            print(outcome.result.to_pandas(table).to_string(index=False))
    print(made.common.groupby("cell")["value"].agg(["size", "sum"]), len(made.common), f"{spent:.1f} s", sep="\n")


def regressions(draws: int) -> None:
    """Slopes of linear and logistic regressions."""
    heading("regression", "slope")
    rng = np.random.default_rng(1)
    forms: list[tuple[Family, Form]] = [(f, g) for f in ("linear", "logistic") for g in ("chambers", "lahiri-larsen")]
    for family, form in forms:
        found = []
        for _ in range(draws):
            estimated = np.minimum(RIGHT + rng.normal(0, 0.02, 5) * (RIGHT < 1), 1)
            errors = 0.02 * (RIGHT < 1)
            found.append(linked_regression(_linked(rng, family), estimated, family=family, form=form, std_error=errors))
        for i in (1, 2):
            figures = [r.coefficients[i] for r in found], [BETA[family][i]] * draws, [r.naive[i] for r in found]
            print(f"| {family}, {form} | {BETA[family][i]:g} | {measured(*figures)} |")


def _linked(rng: np.random.Generator, family: Family, n: int = 5000) -> Records:
    block = np.arange(n) % len(RIGHT)
    x = np.column_stack([np.ones(n), rng.normal(0.2 * block, 1), (rng.random(n) < 0.4).astype(float)])
    linear = x @ BETA[family]
    y = linear + rng.normal(size=n)
    if family == "logistic":
        y = (rng.random(n) < 1 / (1 + np.exp(-linear))).astype(float)
    seen = y.copy()
    for b, q in enumerate(RIGHT):
        around = rng.permutation(np.flatnonzero((block == b) & (rng.random(n) > q)))
        seen[around] = y[np.roll(around, 1)]
    return Records(x, seen, block)


if __name__ == "__main__":
    given = sys.argv[1:]
    if given[:1] == ["linked"]:
        linked(int(given[1]) if len(given) > 1 else 200, int(given[2]) if len(given) > 2 else DESIGN.units)
        sys.exit()
    if given[:1] == ["protocol"]:
        protocol(int(given[1]) if len(given) > 1 else 100_000)
        sys.exit()
    times, size = int(given[0]) if given else 200, int(given[1]) if len(given) > 1 else 100_000
    totals(times, size, given[2] if len(given) > 2 else "")
    resampled(min(times, 100), min(size, 4_000))
    regressions(times)
