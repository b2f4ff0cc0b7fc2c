"""Linkages whose packets go from party to party: the same figures, next to nothing through the coordinator."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from statfed.client.guard.addresses import Direct
from statfed.client.guard.ledger import read_only
from statfed.client.guard.policy import load_policy, write_policy
from statfed.core.errors import Refused, StatfedError, UsageError
from statfed.core.protection import Packet, load_protection
from statfed.core.study import make_study
from statfed.federation.lines import lines
from statfed.federation.parties import admit_third_parties
from statfed.strategies.linkages._spu_program import VARIABLE
from tests.client.lines import free
from tests.federation.test_link import answered, joined, study
from tests.federation.test_link_attacks import World
from tests.strategies.linkages.sidecar import fake

TICKET = 300


def by(name: str, **more: Any) -> dict[str, Any]:
    given = study({"key": "id", **more})
    return given | {"protection": given["protection"] | {"name": name}}


def moved(answer: Any) -> int:
    """Bytes of packets that the coordinator has relayed or been told."""
    return sum(one["bytes_down"] + one["bytes_up"] for one in answer.to_dict()["sums"])


@pytest.mark.parametrize("name", ["helper", pytest.param("ecdh", marks=pytest.mark.whole)])
def test_the_figure_is_that_of_the_plain_join_and_the_coordinator_relays_next_to_nothing(
    name: str, tmp_path: Path
) -> None:
    relayed, direct = (answered(tmp_path / str(i), by(name, direct=bool(i))) for i in made(tmp_path))
    assert relayed.result.tables == direct.result.tables
    assert direct.result.tables["matched"][0]["count"] == len(joined())
    assert moved(direct) < moved(relayed) / 4
    assert any("addresses of the parties" in row["learns"] for row in direct.to_dict()["learns"])
    assert not any("addresses of the parties" in row["learns"] for row in relayed.to_dict()["learns"])


def made(tmp_path: Path) -> range:
    for i in range(2):
        (tmp_path / str(i)).mkdir()
    return range(2)


@pytest.mark.whole
def test_the_same_across_processes(tmp_path: Path) -> None:
    relayed, direct = (answered(tmp_path / str(i), by("ecdh", direct=bool(i)) | AWAY) for i in made(tmp_path))
    assert direct.result.tables["matched"][0]["count"] == len(joined())
    assert moved(direct) < moved(relayed) / 4


AWAY = {"engine": "processes"}


class Lined(World):
    """A world whose parties allow direct lines, at free addresses of this machine. seen: packets that the coordinator
    was given, by stage and party."""

    def __init__(self, folder: Path, name: str = "ecdh") -> None:
        super().__init__(folder)
        self.given = by(name, direct=True)
        names = [*self.sizes, *(["helper"] if name == "helper" else [])]
        pins = load_policy(self.homes["office"] / "policy.toml").parties.root
        there = lines(make_study({"holders": dict.fromkeys(self.sizes, "x"), **self.given}).protection, names)
        if name == "helper":
            admit_third_parties({"helper": self.homes["helper"]}, name, pins, there)
        for one in self.sizes:
            self.rule(one, direct=there[one])
        self.seen: dict[tuple[str, str], list[Packet]] = {}

    def rule(self, name: str, **changes: Any) -> None:
        path = self.homes[name] / "policy.toml"
        policy = load_policy(path)
        allow = policy.allow.model_copy(update={"direct": changes.pop("allowed", True)})
        write_policy(policy.model_copy(update={"allow": allow, **changes}), path)

    def say(self, name: str, step: str, run: str, terms: Any, packet: Packet | None = None, **more: Any) -> Any:
        reply = super().say(name, step, run, terms, self.meddled(name, more.get("stage", ""), packet), **more)
        if step == "protect" and reply.packet is not None:
            self.seen.setdefault((more["stage"], name), []).append(reply.packet)
        return reply

    def meddled(self, name: str, stage: str, packet: Packet | None) -> Packet | None:
        return packet


@pytest.mark.parametrize("name", [pytest.param("helper", marks=pytest.mark.whole), "ecdh"])
def test_no_sealed_packet_of_any_stage_is_in_a_reply(name: str, tmp_path: Path) -> None:
    world = Lined(tmp_path, name)
    assert world.link("one", world.given).size == len(joined())
    items = [item for packets in world.seen.values() for packet in packets for item in packet.values()]
    assert max(len(item) for item in items if isinstance(item, bytes)) < TICKET
    assert sum(isinstance(item, bytes) and item.startswith(b"statfed direct: ") for item in items) >= 3


def test_a_holder_that_has_not_allowed_it_or_knows_no_address_refuses_the_study(tmp_path: Path) -> None:
    world = Lined(tmp_path)
    cases: list[tuple[str, dict[str, Any]]] = [
        ("want allow.direct", {"allowed": False}),
        (r"got no address to listen at; want \[direct\] listen", {"direct": Direct()}),
        (r"got no address of office; want it in \[direct.peers\]", {"direct": Direct(listen="127.0.0.1:1")}),
    ]
    for number, (said, changes) in enumerate(cases):
        world.rule("bank", **changes)
        with pytest.raises(Refused, match=said):
            world.link(f"run-{number}", world.given)
    assert world.link("last", by("ecdh")).size == len(joined())


def test_a_helper_that_has_not_allowed_it_takes_no_part(tmp_path: Path) -> None:
    world = Lined(tmp_path, "helper")
    file = world.homes["helper"] / "party.toml"
    file.write_text(file.read_text().replace("direct = true", "direct = false"))
    for said in (True, 1, "true", "yes"):  # whatever a study says that is read as yes
        terms = world.terms(by("helper", direct=said))
        with pytest.raises(Refused, match=r"want allow.direct"):
            world.say("helper", "protect", f"run-{said}", terms, {}, stage="offer", round=1)


def test_a_line_that_does_not_work_ends_the_run_and_nothing_goes_through_the_coordinator(tmp_path: Path) -> None:
    world = Lined(tmp_path)
    for name in world.sizes:
        direct = load_policy(world.homes[name] / "policy.toml").direct
        world.rule(name, direct=direct.model_copy(update={"peers": dict.fromkeys(direct.peers, free())}))
    with pytest.raises(Refused, match=r"direct: .*: got no line: .*; want .*; nothing goes through the coordinator"):
        world.link("one", world.given)
    assert all(len(item) < TICKET for packets in world.seen.values() for one in packets for item in one.values())


@pytest.mark.parametrize(
    ("how", "said"),
    [
        pytest.param("repeated", "got a ticket .* that is not here, or was taken", marks=pytest.mark.whole),
        ("made up", "got a ticket for a packet of bank that is not here"),
        ("relayed", "first 0: got 5000 bytes of bank"),
    ],
)
def test_tickets_that_the_coordinator_changes_are_refused_as_packets_are(how: str, said: str, tmp_path: Path) -> None:
    seen: list[bytes] = []

    class Hostile(Lined):
        def meddled(self, name: str, stage: str, packet: Packet | None) -> Packet | None:
            chunk = (packet or {}).get("chunk")
            if not packet or not isinstance(chunk, bytes):
                return packet
            seen.append(chunk)
            other = chunk[:-64] + chunk[-64:].translate(bytes.maketrans(b"0123456789", b"1234567890"))
            return {**packet, "chunk": {"repeated": seen[0], "made up": other, "relayed": b"x" * 5_000}[how]}

    world = Hostile(tmp_path)
    world.given["protection"]["options"]["options"] = {"chunk": 64, "to": "bank"}
    with pytest.raises(StatfedError, match=said):
        world.link("one", world.given)
    assert len(seen) == (2 if how == "repeated" else 1)


def test_a_program_of_both_holders_finds_pairs_through_their_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, fake(tmp_path))
    found = answered(tmp_path, by("spu", direct=True, reveal="pairs", to=["bank"]))
    assert found.result.tables["matched"][0]["count"] == len(joined())
    (path,) = tmp_path.glob("**/links/*.parquet")
    assert set(pd.read_parquet(path)["id:exact"]) == set(joined()["id"])
    assert "bank" in str(path)
    assert any("NOT designed for production" in row["protected_by"] for row in found.to_dict()["learns"])
    assert any("NOT designed for production" in line for line in load_protection("spu").TRUST)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"reveal": "pairs", "to": ["bank"]}, r"spu: got no direct line; want direct = true"),
        ({"direct": True}, "reveal: got size; want one of pairs"),
        ({"direct": True, "reveal": "pairs", "to": ["bank", "office"]}, "want one holder, which sees the pairs"),
        ({"direct": True, "reveal": "pairs", "to": ["bank"], "options": {"to": "office"}}, "options: got to"),
    ],
)
def test_a_study_that_spu_cannot_do_is_refused_before_a_holder_is_asked(
    options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        answered(tmp_path, by("spu", **options))


def test_where_spu_is_missing_no_ledger_has_an_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(Refused, match=r"spu: got no STATFED_SPU_PYTHON; want .*bin/pip install spu"):
        answered(tmp_path, by("spu", direct=True, reveal="pairs", to=["bank"]))
    for path in tmp_path.glob("**/ledger.sqlite"):
        with read_only(path) as ledger:
            assert ledger.linked(30) == 0
