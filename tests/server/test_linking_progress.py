"""How far a linkage is, as its coordinator is told."""

from collections.abc import Generator

from statfed.core.linkage import Outcome
from statfed.core.protection import Replies, Stage
from statfed.server.linking import _watched


def rounds(*standings: tuple[str, int, int]) -> Generator[Stage, Replies, Outcome]:
    for standing in standings:
        reply = yield Stage("stage", {}, standing=standing)
        assert reply == {"holder": {}}
    return Outcome(size=7)


def followed(*standings: tuple[str, int, int]) -> list[tuple[str, int, int]]:
    told: list[tuple[str, int, int]] = []
    outcome: Outcome | None = None

    def progress(phase: str, done: int, total: int) -> None:
        told.append((phase, done, total))

    watched = _watched(rounds(*standings), progress)
    stage = next(watched, None)
    while stage is not None:
        assert stage.name == "stage"
        try:
            stage = watched.send({"holder": {}})
        except StopIteration as end:
            stage, outcome = None, end.value
    assert standings == () or outcome == Outcome(size=7)
    return told


def test_what_takes_several_exchanges_is_told_to_its_end_and_the_rest_is_not() -> None:
    assert followed(("", 0, 1), ("key", 0, 1), ("list", 0, 30), ("list", 10, 30), ("list", 20, 30), ("join", 0, 1)) == [
        ("link units: list", 10, 30),
        ("link units: list", 20, 30),
        ("link units: list", 30, 30),
    ]


def test_what_is_done_several_times_begins_anew() -> None:
    assert followed(("sums", 0, 2), ("sums", 1, 2), ("sums", 0, 3), ("sums", 1, 3)) == [
        ("link units: sums", 1, 2),
        ("link units: sums", 2, 2),
        ("link units: sums", 1, 3),
        ("link units: sums", 3, 3),
    ]


def test_a_linkage_in_one_exchange_tells_nothing() -> None:
    assert followed() == followed(("size", 0, 1)) == []
