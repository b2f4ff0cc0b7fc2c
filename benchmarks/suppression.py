"""Releases of large tables, alone and beside a memory of earlier ones: seconds, and cells hidden.

    python benchmarks/suppression.py --shape 10 10 4 --earlier 50
    python benchmarks/suppression.py --shape 20 20 5 --earlier 50

A table of counts of all three columns with all margins is released twice: alone, and after `--earlier` tables of the
same population by one or two of the columns, half of them with a filter on a third of the codes of another column, each
released under the same rules and remembered. Counts are negative binomial, so that about one cell in seven is unsafe.
"""

import argparse
import itertools
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from statfed.core.codebook import Codebook, make_codebook
from statfed.core.disclosure import Rules
from statfed.core.errors import Refused
from statfed.core.randomness import stream
from statfed.core.result import Additive, Basis, Result, Row
from statfed.core.terms import Condition
from statfed.server.disclosure.history import Asked
from statfed.server.disclosure.memory import Memory, open_memory
from statfed.server.disclosure.release import release

NAMES = ("a", "b", "c")
RULES = Rules(minimum_frequency=10, dominance_k=None, p_percent=None)


def book(shape: tuple[int, ...]) -> Codebook:
    levels = {name: [f"{name}{i}" for i in range(size)] for name, size in zip(NAMES, shape, strict=True)}
    return make_codebook(
        {"columns": {n: {"type": "category", "categories": c, "required": True} for n, c in levels.items()}}
    )


def tabulated(counts: NDArray[np.int64], by: tuple[str, ...], kept: dict[str, list[int]], codebook: Codebook) -> Result:
    """The exact result of a table by columns, of the records whose codes are kept."""
    whole = counts[np.ix_(*(kept.get(n, range(size)) for n, size in zip(NAMES, counts.shape, strict=True)))]
    summed = whole.sum(axis=tuple(i for i, n in enumerate(NAMES) if n not in by)) if len(by) < 3 else whole
    codes = [[codebook.columns[n].levels[i] for i in kept.get(n, range(len(codebook.columns[n].levels)))] for n in by]
    tables: dict[str, list[Row]] = {"cells": [], "margins": []}
    for shown in itertools.product((True, False), repeat=len(by)):
        array = np.asarray(summed.sum(axis=tuple(i for i, s in enumerate(shown) if not s)))
        places = itertools.product(*(c if s else [None] for c, s in zip(codes, shown, strict=True)))
        rows = [
            dict(zip(by, at, strict=True)) | {"count": int(n), "total": int(n)}
            for at, n in zip(places, array.reshape(-1), strict=True)
        ]
        tables["cells" if all(shown) else "margins"] += rows
    basis = Basis(by, counts=("count",), kind=Additive("margins", total="total"))
    facts = {"observations": int(whole.sum())}
    return Result("table", "Table", tables, facts, (), by, basis={"cells": basis}, observations="observations")


def asked(by: tuple[str, ...], kept: dict[str, list[int]], codebook: Codebook) -> Asked:
    where = tuple(
        Condition(column=n, op="in", value=tuple(codebook.columns[n].levels[i] for i in codes))
        for n, codes in kept.items()
    )
    return Asked(f"{by}{kept}", "table", where, (), (), {"holder": "one"}, codebook)


def timed(
    counts: NDArray[np.int64],
    by: tuple[str, ...],
    kept: dict[str, list[int]],
    codebook: Codebook,
    memory: Memory | None,
    seconds: float,
) -> tuple[float, Result | None]:
    exact = tabulated(counts, by, kept, codebook)
    started = time.perf_counter()
    try:
        found = release(
            exact,
            codebook,
            RULES,
            source=stream(1),
            seconds=seconds,
            asked=asked(by, kept, codebook) if memory else None,
            memory=memory,
        )
    except Refused as refused:
        print(f"refused: {by} {kept}: {refused}")
        found = None
    return time.perf_counter() - started, found


def told(name: str, seconds: float, result: Result | None) -> None:
    if result is None:
        print(f"{name}: refused after {seconds:.1f} s")
        return
    cells, margins = (result.tables[t] for t in ("cells", "margins"))
    hidden = [sum(row["count"] is None for row in rows) for rows in (cells, margins)]
    audit = result.disclosure["audit"].get("pattern")
    print(
        f"{name}: {seconds:.1f} s, {hidden[0]} of {len(cells)} cells and {hidden[1]} of {len(margins)} margins hidden, "
        f"pattern {audit}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=[10, 10, 4])
    parser.add_argument("--earlier", type=int, default=50)
    parser.add_argument("--mean", type=float, default=60.0)
    parser.add_argument("--seconds", type=float, default=10.0, help="for the search for the best pattern")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    rng, shape = np.random.default_rng(given.seed), tuple(given.shape)
    counts, codebook = rng.negative_binomial(1.0, 1 / (1 + given.mean), shape), book(shape)
    unsafe = ((counts > 0) & (counts < 10)).mean()
    print(f"{' x '.join(map(str, shape))}, {unsafe:.0%} of cells unsafe")
    told("alone", *timed(counts, NAMES, {}, codebook, None, given.seconds))
    subsets = [s for k in (1, 2) for s in itertools.combinations(NAMES, k)]
    with tempfile.TemporaryDirectory() as folder, open_memory(Path(folder) / "memory.jsonl") as memory:
        spent, refused = [], 0
        for number in range(given.earlier):
            by = subsets[rng.integers(len(subsets))]
            kept: dict[str, list[int]] = {}
            if number % 2:
                name = NAMES[rng.integers(3)]
                size = shape[NAMES.index(name)]
                kept[name] = sorted(rng.choice(size, max(1, size // 3), replace=False).tolist())
            seconds, found = timed(counts, by, kept, codebook, memory, given.seconds)
            spent.append(seconds)
            refused += found is None
        print(
            f"{given.earlier} earlier tables: median {np.median(spent):.2f} s, slowest {max(spent):.1f} s, "
            f"{refused} refused"
        )
        told(f"beside {len(memory.entries)} earlier tables", *timed(counts, NAMES, {}, codebook, memory, given.seconds))
        told("asked again", *timed(counts, NAMES, {}, codebook, memory, given.seconds))


if __name__ == "__main__":
    main()
