"""The privacy ledger under locks, crashes and races."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from statfed.client.guard import chain
from statfed.client.guard.ledger import read_only
from statfed.core.errors import EngineError, LedgerCorrupt, Refused, UsageError
from statfed.core.privacy import accountant as privacy
from statfed.core.privacy import filters
from statfed.core.privacy.accountant import Gaussian
from tests.ledgers import CLEARER, DELTA, NOISY, filled, opened

BOTH = {("charge", "acknowledged"), ("share", "acknowledged")}

# --- locks, crashes and races


def test_the_check_and_its_entry_exclude_other_writers_from_the_start(path: Path) -> None:
    with opened(path) as one, opened(path) as two:
        two._chain.db.execute("PRAGMA busy_timeout = 0")
        with one._chain.writing():
            with pytest.raises(EngineError, match="held by another process"):
                two.reserve("two", "study", 1, NOISY)
            other = sqlite3.connect(path, timeout=0)
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("BEGIN IMMEDIATE")
            other.close()
        two.reserve("two", "study", 1, NOISY)


def test_a_commit_that_fails_charges_nothing_and_may_be_repeated(path: Path) -> None:
    with opened(path) as ledger:
        ledger.reserve("one", "study", 3, NOISY)
        ledger._chain.db.execute("PRAGMA busy_timeout = 0")
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM entries").fetchone()
        with pytest.raises(EngineError, match="held by another process"):
            ledger.charge("one", "study", 1, NOISY)
        reader.close()
        assert ledger.spending().charged == 0
        ledger.charge("one", "study", 1, NOISY)
        ledger.verify()


_PRELUDE = """
import os, sys, signal
from pathlib import Path
from statfed.client.guard.ledger import Ledger
from statfed.core.errors import Refused
from statfed.core.privacy.accountant import Gaussian, renyi_epsilon
from statfed.core.privacy.spending import Reservation
path, NOISY = Path(sys.argv[1]), Gaussian(noise_multiplier=40.0)
CLAIM = Reservation((), Gaussian(noise_multiplier=15.0), 10)
def opened(path):
    return Ledger(path, dataset="toy", unit="person", epsilon=1.0, delta=1e-5)
renyi_epsilon([NOISY], 1e-5)  # the accountant is imported before any fork or race
"""

_CRASH = (
    _PRELUDE
    + """
def reserved(ledger):
    ledger.reserve("one", "study", 3, NOISY)
    ledger.charge("one", "study", 1, NOISY)
def shared(ledger):
    ledger.set_aside("one", "study", CLAIM)
    ledger.charge("one", "study", 1, NOISY)
actions = {
    "reserve": (reserved, lambda ledger: ledger.reserve("two", "study", 2, NOISY)),
    "charge": (reserved, lambda ledger: ledger.charge("one", "study", 2, NOISY)),
    "disclose": (reserved, lambda ledger: ledger.disclose("one", "study", 1, "note")),
    "release": (reserved, lambda ledger: ledger.release("one")),
    "claim": (reserved, lambda ledger: ledger.set_aside("two", "study", CLAIM)),
    "share": (shared, lambda ledger: ledger.charge("one", "study", 2, NOISY)),
    "free": (shared, lambda ledger: ledger.release("one")),
}
for name, (before, action) in actions.items():
    for step in range(100):
        copy = path.with_name(f"{name}-{step}.sqlite")
        child = os.fork()
        if child == 0:
            with opened(copy) as ledger:
                before(ledger)
                seen = 0
                def die(statement):
                    global seen
                    if seen == step:
                        os.kill(os.getpid(), signal.SIGKILL)
                    seen += 1
                ledger._chain.db.set_trace_callback(die)
                action(ledger)
                os._exit(0)  # acknowledged: dies without closing
        _, status = os.waitpid(child, 0)
        print(copy, name, "acknowledged" if status == 0 else "killed", flush=True)
        if status == 0:
            break
"""
)


def test_a_crash_at_any_statement_never_forgets_what_was_acknowledged(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _CRASH, str(path)], capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    names = ("reserve", "charge", "disclose", "release", "claim", "share", "free")
    # killed before BEGIN, PRAGMA, INSERT and COMMIT, then not at all
    assert {name: sum(n == name for _, n, _ in lines) for name in names} == dict.fromkeys(names, 5)
    held = privacy.renyi_epsilon([CLEARER], DELTA)
    for file, name, status in lines:
        with opened(Path(file)) as ledger:
            ledger.verify()
            spent = ledger.spending()
            assert spent.charged + spent.reserved + spent.disclosures >= (1 if name in ("release", "free") else 3)
            assert spent.charged == (2 if (name, status) in BOTH else 1)
            assert spent.entries == (4 if status == "acknowledged" else 3)
            if name in ("share", "free"):  # all of a claim counts until it is known to have been given back
                given = (name, status) == ("free", "acknowledged")
                assert (spent.filter_epsilon < held) if given else (spent.filter_epsilon == held)
            if status == "killed":
                ledger.charge("one", "study", 2, NOISY)


def test_who_comes_while_a_ledger_is_begun_waits_and_finds_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link, marked, go = os.link, threading.Event(), threading.Event()

    def slow(source: Path, target: Path) -> None:
        if target == path:
            marked.set()
            assert go.wait(60)
        link(source, target)

    def first_entry() -> str:
        with opened(path) as ledger:
            return ledger.entries()[0].hash

    monkeypatch.setattr("os.link", slow)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(first_entry)
        assert marked.wait(60)
        second = pool.submit(first_entry)
        early = wait([second], timeout=0.5).done
        go.set()
        assert not early
        assert first.result() == second.result()


_BIRTH = (
    _PRELUDE
    + """
