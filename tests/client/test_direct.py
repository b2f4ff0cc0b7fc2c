"""Direct lines on real sockets: what carries, and everything that has to be refused by who it is or what it sends."""

import signal
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import grpc  # type: ignore[import-untyped]
import numpy as np
import pytest

from statfed.client.direct import CALL, CHUNK, SERVICE, Server, _proof, _Refusal
from statfed.client.guard.addresses import Direct
from statfed.client.sending import Sending, ticket
from statfed.core.errors import Refused
from statfed.core.identity import Identity, create_identity
from statfed.core.linkage import Sealed
from statfed.core.pilot.certificates import is_pinned
from statfed.core.protection import Agreement
from statfed.strategies.linkages import ecdh
from tests.client.lines import Two, free, head, messages, sha256, slowly

CONTENT = np.random.default_rng(1).bytes(768_000)  # three chunks, the last not full


@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1, len(CONTENT)])
def test_what_is_sent_is_there_byte_by_byte_when_the_call_returns(size: int) -> None:
    two, content = Two(), CONTENT[:size]
    with two.listening() as box:
        two.send(content)
        assert box.take("office", sha256(content)) == content
        assert box.take("office", sha256(content)) is None


def test_who_calls_with_another_key_than_the_pinned_one_is_refused_and_learns_nothing() -> None:
    two = Two()
    stranger = Identity("office", Identity.ephemeral("office")._key, two.office.pins)
    with two.listening() as box:
        told = two.refused(CONTENT, stranger)
        assert "bank: got no line" in told
        assert two.address not in told
        assert box.take("office", sha256(CONTENT)) is None


def test_whoever_listens_with_another_key_than_the_pinned_one_gets_nothing() -> None:
    two = Two()
    two.bank = Identity("bank", Identity.ephemeral("bank")._key, two.bank.pins)
    with two.listening() as box:
        assert "bank: got no line" in two.refused(CONTENT)
        assert box.take("office", sha256(CONTENT)) is None


def test_a_party_that_is_pinned_and_has_no_part_in_the_run_is_refused() -> None:
    two = Two()
    other = Identity.ephemeral("third")
    two.bank = Identity("bank", two.bank._key, {**two.bank.pins, "third": other.public})
    two.direct = two.direct.model_copy(update={"peers": {**two.direct.peers, "third": free()}})
    with two.listening() as box:
        told = two.refused(CONTENT, Identity("third", other._key, two.office.pins))
        assert "run: got none that is open here with this caller" in told
        assert box.take("third", sha256(CONTENT)) is None


def test_without_a_certificate_or_without_tls_nothing_is_taken() -> None:
    two = Two()
    with two.listening():
        code, _ = two.said(messages(CONTENT), proof=False)
        assert code is grpc.StatusCode.UNAVAILABLE
        with grpc.insecure_channel(two.address) as channel, pytest.raises(grpc.RpcError):
            channel.stream_unary(f"/{SERVICE}/{CALL}")(iter(messages(CONTENT)), timeout=20)


def test_both_ends_agree_on_tls_1_3_and_the_certificate_is_by_the_identity_key() -> None:
    two = Two()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    host, port = two.address.split(":")
    with (
        two.listening(),
        socket.create_connection((host, int(port))) as plain,
        context.wrap_socket(plain) as line,
    ):
        assert line.version() == "TLSv1.3"
        shown = ssl.DER_cert_to_PEM_cert(line.getpeercert(binary_form=True) or b"").encode()
    assert is_pinned(shown, two.bank.public)
    assert not is_pinned(shown, two.office.public)


@pytest.mark.parametrize("version", [[b"TLSv1.2"], None], ids=["1.2", "not told"])
def test_an_older_tls_is_refused_whoever_calls(version: list[bytes] | None) -> None:
    two = Two()
    server = Server(two.bank, two.direct)

    class Old:
        def auth_context(self) -> dict[str, list[bytes]]:
            told = {"x509_pem_cert": [_proof(two.office)[1]]}
            return told if version is None else told | {"ssl_tls_version": version}

    try:
        with pytest.raises(_Refusal, match=r"line: got no TLSv1.3") as refused:
            server._caller(Old())
        assert refused.value.code is grpc.StatusCode.UNAUTHENTICATED
    finally:
        server.stop()


def test_a_packet_that_is_repeated_is_kept_once() -> None:
    two = Two()
    with two.listening() as box:
        two.send(CONTENT)
        code, told = two.said(messages(CONTENT))
        assert (code, told) == (grpc.StatusCode.ALREADY_EXISTS, "packet: got it before; want each once")
        assert box.take("office", sha256(CONTENT)) == CONTENT
        assert two.said(messages(CONTENT))[0] is grpc.StatusCode.ALREADY_EXISTS
        assert box.take("office", sha256(CONTENT)) is None


