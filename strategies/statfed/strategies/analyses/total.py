"""`total`: weighted totals of columns in domains, with design-based standard errors (Horvitz-Thompson)."""

from collections.abc import Mapping

from pydantic import Field

from statfed.core.method import Arrays, Ask, Cells, Coordination, Fixed, Part, Question, fixed
from statfed.core.table import Table
from statfed.strategies.analyses import _estimates, _estimating
from statfed.strategies.analyses._estimates import Estimand, Measure
from statfed.strategies.analyses._survey import Estimation

TITLE = "Totals of columns, with design-based standard errors"
GROUP = "Estimates"
PUSHES_DOWN = "all"


class Options(Estimation):
    """Options of total."""

    columns: tuple[str, ...] = Field(min_length=1, description="numeric columns")


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
    return _estimating.coordinate(question, _estimand(question), "Totals")


def _estimand(question: Question[Options]) -> Estimand:
    return Estimand("total", "total", tuple(Measure({"column": name}, name) for name in question.options.columns))
