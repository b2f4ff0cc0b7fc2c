"""`ratio`: the ratio of two weighted totals in domains, with design-based (linearised) standard errors."""

from collections.abc import Mapping

from pydantic import Field

from statfed.core.method import Arrays, Ask, Cells, Coordination, Fixed, Part, Question, fixed
from statfed.core.table import Table
from statfed.strategies.analyses import _estimates, _estimating
from statfed.strategies.analyses._estimates import Estimand, Measure
from statfed.strategies.analyses._survey import Estimation

TITLE = "Ratio of two totals, with design-based standard errors"
GROUP = "Estimates"
PUSHES_DOWN = "all"


class Options(Estimation):
    """Options of ratio."""

    numerator: str = Field(description="numeric column")
    denominator: str = Field(description="numeric column")


def columns(question: Question[Options]) -> tuple[str, ...]:
    return _estimates.checked_columns(question, _estimand(question))


def parts(question: Question[Options], ask: Ask) -> Mapping[str, Part]:
    return _estimates.parts(question, _estimand(question), ask)


def contribute(table: Table, question: Question[Options], ask: Ask) -> Arrays:
    return _estimates.contribute(table, question, _estimand(question), ask)


def discloses(question: Question[Options], ask: Ask) -> Cells:
    return _estimates.discloses(question, _estimand(question), ask)


def budget(question: Question[Options]) -> Fixed:  # noqa: ARG001
    return fixed("noisy")


def coordinate(question: Question[Options]) -> Coordination:
    return _estimating.coordinate(question, _estimand(question), "Ratio")


def _estimand(question: Question[Options]) -> Estimand:
    top, bottom = question.options.numerator, question.options.denominator
    measure = Measure({"name": f"{top}/{bottom}", "numerator": top, "denominator": bottom}, top, bottom)
    return Estimand("ratio", "ratio", (measure,))
