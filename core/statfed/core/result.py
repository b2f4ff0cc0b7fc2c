"""What an analysis returns: named tables of rows, a few facts, notes. One class for all, so that every output (screen,
JSON, CSV, Parquet, HTML, pandas) is written once.

Conventions of rows. An estimate has `estimate` and `std_error`; a coefficient also `name`; a cell has its category
values under the names of `by`, null where a margin sums over the column, and `count` or `total`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from statfed.core.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

Scalar = str | float | int | bool | None
Row = Mapping[str, Scalar]


@dataclass(frozen=True)
class Additive:
    """A table of cells whose numbers add up over `Basis.by`; a release suppresses, rounds or perturbs it.

    margins: name of the table that holds its margins, null where they sum over a column of `by`, on the same basis.
    total: column of sums of a value; empty in a table of counts. For the rules alone are columns with bounds of the
    largest contribution to a total and of the two largest together (`bounds`), with what a protection decided on the
    dominance rules (`decided`), and with sums of record keys, from 0 to 1 (`record_key`); each may be empty.
    """

    margins: str = ""
    total: str = ""
    bounds: tuple[str, str] | tuple[()] = ()
    decided: str = ""
    record_key: str = ""

    @property
    def hidden(self) -> tuple[str, ...]:
        return tuple(name for name in (*self.bounds, self.decided, self.record_key) if name)


@dataclass(frozen=True)
class Coefficients:
    """A table with a row for every parameter of a model. estimate: column that is null where a parameter was not
    estimated. residual_df: fact with the residual degrees of freedom; empty for records less parameters."""

    estimate: str = "estimate"
    residual_df: str = ""


@dataclass(frozen=True)
class Basis:
    """What the rows of one table rest on: all that the rules of a release know of its columns.

    Which row it is, from the question alone, say `by` (columns that break one total down; named as in the codebook,
    whose hierarchies they follow) and `keys` (all others). How many records are behind it say `counts`, of which the
    smallest is looked at; with `observations` all records are, of which there are `Result.observations`.

    own: figures of the records behind this row. derived: figures of more than those, withheld as soon as a row is.
    numbers: numbers of other records, such as those with a missing value; withheld alone, where they are too small.
    flows: of `counts`, those by which records leave from one row to the next, so that the rows beside a withheld one
    tell of it. hidden: for the rules alone, in no release; may be among `counts`. kind: what else the table is. span:
    of a table by classes of a number, the column of `by` that names the class, the codebook's column, and the columns
    with its lower and upper limit; classes are closed on the left, the last one on both sides.

    A table without a basis, or with a column that its basis does not name, is not released while a rule is on.
    """

    by: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    counts: tuple[str, ...] = ()
    observations: bool = False
    own: tuple[str, ...] = ()
    derived: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    flows: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    span: tuple[str, str, str, str] | tuple[()] = ()
    kind: Additive | Coefficients | None = None

    @property
    def places(self) -> tuple[str, ...]:
        """Columns that follow from the question alone."""
        return (*self.by, *self.keys)

    @property
    def state(self) -> str:
        """The column that says what the rules of a release did to a row."""
        return "status" if "status" not in self.places else "release_status"

    @property
    def total(self) -> tuple[str, ...]:
        """The column of sums of a value, if it has one."""
        return (self.kind.total,) if isinstance(self.kind, Additive) and self.kind.total else ()

    @property
    def secret(self) -> tuple[str, ...]:
        """Columns that no release holds."""
        return (*self.hidden, *(self.kind.hidden if isinstance(self.kind, Additive) else ()))

    @property
    def figures(self) -> frozenset[str]:
        """Columns that depend on records, other than the secret ones."""
        return frozenset((*self.counts, *self.own, *self.derived, *self.numbers, *self.total))

    @property
    def columns(self) -> frozenset[str]:
        """All columns that it names."""
        return frozenset((*self.places, *self.figures, *self.secret))


FIGURES = frozenset({
    "column", "count", "cumulative", "cumulative_hazard", "cv", "density", "estimate", "events", "expected",
    "left_out", "lower", "mean", "measure", "median", "missing", "name", "p_value", "quality",
    "records", "statistic", "std_dev", "std_error", "survival", "total", "upper", "variance",
})  # fmt: skip
"""What rows of groups have beside the columns that say which group: no such column can have one of these names, for it
would be overwritten. `Result` refuses any other that a table turns out to have twice."""


def check_places(by: Iterable[str]) -> None:
    """Raises UsageError where a column by which rows are grouped has the name of a figure in them, which would take its
    place."""
    if taken := sorted(FIGURES.intersection(by)):
        raise UsageError(
            f"got groups by {', '.join(taken)}, which is what results call a figure or state of their own; want "
            "another name for the column, in the data and the codebook of every holder, or to do without it"
        )


@dataclass(frozen=True)
class Result:
    """The released result of one study.

    tables: name to rows, the main table first. by: category columns of `cells` and `margins`. facts: scalars
    (`observations`, `deviance` ...). df: degrees of freedom of t-intervals, None for normal ones. noise: standard
    deviation of privacy noise is included in `std_error` when `privacy` is not None. disclosure: which rules ran and
    what they treated, filled by the release. arrays: what is no table, such as the parameters of a trained model; in
    files of their own.

    keys: by table the columns that say which row it is, where there is no basis that does: of a result read back.

    What the rules of a release go by, and no part of JSON: basis, of every table by name; observations, the fact with
    the number of all records; numbers, facts that are numbers of other records; public, facts that are no figures of
    records, such as settings.
    """

    analysis: str
    title: str
    tables: Mapping[str, Sequence[Row]]
    facts: Mapping[str, Scalar] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    by: tuple[str, ...] = ()
    df: float | None = None
    privacy: Mapping[str, Scalar] | None = None
    disclosure: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, Any] = field(default_factory=dict, repr=False)
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    basis: Mapping[str, Basis] = field(default_factory=dict, repr=False)
    observations: str | None = None
    numbers: tuple[str, ...] = ()
    public: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for table, basis in self.basis.items():
            named = Counter((*basis.places, *basis.figures, *basis.secret, basis.state))
            if taken := sorted(name for name in {*basis.by} if named[name] > 1):
                raise UsageError(f"{table}: got groups by {', '.join(taken)}, which results call a figure of their own")

    @property
    def main(self) -> str:
        """Name of the main table."""
        return next(iter(self.tables))

    def basis_of(self, table: str) -> Basis | None:
        """What a table rests on: its own basis, or that of the cells that it has the margins of."""
        cells = (b for b in self.basis.values() if isinstance(b.kind, Additive) and b.kind.margins == table)
        return self.basis.get(table) or next(cells, None)

    def state_of(self, table: str) -> str:
        """The column of a table that says what the rules of a release did to a row."""
        basis = self.basis_of(table)
        return basis.state if basis else "release_status" if "status" in self.keys.get(table, self.by) else "status"

    def places(self, table: str) -> tuple[str, ...]:
        """The columns of a table that say which row it is, in the table's order: never left out of what is shown."""
        basis = self.basis_of(table)
        known = basis.places if basis else self.keys.get(table, (*self.by, "name"))
        return tuple(key for key in dict.fromkeys(key for row in self.tables[table] for key in row) if key in known)

    @property
    def undeclared(self) -> tuple[str, ...]:
        """What says nothing of the records that it rests on: tables, columns of tables, facts."""
        found: list[str] = []
        for name, rows in self.tables.items():
            basis = self.basis_of(name)
            if not rows:
                continue
            if basis is None:
                found.append(f"table {name}")
                continue
            found += [
                f"column {key} of table {name}"
                for key in dict.fromkeys(k for row in rows for k in row)
                if key not in basis.columns
            ]
            everywhere = basis.observations and self.observations in self.facts
            if not basis.counts and not everywhere and basis.columns - {*basis.places}:
                found.append(f"number of records of table {name}")
        if self.observations not in self.facts:
            found += [f"fact {name}" for name in self.facts if name not in self.public]
        return tuple(found)

    def to_pandas(self, table: str | None = None) -> "pd.DataFrame":
        """One of the tables, by default the main one. Figures that do not exist are NaN, in columns without any too."""
        import pandas as pd

        rows: list[Any] = [dict(row) for row in self.tables[table or self.main]]
        frame = pd.DataFrame(rows)
        return frame.astype({name: float for name in frame if rows and frame[name].isna().all()})

    def conf_int(self, level: float = 0.95, table: str | None = None) -> "pd.DataFrame":
        """Confidence limits `lower` and `upper` of every row that has an estimate and a standard error.

        estimate +- quantile * std_error, with Student's t on `df` where given and a row's own `df` before that.
        Privacy noise is in the standard error. Rows that carry their own limits keep them only at their own level.
        """
        from scipy import stats

        if not 0 < level < 1:
            raise ValueError(f"level: got {level}; want a number between 0 and 1")
        frame = self.to_pandas(table)
        value = next((c for c in ("estimate", "mean", "accuracy", "rmse", "total", "count") if c in frame), None)
        if value is None or "std_error" not in frame:
            raise ValueError(f"{self.analysis}: no estimates with standard errors in {table or self.main}")
        degrees = frame.get("df", self.df)
        upper_tail = (1 + level) / 2
        quantile = stats.norm.ppf(upper_tail) if degrees is None else stats.t.ppf(upper_tail, degrees)
        keys = list(self.places(table or self.main))
        half = quantile * frame["std_error"].astype(float)
        limits = frame[keys].copy()
        middle = frame[value].astype(float)
        limits["lower"], limits["upper"] = middle - half, middle + half
        return limits

    def summary(self) -> str:
        """Plain text for a notebook or a log."""
        lines = [self.title, "=" * len(self.title)]
        for name in self.tables:
            frame = self.to_pandas(name)
            lines += ["", f"{name}", frame.to_string(index=False) if len(frame) else "(empty)"]
        if self.facts:
            lines += ["", *(f"{key}: {_plain(value)}" for key, value in self.facts.items())]
        lines += ["", *self.notes] if self.notes else []
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: facts, the names of the tables, and each table under its name; see docs/json.md."""
        shown: dict[str, Any] = {
            "analysis": self.analysis,
            "title": self.title,
            "by": list(self.by),
            "facts": dict(self.facts),
            "tables": list(self.tables),
            "keys": {name: list(self.places(name)) for name in self.tables},
        }
        shown |= {name: [dict(row) for row in rows] for name, rows in self.tables.items()}
        return shown | {
            "notes": list(self.notes),
            "df": self.df,
            "privacy": dict(self.privacy) if self.privacy is not None else None,
            "disclosure": dict(self.disclosure),
        }

    @classmethod
    def from_dict(cls, shown: Mapping[str, Any]) -> "Result":
        """Read back what `to_dict` gave; other keys are left aside."""
        return cls(
            analysis=shown["analysis"],
            title=shown["title"],
            tables={name: tuple(shown[name]) for name in shown["tables"]},
            facts=shown["facts"],
            notes=tuple(shown["notes"]),
            by=tuple(shown["by"]),
            df=shown["df"],
            privacy=shown["privacy"],
            disclosure=shown["disclosure"],
            keys={name: tuple(names) for name, names in shown.get("keys", {}).items()},
        )

    def with_(self, **changes: Any) -> "Result":
        """A copy with some fields replaced."""
        return replace(self, **changes)


def _plain(value: Scalar) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
