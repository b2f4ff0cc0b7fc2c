"""The state that a process keeps of a ledger: taken where nothing else was written, and never instead of what was."""

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from statfed.client.guard import chain
from statfed.client.guard.ledger import read_only
from statfed.core.errors import LedgerCorrupt, Refused
from statfed.core.privacy import accountant as privacy
from tests.ledgers import CLAIM, CLEARER, DELTA, NOISY, filled, opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many entries were read and verified, each time."""
    found: list[int] = []
    before = chain.replay

    def counted(entries: list[chain.Entry], apply: object) -> None:
        found.append(len(entries))
        before(entries, apply)  # type: ignore[arg-type]

    monkeypatch.setattr(chain, "replay", counted)
    return found


def test_an_opening_after_ones_own_reads_nothing_again_and_says_the_same(path: Path, read: list[int]) -> None:
    filled(path)
    read.clear()
    for number in range(1, 4):
        with opened(path, epsilon=2.0) as ledger:
            ledger.reserve(f"more-{number}", "study", 1, NOISY)
            ledger.charge(f"more-{number}", "study", 1, NOISY)
            ledger.release(f"more-{number}")
    with opened(path, epsilon=2.0) as ledger:
        here = ledger.spending("one"), ledger.charged("one", "study"), ledger.head()
    assert read == []
    with read_only(path) as ledger:
        assert (ledger.spending("one"), ledger.charged("one", "study"), ledger.verify()) == here
    assert len(read) == 2


def test_what_another_process_wrote_is_read(path: Path, read: list[int]) -> None:
    filled(path)
    there = (
        "import sys; from pathlib import Path; from tests.ledgers import opened\n"
        "with opened(Path(sys.argv[1])) as ledger: ledger.disclose('there', 'study', 1, '', 5)"
    )
    subprocess.run([sys.executable, "-c", there, str(path)], check=True, cwd=Path(__file__).parents[2])
    read.clear()
    with opened(path) as ledger:
        assert ledger.figures() == 5
        with pytest.raises(Refused, match="already disclosed"):
            ledger.disclose("there", "study", 1, "", 5)
    assert read == [8]


def test_an_edit_between_two_openings_is_named_though_the_last_entry_stands(path: Path) -> None:
    filled(path)
    with sqlite3.connect(path) as db:
        db.execute("DROP TRIGGER never_update")
        db.execute("UPDATE entries SET round = 3 WHERE seq = 4")
    db.close()
    with pytest.raises(LedgerCorrupt, match="entry 4 was edited"):
        opened(path)


@pytest.mark.parametrize("whole", [True, False], ids=["in its place", "into the same file"])
def test_an_earlier_copy_put_back_is_refused_by_the_process_that_knows_better(path: Path, whole: bool) -> None:
    filled(path)
    copy = path.with_name("copy.sqlite")
    shutil.copy2(path, copy)
    with opened(path) as ledger:
        ledger.charge("three", "study", 1, NOISY)
    if whole:
        copy.replace(path)
    else:
        found = path.stat()
        path.write_bytes(copy.read_bytes())
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    with pytest.raises(LedgerCorrupt, match=r"ledger truncated|rolled back"):
        opened(path)


def test_a_register_that_knows_more_is_believed(path: Path, register: Path) -> None:
    filled(path)
    with sqlite3.connect(register) as db:
        db.execute("UPDATE chains SET seq = seq + 1, head = 'f'")
    db.close()
    with pytest.raises(LedgerCorrupt, match="rolled back"):
        opened(path)


def test_an_entry_that_did_not_reach_the_disk_is_not_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(path)
    ledger = opened(path)

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(chain, "insert", full)
        with pytest.raises(LedgerCorrupt):
            ledger.charge("three", "study", 1, NOISY)
    ledger.close()
    with opened(path) as ledger:
        assert ledger.charged("three", "study") == 0
        ledger.charge("three", "study", 1, NOISY)


def test_history_after_chosen_shares_is_no_less_than_the_composition_of_its_asks(path: Path) -> None:
    with opened(path, epsilon=3.0) as ledger:
        ledger.set_aside("chosen", "study", CLAIM)
        for number in range(1, 5):
            ledger.charge("chosen", "study", number, NOISY)
            spent = ledger.spending("chosen")
            asked = [NOISY] * number
            assert spent.study_epsilon is not None
            assert spent.history_epsilon is not None
            assert spent.history_epsilon >= privacy.epsilon(asked, DELTA)
            assert spent.history_epsilon == pytest.approx(spent.study_epsilon, rel=0.01)  # other orders, both valid
        ledger.release("chosen")
        ledger.reserve("fixed", "study", 1, CLEARER)
        ledger.charge("fixed", "study", 1, CLEARER)
        history = ledger.spending().history_epsilon
        assert history is not None
        assert history >= privacy.epsilon([*[NOISY] * 4, CLEARER], DELTA)
