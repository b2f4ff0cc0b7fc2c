"""Letters that travel in pieces: whole at their reader or refused, whatever the relay or the writer does."""

import resource
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from statfed.core.errors import EngineError, Refused
from statfed.strategies.linkages import _rounds, helper
from statfed.strategies.linkages._channels import met
from statfed.strategies.linkages._rounds import Correspondent, Later, Out, Program, Relay
from tests.strategies.linkages.joined import agreed, identities


def correspondents(
    arrays: list[Any], shape: tuple[int, ...], most: int = 1 << 20
) -> tuple[dict[str, Correspondent], list[Any], Relay]:
    """Three parties that have met; in the next two rounds `a` sends these arrays to the helper, which takes `shape`."""
    agreement = agreed({"a": 5, "b": 5}, helper.Options())
    who, got = identities(agreement.parties), []

    def sends() -> Program:
        yield Out({"helper": arrays})

    def takes() -> Program:
        mail = yield Out()
        letter = mail.of("a")
        got.append(letter.take(shape))
        letter.end()

    def nothing() -> Program:
        yield Out()

    programs = {"a": sends, "b": nothing, "helper": takes}
    parties = {name: Correspondent(agreement, who[name], programs[name], most) for name in agreement.parties}
    rounds = met(agreement)
    stage = next(rounds)
    try:
        while True:
            stage = rounds.send({n: parties[n].answer(stage.name, p) for n, p in stage.packets.items()})
    except StopIteration:
        return parties, got, Relay(agreement)


def delivered(parties: Mapping[str, Correspondent], relay: Relay, change: Any = None) -> int:
    """Two rounds; how many exchanges they took. change: of the replies of an exchange, given its number."""
    count = 0
    for _ in range(2):
        rounds = relay.round()
        stage = next(rounds)
        try:
            while True:
                count += 1
                replies = {n: dict(parties[n].answer(stage.name, p)) for n, p in stage.packets.items()}
                stage = rounds.send(replies if change is None else change(count, replies))
        except StopIteration:
            pass
    return count


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_rounds, "PIECE", 64)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("words", [0, 1, 8, 9, 100])
def test_a_letter_in_pieces_arrives_whole_and_in_order(words: int) -> None:
    content = np.arange(words, dtype=np.uint64)
    cut = [content[:3], Later(content[3:].nbytes, iter([content[3:7], content[7:]])), np.empty(0, np.uint64)]
    parties, got, relay = correspondents(cut, (words,))
    assert delivered(parties, relay) == 2 + max(0, -(-8 * words // 64) - 1)
    np.testing.assert_array_equal(got[0], content)


def spoilt(at: int, make: Any) -> Any:
    """A relay that keeps what `a` has sent and hands on something else, in one exchange."""
    sent: list[bytes] = []

    def change(count: int, replies: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        piece = replies["a"].get("to:helper")
        if piece is not None:
            sent.append(piece)
        if count == at:
            replies["a"] = make(replies["a"], sent)
        return replies

    return change


PIECES = {
    "left out": lambda reply, _: {k: v for k, v in reply.items() if k != "to:helper"},
    "repeated": lambda reply, sent: reply | {"to:helper": sent[-2]},
    "cut short": lambda reply, _: reply | {"to:helper": reply["to:helper"][:-1]},
    "drawn out": lambda reply, _: reply | {"to:helper": reply["to:helper"] + bytes(10**5)},
    "broken off": lambda reply, _: {k: v for k, v in reply.items() if k != "left"},
}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("what", PIECES)
def test_pieces_that_the_relay_spoils_are_refused(what: str) -> None:
    parties, got, relay = correspondents([np.arange(100, dtype=np.uint64)], (100,))
    with pytest.raises(Refused, match=r"mail of a|sealed|letters of this one have left"):
        delivered(parties, relay, spoilt(5, PIECES[what]))
    assert not got


@pytest.mark.usefixtures("small")
def test_pieces_in_another_order_are_refused() -> None:
    held: list[bytes] = []

    def change(count: int, replies: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        if count == 3:
            held.append(replies["a"].pop("to:helper"))
        if count == 4:
            held.append(replies["a"]["to:helper"])
            replies["a"]["to:helper"] = held[1]
        return replies

    parties, got, relay = correspondents([np.arange(100, dtype=np.uint64)], (100,))
    with pytest.raises(Refused, match="out of order"):
        delivered(parties, relay, change)
    assert not got


def announcing(size: int, content: bytes = b"") -> Any:
    """What a party says that announces another length than its letter has."""

    def piece(leaving: Any) -> bytes:
        leaving.begun, leaving.left = True, 0
        return size.to_bytes(8, "big") + content

    return piece


@pytest.mark.parametrize(
    ("size", "words"),
    [(2**62, "announced; want at most"), (2**30, "want whole pieces"), (3, "got 80 bytes of 3 announced")],
    ids=["huge", "more than comes", "less than comes"],
)
def test_announced_lengths_that_are_not_true_are_refused_before_memory_is_taken(
    size: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parties, got, relay = correspondents([np.arange(10, dtype=np.uint64)], (10,), 2**31)
    monkeypatch.setattr(_rounds._Leaving, "piece", announcing(size, bytes(80)))
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Refused, match=words):
        delivered(parties, relay)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident < 2**14  # of KB; pages are taken when written
    assert not got


def test_a_party_whose_mail_does_not_end_is_given_up() -> None:
    def change(_: int, replies: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        replies["b"]["left"] = (7).to_bytes(4, "big")
        return replies

    parties, _, relay = correspondents([np.arange(10, dtype=np.uint64)], (10,))
    with pytest.raises(EngineError, match="does not come to an end"):
        delivered(parties, relay, change)


def test_words_to_all_in_an_exchange_that_only_brings_letters_on_are_refused() -> None:
    parties, _, _ = correspondents([np.arange(10, dtype=np.uint64)], (10,))
    with pytest.raises(Refused, match="only brings letters on"):
        parties["b"].answer("round", {"number": b"\0\0\0\1", "on": b"1", "public:x": np.array(1)})
