"""An upgrade of a running pilot, hub first and then party by party, and the way back: what works meanwhile.

    python benchmarks/upgrade.py [--write docs/upgrade.md] [--flower FOLDER]

Builds two wheels of this project that differ in their version, puts them into environments of their own beside two
releases of Flower (wheels in --flower, else fetched with pip), and lets a coordinator and three parties change from one
to the other while kits, homes and ledgers stay. After each step a study that was approved before is run. Exit status 1
where a kit had to be issued again, where a refusal cost anything or named no versions, or where all have the same
version and it does not work.
"""

import argparse
import hashlib
import json
import re
import socket
import sqlite3
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from statfed.core.errors import EngineError
from statfed.lab.pilot import demo
from statfed.lab.pilot.machines import Machine

ROOT = Path(__file__).resolve().parents[1]
OLD, NEW = "0.1.0", "0.2.0"
FLOWER_OLD, FLOWER_NEW = "1.41.0", "1.42.0"
_ABOUT = """
What a pilot does while its parties change to another version one after the other: `python benchmarks/upgrade.py --write
docs/upgrade.md` upgrades a hub and three parties on one machine and takes them back, and writes this page.

## Steps

1. Tell all parties the version and a day. Kits, homes, policies, approvals and ledgers stay as they are.
2. The coordinator: `statfed stop --pilot trade`, install, `statfed coordinator start --pilot trade`.
3. Each party, in any order: end `statfed holder start`, install, `statfed doctor --home istat`, start it again.
4. A study is run by parties of one version alone: until the last has it, a run is refused, names both versions, and
   costs nothing.
5. Back: the same, with the earlier version. Entries of ledgers are never taken back.
"""


@dataclass(frozen=True)
class Edition:
    """An environment with one version of this package and one of Flower."""

    statfed: str
    flower: str
    python: Path

    def __str__(self) -> str:
        return f"statfed {self.statfed}, Flower {self.flower}"


@dataclass(frozen=True)
class Row:
    """One step: what was done, whether the study ran, what was said, and what it cost."""

    step: str
    hub: str
    parties: str
    outcome: str
    said: str
    entries: int
    doctor: str
    seconds: float


def wheel(version: str, work: Path) -> Path:
    """A wheel of the committed files under another version."""
    source = work / f"source-{version}"
    source.mkdir()
    files = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True).stdout  # noqa: S607
    subprocess.run(["tar", "x", "-C", str(source)], input=files, check=True)  # noqa: S607
    project = source / "pyproject.toml"
    project.write_text(re.sub(r'(?m)^version = ".*"$', f'version = "{version}"', project.read_text(), count=1))
    words = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(work / "wheels"), str(source)]
    subprocess.run(words, check=True, capture_output=True)
    (built,) = (work / "wheels").glob(f"statfed-{version}-*.whl")
    return built


def edition(statfed: Path, flower: str, flowers: Path, work: Path) -> Edition:
    """An environment beside this one: everything else is this one's."""
    version = statfed.name.split("-")[1]
    folder = work / f"env-{version}-{flower}"
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    (own,) = (folder / "lib").glob("python*/site-packages")
    (own / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (found,) = flowers.glob(f"flwr-{flower}-*.whl")
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(own)]
    subprocess.run([*words, str(found), str(statfed)], check=True, capture_output=True)
    return Edition(version, flower, python)


def flower_wheels(folder: Path) -> Path:
    """Wheels of both releases of Flower, fetched where they are not there."""
    folder.mkdir(parents=True, exist_ok=True)
    for version in (FLOWER_OLD, FLOWER_NEW):
        if not list(folder.glob(f"flwr-{version}-*.whl")):
            words = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(folder)]
            subprocess.run([*words, f"flwr=={version}"], check=True)
    return folder


class Rehearsal:
    """A pilot whose machines change their environment."""

    def __init__(self, work: Path, begin: Edition) -> None:
        python = str(begin.python)
        self.coordinator = Machine("coordinator", work / "coordinator", python=python)
        self.parties = [Machine(name, work / name, python=python) for name in demo.PARTIES]
        self.port = _free_port()
        self.editions: dict[str, Edition] = dict.fromkeys(("coordinator", *demo.PARTIES), begin)

    def begin(self) -> None:
        demo.provision(self.coordinator, self.parties, "127.0.0.1", ["--port", str(self.port)])
        for party in self.parties:
            demo.bring_data(party, ["--epsilon", "100", "--template", "rehearsal"])
        demo.connect(self.coordinator, self.parties, ["--host", "127.0.0.1"])
        demo.agree(self.coordinator, self.parties, 1, "mean.study.toml", demo.MEAN, ["--runs", "50"])
        self.kits = self.digests()

    def digests(self) -> dict[str, str]:
        """Of each party's kit."""
        return {
            party.name: hashlib.sha256((party.folder / party.name / "pilot.kit").read_bytes()).hexdigest()
            for party in self.parties
        }

    def change(self, name: str, to: Edition) -> None:
        """Stop one machine's process, and start it with another environment."""
        machine = next(one for one in (self.coordinator, *self.parties) if one.name == name)
        machine.stop()
        machine.python = str(to.python)
        self.editions[name] = to
        if machine is self.coordinator:
            machine.start("statfed coordinator start --pilot trade", "listening", said=["--host", "127.0.0.1"])
        else:
            machine.start(f"statfed holder start --home {name}", "calling")

    def connected(self, seconds: float = 60.0) -> bool:
        """Are all of them, within that time?"""
        end = time.monotonic() + seconds
        status = "statfed coordinator status --pilot trade"
        while time.monotonic() < end:
            if all(json.loads(self.coordinator.run(status, said=["--json"]))["connected"].values()):
                return True
            time.sleep(0.5)
        return False

    def entries(self) -> int:
        """Entries of all ledgers."""
        found = 0
        for party in self.parties:
            path = party.folder / party.name / "ledger.sqlite"
            if path.exists():
                with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
                    found += int(db.execute("SELECT count(*) FROM entries").fetchone()[0])
        return found

    def row(self, step: str) -> Row:
        """Run the approved study, and say what came of it."""
        begun, before = time.perf_counter(), self.entries()
        joined = self.connected()
        doctor = self.doctor()
        try:
            found = json.loads(self.coordinator.run("statfed run 1 --pilot trade", said=["--json"], limit=180))
            outcome, said = "finished", f"mean {found['estimates'][0]['estimate']:.3f}"
        except EngineError as error:
            outcome, said = "refused", _message(str(error))
        if not joined:
            said = f"not all connected; {said}"
        editions = [str(self.editions[name]) for name in demo.PARTIES]
        return Row(
            step,
            str(self.editions["coordinator"]),
            "; ".join(f"{editions.count(one)} x {one}" for one in dict.fromkeys(editions)),
            outcome,
            said,
            self.entries() - before,
            doctor,
            time.perf_counter() - begun,
        )

    def doctor(self) -> str:
        """What `doctor` says of versions at the last party to change, and what it finds wrong."""
        party = self.parties[-1]
        try:
            said = json.loads(party.run(f"statfed doctor --home {party.name}", said=["--json"]))
        except EngineError as error:
            return _message(str(error))
        found = [one["what"] for one in said["findings"] if one["state"] != "ok" or "version" in one["code"]]
        return "; ".join(found) or "nothing wrong, no versions"

    def stop(self) -> None:
        for machine in (*self.parties, self.coordinator):
            machine.stop()