link, seen = os.link, 0
def die(*arguments):
    global seen
    if seen == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    seen += 1
    link(*arguments)
os.link = die
opened(path).reserve("one", "study", 1, NOISY)
"""
)


@pytest.mark.parametrize(("step", "left"), [(0, False), (1, True)])
def test_a_crash_while_a_ledger_is_begun_over_refuses_at_most(path: Path, step: int, left: bool) -> None:
    died = subprocess.run([sys.executable, "-c", _BIRTH, str(path), str(step)], check=False)
    assert died.returncode == -signal.SIGKILL
    marker = path.with_name("ledger.opened")
    assert (path.exists(), marker.exists()) == (False, left)
    if left:
        with pytest.raises(
            LedgerCorrupt, match=r"or ledger.opened deleted too, if that very first opening was cut off"
        ):
            opened(path)
        marker.unlink()
    with opened(path) as ledger:
        ledger.reserve("one", "study", 1, NOISY)
        ledger.verify()


def test_a_commit_cut_off_halfway_is_undone_by_the_holder_and_not_by_a_viewer(path: Path) -> None:
    head, copy = filled(path), path.with_name("copy.sqlite")
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA cache_size = 1")  # pages reach the file before COMMIT: what a power cut in COMMIT leaves
    db.execute("BEGIN IMMEDIATE")
    for number in range(8, 200):
        chain.insert(db, chain.sealed(number, head, "disclose", "one", "study", number))
    shutil.copy(path, copy)
    shutil.copy(f"{path}-journal", f"{copy}-journal")
    db.close()
    assert copy.read_bytes() != path.read_bytes()
    with pytest.raises(UsageError, match="has an interrupted entry; open as its holder"):
        read_only(copy)
    with opened(copy) as ledger:
        assert ledger.verify() == head
    with read_only(copy) as ledger:
        assert ledger.verify() == head


_LOOP = (
    _PRELUDE
    + """
ledger = opened(path)
ledger.reserve("one", "study", 300, Gaussian(noise_multiplier=400.0))
for round in range(1, 301):
    ledger.charge("one", "study", round, Gaussian(noise_multiplier=400.0))
    print(round, flush=True)
"""
)


@pytest.mark.parametrize("acknowledged", [1, 40])
def test_a_killed_holder_has_charged_all_that_it_acknowledged(path: Path, acknowledged: int) -> None:
    with subprocess.Popen([sys.executable, "-c", _LOOP, str(path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        for line in child.stdout:
            if int(line) >= acknowledged:
                break
        child.send_signal(signal.SIGKILL)
        said = max([acknowledged, *(int(line) for line in child.stdout if line.endswith("\n"))])
    with opened(path) as ledger:
        ledger.verify()
        assert said <= ledger.spending().charged <= said + 1
        with pytest.raises(Refused, match=f"round {said} of run one was already charged"):
            ledger.charge("one", "study", said, Gaussian(noise_multiplier=400.0))


_RACE = (
    _PRELUDE
    + """
print("ready", flush=True)
sys.stdin.readline()
wins = 0
for run in range(10):
    try:
        with opened(path) as ledger:
            ledger.reserve(f"{sys.argv[2]}-{run}", "study", int(sys.argv[3]), NOISY)
        wins += 1
    except Refused as error:
        assert "privacy budget" in str(error)
print(wins, flush=True)
"""
)


@pytest.mark.parametrize(("rounds", "winners"), [(60, 1)])
def test_racing_processes_cannot_both_spend_the_last_of_the_budget(path: Path, rounds: int, winners: int) -> None:
    assert filters.more_like([], privacy.repeated(NOISY, rounds), filters.Budget(1.0, DELTA)) == winners
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", _RACE, str(path), name, str(rounds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("left", "right")
    ]
    for racer in racers:
        assert racer.stdout
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin
        racer.stdin.write("go\n")
        racer.stdin.flush()
    assert sum(int(racer.communicate()[0]) for racer in racers) == winners
    with opened(path) as ledger:
        ledger.verify()
        assert ledger.spending().reserved == rounds * winners
        assert [entry.kind for entry in ledger.entries()].count("open") == 1
    assert {file.name for file in path.parent.iterdir()} == {path.name, "ledger.opened"}
