"""The record of past linkages in a holder's home: rolled back, emptied or lost it stops linkages, and from a backup it
is taken with its ledger."""

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from statfed.client.guard import chain, links, restoring
from statfed.client.guard.differencing import LINKED, Releases
from statfed.client.guard.ledger import Ledger, read_only
from statfed.client.guard.register import register_of
from statfed.client.holder import Holder
from statfed.core.errors import LedgerCorrupt, StatfedError
from tests.federation.test_link import study
from tests.federation.test_link_attacks import World

GIVEN: dict[str, Any] = study({"key": "id"})


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.link("first", GIVEN | {"where": ["age >= 30"]})
    return made


def copied(world: World) -> Path:
    """The home of the office as it is now, elsewhere."""
    copy = world.folder / "backup"
    shutil.copytree(world.homes["office"], copy)
    return copy


def forgotten(path: Path) -> None:
    """As if another process looked at the file."""
    with chain.translated(path):
        db = chain.connect(path, writable=False)
        first = next(iter(chain.rows(db))).hash
        db.close()
    chain.forget(first)


def linked(world: World) -> int:
    with read_only(world.homes["office"] / "ledger.sqlite") as ledger:
        return ledger.linked(30)


@pytest.mark.parametrize("how", ["gone", "gone with its marker", "emptied", "older"])
def test_a_record_that_was_tampered_with_stops_linkages_and_the_register_completes_it(how: str, world: World) -> None:
    home, copy = world.homes["office"], copied(world)
    world.link("second", GIVEN | {"where": ["age >= 50"]})
    path, before = home / LINKED, linked(world)
    if how == "older":
        shutil.copy2(copy / LINKED, path)
    elif how == "emptied":
        with sqlite3.connect(path) as db:
            db.execute("DROP TRIGGER never_delete")
            db.execute("DELETE FROM entries WHERE seq > 1")
        db.close()
    else:
        path.unlink()
    if how == "gone with its marker":
        path.with_suffix(".opened").unlink()
    with pytest.raises(LedgerCorrupt, match=r"linked\.sqlite, the record of past linkages"):
        world.link("third", GIVEN)
    assert linked(world) == before
    if how != "older" and how != "emptied":
        said = {one.path.name: one.said for one in restoring.restore(home, None, None)}
        assert "put back from the register" in said[LINKED]
        assert world.link("fourth", GIVEN).size == 100


def elsewhere(world: World) -> dict[str, dict[str, str]]:
    """The homes restored on a machine that does not know them, each by its anchor: what is said of each file."""
    register_of(world.homes["office"]).path.unlink()
    said = {}
    for name in world.sizes:
        home = world.homes[name]
        for path in home.glob("*.sqlite"):
            forgotten(path)
        with read_only(home / "ledger.sqlite") as ledger:
            anchor = ledger.verify()
        said[name] = {one.path.name: one.said for one in restoring.restore(home, anchor, None)}
    return said


def test_a_backup_on_another_machine_wants_its_own_record_of_linkages_too(world: World) -> None:
    path = world.homes["office"] / LINKED
    record = path.read_bytes()
    path.unlink()
    path.with_suffix(".opened").unlink()
    assert set(elsewhere(world)["office"]) == {"ledger.sqlite"}
    with pytest.raises(LedgerCorrupt, match=r"it is not there, and the ledger has some; units are not linked"):
        world.link("second", GIVEN)
    path.write_bytes(record)
    path.chmod(0o600)
    assert elsewhere(world)["office"][LINKED] == "taken as it is, with its ledger"
    assert world.link("third", GIVEN).size == 100


def test_after_a_loss_units_are_not_linked_until_people_decide(world: World) -> None:
    home = world.homes["office"]
    for name in ("bank", "office"):
        world.strict(name)
    restoring.restore(home, None, "disk failed in May")
    with pytest.raises(StatfedError, match="refused"):
        world.link("second", GIVEN)


def test_the_record_is_begun_before_the_first_linkage_is_entered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.link("second", GIVEN | {"where": ["age >= 50"]})
    home, dataset = world.homes["bank"], Holder(world.homes["bank"]).policy.dataset.id
    with Releases(home / LINKED, dataset=dataset) as record:
        assert len(record.past()) == 1  # no other units of the bank were selected since
    monkeypatch.setattr(links, "kept", lambda *_: pytest.fail("asked first"))
    monkeypatch.setattr(Ledger, "disclose", lambda *_, **__: pytest.fail("entered first"))
    with pytest.raises(pytest.fail.Exception, match="asked first"):
        world.link("third", GIVEN)
