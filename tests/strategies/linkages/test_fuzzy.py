"""`fuzzy` as a protocol: what comes out against the truth, who learns what, and what parties refuse."""

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from statfed.core.errors import EngineError, Refused, StatfedError, UsageError
from statfed.core.identity import Identity
from statfed.core.linkage import Outcome, Units, linked, load_linkage
from statfed.core.protection import Packet, Stage
from statfed.scenarios._data.registers import registers
from statfed.strategies.linkages import _encodings, _fuzzy_options, _fuzzy_parties, fuzzy
from tests.strategies.linkages.fuzzily import (
    ATTRIBUTES,
    BLOCKS,
    agreed,
    keys_of,
    linked_registers,
    parties_of,
    run,
    truth,
)

BOTH = ("bank", "office")

NOBODY: list[str | None] = [None] * 30


@pytest.fixture
def seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets and orders of this run are always the same, so that figures are."""
    random = np.random.default_rng(2)
    for module in (_encodings, _fuzzy_parties):
        monkeypatch.setattr(module, "os", SimpleNamespace(urandom=random.bytes))


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize(
    ("errors", "hardening"), [(0.0, "rule90"), (0.1, "rule90"), (0.2, "rule90"), (0.1, "balanced")]
)
def test_links_or_their_estimated_quality_miss_the_truth(errors: float, hardening: str) -> None:
    outcome, parties, persons = linked_registers(
        600, 0.7, errors, 3, pad=50, precision=0.95, pairs_to=BOTH, hardening=hardening
    )
    precision, recall = truth(parties, persons)
    assert precision >= 0.95 - 0.03
    assert recall >= 0.97 - errors / 4
    (estimated_precision, estimated_recall), low, high = np.asarray(outcome.figures["quality"]).T
    assert abs(estimated_precision - precision) < 0.07  # of half of the records, in steps
    assert abs(estimated_recall - recall) < 0.05
    assert low[0] <= precision <= high[0]
    assert low[1] <= recall + errors / 4  # what no block brings together is not seen
    assert outcome.size is not None
    assert abs(int(outcome.figures["matched"][0]) - 420) < 60
    assert (np.asarray(outcome.figures["linked"]) >= 10).all()
    json.dumps({name: np.asarray(one).tolist() for name, one in outcome.figures.items()}, allow_nan=True)


@pytest.mark.usefixtures("seeded")
def test_a_threshold_that_is_given_is_not_the_one_of_the_links() -> None:
    loose, _, _ = linked_registers(300, 0.7, 0.1, 4, threshold=0.7, salt="birth_date:exact[:4]")
    strict, _, _ = linked_registers(300, 0.7, 0.1, 4, threshold=0.9)
    assert (float(loose.figures["threshold"]), float(strict.figures["threshold"])) == (0.7, 0.9)
    assert loose.size is not None
    assert strict.size is not None
    assert loose.size > strict.size


@pytest.mark.usefixtures("seeded")
def test_long_registers_lose_records_between_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (_fuzzy_options, _fuzzy_parties):
        monkeypatch.setattr(module, "ROWS", 64)
    a, b = registers(150, 0.8, 0.1, 2)
    agreement = agreed(200, threshold=0.75, pairs_to=BOTH)
    object.__setattr__(agreement, "sizes", {"bank": 150, "office": 200})
    outcome, parties = run(agreement, {"bank": Units(keys_of(a)), "office": Units(keys_of(b))})
    assert outcome.size is not None
    assert truth(parties, (a.person, b.person))[1] > 0.9


def test_only_named_holders_learn_pairs() -> None:
    _, parties, _ = linked_registers(200, 0.7, 0.0, 4, threshold=0.8, pairs_to=("office",))
    bank, office = (parties[name] for name in BOTH)
    assert isinstance(bank, fuzzy.Holder)
    assert isinstance(office, fuzzy.Holder)
    assert bank.pairs is None
    assert office.pairs is not None
    with pytest.raises(Refused, match="another stage"):
        bank.answer("pairs", {})
    assert "private" in repr(office) + repr(office.pairs)


def recorded(agreement: Any, units: dict[str, Units]) -> tuple[Outcome, list[tuple[Stage, dict[str, Packet]]]]:
    """What passes through the coordinator's hands."""
    parties = parties_of(agreement, units)
    rounds = fuzzy.coordinator(agreement)
    seen: list[tuple[Stage, dict[str, Packet]]] = []
    stage = next(rounds)
    try:
        while True:
            replies = {name: parties[name].answer(stage.name, packet) for name, packet in stage.packets.items()}
            seen.append((stage, replies))
            stage = rounds.send(replies)
    except StopIteration as end:
        return end.value, seen


