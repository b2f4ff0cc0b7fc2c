"""An evaluation of synthetic data with the original pooled, and by questions to five holders: figures and seconds.

    python benchmarks/synthetic_apart.py [records]

Persons are those of `tests.synthetic_people`: so many that the data are made from, as many fresh ones, both dealt to
five holders at random; `mst` with epsilon 3 makes the synthetic ones. In a second file 2 % of these are replaced by the
original records that are farthest from all others, verbatim; in a third, by those of one holder that are farthest from
its others. Seconds: of processor time, of coordinator and all simulated holders together. Prints Markdown.
"""

import sys
import time
from collections.abc import Mapping

import numpy as np
import pandas as pd
from tests.synthetic_people import CODEBOOK, people, read

from statfed.core.codebook import make_codebook
from statfed.core.synthetic.evaluation import Asked, Evaluation, evaluate
from statfed.core.synthetic.measured import Measured
from statfed.core.synthetic.membership import rarity
from statfed.federation import Federation
from statfed.federation.evaluation.apart import evaluate_apart
from statfed.federation.synthetic import fit

HOLDERS, PLANTED = 5, 0.02
MEASURES = (
    *("margins", "hellinger", "pmse", "s-pmse", "logistic-auc"),
    *("singling-out", "linkability", "inference", "replicated-uniques", "disco", "tcap", "copies", "membership"),
)
ASKED = Asked("public-release", ("age", "edu", "region"), ("employed",), measures=MEASURES)


def planted(made: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
    """Synthetic records, some of them replaced by the farthest of a table."""
    far = rarity(read(own), read(own))
    rows = own.iloc[np.argsort(-far)[: round(PLANTED * len(made))]]
    return pd.concat([made.iloc[len(rows) :], rows]).reset_index(drop=True)


def timed(used: pd.DataFrame, kept: pd.DataFrame, made: pd.DataFrame) -> tuple[tuple[Evaluation, float], ...]:
    """An evaluation both ways, and processor seconds of each."""
    start = time.process_time()
    pooled = evaluate(read(used), read(made), read(kept), ASKED, np.random.default_rng(1))
    middle = time.process_time()
    told = CODEBOOK.model_dump(mode="json", exclude_defaults=True)
    told["columns"]["part"] = {"type": "category", "categories": ["used", "kept"], "required": True}
    frames = {
        f"h{i}": pd.concat([used.assign(part="used")[i::HOLDERS], kept.assign(part="kept")[i::HOLDERS]])
        for i in range(HOLDERS)
    }
    with Federation(frames, make_codebook(told), protection="secure-aggregation", seed=1) as federation:
        rng = np.random.default_rng(1)
        apart = evaluate_apart(federation, read(made), ASKED, rng, apart="part = kept")
    return (pooled, middle - start), (apart, time.process_time() - middle)


def said(one: Measured | None) -> str:
    """Value with its interval, and the fresh records' in its place."""
    if one is None:
        return ""
    value = f"{one.value:.4g}"
    between = "" if one.low is None or one.high is None else f" ({one.low:.3g} to {one.high:.3g})"
    return value + between + ("" if one.baseline is None else f"; fresh {one.baseline:.3g}")


def by_key(found: Evaluation) -> Mapping[tuple[str, str], Measured]:
    """Figures by measure, and by width or secret where there are several."""
    made: dict[tuple[str, str], Measured] = {}
    for one in found.measured:
        several = one.about.split(";")[0] if one.name == "singling-out" else ""
        if one.name == "margins" and not one.about.startswith("2"):
            continue
        made[one.name, several] = one
    return made


def main(records: int) -> None:
    used, kept = people(records, 1), people(records, 2)
    with Federation({"all": used}, CODEBOOK, seed=1) as federation:
        made = fit(federation, "mst", {}, 3.0).sample(records, seed=1)
    files = {"mst": made, "2 % planted": planted(made, used), "2 % planted, of one": planted(made, used[::HOLDERS])}
    for title, file in files.items():
        (pooled, one), (apart, other) = timed(used, kept, file)
        print(f"\n**{title}**\n\n| measure | pooled | without pooling |\n| --- | --- | --- |")
        theirs, mine = by_key(pooled), by_key(apart)
        for key in dict.fromkeys((*theirs, *mine)):
            name = " ".join(filter(None, key))
            print(f"| {name} | {said(theirs.get(key))} | {said(mine.get(key))} |", flush=True)
        print(f"| processor seconds | {one:.0f} | {other:.0f} |", flush=True)
        for found in (pooled, apart):
            print(found.sentence, found.left_out, file=sys.stderr)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1500)
