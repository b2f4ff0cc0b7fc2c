"""Checks of a synthetic file before it is given away: that it is what it says, and no more than the codebook tells.

They are for files of low fidelity: dummy records, records from published tables. Such a file is given away without an
evaluation against the original, because it was made from what is public; these checks look whether it was, by the file,
its codebook and its model file alone. They do not measure what a file tells of persons (`statfed synth evaluate` does),
and passing them is no clearance. The original is never read.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from statfed.core.codebook import Codebook
from statfed.core.errors import UsageError
from statfed.core.linkage import restricted
from statfed.core.result import Row
from statfed.core.synthetic import edits
from statfed.core.synthetic.coded import Coded, described
from statfed.federation.synthetic import METADATA, Synthesizer, own_table

FORMAT = "statfed.synthetic-check/1"


@dataclass(frozen=True)
class Check:
    """One check. kept: None where it could not be made, with the reason in `found`: somebody has to look."""

    name: str
    asks: str
    kept: bool | None
    found: str

    def row(self) -> Row:
        """For tables and files."""
        return {"check": self.name, "asks": self.asks, "kept": self.kept, "found": self.found}


@dataclass(frozen=True)
class Given:
    """What a file is held against. columns: that may be in it, empty for all that records are made of; decimals: most
    of a number, None where nobody said; original: records of the original, None where nobody said."""

    codebook: Codebook
    model: Synthesizer | None = None
    columns: tuple[str, ...] = ()
    decimals: int | None = None
    original: int | None = None


def check(file: Path, given: Given) -> tuple[Check, ...]:
    """All checks of a Parquet or CSV file. Raises UsageError where it cannot be read, and on columns that are none."""
    for name in given.columns:
        given.codebook.column(name)
    there, label, count = _opened(file)
    found = [*_columns(there, given)]
    names = tuple(name for name in described(given.codebook) if name in there)
    table: Coded | None = None
    if names:
        try:
            table = own_table(str(file), restricted(given.codebook, names), "the file")
            values = Check("values", _VALUES, True, f"{count:,} records of {len(names)} columns fit")
        except UsageError as error:
            values = Check("values", _VALUES, False, str(error))
    else:
        values = Check("values", _VALUES, False, "no column of the codebook is in the file")
    found += [values, _rules(table, given.codebook), _decimals(table, given)]
    return (*found, _labelled(label, count), *_origin(given, label), _count(count, given.original))


def passed(checks: Sequence[Check]) -> bool:
    """Does no check fail? What could not be checked is no failure, and no pass: it is shown."""
    return all(one.kept is not False for one in checks)


_VALUES = "every value is one that the codebook allows"


def _opened(file: Path) -> tuple[tuple[str, ...], dict[str, Any] | None, int]:
    """Columns, what the file says of its making (None: nothing), and records."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    try:
        if file.suffix == ".parquet":
            opened = parquet.ParquetFile(file)
            told = (opened.schema_arrow.metadata or {}).get(METADATA)
            label = None if told is None else json.loads(told)
            return (
                tuple(opened.schema_arrow.names),
                label if isinstance(label, dict) else None,
                opened.metadata.num_rows,
            )
        if file.suffix == ".csv":
            read: Any = csv.read_csv(file)
            return tuple(read.column_names), None, int(read.num_rows)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UsageError(
            f"{file}: got a file that cannot be read ({type(error).__name__}); want Parquet or CSV"
        ) from None
    raise UsageError(f"{file}: got another form; want .parquet or .csv")


def _columns(there: Sequence[str], given: Given) -> list[Check]:
    known = given.codebook.columns
    wanted = given.columns or described(given.codebook)
    extra = [name for name in there if name not in wanted and (name not in known or given.columns)]
    told = "none else" if not extra else f"{', '.join(extra)} should not be there"
    identify = [name for name in there if name in known and name not in described(given.codebook)]
    asks = "only columns of the codebook" if not given.columns else "only the columns of --columns"
    return [
        Check("columns", asks, not extra, told),
        Check(
            "identifiers",
            "no identifier, text, unit or sampling unit of the codebook",
            not identify,
            ", ".join(identify) or "none",
        ),
    ]


