"""Papers of a pilot: nothing edited, borrowed, replayed or of another kind is taken, and what stands against a
connection is said in words. Every attack has a control that passes."""

import http.server
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from statfed.client.pilot.joining import OWN, join, look, pinned, request, standing
from statfed.core.errors import UsageError
from statfed.core.identity import Identity
from statfed.core.pilot.certificates import (
    Authority,
    new_authority,
    new_key,
    public_pem,
    server_certificate,
    server_pem,
)
from statfed.core.pilot.checks import Finding, call, certificate, until
from statfed.core.pilot.documents import read_document
from statfed.core.pilot.papers import Kit, Roster, make_kit, make_request, read_kit, read_request
from statfed.core.pilot.proxy import read_proxy
from statfed.core.pilot.words import confirm, words_of
from statfed.server.pilot.office import Office, Settings, create, open_office

DAY = timedelta(days=1)


def now() -> datetime:
    """The time when it is asked: tests may run long after they were collected."""
    return datetime.now(UTC)


def office_at(folder: Path, **changes: object) -> Office:
    return create(folder, Settings.model_validate({"name": "trade", "host": "127.0.0.1", "port": 8443, **changes}))


def admit(office: Office, home: Path, name: str) -> Path:
    """A party's request, signed; its kit."""
    return office.sign(request(home, name, "holder"))


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return office_at(tmp_path / "trade")


def test_parties_pin_each_other_and_follow_every_change(office: Office, tmp_path: Path) -> None:
    homes = {name: tmp_path / name for name in ("istat", "cbs", "insee")}
    made = {name: request(home, name, "holder") for name, home in homes.items()}
    for one in made.values():
        office.sign(one)
    for name, home in homes.items():
        change = look(home, office.kit(name))
        assert change.first
        others = {one: made[one].words for one in made if one != name}
        assert change.to_compare() == {"coordinator": change.signed.words} | others
        join(home, change)
        assert pinned(home, {}) == {one: made[one].identity for one in others}
    office.revoke("cbs", "left")
    change = look(homes["istat"], office.kit("istat"))
    assert (change.removed, change.to_compare()) == (("cbs",), {})  # a removal needs nobody
    join(homes["istat"], change)
    assert pinned(homes["istat"], {}) == {"insee": made["insee"].identity}
    with pytest.raises(UsageError, match="a key that was revoked"):
        office.sign(made["cbs"])
    again = request(tmp_path / "cbs-again", "cbs", "holder")
    office.sign(again)
    change = look(homes["insee"], office.kit("insee"))
    assert change.replaced == ("cbs",)
    assert change.to_compare() == {"cbs": again.words}


def test_secret_keys_never_leave_the_party_and_are_its_owners_alone(office: Office, tmp_path: Path) -> None:
    home = tmp_path / "istat"
    kit = admit(office, home, "istat")
    for secret in ("identity.key", "node.key"):
        assert (home / secret).stat().st_mode & 0o777 == 0o600
        content = (home / secret).read_bytes().strip()
        sent = (home / "pilot.request").read_bytes() + kit.read_bytes()
        assert not any(line in sent for line in content.splitlines() if len(line) > 30 and b"-----" not in line)
    for path in office.root.rglob("*"):
        assert path.stat().st_mode & 0o022 == 0
        if path.suffix == ".key":
            assert path.stat().st_mode & 0o077 == 0


def test_an_edited_paper_is_refused_whatever_was_edited(office: Office, tmp_path: Path) -> None:
    home = tmp_path / "istat"
    text = read_document(admit(office, home, "istat"))
    read_kit(text, "kit")
    document = json.loads(text)
    for edit in (
        {"body": document["body"] | {"address": "elsewhere.example:8443"}},
        {"body": document["body"] | {"extra": 1}},
        {"signature": "00" * 64},
        {"signature": document["signature"][:-2]},
        {"key": Identity.ephemeral("x").public},
    ):
        with pytest.raises(UsageError, match="edited or damaged"):
            read_kit(json.dumps(document | edit), "kit")
    for wrong in ("", "[]", "{", text[:-40], "\x00", json.dumps(document | {"more": 1}), '{"body": 1e999}'):
        with pytest.raises(UsageError, match="want a document of a pilot"):
            read_kit(wrong, "kit")
    twice = text.replace('"format"', '"format": "x",\n  "format"', 1)
    with pytest.raises(UsageError, match="no readable JSON"):
        read_kit(twice, "kit")
    with pytest.raises(UsageError, match="got format"):
        read_kit((home / "pilot.request").read_text(), "kit")  # signed, and of another kind
    newer = json.dumps(document | {"format": "statfed.pilot.kit/2"})
    with pytest.raises(UsageError, match="made by another version of statfed"):
        read_kit(newer, "kit")


