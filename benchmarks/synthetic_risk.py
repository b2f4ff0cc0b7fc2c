"""Risks of every built method of synthetic data, with intervals, beside those of other records and of planted ones.

    PYTHONPATH=. python benchmarks/synthetic_risk.py [census.csv] [--records 10000] [--attempts 1000]

With the file of benchmarks/synthesis.py: census adults by 13 columns; without it the persons of the tests by 5.
Three samples of the population: the original, fresh records, and others. `others` are those others in the place of
synthetic records: what no risk looks like. `planted` are the same with 2 % of them replaced by the original's rarest
records, verbatim. `margins` has only columns with levels, and of the census six of them: its row is about fewer columns
than the others'. Private methods have epsilon 1. Of a measure of several columns or secrets the one is shown whose
interval begins highest, so that it is above 0 by chance. Membership: area under the curve. Others: excess over fresh
records, 0 where no more is learnt than of strangers. In brackets the 95 % interval. Prints Markdown.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from synthesis import read  # type: ignore[import-not-found]

from statfed.core.codebook import Codebook
from statfed.core.discovery import SYNTHESIS, modules
from statfed.core.synthesis import load_synthesis
from statfed.core.synthetic.coded import Coded, joined
from statfed.core.synthetic.evaluation import Asked, evaluate
from statfed.core.synthetic.measured import Measured
from statfed.core.synthetic.membership import rarity
from statfed.federation.federation import Federation
from statfed.federation.synthetic import fit, own_table

EPSILON, PLANTED = 1.0, 0.02
MARGINS = ("education", "marital", "household", "race", "sex", "income")
MEASURES = ("membership", "singling-out", "linkability", "inference", "replicated-uniques", "disco", "copies")


def samples(path: Path | None, records: int) -> tuple[pd.DataFrame, Coded, Coded, Coded, Codebook]:
    """Records that models are fitted to, and three samples as measures see them."""
    if path is not None:
        frame, codebook = read(path, 3 * records)
    else:
        from tests.synthetic_people import CODEBOOK, people

        codebook, frame = CODEBOOK, people(3 * records, 1)
    own, fresh, others = (own_table(frame.iloc[i * records : (i + 1) * records], codebook) for i in range(3))
    return frame.iloc[:records], own, fresh, others, codebook


def planted(original: Coded, others: Coded) -> Coded:
    """Other records, some of them replaced by the rarest of the original."""
    count = round(PLANTED * original.count)
    rare = np.argsort(-rarity(original, original))[:count]
    return joined(others.take(np.arange(count, others.count)), original.take(rare))


def made(frame: pd.DataFrame, codebook: Codebook, method: str, records: int, *, wide: bool) -> Coded:
    """Records of a method by its defaults."""
    options: dict[str, Any] = {"columns": MARGINS} if method == "margins" and wide else {}
    privacy = {"epsilon": EPSILON} if load_synthesis(method).PRIVATE == "always" else None
    with Federation({"own": frame}, codebook, seed=1) as asked:
        return fit(asked, method, options, privacy).coded(records, 1)


def worst(found: list[Measured], name: str) -> str:
    """The figure that says most against, with its interval."""
    mine = [one for one in found if one.name == name]
    if not mine:
        return "–"
    figure = "value" if name == "membership" else "excess"
    one = max(mine, key=lambda each: (each.low if name == "membership" else each.excess_low) or -1.0)
    low, high = one.limits("value" if name == "membership" else "excess")
    between = "" if low is None or high is None else f" ({low:.3f} to {high:.3f})"
    return f"{getattr(one, figure):.3f}{between}"


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("file", nargs="?", type=Path)
    asked.add_argument("--records", type=int, default=10_000)
    asked.add_argument("--attempts", type=int, default=1000)
    told = asked.parse_args()
    frame, own, fresh, others, codebook = samples(told.file, told.records)
    secrets = ("income", "occupation", "marital") if told.file else ("income", "employed")
    keys = ("age", "sex", "race", "education", "class") if told.file else ("age", "edu", "region")
    cases: dict[str, Callable[[], Coded]] = {"others": lambda: others, "planted": lambda: planted(own, others)}
    for method in modules(SYNTHESIS):
        cases[method] = partial(made, frame, codebook, method, own.count, wide=told.file is not None)
    print(f"| method | columns | {' | '.join(MEASURES)} | seconds |\n| {' | '.join(['---'] * (len(MEASURES) + 3))} |")
    for name, make in cases.items():
        started = time.process_time()
        table = make()
        there = [each.only(table.names) for each in (own, fresh)]
        known, hidden = (tuple(one for one in columns if one in table.names) for columns in (keys, secrets))
        question = Asked("public-release", known, hidden, attempts=told.attempts, measures=MEASURES)
        found = list(evaluate(there[0], table, there[1], question, np.random.default_rng(1)).measured)
        cells = " | ".join(worst(found, measure) for measure in MEASURES)
        print(f"| {name} | {len(table.names)} | {cells} | {time.process_time() - started:.0f} |", flush=True)


if __name__ == "__main__":
    main()
