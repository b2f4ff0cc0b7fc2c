"""A ledger put back is noticed, by whom it was kept and afterwards, and is restored without a budget regained."""

import json
import multiprocessing
import os
import shutil
import stat
from multiprocessing import resource_tracker
from pathlib import Path

import pytest

from statfed.client.guard import chain, restoring
from statfed.client.guard.differencing import Releases
from statfed.client.guard.ledger import read_only
from statfed.client.guard.policy import Policy, write_policy
from statfed.client.guard.register import Register, point, register_of
from statfed.core.errors import EngineError, LedgerCorrupt, Refused, UsageError
from statfed.core.privacy.accountant import Gaussian
from tests.ledgers import filled, opened
from tests.office import BASE

WEAK = Gaussian(noise_multiplier=200.0)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A holder's home folder whose budget is that of `opened`."""
    home = tmp_path / "home"
    home.mkdir()
    budget = {"unit": "person", "epsilon": 1.0, "delta": 1e-5}
    made = {**BASE, "dataset": BASE["dataset"] | {"id": "toy"}, "budget": budget}
    write_policy(Policy.model_validate(made), home / "policy.toml")
    return home


def forgotten(path: Path) -> None:
    """As if another process looked at the ledger."""
    chain.forget(_first(path))


def _first(path: Path) -> str:
    with chain.translated(path):
        db = chain.connect(path, writable=False)
        found = next(iter(chain.rows(db))).hash
        db.close()
        return found


def _spend(path: Path, times: int) -> str:
    with opened(path) as ledger:
        ledger.reserve("long", "study", 9, WEAK)
        for number in range(times):
            head = ledger.charge("long", "study", number + 1, WEAK)
        return head


# --- going back is noticed


def test_a_file_put_back_under_a_living_holder_is_not_answered(path: Path) -> None:
    _spend(path, 3)
    shutil.copy(path, path.with_name("earlier"))
    with opened(path) as ledger:
        ledger.charge("long", "study", 4, WEAK)
    shutil.copy(path.with_name("earlier"), path)
    for look in (opened, read_only):
        with pytest.raises(LedgerCorrupt, match=r"truncated: entry 6, seen by this process.* gives no budget back"):
            look(path)


def test_a_file_put_back_while_a_ledger_is_open_is_not_charged_afterwards(path: Path) -> None:
    _spend(path, 3)
    shutil.copy(path, path.with_name("earlier"))
    with opened(path) as ledger:
        ledger.charge("long", "study", 4, WEAK)
        os.replace(path.with_name("earlier"), path)  # noqa: PTH105
        with pytest.raises(UsageError, match="cannot be written"):  # the open file is not the one under this name
            ledger.charge("long", "study", 5, WEAK)
    with pytest.raises(LedgerCorrupt, match="truncated: entry 6"):
        opened(path)


@pytest.mark.parametrize("drop_marker", [False, True])
def test_a_later_process_notices_by_the_register_whatever_became_of_the_marker(path: Path, drop_marker: bool) -> None:
    _spend(path, 3)
    shutil.copy(path, path.with_name("earlier"))
    with opened(path) as ledger:
        ledger.charge("long", "study", 4, WEAK)
    shutil.copy(path.with_name("earlier"), path)
    if drop_marker:
        path.with_name("ledger.opened").unlink()
    forgotten(path)
    for look in (opened, read_only):
        with pytest.raises(LedgerCorrupt, match="rolled back: got entry 5 as its last; want entry 6"):
            look(path)


def test_a_forked_history_of_the_same_length_is_noticed(path: Path) -> None:
    _spend(path, 3)
    shutil.copy(path, path.with_name("earlier"))
    with opened(path) as ledger:
        ledger.charge("long", "study", 4, WEAK)
    shutil.copy(path.with_name("earlier"), path)
    with chain.translated(path):
        db = chain.connect(path, writable=True)
        last = list(chain.rows(db))[-1]
        chain.insert(db, chain.sealed(6, last.hash, "release", "long", "study"))
        db.close()
    forgotten(path)
    with pytest.raises(LedgerCorrupt, match="rolled back: entry 6 is another"):
        opened(path)