@pytest.mark.parametrize(
    ("sent", "code", "said"),
    [
        (messages(CONTENT)[:-1], "DATA_LOSS", f"got {2 * CHUNK} bytes in 2 chunks; want {len(CONTENT)} in 3"),
        (messages(CONTENT)[:1], "DATA_LOSS", "got 0 bytes in 0 chunks"),
        ([*messages(CONTENT), b"more"], "OUT_OF_RANGE", f"got more than the {len(CONTENT)} bytes it said"),
        (messages(CONTENT, sha256="00" * 32), "DATA_LOSS", "want the same SHA-256"),
        ([messages(CONTENT)[0], *reversed(messages(CONTENT)[1:])], "DATA_LOSS", "want the same SHA-256"),
        (messages(CONTENT, run="another"), "PERMISSION_DENIED", "run: got none that is open"),
        (messages(CONTENT, agreement="00" * 32), "PERMISSION_DENIED", "run: got none that is open"),
        (messages(CONTENT, size=20_000_000), "OUT_OF_RANGE", "got 20000000 bytes; want at most 10000000"),
        (messages(CONTENT)[1:], "INVALID_ARGUMENT", "head: got none"),
        ([b"{}"], "INVALID_ARGUMENT", "head: got none"),
        ([], "INVALID_ARGUMENT", "head: got none"),
        ([messages(CONTENT)[0], b"x" * (CHUNK + 1)], "OUT_OF_RANGE", "got more than"),
        ([messages(CONTENT)[0], b"x" * (2 * CHUNK)], "RESOURCE_EXHAUSTED", "larger than max"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_a_stream_that_is_not_what_it_says_is_refused_and_leaves_nothing(
    sent: list[bytes], code: str, said: str
) -> None:
    two = Two()
    with two.listening() as box:
        got, told = two.said(sent)
        assert got.name == code
        assert said in told
        assert box.take("office", sha256(CONTENT)) is None
        two.send(CONTENT)  # and no room is lost
        assert box.take("office", sha256(CONTENT)) == CONTENT
        assert box._taken == 0


def test_a_caller_that_goes_silent_is_cut_off_and_holds_no_room() -> None:
    two = Two(seconds=0.5)
    with two.listening() as box:
        code, _ = two.said(slowly(messages(CONTENT)[:2], 3.0))
        assert code is grpc.StatusCode.CANCELLED
        two.send(CONTENT)
        assert box.take("office", sha256(CONTENT)) == CONTENT


def test_who_sends_faster_than_is_read_waits_until_there_is_room_and_no_longer_than_agreed() -> None:
    two = Two(seconds=1.0)
    first, second = CONTENT, CONTENT[::-1]
    with two.listening(most=len(CONTENT)) as box:
        two.send(first)
        told = two.refused(second)
        assert "bank: " in told
        assert "want" in told
        assert box.take("office", sha256(second)) is None
        waiting = threading.Thread(target=two.send, args=(second,))
        waiting.start()
        assert box.take("office", sha256(first)) == first
        waiting.join(20)
        assert box.take("office", sha256(second)) == second


LISTENER = """
import sys, time
from tests.client.lines import *
from statfed.core.identity import load_identity
from pathlib import Path
home, address, office = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
direct = Direct(listen=address, peers={"office": "127.0.0.1:1"})
server = Server(load_identity(home, "bank", {"office": office}), direct)
server.boxes["run"] = Box(AGREEMENT, frozenset({"office"}), 1_000_000)
server.boxes["run"].reserve(999_999, time.monotonic())
print("listens", flush=True)
time.sleep(60)
"""


def test_a_receiver_that_is_killed_in_the_middle_ends_the_call_with_a_refusal(tmp_path: Path) -> None:
    two = Two()
    public = create_identity(tmp_path)
    two.office = Identity("office", two.office._key, {"bank": public})
    own = [sys.executable, "-c", LISTENER, str(tmp_path), two.address, two.office.public]
    with subprocess.Popen(own, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listens\n"
        killer = threading.Timer(0.5, process.send_signal, (signal.SIGKILL,))
        killer.start()
        told = two.refused(CONTENT)  # waits for room there
        killer.join()
    assert "bank: got no line" in told


def agreement(run: str = "run") -> Agreement:
    sizes = {"bank": 100, "office": 100}
    return Agreement(run, "0" * 64, "ecdh", ("bank", "office"), (), 2, sizes, ecdh.Options(to="office"))


def both(two: Two) -> tuple[Sending, Sending]:
    """Office and bank, each with its lines open for one run."""
    at = {"office": free(), "bank": two.address}
    ends = Sending(), Sending()
    for end, identity in zip(ends, (two.office, two.bank), strict=True):
        other = next(name for name in at if name != identity.name)
        end.open(agreement(), identity, Direct(listen=at[identity.name], peers={other: at[other]}, seconds=20.0))
    return ends


def test_a_reply_has_a_ticket_where_a_packet_was_and_its_receiver_gets_the_packet_once() -> None:
    office, bank = both(Two())
    try:
        reply = office.sent("run", {"chunk": Sealed.of("bank", CONTENT), "number": b"3"})
        assert reply == {"chunk": ticket("office", len(CONTENT), sha256(CONTENT)), "number": b"3"}
        assert bank.received("run", {"chunk": reply["chunk"], "number": b"4"}) == {"chunk": CONTENT, "number": b"4"}
        for again in (reply["chunk"], ticket("office", 5, sha256(b"other")), ticket("third", 5, sha256(b"other"))):
            with pytest.raises(Refused, match=r"got a ticket for a packet of .* that is not here, or was taken"):
                bank.received("run", {"chunk": again})
    finally:
        office.close("run")
        bank.close("run")


def test_after_its_last_run_a_party_does_not_listen_and_what_was_sent_is_gone() -> None:
    two = Two()
    office, bank = both(two)
    office.sent("run", {"chunk": Sealed.of("bank", CONTENT)})
    bank.close("run")
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", int(two.address.split(":")[1])))
    with pytest.raises(Refused, match="bank: got no line"):
        office.sent("run", {"chunk": Sealed.of("bank", CONTENT[1:])})
    office.close("run")


@pytest.mark.parametrize(
    ("direct", "said"),
    [
        (Direct(), r"got no address to listen at; want \[direct\] listen"),
        (Direct(listen="127.0.0.1:1"), r"got no address of office; want it in \[direct.peers\]"),
        (Direct(listen="203.0.113.7:9443", peers={"office": "127.0.0.1:1"}), "cannot listen at its own address"),
    ],
)
def test_a_party_whose_file_does_not_do_says_what_is_wanted(direct: Direct, said: str) -> None:
    with pytest.raises(Refused, match=said):
        Sending().open(agreement(), Two().bank, direct)


def test_a_party_without_the_others_pinned_key_opens_no_line() -> None:
    two = Two()
    direct = Direct(listen=free(), peers={"office": free()})
    with pytest.raises(Refused, match="got no pinned key of office"):
        Sending().open(agreement(), Identity("bank", two.bank._key, {}), direct)


@pytest.mark.parametrize("address", ["", "host", "host:0", "host:70000", "me@host:1", "http://h:1", "a b:1", "unix:/x"])
def test_what_is_no_address_is_none(address: str) -> None:
    with pytest.raises(ValueError, match="want host:port"):
        Direct(listen=address)
    with pytest.raises(ValueError, match="want host:port"):
        Direct(peers={"bank": address})


def test_sealed_packets_are_bytes_and_say_whose_they_are() -> None:
    sealed = Sealed.of("bank", b"x")
    assert (sealed, sealed.to) == (b"x", "bank")


class Echo:
    """A program that answers what it hears in capitals, at a Unix socket."""

    def __init__(self, path: Path) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        threading.Thread(target=self._answer, daemon=True).start()

    def _answer(self) -> None:
        while True:
            try:
                link, _ = self.listener.accept()
            except OSError:
                return
            with link:
                link.sendall(heard(link).upper())


def asked(path: Path, said: bytes) -> bytes:
    """What comes back of a connection, to its end."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(20)
        link.connect(str(path))
        link.sendall(said)
        link.shutdown(socket.SHUT_WR)
        return heard(link)


def heard(link: socket.socket) -> bytes:
    """What comes out of a connection, to its end."""
    return b"".join(iter(lambda: link.recv(CHUNK), b""))


def test_programs_of_two_parties_talk_through_the_line_and_no_longer_than_the_run(tmp_path: Path) -> None:
    office, bank = both(Two())
    echo = Echo(tmp_path / "program")
    said = b"statistics " * 100_000
    try:
        for end, peer in ((office, "bank"), (bank, "office")):
            lines = end.lines("run")
            assert lines is not None
            own = tmp_path / "program" if end is bank else tmp_path / "nobody"
            lines.tunnel(peer, own, tmp_path / f"to-{peer}")
        assert (tmp_path / "to-bank").stat().st_mode & 0o077 == 0
        assert [asked(tmp_path / "to-bank", said) for _ in range(3)] == [said.upper()] * 3
        assert asked(tmp_path / "to-office", b"who is there?") == b""  # no program listens there
    finally:
        bank.close("run")
        office.close("run")
        echo.listener.close()
    with pytest.raises(OSError, match="refused"):
        asked(tmp_path / "to-bank", said)


@pytest.mark.parametrize("who", ["stranger", "another run", "no program"])
def test_a_connection_of_nobody_or_to_nobody_reaches_no_program(who: str, tmp_path: Path) -> None:
    two = Two()
    echo = Echo(tmp_path / "program")
    caller = Identity("office", Identity.ephemeral("office")._key, two.office.pins) if who == "stranger" else two.office
    with two.listening() as box, two.line(caller) as line:
        if who != "no program":
            box.programs["office"] = tmp_path / "program"
        first = head(b"", run="another" if who == "another run" else "run")
        code = {"stranger": "UNAVAILABLE", "another run": "PERMISSION_DENIED", "no program": "FAILED_PRECONDITION"}
        with pytest.raises(grpc.RpcError) as refused:
            list(line.stream(first, iter([b"let me in"])))
        assert refused.value.code().name == code[who]
    echo.listener.close()
