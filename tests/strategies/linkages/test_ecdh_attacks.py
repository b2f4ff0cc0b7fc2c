"""Attacks on a linkage by ECDH: by whoever reads, by the coordinator, and by a holder that deviates.

What cannot be kept from a holder that deviates is attacked too, so that what the module says of it stays true.
"""

import hashlib
import json
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from statfed.core.errors import Refused, StatfedError, UsageError
from statfed.core.linkage import Units
from statfed.core.protection import Packet
from statfed.strategies.linkages import _ristretto as group
from statfed.strategies.linkages import ecdh
from statfed.strategies.linkages._channels import Channels
from statfed.strategies.linkages._ecdh_list import List
from statfed.strategies.linkages._elgamal import Digits, Key, Sums
from tests.protocol import identities
from tests.strategies.linkages import naive
from tests.strategies.linkages.pairs_of_holders import Run, Spoil, agreed, numbered

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "ristretto255.json").read_text())
BAD = {
    "identity": VECTORS["multiples"][0],
    "not canonical": VECTORS["invalid"][3],
    "not in the group": VECTORS["invalid"][12],
    "of order 8 on the curve": "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "of order 2 on the curve": "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
}
SPACE = numbered(0, 400)
OFFICE, BANK = SPACE[:100], SPACE[60:160]
TOTALS = {"reveal": "totals", "to": "bank", "columns": {"x": {"low": 0, "high": 100}}}
VALUES = {"bank": {"x": np.arange(100.0)}}


def pieces(content: bytes) -> set[bytes]:
    return {row.tobytes() for row in group.points_of(content)}


def heard(run: Run, name: str, stage: str) -> bytes:
    """The list that a holder was sent in a stage."""
    return b"".join(content for at, content in run.heard[name] if at == stage)


def list_of(run: Run, name: str) -> List:
    return run.parties[name]._list


def guessed(run: Run, scalar: bytes | None = None) -> dict[bytes, str]:
    """The point of every key that there can be, blinded where a scalar is known."""
    points = group.hashed(run.agreement.context("linkage list"), SPACE)
    if scalar is not None:
        points = group.multiplied(scalar, points, "attacker")
    return {row.tobytes(): key for row, key in zip(points, SPACE, strict=True)}


def spoilt(stage: str, change: Callable[[bytes], bytes]) -> Spoil:
    """Say something else in the first message of a stage."""
    return lambda at, number, content: change(content) if (at, number) == (stage, 0) else content


def test_a_dictionary_recovers_every_key_of_a_naive_hash_join_and_none_of_ours() -> None:
    assert naive.joined(naive.tags(OFFICE), naive.tags(BANK)) == 40
    assert naive.dictionary(naive.tags(OFFICE), SPACE) == set(OFFICE)
    for reveal in ("size", "pairs", "totals"):
        run = Run(OFFICE, BANK, VALUES, TOTALS if reveal == "totals" else {"reveal": reveal})
        assert run.outcome().size == 40
        relayed = b"".join(item for _, _, packet in run.sent for item in packet.values() if isinstance(item, bytes))
        opened = {name: set().union(*(pieces(content) for _, content in run.heard[name])) for name in run.heard}
        tags = set(naive.tags(SPACE)) | {hashlib.sha512(key.encode()).digest()[:32] for key in SPACE}
        for name, other in (("office", "bank"), ("bank", "office")):
            known = list_of(run, name).scalar
            for guesses in (tags, set(guessed(run)), set(guessed(run, known))):
                assert not opened[name] & guesses, (reveal, name, other)
                assert not any(guess in relayed for guess in guesses)
        assert not any(key.encode() in relayed for key in SPACE)


def test_a_leaked_scalar_opens_the_list_that_it_blinded_to_the_other_holder_alone() -> None:
    run = Run(OFFICE, BANK)
    run.outcome()
    for name, other, stage, keys in (("bank", "office", "first", OFFICE), ("office", "bank", "own", BANK)):
        leaked = guessed(run, list_of(run, other).scalar)
        assert {leaked[point] for point in pieces(heard(run, name, stage)) & set(leaked)} == set(keys)
        relayed = b"".join(item for _, _, packet in run.sent for item in packet.values() if isinstance(item, bytes))
        assert not any(point in relayed for point in leaked)
    doubled = pieces(heard(run, "office", "second"))
    assert not doubled & set(guessed(run, list_of(run, "bank").scalar))


