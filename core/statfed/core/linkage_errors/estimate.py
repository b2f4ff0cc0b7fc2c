"""One number with its uncertainty, as every result under linkage errors gives it."""

import math
from dataclasses import dataclass
from typing import Literal

from scipy import stats

from statfed.core.errors import UsageError
from statfed.core.result import Row

Scale = Literal["plain", "log", "logit", "complement"]


@dataclass(frozen=True)
class Estimate:
    """An estimate, its standard error, and the scale on which it is taken to be normal.

    scale: `plain`, `log` (positive numbers), `logit` (between 0 and 1) or `complement`: log(most - value), where what
    is missing to the most that it can be is what was seen. slope: for an estimate at the end of what it can be, how
    fast the log-likelihood falls there; such an interval is one-sided, and the standard error says nothing.
    """

    name: str
    value: float
    std_error: float
    scale: Scale = "plain"
    slope: float = 0.0
    most: float = 1.0

    @property
    def at_limit(self) -> bool:
        """Whether it is at the end of what it can be."""
        at_most = self.scale in ("logit", "complement") and self.value >= self.most
        return (self.scale != "plain" and self.value <= 0) or at_most

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Confidence limits, within what the number can be.

        value +- z * std_error on the scale, and back. At a limit L the far end is where a log-likelihood with this
        slope has fallen by log(1 / (1 - level)): for events never seen in n trials about -log(1 - level) / n.
        Raises UsageError for a level outside 0 to 1.
        """
        if not 0 < level < 1:
            raise UsageError(f"level: got {level}; want a number between 0 and 1")
        if self.at_limit:
            reach = math.log(1 / (1 - level)) / self.slope if self.slope > 0 else math.inf
            if self.value <= 0:
                return (0.0, reach if self.scale == "log" else min(reach, self.most))
            return (max(self.most - reach, 0.0), self.most)
        z = float(stats.norm.ppf((1 + level) / 2))
        if self.scale == "log":
            factor = _exp(z * self.std_error / self.value)
            return (self.value / factor, self.value * factor)
        if self.scale == "logit":
            odds = self.value / (1 - self.value)
            factor = _exp(z * self.std_error / (self.value * (1 - self.value)))
            return (1 / (1 + factor / odds), 1 - 1 / (1 + odds * factor))
        if self.scale == "complement":
            missing = self.most - self.value
            factor = _exp(z * self.std_error / missing)
            return (max(self.most - missing * factor, 0.0), self.most - missing / factor)
        return (self.value - z * self.std_error, self.value + z * self.std_error)

    def row(self) -> Row:
        """As a row of a `Result`: `name`, `estimate`, `std_error`, null where the estimate is at a limit."""
        return {"name": self.name, "estimate": self.value, "std_error": None if self.at_limit else self.std_error}

    def __str__(self) -> str:
        low, high = self.interval()
        return f"{self.name}: {self.value:.6g} (95 % interval {low:.6g} to {high:.6g})"


def _exp(power: float) -> float:
    return math.exp(power) if power < 700 else math.inf
