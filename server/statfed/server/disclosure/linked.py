"""Figures over units that several holders have, beside earlier ones: what a withheld cell is part of.

A cell of a linked table that is about too few matches is never opened, nor is anything that it is part of: that the
parties decide among themselves (`statfed.strategies.linkages.helper`), and of one study alone. The size in one study
and the table in another give the cell by subtraction, so what one study withheld is looked at again in the release of
the next:

- a row that has matches of an earlier withheld cell in it is withheld too, and with it the facts of what it is part of;
- a table of which a cell is withheld is not released where an earlier figure has matches of that cell in it.

So no figure that was ever released has a withheld cell in it, however sums are formed of them. Figures with noise are
not looked at: they are as they are whatever a cell holds.

Two linkages are of the same matches as far as is known here where their holders are the same, or all those of one are
among those of the other: whatever they were linked by, with or without errors in the keys, by a helper or without. That
withholds more than it has to; it is decided on what was asked alone and on which cells are withheld, which is public.
A holder is the same where its name is, or where its data lie, or their content: a table that has grown, one that was
copied or a holder that was renamed is no other. So other data under the same names belong in another workspace.

Not covered: what the coordinator itself sees, which has the figures of both studies as they are opened; holders know
their own units alone, and let one run match them with the same others (`statfed.client.guard.links`). Nor releases of
other workspaces, nor that a cell has 1 to minimum - 1 matches, which is what it says to be withheld.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from statfed.core.disclosure import Rules
from statfed.core.errors import Refused
from statfed.core.result import Result, Row
from statfed.server.disclosure.boxes import Box, both, from_json, population, to_json
from statfed.server.disclosure.history import Asked, Beside, coordinates, ends_of
from statfed.server.disclosure.memory import Memory

WITHHELD = (
    "release: matches of a cell that an earlier study of these holders withheld are part of this result, or the other "
    "way round, and their difference would tell it; nothing is released"
)


def linked_beside(result: Result, asked: Asked, rules: Rules, memory: Memory) -> Result:
    """A linkage's result without the rows that earlier releases forbid, remembered before it is handed on.

    Raises Refused where nothing of it is left, or a cell that it withholds is part of an earlier figure.
    """
    past = [entry for entry in memory.entries if _related(entry, asked)]
    before = [from_json(box) for entry in past for box in entry["linked"]["closed"]]
    earlier = [from_json(box) for entry in past for box in entry["linked"]["shown"]]
    beside = Beside(asked, rules, memory)
    tables: dict[str, Sequence[Row]] = {}
    shown: list[Box] = []
    closed: list[Box] = []
    blanked = 0
    for name, rows in result.tables.items():
        boxes = _boxes(result, name, rows, beside)
        kept: list[Row] = []
        for row, box in zip(rows, boxes, strict=True):
            opened = _opened(result, name, row)
            forbidden = opened and any(meet(box, one) for one in before)
            blanked += forbidden
            if not forbidden:
                (shown if opened else closed).append(box)
            kept.append(_blank(result, name, row) if forbidden else row)
        tables[name] = kept
    facts = dict(result.facts)
    whole = _whole(asked)
    told = result.observations is not None and facts.get(result.observations) is not None
    if told and any(meet(whole, one) for one in before):
        facts = {name: value if name in result.public else None for name, value in facts.items()}
        blanked, told = blanked + 1, False
    if told:
        shown.append(whole)
    if (not shown and blanked) or any(meet(one, box) for one in closed for box in earlier):
        raise Refused(WITHHELD)
    memory.append(
        {
            "study": asked.study,
            "method": asked.method,
            "holders": sorted(asked.holders.values()),
            "codebook": asked.codebook.digest(),
            "treatment": None,
            "values": [],
            "figures": [],
            "linked": {
                "shown": _told(shown),
                "closed": _told(closed),
                "known": sorted(sorted(one) for one in _tables(asked)),
            },
        }
    )
    if not blanked:
        return result
    note = "rows with matches of a cell that an earlier study of these holders withheld are withheld too"
    kept_notes = tuple(one for one in result.notes if not any(c.isdigit() for c in one))
    return result.with_(tables=tables, facts=facts, notes=(*kept_notes, note))


def meet(one: Box, other: Box) -> bool:
    """Can a match be in both boxes?"""
    found = both(one, other)
    return all(len(found[name]) > 0 for name in {*one} & {*other})


def _related(entry: Mapping[str, Any], asked: Asked) -> bool:
    """Are the holders of an earlier linkage among those of this one, or the other way round, by anything that tells?"""
    if "linked" not in entry:
        return False
    mine = _tables(asked)
    theirs = [{*names} for names in entry["linked"].get("known") or [[one] for one in entry["holders"]]]
    return _among(theirs, mine) or _among(mine, theirs)


def _tables(asked: Asked) -> list[set[str]]:
    """What each holder's table is known by."""
    return [{table, *asked.known.get(name, ())} for name, table in asked.holders.items()]


def _among(some: Sequence[set[str]], others: Sequence[set[str]]) -> bool:
    return all(any(one & other for other in others) for one in some)


def _boxes(result: Result, name: str, rows: Sequence[Row], beside: Beside) -> list[Box]:
    """Which matches each row is of; of rows that are not broken down, or of which nothing is declared, all of them."""
    basis = result.basis_of(name)
    whole = _whole(beside.asked)
    if basis is None:
        return [whole] * len(rows)
    by = [column for column in basis.by if any(column in row for row in rows)]
    ends, codebook = ends_of(rows, basis), beside.asked.codebook
    found: list[Box] = []
    for row in rows:
        keys = {name: key for name, key in coordinates(row, by, codebook).items() if name in codebook.columns}
        box = beside.box(row, basis, keys, ends) if _simple(beside.asked) else whole
        found.append({column: of for column, of in box.items() if column in whole or column in keys or column in by})
    return found


def _simple(asked: Asked) -> bool:
    """Are the conditions of a form that boxes have?"""
    try:
        population(asked.where, (), asked.codebook)
    except Refused:
        return False
    return True


def _whole(asked: Asked) -> Box:
    """All matches that a study is about: units that its conditions select, as far as boxes can say which."""
    found: Box = asked.held
    for clause in asked.where:
        try:
            found = both(found, population([clause], (), asked.codebook))
        except Refused:  # a larger box withholds more
            continue
    return found


def _opened(result: Result, name: str, row: Row) -> bool:
    """Does a row tell anything that is computed from matches?"""
    places = set(result.places(name))
    return any(value is not None for key, value in row.items() if key not in {*places, result.state_of(name)})


def _blank(result: Result, name: str, row: Row) -> Row:
    places = set(result.places(name))
    return {key: value if key in places else None for key, value in row.items()}


def _told(boxes: Sequence[Box]) -> list[Any]:
    """Each box once, for the memory."""
    found: dict[str, Any] = {}
    for box in boxes:
        told = to_json(box)
        found.setdefault(repr(told), told)
    return list(found.values())
