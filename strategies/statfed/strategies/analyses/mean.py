"""`mean`: weighted means of columns in domains, with design-based standard errors.

Hajek: the weighted total over the total weight of the records with a value. Horvitz-Thompson: the weighted total over
the known population."""

from typing import Literal

from pydantic import Field

from statfed.core.method import Question
from statfed.strategies.analyses._estimates import Estimand, Measure
from statfed.strategies.analyses._estimating import estimated
from statfed.strategies.analyses._survey import Estimation

TITLE = "Means of columns, with design-based standard errors"
GROUP = "Estimates"
PUSHES_DOWN = "all"


class Options(Estimation):
    """Options of mean."""

    columns: tuple[str, ...] = Field(min_length=1, description="numeric columns")
    estimator: Literal["hajek", "horvitz-thompson"] = Field(
        default="hajek", description="divide by the estimated size of the population, or by the known one"
    )


def _estimand(question: Question[Options]) -> Estimand:
    measures = tuple(Measure({"column": name}, name) for name in question.options.columns)
    known = question.options.estimator == "horvitz-thompson"
    return Estimand("total" if known else "ratio", "mean", measures, per_unit=known)


columns, parts, contribute, weighs, discloses, budget, coordinate = estimated(_estimand, "Means")
