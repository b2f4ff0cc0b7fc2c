"""The memory of releases: what was written is there or the file is refused; edits show; processes take turns."""

import json
import multiprocessing
import os
import stat
from multiprocessing import resource_tracker
from pathlib import Path

import pytest

from statfed.core.errors import EngineError
from statfed.server.disclosure.memory import open_memory


def filled(path: Path, lines: int = 3) -> Path:
    for i in range(lines):
        with open_memory(path) as memory:
            memory.append({"number": i, "text": "é\u2028"})
    return path


def entries(path: Path) -> list[int]:
    with open_memory(path) as memory:
        return [one["number"] for one in memory.entries]


def test_what_was_appended_is_read_back_in_order_by_its_owner_alone(tmp_path: Path) -> None:
    path = filled(tmp_path / "releases" / "memory.jsonl")
    assert entries(path) == [0, 1, 2]
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name


def test_edited_removed_and_reordered_lines_are_found(tmp_path: Path) -> None:
    path = filled(tmp_path / "m")
    lines = path.read_bytes().splitlines(keepends=True)
    edited = json.loads(lines[1])
    edited["facts"]["number"] = 7
    for wrong in (
        [lines[0], json.dumps(edited).encode() + b"\n", lines[2]],
        [lines[0], lines[2]],
        [lines[1], lines[0], lines[2]],
        lines[:2],
        [b"not json\n", *lines[1:]],
        [b"[]\n", *lines[1:]],
        [],
    ):
        path.write_bytes(b"".join(wrong))
        with pytest.raises(EngineError, match="nothing is released"):
            entries(path)
    path.unlink()
    with pytest.raises(EngineError, match="it is gone"):
        entries(path)


def test_a_line_that_a_crash_cut_short_is_taken_away_and_a_missing_head_is_written_again(tmp_path: Path) -> None:
    path = filled(tmp_path / "m")
    head = path.with_name("m.head")
    before = head.read_bytes()
    with path.open("ab") as file:
        file.write(b'{"facts": {"number": 3')
    assert entries(path) == [0, 1, 2]
    with open_memory(path) as memory:
        memory.append({"number": 3})
    head.write_bytes(before)  # the process ended between the line and its head
    assert entries(path) == [0, 1, 2, 3]
    head.write_bytes(b"1 " + before.split()[1] + b"\n")
    with pytest.raises(EngineError, match="nothing is released"):
        entries(path)


def _append(path: Path, times: int) -> None:
    for _ in range(times):
        with open_memory(path) as memory:
            memory.append({"number": len(memory.entries)})


def test_processes_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))  # a new process finds this module by it
    path = tmp_path / "m"
    context = multiprocessing.get_context("spawn")
    running = [context.Process(target=_append, args=(path, 8)) for _ in range(3)]
    for one in running:
        one.start()
    for one in running:
        one.join()
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]  # a process that outlives the test
    assert entries(path) == list(range(24))


def test_draws_are_those_of_the_memory_and_of_what_they_are_for(tmp_path: Path) -> None:
    with open_memory(tmp_path / "m") as memory:
        first = [memory.uniform("count", i) for i in range(500)]
        assert all(0 < draw <= 1 for draw in first)
        assert 0.4 < sum(first) / 500 < 0.6
        assert memory.uniform("total", 1) != memory.uniform("count", 1)
    with open_memory(tmp_path / "m") as memory:
        assert [memory.uniform("count", i) for i in range(500)] == first
    with open_memory(tmp_path / "other") as memory:
        assert memory.uniform("count", 0) != first[0]
    os.truncate(tmp_path / "m.key", 5)
    with pytest.raises(EngineError, match="5 bytes"), open_memory(tmp_path / "m"):
        pass
