"""A study of a pilot, from a file to its answer: proposed once, run as it was approved, gone on with after a break."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from statfed.core.errors import UsageError
from statfed.core.pilot.proposals import SignedProposal
from statfed.core.progress import Progress, silent
from statfed.core.resolve import resolve_applicable
from statfed.core.study import Study, make_study
from statfed.federation.answers import Answer
from statfed.federation.parties import third_party_names
from statfed.federation.preflight import before_data
from statfed.federation.run import Options, resume_study, run_study
from statfed.federation.runs import find_run, runs_in
from statfed.federation.simulation import world_of
from statfed.server.pilot import studies
from statfed.server.pilot.hub import PilotEngine
from statfed.server.pilot.office import Office, open_office

START = "start.npz"
Notify = Callable[[str], None]


def propose(
    office: Office, study: Study, base: Path, *, purpose: str = "", runs: int = 1, days: float = 90.0
) -> SignedProposal:
    """Number and sign a study, with its codebook and everybody who takes part; nothing is sent yet.

    base: folder that the study's paths start from; runs, days: how often and for how long approval is asked for.
    Raises UsageError where it could not be run.
    """
    study = study if study.engine == "pilot" else study.replace(engine="pilot")
    before_data(study, base)
    terms = world_of(study, base, None, silent).terms
    resolve_applicable(terms)
    parties = (*study.holders, *third_party_names(study.protection, study.holders, study.engine))
    start = base / study.start if study.start else None
    if start is not None and not start.is_file():
        raise UsageError(f"start: got {study.start!r}; want the path of a model.npz, from the study's folder")
    public = {  # paths of this machine are nobody's business
        "codebook": Path(study.codebook or "").name,
        "codebooks": {name: Path(path).name for name, path in study.codebooks.items()},
        "start": START if start else None,
    }
    now = datetime.now(UTC).replace(microsecond=0)
    signed = studies.propose(
        office,
        study.model_dump(mode="json") | public,
        terms,
        parties,
        title=study.title,
        purpose=purpose,
        runs=runs,
        made=now,
        until=now + timedelta(days=days),
    )
    if start is not None:
        shutil.copyfile(start, studies.folder_of(office, signed.proposal.number) / START)
    return signed


def run_number(folder: Path, number: int, options: Options, *, progress: Progress = silent, notify: Notify) -> Answer:
    """Run a study as its parties have approved it. folder: the coordinator's. Raises Pending where one has not."""
    office = open_office(folder)
    signed = studies.ready(office, number, datetime.now(UTC))
    return run_study(study_of(office, signed), _options(office, signed, options), progress=progress, notify=notify)


def resume_number(
    folder: Path, number: int, options: Options, *, progress: Progress = silent, notify: Notify
) -> Answer:
    """Go on with the last interrupted run of a study. Raises UsageError where there is none."""
    office = open_office(folder)
    signed = studies.ready(office, number, datetime.now(UTC))
    how = _options(office, signed, options)
    run = find_run([how.runs] if how.runs else [], "last", unfinished=True)
    return resume_study(run, how, progress=progress, notify=notify)


def runs_of(office: Office, number: int) -> list[Path]:
    """Folders of a study's runs, the one begun last at the end."""
    return runs_in([studies.folder_of(office, number) / studies.RUNS])


def study_of(office: Office, signed: SignedProposal) -> Study:
    """The study of a proposal. Raises UsageError where this version reads it otherwise than it was proposed."""
    study = make_study(json.loads(signed.proposal.study), where=f"study {signed.proposal.number}")
    if study.start:
        study = study.replace(start=str(studies.folder_of(office, signed.proposal.number) / START))
    return study


def _options(office: Office, signed: SignedProposal, options: Options) -> Options:
    number = signed.proposal.number
    return replace(
        options,
        workspace=office.root,
        runs=studies.folder_of(office, number) / studies.RUNS,
        terms=signed.proposal.agreed,
        engine=PilotEngine(office.root, number),
    )
