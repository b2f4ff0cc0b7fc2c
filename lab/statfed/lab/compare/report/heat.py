"""The heat table: scenarios and release levels by protections, coloured by error over tolerance."""

import math
from dataclasses import dataclass

from statfed.federation.report import formats
from statfed.lab.compare.tables import Tables, Tried, place

STEPS = (0.1, 0.5, 1.0, 2.0, 10.0)
"""Bounds of the shades, in multiples of the tolerance."""
SHADES = ("at most 0.1", "to 0.5", "to 1", "to 2", "to 10", "above 10")


@dataclass(frozen=True)
class Cell:
    """One technique on one scenario. css: its shade; figure: error over tolerance, for the eye; detail: on focus."""

    css: str
    word: str
    figure: str
    detail: str
    tried: Tried | None = None


@dataclass(frozen=True)
class Line:
    """A release level of a scenario; first: is it the scenario's first line; of: how many lines it has."""

    scenario: str
    profile: str
    level: str
    cells: tuple[Cell, ...]
    first: bool
    of: int


def ratio(tried: Tried) -> float | None:
    """Mean error in multiples of the tolerance. Where the tolerance is 0, an error is infinitely many of it."""
    error, tolerance = tried.column("error"), tried.tolerance
    if error is None or tolerance is None:
        return None
    if tolerance <= 0:
        return 0.0 if error.mean <= tolerance else math.inf
    return max(error.mean, 0.0) / tolerance


def shade(value: float) -> int:
    """Index of the shade: how many of STEPS lie below.

    >>> shade(0.1), shade(1.0), shade(1.01), shade(math.inf)
    (0, 2, 3, 5)
    """
    return sum(value > step for step in STEPS)


def cell(tried: Tried | None) -> Cell:
    """The cell of a technique; None: it was not tried."""
    if tried is None:
        return Cell("none", "not tried", "", "")
    count = len(tried.trials)
    if tried.word in ("failed", "not applicable"):
        return Cell(tried.word.replace(" ", "-"), tried.word, "", "; ".join(tried.reasons), tried)
    share, error = ratio(tried), tried.column("error")
    told = [f"{sum(bool(row['reached']) for row in tried.done)} of {count} seeds reach it"]
    if error is not None:
        spread = f" ± {error.error:.2g}" if error.error else ""
        told.append(f"error {_number(error.mean)}{spread}, tolerance {formats.number(tried.tolerance)}")
    failed = len(tried.with_status("failed"))
    if failed:
        told.append(f"{failed} of {count} seeds failed: {'; '.join(tried.reasons)}")
    css = "unknown" if share is None else f"h{shade(share)}"
    word = f"{tried.word}, {failed} failed" if failed else tried.word
    return Cell(css, word, "" if share is None else _times(share), "; ".join(told), tried)


def _times(share: float) -> str:
    if math.isinf(share):
        return "nothing released"
    return "< 0.001×" if 0 < share < 0.001 else f"{formats.number(float(f'{share:.2g}'))}×"


def _number(value: float) -> str:
    return "∞" if math.isinf(value) else formats.number(value)


def protections(tables: Tables) -> list[str]:
    """The columns: every protection, with its options, that was tried on anything."""
    return sorted({tried.by for tried in tables.tried}, key=place)


def lines(tables: Tables) -> list[Line]:
    """The rows, scenario by scenario."""
    cells = {(t.scenario, t.profile, t.level, t.by): t for t in tables.tried}
    rows = list(dict.fromkeys((t.scenario, t.profile, t.level) for t in tables.tried))
    of = {key: sum(row[:2] == key for row in rows) for key in {row[:2] for row in rows}}
    seen: set[tuple[str, str]] = set()
    made = []
    for row in rows:
        found = tuple(cell(cells.get((*row, by))) for by in protections(tables))
        made.append(Line(*row, found, row[:2] not in seen, of[row[:2]]))
        seen.add(row[:2])
    return made
