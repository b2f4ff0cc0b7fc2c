"""An evaluation of synthetic data without pooling the original: holders are asked, and only sums come back.

Utility: margins of every two columns are counted by the holders (`marginals`) and compared with the synthetic table's;
models are fitted to the holders' records (`ols`, `glm` ...) and to the synthetic ones; a propensity model is fitted by
sums (`propensity`). Risk: every holder attacks its own records, and successes are added up: one record at a time
(`synthetic-risk`), and within its own where it takes several (`synthetic-within`: uniques, singling out, membership of
rare records). The last two questions have no form with noise: with it they are left out, and said, and so is what takes
records of several holders together.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import UsageError
from statfed.core.linkage import restricted
from statfed.core.synthetic.coded import Coded
from statfed.core.synthetic.evaluation import NO_FRESH, Asked, Evaluation, judged_for, with_limits
from statfed.core.synthetic.guide import Limit, guide
from statfed.core.synthetic.measured import Measured, succeeded
from statfed.core.synthetic.packing import packed
from statfed.core.synthetic.weights import survey_notes, unweighted
from statfed.federation.evaluation.together import MODELLED, WITHIN, propensity_apart, within
from statfed.strategies.analyses.marginals import axes_for

if TYPE_CHECKING:
    from statfed.federation.federation import Federation

CLASSES = 10
_DRAWS = 20
"""Samples that say how far fresh records would be."""
_NO_NOISE = "it has no form with noise"
_WHY = {"propensity-auc": "boosted trees take all records together; the logistic model's is measured instead"}
_LEFT = "it takes records of several holders together, which stay apart"


def evaluate_apart(
    federation: "Federation",
    synthetic: Coded,
    asked: Asked,
    rng: np.random.Generator,
    *,
    apart: str = "",
    models: Sequence[str] = (),
    privacy: Any = None,
    limits: Sequence[Limit] = (),
) -> Evaluation:
    """Measure a synthetic table against the records of a federation's holders, which stay where they are.

    apart: condition on records that the data were not made from, as `part = kept`; such a column is no column of the
    synthetic table. models: each in one line. privacy: of each question. Raises UsageError, and Refused as the holders
    do.
    """
    if asked.population:
        raise UsageError("population: got holders' records, which stay apart; want the original on one machine")
    use = with_limits(guide().use(asked.use), limits)
    codebook, names = synthetic.codebook, synthetic.names
    fresh = f"not ({apart})" if apart else ""
    result = federation.ask(
        "marginals",
        columns=names,
        ways=min(2, len(names)),
        classes=CLASSES,
        where=(fresh,) if fresh else (),
        privacy=privacy,
    )
    axes = axes_for(codebook, names, CLASSES)
    codes = {name: axes[name].places(synthetic.columns[name], synthetic.missing(name)) for name in names}
    tables = _tables(result.tables["cells"], {name: axes[name].size for name in names})
    records = round(float(np.mean([counts.sum() for counts, _ in tables.values()])))
    if records <= 0:
        raise UsageError("holders: got no records; want some")
    found = _margins(tables, codes, synthetic.count, rng)
    found += _risks(federation, synthetic, asked, apart, privacy)
    wanted = asked.measures or (*use.measures, *(limit.measure for limit in use.limits))
    more, left_out = _together(federation, synthetic, asked, apart, wanted, privacy)
    found += more
    for line in models:
        found.append(_coefficients(federation, synthetic, line, fresh, privacy))
    found = unweighted(found, federation.codebook or codebook)
    known = {one.name for one in found}
    said = {name for name, _ in left_out}
    left_out += [(name, _WHY.get(name, _LEFT)) for name in dict.fromkeys(wanted) if name not in {*known, *said}]
    notes = [f"Nothing was pooled: {len(federation.last.terms.holders) if federation.last else 0} holders were asked."]
    notes += [] if apart else [NO_FRESH]
    notes += survey_notes(federation.codebook or codebook)
    noisy = (
        "Counts of the holders carry noise, which is in intervals, and in distances and what fresh records would have."
    )
    notes += [noisy, _cost(federation, 2 + len(models))] if privacy is not None else []
    return judged_for(use, found, (records, synthetic.count, None), left_out, notes)


def _together(
    federation: "Federation", synthetic: Coded, asked: Asked, apart: str, wanted: Sequence[str], privacy: Any
) -> tuple[list[Measured], list[tuple[str, str]]]:
    """What takes records together, of what is wanted; and what was left out, with the reason."""
    found: list[Measured] = []
    modelled, alone = ([name for name in names if name in wanted] for names in (MODELLED, WITHIN))
    if privacy is not None:
        return found, [(name, _NO_NOISE) for name in (*modelled, *alone)]
    left_out: list[tuple[str, str]] = []
    if modelled:
        try:
            found += propensity_apart(federation, synthetic, apart)
        except UsageError as error:
            left_out += [(name, str(error)) for name in modelled]
    if alone:
        keys = asked.keys or synthetic.names[:5]
        more, missing = within(federation, synthetic, keys, apart, asked.attempts // 2)
        found += [one for one in more if one.name in alone]
        left_out += [(name, why) for name, why in missing if name in alone]
    return found, left_out


def _cost(federation: "Federation", questions: int) -> str:
    """What the questions took from the holders, as their ledgers compose it with all that was asked of them before."""
    spending = federation.last.spending if federation.last else ()
    composed = [one.history_epsilon for one in spending]
    told = max((one for one in composed if one is not None), default=None)
    so_far = "not private: something exact was told too" if told is None or None in composed else f"epsilon {told:.4g}"
    return f"{questions} private questions were charged to every holder; all that was ever asked of them: {so_far}."


Counted = Mapping[tuple[str, ...], tuple[NDArray[np.float64], NDArray[np.float64]]]
"""By margin: counts as they were told, and the standard deviation of the noise in each, both of the margin's shape."""


