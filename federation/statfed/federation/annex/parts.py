"""Parts of an annex: paragraphs, tables, questions and drawings, under headings."""

from dataclasses import dataclass

from markupsafe import Markup

from statfed.core.card import Question, Topic

BLANK = None
"""A cell that the parties fill in."""
Cell = str | None


@dataclass(frozen=True)
class Table:
    """A table with a heading row. Cells that are BLANK are to be filled in."""

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Asked:
    """A card's questions on one topic. known: what the run says on it; answers and evidence are left blank."""

    topic: Topic
    known: tuple[str, ...]
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class Drawing:
    """A drawing in SVG; what it shows stands in a table beside it, for formats without drawings."""

    caption: str
    svg: Markup


Block = str | Table | Asked | Drawing


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: tuple[Block, ...]


def pairs(caption: str, *rows: tuple[str, Cell]) -> Table:
    """A table of two columns."""
    return Table(caption, ("What", "Content"), rows)
