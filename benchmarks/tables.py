"""Federated statistics against the pooled computation: time as a ratio, memory, in one interleaved run.

    python benchmarks/tables.py --rows 10 --repeat 3        # millions of rows over 4 holders

Each holder is a Parquet file. Pooled is DuckDB over the four files together: the same aggregation for `describe` and
`table`; for `ols` and `glm` the cross products in one SQL statement, and for `glm` one Newton step of it times the
number of steps that the federated fit took. statsmodels is timed on what it can hold (1 million rows) and scaled.
Federated includes everything: simulated holders, policy, validation against the codebook, ledger, messages.
"""

import argparse
import itertools
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import duckdb

from statfed.core.codebook import Codebook, make_codebook
from statfed.federation import Federation

HOLDERS = 4
X = [f"x{i}" for i in range(1, 11)]
REGIONS, SEXES, AGES = [f"r{i:02d}" for i in range(20)], ["f", "m"], [f"a{i}" for i in range(8)]
FORMULA = "income ~ " + " + ".join(X)
LOGIT = "works ~ " + " + ".join(X)


def make(folder: Path, rows: int) -> dict[str, Path]:
    """One Parquet file per holder, `rows` in all."""
    files = {}
    for holder in range(HOLDERS):
        path = folder / f"h{holder}-{rows}.parquet"
        if not path.exists():
            columns = ", ".join(f"floor(random() * 1000) / 10 AS {x}" for x in X)
            duckdb.sql(
                f"""COPY (SELECT *, round(20000 + 300 * x1 - 100 * x2 + 4000 * (random() - 0.5), 2) AS income,
                random() < 1 / (1 + exp(2 - x1 / 30 + x3 / 60)) AS works
                FROM (SELECT {columns}, 'r' || lpad((random() * 19)::int::varchar, 2, '0') AS region,
                CASE WHEN random() < 0.5 THEN 'f' ELSE 'm' END AS sex, 'a' || (random() * 7)::int AS age_group
                FROM range({rows // HOLDERS}))) TO '{path}' (FORMAT parquet)"""
            )
        files[f"h{holder}"] = path
    return files


def codebook() -> Codebook:
    columns: dict[str, object] = {x: {"type": "number", "low": 0, "high": 100} for x in X}
    columns |= {
        "income": {"type": "number", "low": 0, "high": 100_000},
        "works": {"type": "boolean"},
        "region": {"type": "category", "categories": REGIONS},
        "sex": {"type": "category", "categories": SEXES},
        "age_group": {"type": "category", "categories": AGES},
    }
    return make_codebook({"columns": columns})


def pooled(files: dict[str, Path], query: str) -> None:
    """Run `query` over all files with a fresh DuckDB."""
    listed = ", ".join(f"'{path}'" for path in files.values())
    with duckdb.connect() as connection:
        connection.execute(query.replace("FROM pooled", f"FROM read_parquet([{listed}])")).fetchall()


def products(weight: str = "", where: str = "FROM pooled") -> str:
    pairs = itertools.combinations_with_replacement(["1", *X, "income"], 2)
    return "SELECT " + ", ".join(f"sum({a} * {b}{weight})" for a, b in pairs) + f" {where}"


def logit_step() -> str:
    eta = " + ".join(f"0.01 * {x}" for x in X)
    inner = f"(SELECT *, 1 / (1 + exp(-({eta}))) AS mu FROM pooled)"
    pairs = itertools.combinations_with_replacement(["1", *X], 2)
    sums = [f"sum({a} * {b} * mu * (1 - mu))" for a, b in pairs] + [f"sum({x} * (works::int - mu))" for x in ["1", *X]]
    return f"SELECT {', '.join(sums)} FROM {inner}"


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=float, default=10, help="millions of rows over all holders")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keep the data here between runs")
    parser.add_argument("--only", nargs="*", default=["describe", "table", "ols", "glm"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        files = make(folder, int(options.rows * 1e6))
        fed = Federation(dict(files), codebook())
        moments = "SELECT " + ", ".join(f"count({x}), avg({x}), var_samp({x})" for x in [*X, "income"]) + " FROM pooled"
        cells = "SELECT region, sex, age_group, count(*) FROM pooled GROUP BY ALL"
        works: dict[str, tuple[Callable[[], object], str]] = {
            "describe": (lambda: fed.describe([*X, "income"]), moments),
            "table": (lambda: fed.table(["region"], ["sex", "age_group"]), cells),
            "ols": (lambda: fed.ols(FORMULA), products()),
            "glm": (lambda: fed.glm(LOGIT, family="binomial"), logit_step()),
        }
        print(f"{options.rows:g} million rows, {HOLDERS} holders, {options.repeat} interleaved repetitions")
        print(f"{'analysis':10} {'federated s':>12} {'pooled s':>10} {'ratio':>7} {'sums':>5} {'peak MiB':>9}")
        for name in options.only:
            call, query = works[name]
            call()
            assert fed.last is not None
            sums = len(fed.last.sums)
            times = [(seconds(call), seconds(partial(pooled, files, query))) for _ in range(options.repeat)]
            factor = sums if name == "glm" else 1
            mine, theirs = (statistics.median(t[i] for t in times) for i in (0, 1))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(
                f"{name:10} {mine:12.2f} {factor * theirs:10.2f} {mine / (factor * theirs):7.2f} {sums:5d} {peak:9.0f}"
            )


if __name__ == "__main__":
    main()
