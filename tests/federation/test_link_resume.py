"""A linkage that was broken off goes on in another attempt with what it has made, and leaves nothing behind."""

from pathlib import Path
from typing import Any

import pytest

from statfed.client.guard.ledger import read_only
from statfed.core.errors import Refused
from statfed.core.protection import agree, read_protection
from statfed.strategies.linkages import _ristretto as group
from tests.federation.test_link import study, tables
from tests.federation.test_link_attacks import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many points were multiplied, call by call."""
    calls: list[int] = []
    multiplied = group.multiplied

    def counted(scalar: bytes, points: group.Points, sender: str) -> group.Points:
        calls.append(len(points))
        return multiplied(scalar, points, sender)

    monkeypatch.setattr(group, "multiplied", counted)
    return calls


def asked() -> dict[str, Any]:
    given = study({"key": "id", "options": {"chunk": 64}})
    given["protection"]["name"] = "ecdh"
    return given


def broken_off(world: World, run: str, after: int) -> None:
    """An attempt whose coordinator is gone after so many stages."""
    terms = world.terms(asked())
    module, _ = read_protection(terms)
    rounds: Any = module.coordinator(agree(run, terms, world.sizes))
    stage = next(rounds)
    for name in world.sizes:
        world.say(name, "admit", run, terms)
    for _ in range(after):
        packets = stage.packets.items()
        replies = {n: world.say(n, "protect", run, terms, p, stage=stage.name, round=1) for n, p in packets}
        stage = rounds.send({name: reply.packet for name, reply in replies.items()})
    for name in world.sizes:
        world.say(name, "release", run, terms)


def kept(world: World, name: str) -> list[Path]:
    folder = world.homes[name] / "lists"
    return sorted(folder.iterdir()) if folder.exists() else []


def test_points_that_an_attempt_has_made_are_not_made_again_and_each_attempt_is_entered(
    world: World, made: list[int]
) -> None:
    broken_off(world, "one", 9)
    assert sum(made)
    with read_only(world.homes["bank"] / "ledger.sqlite") as ledger:
        before = ledger.figures()
    world.parties = {name: type(party)(party.home) for name, party in world.parties.items()}  # new processes
    assert world.link("one~2", asked()).size == 100
    assert sum(made) == 4 * 200  # both lists, by both scalars: each once in both attempts
    with read_only(world.homes["bank"] / "ledger.sqlite") as ledger:
        assert ledger.figures() == before + 1


def test_what_was_kept_is_for_the_holder_alone_and_goes_with_the_run(world: World) -> None:
    assert world.link("one", asked()).size == 100
    for name in world.sizes:
        assert len(kept(world, name)) == 3
        assert {path.stat().st_mode & 0o777 for path in kept(world, name)} == {0o600}
        assert kept(world, name)[0].parent.stat().st_mode & 0o777 == 0o700
        world.say(name, "release", "one", world.terms(asked()), finished=True)
        assert not kept(world, name)


def test_an_attempt_about_other_units_is_refused(world: World) -> None:
    broken_off(world, "one", 9)
    tables()["office"].iloc[::-1].to_parquet(world.folder / "office.parquet")
    world.parties = {name: type(party)(party.home) for name, party in world.parties.items()}
    with pytest.raises(Refused):
        world.link("one~2", asked())
