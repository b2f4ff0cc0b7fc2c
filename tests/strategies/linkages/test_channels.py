"""Sealed channels: whatever the relay changes does not open."""

from dataclasses import replace

import pytest

from statfed.core.errors import Refused
from statfed.core.identity import Identity
from statfed.core.protection import Agreement, Packet
from statfed.strategies.linkages import helper
from statfed.strategies.linkages._channels import Channels
from tests.strategies.linkages.joined import agreed, identities

NAMES = ("a", "b", "helper")


def opened(
    changed: dict[str, Agreement] | None = None, who: dict[str, Identity] | None = None
) -> tuple[dict[str, Channels], dict[str, bytes]]:
    """Channels of all parties and what they have offered, before they have met."""
    ours = agreed({"a": 5, "b": 5}, helper.Options())
    who = who or identities(ours.parties)
    channels = {name: Channels((changed or {}).get(name, ours), who[name]) for name in NAMES}
    offers: dict[str, bytes] = {}
    for name in NAMES:
        for item, content in channels[name].offer().items():
            assert isinstance(content, bytes)
            offers[f"{name}:{item}"] = content
    return channels, offers


def meet() -> dict[str, Channels]:
    channels, offers = opened()
    for each in channels.values():
        each.meet(offers)
    return channels


def test_what_was_sealed_opens_once_at_its_reader_alone() -> None:
    channels = meet()
    sealed = channels["a"].seal("b", "tags", b"content")
    with pytest.raises(Refused):
        channels["helper"].open("a", "tags", sealed)
    assert channels["b"].open("a", "tags", sealed) == b"content"
    assert b"content" not in sealed


def test_a_message_that_is_replayed_does_not_open() -> None:
    channels = meet()
    sealed = channels["a"].seal("b", "tags", b"content")
    channels["b"].open("a", "tags", sealed)
    with pytest.raises(Refused, match="repeated"):
        channels["b"].open("a", "tags", sealed)


def test_messages_in_another_order_do_not_open() -> None:
    channels = meet()
    channels["a"].seal("b", "tags", b"first")
    second = channels["a"].seal("b", "tags", b"second")
    with pytest.raises(Refused, match="out of order"):
        channels["b"].open("a", "tags", second)


@pytest.mark.parametrize("kept", [0, 10, -1], ids=["nothing", "the start", "all but a byte"])
def test_a_truncated_message_does_not_open(kept: int) -> None:
    channels = meet()
    sealed = channels["a"].seal("b", "tags", b"content")
    with pytest.raises(Refused):
        channels["b"].open("a", "tags", sealed[:kept])


def test_a_message_passed_off_for_another_purpose_does_not_open() -> None:
    channels = meet()
    sealed = channels["a"].seal("b", "tags", b"content")
    with pytest.raises(Refused):
        channels["b"].open("a", "key", sealed)


def test_a_message_sent_back_to_its_writer_does_not_open() -> None:
    channels = meet()
    sealed = channels["a"].seal("b", "tags", b"content")
    with pytest.raises(Refused):
        channels["a"].open("b", "tags", sealed)


def test_parties_who_were_told_different_casts_share_no_key() -> None:
    who = identities(agreed({"a": 5, "b": 5}, helper.Options()).parties)
    channels, offers = opened(who=who)
    again, others = opened(who=who)
    mixed: Packet = {**offers, **{key: value for key, value in others.items() if key.startswith("helper:")}}
    channels["a"].meet(offers)
    channels["b"].meet(mixed)
    assert again
    with pytest.raises(Refused):
        channels["b"].open("a", "tags", channels["a"].seal("b", "tags", b"content"))


def test_parties_of_different_agreements_do_not_meet() -> None:
    ours = agreed({"a": 5, "b": 5}, helper.Options())
    for other in (replace(ours, run="another"), replace(ours, options=helper.Options(cap=6))):
        channels, offers = opened({"b": other})
        with pytest.raises(Refused, match="signature"):
            channels["a"].meet(offers)


def test_an_offer_under_another_partys_name_is_refused() -> None:
    channels, offers = opened()
    swapped = {**offers, "b:key": offers["helper:key"], "b:signature": offers["helper:signature"]}
    with pytest.raises(Refused, match="signature"):
        channels["a"].meet(swapped)


def test_a_coordinator_cannot_put_a_key_of_its_own_in() -> None:
    channels, offers = opened()
    _, forged = opened(who=identities(NAMES))
    with pytest.raises(Refused, match="b's pinned key"):
        channels["a"].meet({**offers, "b:key": forged["b:key"], "b:signature": forged["b:signature"]})


def test_a_small_order_key_is_refused_even_if_signed() -> None:
    who = identities(NAMES)
    channels, offers = opened(who=who)
    from statfed.strategies.linkages._channels import _signed

    key = bytes(32)
    signature = who["b"].sign(_signed(channels["a"].agreement, "b", key))
    with pytest.raises(Refused, match="none"):
        channels["a"].meet({**offers, "b:key": key, "b:signature": signature})


def test_parties_meet_once_and_send_nothing_before() -> None:
    channels, offers = opened()
    with pytest.raises(Refused, match="before parties have met"):
        channels["a"].seal("b", "tags", b"content")
    channels["a"].meet(offers)
    with pytest.raises(Refused, match="second meeting"):
        channels["a"].meet(offers)
    with pytest.raises(Refused, match="second meeting"):
        channels["a"].offer()
