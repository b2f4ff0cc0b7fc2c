"""What was measured in the reference scenarios nearest to a case, as rows of the comparison."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, get_args

from statfed.core.discovery import load, modules
from statfed.core.errors import UsageError
from statfed.core.scenario import PACKAGE, Case
from statfed.lab.compare.store import BASELINE, opened
from statfed.lab.recommend.answer import Evidence, Near
from statfed.lab.recommend.techniques import NOISE, Candidate, Release

Rows = Sequence[Mapping[str, Any]]
NEAREST = 3
"""Scenarios whose trials count."""
NONE = "no measurements on this machine yet: run `statfed compare --all --profile quick`"
WEIGHTS: Mapping[str, float] = {"partitioning": 4.0, "output": 4.0, "numbers": 2.0, "records": 2.0, "epsilon": 2.0}
"""Weights of facts in the distance between cases; 1 for all others, 0 for the title."""
_TEXT = ("key", "scenario", "profile", "protection", "options", "level", "version", "status", "reason", "machine")
_DECADES = {"parties": 2.0, "records": 4.0, "numbers": 4.0, "bandwidth": 3.0, "latency": 3.0, "epsilon": 2.0}


@dataclass(frozen=True)
class Known:
    """What is known of a reference scenario without running it. releases: of its release levels, by id."""

    case: Case
    releases: Mapping[str, Release] = field(default_factory=dict)


@dataclass(frozen=True)
class Measurements:
    """Rows of trials (`Trial.row()`) and, in one line, where they are from."""

    rows: Rows = ()
    origin: str = NONE


def scenarios() -> dict[str, Known]:
    """Every reference scenario, by id."""
    found = {}
    for name in sorted(modules(PACKAGE)):
        module = load(PACKAGE, name, "scenario")
        if not hasattr(module, "ABOUT"):  # not a scenario; the tests of scenarios say so
            continue
        levels = getattr(module, "LEVELS", ())
        found[name] = Known(module.ABOUT.case, {level.id: _release(level.privacy) for level in levels})
    return found


def _release(privacy: Mapping[str, Any] | None) -> Release:
    if privacy is None:
        return "exact"
    return next(one for one in NOISE if one == privacy.get("noise", "local"))


def measurements(results: Path | None = None) -> Measurements:
    """Trials of a comparison's results file; without one the baseline that is shipped, where there is one."""
    if results is not None:
        with opened(results) as store:
            rows = store.trials()
        return Measurements(
            rows, f"{len(rows)} trials in {results.name}" if rows else f"{results.name} is empty: {NONE}"
        )
    if not BASELINE.is_file():
        return Measurements()
    rows = read_rows(BASELINE)
    versions = ", ".join(sorted({str(row.get("version") or "unknown") for row in rows}))
    machines = ", ".join(sorted({str(row.get("machine") or "an unnamed machine") for row in rows}))
    return Measurements(rows, f"baseline of {len(rows)} trials: statfed {versions}, {machines}; yours may differ")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a CSV file whose columns are those of `Trial.row()`. Raises UsageError where it has others."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [
            {name: text if name in _TEXT else _value(text) for name, text in row.items()}
            for row in csv.DictReader(file)
        ]
    wanted = {"scenario", "protection", "level", "status"}
    if rows and not wanted <= set(rows[0]):
        raise UsageError(
            f"{path}: got columns {', '.join(rows[0])}; want those of a trial: {', '.join(sorted(wanted))}"
        )
    return rows


def _value(text: str | None) -> Any:
    if not text:
        return None
    if text in ("True", "true", "False", "false"):
        return text.lower() == "true"
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else None


def distance(one: Case, other: Case) -> float:
    """How far two cases' facts are apart, in [0, 1]: weighted mean over facts (Gower 1971).

    Numbers by the ratio of their logarithms, ordered words by their places, other words by being equal.
    """
    total = weights = 0.0
    for name in Case.model_fields:
        if name != "title":
            weight = WEIGHTS.get(name, 1.0)
            total, weights = total + weight * _apart(name, getattr(one, name), getattr(other, name)), weights + weight
    return total / weights