def test_a_copied_home_cannot_go_on_beside_the_first(path: Path, tmp_path: Path) -> None:
    _spend(path, 1)
    (tmp_path / "copy").mkdir()
    copy = tmp_path / "copy" / path.name
    shutil.copy(path, copy)
    with opened(copy) as ledger:  # a home may move
        ledger.charge("long", "study", 2, WEAK)
    with pytest.raises(LedgerCorrupt, match=r"truncated|rolled back"):
        opened(path)


def test_releases_put_back_are_noticed_too(tmp_path: Path) -> None:
    path = tmp_path / "releases.sqlite"
    facts: dict[str, object] = {
        "analysis": "m",
        "fingerprint": "f",
        "where": [],
        "complete": [],
        "by": [],
        "readings": [],
        "of": None,
    }
    with Releases(path, dataset="toy") as releases:
        shutil.copy(path, tmp_path / "earlier")
        with releases._chain.writing():
            releases._chain.append("exact", "r", "s", facts={**facts, "total": 9})
    shutil.copy(tmp_path / "earlier", path)
    with pytest.raises(LedgerCorrupt, match=r"record of past exact releases: ledger truncated"):
        Releases(path, dataset="toy")
    forgotten(path)
    with pytest.raises(LedgerCorrupt, match=r"record of past exact releases: ledger rolled back"):
        Releases(path, dataset="toy")


def test_a_chain_begun_under_a_register_is_not_written_without_it(path: Path, register: Path) -> None:
    filled(path)
    register.unlink()
    with pytest.raises(LedgerCorrupt, match=r"of unknown age: got entry 7 .* restore .* --anchor HEAD"):
        opened(path)
    with read_only(path) as ledger:  # an auditor may look
        assert ledger.verify()


def test_a_ledger_of_before_the_register_is_taken_as_it_is_and_followed_from_then_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = {"format": 1, "dataset": "toy", "unit": "person", "epsilon": 1.0, "delta": 1e-5}
    chain.written(path, [chain.sealed(1, chain.GENESIS, "open", facts=draft)])
    filled(path)
    shutil.copy(path, path.with_name("earlier"))
    with opened(path) as ledger:
        ledger.release("three")
    shutil.copy(path.with_name("earlier"), path)
    forgotten(path)
    with pytest.raises(LedgerCorrupt, match="rolled back"):
        opened(path)


def test_a_register_that_fails_stops_everything(path: Path, register: Path) -> None:
    filled(path)
    register.write_bytes(b"no register at all" * 100)
    with pytest.raises(EngineError, match=r"register .*cannot be used \(SQLITE_NOTADB\); .*Nothing leaves without it"):
        opened(path)


def test_a_register_that_others_may_write_is_refused_and_is_made_for_its_user_alone(path: Path, register: Path) -> None:
    filled(path)
    assert stat.S_IMODE(register.stat().st_mode) == 0o600
    register.chmod(0o666)
    with pytest.raises(EngineError, match="others may write it; want mode 0600"):
        opened(path)


def _charging(path: Path, runs: list[str]) -> None:
    for run in runs:
        with opened(path) as ledger:
            ledger.disclose(run, "study", 1, "")


def test_processes_that_write_at_once_never_find_each_other_rolled_back(
    path: Path, register: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))  # a new process finds this module by it
    opened(path).close()
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_charging, args=(path, [f"{w}-{i}" for i in range(12)])) for w in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]  # a process that outlives the test
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    with opened(path) as ledger:
        assert ledger.spending().entries == 37
    known = Register(register)
    assert [row[0] for row in known.rows(_first(path))] == list(range(1, 38))  # a copy without holes
    known.close()


# --- restoring


def _rolled_back(home: Path) -> Path:
    path = home / "ledger.sqlite"
    _spend(path, 2)
    shutil.copy(path, home / "backup")
    with opened(path) as ledger:
        ledger.charge("long", "study", 3, WEAK)
    shutil.copy(home / "backup", path)
    forgotten(path)
    return path


def test_the_register_completes_a_ledger_that_was_put_back(home: Path) -> None:
    path = _rolled_back(home)
    (done,) = restoring.restore(home, None, None)
    assert (done.said, done.entries) == ("1 entries put back from the register", 5)
    with opened(path) as ledger:
        assert ledger.spending().charged == 3
        assert ledger.verify() == done.head
    assert restoring.restore(home, None, None)[0].said == "complete"


