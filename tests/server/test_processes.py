"""The engine `processes`: real processes, sockets, TLS and signals."""

import io
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.supercore.task_identity import TaskIdentity

from statfed.core.errors import EngineError
from statfed.core.pilot.bundle import bundle
from statfed.core.progress import silent
from statfed.server.engine import Deployment, Session
from statfed.server.grid import processes
from statfed.server.grid._gate import FLEET, SECRET_HEADER
from statfed.server.grid._polling import PollingGrid
from statfed.server.limits import Limits

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes through /proc"),
]

ECHO = "_echo_app:app"
PRIVATE = "person 17"


@pytest.fixture(autouse=True, scope="module")
def _echo_app_is_importable() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]), prepend=os.pathsep)
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            patch.setenv(name, "http://127.0.0.1:9")  # nothing that stays on this machine goes by a proxy
            patch.delenv("NO_PROXY", raising=False)
            patch.delenv("no_proxy", raising=False)
        yield


def deployment(folder: Path, holders: int) -> Deployment:
    homes = {f"office-{number}": folder / f"office-{number}" for number in range(1, holders + 1)}
    for home in homes.values():
        home.mkdir()
    return Deployment("test", homes, folder / "logs")


def ask(kind: str, node: int, content: RecordDict | None = None) -> Message:
    return Message(content or RecordDict({"ask": ConfigRecord({"round": 1})}), node, f"query.{kind}")


def ask_all(session: Session, kind: str, timeout: float = 60) -> list[Message]:
    return list(session.grid.send_and_receive([ask(kind, n) for n in session.nodes.values()], timeout=timeout))


