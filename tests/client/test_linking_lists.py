"""What a holder keeps of open linkages, and what its log says of them."""

import os
import time
from pathlib import Path

from statfed.client.linking import DAYS, LISTS, MOST, Lines, forget_list, list_of, prune_lists


def kept(home: Path) -> set[str]:
    return {path.name for path in (home / LISTS).iterdir()}


def begun(home: Path, run: str, days: float = 0.0) -> Path:
    path = list_of(home, run, "digest")
    for suffix in ("", ".own", ".others"):
        file = path.with_name(path.name + suffix)
        file.write_bytes(b"x")
        os.utime(file, (time.time() - days * 86_400,) * 2)
    return path


def test_attempts_at_a_run_have_one_list_and_runs_and_studies_their_own(tmp_path: Path) -> None:
    assert list_of(tmp_path, "a", "s") == list_of(tmp_path, "a~2", "s")
    assert len({list_of(tmp_path, run, study) for run in ("a", "b") for study in ("s", "t")}) == 4
    assert list_of(tmp_path, "../../a", "s").parent == tmp_path / LISTS
    assert (tmp_path / LISTS).stat().st_mode & 0o777 == 0o700


def test_a_run_that_is_over_leaves_nothing_and_others_stay(tmp_path: Path) -> None:
    one, two = begun(tmp_path, "one"), begun(tmp_path, "two")
    forget_list(tmp_path, "one~3", "digest")
    assert kept(tmp_path) == {f"{two.name}{suffix}" for suffix in ("", ".own", ".others")}
    assert one.name != two.name


def test_what_is_old_and_what_is_too_much_goes_when_another_run_begins(tmp_path: Path) -> None:
    old = begun(tmp_path, "old", DAYS + 1)
    runs = [begun(tmp_path, f"run {i}", 2 - i / 10) for i in range(MOST)]
    begun(tmp_path, "another")
    left = kept(tmp_path)
    assert old.name not in left
    assert runs[0].name not in left
    assert {run.name for run in runs[1:]} <= left
    assert len(left) == 3 * MOST


def test_lists_of_a_run_that_nobody_came_back_to_go_without_another_linkage(tmp_path: Path) -> None:
    old, young = begun(tmp_path, "old", DAYS + 1), begun(tmp_path, "young", DAYS - 1)
    begun(tmp_path, "now")
    old = begun(tmp_path, "old", DAYS + 1)
    prune_lists(tmp_path)
    assert not [name for name in kept(tmp_path) if name.startswith(old.name)]
    assert len(kept(tmp_path)) == 6
    assert young.exists()
    prune_lists(tmp_path / "no such home")


def test_the_log_has_a_line_a_tenth_of_what_takes_several_messages_and_none_else() -> None:
    lines = Lines()
    assert not lines.of("run", ("", 0, 1))
    assert not lines.of("run", ("small", 5, 5))
    told = [lines.of("run", ("first list, items", done, 100)) for done in range(1, 101)]
    assert [line for line in told if line][1:3] == [
        "first list, items: 10 of 100",
        "first list, items: 20 of 100",
    ]
    assert sum(map(bool, told)) == 11
    assert lines.of("another", ("first list, items", 50, 100))
