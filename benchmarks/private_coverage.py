"""Do the limits of private estimates hold the truth, and is the standard error the spread, over samples and noise?

    python benchmarks/private_coverage.py [draws] [analysis ...]

Every draw is a new sample of 1,000 records of the universe of `statfed.lab.laws` at one holder, answered by both halves
of the method with the noise of epsilon 1. The truth is what the method says of 200,000 records without noise. Of the
worst figure of each analysis: bias in stated standard errors, stated standard error over the spread of the errors (root
of the mean square of both; from the 16 and 84 % points where `robust`), and the lowest coverage of nominal 95 %
limits, the row's own ones or estimate -+ 1.96 std_error. Figures that less than a quarter of the draws show are left
aside. Prints Markdown.
"""

import sys
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np

from statfed.core.result import Result
from statfed.core.terms import Privacy, Terms
from statfed.lab.laws import universe
from statfed.lab.laws.errors import figures
from statfed.lab.laws.walk import finished

RECORDS, MANY = 1000, 200_000
CASES: dict[str, dict[str, Any]] = {
    "variance": {"columns": ["income", "age"], "by": ["sex"]},
    "covariance": {"columns": ["income", "hours", "age"]},
    "survival": {"time": "duration", "event": "event", "group": ["sex"]},
    "quantile": {"columns": ["income", "age"]},
    "mean": {"columns": ["income"], "by": ["region"], "weight": "w"},
    "ratio": {"numerator": "income", "denominator": "hours", "by": ["region"]},
    "table": {"rows": ["region"], "columns": ["sex"], "value": "income"},
    "total": {"columns": ["income"], "by": ["region"], "weight": "w"},
    "count": {"by": ["region", "sex"]},
    "histogram": {"column": "age", "bins": 5, "weight": "w"},
}
OF_SAMPLE = ("histogram",)
"""What estimates nothing but the sample: the truth is its exact figure, and standard errors are of the noise."""
SUMS = ("count", "total", "table")


def terms_of(name: str, options: dict[str, Any], privacy: Privacy | None) -> Terms:
    """A study of one holder."""
    return Terms(method=name, options=options, codebook=universe.CODEBOOK, holders=("h1",), seed=1, privacy=privacy)


def asked(name: str, options: dict[str, Any], n: int, seed: int, privacy: Privacy | None) -> Result:
    """What a run over a sample of `n` records says."""
    found: Result = finished(terms_of(name, options, privacy), {"h1": universe.people(n, seed)}, seed=seed)
    return found


def exactly(name: str, options: dict[str, Any], n: int, seed: int) -> dict[tuple[Any, ...], float]:
    """Every number without noise, by the place of its figure."""
    exact = asked(name, options, n, seed, None)
    return {
        (table, key, *(row.get(at) for at in exact.places(table))): float(value)
        for table, rows in exact.tables.items()
        for row in rows
        for key, value in row.items()
        if isinstance(value, int | float)
    }


def lines(name: str, options: dict[str, Any], draws: int) -> Iterator[str]:
    """A row of every kind of figure."""
    share = RECORDS / MANY if name in SUMS else 1.0
    truth = {} if name in OF_SAMPLE else exactly(name, options, MANY, 10**6)
    found = defaultdict(list)
    for draw in range(draws):
        if name in OF_SAMPLE:
            truth = exactly(name, options, RECORDS, draw)
        for f in figures(asked(name, options, RECORDS, draw, Privacy(epsilon=1.0))):
            if f.place in truth:
                true = truth[f.place] * share
                found[f.place].append((f.value - true, f.error, f.lower <= true <= f.upper))
    kinds = defaultdict(list)
    for place, drawn in found.items():
        if len(drawn) >= draws / 4:
            off, error, held = np.array(drawn, float).T
            stated = np.sqrt(np.mean(error**2)) / np.sqrt(np.mean(off**2))
            robust = np.median(error) / (np.diff(np.quantile(off, [0.16, 0.84]))[0] / 2)
            kinds[place[1]].append((off.mean() / np.median(error), stated, robust, held.mean()))
    for kind, each in kinds.items():
        bias, stated, robust, held = np.array(each).T
        told = (f"{bias[np.abs(bias).argmax()]:.2f}", *(f"{of.min():.2f} - {of.max():.2f}" for of in (stated, robust)))
        cells = (name, kind, f"{len(each)}", *told, f"{held.min():.3f} - {held.max():.3f}")
        yield f"| {' | '.join(cells)} |"


def main(draws: int, names: list[str]) -> None:
    """Print a row a kind of figure."""
    head = ("analysis", "figure", "rows", "bias / se", "se / spread", "robust", "coverage")
    print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    for name in names or CASES:
        for line in lines(name, CASES[name], draws):
            print(line, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400, sys.argv[2:])
