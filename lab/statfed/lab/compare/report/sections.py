"""Parts of a report that are made elsewhere, such as recommendations: plain text and tables."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Section:
    """A heading, paragraphs, and a table if there are columns. All of it is plain text; reports escape it."""

    title: str
    text: Sequence[str] = ()
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
