"""`ratio`: the ratio of two weighted totals in domains, with design-based (linearised) standard errors."""

from pydantic import Field

from statfed.core.method import Question
from statfed.strategies.analyses._estimates import Estimand, Measure
from statfed.strategies.analyses._estimating import estimated
from statfed.strategies.analyses._survey import Estimation

TITLE = "Ratio of two totals, with design-based standard errors"
GROUP = "Estimates"
PUSHES_DOWN = "all"


class Options(Estimation):
    """Options of ratio."""

    numerator: str = Field(description="numeric column")
    denominator: str = Field(description="numeric column")


def _estimand(question: Question[Options]) -> Estimand:
    top, bottom = question.options.numerator, question.options.denominator
    measure = Measure({"name": f"{top}/{bottom}", "numerator": top, "denominator": bottom}, top, bottom)
    return Estimand("ratio", "ratio", (measure,))


columns, parts, contribute, weighs, discloses, budget, coordinate = estimated(_estimand, "Ratio")
