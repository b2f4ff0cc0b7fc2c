"""Reference scenario `set-intersection`: what two registers say of the enterprises that both have.

The pilot of Istat and the Bank of Italy: a statistical office has enterprises with their region, a central bank has
borrowers with their sector and loans, and both want tables of those that are in both registers, without showing each
other who the rest are, nor who matched. Estimated are how many enterprises are in both, what they owe in all, how many
there are by region (the office's) and sector (the bank's), and what they owe by region: 32 figures.

Each linkage gives what it can. With a helper all of it comes out; two parties alone get the size and the total, and
there the size and total alone can carry noise. Tables are the purpose: who gets two figures in 32 has not reached it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import duckdb

from statfed.core import VERSION
from statfed.core.codebook import Codebook, make_codebook
from statfed.core.disclosure import Rules
from statfed.core.scenario import (
    EXACT,
    Ask,
    Figure,
    Figures,
    Level,
    Matching,
    Profile,
    Reference,
    Success,
    World,
    private,
    read_about,
)
from statfed.scenarios._data import borrowers
from statfed.scenarios._data.numbers import RULE, issued
from statfed.scenarios._measures import share_missed

SIZES: Mapping[Profile, borrowers.Sizes] = {
    "quick": borrowers.Sizes(office=1_000, bank=3_500, both=820, issued=200_000),
    "full": borrowers.Sizes(office=10_000, bank=35_000, both=8_200, issued=2_000_000),
}

ABOUT = read_about(__file__)

LEVELS: Sequence[Level] = (
    EXACT,
    Level("suppress", "cells of fewer than 10 matched enterprises, and further ones", disclosure=Rules()),
    private(10.0),
    private(1.0),
)
WITHIN = 0.01
"""What an error of a figure may be, relative to it."""
SUCCESS = Success("share of figures that are not released, or wrong by more than 1 %", share_missed(WITHIN), 0.25)
"""A quarter: tables of five by five with a minimum frequency lose their smallest cells, and margins with them."""


def guesses(public: Mapping[str, Any]) -> Iterable[str]:
    """All numbers that were issued, which anybody can list."""
    return issued(public["issued"])


MATCHED = Matching(key="id", guesses=guesses)


def codebook() -> Codebook:
    """What the office and the bank agree on: each has its own columns beside the number of the enterprise."""
    needed = {"required": True}
    columns: dict[str, dict[str, Any]] = {
        "id": {"type": "id", "key": RULE, "label": "number of the enterprise"} | needed,
        "region": {"type": "category", "categories": list(borrowers.REGIONS)} | needed,
        "employees": {"type": "integer", "low": 0, "high": 249} | needed,
        "sector": {"type": "category", "categories": list(borrowers.SECTORS)} | needed,
        "loans": {"type": "integer", "low": 0, "high": borrowers.MOST_LOAN, "unit": "thousand EUR"} | needed,
    }
    return make_codebook({"title": "Enterprises and borrowers", "columns": columns}, "set-intersection")


def world(profile: Profile, seed: int) -> World:
    """Both registers. quick: of the pilot's sizes, 1,000 and 3,500 records; full: ten times as many."""
    sizes = SIZES[profile]
    office, bank = borrowers.registers(sizes, seed)
    holders = {"office": office, "bank": bank}
    return World(
        holders=holders,
        codebook=codebook(),
        origin=f"synthetic: registers of statfed {VERSION}, seed {seed}, {sizes.office:,} and {sizes.bank:,} records",
        public={"holders": tuple(holders), "issued": sizes.issued},
    )


def compute(ask: Ask, public: Mapping[str, Any]) -> Figures:  # noqa: ARG001
    """Two questions: of a linkage that has tables the table and totals by region, which add up to size and total; of
    others size and total. Where a cell is withheld nothing else is asked: with it, it could be told."""
    found: dict[str, float | None] = dict.fromkeys(_names())
    if not ask.gives("table"):
        (row,) = ask("count", share=0.5).tables["matched"]
        found["size"] = _number(row["count"])
        if ask.gives("total"):
            loans = ask("total", share=0.5, columns=["loans"])
            found["loans"] = _number(loans.tables[loans.main][0]["total"])
        return {name: Figure(value) for name, value in found.items()}
    counts = ask("table", share=0.5, rows=["region"], columns=["sector"]).tables["cells"]
    found |= {f"enterprises/{row['region']}/{row['sector']}": _number(row["count"]) for row in counts}
    found["size"] = _sum(row["count"] for row in counts)
    if found["size"] is not None:
        owed = ask("total", share=0.5, columns=["loans"], by=["region"])
        totals = owed.tables[owed.main]
        found |= {f"loans/{row['region']}": _number(row["total"]) for row in totals}
        found["loans"] = _sum(row["total"] for row in totals)
    return {name: Figure(value) for name, value in found.items()}


def _sum(values: Iterable[object]) -> float | None:
    """None where one is not told."""
    told = [_number(value) for value in values]
    return None if None in told else float(sum(value for value in told if value is not None))


def pooled(world: World) -> Reference:
    """The same figures by SQL over the plain join."""
    office, bank = world.holders["office"], world.holders["bank"]
    with duckdb.connect() as database:
        database.register("office", office)
        database.register("bank", bank)
        database.execute("CREATE TABLE joined AS SELECT region, sector, loans FROM office JOIN bank USING (id)")
        size, loans = database.execute("SELECT count(*), sum(loans) FROM joined").fetchone() or (0, 0)
        cells = database.execute("SELECT region, sector, count(*) FROM joined GROUP BY ALL").fetchall()
        owed = database.execute("SELECT region, sum(loans) FROM joined GROUP BY ALL").fetchall()
    found = dict.fromkeys(_names(), 0.0) | {"size": float(size), "loans": float(loans)}
    found |= {f"enterprises/{region}/{sector}": float(count) for region, sector, count in cells}
    return found | {f"loans/{region}": float(total) for region, total in owed}


def _names() -> list[str]:
    cells = [f"enterprises/{region}/{sector}" for region in borrowers.REGIONS for sector in borrowers.SECTORS]
    return ["size", "loans", *cells, *(f"loans/{region}" for region in borrowers.REGIONS)]


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
