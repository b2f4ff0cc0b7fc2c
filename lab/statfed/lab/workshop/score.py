"""A team's file scored: valid, useful, risky, with the reasons, and a line in the kit for the league table."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from statfed.core import VERSION
from statfed.core.errors import UsageError
from statfed.core.progress import Progress, silent
from statfed.core.synthetic.evaluation import Asked, Evaluation
from statfed.core.synthetic.guide import guide
from statfed.core.synthetic.measured import Measured
from statfed.federation import evaluation
from statfed.federation.synthetic import frame_of
from statfed.lab.workshop.contract import independent
from statfed.lab.workshop.folder import SCORES, Workshop
from statfed.lab.workshop.marks import Mark, marked_measures, marks, measured, scale
from statfed.lab.workshop.submission import Submission, read_submission

FORMAT = "statfed.workshop.score/1"
NO_CLEARANCE = "Marks are for a workshop. They are evidence by some measures, and no clearance."


@dataclass(frozen=True)
class Score:
    """What a file is given. kit: the digest of the kit's manifest; attempts: of each attack."""

    team: str
    kit: str
    title: str
    submission: Submission
    found: Evaluation
    utility: Mark
    risk: Mark
    attempts: int

    @property
    def conduct(self) -> tuple[str, ...]:
        """What the file is that it must not be."""
        return tuple(str(one) for one in self.submission.overlaps if one.passed_off)

    @property
    def reasons(self) -> tuple[str, ...]:
        """The marks in words, the first ones first."""
        said = [f"Passed off: {one}." for one in self.conduct]
        for mark in (self.utility, self.risk):
            value = "not marked" if mark.value is None else f"{mark.value:.0f} of 100"
            said.append(f"{mark.kind.capitalize()}: {value}: {mark.reason}.")
        said += [f"{one.records:,} records {one.rule}." for one in self.submission.broken]
        return (*said, NO_CLEARANCE)

    @property
    def row(self) -> dict[str, Any]:
        """The line of the league table."""
        return {
            "team": self.team,
            "kit": self.kit,
            "use": self.found.use.id,
            "file": self.submission.digest,
            "records": self.submission.table.count,
            "attempts": self.attempts,
            "utility": self.utility.value,
            "risk": self.risk.value,
            "utility_verdict": self.found.word("utility"),
            "risk_verdict": self.found.word("risk"),
            "obeying": round(self.submission.obeying, 6),
            "passed_off": bool(self.conduct),
            "version": VERSION,
        }

    def document(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {
            "format": FORMAT,
            **self.row,
            "reasons": list(self.reasons),
            "marks": {"utility": self.utility.to_dict(), "risk": self.risk.to_dict()},
            "broken_rules": [
                {"rule": one.rule, "records": one.records, "first": list(one.places)} for one in self.submission.broken
            ],
            "overlaps": [
                {"what": one.what, "records": one.records, "share": one.share, "usual": one.usual}
                for one in self.submission.overlaps
            ],
            "evaluation": evaluation.to_dict(self.found, self._about),
        }

    def page(self) -> str:
        """The evaluation as a page, with the marks and their reasons above it."""
        return evaluation.render(replace(self.found, notes=(*self.reasons, *self.found.notes)), self._about)

    @property
    def _about(self) -> Mapping[str, Any]:
        return {"team": self.team, "kit": self.title, "file": self.submission.path.name}


def score(
    path: Path,
    workshop: Workshop,
    use: str = "",
    team: str = "",
    attempts: int = 1000,
    progress: Progress = silent,
) -> Score:
    """Judge a file of a kit for a use, by default the kit's. Deterministic in the file, the kit and these arguments.

    Raises UsageError on a file that does not fit (see `read_submission`), and on a use that is none.
    """
    manifest = workshop.manifest
    wanted = guide().use(use or manifest.use)
    submission = read_submission(path, workshop)
    asked = Asked(wanted.id, manifest.keys, manifest.secrets, manifest.target, attempts)
    progress("score", 0, 3)
    models = manifest.models if "coefficients" in wanted.measures else ()
    found = measured(submission.table, workshop, asked, _models(workshop, str(path), models))
    progress("score", 1, 3)
    low: Sequence[Measured] = ()
    if "coefficients" in marked_measures(wanted)[0]:
        with TemporaryDirectory(prefix="statfed-") as folder:
            other = Path(folder) / "independent.parquet"
            mixed = independent(workshop.original, np.random.default_rng(workshop.seed))
            frame_of(mixed).to_parquet(other, index=False)
            low = _models(workshop, str(other), models)
    ends = scale(workshop, asked, low)
    progress("score", 3, 3)
    passed = " and ".join(one.what for one in submission.overlaps if one.passed_off)
    utility, risk = marks(found, ends, submission.obeying, passed)
    name = team or path.stem
    return Score(name, manifest.digest, workshop.title, submission, found, utility, risk, attempts)


def _models(workshop: Workshop, path: str, models: Sequence[str]) -> tuple[Measured, ...]:
    original = {"original": str((workshop.folder / "original.parquet").resolve())}
    return evaluation.coefficients_of(original, {"synthetic": path}, workshop.codebook, models)


def keep(found: Score, folder: Path) -> None:
    """Append a score to the kit. A line is written at once, so that two scorers do not mix theirs."""
    line = json.dumps(found.row, sort_keys=True, allow_nan=False) + "\n"
    try:
        handle = os.open(folder / SCORES, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)
    except OSError as error:
        raise UsageError(
            f"kit: {folder / SCORES} cannot be written ({error.strerror}); want a folder that may be"
        ) from None
