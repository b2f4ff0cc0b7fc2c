"""`count`: estimated number of units in domains, the sum of weights, with design-based standard errors."""

from statfed.core.method import Question
from statfed.strategies.analyses._estimates import Estimand, Measure
from statfed.strategies.analyses._estimating import estimated
from statfed.strategies.analyses._survey import Estimation

TITLE = "Numbers of units, with design-based standard errors"
GROUP = "Estimates"
PUSHES_DOWN = "all"


class Options(Estimation):
    """Options of count."""


def _estimand(_: Question[Options]) -> Estimand:
    return Estimand("total", "total", (Measure({}, None),))


columns, parts, contribute, weighs, discloses, budget, coordinate = estimated(_estimand, "Counts")