def _tables(rows: Sequence[Mapping[str, Any]], sizes: Mapping[str, int]) -> Counted:
    found: dict[str, list[tuple[int, float, float]]] = {}
    for row in rows:
        cell = int(row["cell"]), float(row["count"]), float(row["std_error"])
        found.setdefault(str(row["margin"]), []).append(cell)
    made = {}
    for name, cells in found.items():
        margin = tuple(name.split(" x "))
        shape = [sizes[column] for column in margin]
        values = np.zeros((2, math.prod(shape)))
        for place, count, noise in cells:
            values[:, place] = count, noise
        made[margin] = values[0].reshape(shape), values[1].reshape(shape)
    return made


def _shares(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares of cells (..., cells); what noise made negative is 0."""
    there = np.maximum(counts, 0.0)
    shares: NDArray[np.float64] = there / np.maximum(there.sum(axis=-1, keepdims=True), 1e-300)
    return shares


def _margins(
    tables: Counted, codes: Mapping[str, NDArray[np.int64]], count: int, rng: np.random.Generator
) -> list[Measured]:
    """Distance of margins and of columns by themselves.

    baseline: of as many fresh records, drawn from what was told, against what would be told with another draw of its
    noise: so that noise, which makes every distance larger, is in both.
    """
    distances, expected, worst = [], [], ("", 0.0)
    single: dict[str, tuple[float, float]] = {}
    for margin, (counts, noise) in tables.items():
        kept = np.all([codes[name] >= 0 for name in margin], axis=0)
        place = np.ravel_multi_index([codes[name][kept] for name in margin], counts.shape)
        own = np.bincount(place, minlength=counts.size) / max(int(kept.sum()), 1)
        share = _shares(counts.ravel())
        draws = rng.multinomial(count, share, size=_DRAWS) / count
        told = _shares(counts.ravel() + noise.ravel() * rng.normal(size=draws.shape)) if noise.any() else share[None]
        distances.append(float(np.abs(own - share).sum() / 2))
        expected.append(float(np.abs(draws - told).sum(axis=1).mean() / 2))
        if distances[-1] > worst[1]:
            worst = (" x ".join(margin), distances[-1])
        for axis, name in enumerate(margin):
            if name not in single:
                others = tuple(i for i in range(len(margin)) if i != axis)
                mine, theirs = (each.reshape(counts.shape).sum(axis=others) for each in (own, share))
                more = tuple(i + 1 for i in others)
                pairs = [each.reshape(-1, *counts.shape).sum(axis=more) for each in (draws, told)]
                apart = [_hellinger(d, t) for d, t in zip(*np.broadcast_arrays(*pairs), strict=True)]
                single[name] = _hellinger(mine, theirs), float(np.mean(apart))
    by_column = {name: value for name, (value, _) in single.items()}
    farthest = max(by_column, key=lambda name: by_column[name])
    ways = len(next(iter(tables)))
    value, baseline = float(np.mean(distances)), float(np.mean(expected))
    plain, usual = float(np.mean([*by_column.values()])), float(np.mean([usual for _, usual in single.values()]))
    return [
        Measured(
            "margins",
            "utility",
            value,
            baseline=baseline,
            excess=value - baseline,
            n=len(distances),
            about=f"{ways} columns at a time",
            note=f"farthest: {worst[0]}, {worst[1]:.3f}",
        ),
        Measured(
            "hellinger",
            "utility",
            plain,
            baseline=usual,
            excess=plain - usual,
            n=len(by_column),
            note=f"farthest: {farthest}, {by_column[farthest]:.3f}",
        ),
    ]


def _hellinger(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return math.sqrt(max(0.0, 1.0 - float(np.sqrt(one * other).sum())))


def _risks(federation: "Federation", synthetic: Coded, asked: Asked, apart: str, privacy: Any) -> list[Measured]:
    secrets = asked.secrets or synthetic.names[: min(12, len(synthetic.names))]
    keys = asked.keys or synthetic.names[:5]
    result = federation.ask(
        "synthetic-risk",
        table=packed(synthetic),
        records=synthetic.count,
        keys=keys,
        secrets=secrets,
        apart=apart,
        privacy=privacy,
    )
    counts: dict[tuple[str, str], dict[str, tuple[int, int]]] = {}
    noise = max(float(row["std_error"] or 0.0) for row in result.tables["attacks"])
    for row in result.tables["attacks"]:
        if row["tried"] is None or row["succeeded"] is None:
            continue
        tried = max(int(row["tried"]), 0)
        made = counts.setdefault((str(row["measure"]), str(row["about"])), {})
        made[str(row["records"])] = (min(max(int(row["succeeded"]), 0), tried), tried)
    found = []
    for (name, about), sides in counts.items():
        hits, control = sides.get("made from", (0, 0)), sides.get("apart", (0, 0))
        if hits[1]:
            secret = about.removesuffix(" by the keys")
            known = about.replace("the keys", ", ".join(key for key in keys if key != secret))
            found.append(succeeded(name, hits, control if control[1] else None, None, known, noise))
    return found


def _coefficients(federation: "Federation", synthetic: Coded, line: str, fresh: str, privacy: Any) -> Measured:
    from dataclasses import replace

    from statfed.core.linkage import read_analysis
    from statfed.core.synthetic.specific import coefficients
    from statfed.federation.federation import Federation
    from statfed.federation.synthetic import frame_of

    name, options = read_analysis(line)
    own = federation.ask(name, where=(fresh,) if fresh else (), privacy=privacy, **options)
    with Federation({"synthetic": frame_of(synthetic)}, restricted(synthetic.codebook, synthetic.names)) as other:
        return replace(coefficients(own, other.ask(name, **options))[0], about=line)
