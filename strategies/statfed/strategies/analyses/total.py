"""`total`: weighted totals of columns in domains, with design-based standard errors (Horvitz-Thompson)."""

from pydantic import Field

from statfed.core.method import Question
from statfed.strategies.analyses._estimates import Estimand, Measure
from statfed.strategies.analyses._estimating import estimated
from statfed.strategies.analyses._survey import Estimation

TITLE = "Totals of columns, with design-based standard errors"
GROUP = "Estimates"
PUSHES_DOWN = "all"


class Options(Estimation):
    """Options of total."""

    columns: tuple[str, ...] = Field(min_length=1, description="numeric columns")


def _estimand(question: Question[Options]) -> Estimand:
    return Estimand("total", "total", tuple(Measure({"column": name}, name) for name in question.options.columns))


columns, parts, contribute, weighs, discloses, budget, coordinate = estimated(_estimand, "Totals")
