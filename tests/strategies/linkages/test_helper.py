"""Matching by tags: equal to a plain merge, and what each role sees of it."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from statfed.core.errors import EngineError, Refused, UsageError
from statfed.core.linkage import Units, linked, load_linkage
from statfed.core.protection import Packet
from statfed.core.randomness import Stream
from statfed.strategies.linkages import _join, _tags, helper
from statfed.strategies.linkages._channels import Channels
from tests.strategies.linkages.joined import Run, agreed, identities, run

KEY = bytes(range(32))


def units(ids: Any) -> Units:
    return Units({"id": [str(i) for i in ids]})


def registers(count: int, holders: int = 2, seed: int = 0) -> dict[str, Units]:
    rng = np.random.default_rng(seed)
    return {name: units(rng.choice(2 * count, count - i, replace=False)) for i, name in enumerate("abc"[:holders])}


def common(registers: Mapping[str, Units]) -> set[str]:
    return set.intersection(*(set(map(str, each.keys["id"])) for each in registers.values()))


@pytest.mark.parametrize("holders", [2, 3])
def test_the_size_is_that_of_a_merge(holders: int) -> None:
    made = registers(300, holders)
    frames = [pd.DataFrame({"id": each.keys["id"]}) for each in made.values()]
    merged = frames[0]
    for other in frames[1:]:
        merged = merged.merge(other, on="id")
    assert run(made).outcome.size == len(merged) > 0


@pytest.mark.parametrize(
    ("a", "b", "size"),
    [(range(5), range(5, 9), 0), (range(7), reversed(range(7)), 7), (range(1), range(1), 1)],
    ids=["nobody", "everybody", "one"],
)
def test_nobody_everybody_and_one_match(a: Any, b: Any, size: int) -> None:
    assert run({"a": units(a), "b": units(b)}).outcome.size == size


def test_pairs_belong_together_and_go_to_those_named_alone() -> None:
    made = registers(200, 3)
    found = run(made, reveal="pairs", to=("a", "c"))
    ids = {name: np.array(each.keys["id"]) for name, each in made.items()}
    a, c = (ids[name][found.parties[name].pairs.unit] for name in ("a", "c"))
    np.testing.assert_array_equal(a, c)
    assert set(a) == common(made)
    assert found.parties["b"].pairs is None
    assert found.outcome.size == len(a)


def test_units_without_a_part_of_the_key_match_nothing() -> None:
    a = Units({"name": ["x", "y", None], "born": ["1", None, "3"]})
    b = Units({"name": ["x", "y", None], "born": ["1", None, "3"]})
    assert run({"a": a, "b": b}).outcome.size == 1


def test_parts_of_a_key_do_not_run_into_each_other() -> None:
    a, b = Units({"p": ["ab"], "q": ["c"]}), Units({"p": ["a"], "q": ["bc"]})
    assert run({"a": a, "b": b}).outcome.size == 0


def test_tags_are_those_of_the_obvious_computation() -> None:
    found, places = _tags.tags(KEY, Units({"q": ["x", "é"], "p": ["1", "2"]}))
    assert [bytes(each) for each in found] == [_tags.tag_of(KEY, ["1", "x"]), _tags.tag_of(KEY, ["2", "é"])]
    np.testing.assert_array_equal(places, [0, 1])


def test_tags_with_the_same_high_half_are_told_apart() -> None:
    a = np.array([(5, 1), (5, 2), (7, 1)], _tags.TAG)
    b = np.array([(7, 2), (5, 2), (5, 3), (7, 1)], _tags.TAG)
    found = _tags.matched([a, b])
    assert sorted(map(tuple, found.tolist())) == [(1, 1), (2, 3)]


def test_a_permutation_is_uniform() -> None:
    counts = dict.fromkeys(itertools.permutations(range(4)), 0)
    stream = Stream(bytes(16))
    for _ in range(4800):
        counts[tuple(_tags.permutation(stream, 4).tolist())] += 1
    assert stats.chisquare(list(counts.values())).pvalue > 1e-4


@pytest.mark.parametrize("matches", [0, 1, 3], ids=["none", "one", "all"])
def test_lists_of_two_holders_together_are_uniform_whatever_matched(matches: int) -> None:
    """A third holder's lists and the second's go to one keeper. All 36 pairs of orders of 3 places come up alike, with
    the same units matched each time; without the holders' shuffles, 6 of them do where all match."""
    orders = list(itertools.permutations(range(3)))
    counts = dict.fromkeys(itertools.product(orders, orders), 0)
    stream = Stream(bytes(15) + b"\1")
    for _ in range(7200):
        places = [np.argsort(_tags.permutation(stream, 3)) for _ in range(2)]  # where shuffles have put each unit
        found = np.stack([each[:matches] for each in places], axis=1).astype(np.int64)
        rows, is_match = _tags.aligned(found, 3, stream)
        assert is_match.sum() == matches
        counts[tuple(rows[0].tolist()), tuple(rows[1].tolist())] += 1
    assert stats.chisquare(list(counts.values())).pvalue > 1e-4