def _rules(table: Coded | None, codebook: Codebook) -> Check:
    asks = "every record obeys the codebook's rules"
    if not codebook.rules:
        return Check("rules", asks, True, "the codebook has none")
    if table is None:
        return Check("rules", asks, None, "values do not fit, so that rules were not looked at")
    broken = table.count - int(edits.obeys(table, edits.clauses(codebook)).sum())
    return Check("rules", asks, not broken, f"{broken:,} records break one" if broken else f"{table.count:,} do")


def _decimals(table: Coded | None, given: Given) -> Check:
    """A number with more decimals than are collected is no danger by itself, but values with many are told one by one:
    verbatim ones are found by them, and a reader takes them for measured."""
    asks = "numbers have no more decimals than are collected (--decimals)"
    numbers = [name for name in table.names if given.codebook.columns[name].type == "number"] if table else []
    if table is None:
        return Check("decimals", asks, None, "values do not fit, so that decimals were not looked at")
    if not numbers:
        return Check("decimals", asks, True, "no numbers but whole ones")
    if given.decimals is None:
        return Check(
            "decimals", asks, None, f"a codebook has no resolution: say how many {', '.join(numbers)} may have"
        )
    finer = []
    for name in numbers:
        values = table.columns[name][~table.missing(name)]
        if bool(np.any(np.round(values, given.decimals) != values)):
            finer.append(name)
    return Check("decimals", asks, not finer, f"finer: {', '.join(finer)}" if finer else f"at most {given.decimals}")


def _labelled(label: dict[str, Any] | None, count: int) -> Check:
    asks = "the file itself says that it is synthetic"
    if label is None:
        return Check(
            "label", asks, False, f"no {METADATA.decode()} in it: want Parquet as `statfed synth sample` writes"
        )
    if label.get("records") != count:
        return Check("label", asks, False, f"it was labelled with {label.get('records')} records and has {count:,}")
    return Check("label", asks, True, f"{label.get('method')}, {count:,} records")


def _origin(given: Given, label: dict[str, Any] | None) -> list[Check]:
    """What the model file says of where it comes from."""
    asks = {
        "provenance": "the file was drawn from this model",
        "origin": "the model says what it was made from: no data, an epsilon, or exact answers",
        "codebook": "bounds and categories are public facts, not drafted from the data, and the model's are these",
    }
    model = given.model
    if model is None:
        return [Check(name, ask, None, "no model file was given (--model)") for name, ask in asks.items()]
    same = None if label is None else label.get("model") == model.digest
    told = "the label has its digest" if same else "the file has no label" if same is None else "another model made it"
    drafted = model.fitted.origin.get("codebook_drafted")
    differs = [
        name for name, column in model.fitted.codebook.columns.items() if given.codebook.columns.get(name) != column
    ]
    agreed: bool | None
    if differs:
        agreed, why = False, f"the model's differs in {', '.join(differs)}"
    elif drafted:
        agreed, why = False, "it was drafted from the data: bounds and rare categories tell of single records"
    else:
        agreed = None if drafted is None else True
        why = (
            "the model does not say whether it was drafted"
            if drafted is None
            else "the model's, and the fit did not draft it; whether a person did from the data, nobody can see here"
        )
    return [
        Check("provenance", asks["provenance"], same, told),
        Check("origin", asks["origin"], *_kept(model)),
        Check("codebook", asks["codebook"], agreed, why),
    ]


def _kept(model: Synthesizer) -> tuple[bool | None, str]:
    """Is an origin stated, and in words; exact answers are stated and have to be looked at."""
    origin = model.fitted.origin
    kind, epsilon = origin.get("kind"), origin.get("epsilon")
    if isinstance(epsilon, int | float) and not isinstance(epsilon, bool) and 0 < epsilon < float("inf"):
        return True, f"epsilon {epsilon:.4g}, unit {origin.get('unit')}"
    if not isinstance(kind, str) or not kind:
        return False, "nothing is said"
    return (True, kind) if not origin.get("questions") else (None, kind)


def _count(count: int, original: int | None) -> Check:
    asks = "as many records as the original would tell its number (--original-records)"
    if original is None:
        return Check("records", asks, None, "nobody said how many the original has")
    return Check("records", asks, count != original, "as many" if count == original else "another number")


def to_dict(file: Path, checks: Sequence[Check]) -> dict[str, Any]:
    """All checks, ready for JSON."""
    return {
        "format": FORMAT,
        "file": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "passed": passed(checks),
        "checks": [one.row() for one in checks],
    }
