"""Tables of results for a screen of any width: no column is dropped.

A table that is too wide is shown in parts, each with the columns that say which row it is; where even these and one
figure do not fit, row by row. Numbers are never broken; texts may be.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Table

NARROW = 8
"""Fewest characters that a text is broken into."""


@dataclass(frozen=True)
class Column:
    """A column as texts. key: does it say which row it is; number: is it one of numbers."""

    head: str
    cells: tuple[str, ...]
    key: bool = False
    number: bool = False

    @property
    def longest(self) -> int:
        """Characters of its longest cell, or of the longest word of its head."""
        return max(map(len, (*self.head.split(), *self.cells, "")))


def rendered(title: str, columns: Sequence[Column], console: Console) -> Iterator[RenderableType]:
    """What to print, in order."""
    width = console.width
    keys, figures = [c for c in columns if c.key], [c for c in columns if not c.key]
    for broken in (False, True):
        whole = _table(title, columns, {}, broken=broken)
        if _fits(whole, width, console):
            yield whole
            return
    for limit in (24, 16, 12, NARROW):
        widths = {c.head: limit for c in columns if not c.number and c.longest > limit}
        narrower = _table(title, columns, widths)
        if widths and _fits(narrower, width, console):
            yield narrower
            return
    for limit in (24, 16, 12, NARROW):
        widths = {c.head: limit for c in columns if not c.number and c.longest > limit}
        if all(_fits(_table(title, [*keys, one], widths), width, console) for one in figures or keys[:1]):
            yield from _parts(title, keys, figures, widths, console)
            return
    yield from _row_by_row(title, columns)


def _parts(
    title: str, keys: Sequence[Column], figures: Sequence[Column], widths: dict[str, int], console: Console
) -> Iterator[Table]:
    part: list[Column] = []
    for one in figures:
        if part and not _fits(_table(title, [*keys, *part, one], widths), console.width, console):
            yield _table(title, [*keys, *part], widths)
            title, part = f"{title.removesuffix(' (more columns)')} (more columns)", []
        part.append(one)
    yield _table(title, [*keys, *part], widths)


def _row_by_row(title: str, columns: Sequence[Column]) -> Iterator[str]:
    yield title
    for row in zip(*(c.cells for c in columns), strict=True):
        yield "\n".join(f"{c.head}: {cell}" for c, cell in zip(columns, row, strict=True) if c.key or cell)
        yield ""


def _table(title: str, columns: Sequence[Column], widths: dict[str, int], *, broken: bool = True) -> Table:
    """widths: of texts that may be broken; broken: may heads be?"""
    made = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=box.SIMPLE_HEAD)
    made.pad_edge = False
    for one in columns:
        most = widths.get(one.head)
        made.add_column(
            "\n".join(one.head.split()) if most is None and broken else one.head,
            justify="right" if one.number else "left",
            overflow="fold",
            no_wrap=most is None,
            width=most,
        )
    for row in zip(*(c.cells for c in columns), strict=True):
        made.add_row(*row)
    return made


def _fits(table: Table, width: int, console: Console) -> bool:
    title, table.title = table.title, None
    found = Measurement.get(console, console.options.update(max_width=100_000), table).maximum
    table.title = title
    return found <= width
