"""What a holder of an ECDH linkage keeps for another attempt: used as it was made, or made again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from statfed.core.errors import Refused, UsageError
from statfed.strategies.linkages import _ristretto as group
from statfed.strategies.linkages import ecdh
from statfed.strategies.linkages._kept_points import KeptPoints
from tests.strategies.linkages.pairs_of_holders import Run, numbered

OFFICE, BANK = numbered(0, 150), numbered(100, 250)
RECORD = 64 + 64 * 32  # bytes of a message's points, with their head


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


def attempt(folder: Path, number: int, **options: Any) -> Run:
    """One attempt at a run, by holders whose processes are new. Lists are filled up to 160 items."""
    keep = {name: folder / name for name in ("office", "bank")}
    run = "run" if number == 1 else f"run~{number}"
    return Run(OFFICE, BANK, keep=keep, run=run, options={"pad_to": {"office": 160, "bank": 160}, **options})


def broken_off(run: Run, after: int) -> None:
    rounds = ecdh.coordinator(run.agreement)
    stage = next(rounds)
    for _ in range(after):
        stage = rounds.send(run._answers(stage))


@pytest.mark.parametrize("after", range(2, 14))
def test_wherever_an_attempt_is_broken_off_each_point_is_made_once(after: int, tmp_path: Path, made: list[int]) -> None:
    broken_off(attempt(tmp_path, 1), after)
    assert attempt(tmp_path, 2).outcome().size == 50
    assert sum(made) == 4 * 160


@pytest.mark.parametrize("reveal", ["size", "pairs"])
def test_another_attempt_says_what_the_first_one_said_in_filled_places_too(reveal: str, tmp_path: Path) -> None:
    first, second = (attempt(tmp_path, number, reveal=reveal) for number in (1, 2))
    assert first.outcome().size == second.outcome().size == 50
    assert first.heard == second.heard
    assert {packet.get("chunk") for _, _, packet in first.sent}.isdisjoint(
        packet["chunk"] for _, _, packet in second.sent if "chunk" in packet
    )


def test_points_that_are_lost_are_made_again_and_are_the_same(tmp_path: Path) -> None:
    first = attempt(tmp_path, 1)
    first.outcome()
    for name in ("office", "bank"):
        (tmp_path / f"{name}.own").unlink()
    second = attempt(tmp_path, 2)
    assert second.outcome().size == 50
    assert first.heard == second.heard


def other_points(content: bytes) -> bytes:
    return content[:64] + group.hashed(bytes(32), ["another"]).tobytes() + content[96:]


SPOILT: dict[str, Callable[[bytes], bytes]] = {
    "altered": other_points,
    "cut short": lambda content: content[:-40],
    "empty": lambda _: b"",
    "in another place": lambda content: content[RECORD : 2 * RECORD] + content[:RECORD] + content[2 * RECORD :],
    "of no points": lambda content: content[:64] + b"\xff" * (len(content) - 64),
}


@pytest.mark.parametrize("suffix", [".own", ".others"])
@pytest.mark.parametrize("spoil", SPOILT)
def test_kept_points_that_are_not_as_they_were_are_made_again(spoil: str, suffix: str, tmp_path: Path) -> None:
    attempt(tmp_path, 1).outcome()
    for name in ("office", "bank"):
        path = tmp_path / f"{name}{suffix}"
        path.write_bytes(SPOILT[spoil](path.read_bytes()))
    assert attempt(tmp_path, 2).outcome().size == 50


def test_points_of_one_file_are_not_taken_for_those_of_another(tmp_path: Path) -> None:
    points = group.hashed(bytes(32), ["a", "b"])
    KeptPoints(tmp_path / "list.own", bytes(32), 2).put(0, b"", points)
    (tmp_path / "list.own").rename(tmp_path / "list.others")
    assert KeptPoints(tmp_path / "list.others", bytes(32), 2).get(0, b"", 2) is None
    (tmp_path / "list.others").rename(tmp_path / "list.own")
    found = KeptPoints(tmp_path / "list.own", bytes(32), 2).get(0, b"", 2)
    assert found is not None
    np.testing.assert_array_equal(found, points)
    assert KeptPoints(tmp_path / "list.own", b"1" * 32, 2).get(0, b"", 2) is None


def test_an_order_that_was_altered_is_refused(tmp_path: Path) -> None:
    attempt(tmp_path, 1)
    with np.load(tmp_path / "bank") as file:
        arrays = {name: file[name] for name in file.files}
    arrays["order"] = arrays["order"][::-1].copy()
    with (tmp_path / "bank").open("wb") as file:
        np.savez(file, **arrays)
    with pytest.raises(UsageError, match="damaged"):
        attempt(tmp_path, 2)


def test_a_link_in_the_place_of_a_file_of_points_is_not_followed(tmp_path: Path) -> None:
    attempt(tmp_path, 1).outcome()
    (tmp_path / "elsewhere").write_bytes(b"")
    for name in ("office", "bank"):
        (tmp_path / f"{name}.own").unlink()
        (tmp_path / f"{name}.own").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        attempt(tmp_path, 2).outcome()
    assert (tmp_path / "elsewhere").read_bytes() == b""


def test_a_holder_whose_list_is_another_one_in_the_next_attempt_is_refused(tmp_path: Path) -> None:
    attempt(tmp_path, 1).outcome()
    for path in tmp_path.glob("office*"):
        path.unlink()
    with pytest.raises(Refused, match="list: got another one than at the first attempt"):
        attempt(tmp_path, 2).outcome()
