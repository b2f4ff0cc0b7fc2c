"""Members folded into one record per unit, and back, as a user's program does it: on this machine, nothing is sent.

made = folded("members.parquet", load_codebook(path), Plan(most=6, order=("relation", "age-"), shared=("region",)))
made.frame, made.codebook, unfolded(synthetic, made.codebook)
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from statfed.core.codebook import Codebook
from statfed.core.errors import UsageError
from statfed.core.synthetic.coded import coded, described
from statfed.core.synthetic.folding import Plan, fold, unfold, unit_of, wide_codebook
from statfed.federation.own import own_records
from statfed.federation.synthetic import frame_of, own_table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Folded:
    """Folded records, private but for the codebook. members: that were read; dropped: of them, that found no slot;
    larger: units that they are of; left_out: columns that identify, or have neither levels nor an order."""

    frame: "pd.DataFrame"
    codebook: Codebook
    members: int
    dropped: int
    larger: int
    left_out: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Folded(<{len(self.codebook.columns)} columns, private>)"


def folded(data: Any, codebook: Codebook, plan: Plan) -> Folded:
    """One record per unit. data: a path, a data frame or an Arrow table of members.

    Raises UsageError as `statfed.core.synthetic.folding.fold` does, and where members have no unit.
    """
    unit, names, book = unit_of(codebook), described(codebook), wide_codebook(codebook, plan)
    table = own_records(data, codebook, [unit, *names], "the codebook")
    ids = table.column(unit)
    if ids.null_count:
        raise UsageError(f"{unit}: got {ids.null_count} records without a value; want the unit of every member")
    made = fold(coded(table, codebook), ids.to_numpy(), plan)
    frame = frame_of(made.table)
    frame.insert(0, unit, made.units)
    left_out = tuple(name for name in codebook.columns if name not in names and name != unit)
    return Folded(frame, book, table.num_rows, made.dropped, made.larger, left_out)


def unfolded(data: Any, codebook: Codebook) -> "pd.DataFrame":
    """One record per member of folded records, with ids of units that are made up: 1, 2, ... in the records' order.

    Where a size stands for all larger ones, such a unit has as many members as there are slots. Raises UsageError on a
    codebook of records that were not folded, and on records whose slots do not go with their size.
    """
    members, place = unfold(own_table(data, codebook))
    frame = frame_of(members)
    frame.insert(0, unit_of(codebook), _ids(codebook, place))
    return frame


def _ids(codebook: Codebook, place: Any) -> Any:
    column = codebook.columns[unit_of(codebook)]
    numbers = place + 1
    return numbers if column.type in ("integer", "number") else np.char.add("u", numbers.astype(str)).astype(object)
