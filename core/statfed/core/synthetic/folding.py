"""Units with members as one record each: households of persons, enterprises of local units, persons with spells.

Folding makes one wide record of all records of a unit: its size, the columns that its members share, and each other
column once for every *slot*. Members stand in slots by an order of their values alone: columns that are named, then all
others in the codebook's order. Members that tie are alike, so nothing of a file's order is left. A slot beyond the
size is missing in all its columns; a required column is missing there alone. An optional one may be missing of a member
too: the size tells which.

*The wide codebook* follows from the members' codebook and public choices, never from records, so that every holder
makes the same. Its rules say which slots are there, and what the members' rules say, slot by slot.

*Formal guarantee.* Let two sets of units be neighbours where one has one unit more, with all its members. The record
of a unit is a function of that unit's records alone (size, order, values), and every unit has one record. So the folded
tables of neighbours differ by one record, and whatever is (epsilon, delta) differentially private for adding or
removing one record of the folded table is so for one unit of the members' table, however many members it has: no bound
on records per unit is needed, and noise does not grow with the slots. Refusals (a shared column that varies, a unit
with too many members) depend on data: they are the holder's own, on its own machine, and nothing is sent.
A unit whose members lie with several holders is *not found*: it is a record at each of them, a smaller unit than it is,
and what is promised is of each of these records.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from statfed.core.codebook import LONGEST_RULE, MOST_RULES, Codebook, Column, make_codebook, slot
from statfed.core.conditions import Clause, Condition, Either, named, parse_where
from statfed.core.errors import UsageError
from statfed.core.names import one_of
from statfed.core.synthetic.coded import Coded, described

Larger = Literal["refuse", "drop-members", "top-code"]
"""A unit with more members than slots: refused; without the members that have none; or so, with a size that says so."""
LARGER: tuple[Larger, ...] = ("refuse", "drop-members", "top-code")
_NULL = ("is null", "is not null")


@dataclass(frozen=True)
class Plan:
    """Public choices of a folding, agreed by all holders. most: slots. order: columns by which members stand in them,
    `age-` for falling values. shared: columns that are the same for all members of a unit. size: the column that will
    have their number."""

    most: int
    order: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    larger: Larger = "refuse"
    size: str = "members"

    @property
    def sorting(self) -> Mapping[str, int]:
        """Columns of the order, 1 for rising values, -1 for falling ones."""
        return {name.removesuffix("-"): -1 if name.endswith("-") else 1 for name in self.order}


@dataclass(frozen=True)
class Wide:
    """A folded table, private. table: one record per unit. units: their ids, (n,). dropped: members that found no slot;
    larger: units that they are of."""

    table: Coded
    units: NDArray[Any]
    dropped: int
    larger: int


def unit_of(codebook: Codebook) -> str:
    """The column that says which unit a record is of. Raises UsageError where there is none."""
    found = codebook.role("unit")
    if found is None:
        raise UsageError('codebook: got no column with role unit; want one, such as the household: role = "unit"')
    return found


def wide_codebook(codebook: Codebook, plan: Plan) -> Codebook:
    """The codebook of folded records: of the members' codebook and the plan alone. Raises UsageError where they do not
    go together."""
    unit, names = unit_of(codebook), described(codebook)
    _check(codebook, plan, names)
    per_member = tuple(name for name in names if name not in plan.shared)
    most = plan.most + (plan.larger == "top-code")
    label = f"members; {most}: more than {plan.most}" if plan.larger == "top-code" else "members"
    columns: dict[str, Column] = {unit: codebook.columns[unit]}
    columns[plan.size] = Column(type="integer", label=label, low=1, high=most, required=True)
    columns |= {name: codebook.columns[name] for name in names if name in plan.shared}
    for k in range(1, plan.most + 1):
        for name in per_member:
            if (made := slot(name, k)) in columns or made in codebook.columns:
                raise UsageError(f"codebook: got a column {made}, which slot {k} of {name} is; want another name")
            required = codebook.columns[name].required and k == 1
            columns[made] = codebook.columns[name].model_copy(update={"required": required})
    rules = _rules(codebook, plan, per_member, {unit, *names})
    told = {name: column.model_dump(mode="json", exclude_defaults=True) for name, column in columns.items()}
    folded = {"size": plan.size, "most": plan.most, "columns": per_member, "more": plan.larger == "top-code"}
    found = make_codebook(
        {"title": codebook.title, "rules": rules, "columns": told, "folded": folded}, "the folded codebook"
    )
    parse_where(found.rules, found)
    return found


def _check(codebook: Codebook, plan: Plan, names: Sequence[str]) -> None:
    if plan.larger not in LARGER:
        raise UsageError(f"--larger: got {plan.larger!r}; want {one_of(LARGER, plan.larger)}")
    if codebook.folded is not None:
        raise UsageError("codebook: got one of folded records; want the members'")
    for option, given in (("--shared", plan.shared), ("--order", tuple(plan.sorting))):
        for name in given:
            if name not in names:
                codebook.column(name, option)
                raise UsageError(f"{option}: got {name}, which identifies or has no order; want another column")
        if len({*given}) < len(given):
            raise UsageError(f"{option}: got a column twice; want each once")
    if both := [name for name in plan.sorting if name in plan.shared]:
        raise UsageError(f"--order: got {both[0]}, which is shared; want columns in which members differ")
    if plan.size in codebook.columns:
        raise UsageError(f"--size: got {plan.size}, a column of the codebook; want a name for the number of members")
    for name in names:
        role = codebook.columns[name].role
        if role is not None and name not in plan.shared:
            raise UsageError(
                f"{name}: got role {role} for a column of members; want it in --shared, or not in the codebook"
            )
    if len(names) == len(plan.shared):
        raise UsageError("--shared: got every column; want some that members differ in")


def _rules(codebook: Codebook, plan: Plan, per_member: Sequence[str], kept: set[str]) -> list[str]:
    """Which slots are there, then what the members' rules say of each slot. A rule on columns that are left out is."""
    required = [name for name in per_member if codebook.columns[name].required]
    found: list[str] = []
    size = named(plan.size)
    for k in range(2, plan.most + 1):
        found += _alike(f"{size} >= {k}", per_member, k, "is null")
        found += _alike(f"{size} < {k}", required, k, "is not null")
    rules = [one for one in parse_where(codebook.rules, codebook) if {*one.columns} <= kept]
    found += _joined([one for one in rules if not {*one.columns} & {*per_member}])
    for k in range(1, plan.most + 1):
        found += _joined([_of_slot(one, k, plan, per_member) for one in rules if {*one.columns} & {*per_member}])
    if len(found) > MOST_RULES:
        raise UsageError(f"--most: got {plan.most}, which makes {len(found)} rules; want at most {MOST_RULES}")
    return found


