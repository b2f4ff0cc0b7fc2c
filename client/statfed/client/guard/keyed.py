"""Which of a holder's own units a linkage is about: those that its conditions select and that have a key.

A unit without a key matches nothing, and what has none is decided by the rules of the key that whoever asks has
written: of `id` and `id:digits` the difference is a person whose identifier has a letter. So conditions and key are one
selection here. Two linkages with one of the others in common may differ by no unit, or by the minimum frequency at
least, in each cell of the columns that both have, either way round: that is looked at on the data as they are, whatever
the keys are, also where a condition alone makes a difference of many records of which few have a key.

Of keys whose parts are compared one by one two selections are looked at: units with some part, and with all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from statfed.core.linkkeys import KeyPart, Missing, read_key
from statfed.core.table import Expr, Table


@dataclass(frozen=True)
class Selection:
    """What a linkage selects of a holder's units. Public but `totals`.

    where, complete, by, readings: as of `statfed.client.guard.differencing.Population`; parts: of the key, with the
    rules that hold; parted: is each compared by itself? others: whose units they are matched with; fingerprint: of the
    data; totals: units with some part, and with all, the holder's own secret.
    """

    where: tuple[str, ...]
    complete: tuple[str, ...]
    by: tuple[str, ...]
    readings: tuple[tuple[str, str], ...]
    parts: tuple[str, ...]
    parted: bool
    others: frozenset[str]
    fingerprint: str
    totals: tuple[int, int] = field(default=(0, 0), repr=False, compare=False)

    @property
    def asked(self) -> tuple[Any, ...]:
        """What was asked, of whatever data and with whomever."""
        return self.where, self.complete, self.readings, self.parts, self.parted


@dataclass
class Apart:
    """Units in which two selections differ, by kind (some part, all) and side, in cells: key to number."""

    counts: dict[tuple[Any, ...], int] = field(default_factory=dict)

    def add(self, kind: int, side: int, cells: Sequence[Sequence[Any]], where: NDArray[np.bool_]) -> None:
        """Count the units of a batch `where` they differ, in their cells."""
        for place in np.flatnonzero(where).tolist():
            cell = (kind, side, *(column[place] for column in cells))
            self.counts[cell] = self.counts.get(cell, 0) + 1

    def few(self, minimum: int) -> bool:
        """Are there some, and fewer than the minimum, in a cell or in all?"""
        whole: dict[tuple[int, int], int] = {}
        for (kind, side, *_), count in self.counts.items():
            whole[kind, side] = whole.get((kind, side), 0) + count
        return any(0 < count < minimum for count in (*self.counts.values(), *whole.values()))


def compared(
    table: Table, members: Sequence[Expr], selections: Sequence[Selection]
) -> tuple[tuple[int, int], list[Apart]]:
    """The totals of the last selection, and what sets each of the others apart from it.

    table: all records, with every column that any selection reads; members: by selection, does a record meet its
    conditions and completeness? One scan; what is in memory is a batch.
    """
    new = selections[-1]
    keys = [read_key(",".join(one.parts), table.codebook) for one in selections]
    columns = list(dict.fromkeys(name for parts in keys for part in parts for name in part.columns))
    flags = {f" m{i}": member for i, member in enumerate(members)}
    scanned = Table(table.expr.mutate(**flags), table.codebook, table.embedded)
    known = {name: table.codebook.columns[name].type for name in columns}
    missing = Missing(known)
    totals, found = np.zeros(2, np.int64), [Apart() for _ in selections[:-1]]
    for batch in scanned.streamed([*columns, *new.by, *flags]):
        sets = [_sets(batch, missing, parts, batch.column(flag)) for parts, flag in zip(keys, flags, strict=True)]
        mine = sets[-1]
        totals += [int(mine[0].sum()), int(mine[1].sum())]
        for old, theirs, apart in zip(selections[:-1], sets[:-1], found, strict=True):
            cells = [batch.column(name).to_pylist() for name in new.by if name in old.by]
            for kind in (0, 1):
                apart.add(kind, 0, cells, mine[kind] & ~theirs[kind])
                apart.add(kind, 1, cells, theirs[kind] & ~mine[kind])
    return (int(totals[0]), int(totals[1])), found


def _sets(batch: Any, missing: Missing, parts: Sequence[KeyPart], member: pa.Array) -> list[NDArray[np.bool_]]:
    """Units of a batch that a linkage is about: with some part of the key, with all of them."""
    there = [~missing.of(batch, part) for part in parts]
    chosen = np.asarray(member.to_pylist(), dtype=object) == True  # noqa: E712  (null is none)
    return [chosen & np.logical_or.reduce(there), chosen & np.logical_and.reduce(there)]