@pytest.mark.parametrize("marker", [True, False])
def test_a_ledger_that_is_gone_comes_back_from_the_register(home: Path, marker: bool) -> None:
    path = home / "ledger.sqlite"
    head = filled(path)
    path.unlink()
    if not marker:
        (home / "ledger.opened").unlink()
    with pytest.raises(LedgerCorrupt, match="ledger missing"):
        opened(path)
    assert restoring.restore(home, None, None)[0].said == "7 entries put back from the register"
    with opened(path) as ledger:
        assert ledger.verify() == head


def test_without_register_an_anchor_is_wanted_and_believed_only_if_it_is_there(home: Path, register: Path) -> None:
    path = _rolled_back(home)
    register.unlink()
    with read_only(path) as ledger:
        anchor = ledger.verify()
    forgotten(path)
    with pytest.raises(UsageError, match="unknown to this machine's register; want --anchor HEAD"):
        restoring.restore(home, None, None)
    with pytest.raises(LedgerCorrupt, match="the anchor ffffffffffffffff is not in it, so entries are lost"):
        restoring.restore(home, "f" * 64, None)
    with pytest.raises(LedgerCorrupt, match="of unknown age"):
        opened(path)
    (done,) = restoring.restore(home, anchor, None)
    with opened(path) as ledger:
        assert ledger.entries()[-1].kind == "restored"
        assert json.loads(ledger.entries()[-1].facts) == {"anchor": anchor, "lost": False}
        ledger.charge("long", "study", 3, WEAK)
        assert ledger.verify(done.head)


def test_entries_lost_for_good_spend_the_whole_budget(home: Path, register: Path) -> None:
    path = _rolled_back(home)
    register.unlink()
    restoring.restore(home, None, "disk failed in May")
    with opened(path) as ledger:
        spent = ledger.spending()
        assert spent.left == 0.0
        assert spent.filter_epsilon > 1.0
        assert spent.charged == 2
        with pytest.raises(Refused, match="got no outstanding reservation"):
            ledger.charge("long", "study", 3, WEAK)
        with pytest.raises(Refused, match="all of epsilon 1 at delta 1e-05 counts as spent"):
            ledger.reserve("more", "study", 1, WEAK)
        with pytest.raises(Refused, match="exact figures"):
            ledger.disclose("x", "study", 1, "", figures=1, what="q", most=10**9)
        assert ledger.refusals(1.0) > 10**9
    with opened(path, epsilon=2.0) as ledger, pytest.raises(Refused, match="counts as spent"):  # of delta none is left
        ledger.reserve("more", "study", 1, WEAK)
    with opened(path, epsilon=2.0, delta=2e-5) as ledger:
        ledger.reserve("more", "study", 1, WEAK)
        ledger.charge("more", "study", 1, WEAK)
        assert 1.0 < ledger.spending().filter_epsilon <= 2.0
        with pytest.raises(Refused, match="privacy budget"):
            ledger.reserve("much", "study", 1, Gaussian(noise_multiplier=4.0))


def test_another_history_is_not_completed_and_a_loss_wants_a_reason(home: Path) -> None:
    path = _rolled_back(home)
    with chain.translated(path):
        db = chain.connect(path, writable=True)
        last = list(chain.rows(db))[-1]
        chain.insert(db, chain.sealed(5, last.hash, "release", "long", "study"))
        db.close()
    with pytest.raises(LedgerCorrupt, match="another history"):
        restoring.restore(home, None, None)
    with pytest.raises(UsageError, match="got no reason"):
        restoring.restore(home, None, "  ")
    restoring.restore(home, None, "forked on another machine")
    with opened(path) as ledger:
        assert ledger.spending().left == 0.0


# --- whose register


def test_the_register_is_the_users_unless_a_simulation_names_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("STATFED_REGISTER", str(tmp_path / "named.sqlite"))
    assert register_of(home).path == tmp_path / "named.sqlite"
    monkeypatch.delenv("STATFED_REGISTER")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert register_of(home).path == tmp_path / "state" / "statfed" / "register.sqlite"
    assert register_of(home).binds
    point(home, tmp_path / "workspace.sqlite")
    assert (register_of(home).path, register_of(home).binds) == (tmp_path / "workspace.sqlite", False)
    with opened(home / "ledger.sqlite"):
        pass
    assert (tmp_path / "workspace.sqlite").exists()
    assert not (tmp_path / "state").exists()