def _message(text: str) -> str:
    said = re.findall(r'"message": ?"((?:[^"\\]|\\.)*)"', text)
    return (said[-1] if said else text.rpartition("error: ")[2]).replace("\\n", "; ").replace("\n", "; ").strip()


def rehearse(rehearsal: Rehearsal, old: Edition, mixed: Edition, new: Edition) -> Iterator[Row]:
    """Step by step. mixed: the old package beside the new Flower."""
    rehearsal.begin()
    yield rehearsal.row("all as they were")
    names = demo.PARTIES
    rehearsal.change("coordinator", mixed)
    yield rehearsal.row("Flower: the hub is upgraded")
    for name in names:
        rehearsal.change(name, mixed)
    yield rehearsal.row("Flower: all are upgraded")
    rehearsal.change("coordinator", new)
    yield rehearsal.row("statfed: the hub is upgraded")
    rehearsal.change(names[0], new)
    yield rehearsal.row(f"statfed: {names[0]} is upgraded")
    for name in names[1:]:
        rehearsal.change(name, new)
    yield rehearsal.row("statfed: all are upgraded")
    rehearsal.change("coordinator", old)
    yield rehearsal.row("back: the hub")
    for name in names:
        rehearsal.change(name, old)
    yield rehearsal.row("back: all")


def problems(rows: Sequence[Row], kept: bool) -> Iterator[str]:
    """What is not as it has to be."""
    if not kept:
        yield "kits: got other bytes after the upgrades; want them as they were"
    for row in rows:
        same = row.parties.count(" x ") == 1 and row.parties.split(" x ", 1)[1] == row.hub
        if same and row.outcome != "finished":
            yield f"{row.step}: got {row.outcome} where all have one version; want it to finish: {row.said}"
        if row.outcome == "refused" and row.entries:
            yield f"{row.step}: got {row.entries} entries of a run that was refused; want none"
        if row.outcome == "refused" and not (OLD in row.said and NEW in row.said):
            yield f"{row.step}: got {row.said!r}; want both versions named"


def page(rows: Sequence[Row], kept: bool) -> Iterator[str]:
    """The page, in Markdown."""
    yield "# Upgrades\n"
    yield _ABOUT.strip()
    yield f"\n## Rehearsal\n\nKits issued again: {'0' if kept else 'some'}.\n"
    yield "| step | hub | parties | a run | what was said | entries of ledgers | doctor at a party |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for row in rows:
        said = row.said.replace("|", "&#124;").replace("\n", " ")
        yield f"| {row.step} | {row.hub} | {row.parties} | {row.outcome} | {said} | {row.entries} | {row.doctor} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Rehearse; the exit status."""
    parser = argparse.ArgumentParser(description="An upgrade of a running pilot, and the way back.")
    parser.add_argument("--write", type=Path, help="the page, in Markdown")
    parser.add_argument("--flower", type=Path, help="folder of Flower's wheels")
    given = parser.parse_args(arguments)
    rows: list[Row] = []
    kept = True
    with tempfile.TemporaryDirectory(prefix="statfed-upgrade-", ignore_cleanup_errors=True) as temporary:
        work = Path(temporary)
        flowers = flower_wheels(given.flower or work / "flower")
        first, second = wheel(OLD, work), wheel(NEW, work)
        old = edition(first, FLOWER_OLD, flowers, work)
        mixed = edition(first, FLOWER_NEW, flowers, work)
        new = edition(second, FLOWER_NEW, flowers, work)
        rehearsal = Rehearsal(work, old)
        try:
            for row in rehearse(rehearsal, old, mixed, new):
                rows.append(row)
                print(row, flush=True)
                kept = rehearsal.kits == rehearsal.digests()
                if given.write:  # a rehearsal that breaks off leaves what it saw
                    given.write.write_text("\n".join(page(rows, kept)) + "\n", encoding="utf-8")
        finally:
            rehearsal.stop()
    wrong = list(problems(rows, kept))
    for one in wrong:
        print(one, file=sys.stderr)
    return 1 if wrong else 0


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
