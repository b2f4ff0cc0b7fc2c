"""A pilot from empty folders to a result, by its commands alone: three organisations and a coordinator.

    python -m statfed.lab.pilot.demo [--short] [--keep FOLDER] [--loopback]

Each acts on a machine of its own (`statfed.lab.pilot.machines`). Prints each command as its people type it, with the
seconds it took, and what it came to: a mean under secure aggregation, beside that of the pooled records, and without
--short a model trained with noise. The commands are those of docs/pilot.md; what a person reads out by telephone is
given as --words. Exit status 1 where a result is not as it should be.
"""

import argparse
import json
import os
import re
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from statfed.core.errors import EngineError, StatfedError
from statfed.core.process import die_with_parent
from statfed.lab.pilot.machines import HUB, Machine, Step, enter_networks, inside, networks, networks_permitted

PARTIES = ("istat", "cbs", "insee")
COORDINATOR = "coordinator"
RECORDS = 2000
CODEBOOK = """[columns.age]
type = "integer"
low = 0
high = 120

[columns.hours]
type = "integer"
low = 0
high = 80

[columns.employed]
type = "category"
categories = ["no", "yes"]
"""
MEAN = """method = "mean"
holders = ["istat", "cbs", "insee"]
codebook = "people.codebook.toml"

[options]
columns = ["age"]

[protection]
name = "secure-aggregation"
"""
TRAINING = """method = "dp-fedsgd"
holders = ["istat", "cbs", "insee"]
codebook = "people.codebook.toml"

[options]
target = "employed"
features = ["age", "hours"]
rounds = 5

[options.model]
name = "mlp"
hidden = 4

[privacy]
epsilon = 0.5
noise = "shared"

[protection]
name = "secure-aggregation"
"""
CONNECTING = 120.0
"""Seconds that parties have to connect."""


def people(name: str, records: int = RECORDS) -> pd.DataFrame:
    """A party's records, the same at every call."""
    rng = np.random.default_rng([len(name), *name.encode()])
    age = rng.integers(18, 80, records)
    employed = rng.random(records) < 1 / (1 + np.exp((age - 55) / 8))
    hours = np.where(employed, rng.integers(15, 60, records), 0)
    return pd.DataFrame({"age": age, "hours": hours, "employed": np.where(employed, "yes", "no")})


def provision(coordinator: Machine, parties: Sequence[Machine], host: str, said: Sequence[str] = ()) -> None:
    """From empty folders to parties that know each other's keys. said: further options of `pilot init`."""
    words = {COORDINATOR: _words(coordinator.run(f"statfed pilot init trade --host {host}", said=said))}
    for party in parties:
        words[party.name] = _words(party.run(f"statfed pilot request --name {party.name} --home {party.name}"))
        party.send(f"{party.name}.request", coordinator)
    requests = " ".join(f"{party.name}.request" for party in parties)
    coordinator.run(f"statfed pilot sign {requests}", said=_compared(words, COORDINATOR))
    for party in parties:
        coordinator.send(f"trade/kits/{party.name}.kit", party)
        party.run(f"statfed pilot join {party.name}.kit --home {party.name}", said=_compared(words, party.name))


def bring_data(party: Machine, said: Sequence[str] = ()) -> None:
    """A party's own data, and the policy that it writes for them. said: further options of `holder add-data`."""
    name = party.name
    people(name).to_parquet(party.folder / "people.parquet")
    (party.folder / "people.codebook.toml").write_text(CODEBOOK, encoding="utf-8")
    party.run(f"statfed holder add-data people.parquet --codebook people.codebook.toml --home {name}", said=said)


def connect(coordinator: Machine, parties: Sequence[Machine], said: Sequence[str] = ()) -> None:
    """Start everybody, and wait until all are connected. said: further options of `coordinator start`."""
    coordinator.start("statfed coordinator start --pilot trade", "listening", said=said)
    for party in parties:
        party.run(f"statfed doctor --home {party.name}")
        party.start(f"statfed holder start --home {party.name}", "calling")
    end, told, coordinator.told = time.monotonic() + CONNECTING, coordinator.told, lambda _: None
    status = "statfed coordinator status --pilot trade"
    begun = time.perf_counter()
    while not all(json.loads(coordinator.run(status, said=["--json"]))["connected"].values()):
        if time.monotonic() > end:
            raise EngineError(f"parties: not all connected in {CONNECTING:.0f} s\n{coordinator.run(status)}")
        time.sleep(0.5)
    coordinator.told = told
    told(Step(COORDINATOR, status, time.perf_counter() - begun))


def agree(
    coordinator: Machine, parties: Sequence[Machine], number: int, study: str, text: str, said: Sequence[str] = ()
) -> None:
    """Propose a study, and have every party approve it. number: which it is in this pilot; said: further options."""
    (coordinator.folder / study).write_text(text, encoding="utf-8")
    (coordinator.folder / "people.codebook.toml").write_text(CODEBOOK, encoding="utf-8")
    coordinator.run(f"statfed study propose {study} --pilot trade", said=said)
    for party in parties:
        party.run(f"statfed study review {number} --home {party.name}")
        party.run(f"statfed study approve {number} --home {party.name}")


