"""A pilot on disk whose parties have joined, and messages between them without processes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from flwr.app import Message

from statfed.client.guard.policy import Approval, Budget, Dataset, HolderName, load_policy, write_policy
from statfed.client.guard.templates import made
from statfed.client.pilot import joining, studies
from statfed.core.codebook import make_codebook
from statfed.core.pilot.proposals import SignedProposal
from statfed.core.progress import Progress, silent
from statfed.core.study import Study, make_study
from statfed.federation import pilot as pilots
from statfed.federation.answers import Answer
from statfed.federation.run import Options, run_study
from statfed.server.engine import Deployment, Session
from statfed.server.grid import inprocess
from statfed.server.pilot import studies as at_office
from statfed.server.pilot.hub import PilotEngine, witnessed
from statfed.server.pilot.office import Office, Settings, create

R = TypeVar("R")
HOLDERS = ("istat", "cbs", "insee")
CODEBOOK = """[columns.age]
type = "integer"
low = 0
high = 120
"""
DIGEST = make_codebook({"columns": {"age": {"type": "integer", "low": 0, "high": 120}}}).digest()


@dataclass
class Pilot:
    """Everybody's folders. frames: each holder's records; sent: types of messages that a party got, in order; meddle:
    changes replies on their way."""

    root: Path
    office: Office
    frames: dict[str, pd.DataFrame]
    sent: dict[str, list[str]] = field(default_factory=dict)

    meddle: Callable[[str, Message, Message], None] = inprocess.no_tap

    @property
    def messages(self) -> int:
        return sum(map(len, self.sent.values()))

    def home(self, name: str) -> Path:
        return self.root / name

    def study(self, **changes: Any) -> Study:
        base: dict[str, Any] = {
            "method": "mean",
            "options": {"columns": ["age"]},
            "holders": list(HOLDERS),
            "codebook": "people.codebook.toml",
            "engine": "pilot",
            "protection": {"name": "secure-aggregation"},
        }
        return make_study(base | changes)

    def propose(self, runs: int = 1, days: float = 90.0, **changes: Any) -> SignedProposal:
        return pilots.propose(self.office, self.study(**changes), self.root, runs=runs, days=days)

    def carried(self, names: Sequence[str], drive: Callable[[Session], R]) -> R:
        """Hand a session with the homes of these parties to `drive`."""

        def tap(party: str, message: Message, reply: Message) -> None:
            self.sent.setdefault(party, []).append(message.metadata.message_type)
            self.meddle(party, message, reply)

        def driven(session: Session) -> R:
            return drive(replace(session, grid=witnessed(session.grid, self.office, session.nodes)))

        homes = {name: self.home(name) for name in names}
        return inprocess.run(Deployment("letters", homes, self.root), driven, silent, wire=True, tap=tap)

    def post(self, *numbers: int, names: Sequence[str] = HOLDERS) -> dict[str, str]:
        now = datetime.now(UTC)
        return self.carried(names, lambda s: at_office.post(self.office, s.grid, s.nodes, numbers, now))

    def decide(self, number: int, *names: str, choice: Any = "approved", **more: Any) -> None:
        now = datetime.now(UTC).replace(microsecond=0)
        for name in names:
            rules = load_policy(self.home(name) / "policy.toml").approval
            studies.decide(self.home(name), number, choice, rules, now=now, **more)

    def agreed(self, **changes: Any) -> int:
        """The number of a study that everybody has approved."""
        number = self.propose(**changes).proposal.number
        holders = tuple(self.study(**{k: v for k, v in changes.items() if k not in ("runs", "days")}).holders)
        self.post(number)
        self.decide(number, *holders)
        self.post(number)
        return number

    def run(self, number: int, **options: Any) -> Answer:
        """Run an approved study, with messages carried by this process."""
        outer = self

        class Carried(PilotEngine):
            def run(self, deployment: Deployment, drive: Callable[[Session], R], progress: Progress) -> R:
                parties = at_office.ready(outer.office, number, datetime.now(UTC)).proposal.parties
                assert set(parties) == set(deployment.homes)
                return outer.carried(parties, drive)

        signed = at_office.ready(self.office, number, datetime.now(UTC))
        how = replace(
            Options(**options),
            workspace=self.office.root,
            runs=at_office.folder_of(self.office, number) / at_office.RUNS,
            terms=signed.proposal.agreed,
            engine=Carried(self.office.root, number),
        )
        return run_study(pilots.study_of(self.office, signed), how)

    def policy(self, name: str, approval: dict[str, Any] | None = None, template: Any = "rehearsal") -> None:
        policy = made(
            template,
            holder=HolderName(name=name),
            dataset=Dataset(id=name, path="people.csv", records=50, persons=50, codebooks=(DIGEST,)),
            budget=Budget(unit="record", epsilon=3.0, delta=1e-6),
            approval=Approval.model_validate(approval or {}),
        )
        write_policy(policy, self.home(name) / "policy.toml")


def make_pilot(root: Path, port: int = 1) -> Pilot:
    """A pilot of three holders in which everybody has joined."""
    office = create(root / "trade", Settings(name="trade", host="127.0.0.1", port=port))
    (root / "people.codebook.toml").write_text(CODEBOOK)
    rng = np.random.default_rng(1)
    frames: dict[str, pd.DataFrame] = {}
    for name in HOLDERS:
        office.sign(joining.request(root / name, name, "holder"))
    made_ = Pilot(root, office, frames)
    for name in HOLDERS:
        home = root / name
        joining.join(home, joining.look(home, office.kit(name)))
        frames[name] = pd.DataFrame({"age": rng.integers(18, 80, 50)})
        frames[name].to_csv(home / "people.csv", index=False)
        made_.policy(name)
    return made_
