"""Edit rules on records: which of a coded table's obey a codebook's, and records drawn until all of them do.

A rule is a condition (`statfed.core.conditions`). With a missing value it may be neither true nor false (Kleene's
logic, as SQL's): a record is kept unless a rule is *definitely* false of it, whatever the values that it misses. Of
columns that a table does not have nothing is known, not even whether a value is missing.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.codebook import Codebook, day_of
from statfed.core.conditions import Clause, Condition, parse_where
from statfed.core.errors import UsageError
from statfed.core.synthetic.coded import Coded

Truth = NDArray[np.int8]
"""1: true, 0: neither, -1: false."""
LEAST_SHARE = 0.01
"""Of the records that a model draws, that obey the rules: with fewer it is refused."""
LEAST_OF_UNITS = 0.8
"""The same where records are units with their members: drawing anew moves the sizes of units by at most what is drawn
anew, in total variation."""
_TRIED = 10_000  # records drawn at least before a model is
_BATCH = 1_000_000


def clauses(codebook: Codebook) -> tuple[Clause, ...]:
    """What the rules of a codebook say: clauses that all have to hold."""
    return parse_where(codebook.rules, codebook)


def truth(table: Coded, clause: Clause) -> Truth:
    """Is a clause true of each record, (n,)?"""
    found: Truth = np.max([_compared(table, one) for one in clause.either], axis=0)
    return found


def obeys(table: Coded, rules: Sequence[Clause]) -> NDArray[np.bool_]:
    """The records of which no rule is false, (n,)."""
    kept = np.ones(table.count, np.bool_)
    for rule in rules:
        kept &= truth(table, rule) >= 0
    return kept


def _compared(table: Coded, condition: Condition) -> Truth:
    if condition.column not in table.columns:
        return np.zeros(table.count, np.int8)
    missing = table.missing(condition.column)
    if condition.value is None:
        return np.where(missing == (condition.op == "is null"), 1, -1).astype(np.int8)
    values, column = table.columns[condition.column], table.codebook.columns[condition.column]
    told: tuple[Any, ...] = condition.value if isinstance(condition.value, tuple) else (condition.value,)
    if column.levels:
        told = tuple(column.levels.index(str(code)) for code in told)
    elif column.type == "date":
        told = tuple(float(day_of(day)) for day in told)
    return np.where(missing, 0, np.where(_holds(values, condition.op, told), 1, -1)).astype(np.int8)


def _holds(values: NDArray[Any], op: str, told: tuple[Any, ...]) -> NDArray[np.bool_]:
    compare: Mapping[str, Callable[[Any, Any], Any]] = {
        "==": np.equal,
        "!=": np.not_equal,
        "<": np.less,
        "<=": np.less_equal,
        ">": np.greater,
        ">=": np.greater_equal,
    }
    found: NDArray[np.bool_] = np.isin(values, told) if op == "in" else compare[op](values, told[0])
    return found


def drawn(generate: Callable[[int], Coded], codebook: Codebook, count: int, least: float = LEAST_SHARE) -> Coded:
    """So many records that obey the codebook's rules. Those that do not are drawn anew, so that the others are spread
    as the model has them, given that the rules hold (rejection sampling).

    generate: independent records of a model, so many. Raises UsageError where fewer than the share `least` of them
    obey, which is found out after at most `count` or 10,000 draws, whichever is more; where `least` is above 1 %, of no
    fewer.
    """
    rules = clauses(codebook)
    if not rules:
        return generate(count)
    kept: list[Coded] = []
    have = tried = 0
    batch = count if least <= LEAST_SHARE else max(count, _TRIED)
    while have < count:
        records = generate(batch)
        fine = records.take(np.flatnonzero(obeys(records, rules)))
        kept, have, tried = [*kept, fine], have + fine.count, tried + batch
        if tried >= _TRIED and have < least * tried:
            raise UsageError(
                f"rules: got {have} of {tried:,} drawn records that obey them; want at least {least:.0%}: the "
                f"model and the rules do not go together ({_advice(codebook)})"
            )
        share = max(have / tried, LEAST_SHARE)
        batch = int(min(max((count - have) / share * 1.05 + 10, 100), max(_BATCH, count)))
    columns = {name: np.concatenate([each.columns[name] for each in kept])[:count] for name in kept[0].names}
    return Coded(codebook, columns)


def _advice(codebook: Codebook) -> str:
    if codebook.folded is not None:
        return f"mst, aim and cart keep slots to {codebook.folded.size}; cart with {codebook.folded.size} first"
    return "does codebook check find records that break them?"