def answer(coordinator: Machine, number: int) -> Mapping[str, Any]:
    """The result of a study that all have approved."""
    found: Mapping[str, Any] = json.loads(coordinator.run(f"statfed run {number} --pilot trade", said=["--json"]))
    return found


def _words(printed: str) -> str:
    found = re.search(r"\b([a-z]{5}-){4}[a-z]{5}\b", printed)
    if found is None:
        raise EngineError(f"words: got none in: {printed}")
    return found[0]


def _compared(words: Mapping[str, str], own: str) -> list[str]:
    return [part for name, said in words.items() if name != own for part in ("--words", said)]


@contextmanager
def _places(work: Path, loopback: bool, told: Callable[[Step], None]) -> Iterator[dict[str, Machine]]:
    """A machine for each, all ended at the end."""
    names = (COORDINATOR, *PARTIES)
    with ExitStack() as stack:
        through = {} if loopback else stack.enter_context(networks(names, COORDINATOR, work))
        machines = {name: Machine(name, work / name, tuple(through.get(name, ())), told) for name in names}
        for machine in machines.values():
            stack.callback(machine.stop)
        yield machines


def rehearse(work: Path, *, short: bool, loopback: bool, console: Console) -> bool:
    """The whole rehearsal in a folder; is every result as it should be?"""
    steps: list[Step] = []

    def told(step: Step) -> None:
        steps.append(step)
        console.print(f"{step.seconds:6.1f} s  {step.role}$ {step.command}", markup=False, highlight=False)

    begun, well = time.perf_counter(), True
    with _places(work, loopback, told) as machines:
        coordinator, parties = machines[COORDINATOR], [machines[name] for name in PARTIES]
        port = str(_free_port())
        provision(coordinator, parties, "127.0.0.1" if loopback else HUB, ["--port", port] if loopback else [])
        for party in parties:
            bring_data(party, ["--epsilon", "1"])
        connect(coordinator, parties, ["--host", "127.0.0.1"] if loopback else [])
        rows: list[str] = []
        agree(coordinator, parties, 1, "mean.study.toml", MEAN)
        found = answer(coordinator, 1)
        got = found["estimates"][0]["estimate"]
        want = float(pd.concat([people(name) for name in PARTIES]).age.mean())
        well &= bool(np.isclose(got, want, rtol=1e-9))
        rows.append(f"mean age: got {got:.6f}; pooled records give {want:.6f}")
        rows.append(_pace("mean", found))
        for party in parties:
            party.run(f"statfed status --home {party.name}")
            party.run(f"statfed ledger show --home {party.name}")
        if not short:
            agree(coordinator, parties, 2, "training.study.toml", TRAINING)
            found = answer(coordinator, 2)
            spent = max(one["study_epsilon"] for one in found["spending"])
            well &= 0 < spent <= 0.5
            rows.append(f"training: {len(found['sums'])} rounds, epsilon {spent:.3f} spent at a party, of 0.5 agreed")
            rows.append(_pace("training", found))
        memory = {name: machine.resident_mib() for name, machine in machines.items()}
        for party in parties:
            party.run(f"statfed ledger verify --home {party.name}")
            party.run(f"statfed audit verify --home {party.name}")
        coordinator.run("statfed audit verify --pilot trade")
        coordinator.run("statfed coordinator stop --pilot trade")
    total, by_role = (time.perf_counter() - begun) / 60, Counter(step.role for step in steps)
    console.print(f"\n{'network namespaces' if not loopback else 'loopback'}; everything is stopped")
    rows.append(f"commands: {', '.join(f'{role} {count}' for role, count in by_role.items())}; {total:.1f} minutes")
    rows.append("resident MiB: " + ", ".join(f"{name} {mib:.0f}" for name, mib in memory.items()))
    for row in rows:
        console.print(row, markup=False, highlight=False)
    return well


def _pace(what: str, found: Mapping[str, Any]) -> str:
    seconds = [one["seconds"] for one in found["sums"]]
    return f"{what}: {len(seconds)} sums, {np.median(seconds):.2f} s each (median)"


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Rehearse; the exit status."""
    parser = argparse.ArgumentParser(prog="statfed.lab.pilot.demo", description="Rehearse a pilot on this machine.")
    parser.add_argument("--short", action="store_true", help="one statistic, no training")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="a new folder, which is kept")
    parser.add_argument("--loopback", action="store_true", help="no network namespaces, where they are permitted too")
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = parser.parse_args(given)
    console = Console(soft_wrap=True)
    loopback = options.loopback or not (inside() or networks_permitted())
    if not loopback and not inside():
        return enter_networks("statfed.lab.pilot.demo", given)
    if inside():
        die_with_parent(os.getppid())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through what ends everything that was started
    try:
        with ExitStack() as stack:
            if options.keep is None:
                work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="statfed-pilot-")))
            else:
                work = options.keep.resolve()
                work.mkdir(parents=True)
            return 0 if rehearse(work, short=options.short, loopback=loopback, console=console) else 1
    except (StatfedError, OSError) as error:
        console.print(f"error: {error}", markup=False, highlight=False)
        return 1


if __name__ == "__main__":
    sys.exit(main())