def test_lengths_of_messages_tell_how_many_records_or_keys_there_are() -> None:
    lengths = []
    for count, errors in ((120, 0.0), (60, 0.3)):
        a, b = registers(count, 0.9, errors, 7)
        keys = dict(keys_of(a))
        if errors:
            keys = {name: [*NOBODY, *values[30:]] for name, values in keys.items()}
        _, seen = recorded(agreed(130, threshold=0.6), {"bank": Units(keys), "office": Units(keys_of(b))})
        lengths.append(
            [
                (stage.name, name, item, len(content) if isinstance(content, bytes) else None)
                for stage, replies in seen
                if stage.name != "link"
                for name, reply in replies.items()
                for item, content in reply.items()
            ]
        )
    assert lengths[0] == lengths[1]


def test_the_coordinator_can_change_reorder_or_repeat_what_it_relays() -> None:
    a, b = registers(60, 0.9, 0.0, 7)
    units = {"bank": Units(keys_of(a)), "office": Units(keys_of(b))}
    agreement = agreed(60, threshold=0.6)
    for spoil in ("change", "swap", "cut"):
        parties = parties_of(agreement, units)
        rounds = fuzzy.coordinator(agreement)
        stage = next(rounds)
        while stage.name != "receive":
            stage = rounds.send(
                {name: parties[name].answer(stage.name, packet) for name, packet in stage.packets.items()}
            )
        packet = dict(stage.packets["linkage-unit"])
        content = packet["bank"]
        assert isinstance(content, bytes)
        changed = content[:-1] + bytes([content[-1] ^ 1])
        packet["bank"] = {"change": changed, "swap": packet["office"], "cut": content[:-16]}[spoil]
        with pytest.raises(Refused, match="has not sealed"):
            parties["linkage-unit"].answer("receive", packet)


def test_a_stage_is_answered_twice_or_out_of_order() -> None:
    a, _ = registers(30, 1.0, 0.0, 7)
    agreement = agreed(30)
    for stages in (["meet"], ["offer", "offer"], ["offer", "send"]):
        holder = parties_of(agreement, {"bank": Units(keys_of(a)), "office": Units(keys_of(a))})["bank"]
        for stage in stages[:-1]:
            holder.answer(stage, {})
        for _ in range(2):
            with pytest.raises(Refused, match="each once and in order"):
                holder.answer(stages[-1], {})


def test_two_runs_give_the_linkage_unit_the_same_tags_or_encodings() -> None:
    """A fresh secret each time: encodings of two linkages cannot be compared."""
    a, _ = registers(40, 1.0, 0.0, 7)
    units = {"bank": Units(keys_of(a)), "office": Units(keys_of(a))}
    seen = []
    for _ in range(2):
        parties: dict[str, Any] = parties_of(agreed(40, threshold=0.6), units)
        linked(fuzzy.coordinator(agreed(40, threshold=0.6)), parties)
        sent = parties["bank"]._encoded
        seen.append((set(sent.tags.ravel().tolist()), {row.tobytes() for row in sent.encodings}))
    assert not seen[0][0] & seen[1][0]
    assert not seen[0][1] & seen[1][1]


@pytest.mark.usefixtures("seeded")
def test_missing_keys_match_one_another() -> None:
    """Two records without a key, or with no common block, are nobody's pair."""
    a, b = registers(80, 1.0, 0.0, 7)
    one, other = ({name: [*NOBODY, *values[30:]] for name, values in keys_of(side).items()} for side in (a, b))
    _, parties = run(agreed(80, threshold=0.9, pairs_to=BOTH), {"bank": Units(one), "office": Units(other)})
    assert truth(parties, (a.person, b.person))[0] == 1.0
    for name in BOTH:
        pairs: Any = parties[name]
        assert pairs.pairs.unit.min() >= 30


def test_large_blocks_are_compared_and_their_share_is_not_told() -> None:
    a, b = registers(100, 1.0, 0.0, 7)
    sides = [{**keys_of(side), "postcode:digits": ["1000"] * 100} for side in (a, b)]
    units = {name: Units(side) for name, side in zip(BOTH, sides, strict=True)}
    outcome, _ = run(agreed(100, threshold=0.6, most_in_block=50), units)
    assert float(outcome.figures["capped:bank"][0]) == 1.0
    strict, _ = run(agreed(100, threshold=0.6, most_compared=5_000, most_in_block=50), units)  # 10,000 with the block
    assert strict.size == outcome.size


def test_few_links_are_told() -> None:
    with pytest.raises(Refused, match="fewer links than the agreed 10"):
        linked_registers(60, 0.1, 0.0, 7, threshold=0.9)


@pytest.mark.usefixtures("seeded")
def test_a_precision_that_is_nowhere_is_linked_at_anyway() -> None:
    with pytest.raises(Refused, match=r"no threshold with an estimated precision of 0.99|fewer links"):
        linked_registers(300, 0.0, 0.0, 1)


