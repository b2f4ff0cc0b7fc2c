"""Utility for one purpose: models trained on synthetic records and tested on real ones, and their coefficients."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import UsageError
from statfed.core.result import Result
from statfed.core.synthetic.coded import Coded, joined
from statfed.core.synthetic.features import main_effects
from statfed.core.synthetic.measured import Measured

_BOOSTED: dict[str, Any] = {"max_iter": 100, "early_stopping": False}
FEWEST = 100
"""Records to train or to test on, at least."""


def train_synthetic_test_real(
    original: Coded, synthetic: Coded, fresh: Coded, target: str, rng: np.random.Generator
) -> Measured:
    """How boosted trees trained on synthetic records do on fresh real ones: AUC for levels (each against the rest,
    weighted), R squared for numbers. baseline: the same trained on the original, on as many records.

    Records that miss the target are left out. Raises UsageError for too few records, and for a target that does not
    vary in the original.
    """
    tables = [table.take(~table.missing(target)) for table in (original, synthetic, fresh)]
    count = min(tables[0].count, tables[1].count)
    if min(count, tables[2].count) < FEWEST:
        raise UsageError(f"target {target}: got {min(count, tables[2].count)} records; want at least {FEWEST} of each")
    train = [table.drawn(count, rng) for table in tables[:2]]
    others = [name for name in original.names if name != target]
    if not others:
        raise UsageError(f"target {target}: got no other column; want features")
    both = joined(*train, tables[2]).only(others)
    features = main_effects(both, both)
    seed = int(rng.integers(2**31))
    score = _classes if original.levelled(target) else _numbers
    truth = tables[2].columns[target]
    values = [
        score(features[i * count : (i + 1) * count], train[i].columns[target], features[2 * count :], truth, seed)
        for i in (0, 1)
    ]
    name = "AUC" if original.levelled(target) else "R squared"
    return Measured(
        "train-synthetic-test-real",
        "utility",
        values[1],
        baseline=values[0],
        excess=values[1] - values[0],
        n=tables[2].count,
        about=f"{name} of {target}",
    )


def _classes(
    x: NDArray[Any], labels: NDArray[np.int64], test: NDArray[Any], truth: NDArray[np.int64], seed: int
) -> float:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score

    classes = np.unique(truth)
    if len(classes) < 2:
        raise UsageError("target: got one level in the fresh records; want two or more")
    if len(np.unique(labels)) < 2:
        return 0.5  # whoever knows one level tells nothing apart
    model = HistGradientBoostingClassifier(**_BOOSTED, random_state=seed).fit(x, labels)
    odds = model.predict_proba(test)
    known = {label: place for place, label in enumerate(model.classes_)}
    scores = [odds[:, known[c]] if c in known else np.zeros(len(test)) for c in classes]
    weights = [float((truth == c).mean()) for c in classes]
    if len(classes) == 2:
        return float(roc_auc_score(truth == classes[1], scores[1]))
    found = [float(roc_auc_score(truth == c, s)) for c, s in zip(classes, scores, strict=True)]
    return float(np.average(found, weights=weights))


def _numbers(
    x: NDArray[Any], values: NDArray[np.float64], test: NDArray[Any], truth: NDArray[np.float64], seed: int
) -> float:
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.metrics import r2_score

    if truth.std() == 0:
        raise UsageError("target: got one value in the fresh records; want several")
    model = HistGradientBoostingRegressor(**_BOOSTED, random_state=seed).fit(x, values)
    return float(r2_score(truth, model.predict(test)))


def coefficients(original: Result, synthetic: Result, level: float = 0.95) -> tuple[Measured, Sequence[dict[str, Any]]]:
    """Coefficients of the same model from both: mean overlap of their intervals, and the rows behind it.

    Overlap is the mean of the shares of both intervals that they have in common, below 0 where they are apart (Karr et
    al. 2006; not cut off, so that far apart is worse than just apart). A row has both estimates, the difference in
    standard errors of the original, and the overlap. Raises UsageError where the models have no coefficient in common.
    """
    limits = [result.conf_int(level) for result in (original, synthetic)]
    frames = [result.to_pandas() for result in (original, synthetic)]
    keyed = [
        {
            str(name): (float(e), float(s), float(low), float(high))
            for name, e, s, low, high in zip(
                frame["name"], frame["estimate"], frame["std_error"], limit["lower"], limit["upper"], strict=True
            )
        }
        for frame, limit in zip(frames, limits, strict=True)
    ]
    rows: list[dict[str, Any]] = []
    for name, (estimate, error, low, high) in keyed[0].items():
        if name not in keyed[1] or not np.isfinite([low, high, *keyed[1][name]]).all():
            continue
        other, _, low_other, high_other = keyed[1][name]
        common = min(high, high_other) - max(low, low_other)
        widths = (high - low, high_other - low_other)
        overlap = float(np.mean([common / width if width > 0 else float(common == 0) for width in widths]))
        rows.append(
            {
                "name": name,
                "original": estimate,
                "synthetic": other,
                "std_difference": (other - estimate) / error if error > 0 else None,
                "overlap": overlap,
            }
        )
    if not rows:
        raise UsageError("coefficients: got models without a common coefficient; want the same formula and levels")
    lost = len(keyed[0]) - len(rows)
    note = f"{lost} coefficients are not in both" if lost else ""
    value = float(np.mean([row["overlap"] for row in rows]))
    return Measured("coefficients", "utility", value, n=len(rows), about=original.title, note=note), rows