def _alike(beside: str, names: Sequence[str], k: int, op: str) -> list[str]:
    """`beside`, or all these columns of slot k are so: as few rules as fit."""
    found: list[list[str]] = []
    for text in (f"{named(slot(name, k))} {op}" for name in names):
        if found and sum(len(each) + 5 for each in [beside, *found[-1], text]) <= LONGEST_RULE:
            found[-1].append(text)
        else:
            found.append([text])
    return [f"{beside} or ({' and '.join(one)})" for one in found]


def _of_slot(clause: Clause, k: int, plan: Plan, per_member: Sequence[str]) -> Clause:
    """A rule of members as one of slot k. Comparisons leave it open where the slot is not there; `is null` would not:
    then the size is asked first."""
    made = [
        one.model_copy(update={"column": slot(one.column, k)}) if one.column in per_member else one
        for one in clause.either
    ]
    if k > 1 and any(one.op in _NULL for one in clause.either):
        made = [Condition(column=plan.size, op="<", value=float(k)), *made]
    return made[0] if len(made) == 1 else Either(any=tuple(made))


def _joined(clauses: Sequence[Clause]) -> list[str]:
    """Clauses as texts, as many in each as fit."""
    found: list[str] = []
    for text in map(str, clauses):
        if found and len(found[-1]) + len(text) + 5 <= LONGEST_RULE:
            found[-1] += f" and {text}"
        else:
            found.append(text)
    return found


