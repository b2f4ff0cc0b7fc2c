"""Bias and interval coverage of estimates under linkage errors, over repeated draws, with the naive figure beside them.

    python benchmarks/linkage_errors.py [draws] [units] [word]

By default 200 draws of 100,000 units; with a word those designs alone that have it in their name. Totals: pairs of
registers of the design of the pilot of Statistics Netherlands and Statistics Canada (tests/trade.py), with its
assumptions and without one at a time; size of the population from the same draws. Regressions: 5,000 links in five
blocks of which 100 to 70 % are right, shares known with a standard error of .02. Bias is relative; `spread` is the
stated standard error (root of the mean square) over the standard deviation of the errors; coverage is of nominal 95 %
intervals. Prints Markdown.
"""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests.trade import CELLS, Linked, draw

from statfed.core.errors import UsageError
from statfed.core.linkage_errors.bootstrap import bootstrap_totals
from statfed.core.linkage_errors.coverage import population_size
from statfed.core.linkage_errors.estimate import Estimate
from statfed.core.linkage_errors.regression import Family, Form, Records, linked_regression
from statfed.core.linkage_errors.totals import blocked_rates, corrected_counts

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
    times, size = int(given[0]) if given else 200, int(given[1]) if len(given) > 1 else 100_000
    totals(times, size, given[2] if len(given) > 2 else "")
    resampled(min(times, 100), min(size, 4_000))
    regressions(times)