@given(place=st.integers(0, 10_000), byte=st.integers(1, 255))
def test_no_changed_byte_gives_another_kit(place: int, byte: int) -> None:
    content = bytearray(EXAMPLE.encode())
    content[place % len(content)] ^= byte
    try:
        changed = read_kit(content.decode("utf-8", "replace"), "kit")
    except UsageError:
        return
    assert changed.kit == read_kit(EXAMPLE, "kit").kit  # white space


def test_a_request_for_keys_of_somebody_else_is_refused() -> None:
    victim, node = Identity.ephemeral("istat"), new_key()
    text = make_request(victim, "holder", node, _public(node), now())
    assert read_request(text, "request").name == "istat"
    thief = Identity.ephemeral("istat")
    with pytest.raises(UsageError, match="without proof"):  # the victim's node under the thief's identity
        read_request(make_request(thief, "holder", new_key(), _public(node), now()), "request")
    document = json.loads(text)
    document["body"]["name"] = "cbs"
    with pytest.raises(UsageError, match="edited or damaged"):
        read_request(json.dumps(document), "request")


def test_two_participants_never_share_a_name_or_a_key(office: Office, tmp_path: Path) -> None:
    admit(office, tmp_path / "istat", "istat")
    with pytest.raises(UsageError, match="other keys"):
        admit(office, tmp_path / "impostor", "istat")
    with pytest.raises(UsageError, match="own keys"):
        admit(office, tmp_path / "istat", "istat-again")
    assert [one.name for one in office.roster.participants] == ["istat"]


def test_kits_of_another_party_coordinator_pilot_or_time_are_refused(office: Office, tmp_path: Path) -> None:
    home, other = tmp_path / "istat", tmp_path / "cbs"
    old = tmp_path / "old.kit"
    old.write_text(admit(office, home, "istat").read_text())
    admit(office, other, "cbs")
    with pytest.raises(UsageError, match="other keys than those"):
        look(home, office.kit("cbs"))
    join(home, look(home, office.kit("istat")))
    with pytest.raises(UsageError, match="older than 2"):
        look(home, old)
    strange = office_at(tmp_path / "evil")
    strange.sign(read_request((home / "pilot.request").read_text(), "request"))
    with pytest.raises(UsageError, match="another coordinator's key"):
        look(home, strange.kit("istat"))
    kit = read_kit(office.kit("istat").read_text(), "kit").kit
    other_authority = kit.model_copy(update={"authority": strange.authority.pem.decode()})
    (tmp_path / "x.kit").write_text(make_kit(other_authority, office.identity))
    with pytest.raises(UsageError, match="another authority"):
        look(home, tmp_path / "x.kit")
    assert look(home, office.kit("istat")).to_compare() == {}


def test_an_edited_roster_stops_the_coordinator(office: Office, tmp_path: Path) -> None:
    admit(office, tmp_path / "istat", "istat")
    path = office.root / "roster.json"
    path.write_text(path.read_text().replace('"istat"', '"cbs"'))
    with pytest.raises(UsageError, match="edited or damaged"):
        admit(open_office(office.root), tmp_path / "cbs", "cbs")


def test_pins_of_policy_and_pilot_have_to_agree(office: Office, tmp_path: Path) -> None:
    for name in ("istat", "cbs"):
        admit(office, tmp_path / name, name)
    home = tmp_path / "istat"
    join(home, look(home, office.kit("istat")))
    key = pinned(home, {})["cbs"]
    assert pinned(home, {"cbs": key, "hub": "00" * 32}) == {"cbs": key, "hub": "00" * 32}
    with pytest.raises(UsageError, match="cbs: got one key"):
        pinned(home, {"cbs": "11" * 32})
    assert pinned(tmp_path / "nobody", {"cbs": key}) == {"cbs": key}
    (home / OWN).write_text("[pilot]\nname = 'trade'\n")
    with pytest.raises(UsageError, match="missing"):
        standing(home)


def test_words_differ_with_every_part_and_are_compared_as_people_say_them() -> None:
    assert words_of("a", "bc") != words_of("ab", "c")
    words = {"istat": words_of("a"), "cbs": words_of("b")}
    confirm(words, [words["istat"].upper().replace("-", "  "), words["cbs"]])
    for given_words in ([words["istat"]], [*words.values(), words_of("c")], []):
        with pytest.raises(UsageError, match="words: got none"):
            confirm(words, given_words)


def test_a_renewed_hub_needs_no_new_kit(office: Office, tmp_path: Path) -> None:
    kit = admit(office, tmp_path / "istat", "istat").read_text()
    before = (office.root / "hub" / "server.pem").read_bytes()
    office.renew()
    assert office.kit("istat").read_text() == kit
    hub = office.root / "hub"
    assert (hub / "server.pem").read_bytes() != before
    found = list(
        certificate(
            (hub / "server.pem").read_bytes(),
            (hub / "server.key").read_bytes(),
            office.authority.pem,
            "127.0.0.1",
            now(),
        )
    )
    assert {one.state for one in found} == {"ok"}


