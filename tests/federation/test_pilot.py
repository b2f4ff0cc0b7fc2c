"""A pilot on loopback, with the processes of a real one: a hub, and a party in each home that only calls out."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest

from statfed.client.guard.policy import Budget, Dataset, HolderName, write_policy
from statfed.client.guard.templates import made
from statfed.client.pilot import joining, serving
from statfed.core.codebook import make_codebook
from statfed.core.errors import EngineError, UsageError
from statfed.core.pilot.papers import Participant
from statfed.core.study import Study, make_study
from statfed.federation.answers import Answer
from statfed.federation.run import Options, run_study
from statfed.server.pilot import hub
from statfed.server.pilot.office import Office, Settings, create, open_office

HOLDERS = ("istat", "cbs", "insee")
CODEBOOK = """[columns.age]
type = "integer"
low = 0
high = 120
"""


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


def study(**changes: object) -> Study:
    base = {
        "method": "mean",
        "options": {"columns": ["age"]},
        "holders": list(HOLDERS),
        "codebook": "people.codebook.toml",
        "engine": "pilot",
        "protection": {"name": "secure-aggregation"},
    }
    return make_study({**base, **changes})


@pytest.fixture
def pilot(tmp_path: Path, free_port: int) -> tuple[Office, dict[str, pd.DataFrame]]:
    """A pilot in which everybody has joined, and each holder's records."""
    office = create(tmp_path / "trade", Settings(name="trade", host="127.0.0.1", port=free_port))
    (tmp_path / "people.codebook.toml").write_text(CODEBOOK)
    digest = make_codebook({"columns": {"age": {"type": "integer", "low": 0, "high": 120}}}).digest()
    rng, frames = np.random.default_rng(1), {}
    for name in HOLDERS:
        office.sign(joining.request(tmp_path / name, name, "holder"))
    for name in HOLDERS:
        home = tmp_path / name
        joining.join(home, joining.look(home, office.kit(name)))
        frames[name] = pd.DataFrame({"age": rng.integers(18, 80, 50)})
        frames[name].to_csv(home / "people.csv", index=False)
        policy = made(
            "rehearsal",
            holder=HolderName(name=name),
            dataset=Dataset(id=name, path="people.csv", records=50, persons=50, codebooks=(digest,)),
            budget=Budget(unit="record", epsilon=1.0, delta=1e-6),
        )
        write_policy(policy, home / "policy.toml")
    return office, frames


@pytest.mark.processes
def test_parties_answer_by_name_over_a_hub_that_restarts_and_none_that_was_revoked(
    pilot: tuple[Office, dict[str, pd.DataFrame]], tmp_path: Path
) -> None:
    office, frames = pilot
    engine = hub.PilotEngine(office.root)

    def ask(asked: Study) -> Answer:
        return run_study(asked, Options(workspace=office.root, base=tmp_path, engine=engine))

    with pytest.raises(EngineError, match="coordinator start"):
        ask(study())
    with background(lambda stop: _serve_all(tmp_path, stop)):
        with hub_up(office) as address:
            pooled = pd.concat(frames.values()).age.mean()
            assert ask(study()).result.tables["estimates"][0]["estimate"] == pytest.approx(pooled, rel=1e-9)
            with httpx.Client(verify=False) as stranger:  # noqa: S501  it trusts nobody, and nobody trusts it
                for path in ("/v1/control/StartRun", "/v1/runtime/AcquireTask", "/docs", "/"):
                    assert stranger.post(f"https://{address}{path}").status_code == 403
            with pytest.raises(UsageError, match="coordinator: got one that is up"):
                hub.serve(office, threading.Event(), lambda _: None, "127.0.0.1")
        with hub_up(office):  # everything that it knew in memory is gone
            two = list(HOLDERS[:2])
            again = ask(study(holders=two, protection={"name": "plain"}, disclosure="none"))  # another roster
            want = pd.concat([frames[name] for name in two]).age.mean()
            assert again.result.tables["estimates"][0]["estimate"] == pytest.approx(want, rel=1e-9)
            open_office(office.root).revoke("insee", "left")
            end = time.monotonic() + 30
            while "insee" in hub.control_of(office).nodes:
                assert time.monotonic() < end
                time.sleep(0.05)
            with pytest.raises(UsageError, match="got insee; want participants of the pilot: cbs, istat"):
                ask(study())


def test_a_home_that_has_not_joined_or_is_named_otherwise_does_not_start(
    pilot: tuple[Office, dict[str, pd.DataFrame]], tmp_path: Path
) -> None:
    office, _ = pilot
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


def test_the_hub_cuts_off_whose_time_is_over_and_takes_back_who_is_renewed(
    pilot: tuple[Office, dict[str, pd.DataFrame]], tmp_path: Path
) -> None:
    class Nodes:
        registered, gone = list[str](), list[int]()

        def register(self, name: str, _: bytes) -> int:
            self.registered.append(name)
            return len(self.registered)

        def unregister(self, node: int) -> None:
            self.gone.append(node)

    office, told = pilot[0], Nodes()
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
def test_a_study_of_a_pilot_names_holders_and_a_codebook_alone(changes: dict[str, object]) -> None:
    study()
    with pytest.raises(UsageError, match="want names alone" if "holders" in changes else "want a codebook"):
        study(**changes)


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
