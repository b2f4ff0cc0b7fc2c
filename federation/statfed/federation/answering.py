"""One run of an analysis in simulation: codebook -> simulated holders -> protected sums -> release -> answer."""

import secrets
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from statfed.client.data.drafting import draft, union
from statfed.client.data.sources import absolute
from statfed.client.data.tables import connect
from statfed.core import VERSION
from statfed.core.codebook import Codebook, load_codebook
from statfed.core.discovery import load
from statfed.core.errors import StatfedError, UsageError
from statfed.core.method import read_question
from statfed.core.privacy.noise import error
from statfed.core.privacy.placement import shares
from statfed.core.progress import Progress, silent
from statfed.core.protection import Disclosure
from statfed.core.terms import Terms
from statfed.core.randomness import stream
from statfed.core.result import Result
from statfed.core.statement import Admission, Closing
from statfed.federation.homes import make_homes
from statfed.federation.study import AnalysisStudy, noisy_parts
from statfed.server.analysis import Inquiry, Sum, inquire
from statfed.server.disclosure.release import release
from statfed.server.engine import Deployment, Engine, Meter, Session


class DryRun(StatfedError):
    """Raised after admission to end a run before anything is spent.

    margins: per noisy sum, the smallest and the largest half-width of its noise in the total, with probability 0.95.
    """

    def __init__(self, query: Terms, admissions: Mapping[str, Admission]) -> None:
        super().__init__("dry run: nothing was spent")
        self.admissions = dict(admissions)
        self.privacy = query.privacy
        self.margins: dict[str, tuple[float, float]] = {}
        if query.privacy:
            parts, times = noisy_parts(query)
            widths = error(parts, query.privacy, len(query.holders), times, shares=shares(query))
            for name, width in widths.items():
                if width.size:
                    self.margins[name] = float(width.min()), float(width.max())


@dataclass(frozen=True)
class Answer:
    """A finished run. result: what was released; sums: what each protected sum took; closings: what it cost each
    holder's ledger; learns: who learned what; meters: what each party took, where the engine tells."""

    run: str
    created: str
    result: Result
    query: Terms
    engine: str
    drafted: bool
    sums: tuple[Sum, ...]
    closings: Mapping[str, Closing]
    learns: tuple[Disclosure, ...]
    seconds: float
    memory_mib: Mapping[str, float] = field(default_factory=dict)
    meters: Mapping[str, Meter] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the result's keys, then those of the run; see docs/json.md."""
        return self.result.to_dict() | {
            "run": self.run,
            "created": self.created,
            "version": VERSION,
            "engine": self.engine,
            "query": self.query.model_dump(mode="json"),
            "query_digest": self.query.digest(),
            "codebook_drafted": self.drafted,
            "sums": [asdict(one) for one in self.sums],
            "spending": [closing.model_dump(mode="json") for closing in self.closings.values()],
            "learns": [asdict(row) for row in self.learns],
            "seconds": self.seconds,
            "memory_mib": dict(self.memory_mib),
        }


def run_analysis(
    study: AnalysisStudy,
    *,
    workspace: Path | None = None,
    base: Path | None = None,
    codebook: Codebook | None = None,
    dry_run: bool = False,
    progress: Progress = silent,
    on_codebook: Callable[[Codebook], None] = lambda _: None,
    engine: Engine | None = None,
) -> Answer:
    """Run `study` with simulated holders of its sources.

    workspace: where the holders' ledgers live between runs; None: new ones, for this run alone. base: folder that
    relative sources start from. codebook: instead of the study's file. on_codebook is called with a drafted one.
    engine: instead of the one that the study names.
    Raises UsageError, Refused or EngineError.
    """
    started = time.perf_counter()
    holders = {name: absolute(source, base or Path.cwd()) for name, source in study.holders.items()}
    study = study.model_copy(update={"holders": holders})
    drafted = codebook is None and study.codebook is None
    if codebook is None:
        codebook = load_codebook(Path(study.codebook)) if study.codebook else _drafted(study, progress)
    if drafted:
        on_codebook(codebook)
    query = study.query(codebook)
    read_question(query)
    run = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{study.analysis}-{secrets.token_hex(2)}"

    def on_admission(admissions: Mapping[str, Admission]) -> None:
        if dry_run:
            raise DryRun(query, admissions)

    def drive(session: Session) -> tuple[Inquiry, Session]:
        return inquire(
            session, query, run, timeout=study.timeout, progress=progress, on_admission=on_admission
        ), session

    chosen: Engine = engine or load("statfed.server.grid", study.engine, "engine")
    with ExitStack() as stack:
        root = workspace / "tables" if workspace else None
        if root is None:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="statfed-")))
        homes = make_homes(study, codebook, root)
        inquiry, session = chosen.run(Deployment(run, homes, root / "logs"), drive, progress)
    source = stream(study.seed, query.digest(), "release")
    private = query.privacy.model_dump() if query.privacy else None
    result = release(inquiry.result.with_(privacy=private), codebook, study.disclosure, source=source)
    protection = load("statfed.strategies.protections", query.protection.name, "protection")
    return Answer(
        run=run,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        result=result,
        query=query,
        engine=study.engine,
        drafted=drafted,
        sums=tuple(inquiry.sums),
        closings=inquiry.closings,
        learns=tuple(protection.learns(query)),
        seconds=time.perf_counter() - started,
        memory_mib=dict(session.memory),
        meters=dict(session.meters),
    )


def _drafted(study: AnalysisStudy, progress: Progress) -> Codebook:
    """The union of the holders' own drafts. In a simulation only: across organisations a draft never leaves."""
    drafts = []
    for number, (name, source) in enumerate(study.holders.items()):
        progress("draft a codebook", number, len(study.holders))
        try:
            with connect(source, Path()) as opened:
                drafts.append(draft(opened))
        except UsageError as error:
            raise UsageError(f"{name}: {error}") from None
    progress("draft a codebook", len(drafts), len(drafts))
    return union(drafts)
