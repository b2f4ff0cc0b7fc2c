"""Sequential trees by protected sums against scikit-learn's on pooled data, and the Gaussian copula beside them.

    python benchmarks/synthetic_trees.py [census.csv] [--holders 5] [--records 10000]

census.csv: the Census-Income (KDD) file of the UCI repository, without a header line; adults, 13 columns. Without it
records are generated. Half of the records are the original and lie with the holders, half are fresh; as many are drawn
from each model. TVD: mean total variation distance of the margins of two columns from the original, in 10 cells of
numbers (fresh records in the place of synthetic ones: the first line). AUC: boosted trees trained on the drawn records
tell the last column of fresh ones. Seconds: of the processor, fit and draw, all holders and the coordinator together.
`copied`: drawn numbers, of those that have few equals, that are a value of the original. Prints Markdown.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from statfed.core.codebook import Codebook, make_codebook
from statfed.core.synthetic.coded import Coded, coded
from statfed.core.synthetic.utility import associations, margins
from statfed.federation.federation import Federation
from statfed.federation.synthetic import fit

CENSUS = {
    0: "age",
    12: "sex",
    10: "race",
    7: "marital",
    4: "education",
    1: "class",
    9: "occupation",
    14: "status",
    39: "weeks",
    19: "filer",
    16: "gains",
    18: "dividends",
    41: "income",
}
LEAF = 10


def census(path: Path, records: int) -> pd.DataFrame:
    """Adults drawn from the file, columns in the order in which they are drawn."""
    table = pd.read_csv(path, header=None, usecols=list(CENSUS), skipinitialspace=True).rename(columns=CENSUS)
    table = table[list(CENSUS.values())].map(lambda value: value.strip() if isinstance(value, str) else value)
    return table[table["age"] >= 18].sample(2 * records, random_state=1).reset_index(drop=True)


def generated(records: int) -> pd.DataFrame:
    """Persons with bends, interactions, spikes at 0 and missing values."""
    rng = np.random.default_rng(1)
    n = 2 * records
    age, sex = np.clip(rng.gamma(6, 8, n), 18, 90).astype(int), rng.choice(["f", "m"], n)
    education = rng.choice(list("abcde"), n, p=[0.2, 0.3, 0.25, 0.15, 0.1])
    level = np.searchsorted(list("abcde"), education)
    works = rng.random(n) < np.where(age < 64, 0.8, 0.1)
    hours = np.where(works, np.where(rng.random(n) < 0.5, 40, np.clip(rng.normal(34, 9, n), 1, 80)), np.nan)
    wage = np.where(works, rng.lognormal(9.6 + 0.2 * level + 0.1 * (sex == "m"), 0.5), 0)
    return pd.DataFrame(
        {
            "age": age,
            "sex": sex,
            "education": education,
            "works": np.where(works, "yes", "no"),
            "hours": hours,
            "wage": np.minimum(wage, 400_000).round(2),
            "income": np.where(wage + 200 * age * rng.random(n) > 30_000, "high", "low"),
        }
    )


def book_of(frame: pd.DataFrame) -> Codebook:
    """Bounds and levels of the frame: of a benchmark alone, where all data are at hand."""
    columns: dict[str, Any] = {}
    for name, values in frame.items():
        if values.dtype == object or str(values.dtype).startswith("str"):
            columns[str(name)] = {"type": "category", "categories": sorted(values.unique())}
        else:
            whole = "integer" if (values.dropna() % 1 == 0).all() else "number"
            columns[str(name)] = {"type": whole, "low": float(values.min()), "high": float(values.max())}
        columns[str(name)]["required"] = bool(values.notna().all())
    return make_codebook({"columns": columns})


def scikit(original: Coded, count: int, seed: int) -> Coded:
    """Sequential CART with scikit-learn: values drawn from the leaves, so copies of the original's."""
    rng = np.random.default_rng(seed)
    made: dict[str, Any] = {}
    for name, values in original.columns.items():
        before = list(made)
        if not before:
            made[name] = rng.choice(values, count)
            continue
        known = np.column_stack([np.nan_to_num(original.columns[b], nan=-1e9) for b in before])
        drawn = np.column_stack([np.nan_to_num(made[b], nan=-1e9) for b in before])
        kind = DecisionTreeClassifier if original.levelled(name) else DecisionTreeRegressor
        tree = kind(min_samples_leaf=LEAF, random_state=0).fit(known, np.nan_to_num(values, nan=-1e9))
        leaves, at = tree.apply(known), tree.apply(drawn)
        found = np.empty(count, values.dtype)
        for leaf in np.unique(at):
            found[at == leaf] = rng.choice(values[leaves == leaf], int((at == leaf).sum()))
        made[name] = found
    return Coded(original.codebook, made)