def fold(table: Coded, units: NDArray[Any], plan: Plan) -> Wide:
    """One record for each unit. table: the members; units: (n,), the unit of each, none missing.

    Raises UsageError, which names no value, where a shared column varies within a unit, and where a unit has more
    members than slots unless the plan says what then.
    """
    wide = wide_codebook(table.codebook, plan)
    ids, place = np.unique(units, return_inverse=True)
    count = np.bincount(place)
    keys = _keys(table, plan)
    order = np.lexsort([*reversed(keys), place])
    first = np.cumsum(count) - count
    rank = np.empty(table.count, np.int64)
    rank[order] = np.arange(table.count) - np.repeat(first, count)
    for name in plan.shared:
        values = table.columns[name]
        same = (values == values[order[first]][place]) | (
            table.missing(name) & table.missing(name)[order[first]][place]
        )
        if not same.all():
            raise UsageError(
                f"--shared: {name}: got {len(np.unique(place[~same]))} units within which it varies; want a column "
                "that is the same for all members, or not to share it"
            )
    larger = int((count > plan.most).sum())
    if larger and plan.larger == "refuse":
        raise UsageError(
            f"--most: got {larger} units with more than {plan.most} members; want more slots, or --larger top-code or "
            "drop-members, which leave members out"
        )
    columns: dict[str, NDArray[Any]] = {
        plan.size: np.minimum(count, plan.most + (plan.larger == "top-code")).astype(np.float64)
    }
    folded = wide.folded
    for name in described(wide):
        if name in plan.shared:
            columns[name] = table.columns[name][order[first]]
    for k in range(1, plan.most + 1):
        here = rank == k - 1
        for name in folded.columns if folded else ():
            empty: Any = np.full(len(ids), -1, np.int64) if table.levelled(name) else np.full(len(ids), np.nan)
            empty[place[here]] = table.columns[name][here]
            columns[slot(name, k)] = empty
    dropped = int(np.maximum(count - plan.most, 0).sum())
    return Wide(Coded(wide, columns), ids, dropped, larger)


def _keys(table: Coded, plan: Plan) -> list[NDArray[np.float64]]:
    """What members are sorted by, the first key first; missing values (NaN) are last, whatever the direction."""
    signs = plan.sorting
    names = [*signs, *(name for name in table.names if name not in signs)]
    return [np.where(table.missing(n), np.nan, signs.get(n, 1) * table.columns[n].astype(np.float64)) for n in names]


def members_codebook(wide: Codebook) -> Codebook:
    """The codebook of members, as far as the folded one tells it: without what was left out, and without rules. Raises
    UsageError on a codebook of records that were not folded."""
    folded = wide.folded
    if folded is None:
        raise UsageError("codebook: got one without [folded]; want that of folded records (synth fold --codebook-out)")
    slots = {slot(name, k) for name in folded.columns for k in range(1, folded.most + 1)}
    kept = {name: one for name, one in wide.columns.items() if name not in slots and name != folded.size}
    mine = {name: wide.columns[slot(name, 1)] for name in folded.columns}
    columns = {name: one.model_dump(mode="json", exclude_defaults=True) for name, one in (kept | mine).items()}
    return make_codebook({"title": wide.title, "columns": columns})


def unfold(table: Coded) -> tuple[Coded, NDArray[np.int64]]:
    """One record for each member of folded records, and the place of its unit, (n,).

    Raises UsageError where a slot is there beyond the size, or a required column is missing within it: such a record
    breaks the codebook's rules.
    """
    members, folded = members_codebook(table.codebook), table.codebook.folded
    if folded is None:
        raise UsageError("codebook: got one without [folded]; want that of folded records")
    gone = table.missing(folded.size)
    size = np.where(gone, 0, np.where(gone, 0.0, table.columns[folded.size])).astype(np.int64)
    if (size < 1).any():
        raise UsageError(f"{folded.size}: got {int((size < 1).sum())} records without a size; want 1 or more in each")
    size = np.minimum(size, folded.most)
    there = np.arange(1, folded.most + 1) <= size[:, None]
    for name in folded.columns:
        lost = np.column_stack([table.missing(slot(name, k)) for k in range(1, folded.most + 1)])
        broken = ~there & ~lost
        if members.columns[name].required:
            broken |= there & lost
        if bad := int(broken.any(axis=1).sum()):
            raise UsageError(
                f"{name}: got {bad} records whose slots do not go with {folded.size}; want records that obey the rules "
                "of the codebook (statfed codebook check)"
            )
    unit, k = np.nonzero(there)
    columns: dict[str, NDArray[Any]] = {}
    for name in described(members):
        if name in folded.columns:
            columns[name] = np.column_stack([table.columns[slot(name, j + 1)] for j in range(folded.most)])[unit, k]
        else:
            columns[name] = table.columns[name][unit]
    return Coded(members, columns), unit.astype(np.int64)
