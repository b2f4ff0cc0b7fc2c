"""What is told of a technique: one list of columns for the page, the Markdown and the CSV alike."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from statfed.federation.report import formats
from statfed.lab.compare.tables import ROLES, Summary, Tried

Read = Callable[[Tried], Summary | None]
Form = Callable[[float | None], str]
NOT_PRIVATE = "not DP"


@dataclass(frozen=True)
class Column:
    """One figure of every technique. note: what it is; group: heading above the title."""

    id: str
    title: str
    group: str
    note: str
    read: Read
    form: Form

    def text(self, tried: Tried) -> str:
        """The figure with its standard error, as written in all reports."""
        found = self.read(tried)
        if found is None:
            return NOT_PRIVATE if self.id == "epsilon" and tried.done else formats.DASH
        shown = self.form(found.mean)
        if math.isinf(found.mean):
            return formats.epsilon(found.mean)
        return f"{shown} ± {give_or_take(self.form, found.error)}" if found.error else shown


def give_or_take(form: Form, error: float) -> str:
    """A standard error: as its figure is written, plain numbers with two significant digits."""
    return f"{error:,.2g}" if form is formats.number else form(error)


def megabytes(value: float | None) -> str:
    """MiB with one decimal."""
    return formats.DASH if value is None else f"{value:,.1f}\u00a0MiB"


def multiple(value: float | None) -> str:
    """A multiple of something.

    >>> multiple(13.04), multiple(1.0)
    ('13.0\u00d7', '1.00\u00d7')
    """
    return formats.DASH if value is None else f"{value:,.{2 if abs(value) < 10 else 1}f}×"


def _of(name: str) -> Read:
    return lambda tried: tried.column(name)


def _role(role: str, column: str) -> Read:
    return lambda tried: tried.role(role, column)


def _measure(name: str) -> Read:
    return lambda tried: tried.measure(name)


_MANY = {"holder": "Holders", "coordinator": "Coordinator", "third party": "Third parties"}

ACCURACY: Sequence[Column] = (
    Column(
        "error",
        "Error",
        "Accuracy",
        "the scenario's success measure against the pooled reference; 0 is as good as pooled data",
        _of("error"),
        formats.number,
    ),
    Column(
        "local",
        "Alone",
        "Accuracy",
        "the same measure, mean over holders that compute alone",
        _of("local"),
        formats.number,
    ),
    Column("bias", "Bias", "Accuracy", "mean signed error relative to the pooled figure", _of("bias"), formats.number),
    Column(
        "coverage",
        "Coverage",
        "Accuracy",
        "share of 95 % intervals that hold the population's true value",
        _of("coverage"),
        formats.percent,
    ),
    Column(
        "suppressed",
        "Suppressed",
        "Accuracy",
        "share of figures that were not released",
        _of("suppressed"),
        formats.percent,
    ),
)
PRIVACY: Sequence[Column] = (
    Column(
        "epsilon",
        "Epsilon",
        "Privacy",
        "largest composed epsilon of any holder on any seed; not DP: some release carries no noise",
        lambda tried: tried.epsilon,
        formats.epsilon,
    ),
)
COST: Sequence[Column] = (
    *(
        Column(
            f"sent.{role.replace(' ', '-')}",
            _MANY[role],
            "Bytes sent",
            "all parties of the role together",
            _role(role, "sent"),
            formats.size,
        )
        for role in ROLES
    ),
    *(
        Column(
            f"processor.{role.replace(' ', '-')}",
            _MANY[role],
            "Processor time",
            "all parties of the role together",
            _role(role, "processor"),
            formats.seconds,
        )
        for role in ROLES
    ),
    Column(
        "overhead",
        "Multiple",
        "Cost",
        "processor time over that of plain at the same level",
        _measure("overhead"),
        multiple,
    ),
    Column("wall", "Wall", "Cost", "wall time of the whole trial, one machine", _of("wall"), formats.seconds),
    Column("memory_mib", "Memory", "Cost", "peak resident memory of the process", _of("memory_mib"), megabytes),
)
_TOLD = ("overhead",)
_GROUPS = {
    "leakage": ("Leakage", "an attack that was carried out; 0.5 is no better than guessing for an AUC"),
    "dropout": ("Dropout", "with a holder killed while the computation ran"),
    "wan_seconds": ("Time on lines, MODELLED", "from measured bytes and stages; not measured"),
    "violations": ("Disclosure", "releases that break a rule of statistical disclosure control"),
}


def measured(name: str) -> Column:
    """The column of a measure that a trial recorded by name."""
    head, _, rest = name.partition(".")
    group, note = _GROUPS.get(head, ("More", "a measure of this scenario"))
    title = (rest or head).replace("_", " ")
    title = f"AUC of {title[:-4]}" if title.endswith(" auc") else title[:1].upper() + title[1:]
    form = formats.seconds if head == "wan_seconds" else formats.number
    return Column(name, title, group, note, _measure(name), form)


def columns(tried: Iterable[Tried]) -> list[Column]:
    """The columns of these techniques: always those of accuracy, privacy and cost, then what else was measured."""
    names = sorted({name for one in tried for name in one.measured if name not in _TOLD})
    heads = list(_GROUPS)

    def order(name: str) -> tuple[int, str]:
        head = name.partition(".")[0]
        return (heads.index(head) if head in heads else len(heads)), name

    return [*ACCURACY, *PRIVACY, *COST, *map(measured, sorted(names, key=order))]
