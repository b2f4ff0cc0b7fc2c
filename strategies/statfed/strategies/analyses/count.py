"""`count`: estimated number of units in domains, the sum of weights, with design-based standard errors."""

from collections.abc import Mapping

from statfed.core.method import Arrays, Ask, Cells, Coordination, Fixed, Part, Question, fixed
from statfed.core.table import Table
from statfed.strategies.analyses import _estimates, _estimating
from statfed.strategies.analyses._estimates import Estimand, Measure
from statfed.strategies.analyses._survey import Estimation

TITLE = "Numbers of units, with design-based standard errors"
GROUP = "Estimates"
PUSHES_DOWN = "all"


class Options(Estimation):
    """Options of count."""


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
    return _estimating.coordinate(question, _estimand(question), "Counts")


def _estimand(question: Question[Options]) -> Estimand:  # noqa: ARG001
    return Estimand("total", "total", (Measure({}, None),))