def test_every_place_is_in_one_row_and_matches_are_together() -> None:
    found = np.array([[0, 3], [2, 1]])
    rows, is_match = _tags.aligned(found, 5, Stream(bytes(16)))
    for column in rows:
        np.testing.assert_array_equal(np.sort(column), np.arange(5))
    assert {tuple(row) for row in rows[:, is_match].T.tolist()} == {(0, 3), (2, 1)}


def test_the_joined_shares_are_of_the_listed_rows_and_each_alone_is_uniform() -> None:
    payload = np.zeros((4000, 2), np.uint64)
    payload[:, 1] = 7
    mask, again = _join.seed(), _join.seed()
    rows = np.random.default_rng(1).permutation(4000)
    kept = _join.kept((4000, 2), rows, mask, again)
    other = np.stack(list(_join.remasked(_join.masked(payload.T, mask), rows, again)), axis=1)
    np.testing.assert_array_equal(kept.own + other, payload[rows])
    for share in (kept.own, other, np.stack(list(_join.masked(payload.T, mask)))):
        bytes_of = np.frombuffer(share.tobytes(), np.uint8)
        assert stats.chisquare(np.bincount(bytes_of, minlength=256)).pvalue > 1e-6


def test_no_holder_keeps_its_own_mask() -> None:
    cast = _join.Cast(("a", "b", "c"), "helper")
    for holder in cast.holders:
        assert cast.keeper(holder) != holder
        assert {cast.keeper(holder), cast.other(holder)} == {"a", "b"}


class Opening:
    """Reads what a party can read of its mail, by taking its channels' place at one side."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read: dict[str, list[bytes]] = {}
        plain = Channels.open

        def noting(channels: Channels, sender: str, purpose: str, content: bytes) -> bytes:
            found = plain(channels, sender, purpose, content)
            self.read.setdefault(channels.identity.name, []).append(found)
            return found

        monkeypatch.setattr(Channels, "open", noting)


def test_a_dictionary_of_all_persons_finds_nobody_in_what_the_helper_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in plain, nor hashed, nor tagged under a key that the helper could guess. With the key all are found."""
    opening = Opening(monkeypatch)
    keys: list[bytes] = []
    plain = _tags.tags

    def noting(key: bytes, units: Units) -> Any:
        keys.append(key)
        return plain(key, units)

    monkeypatch.setattr(_tags, "tags", noting)
    made = registers(60)
    run(made, reveal="pairs", to=("a",))
    seen = b"".join(opening.read["helper"])
    tried = [_tags.tag_of(key, [str(i)]) for key in (b"", bytes(32), KEY) for i in range(120)]
    assert not [tag for tag in tried if tag in seen]
    assert sum(_tags.tag_of(keys[0], [text]) in seen for text in map(str, made["a"].keys["id"])) == 60
    assert len(set(keys)) == 1


def test_the_key_differs_from_run_to_run_and_never_reaches_helper_or_coordinator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opening = Opening(monkeypatch)
    keys: list[bytes] = []
    plain = _tags.tags

    def noting(key: bytes, units: Units) -> Any:
        keys.append(key)
        return plain(key, units)

    monkeypatch.setattr(_tags, "tags", noting)
    runs = [run(registers(30)) for _ in range(2)]
    assert keys[0] == keys[1] != keys[2]
    for key in keys:
        assert key not in b"".join(opening.read["helper"])
        assert all(key not in content for each in runs for content in relayed(each))


def relayed(found: Run) -> list[bytes]:
    """All bytes that the coordinator carries."""
    packets: list[Packet] = [packet for each in found.watched.values() for packet in (*each.got, *each.gave)]
    return [x if isinstance(x, bytes) else x.tobytes() for packet in packets for x in packet.values()]


def test_sizes_are_hidden_in_the_cap() -> None:
    """Lengths of all messages are the same for other numbers of units and matches."""
    lengths = []
    for made in ({"a": units(range(3)), "b": units(range(40))}, {"a": units(range(50)), "b": units(range(50, 60))}):
        who = {name: Units(each.keys) for name, each in made.items()}
        agreement = agreed({"a": 50, "b": 50}, helper.Options(cap=64))
        keys = identities(agreement.parties)
        parties = {name: helper.party(agreement, keys[name], who.get(name)) for name in agreement.parties}
        sent: list[int] = []

        class Noted:
            def __init__(self, party: Any, sent: list[int] = sent) -> None:
                self.party, self.sent = party, sent

            def answer(self, stage: str, packet: Packet) -> Packet:
                reply: Packet = self.party.answer(stage, packet)
                self.sent += [len(x) for x in reply.values() if isinstance(x, bytes)]
                return reply

        linked(helper.coordinator(agreement), {name: Noted(party) for name, party in parties.items()})
        lengths.append(sent)
    assert lengths[0] == lengths[1]


def test_keys_that_several_units_have_are_refused_without_naming_them() -> None:
    with pytest.raises(Refused, match="several units") as error:
        run({"a": units(["secret", "secret"]), "b": units(range(2))})
    assert "secret" not in str(error.value)


