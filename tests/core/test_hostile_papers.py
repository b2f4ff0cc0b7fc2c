"""Papers of a pilot made by somebody hostile: names that look like others or like paths, links, open folders."""

import os
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from statfed.client.guard.files import check_modes
from statfed.client.pilot.joining import join, look, pinned, request
from statfed.core.errors import UsageError
from statfed.core.identity import Identity
from statfed.core.pilot.certificates import new_key, public_pem
from statfed.core.pilot.documents import read_document
from statfed.server.pilot.office import Office, Settings, create, open_office
from tests.fuzz.papers import NAMES, resealed, samples


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return create(tmp_path / "trade", Settings(name="trade", host="127.0.0.1", port=8443))


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_looks_like_another_or_like_a_path_is_none(name: str, tmp_path: Path) -> None:
    identity = Identity.ephemeral(name)
    for kind, (read, body, _) in samples().items():
        read(resealed(kind, body, identity) if kind != "request" else samples()["request"][2], "paper")  # the control
        places = [body, *body.get("participants", ()), *body.get("revoked", ())]
        places += [body["roster"], *body["roster"]["participants"]] if kind == "kit" else []
        key = next(key for key in ("name", "party", "pilot") if key in places[-1] or key in places[0])
        for place in places:
            if key in place:
                place[key] = name
        with pytest.raises(UsageError) as caught:
            read(resealed(kind, body, identity), "paper")
        assert all(one.isprintable() or one == "\n" for one in str(caught.value))
    with pytest.raises((UsageError, ValueError)):
        request(tmp_path / "home", name, "holder")
    with pytest.raises((UsageError, ValueError)):
        create(tmp_path / "pilot", Settings(name=name, host="127.0.0.1", port=8443))
    assert not (tmp_path / "pilot").exists()


def test_what_a_coordinator_writes_of_a_revoked_party_moves_no_cursor() -> None:
    read, body, _ = samples()["roster"]
    body["revoked"][0]["reason"] = "left\x1b[2J"
    with pytest.raises(UsageError, match=r"reason"):
        read(resealed("roster", body, Identity.ephemeral("x")), "roster")


def test_a_key_of_a_paper_that_no_version_knows_is_shown_printable() -> None:
    read, body, _ = samples()["kit"]
    body["\x1b[2Jall is well"] = 1
    with pytest.raises(UsageError) as caught:
        read(resealed("kit", body, Identity.ephemeral("x")), "kit")
    assert "\\x1b[2J" in str(caught.value)
    assert str(caught.value).isprintable()


def test_an_endless_or_missing_paper_is_refused(tmp_path: Path) -> None:
    link = tmp_path / "a.kit"
    link.symlink_to("/dev/zero")
    with pytest.raises(UsageError, match="want a document of a pilot"):
        read_document(link)
    (tmp_path / "b.kit").symlink_to(tmp_path / "b.kit")
    (tmp_path / "c.kit").mkdir()
    for name in ("b.kit", "c.kit", "d.kit"):
        with pytest.raises(UsageError, match="want a document of a pilot"):
            read_document(tmp_path / name)


def test_links_in_a_home_are_replaced_and_never_written_through(office: Office, tmp_path: Path) -> None:
    home, outside = tmp_path / "istat", tmp_path / "outside"
    home.mkdir(mode=0o700)
    outside.write_text("another's")
    for name in ("pilot.request", "pilot.kit", "pilot.toml"):
        (home / name).symlink_to(outside)
    (home / "pilot.toml").unlink()
    office.sign(request(home, "istat", "holder"))
    join(home, look(home, office.kit("istat")))
    assert outside.read_text() == "another's"
    assert not any((home / name).is_symlink() for name in ("pilot.request", "pilot.kit", "pilot.toml"))
    assert pinned(home, {}) == {}


def test_a_key_is_never_made_where_a_link_points(tmp_path: Path) -> None:
    home, outside = tmp_path / "istat", tmp_path / "outside.key"
    home.mkdir(mode=0o700)
    (home / "node.key").symlink_to(outside)
    with pytest.raises((UsageError, OSError)):
        request(home, "istat", "holder")
    assert not outside.exists()


@pytest.mark.parametrize("folder", ["", "hub", "authority", "kits"])
def test_a_coordinators_folder_that_others_can_write_to_is_not_opened(office: Office, folder: str) -> None:
    open_office(office.root)
    (office.root / folder).chmod(0o777)
    with pytest.raises(UsageError, match="chmod go-w"):
        open_office(office.root)


def test_a_home_of_another_account_answers_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "policy.toml").touch(mode=0o600)
    tmp_path.chmod(0o700)
    check_modes(tmp_path)

    def another(self: Path) -> object:
        status = os.stat(self)  # noqa: PTH116
        return SimpleNamespace(st_mode=status.st_mode, st_uid=status.st_uid + 4242)

    monkeypatch.setattr(Path, "stat", another)
    with pytest.raises(UsageError, match="want this account's own: chown"):
        check_modes(tmp_path)


def test_a_request_of_a_name_that_is_taken_changes_nothing(office: Office, tmp_path: Path) -> None:
    office.sign(request(tmp_path / "istat", "istat", "holder"))
    before = (office.root / "roster.json").read_bytes()
    read, body, _ = samples()["request"]
    node, thief = new_key(), Identity.ephemeral("istat")
    body |= {"identity": thief.public, "node_key": public_pem(node).decode(), "made": datetime.now(UTC).isoformat()}
    with pytest.raises(UsageError, match="without proof"):
        read(resealed("request", body, thief), "request")
    with pytest.raises(UsageError, match="other keys"):
        office.sign(request(tmp_path / "thief", "istat", "holder"))
    assert (office.root / "roster.json").read_bytes() == before
