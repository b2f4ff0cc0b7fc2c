"""`propensity`: how well a logistic model tells synthetic records from holders' records, by protected sums.

The synthetic table is public: its part of every sum is the coordinator's own. A holder adds the score, the information
and the deviance of its records at public coefficients, one ask a step of the fit, and at the end the sum of
(p - share)^2 and the numbers of its records between public edges of the score. All are additive over records, so that
pMSE is that of the pooled records (`statfed.core.synthetic.utility.propensity`; Woo et al. 2009; Snoke et al. 2018,
theorem 1) but for rounding. The area under the ROC curve is that of the score in classes, with the most it can be off.

With `apart` a second model tells the records that the data were not made from, from those that they were: what fresh
records would have in the place of the synthetic ones.

Which levels records have decides the columns of the model, so they are asked first, as numbers of records a level. All
coefficients on the way are sent to every holder, and tell it of the others' sums. Whoever asks chooses the table, and
so the coefficients that sums are taken at and the edges that records are counted between. No rule on populations judges
that: the parts say of nothing what they are, so that no holder whose rules are on answers.

There is no form with noise: the information of k parameters has k (k + 1) / 2 entries, a record changes all of them,
and a fit takes them anew at every step. With the products of thirty columns that is 10^5 noisy numbers a step.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from statfed.core.errors import UsageError
from statfed.core.method import Arrays, Ask, Cells, Coordination, Part, Question, Total
from statfed.core.result import Result, Row
from statfed.core.synthetic.coded import Coded
from statfed.core.synthetic.features import MOST_FEATURES, PRODUCTS
from statfed.core.synthetic.propensity import (
    STEPS,
    Features,
    Sums,
    binned_auc,
    cells_of,
    counted,
    edges_of,
    features_for,
    spread_of,
    sums_of,
    whitened,
)
from statfed.core.table import Table
from statfed.strategies.analyses._products import symmetric
from statfed.strategies.analyses._synthetic_table import (
    Compared,
    coded_sides,
    columns_of,
    synthetic_of,
)

TITLE = "Propensity model that tells synthetic from holders' records: pMSE, S_pMSE, area under the curve"
GROUP = "Distributions"
PUSHES_DOWN = "all but the sums of the model; embedded DuckDB streams"
LINKED = True
SYNTHETIC, FRESH = "synthetic", "apart"
_VERSUS = (SYNTHETIC, FRESH)
Floats = NDArray[np.float64]


class Options(Compared):
    """Options of propensity."""

    interactions: bool = Field(
        default=True,
        description="products of each two columns, in groups or none where they are more than a tenth of the records",
    )
    bins: int = Field(default=200, ge=2, le=2000, description="classes of the score, for the area under the curve")


def columns(question: Question[Options]) -> tuple[str, ...]:
    return columns_of(question)


def parts(question: Question[Options], ask: Ask) -> Mapping[str, Part]:
    if ask.name == "levels":
        places = sum(cells_of(synthetic_of(question)))
        return {
            "records": Part((), 1.0, integer=True, single=True),
            "sides": Part((2,), 1.0, integer=True, single=True),
            "levels": Part((2, places), 1.0, integer=True),
        }
    if ask.name == "step":
        q = _features(question, ask).count
        return {"information": Part((q * (q + 1) // 2,)), "score": Part((q,)), "deviance": Part()}
    if ask.name == "spread":
        _features(question, ask)
        edges = ask.arrays["edges"]
        if edges.ndim != 1 or len(edges) >= question.options.bins or (np.diff(edges) <= 0).any():
            raise UsageError(f"edges: got {edges.size}; want increasing ones, fewer than {question.options.bins}")
        cells = Part((2, len(edges) + 1), 1.0, integer=True, single=True)
        return {"squares": Part(bound=1.0), "cells": cells}
    raise UsageError(f"propensity: unknown ask: got {ask.name!r}; want levels, step or spread")


def _features(question: Question[Options], ask: Ask) -> Features:
    """Those that an ask is about. Raises UsageError where its arrays do not fit."""
    synthetic = synthetic_of(question)
    there, cells = np.asarray(ask.arrays["there"]), sum(cells_of(synthetic))
    if there.shape != (cells,) or int(ask.arrays["versus"]) not in range(2 if question.options.apart else 1):
        raise UsageError(f"there, versus: got arrays of another question; want {cells} cells")
    products = int(ask.arrays["products"])
    if products not in PRODUCTS:
        raise UsageError(f"products: got {products}; want one of {', '.join(map(str, PRODUCTS))}")
    features = Features(synthetic, there > 0, products)
    if features.count > MOST_FEATURES or ask.arrays["coefficients"].shape != (features.count,):
        raise UsageError(f"coefficients: got {ask.arrays['coefficients'].shape}; want ({features.count},)")
    return features


def contribute(table: Table, question: Question[Options], ask: Ask) -> Arrays:
    both = coded_sides(table, question)
    if ask.name == "levels":
        cells = sum(cells_of(synthetic_of(question)))
        found = [np.zeros(cells, np.int64) if side is None else counted(side) for side in both]
        return {
            "records": np.array(table.aggregate(n=table.expr.count())["n"], np.int64),
            "sides": np.array([0 if side is None else side.count for side in both], np.int64),
            "levels": np.stack(found),
        }
    features, b = _features(question, ask), ask.arrays["coefficients"]
    attacked = [(side, label) for label, side in enumerate(both[: 1 + int(ask.arrays["versus"])]) if side is not None]
    if ask.name == "step":
        total = Sums(np.zeros((len(b), len(b))), np.zeros(len(b)), 0.0)
        for side, label in attacked:
            total = total + sums_of(features, side, label, b)
        flat = total.information[np.triu_indices(len(b))]
        return {"information": flat, "score": total.score, "deviance": np.array(total.deviance)}
    edges = ask.arrays["edges"]
    squares, counts = 0.0, np.zeros((2, len(edges) + 1), np.int64)
    for side, label in attacked:
        spread = spread_of(features, side, b, float(ask.arrays["share"]), edges)
        squares, counts[label] = squares + spread.squares, spread.cells
    return {"squares": np.array(squares), "cells": counts}


def discloses(question: Question[Options], ask: Ask) -> Cells:  # noqa: ARG001
    return Cells()


def follows(question: Question[Options], before: Sequence[Ask], ask: Ask) -> str:  # noqa: ARG001
    """After the levels, for each comparison steps with the same features, and the spread once."""
    if ask.name == "levels":
        return "got levels a second time; want each ask once"
    mine = [one for one in before[1:] if int(one.arrays["versus"]) == int(ask.arrays["versus"])]
    if any(one.name == "spread" for one in mine):
        return f"got {ask.name} after spread; want nothing after it"
    if ask.name == "step" and len(mine) >= STEPS:
        return f"got step number {len(mine) + 1}; want {STEPS} at most"
    same = all(np.array_equal(one.arrays[n], ask.arrays[n]) for one in mine for n in ("there", "products"))
    return "" if same else "got other features than in the asks before; want them kept"


@dataclass(frozen=True)
class _Compared:
    """A comparison: its features, its public records if any, and how many records of both kinds there are."""

    versus: int
    features: Features
    public: Coded | None
    counts: tuple[int, int]

    @property
    def records(self) -> int:
        return sum(self.counts)

    @property
    def share(self) -> float:
        return self.counts[1] / self.records

    def ask(self, name: str, b: Floats, more: Mapping[str, NDArray[Any]] | None = None) -> Ask:
        fixed = {
            "versus": np.array(self.versus),
            "there": self.features.there.astype(np.int64),
            "products": np.array(self.features.products),
        }
        return Ask(name, {**fixed, "coefficients": b, **(more or {})})

    def sums(self, total: Total, b: Floats) -> Sums:
        information = symmetric(total["information"], len(b))
        own = Sums(information, np.asarray(total["score"]), float(total["deviance"]))
        return own if self.public is None else own + sums_of(self.features, self.public, 1, b)


def _fitted(one: _Compared) -> Generator[Ask, Total, tuple[Floats, int]]:
    """Coefficients that the fit ends with, and the number of parameters that can be told apart."""
    inner, whole, before = np.zeros(0), np.zeros(one.features.count), np.inf
    to_whole: Floats | None = None
    b = whole
    for _ in range(STEPS):
        b = whole
        sums = one.sums((yield one.ask("step", b)), b)
        if abs(before - sums.deviance) < 1e-9 * (1 + sums.deviance):
            break
        before = sums.deviance
        if to_whole is None:  # at 0 the weight of every record is 1/4
            to_whole = whitened(4 * sums.information, one.records)
            inner = np.zeros(to_whole.shape[1])
        information, score = to_whole.T @ sums.information @ to_whole, to_whole.T @ sums.score
        inner = inner + np.linalg.lstsq(information, score, rcond=None)[0]
        whole = to_whole @ inner
    return b, len(inner)


def _compared(one: _Compared, synthetic: Coded, bins: int) -> Generator[Ask, Total, Row]:
    b, parameters = yield from _fitted(one)
    if parameters < 2:
        raise UsageError("columns: got none that vary; want some for a propensity model")
    edges = edges_of(one.features, synthetic, b, bins)
    total = yield one.ask("spread", b, {"edges": edges, "share": np.array(one.share)})
    squares, cells = float(total["squares"]), np.array(total["cells"])
    if one.public is not None:
        own = spread_of(one.features, one.public, b, one.share, edges)
        squares, cells[1] = squares + own.squares, own.cells
    area, error, bound = binned_auc(cells[1], cells[0])
    return {
        "versus": _VERSUS[one.versus],
        "made_from": one.counts[0],
        "others": one.counts[1],
        "parameters": parameters,
        "products": one.features.products,
        "pmse": squares / one.records,
        "auc": area,
        "auc_error": error,
        "auc_off_by": bound,
    }


def coordinate(question: Question[Options]) -> Coordination:
    options, synthetic = question.options, synthetic_of(question)
    total = yield Ask("levels")
    own, fresh = (int(count) for count in total["sides"])
    if not own or (options.apart and not fresh):
        raise UsageError(f"records: got {own} that the data were made from, {fresh} apart; want some of each")
    levels = np.array(total["levels"])
    rows = []
    for versus, name in enumerate(_VERSUS[: 2 if options.apart else 1]):
        public = synthetic if name == SYNTHETIC else None
        counts = own, synthetic.count if public else fresh
        there = levels[0] + (counted(synthetic) if public else levels[1])
        features = features_for(synthetic, there, sum(counts), interactions=options.interactions)
        rows.append((yield from _compared(_Compared(versus, features, public, counts), synthetic, options.bins)))
    facts = {"records": int(total["records"])}
    return Result("propensity", "Propensity models", {"models": rows}, facts, keys={"models": ("versus",)})
