"""Variance from replicate weights: V = scale * sum_r rscale_r (theta_r - centre)^2.

The centre is the mean of the replicates with a positive rscale, R's default (mse = FALSE). Default scales are those of
R's svrepdesign with combined weights. Source: Wolter 2007, chapters 3 to 5; Lumley 2010, Complex Surveys, section 2.3.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from statfed.core.codebook import Codebook
from statfed.core.errors import UsageError

Floats = NDArray[np.float64]


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