def descendants() -> set[int]:
    """Pids of all processes below this one; ended ones that nobody has waited for do not count."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent, *_ = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if state != "Z":
                parents[int(entry.name)] = int(parent)
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


def gone(pids: set[int]) -> bool:
    end = time.monotonic() + 5
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def browser(opened: SimpleNamespace) -> httpx.Client:
    return httpx.Client(verify=ssl.create_default_context(cafile=str(opened.federation.authority)), trust_env=False)


def shipping(witness: Path) -> bytes:
    """A bundle that ships code: importing any of it creates the file `witness`."""
    code = f"import pathlib\npathlib.Path({str(witness)!r}).touch()\napp = None\n"
    buffer = io.BytesIO(bundle())
    with zipfile.ZipFile(buffer) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    for name in ("statfed/client/app.py", "shipped.py", "sitecustomize.py", "_echo_app.py"):
        files[name] = code.encode()
    files["pyproject.toml"] = files["pyproject.toml"].replace(b"statfed.client.flower.app:app", b"shipped:app")
    with zipfile.ZipFile(out := io.BytesIO(), "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


@pytest.fixture(scope="class")
def opened(tmp_path_factory: pytest.TempPathFactory, _echo_app_is_importable: None) -> Iterator[SimpleNamespace]:
    """A federation of two holders, with what was told while it started and what is left of it."""
    folder = tmp_path_factory.mktemp("federation")
    told: list[tuple[str, int, int]] = []
    with processes.federation(
        deployment(folder, 2), lambda phase, done, total: told.append((phase, done, total)), app=ECHO
    ) as federation:
        started = descendants()
        yield SimpleNamespace(federation=federation, session=federation.session, told=told, folder=folder)
    assert gone(started)
    names = {"superlink", *(f"office-{n}/{part}" for n in (1, 2) for part in ("runner", "supernode"))}
    assert set(federation.session.memory) == names
    assert all(20 < peak < 4000 for peak in federation.session.memory.values())
    assert not federation.authority.parent.exists()


class TestAnOpenFederation:
    """One federation serves these tests; its processes have gone before later tests count theirs."""

    def test_each_node_id_is_the_holder_it_is_said_to_be(self, opened: SimpleNamespace) -> None:
        replies = ask_all(opened.session, "echo")
        homes = {reply.metadata.src_node_id: reply.content["reply"]["home"] for reply in replies}
        assert homes == {node: str(opened.folder / name) for name, node in opened.session.nodes.items()}

    def test_start_tells_every_holder(self, opened: SimpleNamespace) -> None:
        assert opened.told[:3] == [("start SuperLink", 0, 1), ("start SuperLink", 1, 1), ("holders online", 0, 2)]
        assert opened.told[-1] == ("holders online", 2, 2)

    def test_arrays_arrive_unchanged(self, opened: SimpleNamespace) -> None:
        values = np.random.default_rng(1).normal(size=300_000).astype(np.float64)
        content = RecordDict({"arrays": ArrayRecord([values])})
        (node, *_) = opened.session.nodes.values()
        (reply,) = opened.session.grid.send_and_receive([ask("array", node, content)], timeout=60)
        (back,) = reply.content["arrays"].to_numpy_ndarrays()
        np.testing.assert_array_equal(back, values)

    def test_what_holders_send_is_in_no_file_of_the_superlink(self, opened: SimpleNamespace) -> None:
        values = np.full(1000, 7.25)
        (node, *_) = opened.session.nodes.values()
        content = RecordDict({"arrays": ArrayRecord([values])})
        (reply,) = opened.session.grid.send_and_receive([ask("array", node, content)], timeout=60)
        assert values.tobytes() in reply.content["arrays"].to_numpy_ndarrays()[0].tobytes()
        pid = opened.federation.processes.owned["superlink"].process.pid
        files = {entry.resolve() for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.is_file()}
        files |= {path for path in opened.federation.authority.parent.rglob("*") if path.is_file()}
        assert opened.folder / "logs/superlink.log" in files
        assert [path for path in files if values.tobytes()[:400] in path.read_bytes()] == []

    def test_exception_text_stays_at_the_holder(self, opened: SimpleNamespace) -> None:
        replies = ask_all(opened.session, "fail")
        assert len(replies) == 2
        for reply in replies:
            assert reply.error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
            assert reply.error.reason == "internal error at the holder; see its log"
        assert PRIVATE in (opened.folder / "logs/office-1.log").read_text()
        assert PRIVATE not in (opened.folder / "logs/superlink.log").read_text()

    def test_a_bundle_with_another_hash_is_refused_and_not_imported(self, opened: SimpleNamespace) -> None:
        token_of_the_run = TaskIdentity.task_id, TaskIdentity.run_id
        try:
            inner = opened.federation.coordinator.open(shipping(opened.folder / "imported"))
            grid = PollingGrid(inner, opened.federation.processes.check, 0.05)
            (reply, *_) = grid.send_and_receive([ask("echo", n) for n in opened.session.nodes.values()], timeout=60)
            opened.federation.coordinator.finish("completed")
        finally:
            TaskIdentity.task_id, TaskIdentity.run_id = token_of_the_run
        assert reply.error.code == ErrorCode.INVALID_FAB
        assert "bundle refused: got sha256" in str(reply.error.reason)
        assert not (opened.folder / "imported").exists()

    @pytest.mark.parametrize(
        "path",
        [
            "/v1/control/register-node",
            "/v1/control/start-run",
            "/v1/runtime/acquire-task",
            "/v1/runtime/pull-messages",
            "/docs",
            "/openapi.json",
            "/v1/fleet",
            "/v1/control/start-run/v1/fleet/",
            "//v1/fleet/pull-messages",
        ],
    )
    def test_holders_reach_nothing_but_the_fleet_api(self, opened: SimpleNamespace, path: str) -> None:
        with browser(opened) as client:
            assert client.get(f"https://{opened.federation.public}/health").status_code == 200
            assert client.post(f"https://{opened.federation.public}{path}").status_code == 403
            assert client.post(f"https://{opened.federation.private}{path}").status_code == 401
            wrong = {SECRET_HEADER: "0" * 64}
            assert client.post(f"https://{opened.federation.private}{path}", headers=wrong).status_code == 401

    @pytest.mark.parametrize("path", [f"{FLEET}pull-messages", "/health"])
    def test_a_request_that_says_it_is_too_large_is_refused_before_it_comes(
        self, opened: SimpleNamespace, path: str
    ) -> None:
        context = ssl.create_default_context(cafile=str(opened.federation.authority))
        host, port = opened.federation.public.split(":")
        head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {Limits().largest_request + 1}\r\n\r\n"
        with (
            socket.create_connection((host, int(port))) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
            secure.makefile("rb") as answer,
        ):
            secure.sendall(head.encode())
            assert answer.read().startswith(b"HTTP/1.1 413 ")  # `read` returns: it hangs up too

    def test_no_process_shows_a_secret_and_no_private_key_is_left(self, opened: SimpleNamespace) -> None:
        secret = opened.federation.coordinator._headers[SECRET_HEADER]
        for pid in descendants():
            assert secret.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
            assert secret.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
        work = opened.federation.authority.parent
        assert work.stat().st_mode & 0o777 == 0o700
        for path in work.rglob("*"):
            assert not path.is_file() or b"PRIVATE KEY" not in path.read_bytes()
        assert (opened.folder / "logs/office-1.log").stat().st_mode & 0o777 == 0o600

    def test_an_unregistered_key_is_refused(self, opened: SimpleNamespace, tmp_path: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        form = serialization.PrivateFormat.OpenSSH
        file = tmp_path / "stranger"
        file.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
        command = [sys.executable, "-m", "statfed.client.flower.runner", "--home", str(tmp_path), "--app", ECHO]
        command += ["--superlink", opened.federation.public, "--root-certificates", str(opened.federation.authority)]
        command += ["--node-key", str(file), "--bundle-sha256", "0" * 64]
        directly = os.environ | {"NO_PROXY": "*"}
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=directly)
        assert ended.returncode == 71
        assert "the SuperNode ended" in ended.stderr
        assert set(opened.session.grid.get_node_ids()) == set(opened.session.nodes.values())

    def test_what_has_come_by_the_timeout_is_returned(self, opened: SimpleNamespace) -> None:
        first, second = opened.session.nodes.values()
        runner = opened.federation.processes.owned["office-2"].process
        begin = time.monotonic()
        runner.send_signal(signal.SIGSTOP)
        try:
            replies = list(opened.session.grid.send_and_receive([ask("echo", first), ask("echo", second)], timeout=2))
        finally:
            runner.send_signal(signal.SIGCONT)
        assert [reply.metadata.src_node_id for reply in replies] == [first]
        assert time.monotonic() - begin < 20
        (late,) = opened.session.grid.send_and_receive([ask("echo", second)], timeout=60)
        assert late.metadata.src_node_id == second


def fails_soon(session: Session, names: list[str], kill: Callable[[], None]) -> str:
    """The error of a round of the holders `names` in which `kill` is called."""
    kill()
    begin = time.monotonic()
    with pytest.raises(EngineError) as caught:
        list(session.grid.send_and_receive([ask("echo", session.nodes[name]) for name in names], timeout=60))
    assert time.monotonic() - begin < 5
    return str(caught.value)


DEATHS = [
    (
        "office-3",
        "statfed.client.flower.runner",
        "office-3: its runner ended: killed by SIGKILL; its log is .*office-3.log",
    ),
    (
        "office-2",
        "statfed.client.flower.node",
        "office-2: its SuperNode ended: killed by SIGKILL; its log is .*office-2.log",
    ),
    (
        "superlink",
        "statfed.server.grid._superlink",
        "superlink: it ended: killed by SIGKILL; its log is .*superlink.log",
    ),
]


def test_whoever_is_killed_ends_the_round_and_is_named_and_an_interrupt_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each death happens in what the one before left whole, while all holders are busy; one holder lives to the end."""
    monkeypatch.setattr(processes, "bundle", lambda: shipping(tmp_path / "imported"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    started: set[int] = set()

    def drive(federation: processes.Federation) -> None:
        started.update(descendants())
        session, owned, buried = federation.session, federation.processes.owned, {}
        assert len(started) == 7
        assert len(ask_all(session, "echo")) == 3
        socket.create_connection(("127.0.0.1", port)).close()
        session.grid.push_messages([ask("sleep", node) for node in session.nodes.values()])
        wait_for(lambda: all((tmp_path / name / "busy").exists() for name in session.nodes))
        for name, module, said in DEATHS:
            federation.processes.check()
            pid = owned[name].supernode if module.endswith(".node") else owned[name].process.pid
            assert pid is not None
            assert module in Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            living = [holder for holder in session.nodes if holder in owned]
            assert re.match(said, fails_soon(session, living, partial(os.kill, pid, signal.SIGKILL)))
            buried[name] = owned.pop(name)  # what is left is a whole federation to those who look
        assert list(owned) == ["office-1"]
        owned.update(buried)
        raise KeyboardInterrupt

    places = deployment(tmp_path, 3)
    with pytest.raises(KeyboardInterrupt), processes.federation(places, silent, app=ECHO, port=port) as federation:
        drive(federation)
    assert gone(started)
    assert not (tmp_path / "imported").exists()  # the bundle's hash was the pinned one, and still nothing of it ran


def test_nothing_is_left_when_the_engine_itself_is_killed(tmp_path: Path) -> None:
    deployment(tmp_path, 1)
    code = f"""
import pathlib, time
from statfed.core.progress import silent
from statfed.server.engine import Deployment
from statfed.server.grid import processes
home = pathlib.Path({str(tmp_path)!r})
def drive(session):
    (home / "open").touch()
    time.sleep(60)
processes.run(Deployment("r", {{"office-1": home / "office-1"}}, home / "logs"), drive, silent, app={ECHO!r})
"""
    environment = os.environ | {"TMPDIR": str(tmp_path)}  # what a killed engine leaves there: public certificates
    engine = subprocess.Popen([sys.executable, "-c", code], env=environment)
    try:
        wait_for(lambda: (tmp_path / "open").exists())
        started = descendants()
    finally:
        engine.kill()
        engine.wait()
    assert len(started) == 4
    assert gone(started)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]


def test_a_holder_that_cannot_load_its_app_is_named_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"(?s)^office-1: its runner ended: exit status 1.*No module named 'absent'"):
        processes.run(deployment(tmp_path, 1), lambda _: None, silent, app="absent:app")
    assert not descendants()


def test_a_port_in_use_is_said_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EngineError, match=f"port in use: got 127.0.0.1:{port}; want a free port"):
            processes.run(deployment(tmp_path, 1), lambda _: None, silent, port=port)


def test_the_bundle_names_installed_modules_and_holds_no_code() -> None:
    with zipfile.ZipFile(io.BytesIO(bundle())) as archive:
        assert archive.namelist() == ["pyproject.toml", ".info/CONTENT"]
        assert b'clientapp = "statfed.client.flower.app:app"' in archive.read("pyproject.toml")
    assert bundle() == bundle()
