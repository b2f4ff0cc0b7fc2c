"""The league table of a kit: every team's last score for each use."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from statfed.core.errors import UsageError
from statfed.core.section import Section, describe
from statfed.lab.workshop.folder import SCORES, Manifest, manifest_of

ORDER = (
    "First files without evidence against their safety, then those with, last those passed off; each by utility, then "
    "by less risk. Places are for a workshop: no file is cleared."
)


class Line(Section):
    """A line of scores.jsonl."""

    team: str
    kit: str
    use: str
    file: str
    records: int
    attempts: int
    utility: float | None = Field(ge=0, le=100)
    risk: float | None = Field(ge=0, le=100)
    utility_verdict: str
    risk_verdict: str
    obeying: float
    passed_off: bool
    version: str


def league(folder: Path) -> Mapping[str, Sequence[Line]]:
    """By use, the last score of each team, the first place first.

    Raises UsageError where there is no kit or no score, and on a line that is none or is of another kit.
    """
    manifest, path = manifest_of(folder), folder / SCORES
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise UsageError(f"kit: got no scores in {folder}; want some: statfed workshop score TEAM.parquet") from None
    last: dict[tuple[str, str], Line] = {}
    for place, line in enumerate(text.splitlines(), 1):
        one = _line(line, f"{path}, line {place}", manifest)
        last[one.use, one.team] = one
    found: dict[str, list[Line]] = {}
    for one in sorted(last.values(), key=_order):
        found.setdefault(one.use, []).append(one)
    return found


def _line(text: str, where: str, manifest: Manifest) -> Line:
    try:
        told: Any = json.loads(text)
        one = Line.model_validate(told)
    except ValidationError as error:
        raise UsageError(describe(error, where, f"one of {', '.join(Line.model_fields)}", Line)) from None
    except (ValueError, RecursionError):
        raise UsageError(f"{where}: got no JSON; want a line of `statfed workshop score`") from None
    if one.kit != manifest.digest:
        raise UsageError(f"{where}: got a score of another kit; want those of {manifest.kit} alone")
    return one


def _order(one: Line) -> tuple[Any, ...]:
    unsafe = 2 if one.passed_off else int(one.risk_verdict == "evidence against")
    utility = -1.0 if one.utility is None else one.utility
    return (one.use, unsafe, -utility, 0.0 if one.risk is None else one.risk, one.team)