def test_more_units_than_agreed_are_taken() -> None:
    a, _ = registers(30, 1.0, 0.0, 7)
    with pytest.raises(Refused, match="more than the agreed 29") as caught:
        parties_of(agreed(29), {"bank": Units(keys_of(a)), "office": Units(keys_of(a))})
    assert "30" not in str(caught.value)


def test_a_part_of_the_key_is_missing_in_silence() -> None:
    a, _ = registers(30, 1.0, 0.0, 7)
    keys = {name: values for name, values in keys_of(a).items() if name != "surname:soundex"}
    with pytest.raises(UsageError, match="got none of surname:soundex"):
        fuzzy.party(agreed(30), Identity.ephemeral("bank"), Units(keys))


def test_a_stranger_or_a_wrong_seat_is_let_in() -> None:
    a, _ = registers(30, 1.0, 0.0, 7)
    for name, units in (("mallory", Units(keys_of(a))), ("bank", None), ("linkage-unit", Units(keys_of(a)))):
        with pytest.raises(UsageError, match="want a holder with units"):
            fuzzy.party(agreed(30), Identity.ephemeral(name), units)


def test_a_linkage_unit_that_lies_about_pairs_is_believed() -> None:
    a, _ = registers(30, 1.0, 0.0, 7)
    agreement = agreed(40, pairs_to=("bank",))
    for place, message in ((40, "was not sent"), (-1, "was not sent"), (None, "only pads")):
        parties: dict[str, Any] = parties_of(agreement, {"bank": Units(keys_of(a)), "office": Units(keys_of(a))})
        bank, unit = parties["bank"], parties["linkage-unit"]
        offers = {name: one.answer("offer", {}) for name, one in parties.items()}
        packet = {f"{name}:{item}": value for name, offer in offers.items() for item, value in offer.items()}
        for one in parties.values():
            one.answer("meet", packet)
        bank._stages = ["pairs"]
        chosen = int(bank._order[35]) if place is None else place
        sealed = unit.channels.seal("bank", "pairs", np.array([[chosen], [0]], "<i8").tobytes())
        with pytest.raises(Refused, match=message):
            bank.answer("pairs", {"pairs": sealed})


@pytest.mark.parametrize("gone", ["bank", "linkage-unit"])
def test_a_silent_party_is_left_out(gone: str) -> None:
    a, _ = registers(30, 1.0, 0.0, 7)
    agreement = agreed(30)
    parties = parties_of(agreement, {"bank": Units(keys_of(a)), "office": Units(keys_of(a))})
    rounds = fuzzy.coordinator(agreement)
    stage = next(rounds)

    def go_on(stage: Stage) -> None:
        while True:
            replies = {name: parties[name].answer(stage.name, packet) for name, packet in stage.packets.items()}
            if stage.name in ("mix", "receive"):
                replies.pop(gone, None)
            stage = rounds.send(replies)

    with pytest.raises(EngineError, match=f"no answer from {gone}"):
        go_on(stage)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"helper": "The Unit"}, "lower-case"),
        ({"threshold": 0.7551}, "multiple of 0.002"),
        ({"threshold": 0.4}, "at least the floor"),
        ({"block": [BLOCKS[0], BLOCKS[0]]}, "each once"),
        ({"block": []}, "at least 1"),
        ({"minimum": 2}, "greater than or equal to 3"),
        ({"attributes": {}}, "at least 1"),
    ],
)
def test_options_that_cannot_be_are_taken(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        fuzzy.Options.model_validate({"attributes": ATTRIBUTES, "block": BLOCKS, **options})


def test_an_agreement_with_other_parties_is_joined() -> None:
    for options in ({"pairs_to": ("mallory",)}, {"helper": "bank"}):
        with pytest.raises(StatfedError, match="want"):
            next(fuzzy.coordinator(agreed(10, **options)))


def test_what_roles_learn_leaves_a_role_out() -> None:
    module = load_linkage("fuzzy")
    rows = module.learns(agreed(10, pairs_to=("office",)), "pairs")
    assert {row.role for row in rows} == {"linkage-unit", "coordinator", "holders", "office"}
    with pytest.raises(UsageError, match="got size; want pairs"):
        module.learns(agreed(10, pairs_to=("office",)), "size")


@pytest.mark.parametrize(("count", "share"), [(2, 0.0), (9, 0.0), (10, 0.1)])
def test_fewer_records_in_large_blocks_than_the_minimum_are_not_counted(count: int, share: float) -> None:
    """With blocks of one record at most, and a cap of 100, the share would be their number."""
    a, _ = registers(100, 1.0, 0.0, 7)
    side = {name: values[:count] for name, values in keys_of(a).items()} | {"postcode:digits": ["1000"] * count}
    agreement = agreed(100, most_in_block=1)
    holder = fuzzy.Holder(agreement, Identity.ephemeral("bank"), Units(side))
    assert holder._encode(b"secret")[1] == share
