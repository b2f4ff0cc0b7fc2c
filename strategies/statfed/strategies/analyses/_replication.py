"""Variance from replicate weights: V = scale * sum_r rscale_r (theta_r - centre)^2.

The centre is the mean of the replicates with a positive rscale, R's default (mse = FALSE). Default scales are those of
R's svrepdesign with combined weights. Degrees of freedom are the rank of the weights less 1, as R's degf.
Source: Wolter 2007, chapters 3 to 5; Lumley 2010, Complex Surveys, section 2.3.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.codebook import Codebook
from statfed.core.errors import Refused, UsageError
from statfed.core.method import Arrays, Ask, Cells, Magnitude, Part, Question, Total
from statfed.core.table import Table
from statfed.core.weighing import Rows, Weighed
from statfed.strategies.analyses._matrix import cross_products
from statfed.strategies.analyses._survey import SurveyDesign, largest, times

Floats = NDArray[np.float64]
TOLERANCE = 1e-5
"""Of a weight's norm that is left given others, and of a sum of rscales: below it is rounding."""


@dataclass(frozen=True)
class Replication:
    """Scales of a replication method; rscales: (replicates,)."""

    scale: float
    rscales: Floats

    def covariance(self, estimates: Floats) -> Floats:
        """Covariance matrix of estimates given by replicate: (replicates, n) to (n, n)."""
        deviations = (estimates - estimates[self.rscales > 0].mean(axis=0)) * np.sqrt(self.rscales)[:, None]
        product: Floats = self.scale * deviations.T @ deviations
        return product

    def variance(self, estimates: Floats) -> Floats:
        """Variances of estimates given by replicate, (replicates, ...) to (...); NaN where a replicate is NaN."""
        scales = self.rscales.reshape(-1, *(1,) * (estimates.ndim - 1))
        deviations = estimates - estimates[self.rscales > 0].mean(axis=0)
        found: Floats = self.scale * (scales * deviations**2).sum(axis=0)
        return found


def replication(codebook: Codebook) -> Replication:
    """The method in the codebook's [design]. Raises UsageError on what is missing or does not fit."""
    design, count = codebook.design, len(codebook.with_role("replicate"))
    method = design.replicate_method
    if method is None:
        raise UsageError("design.replicate_method: got none with replicate columns; want jk1, jkn, brr, fay, bootstrap")
    if count < 2:
        raise UsageError(f"design: got {count} replicate column; want two at least")
    if method in ("jkn", "other") and not design.replicate_rscales:
        raise UsageError(f"design.replicate_rscales: got none for {method}; want one for each of {count} replicates")
    rscales = np.array(design.replicate_rscales or (1.0,) * count)
    if len(rscales) != count or (rscales < 0).any() or not (rscales > 0).any():
        raise UsageError(
            f"design.replicate_rscales: got {len(rscales)}; want {count}, none negative, for the replicate columns"
        )
    scales = {
        "jk1": (count - 1) / count,
        "jkn": 1.0,
        "brr": 1 / count,
        "fay": 1 / (count * (1 - design.fay_rho) ** 2),
        "bootstrap": 1 / (count - 1),
        "other": 1.0,
    }
    return Replication(design.replicate_scale or scales[method], rscales)


def known_degrees(codebook: Codebook) -> float | None:
    """Degrees of freedom that follow from the codebook alone, None where they do not.

    Those that it gives; of the jackknife replicates less strata, since the rscales (n_h - 1) / n_h of a stratum's n_h
    replicates fall short of 1 by 1 together.
    """
    design, count = codebook.design, len(codebook.with_role("replicate"))
    if design.replicate_df is not None:
        return design.replicate_df
    if design.replicate_method == "jk1":
        return float(count - 1)
    if design.replicate_method == "jkn":
        strata = count - float(replication(codebook).rscales.sum())
        return count - round(strata) if round(strata) >= 1 and abs(strata - round(strata)) < TOLERANCE else None
    return None


def replicate_degrees(question: Question[Any]) -> Generator[Ask, Total, float]:
    """Degrees of freedom of replicate weights: those known, or their rank less 1, as R's degf; 0, with which there are
    no limits, where a holder's rules keep back what tells the rank. Makes at most one ask, `rank`."""
    known = known_degrees(question.codebook)
    if known is not None:
        return known
    try:
        found = yield Ask("rank")
    except Refused:
        return 0.0
    return float(max(rank(found["weights"]) - 1, 0))


UNKNOWN = (
    "no limits and p-values: the degrees of freedom of the replicate weights are not known, since a holder's rules "
    "keep back what tells their rank; want replicate_df in the codebook's [design]"
)
"""Note of a result with no degrees of freedom from `replicate_degrees`."""


def rank(products: Floats) -> int:
    """Rank of weights from their cross-products: columns of which more than `TOLERANCE` of the norm is left given those
    before them, as R's qr finds it (LINPACK's dqrdc2)."""
    kept: list[int] = []
    for j in range(len(products)):
        left = float(products[j, j])
        if kept:
            inside = products[np.ix_(kept, kept)]
            left -= float(products[kept, j] @ np.linalg.lstsq(inside, products[kept, j], rcond=None)[0])
        if products[j, j] > 0 and left > TOLERANCE**2 * products[j, j]:
            kept.append(j)
    return len(kept)


def rank_parts(question: Question[Any], design: SurveyDesign) -> dict[str, Part]:
    """Cross-products of the replicate weights: (replicates, replicates)."""
    most = np.array([largest(question.codebook, name) for name in design.replicates])
    return {"weights": Part((len(most), len(most)), bound=times(most[:, None], most[None]), what=Magnitude())}


def rank_sums(sample: Table, design: SurveyDesign) -> Arrays:
    """What `rank_parts` announces. sample: the records that the design covers."""
    return {"weights": cross_products(sample, [sample.number(name) for name in design.replicates])}


def rank_weighs(sample: Table, design: SurveyDesign) -> Iterator[Weighed]:
    """Any combination of replicate weights can be told, also one that is 0 for all but the records of one PSU."""
    columns = tuple(sample.number(name) for name in design.replicates)
    yield Rows(sample, columns, counting=True)
    yield Rows(sample, columns)


def rank_cells(design: SurveyDesign) -> Cells:
    """What `rank` discloses."""
    return Cells((), design.replicates, design.columns)
