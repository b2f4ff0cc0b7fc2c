"""What a measure gave: a figure with its interval, and what the same measure says of fresh records."""

import math
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from statfed.core.result import Row

Z = float(norm.ppf(0.975))
Kind = Literal["utility", "risk"]


@dataclass(frozen=True)
class Measured:
    """One figure of synthetic data. name: of the measure, as in the guide; about: which columns or records.

    low, high: 95 % interval, None where the measure has none. baseline: what it is for fresh records of the same
    population in the place of the synthetic ones (or in theory, see the measure), None where that is not known; n: the
    records, attacks or tables that it is a mean of. excess: value less baseline, of attacks as a share of what the
    baseline leaves (`excess_rate`), with its interval.
    """

    name: str
    kind: Kind
    value: float
    low: float | None = None
    high: float | None = None
    baseline: float | None = None
    excess: float | None = None
    excess_low: float | None = None
    excess_high: float | None = None
    n: int = 0
    about: str = ""
    note: str = ""

    def limits(self, figure: Literal["value", "excess"]) -> tuple[float | None, float | None]:
        """The 95 % interval of a figure."""
        return (self.low, self.high) if figure == "value" else (self.excess_low, self.excess_high)

    def row(self) -> Row:
        """For tables and files; what is not finite is None."""
        return {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in asdict(self).items()}


def wilson(successes: int, attempts: int) -> tuple[float, float]:
    """Centre and half width of the 95 % interval of a rate. Source: Wilson 1927; Giomi et al. 2023, equation 5.

    >>> centre, half = wilson(0, 100)
    >>> round(centre, 4), round(half, 4)
    (0.0185, 0.0185)
    """
    square = Z * Z
    centre = (successes + square / 2) / (attempts + square)
    rate = successes / attempts
    return centre, Z / (attempts + square) * math.sqrt(attempts * rate * (1 - rate) + square / 4)


def attacked(
    name: str, hits: NDArray[np.bool_], control: NDArray[np.bool_] | None, naive: float | None = None, about: str = ""
) -> Measured:
    """The success of an attack. hits: of each attempt on records that the data were made from; control: on records of
    the same population that they were not; naive: success of a guess that ignores the synthetic data."""
    other = None if control is None or not len(control) else (int(control.sum()), len(control))
    return succeeded(name, (int(hits.sum()), len(hits)), other, naive, about)


def succeeded(
    name: str,
    hits: tuple[int, int],
    control: tuple[int, int] | None,
    naive: float | None = None,
    about: str = "",
    noise: float = 0.0,
) -> Measured:
    """As `attacked`, of numbers of successes and attempts. noise: standard deviation of privacy noise in each number,
    which intervals contain.

    excess is (rate - control) / (1 - control), 0 where nothing beyond what is true of everybody was learnt, with the
    interval that follows from both rates' (Giomi et al. 2023, Anonymeter, PoPETs 2023(2), section 4.3). Without a
    control there is none: a high rate may be what anybody could guess.
    """
    rate, half = wilson(*hits)
    half = math.hypot(half, Z * noise * math.hypot(1.0, rate) / hits[1])
    excess = low = high = baseline = None
    note = "" if naive is None else f"a guess without the data: {naive:.3f}"
    if control is not None and control[1]:
        baseline, other = wilson(*control)
        other = math.hypot(other, Z * noise * math.hypot(1.0, baseline) / control[1])
        excess = (rate - baseline) / (1 - baseline)
        slope = (rate - 1) / (1 - baseline) ** 2
        error = math.hypot(half / (1 - baseline), slope * other)
        low, high = max(excess - error, -1.0), min(excess + error, 1.0)
    return Measured(name, "risk", rate, rate - half, rate + half, baseline, excess, low, high, hits[1], about, note)


def auc(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> tuple[float, float]:
    """Area under the ROC curve of scores, and its standard error. Ties count half.

    positive: (m,), negative: (n,). Source: DeLong, DeLong and Clarke-Pearson 1988; by ranks as Sun and Xu 2014.
    """
    m, n = len(positive), len(negative)
    together = rankdata(np.concatenate([positive, negative]))
    above = (together[:m] - rankdata(positive)) / n
    below = 1.0 - (together[m:] - rankdata(negative)) / m
    value = float(above.mean())
    spread = (above.var(ddof=1) / m if m > 1 else 0.0) + (below.var(ddof=1) / n if n > 1 else 0.0)
    return value, math.sqrt(spread)


def of_auc(name: str, kind: Kind, value: float, error: float, n: int, about: str = "", note: str = "") -> Measured:
    """An area under a curve as a figure: .5 is a coin."""
    low, high = max(value - Z * error, 0.0), min(value + Z * error, 1.0)
    return Measured(name, kind, value, low, high, 0.5, value - 0.5, low - 0.5, high - 0.5, n, about, note)