def _apart(name: str, one: Any, other: Any) -> float:
    if one == other:
        return 0.0
    if name in _DECADES and one is not None and other is not None:
        return min(1.0, abs(math.log10((one + 1e-9) / (other + 1e-9))) / _DECADES[name])
    places = get_args(Case.model_fields[name].annotation)
    if name in ("coordinator", "sensitivity", "recurrence", "skills"):
        return abs(places.index(one) - places.index(other)) / (len(places) - 1)
    return 1.0


def nearest(case: Case, known: Mapping[str, Known], rows: Rows = ()) -> tuple[Near, ...]:
    """All scenarios, the nearest first."""
    count = {name: sum(row["scenario"] == name for row in rows) for name in known}
    found = []
    for name, other in known.items():
        facts = [fact for fact in Case.model_fields if fact != "title"]
        differs = tuple(fact for fact in facts if getattr(case, fact) != getattr(other.case, fact))
        far = round(distance(case, other.case), 4)
        found.append(Near(scenario=name, distance=far, differs=differs, measured=count[name]))
    return tuple(sorted(found, key=lambda near: (near.distance, near.scenario)))


def evidence(trials: Rows, case: Case, known: Mapping[str, Known]) -> tuple[Evidence, ...]:
    """Trials in the `NEAREST` scenarios that were measured and have the case's output and partitioning.

    One row per technique, level and profile, over seeds, the nearest scenario first. Trials of techniques that did not
    apply are left out; failed ones count as failed.
    """
    tried = [row for row in trials if row["status"] in ("done", "failed")]
    names = {row["scenario"] for row in tried}
    close = [
        near
        for near in nearest(case, known)
        if near.scenario in names and not {"partitioning", "output"} & set(near.differs)
    ][:NEAREST]
    found = []
    for near in close:
        groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
        for row in tried:
            if row["scenario"] == near.scenario:
                key = tuple(str(row.get(part) or "") for part in ("profile", "protection", "options", "level"))
                groups.setdefault(key, []).append(row)
        plain = {(key[0], key[3]): _median(rows, "processor") for key, rows in groups.items() if key[1] == "plain"}
        for key, rows in sorted(groups.items()):
            release = known[near.scenario].releases.get(key[3]) or _guess(key[3], rows)
            found.append(_summary(near, key, rows, release, plain.get((key[0], key[3]))))
    return tuple(found)


def _summary(near: Near, key: tuple[str, ...], rows: Rows, release: Release, plain: float | None) -> Evidence:
    done = [row for row in rows if row["status"] == "done"]
    judged = [bool(row.get("reached")) for row in done if row.get("reached") is not None]
    failed, spent = len(rows) - len(done), _median(done, "processor")
    return Evidence(
        scenario=near.scenario,
        distance=near.distance,
        profile=key[0],
        protection=key[1],
        options="" if key[2] in ("", "{}") else key[2],
        level=key[3],
        release=release,
        trials=len(rows),
        failed=failed,
        reached=sum(judged) / (len(judged) + failed) if judged or failed else None,
        error=_median(done, "error"),
        tolerance=_median(done, "tolerance"),
        local=_median(done, "local"),
        coverage=_median(done, "coverage"),
        suppressed=_median(done, "suppressed"),
        epsilon=_median(done, "epsilon"),
        multiple=spent / plain if spent is not None and plain else None,
        version=_one(rows, "version"),
        machine=_one(rows, "machine"),
    )


def of(candidate: Candidate, rows: Sequence[Evidence]) -> tuple[Evidence, ...]:
    """The rows that are about a candidate."""
    return tuple(row for row in rows if (row.protection, row.release) == (candidate.protection, candidate.release))


def _guess(level: str, rows: Rows) -> Release:
    """The release of a level that no installed scenario has: by its name, else by whether an epsilon was spent."""
    for noise in NOISE:
        if level.endswith(f"-{noise}"):
            return noise
    return "exact" if _median(rows, "epsilon") is None else "local"


def _median(rows: Rows, name: str) -> float | None:
    values = [float(row[name]) for row in rows if row.get(name) is not None and math.isfinite(float(row[name]))]
    return median(values) if values else None


def _one(rows: Rows, name: str) -> str:
    return ", ".join(sorted({str(row[name]) for row in rows if row.get(name)})) or "unknown"