def test_more_units_than_the_cap_are_refused() -> None:
    with pytest.raises(Refused, match="cap"):
        run({"a": units(range(9)), "b": units(range(5))}, cap=8)


def test_parts_of_different_lengths_are_refused() -> None:
    with pytest.raises(Refused, match="different lengths"):
        run({"a": Units({"p": ["1", "2"], "q": ["1"]}), "b": units(range(2))})


def test_a_tag_that_comes_twice_is_refused_by_the_helper() -> None:
    same = np.array([(1, 1), (1, 1)], _tags.TAG)
    with pytest.raises(Refused, match="twice"):
        _tags.matched([same, same])


@pytest.mark.parametrize("holders", [1, 4])
def test_one_holder_or_four_are_refused(holders: int) -> None:
    made = {name: units(range(3)) for name in "abcd"[:holders]}
    with pytest.raises(UsageError, match="want 2 or 3"):
        run(made)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"reveal": "pairs"}, "to"),
        ({"to": ("a",)}, "to"),
        ({"reveal": "totals"}, "codebook"),
        ({"method": "table"}, "totals"),
        ({"helper": "NOT A NAME"}, "helper"),
    ],
    ids=["pairs to nobody", "names without pairs", "totals of nothing", "a method without totals", "no name"],
)
def test_options_that_do_not_fit_each_other_are_refused(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        helper.Options(**options)


def test_pairs_to_a_party_that_is_no_holder_are_refused() -> None:
    with pytest.raises(UsageError, match="to, columns"):
        run(registers(5), reveal="pairs", to=("helper",))


def test_units_of_the_helper_and_holders_without_are_refused() -> None:
    agreement = agreed({"a": 1, "b": 1}, helper.Options())
    who = identities(agreement.parties)
    with pytest.raises(UsageError, match="holders alone"):
        helper.party(agreement, who["helper"], units([1]))
    with pytest.raises(UsageError, match="holders alone"):
        helper.party(agreement, who["a"], None)


class Tampering:
    """Changes one party's reply in one round."""

    def __init__(self, party: Any, number: int, change: Any) -> None:
        self.party, self.number, self.change, self.round = party, number, change, 0

    def answer(self, stage: str, packet: Packet) -> Packet:
        reply: dict[str, Any] = dict(self.party.answer(stage, packet))
        self.round += stage == "round"
        if self.round == self.number and stage == "round":
            reply = self.change(reply)
        return reply


def cut(reply: dict[str, Any]) -> dict[str, Any]:
    return {name: content[:-1] if isinstance(content, bytes) else content for name, content in reply.items()}


def dropped(reply: dict[str, Any]) -> dict[str, Any]:
    return {name: content for name, content in reply.items() if not name.startswith("to:")}


@pytest.mark.parametrize("change", [cut, dropped], ids=["truncated", "left out"])
def test_tags_that_the_relay_truncates_or_leaves_out_are_refused(change: Any) -> None:
    agreement = agreed({"a": 5, "b": 5}, helper.Options())
    who = identities(agreement.parties)
    parties: dict[str, Any] = {
        name: helper.party(agreement, who[name], None if name == "helper" else units(range(5)))
        for name in agreement.parties
    }
    parties["a"] = Tampering(parties["a"], 2, change)
    with pytest.raises(Refused):
        linked(helper.coordinator(agreement), parties)


def test_a_round_before_the_meeting_is_refused_and_ends_the_run() -> None:
    agreement = agreed({"a": 5, "b": 5}, helper.Options())
    who = identities(agreement.parties)
    holder = helper.party(agreement, who["a"], units(range(5)))
    with pytest.raises(Refused, match="out of turn"):
        holder.answer("round", {"number": b"\0\0\0\1"})
    with pytest.raises(Refused, match="after the end"):
        holder.answer("offer", {})


@pytest.mark.parametrize("number", [3, 5], ids=["replayed", "skipped"])
def test_a_round_that_is_replayed_or_skipped_is_refused(number: int) -> None:
    found = run(registers(5))
    for party in found.parties.values():
        with pytest.raises(Refused, match="want 4"):
            party.answer("round", {"number": number.to_bytes(4, "big")})
        with pytest.raises(Refused, match="after the end"):
            party.answer("round", {"number": b"\0\0\0\4"})


def test_a_party_that_does_not_answer_is_named() -> None:
    agreement = agreed({"a": 5, "b": 5}, helper.Options())
    rounds = helper.coordinator(agreement)
    next(rounds)
    with pytest.raises(EngineError, match="no answer from"):
        rounds.send({})


@pytest.mark.parametrize("reveal", helper.REVEALS)
def test_every_role_has_a_row_of_who_learns_what(reveal: Any) -> None:
    agreement = agreed({"a": 5, "b": 5}, helper.Options())
    roles = {row.role for row in load_linkage("helper").learns(agreement, reveal)}
    assert {"helper", "coordinator", "each holder", "anyone on the network"} <= roles