def test_files_that_do_not_fit_are_said_in_words(office: Office) -> None:
    hub, authority = office.root / "hub", office.authority.pem
    pem, key = (hub / "server.pem").read_bytes(), (hub / "server.key").read_bytes()
    other = new_authority("other", DAY)
    for at, host, root, secret, code in (
        (now() + 400 * DAY, "127.0.0.1", authority, key, "certificate-expired"),
        (now() - DAY, "127.0.0.1", authority, key, "certificate-expired"),
        (now(), "hub.example", authority, key, "certificate-host"),
        (now(), "127.0.0.1", other.pem, key, "certificate-authority"),
        (now(), "127.0.0.1", authority, server_pem(new_key()), "key-mismatch"),
        (now(), "127.0.0.1", authority, b"-----", "key-mismatch"),
        (now(), "127.0.0.1", authority, None, ""),
    ):
        assert [f.code for f in certificate(pem, secret, root, host, at) if f.state == "failed"][-1:] == (
            [code] if code else []
        )
    assert [f.state for f in certificate(b"x", None, authority, "x", now())] == ["failed"]
    assert until("x", "it", None, now() + 3 * DAY, now()).state == "warning"


class _Hub(http.server.BaseHTTPRequestHandler):
    date, status, node = None, 200, "known"

    def do_GET(self) -> None:
        self.send_response_only(self.status)
        self.send_header("Date", format_datetime(self.date or datetime.now(UTC), usegmt=True))
        self.send_header("Content-Length", "0")
        self.send_header("x-statfed-node", self.node)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def hub(
    folder: Path,
    authority: Authority | None,
    hosts: tuple[str, ...] = ("127.0.0.1",),
    port: int = 0,
    **facts: object,
) -> Iterator[str]:
    """A server on loopback, on a free port unless one is said; without an authority it speaks no TLS."""
    server = http.server.HTTPServer(("127.0.0.1", port), type("Hub", (_Hub,), facts))
    if authority:
        key = new_key()
        lifetime = facts.get("lifetime", DAY)
        assert isinstance(lifetime, timedelta)
        (folder / "s.pem").write_bytes(server_certificate(authority, "hub", hosts, key.public_key(), lifetime))
        (folder / "s.key").write_bytes(server_pem(key))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "s.pem", folder / "s.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def failures(found: Iterator[Finding]) -> list[str]:
    return [one.code for one in found if one.state == "failed"]


def test_what_stands_against_a_connection_is_found(tmp_path: Path) -> None:
    authority, other = new_authority("pilot", DAY), new_authority("other", DAY)
    pem = authority.pem.decode()
    with hub(tmp_path, authority) as address:
        assert failures(call(address, pem, now())) == []
        assert failures(call(address, other.pem.decode(), now())) == ["certificate-authority"]
        assert failures(call(address, "nothing", now())) == ["authority-unreadable"]
        assert failures(call(address, pem, now(), read_proxy(address, "x"))) == ["no-answer"]  # no proxy
    with hub(tmp_path, authority, ("hub.example",)) as address:
        found = [one for one in call(address, pem, now()) if one.state == "failed"]
        assert [one.code for one in found] == ["certificate-host"]
        assert "hub.example" in found[0].what
    with hub(tmp_path, authority, lifetime=-timedelta(minutes=1)) as address:
        assert failures(call(address, pem, now())) == ["certificate-expired"]
    with hub(tmp_path, authority, date=now() - DAY) as address:
        assert failures(call(address, pem, now())) == ["clock"]
    with hub(tmp_path, authority, node="unknown") as address:
        assert failures(call(address, pem, now())) == ["node-unknown"]
    with hub(tmp_path, authority, status=429) as address:
        assert failures(call(address, pem, now())) == ["refused-often"]
    with hub(tmp_path, authority, status=502) as address:
        assert failures(call(address, pem, now())) == ["no-answer"]
    with hub(tmp_path, None) as address:
        assert failures(call(address, pem, now())) == ["tls"]
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        closed = f"127.0.0.1:{bound.getsockname()[1]}"
        assert failures(call(closed, pem, now())) == ["reach"]
    assert failures(call("no-such-host.invalid:1", pem, now())) == ["name"]


def _public(key: EllipticCurvePrivateKey) -> str:
    return public_pem(key).decode("ascii")


def _example() -> str:
    identity = Identity("coordinator", Ed25519PrivateKey.from_private_bytes(bytes(32)))  # the same at every run
    body = Kit(
        party="istat",
        address="hub.example:8443",
        authority="PEM",
        issued=datetime(2026, 1, 1, tzinfo=UTC),
        protocol=1,
        roster=Roster(pilot="trade", serial=1),
    )
    return make_kit(body, identity)


EXAMPLE = _example()
