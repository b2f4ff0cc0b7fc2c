"""What an analysis returns: named tables of rows, a few facts, notes. One class for all, so that every output (screen,
JSON, CSV, Parquet, HTML, pandas) is written once.

Conventions of rows. An estimate has `estimate` and `std_error`; a coefficient also `name`; a cell has its category
values under the names of `by`, null where a margin sums over the column, and `count` or `total`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

Scalar = str | float | int | bool | None
Row = Mapping[str, Scalar]


@dataclass(frozen=True)
class Result:
    """The released result of one study.

    tables: name to rows, the main table first. by: category columns of `cells` and `margins`. facts: scalars
    (`observations`, `deviance` ...). df: degrees of freedom of t-intervals, None for normal ones. noise: standard
    deviation of privacy noise is included in `std_error` when `privacy` is not None. disclosure: which rules ran and
    what they treated, filled by the release. arrays: what is no table, such as the parameters of a trained model; in
    files of their own.
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

    @property
    def main(self) -> str:
        """Name of the main table."""
        return next(iter(self.tables))

    def to_pandas(self, table: str | None = None) -> "pd.DataFrame":
        """One of the tables, by default the main one."""
        import pandas as pd

        rows: list[Any] = [dict(row) for row in self.tables[table or self.main]]
        return pd.DataFrame(rows)

    def conf_int(self, level: float = 0.95, table: str | None = None) -> "pd.DataFrame":
        """Confidence limits `lower` and `upper` of every row that has an estimate and a standard error.

        estimate +- quantile * std_error, with Student's t on `df` where given and a row's own `df` before that.
        Privacy noise is in the standard error. Rows that carry their own limits keep them only at their own level.
        """
        from scipy import stats

        if not 0 < level < 1:
            raise ValueError(f"level: got {level}; want a number between 0 and 1")
        frame = self.to_pandas(table)
        value = next((c for c in ("estimate", "mean", "accuracy", "total", "count") if c in frame), None)
        if value is None or "std_error" not in frame:
            raise ValueError(f"{self.analysis}: no estimates with standard errors in {table or self.main}")
        degrees = frame.get("df", self.df)
        upper_tail = (1 + level) / 2
        quantile = stats.norm.ppf(upper_tail) if degrees is None else stats.t.ppf(upper_tail, degrees)
        keys = [c for c in frame.columns if c in (*self.by, "name", "column", "domain", "group", "time", "probability")]
        half = quantile * frame["std_error"].astype(float)
        limits = frame[keys].copy()
        limits["lower"], limits["upper"] = frame[value] - half, frame[value] + half
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
        )

    def with_(self, **changes: Any) -> "Result":
        """A copy with some fields replaced."""
        return replace(self, **changes)


def _plain(value: Scalar) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
