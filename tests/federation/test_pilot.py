"""A pilot on loopback, with the processes of a real one: a hub, and a party in each home that only calls out."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pandas as pd
import pytest

from statfed.client.pilot import joining, serving
from statfed.core.errors import EngineError, Pending, Refused, UsageError
from statfed.core.pilot.papers import Participant
from statfed.federation.answers import Answer
from statfed.federation.pilot import run_number
from statfed.federation.run import Options
from statfed.server.pilot import hub
from statfed.server.pilot.office import Office, open_office
from tests.pilots import HOLDERS, Pilot, make_pilot


@contextmanager
def background(serve: Callable[[threading.Event], None]) -> Iterator[None]:
    """Something that serves until it is told to stop, in a thread; what it raised is raised here."""
    stop, failed = threading.Event(), []

    def run() -> None:
        try:
            serve(stop)
        except Exception as error:  # noqa: BLE001
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if failed:
        raise failed[0]


@contextmanager
def hub_up(office: Office) -> Iterator[str]:
    """The pilot's hub on loopback."""
    ready, shown = threading.Event(), []

    def told(address: str) -> None:
        shown.append(address)
        ready.set()

    with background(lambda stop: hub.serve(office, stop, told, "127.0.0.1")):
        assert ready.wait(60)
        yield shown[0]


@pytest.fixture
def pilot(tmp_path: Path, free_port: int) -> Pilot:
    return make_pilot(tmp_path, free_port)


@pytest.mark.processes
def test_parties_answer_by_name_over_a_hub_that_restarts_and_none_that_was_revoked(
    pilot: Pilot, tmp_path: Path
) -> None:
    office, frames = pilot.office, pilot.frames

    def ask(number: int) -> Answer:
        return run_number(office.root, number, Options(), notify=lambda _: None)

    first = pilot.propose().proposal.number
    with pytest.raises(EngineError, match="coordinator start"):
        hub.correspond(office, [first])
    with background(lambda stop: _serve_all(tmp_path, stop)):
        with hub_up(office) as address:
            _until(lambda: all(hub.connected(office).values()))
            assert hub.correspond(office, [first]) == {}
            with pytest.raises(Pending, match="not approved by 3 of 3 parties"):
                ask(first)
            pilot.decide(first, *HOLDERS)
            assert hub.correspond(office, [first]) == {}
            pooled = pd.concat(frames.values()).age.mean()
            answer = ask(first)
            assert answer.result.tables["estimates"][0]["estimate"] == pytest.approx(pooled, rel=1e-9)
            assert not answer.simulated
            with pytest.raises(Refused, match="approved for 1, and run as often"):
                ask(first)
            with httpx.Client(verify=False) as stranger:  # noqa: S501  it trusts nobody, and nobody trusts it
                for path in ("/v1/control/StartRun", "/v1/runtime/AcquireTask", "/docs", "/"):
                    assert stranger.post(f"https://{address}{path}").status_code == 403
            with pytest.raises(UsageError, match="coordinator: got one that is up"):
                hub.serve(office, threading.Event(), lambda _: None, "127.0.0.1")
        two = list(HOLDERS[:2])
        second = pilot.propose(holders=two, protection={"name": "plain"}, disclosure="none").proposal.number
        with hub_up(office):  # everything that it knew in memory is gone
            _until(lambda: all(hub.connected(office).values()))
            hub.correspond(office, [second])
            pilot.decide(second, *two)
            hub.correspond(office, [second])
            want = pd.concat([frames[name] for name in two]).age.mean()
            assert ask(second).result.tables["estimates"][0]["estimate"] == pytest.approx(want, rel=1e-9)
            open_office(office.root).revoke("insee", "left")
            _until(lambda: "insee" not in hub.control_of(office).nodes)
            with pytest.raises(Pending, match="insee: its approval does not hold: takes part in the pilot no more"):
                ask(first)


def _until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_home_that_has_not_joined_or_is_named_otherwise_does_not_start(pilot: Pilot, tmp_path: Path) -> None:
    office = pilot.office
    home = tmp_path / "istat"
    assert serving.check(home) == "istat"
    with pytest.raises(UsageError, match="no kit"):
        serving.check(tmp_path)
    office.sign(joining.request(tmp_path / "destatis", "destatis", "holder"))
    newer = tmp_path / "istat" / "pilot.kit"
    newer.write_text(office.kit("istat").read_text())
    with pytest.raises(UsageError, match="not joined with"):
        serving.check(home)
    joining.join(home, joining.look(home, newer))
    assert serving.check(home) == "istat"
    policy = home / "policy.toml"
    policy.write_text(policy.read_text().replace('"istat"', '"cbs"'))
    with pytest.raises(UsageError, match="want one name"):
        serving.check(home)


def test_the_hub_cuts_off_whose_time_is_over_and_takes_back_who_is_renewed(pilot: Pilot, tmp_path: Path) -> None:
    class Nodes:
        registered, gone = list[str](), list[int]()

        def register(self, name: str, _: bytes) -> int:
            self.registered.append(name)
            return len(self.registered)

        def unregister(self, node: int) -> None:
            self.gone.append(node)

    office, told = pilot.office, Nodes()
    known: dict[str, tuple[Participant, int]] = {}
    now = datetime.now(UTC)
    office.sign(joining.request(tmp_path / "cbs", "cbs", "holder"), days=10)
    due = hub.follow(office, told, known, now)  # type: ignore[arg-type]
    assert (set(known), told.gone) == (set(HOLDERS), [])
    assert abs(due - now - timedelta(days=10)) < timedelta(minutes=1)
    node = known["cbs"][1]
    hub.follow(office, told, known, due)  # type: ignore[arg-type]
    assert (set(known), told.gone) == ({"istat", "insee"}, [node])
    office.sign(joining.request(tmp_path / "cbs", "cbs", "holder"), days=20)
    hub.follow(office, told, known, due)  # type: ignore[arg-type]
    assert set(known) == set(HOLDERS)


@pytest.mark.parametrize(
    "changes",
    [
        {"holders": {"istat": "people.csv"}},
        {"codebook": None},
        {"seed": 1},
    ],
)
def test_a_study_of_a_pilot_names_holders_and_a_codebook_alone(pilot: Pilot, changes: dict[str, object]) -> None:
    pilot.study()
    with pytest.raises(UsageError, match="want names alone" if "holders" in changes else "want a codebook"):
        pilot.study(**changes)


def _serve_all(root: Path, stop: threading.Event) -> None:
    threads = [threading.Thread(target=serving.serve, args=(root / name, stop, lambda *_: None)) for name in HOLDERS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.fixture
def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])
