"""A team's file: read against the codebook, with every mismatch named, and compared with what it must not be."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from statfed.client.data.edits import broken_rules
from statfed.client.data.tables import connect, local_mismatches
from statfed.core.errors import UsageError
from statfed.core.synthetic import edits
from statfed.core.synthetic.coded import Coded
from statfed.federation.synthetic import own_table
from statfed.lab.workshop.folder import Workshop

PASSED_OFF = 0.1
"""Share of records that stand in another file too, beyond what fresh records have: from it on a file is that one."""
_FORMS = (".parquet", ".csv")


@dataclass(frozen=True)
class Broken:
    """A rule of the codebook, and how many records break it; places: of the first, from 1."""

    rule: str
    records: int
    places: tuple[int, ...]


@dataclass(frozen=True)
class Overlap:
    """Records that stand verbatim in another file. usual: the share that fresh records of the population have."""

    what: str
    records: int
    share: float
    usual: float

    @property
    def passed_off(self) -> bool:
        """Is the file, or much of it, the other one?"""
        return self.share - self.usual > PASSED_OFF

    def __str__(self) -> str:
        found = f"{self.records:,} records ({self.share:.1%}) stand verbatim in {self.what}"
        return f"{found}; {self.usual:.1%} would by chance"


@dataclass(frozen=True)
class Submission:
    """A file that can be judged. obeying: share of records that break no rule."""

    path: Path
    digest: str
    table: Coded
    broken: tuple[Broken, ...]
    obeying: float
    overlaps: tuple[Overlap, ...]


def read_submission(path: Path, workshop: Workshop) -> Submission:
    """Raises UsageError that names the column and what is wrong: unknown or missing columns, codes, types, bounds,
    missing values where none may be, no records, too few or too many."""
    if path.suffix not in _FORMS or not path.is_file():
        raise UsageError(f"{path}: got no such file; want one ending in {' or '.join(_FORMS)}")
    manifest, codebook = workshop.manifest, workshop.codebook
    with connect(str(path.resolve()), Path.cwd()) as source:
        expr: Any = source.expr
        there = tuple(str(name) for name in expr.columns)
        if unknown := [name for name in there if name not in codebook.columns]:
            raise UsageError(
                f"{path.name}: got unknown columns {', '.join(unknown)}; want those of codebook.toml alone"
            )
        if absent := [name for name in codebook.columns if name not in there]:
            raise UsageError(f"{path.name}: got no column {', '.join(absent)}; want every column of codebook.toml")
        count = int(expr.count().execute())
        if not manifest.least <= count <= manifest.most:
            raise UsageError(
                f"{path.name}: got {count:,} records; want {manifest.least:,} to {manifest.most:,} for this kit"
            )
        if found := local_mismatches(source, codebook):
            raise UsageError(f"{path.name} does not fit codebook.toml:\n  " + "\n  ".join(map(_shown, found)))
        rules = broken_rules(source, codebook)
    table = own_table(path, codebook, path.name)
    broken = tuple(
        Broken(one.message.removesuffix("; want none").removeprefix("got records that "), one.count or 0, one.rows)
        for one in rules
    )
    obeying = float(edits.obeys(table, edits.clauses(codebook)).mean())
    overlaps = tuple(
        _overlap(table, other, control, what)
        for what, other, control in (
            ("the original", workshop.original, workshop.fresh),
            ("the judge's part", workshop.fresh, workshop.original),
        )
    )
    return Submission(path, hashlib.sha256(path.read_bytes()).hexdigest(), table, broken, obeying, overlaps)


def _shown(found: Any) -> str:
    places = f"; first at record {', '.join(map(str, found.rows))}" if found.rows else ""
    examples = f" (for example {', '.join(found.examples)})" if found.examples else ""
    return f"{found.message}{examples}{places}"


def _overlap(table: Coded, other: Coded, control: Coded, what: str) -> Overlap:
    """Verbatim records by their hashes: how many of the file's are in the other, and how many of the control's are."""
    known = set(_hashes(other))
    hits = sum(one in known for one in _hashes(table))
    usual = sum(one in known for one in _hashes(control)) / control.count
    return Overlap(what, hits, hits / table.count, usual)


def _hashes(table: Coded) -> list[bytes]:
    """Of every record, over all columns in order; missing values are equal to each other."""
    columns = [np.nan_to_num(table.columns[name].astype(np.float64), nan=-np.pi) for name in table.names]
    return [hashlib.sha256(row.tobytes()).digest() for row in np.ascontiguousarray(np.column_stack(columns))]