def test_lists_do_not_travel_in_the_order_of_units_nor_twice_in_one_order() -> None:
    orders = []
    for _ in range(2):
        run = Run(OFFICE, BANK)
        run.outcome()
        leaked = guessed(run, list_of(run, "bank").scalar)
        orders.append([leaked[row.tobytes()] for row in group.points_of(heard(run, "office", "own"))])
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(BANK)
    assert len({tuple(order) for order in [*orders, BANK]}) == 3


def test_what_comes_back_for_a_size_says_nothing_of_the_order_in_which_it_came() -> None:
    run = Run(OFFICE, BANK)
    run.outcome()
    back = [row.tobytes() for row in group.points_of(heard(run, "office", "second"))]
    assert back == sorted(back)


@pytest.mark.parametrize("reveal", ["size", "totals"])
def test_a_mirror_that_keeps_the_order_is_refused_before_anything_is_compared(reveal: str) -> None:
    options = dict(TOTALS) if reveal == "totals" else {"reveal": reveal}
    kept = spoilt("second", lambda content: group.points_of(content)[::-1].tobytes())
    run = Run(OFFICE, BANK, VALUES, options, spoils={"bank": kept})
    with pytest.raises(Refused, match="got them from bank unsorted or twice"):
        run.outcome()
    assert "own" not in dict(run.heard["office"])


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize(("stage", "sender"), [("first", "office"), ("second", "bank"), ("own", "bank")])
def test_a_point_that_is_none_is_refused_and_its_sender_named(stage: str, sender: str, kind: str) -> None:
    bad = bytes.fromhex(BAD[kind])
    place = 0 if kind == "identity" else 32 * 63  # where a sorted list might have it
    run = Run(OFFICE, BANK, spoils={sender: spoilt(stage, lambda c: c[:place] + bad + c[place + 32 :])})
    with pytest.raises(Refused, match=f"points: got one from {sender} that is not canonical"):
        run.outcome()


@pytest.mark.parametrize("reveal", ["size", "pairs"])
@pytest.mark.parametrize(("stage", "sender"), [("first", "office"), ("second", "bank"), ("own", "bank")])
def test_a_list_that_has_a_point_twice_is_refused(stage: str, sender: str, reveal: str) -> None:
    twice = spoilt(stage, lambda content: content[:32] + content[:32] + content[64:])
    with pytest.raises(Refused, match=f"{sender}.* twice"):
        Run(OFFICE, BANK, options={"reveal": reveal}, spoils={sender: twice}).outcome()


