"""Results of a comparison as tables, and what a reader asks of them: techniques, and means over seeds."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import pandas as pd

from statfed.lab.compare.trial import Trial

Row = Mapping[str, Any]
Word = Literal["reached", "partly reached", "not reached", "not applicable", "failed"]
NAMES = ("trials", "figures", "measures", "roles", "learns")
ROLES = ("holder", "coordinator", "third party")
_Key = tuple[str, str, str, str, str]


@dataclass(frozen=True)
class Summary:
    """A figure over seeds. error: standard error of the mean, s / sqrt(n), where n > 1 and all are finite; n: seeds
    that have the figure."""

    mean: float
    error: float | None
    n: int


def summary(values: Iterable[float | None]) -> Summary | None:
    """Mean and standard error of what is there; None where nothing is.

    >>> summary([1.0, None, 3.0])
    Summary(mean=2.0, error=1.0, n=2)
    """
    found = [float(value) for value in values if value is not None]
    if not found:
        return None
    n, mean = len(found), sum(found) / len(found)
    if n == 1 or not all(map(math.isfinite, found)):
        return Summary(mean, None, n)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in found) / (n - 1))
    return Summary(mean, spread / math.sqrt(n), n)


@dataclass(frozen=True)
class Tables:
    """The tables of a comparison as rows, joined by `key`; columns are those of `Trial.row` and `Trial.details`.

    What is missing is None; `of` makes it so.
    """

    trials: Sequence[Row] = ()
    figures: Sequence[Row] = ()
    measures: Sequence[Row] = ()
    roles: Sequence[Row] = ()
    learns: Sequence[Row] = ()

    @classmethod
    def of(cls, tables: Mapping[str, "pd.DataFrame | Iterable[Row]"]) -> "Tables":
        """From frames or rows by name of table. Not-a-number, which frames have for what is missing, becomes None."""
        return cls(**{name: _rows(tables[name]) for name in NAMES if name in tables})

    @classmethod
    def of_trials(cls, trials: Iterable[Trial]) -> "Tables":
        """The tables of trials that are at hand."""
        rows: dict[str, list[Row]] = {name: [] for name in NAMES}
        for trial in trials:
            rows["trials"].append(trial.row())
            for name, more in trial.details().items():
                rows[name].extend(more)
        return cls.of(rows)

    @cached_property
    def tried(self) -> tuple["Tried", ...]:
        """Every technique that was tried on a scenario, in order of scenario, profile, release level, protection."""
        groups: dict[_Key, list[Row]] = defaultdict(list)
        for row in self.trials:
            scenario, profile, options = str(row["scenario"]), str(row["profile"]), str(row["options"])
            groups[scenario, profile, str(row["level"]), str(row["protection"]), options].append(row)
        order = sorted(groups, key=lambda key: (*key[:2], place(key[2]), place(key[3]), key[4]))
        return tuple(
            Tried(scenario, profile, level, protection, options, tuple(sorted(rows, key=_seed)), self)
            for (scenario, profile, level, protection, options), rows in ((key, groups[key]) for key in order)
        )

    def of_scenario(self, scenario: str) -> tuple["Tried", ...]:
        """The techniques of one scenario."""
        return tuple(tried for tried in self.tried if tried.scenario == scenario)

    def find(self, scenario: str, level: str, protection: str = "plain") -> "Tried | None":
        """One technique without options, of the largest profile that has finished; None where there is none."""
        found = [t for t in self.of_scenario(scenario) if (t.level, t.protection) == (level, protection)]
        done = [t for t in found if t.done and not t.chosen]
        return next((t for t in done if t.profile == "full"), done[0] if done else None)

    def values(self, column: str) -> list[str]:
        """The different values of a column of `trials`."""
        return sorted({str(row[column]) for row in self.trials if row.get(column) is not None})

    @cached_property
    def _by_key(self) -> Mapping[str, Mapping[str, list[Row]]]:
        found: dict[str, dict[str, list[Row]]] = {}
        for name in NAMES[1:]:
            rows: dict[str, list[Row]] = defaultdict(list)
            for row in getattr(self, name):
                rows[str(row["key"])].append(row)
            found[name] = dict(rows)
        return found

    def details(self, name: str, key: str) -> Sequence[Row]:
        """The rows of a table beside `trials` that belong to one trial."""
        return self._by_key[name].get(key, ())


@dataclass(frozen=True)
class Tried:
    """One technique on one scenario of one size: its trials, one a seed."""

    scenario: str
    profile: str
    level: str
    protection: str
    options: str
    trials: tuple[Row, ...]
    tables: Tables

    @property
    def done(self) -> tuple[Row, ...]:
        """Trials that gave something."""
        return self.with_status("done")

    def with_status(self, status: str) -> tuple[Row, ...]:
        """Trials of one status."""
        return tuple(row for row in self.trials if row["status"] == status)

    @property
    def chosen(self) -> str:
        """The protection's options in words; nothing for the defaults."""
        if self.options in ("", "{}", "None"):
            return ""
        try:
            found = json.loads(self.options)
        except ValueError:
            return self.options
        return ", ".join(f"{key} {value}" for key, value in sorted(found.items())) if isinstance(found, dict) else ""

    @property
    def by(self) -> str:
        """The protection with its options."""
        return ", ".join(part for part in (self.protection, self.chosen) if part)

    @property
    def id(self) -> str:
        """Short name: `secure-aggregation, epsilon-1`."""
        return f"{self.by}, {self.level}"

    @property
    def word(self) -> Word:
        """How it went over all seeds. Reached: on every seed; a failed seed is none on which it was reached."""
        if not self.done:
            return "failed" if self.with_status("failed") else "not applicable"
        reached = sum(bool(row["reached"]) for row in self.done)
        return "reached" if reached == len(self.trials) else "partly reached" if reached else "not reached"

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why trials gave nothing, each reason once."""
        told = (str(row["reason"]) for row in self.trials if row["status"] != "done" and row["reason"])
        return tuple(dict.fromkeys(told))

    @property
    def tolerance(self) -> float | None:
        """The largest error at which the scenario's purpose is reached."""
        return next((row["tolerance"] for row in self.done if row["tolerance"] is not None), None)

    def column(self, name: str) -> Summary | None:
        """A column of `trials` over seeds."""
        return summary(row.get(name) for row in self.done)

    @property
    def epsilon(self) -> Summary | None:
        """The largest epsilon of any seed: a mean would say less than was spent. None: some release is not private."""
        spent = [row["epsilon"] for row in self.done]
        return None if not spent or None in spent else Summary(max(spent), None, len(spent))

    def measure(self, name: str) -> Summary | None:
        """A measure over seeds."""
        return summary(
            row["value"]
            for trial in self.done
            for row in self.tables.details("measures", trial["key"])
            if row["name"] == name
        )

    @property
    def measured(self) -> tuple[str, ...]:
        """Names of measures that any seed has."""
        rows = (row for trial in self.done for row in self.tables.details("measures", trial["key"]))
        return tuple(sorted({str(row["name"]) for row in rows}))

    def figure(self, name: str, column: str = "value") -> Summary | None:
        """One of the scenario's figures over seeds; column `pooled`: what it is computed from all records."""
        return summary(
            row[column]
            for trial in self.done
            for row in self.tables.details("figures", trial["key"])
            if row["figure"] == name
        )

    def role(self, role: str, column: str) -> Summary | None:
        """What all parties of a role took together, over seeds; None where no trial has such a party."""
        return summary(
            sum(row[column] for row in rows) if rows else None
            for trial in self.done
            for rows in [[row for row in self.tables.details("roles", trial["key"]) if row["role"] == role]]
        )

    @property
    def learns(self) -> tuple[tuple[str, str, str], ...]:
        """Who learns what: role, what, protected by."""
        rows = (row for trial in self.done for row in self.tables.details("learns", trial["key"]))
        return tuple(dict.fromkeys((str(r["role"]), str(r["learns"]), str(r["protected_by"])) for r in rows))


def place(name: str) -> tuple[int, float, str]:
    """Where a release level or protection stands in tables: what changes nothing first, epsilons last and falling.

    >>> sorted(["epsilon-3", "suppress", "exact", "epsilon-10"], key=place)
    ['exact', 'suppress', 'epsilon-10', 'epsilon-3']
    """
    found = re.match(r"epsilon-(\d+(?:\.\d+)?(?:e[+-]?\d+)?)(.*)", name)
    if found:
        return 2, -float(found[1]), found[2]
    return int(name not in ("plain", "exact")), 0.0, name


def _seed(row: Row) -> int:
    return int(row["seed"])


def _rows(table: "pd.DataFrame | Iterable[Row]") -> list[Row]:
    rows = table.to_dict("records") if isinstance(table, pd.DataFrame) else table
    return [{str(key): None if _missing(value) else value for key, value in row.items()} for row in rows]


def _missing(value: object) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value))
