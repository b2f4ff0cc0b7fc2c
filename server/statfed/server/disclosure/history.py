"""A release beside the earlier ones of its data set: what they showed, and what follows from having shown it.

Three rules need no figures.

- *Rosters.* The difference of two sums over holders is a sum over the holders that differ. Of one it is that holder's
  contribution; of two each of them subtracts its own and has the other's. So a roster that differs from an earlier one
  by 1 to `Rules.rosters` - 1 holders is refused; with the default of 3 the difference is a sum over three, as every
  pooled figure should be. Larger differences are compared record by record, see `joint`.
- *One treatment.* A data set whose tables were suppressed is not rounded, nor the other way round, nor rounded to
  another base: what one treatment leaves open the other closes.
- *The same figure has the same fate.* A row of the same records that was hidden is hidden again, whatever else is asked
  of it; one that was shown counts as known. A question that is asked again is so answered with the same pattern.
  Random rounding gives equal figures equal draws, whatever they were asked by.

A release that was made while the memory was off is not known, and no release protects what it showed.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from statfed.core.codebook import Codebook
from statfed.core.conditions import Clause, columns_of
from statfed.core.disclosure import Rules
from statfed.core.errors import Refused
from statfed.core.result import Basis, Row, Scalar
from statfed.server.disclosure.boxes import (
    HELD,
    HOLDERS,
    Box,
    Restriction,
    at,
    both,
    cut_at,
    from_json,
    population,
    to_json,
)
from statfed.server.disclosure.joint import Figure
from statfed.server.disclosure.memory import Memory
from statfed.server.disclosure.sums import Coordinate, Sum

ROSTER = "release: other holders than in an earlier release, and too few of them differ; nothing is released"
MODEL = (
    "release: a model of columns by which an earlier table of this data set has suppressed cells, which its "
    "coefficients may tell; nothing is released"
)
TREATMENT = (
    "release: an earlier release of this data set was treated otherwise; one method a data set, nothing is released"
)


@dataclass(frozen=True)
class Asked:
    """What a result was asked of, as far as it is compared. Public.

    study: digest of the terms. values: columns of which sums are in it; complete: columns that records have to be
    complete in besides. holders: name to what its table is known by, the same in every study. joint: is it of units
    that all holders have, instead of all records that any has? known: by name, whatever tells that a table is one that
    was there before, however many records it has by now: each of these does by itself. marked: as of a `Model`.
    """

    study: str
    method: str
    where: tuple[Clause, ...]
    values: tuple[str, ...]
    complete: tuple[str, ...]
    holders: Mapping[str, str]
    codebook: Codebook
    joint: bool = False
    known: Mapping[str, frozenset[str]] = field(default_factory=dict)
    marked: tuple[str, ...] = ()

    @property
    def held(self) -> Box:
        """Whose units these are: of all holders together, or that each of them has."""
        tables = self.holders.values()
        return {f"{HOLDERS}:{one}": HELD for one in tables} if self.joint else {HOLDERS: frozenset(tables)}

    @property
    def nonnegative(self) -> bool:
        """Can no value be negative, as far as is public?"""
        columns = [self.codebook.columns.get(name) for name in self.values]
        return all(c is not None and c.bounds is not None and c.bounds[0] >= 0 for c in columns)


@dataclass
class Beside:
    """A release in the making, and what is known besides. `figures` are those of earlier releases, one for each box."""

    asked: Asked
    rules: Rules
    memory: Memory
    figures: dict[str, Figure] = field(default_factory=dict)
    shown: list[dict[str, Any]] = field(default_factory=list)
    tables: bool = False

    def box(self, row: Row, basis: Basis, keys: Mapping[str, Coordinate], ends: tuple[float, float]) -> Box:
        """Which records a row is of. keys: its coordinates along the columns that break the total down; ends: the least
        and the greatest limit of the classes in its table."""
        asked, codebook = self.asked, self.asked.codebook
        named = [str(row[key]) for key in basis.keys if row.get(key) in codebook.columns]
        columns = (*asked.complete, *(named or asked.values))
        found = population(asked.where, [name for name in columns if name in codebook.columns], codebook)
        for name, coordinate in keys.items():
            if basis.span and name == basis.span[0]:
                found = both(found, {basis.span[1]: _span(row, basis, coordinate, ends)})
            else:
                found = both(found, {name: at(coordinate, name, codebook)})
        return both(found, asked.held)

    def apart(self, box: Box, row: Row, basis: Basis) -> Box:
        """The box of a row that is of some records of it only: those that its keys name."""
        keys = [f"{key}={row.get(key)}" for key in basis.keys]
        return both(box, {f" {self.asked.method}": frozenset({", ".join(keys)})})

    def remember(self, box: Box, figure: Mapping[str, Any]) -> None:
        """Keep for the memory what is shown of a box."""
        self.shown.append({"box": to_json(box), **figure})

    def commit(self) -> None:
        """Write to the memory what this release shows, before it is handed on."""
        asked = self.asked
        self.memory.append(
            {
                "study": asked.study,
                "method": asked.method,
                "holders": sorted(asked.holders.values()),
                "codebook": asked.codebook.digest(),
                "treatment": [self.rules.method, self._base] if self.tables else None,
                "values": sorted(asked.values),
                "figures": self.shown,
            }
        )

    @property
    def _base(self) -> int | None:
        return None if self.rules.method == "suppress" else self.rules.base

    def check(self) -> None:
        """Raises Refused where rosters are too close."""
        mine = set(self.asked.holders.values())
        for entry in self.memory.entries:
            theirs = set(entry["holders"])
            if mine & theirs and 0 < len(mine ^ theirs) < (self.rules.rosters or 0):
                raise Refused(ROSTER)

    def check_model(self) -> None:
        """Raises Refused where a model has all columns by which an earlier table hides cells: its coefficients may tell
        them, and are not attacked one by one."""
        mine = {*self.asked.complete, *self.asked.marked, *columns_of(self.asked.where), *self.asked.held}
        if any(figure.hidden and {*figure.box} <= mine for figure in self.figures.values()):
            raise Refused(MODEL)

    def check_treatment(self) -> None:
        """Raises Refused where tables of the data set were treated otherwise."""
        self.tables = True
        mine = set(self.asked.holders.values())
        for entry in self.memory.entries:
            if mine & set(entry["holders"]) and entry["treatment"] not in (None, [self.rules.method, self._base]):
                raise Refused(TREATMENT)

    def of(self, box: Box) -> Figure | None:
        """What was shown or hidden of exactly these records."""
        return self.figures.get(name_of(box))

    def uniform(self, what: str, value: float) -> float:
        """The draw of random rounding of a figure, which follows from the figure alone.

        Were it to follow from the question too, questions that differ in words and not in records (a filter that leaves
        out nobody) would each have a draw of their own, and their average the figure. Equal figures are rounded alike.
        """
        return self.memory.uniform(what, sorted(self.asked.values) if what == "total" else [], round(value, 9))


def beside(asked: Asked, rules: Rules, memory: Memory) -> Beside:
    """What a release has to be compared with. Raises Refused where rosters are too close."""
    found = Beside(asked, rules, memory)
    found.check()
    mine, figures = set(asked.holders.values()), found.figures
    for entry in memory.entries:
        if not mine & set(entry["holders"]):
            continue
        values = set(entry["values"])
        same = values == set(asked.values)
        # a sum of weights says nothing of a weighted sum
        related = (same and bool(values)) or bool((values & set(asked.values)) - {asked.codebook.role("weight")})
        for one in entry["figures"]:
            box = from_json(one["box"])
            name = name_of(box)
            new = Figure(
                box,
                one.get("count"),
                one.get("total") if same else None,
                told=related and not one["hidden"],
                hidden=one["hidden"],
                hidden_total=one["hidden"] and related,
                wide=one.get("wide"),
                wide_total=one.get("wide_total") if same else None,
            )
            figures[name] = merged(figures[name], new) if name in figures else new
    return found


def merged(one: Figure, other: Figure) -> Figure:
    """What two releases say of one box: a figure that either shows is known."""
    count = one.count if one.count is not None else other.count
    total = one.total if one.total is not None else other.total
    wide = [f.wide for f in (one, other) if f.hidden and f.wide is not None]
    wide_total = [f.wide_total for f in (one, other) if f.hidden_total and f.wide_total is not None]
    told = one.told or other.told
    return replace(
        one,
        count=count,
        total=total,
        told=told,
        hidden=(one.hidden or other.hidden) and count is None,
        hidden_total=(one.hidden_total or other.hidden_total) and not told,
        wide=max(wide, default=None),
        wide_total=max(wide_total, default=None),
    )


def of_parts(box: Box) -> bool:
    """Is it a box of some records only, told apart by keys? What it shares with other boxes is not known."""
    return any(name.startswith(" ") and not name.startswith(HOLDERS) for name in box)


def name_of(box: Box) -> str:
    """One text for one box."""
    return json.dumps(to_json(box), sort_keys=True)


def coordinates(row: Row, by: Sequence[str], codebook: Codebook) -> dict[str, Coordinate]:
    """A row's coordinates: null sums over a column, a parent's code over the codes below it."""
    found: dict[str, Coordinate] = {}
    for name in by:
        value: Scalar = row.get(name)
        column = codebook.columns.get(name)
        above = set(column.parents.values()) - set(column.levels) if column is not None else set()
        code = None if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        found[name] = Sum(code) if code is None or code in above else code
    return found


def ends_of(rows: Sequence[Row], basis: Basis) -> tuple[float, float]:
    """The least and the greatest limit of the classes of a table; infinite ones where it has none."""
    limits = [v for row in rows for key in basis.span[2:] if isinstance(v := row.get(key), int | float)]
    return (float(min(limits)), float(max(limits))) if limits else (-math.inf, math.inf)


def _span(row: Row, basis: Basis, coordinate: Coordinate, ends: tuple[float, float]) -> Restriction:
    """The numbers between a row's limits, those of all classes in a margin. The last class is closed on both sides."""
    if isinstance(coordinate, Sum) or not basis.span:
        return cut_at(low=ends[0], high=ends[1], closed=True)
    lower, upper = (row.get(key) for key in basis.span[2:])
    if not isinstance(lower, int | float) or not isinstance(upper, int | float):
        raise Refused("release: a class without limits; nothing is released")
    return cut_at(low=float(lower), high=float(upper), closed=float(upper) == ends[1])