def test_points_that_are_no_multiples_make_the_size_wrong_and_nothing_else() -> None:
    def others(content: bytes) -> bytes:
        points = group.hashed(bytes(32), [None] * (len(content) // 32))
        group.sort(points)
        return points.tobytes()

    run = Run(OFFICE, BANK, options={"chunk": 100}, spoils={"bank": spoilt("second", others)})
    assert run.outcome().size == 0
    run = Run(OFFICE, BANK, options={"chunk": 100, "reveal": "pairs"}, spoils={"bank": spoilt("second", others)})
    assert run.outcome().size == 0


@pytest.mark.parametrize("office", [OFFICE[:1], [*OFFICE[:99], None]], ids=["filled up", "key missing"])
def test_a_match_of_what_is_no_unit_betrays_the_mirror(office: list[str | None]) -> None:
    secret = group.fresh_scalar()
    run = Run(office, BANK, options={"reveal": "pairs", "chunk": 100}, sizes={"office": 100, "bank": 100})

    def own(_: bytes) -> bytes:
        return group.multiplied(secret, group.points_of(heard(run, "bank", "first")), "bank").tobytes()

    def second(_: bytes) -> bytes:
        return group.multiplied(list_of(run, "office").scalar, group.points_of(own(b"")), "bank").tobytes()

    run.spoils = {"bank": lambda stage, _, content: {"own": own, "second": second}.get(stage, bytes)(content)}
    with pytest.raises(Refused, match="got a match of an item that is no unit"):
        run.outcome()


def test_a_matcher_with_a_scalar_a_guess_finds_out_which_match_as_the_module_says() -> None:
    guesses = SPACE[50:150]
    scalars = [group.fresh_scalar() for _ in guesses]
    run = Run(guesses, BANK, options={"chunk": 100})
    points = group.hashed(run.agreement.context("linkage list"), guesses)
    blinded = b"".join(group.multiplied(one, points[i : i + 1], "x").tobytes() for i, one in enumerate(scalars))
    run.spoils = {"office": spoilt("first", lambda _: blinded)}
    run.outcome()
    back, own = pieces(heard(run, "office", "second")), group.points_of(heard(run, "office", "own"))
    found = {
        guess
        for guess, scalar in zip(guesses, scalars, strict=True)
        if pieces(group.multiplied(scalar, own, "x").tobytes()) & back
    }
    assert found == set(guesses) & set(BANK)
    assert "finds out which of them match" in " ".join((ecdh.__doc__ or "").split())
    assert any("which of the keys that it guesses are units" in trust for trust in ecdh.TRUST)


def test_an_owner_of_values_1_2_4_reads_who_matched_as_the_module_says() -> None:
    values = {"bank": {"x": np.ldexp(1.0, np.arange(40))}}
    options = {"reveal": "totals", "to": "bank", "columns": {"x": {"low": 0, "high": 2**40}}}
    total = int(Run(SPACE[:40], SPACE[20:60], values, options).outcome().figures["x"])
    read = {key for place, key in enumerate(SPACE[20:60]) if total >> place & 1}
    assert read == set(SPACE[20:40])
    assert "can let items weigh unequally" in " ".join((ecdh.__doc__ or "").split())
    assert Run(SPACE[:40], SPACE[20:60], values, {**options, "minimum": 21}).outcome().figures == {}


def test_a_list_of_guesses_is_limited_by_the_items_of_the_other() -> None:
    agreement = agreed({"office": 5000, "bank": 100}, ratio=20)
    with pytest.raises(UsageError, match="ratio: got lists of 100 and 5000 items; want at most 20 for each"):
        ecdh.party(agreement, identities(agreement.parties)["bank"], Units({"id": BANK}))


def test_a_key_holder_cannot_tell_which_values_were_added_up() -> None:
    digits = Digits((ecdh.Column(low=0, high=9),))
    key = Key.fresh(digits.count)
    ciphertexts = key.encrypted(digits.written([np.array([1.0, 2.0, 3.0])]))
    shared = {row.tobytes() for row in ciphertexts.reshape(3, 2, 32)[:, 0]}
    finished = []
    for _ in range(2):
        sums = Sums(key.public, "bank")
        sums.add(ciphertexts, np.array([False, True, False]))
        finished.append(sums.finished())
        assert key.decrypted(finished[-1], digits.bounds, 3, "office") == [2]
    assert not shared & {one[0].tobytes() for one in finished}
    assert not (finished[0] == finished[1]).all(axis=1).any()


def test_the_work_of_a_sum_tells_neither_how_many_are_chosen_nor_what_they_add_up_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    digits = Digits((ecdh.Column(low=0, high=9),))
    key, library, calls = Key.fresh(digits.count), group.library(), [0]

    def counted(*points: bytes, plus: Callable[..., bytes]) -> bytes:
        calls[0] += 1
        return plus(*points)

    def work(values: list[float], chosen: list[bool]) -> int:
        ciphertexts, calls[0] = key.encrypted(digits.written([np.array(values)])), 0
        sums = Sums(key.public, "bank")
        sums.add(ciphertexts, np.array(chosen))
        key.decrypted(sums.finished(), digits.bounds, 4, "office")
        return calls[0]

    for name in ("crypto_core_ristretto255_add", "crypto_core_ristretto255_sub"):
        monkeypatch.setattr(library, name, partial(counted, plus=getattr(library, name)))
    assert work([9.0, 9.0, 9.0, 9.0], [True] * 4) == work([0.0, 0.0, 0.0, 1.0], [False, False, False, True])


def test_equal_values_are_encrypted_differently() -> None:
    digits = Digits((ecdh.Column(low=0, high=9),))
    found = Key.fresh(1).encrypted(digits.written([np.full(50, 7.0)]))
    assert len(pieces(found.tobytes())) == 100


def test_a_ciphertext_that_is_none_is_refused_also_where_nothing_matches() -> None:
    nothing = spoilt("own", lambda content: content[:-32] + bytes(32))
    run = Run(OFFICE, SPACE[100:200], VALUES, TOTALS, spoils={"bank": nothing})
    with pytest.raises(Refused, match="got one from bank that is not canonical"):
        run.outcome()


def test_public_keys_and_sums_that_are_none_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(OFFICE, BANK, VALUES, TOTALS, spoils={"bank": spoilt("own", lambda c: bytes(32) + c[32:])})
    with pytest.raises(Refused, match="got one from bank that is not canonical"):
        run.outcome()
    finished = Sums.finished
    bad = np.frombuffer(bytes.fromhex(BAD["not canonical"]), np.uint8)
    monkeypatch.setattr(Sums, "finished", lambda self: np.stack([finished(self)[0], bad]))
    with pytest.raises(Refused, match="got one from office that is not canonical"):
        Run(OFFICE, BANK, VALUES, TOTALS).outcome()


def test_a_sum_that_cannot_be_is_refused_and_not_a_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sums, "finished", lambda _: group.hashed(bytes(32), [None, None]))
    with pytest.raises(Refused, match="got a sum of office that is out of range"):
        Run(OFFICE, BANK, VALUES, TOTALS).outcome()


def twisted(twist: Callable[[dict[str, bytes], dict[str, bytes]], dict[str, bytes]]) -> Run:
    """A linkage whose coordinator gives the bank, as message 1 of `first`, what `twist` makes of messages 0 and 1."""
    before: dict[str, bytes] = {}

    def change(stage: str, name: str, packet: Packet) -> Packet:
        given = {key: bytes(np.asarray(item)) if not isinstance(item, bytes) else item for key, item in packet.items()}
        if (stage, name) != ("first", "bank"):
            return packet
        if given["number"] == b"0":
            before.update(given)
            return packet
        return twist(before, given)

    return Run(SPACE[:128], SPACE[60:188], change=change)


TWISTS: dict[str, tuple[Callable[[dict[str, bytes], dict[str, bytes]], dict[str, bytes]], str]] = {
    "replayed": (lambda old, new: {**new, "chunk": old["chunk"]}, "office has not sealed for it"),
    "replayed under its number": (lambda old, _: {**old, "number": b"00"}, "not due; want first 1"),
    "out of order": (lambda _, new: {**new, "number": b"2"}, "not due; want first 1"),
    "truncated": (lambda _, new: {**new, "chunk": new["chunk"][:-32]}, "got 2032 bytes of office; want 2064"),
    "longer": (lambda _, new: {**new, "chunk": new["chunk"] + bytes(32)}, "got 2096 bytes of office; want 2064"),
    "changed": (lambda _, new: {**new, "chunk": bytes([new["chunk"][0] ^ 1]) + new["chunk"][1:]}, "not sealed for it"),
    "empty": (lambda _, new: {"number": new["number"]}, "got no bytes chunk"),
}


@pytest.mark.parametrize("twist", TWISTS)
def test_a_message_that_is_not_the_next_one_is_refused_and_ends_the_attempt(twist: str) -> None:
    make, words = TWISTS[twist]
    run = twisted(make)
    with pytest.raises(StatfedError, match=words):
        run.outcome()
    with pytest.raises(Refused, match="not due; want none"):
        run.parties["bank"].answer("second", {"number": b"0"})


def test_a_list_that_is_cut_short_is_neither_blinded_again_nor_given_back() -> None:
    run = Run(SPACE[:128], SPACE[60:188])
    rounds = ecdh.coordinator(run.agreement)
    stage = next(rounds)
    while not (stage.name == "first" and len(stage.packets) == 2):
        stage = rounds.send({name: run.parties[name].answer(stage.name, p) for name, p in stage.packets.items()})
    run.parties["bank"].answer("first", stage.packets["bank"])
    with pytest.raises(Refused, match="not due; want first 1"):
        run.parties["bank"].answer("second", {"number": b"0"})


def test_a_huge_message_is_refused_before_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    monkeypatch.setattr(Channels, "open", lambda *_: opened.append(1))
    run = Run(
        OFFICE,
        BANK,
        change=lambda stage, name, packet: (
            {**packet, "chunk": bytes(10**7)} if (stage, name) == ("first", "bank") else packet
        ),
    )
    with pytest.raises(Refused, match="first 0: got 10000000 bytes of office; want 2064"):
        run.outcome()
    assert not opened


@pytest.mark.parametrize("items", [20_000_001, 10**15])
def test_huge_announced_sizes_are_refused_before_memory_is_taken(items: int) -> None:
    agreement = agreed({"bank": items, "office": items})
    known = identities(agreement.parties)["bank"]
    tracemalloc.start()
    try:
        with pytest.raises(UsageError, match=f"got lists of {items} and {items} items; want 1 "):
            ecdh.party(agreement, known, Units({"id": BANK}))
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
