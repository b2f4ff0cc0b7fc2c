"""Figures that are corrected for linkage errors, as those of a scenario; and what is true of them."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from statfed.core.result import Result, Row
from statfed.core.scenario import Figure

if TYPE_CHECKING:
    import pandas as pd

ALL = "all"


def figure(row: Row | None) -> Figure:
    """An estimate with its interval; nothing where it was withheld."""
    numbers = [row.get(name) if row else None for name in ("estimate", "lower", "upper")]
    value, low, high = (float(one) if isinstance(one, int | float) else None for one in numbers)
    return Figure(value, low, high)


def figures_by_cell(result: Result, by: str, cells: Iterable[str]) -> dict[str, Figure]:
    """Numbers of matches and totals of the value over them, in all and by cell."""
    found: dict[str, Figure] = {}
    for table, name in (("corrected", "matches"), ("totals", "value")):
        rows = {row[by]: row for row in result.tables[table]}
        found |= {f"{name}/{cell or ALL}": figure(rows.get(cell)) for cell in (None, *cells)}
    return found


def truth_by_cell(common: "pd.DataFrame", cells: Iterable[str]) -> dict[str, float]:
    """The same of units that are known to be on both lists: `cell` and `value` of each."""
    import duckdb

    with duckdb.connect() as database:
        database.register("common", common)
        rows = database.execute("SELECT cell, count(*), sum(value) FROM common GROUP BY CUBE (cell)").fetchall()
    by = {cell: (float(count), float(value)) for cell, count, value in rows}
    names = (None, *cells)
    counts = {f"matches/{cell or ALL}": by.get(cell, (0.0, 0.0))[0] for cell in names}
    return counts | {f"value/{cell or ALL}": by.get(cell, (0.0, 0.0))[1] for cell in names}
