"""A pilot that lives through faults: a hub, three holders, a key holder, and a line between each and the hub.

Every party's kit names its own line (`statfed.lab.pilot.proxy`) as the hub's address, so that one line can fail alone.
"""

import contextlib
import json
import os
import resource
import signal
import socket
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from statfed.client.guard.policy import Budget, Dataset, HolderName, write_policy
from statfed.client.guard.templates import made
from statfed.client.pilot import joining, studies
from statfed.client.third_party import approval_of
from statfed.core.codebook import load_codebook
from statfed.core.study import load_study
from statfed.federation import pilot as pilots
from statfed.lab.pilot.demo import CODEBOOK, people
from statfed.lab.pilot.machines import tree
from statfed.lab.pilot.proxy import Proxy, proxy
from statfed.server.pilot import hub
from statfed.server.pilot.office import Office, Settings, create
from tests.faults import forked
from tests.faults.forked import Command

HOLDERS = ("istat", "cbs", "insee")
KEY_HOLDER = "key-holder"
PARTIES = (*HOLDERS, KEY_HOLDER)
RECORDS = 300
PARTY = """[party]
name = "key-holder"

[allow]
protections = ["homomorphic-encryption"]
minimum_holders = 3
"""
HEAD = """method = "{method}"
holders = ["istat", "cbs", "insee"]
codebook = "people.codebook.toml"
timeout = 15.0

[protection]
name = "{protection}"
"""
MEAN_OF_AGE = '\n[options]\ncolumns = ["age"]\n'
PRIVATE = '\n[privacy]\nepsilon = 0.2\nnoise = "shared"\n'
TRAINING = '\n[options]\ntarget = "employed"\nfeatures = ["age", "hours"]\nrounds = 3\n\n'
TRAINING += '[options.model]\nname = "mlp"\nhidden = 4\n'
STUDIES = {
    "exact": HEAD.format(method="mean", protection="secure-aggregation") + MEAN_OF_AGE,
    "private": HEAD.format(method="mean", protection="secure-aggregation") + MEAN_OF_AGE + PRIVATE,
    "training": HEAD.format(method="dp-fedsgd", protection="secure-aggregation") + TRAINING + PRIVATE,
    "encrypted": HEAD.format(method="mean", protection="homomorphic-encryption") + MEAN_OF_AGE,
}
Price = Mapping[str, Counter[tuple[str, int, str]]]
"""What a run has cost: by holder, the kind, number and event of each entry, with how often."""


@dataclass
class World:
    """A pilot and its processes. lines: by party; numbers: of the studies that everybody has approved."""

    folder: Path
    office: Office
    lines: dict[str, Proxy]
    up: dict[str, Command] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)

    def home(self, party: str) -> Path:
        return self.folder / party

    def runs(self) -> list[Path]:
        """Folders of all runs."""
        return [one for number in self.numbers.values() for one in pilots.runs_of(self.office, number)]

    def command(self, *words: str, log: str, more: Mapping[str, str] | None = None, own: str = "") -> Command:
        """Start a command. own: whose home the user's register is in."""
        environment = {"HOME": str(self.folder / f"user-{own}"), "COLUMNS": "400", **(more or {})}
        return forked.start(words, self.folder, self.folder / log, environment)

    def start(self, role: str, more: Mapping[str, str] | None = None) -> None:
        """Start the hub, or a party. more: changes of its environment."""
        if role == "hub":
            words: tuple[str, ...] = ("coordinator", "start", "--pilot", "trade", "--host", "127.0.0.1")
        else:
            words = ("holder", "start", "--home", role)
        self.up[role] = self.command(*words, log=f"{role}.log", more=more, own=role)

    def end(self) -> None:
        """End everything that is up."""
        for command in self.up.values():
            command.end()

    def whole(self, seconds: float = 90.0) -> bool:
        """Start again what has ended, and wait until everybody is connected; are they?"""
        end = time.monotonic() + seconds
        for line in self.lines.values():
            line.heal()
        while time.monotonic() < end:
            for role, command in self.up.items():
                if command.ended:
                    self.start(role)
            with contextlib.suppress(Exception):
                if all(hub.connected(self.office).values()):
                    return True
            time.sleep(0.3)
        return False

    def processes(self, role: str) -> dict[str, list[int]]:
        """Processes of the hub or of a party: `all`, and by part: main, superlink, runner, supernode."""
        found: dict[str, list[int]] = {"all": tree(self.up[role].pid), "main": [self.up[role].pid]}
        for pid in found["all"]:
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
                for part, module in (
                    ("superlink", "statfed.server.grid._superlink"),
                    ("runner", "statfed.client.flower.runner"),
                    ("supernode", "statfed.client.flower.node"),
                ):
                    if module in words:
                        found.setdefault(part, []).append(pid)
        return found

    def entries(self, holder: str, run: str) -> list[tuple[str, int, str]]:
        """Kind, number and event of a run's entries in a ledger, all its attempts together.

        An attempt counts its sums from those that it found done.
        """
        path = self.home(holder) / "ledger.sqlite"
        if not path.exists():
            return []
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as db:
            rows = db.execute(
                "SELECT kind, round, event || note, facts FROM entries WHERE run = ? OR run LIKE ? ORDER BY seq",
                (run, f"{run}~%"),
            )
            found, done = [], 0
            for kind, number, what, facts in rows:
                if kind == "reserve":
                    done = json.loads(facts).get("done", 0)
                found.append((kind, number + done * (kind in ("charge", "disclose")), what))
            return found

    def cost(self, run: str) -> Price:
        return {
            holder: Counter(one for one in self.entries(holder, run) if one[0] in ("charge", "disclose"))
            for holder in HOLDERS
        }

    def held(self, run: str) -> int:
        """Holders at which sums of a run are still set aside."""
        kinds = [[kind for kind, _, _ in self.entries(holder, run)] for holder in HOLDERS]
        return sum(one.count("reserve") > one.count("release") for one in kinds)

    def intact(self) -> bool:
        """Does every ledger's chain verify?"""
        from statfed.client.guard.ledger import read_only

        for holder in HOLDERS:
            with read_only(self.home(holder) / "ledger.sqlite") as ledger:
                ledger.verify()
        return True

    def pooled(self) -> float:
        """The mean age over all holders."""
        return float(pd.concat([people(name, RECORDS) for name in HOLDERS]).age.mean())

    def result(self, run: str) -> dict[str, object] | None:
        (folder,) = [one for one in self.runs() if one.name == run]
        path = folder / "result.json"
        return json.loads(path.read_text()) if path.exists() else None


def signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def disk_full(pids: list[int], full: bool) -> None:
    """No file can be written by these processes, as on a disk without room; or again."""
    limit = 0 if full else resource.RLIM_INFINITY
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """A pilot in which everybody is connected; all of it ends at the end."""
    folder.mkdir(exist_ok=True)
    port = _free_port()
    office = create(folder / "trade", Settings(name="trade", host="127.0.0.1", port=port))
    (folder / "people.codebook.toml").write_text(CODEBOOK)
    for name, text in STUDIES.items():
        (folder / f"{name}.study.toml").write_text(text)
    with ExitStack() as stack:
        stack.enter_context(forked.warm())
        lines = {party: stack.enter_context(proxy(("127.0.0.1", port))) for party in PARTIES}
        made_ = World(folder, office, lines)
        stack.callback(made_.end)
        _provision(made_)
        for role in ("hub", *PARTIES):
            made_.start(role)
        assert made_.whole(300), "parties: not all connected; see the logs"
        for name in STUDIES:
            made_.numbers[name] = _approved(made_, name)
        yield made_


def _provision(made_: World) -> None:
    digest = load_codebook(made_.folder / "people.codebook.toml").digest()
    roles = {party: "third-party" if party == KEY_HOLDER else "holder" for party in PARTIES}
    for party, role in roles.items():
        made_.office.sign(joining.request(made_.home(party), party, role))  # type: ignore[arg-type]
    for party, role in roles.items():
        home = made_.home(party)
        (made_.folder / f"user-{party}").mkdir()
        settings = made_.office.settings.model_copy(update={"port": made_.lines[party].port})
        request = joining.request(home, party, role)  # type: ignore[arg-type]
        joining.join(home, joining.look(home, replace(made_.office, settings=settings).sign(request)))
        if party == KEY_HOLDER:
            (home / "party.toml").write_text(PARTY)
            continue
        people(party, RECORDS).to_parquet(home / "people.parquet")
        policy = made(
            "rehearsal",
            holder=HolderName(name=party),
            dataset=Dataset(id=party, path="people.parquet", records=RECORDS, persons=RECORDS, codebooks=(digest,)),
            budget=Budget(unit="record", epsilon=1000.0, delta=1e-6),
        )
        write_policy(policy, home / "policy.toml")


def _approved(made_: World, name: str) -> int:
    """Propose a study for a thousand runs, and have everybody approve it."""
    study = load_study(made_.folder / f"{name}.study.toml", ['engine="pilot"'])
    proposal = pilots.propose(made_.office, study, made_.folder, runs=1000).proposal
    assert not hub.correspond(made_.office, [proposal.number])
    for party in proposal.parties:
        now = datetime.now(UTC).replace(microsecond=0)
        home = made_.home(party)
        studies.decide(home, proposal.number, "approved", approval_of(home), now=now)
    assert not hub.correspond(made_.office, [proposal.number])
    return proposal.number


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])