def federated(method: str, frame: pd.DataFrame, book: Codebook, holders: int, **options: Any) -> Callable[[int], Coded]:
    """Fitted over holders; what draws from it."""
    owner = np.random.default_rng(2).integers(0, holders, len(frame))
    parts = {f"h{i}": frame[owner == i].reset_index(drop=True) for i in range(holders)}
    with Federation(parts, book, seed=1) as fed:
        model = fit(fed, method, options)
    return lambda count: model.coded(count, seed=3)


def figures(original: Coded, made: Coded, fresh: Coded) -> tuple[float, float, float, float]:
    """TVD of two columns, mean difference of associations, AUC on fresh records, share of numbers copied."""
    rng = np.random.default_rng(4)
    far = margins(original, made, None, rng).value
    apart = associations(original, made, None, rng).value
    *before, target = original.names
    x, y = (np.column_stack([table.columns[name] for name in before]) for table in (made, fresh))
    model = HistGradientBoostingClassifier(max_iter=100, random_state=0).fit(x, made.columns[target])
    score = roc_auc_score(fresh.columns[target], model.predict_proba(y)[:, 1])
    return far, apart, float(score), copied(original, made)


def copied(original: Coded, made: Coded) -> float:
    """Of drawn numbers that are no frequent value of the original, the share that is one of its values."""
    hits = looked = 0
    for name in original.names:
        if original.levelled(name):
            continue
        there, times = np.unique(original.columns[name], return_counts=True)
        frequent = there[times > len(original.columns[name]) / 1000]
        rare = made.columns[name][~np.isin(made.columns[name], frequent) & ~made.missing(name)]
        hits, looked = hits + int(np.isin(rare, there).sum()), looked + len(rare)
    return hits / looked if looked else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("census", nargs="?", type=Path)
    parser.add_argument("--holders", type=int, default=5)
    parser.add_argument("--records", type=int, default=10_000)
    given = parser.parse_args()
    frame = census(given.census, given.records) if given.census else generated(given.records)
    book, half, many = book_of(frame), len(frame) // 2, given.holders
    mine, fresh = frame[:half].reset_index(drop=True), coded(frame[half:].reset_index(drop=True), book)
    original, rng = coded(mine, book), np.random.default_rng(5)

    def shuffled() -> Coded:
        return Coded(book, {name: rng.permutation(values) for name, values in original.columns.items()})

    rows: dict[str, Callable[[], Coded]] = {
        "fresh records": lambda: fresh,
        "original": lambda: original,
        "independent columns": shuffled,
        "scikit-learn, pooled": lambda: scikit(original, half, 3),
        "cart, pooled": lambda: federated("cart", mine, book, 1, smallest=LEAF)(half),
        f"cart, {many} holders": lambda: federated("cart", mine, book, many, smallest=LEAF)(half),
        f"cart, {many} holders, leaves of 50": lambda: federated("cart", mine, book, many, smallest=50)(half),
        f"copula, {many} holders": lambda: federated("copula", mine, book, many)(half),
    }
    print(f"{half:,} records of {len(original.names)} columns, {many} holders\n")
    print("| | TVD | associations | AUC | copied | seconds |\n| --- | --- | --- | --- | --- | --- |")
    for name, make in rows.items():
        before = time.process_time()
        made = make()
        spent = time.process_time() - before
        far, apart, score, same = figures(original, made, fresh)
        auc = "" if made is fresh else f"{score:.3f}"
        print(f"| {name} | {far:.3f} | {apart:.3f} | {auc} | {same:.0%} | {spent:.1f} |", flush=True)


if __name__ == "__main__":
    main()
