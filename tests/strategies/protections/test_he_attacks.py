"""Attacks on `homomorphic-encryption`: by the coordinator, who may send anything, and by holders.

Each fails; those that pads are for succeed against a copy without pads, so that a test cannot pass by accident.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from statfed.core.errors import EngineError, Refused, StatfedError, UsageError
from statfed.core.fixed_point import Layout, Slot
from statfed.core.identity import Identity
from statfed.core.protection import Packet
from statfed.core.randomness import Stream
from statfed.strategies.protections import _he_keys, _he_parties
from statfed.strategies.protections import _he_planes as planes
from statfed.strategies.protections._he_codec import PRIMES, Residues
from tests.protocol import Network, agreement, identities

NAME, KEYS = "homomorphic-encryption", "key-holder"
LAYOUT = Layout({"n": Slot((40,), 1e6, integer=True)}, 3)
CODEC, PLANE = Residues(32), planes.Plane("bfv", PRIMES[0])
ALL = ("h001", "h002", "h003")
CHECK = bytes(range(16))
Vector = NDArray[np.int64]


class Zeros(Stream):
    """The pad of the weakened copy."""

    def words(self, count: int) -> NDArray[np.uint64]:
        return np.zeros(count, np.uint64)


@dataclass
class Attack:
    """A run whose coordinator has the holders' contributions of a round and may now ask the key holder for anything."""

    network: Network
    sent: Mapping[str, Vector]
    replies: Mapping[str, Packet]

    @property
    def context(self) -> Any:
        """The public context of one plane."""
        assert self.network.coordinator is not None
        return self.network.coordinator.ready[1][0][0]  # type: ignore[attr-defined]

    @property
    def key_holder(self) -> Any:
        return self.network.parties[KEYS]

    def blob(self, name: str) -> bytes:
        found = self.replies[name]["ciphertext:0"]
        assert isinstance(found, bytes)
        return found

    def vector(self, name: str) -> Any:
        """A holder's ciphertext, to compute with."""
        length = struct.unpack_from("<I", self.blob(name))[0]
        return PLANE._load(self.context, self.blob(name)[4 : 4 + length], name, 0)

    def request(self, blob: bytes, **changes: Any) -> dict[str, Any]:
        """What an honest coordinator would send with this ciphertext, but for `changes`."""
        wanted = {"planes": b"1", "round": b"2", "holders": b'["h001", "h002", "h003"]', "entries": b"42"}
        return {**wanted, "layout": _he_keys.digest(LAYOUT, b"", CHECK), "ciphertext:0": blob} | changes

    def opened(self, blob: bytes, blinds: tuple[str, ...], **changes: Any) -> Vector:
        """What the coordinator gets out of the key holder's answer, less the blindings of `blinds`."""
        answer = self.key_holder.answer("open", self.request(blob, **changes))
        total = np.asarray(answer["sum"]).astype(np.uint64)
        for name in blinds:
            seed = self.replies[name]["seed"]
            assert isinstance(seed, bytes)
            total = CODEC.minus(total, CODEC.masks(Stream(seed), 42))
        return CODEC.join(total)[:40]


def attack(holders: int = 3, minimum: int | None = None) -> Attack:
    """Round 1 was honest; of round 2 the coordinator has the contributions."""
    network = Network(agreement(NAME, holders, minimum=minimum))
    rng = np.random.default_rng(5)
    names = network.agreement.holders
    sent = {name: rng.integers(-1000, 1000, 40) for name in names}
    given = {name: {"n": array} for name, array in sent.items()}
    network.sum(given, LAYOUT)
    packet = {"planes": b"1", "round": b"2", "check": CHECK}
    mine = LAYOUT.for_holder(1 / holders)
    return Attack(network, sent, {n: network.parties[n].contribute(packet, given[n], mine) for n in names})


@pytest.fixture(params=["with pads", "without pads"])
def pads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the copy under attack has pads."""
    if request.param == "without pads":
        monkeypatch.setattr(_he_keys.Secret, "pad", lambda *_: Zeros(bytes(16)))
    return bool(request.param == "with pads")


def assert_hidden(found: Vector, wanted: Vector, hidden: bool) -> None:
    """With pads what comes out is as good as uniform modulo the prime: nothing near the truth. Without, the truth."""
    if hidden:
        assert not (found == wanted).any()
        assert np.median(np.abs(found)) > PRIMES[0] / 16
    else:
        assert (found == wanted).all()


# What the pads are for


def test_one_holders_contribution_claimed_to_be_the_sum_of_three_is_not_opened(pads: bool) -> None:
    run = attack()
    assert_hidden(run.opened(run.blob("h001"), ("h001",)), run.sent["h001"], pads)


def test_a_sum_without_one_holder_that_is_claimed_is_not_opened(pads: bool) -> None:
    run = attack()
    two = PLANE.add(run.context, [(n, run.blob(n)) for n in ALL[:2]], 42)
    assert_hidden(run.opened(two, ALL[:2]), run.sent["h001"] + run.sent["h002"], pads)


def test_a_scaled_contribution_is_not_told_from_the_sum(pads: bool) -> None:
    run = attack()
    scaled = run.vector("h001")
    for name in (*ALL, *(["h001"] * 998)):  # 1000 times the first holder's numbers in the sum
        scaled = scaled + run.vector(name)
    wanted = sum(run.sent.values()) + 999 * run.sent["h001"]
    found = run.opened(PLANE._save(scaled), (*ALL, *["h001"] * 999))
    assert_hidden(found, np.asarray(wanted), pads)


def test_stripping_slots_by_plaintext_multiplication_opens_nothing_with_pads_or_without(pads: bool) -> None:
    """The parameters leave no noise for a multiplication, so that this fails even without pads."""
    run = attack()
    keep = np.zeros(planes.SLOTS, np.int64)
    keep[:20] = 1
    stripped = run.vector("h001") * keep.tolist()
    others = run.vector("h002") + run.vector("h003")
    answer = run.opened(PLANE._save(stripped + others * (1 - keep).tolist()), ())
    blind = CODEC.masks(Stream(bytes(run.replies["h001"]["seed"])), 42)[:, :20]
    found = CODEC.join(CODEC.minus(CODEC.split(answer[:20]), blind))
    assert_hidden(found, run.sent["h001"][:20], hidden=True)


def test_even_with_the_secret_key_the_coordinator_sees_no_contribution(pads: bool) -> None:
    """A decryption oracle tells a BFV key to whoever crafts ciphertexts; give it away and see that nothing follows."""
    run = attack()
    numbers = PLANE.decrypt(run.key_holder.keys[1][1][0], run.blob("h001"), 42).astype(np.uint64)
    blind = CODEC.masks(Stream(bytes(run.replies["h001"]["seed"])), 42)
    assert_hidden(CODEC.join(CODEC.minus(numbers[None], blind))[:40], run.sent["h001"], pads)


def test_last_rounds_ciphertexts_are_not_opened_in_this_round(pads: bool) -> None:
    run = attack()
    given = {name: {"n": array} for name, array in run.sent.items()}
    packet, mine = {"planes": b"1", "round": b"3", "check": CHECK}, LAYOUT.for_holder(1 / 3)
    later = {name: run.network.parties[name].contribute(packet, given[name], mine) for name in ALL}
    old = PLANE.add(run.context, [(n, run.blob(n)) for n in ALL], 42)
    assert set(later) == set(ALL)
    assert_hidden(run.opened(old, ALL, round=b"3"), np.asarray(sum(run.sent.values())), pads)


@pytest.mark.parametrize("change", [{"layout": bytes(32)}, {"entries": b"39"}])
def test_a_sum_asked_for_under_another_layout_or_length_comes_out_masked(change: dict[str, bytes], pads: bool) -> None:
    run = attack()
    total = PLANE.add(run.context, [(n, run.blob(n)) for n in ALL], 42)
    entries = int(change.get("entries", b"42"))
    answer = run.key_holder.answer("open", run.request(total, **change))
    found = np.asarray(answer["sum"]).astype(np.uint64)
    for name in ALL:
        seed = run.replies[name]["seed"]
        assert isinstance(seed, bytes)
        found = CODEC.minus(found, CODEC.masks(Stream(seed), entries))
    assert_hidden(CODEC.join(found)[:40], np.asarray(sum(run.sent.values()))[:entries], pads)


def test_the_honest_request_of_the_same_round_is_opened() -> None:
    """What the attacks above are measured against: the same helper with nothing changed gives the sum."""
    run = attack()
    total = PLANE.add(run.context, [(n, run.blob(n)) for n in ALL], 42)
    assert (run.opened(total, ALL) == sum(run.sent.values())).all()


# Rounds and contributors


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"holders": b'["h001"]'}, "got a sum over 1; want at least 3"),
        ({"holders": b'["h001", "h001", "h001"]'}, "got names twice"),
        ({"holders": b'["h001", "h002", "mallory"]'}, "of holders that have not joined"),
        ({"holders": b'{"h001": 1}'}, "got no list of holders"),
        ({"holders": b"[[[["}, "got no list of holders"),
        ({"holders": b"\xff"}, "got no list of holders"),
        ({"round": b"1"}, "round: got 1; want one after 1"),
        ({"round": b"-2"}, "got no whole number round"),
        ({"round": "2"}, "got no bytes round"),
        ({"entries": b"4000000"}, "got 1 ciphertexts; want 977"),
        ({"layout": b"short"}, "got a digest of 5 bytes"),
        ({"planes": b"2"}, "out of turn"),
        ({"planes": b"7"}, "planes: got 7"),
    ],
)
def test_a_request_that_does_not_fit_is_refused(changes: dict[str, Any], reason: str) -> None:
    run = attack()
    with pytest.raises((Refused, UsageError), match=reason):
        run.key_holder.answer("open", run.request(run.blob("h001"), **changes))


def test_a_round_is_opened_once_also_when_its_ciphertext_was_no_good() -> None:
    run = attack(4, minimum=3)
    total = PLANE.add(run.context, [(n, run.blob(n)) for n in ALL], 42)
    with pytest.raises(Refused, match="cannot be read"):
        run.opened(total[:4] + bytes(len(total) - 4), ())
    with pytest.raises(Refused, match="round: got 2; want one after 2"):
        run.opened(total, ALL)


def test_a_holder_answers_a_round_once_and_none_before_it() -> None:
    run = attack()
    holder = run.network.parties["h001"]
    for number in (b"2", b"1", b"0"):
        with pytest.raises(Refused, match="want one after 2"):
            holder.contribute({"planes": b"1", "round": number}, {"n": run.sent["h001"]}, LAYOUT.for_holder(1.0))


@pytest.mark.parametrize("party", ["h001", KEYS])
@pytest.mark.parametrize("stage", ["keys", "join", "sum"])
def test_a_stage_is_not_answered_twice_nor_an_unknown_one(stage: str, party: str) -> None:
    run = attack()
    with pytest.raises(Refused, match=f"got stage {stage} out of turn"):
        run.network.parties[party].answer(stage, {"planes": b"1"})


def test_nothing_is_contributed_or_opened_before_keys_are_verified() -> None:
    network = Network(agreement(NAME, 3))
    with pytest.raises(Refused, match="before join"):
        network.parties["h001"].contribute({"round": b"1"}, {"n": np.zeros(40, np.int64)}, LAYOUT)
    with pytest.raises(Refused, match="open out of turn"):
        network.parties[KEYS].answer("open", {"planes": b"1"})
    with pytest.raises(Refused, match="holds no data"):
        network.parties[KEYS].contribute({}, {}, LAYOUT)


# Keys

Tamper = Callable[[dict[str, Any]], dict[str, Any]]


def stranger(packet: dict[str, Any]) -> dict[str, Any]:
    """The coordinator's own key in place of the one offered, signed by a key that nobody pinned."""
    run = agreement(NAME, 3)
    return packet | _he_keys.Exchange(run, Identity.ephemeral(KEYS), 1).offer([packet["context:0"]])


def own_context(packet: dict[str, Any]) -> dict[str, Any]:
    """A context whose secret key the coordinator has."""
    return packet | {"context:0": planes.public_part(PLANE.create())}


def own_exchange(packet: dict[str, Any]) -> dict[str, Any]:
    """The coordinator's own X25519 key under the key holder's signature."""
    made = _he_keys.Exchange(agreement(NAME, 3), Identity.ephemeral(KEYS), 1)
    return packet | {"exchange": made.public}


@pytest.mark.parametrize("tamper", [stranger, own_context, own_exchange])
def test_a_substituted_key_of_the_key_holder_is_refused_by_every_holder(tamper: Tamper) -> None:
    def change(stage: str, party: str, packet: Packet) -> Packet:
        return tamper(dict(packet)) if stage == "join" and party != KEYS else packet

    network = Network(agreement(NAME, 3), change=change, tolerant=True)
    with pytest.raises(EngineError, match="join: 0 holders left"):
        network.sum({name: {"n": np.zeros(40, np.int64)} for name in ALL}, LAYOUT)
    assert set(network.refused) == set(ALL)
    assert all("not by key-holder's pinned key" in text for text in network.refused.values())


@pytest.mark.parametrize("what", ["exchange:h002", "signature:h002"])
def test_a_substituted_key_of_a_holder_is_refused_by_the_key_holder(what: str) -> None:
    def change(stage: str, party: str, packet: Packet) -> Packet:
        forged = _he_keys.Exchange(agreement(NAME, 3), Identity.ephemeral("h002"), 1).offer()
        return {**packet, what: forged[what.split(":")[0]]} if (stage, party) == ("join", KEYS) else packet

    network = Network(agreement(NAME, 3), change=change)
    with pytest.raises(Refused, match="not by h002's pinned key"):
        network.sum({name: {"n": np.zeros(40, np.int64)} for name in ALL}, LAYOUT)


def test_an_offer_of_another_run_width_or_party_is_not_by_the_right_key() -> None:
    known = identities([*ALL, KEYS])
    first, second = agreement(NAME, 3), agreement(NAME, 3, run="another")
    mine = _he_keys.Exchange(first, known["h001"], 1)
    for other in (
        _he_keys.Exchange(second, known[KEYS], 1),
        _he_keys.Exchange(first, known[KEYS], 2),
        _he_keys.Exchange(first, known["h002"], 1),
    ):
        with pytest.raises(Refused, match="not by key-holder's pinned key"):
            mine.accept(KEYS, other.offer())
    mine.accept(KEYS, _he_keys.Exchange(first, known[KEYS], 1).offer())


def test_a_key_of_low_order_is_refused() -> None:
    known = identities([*ALL, KEYS])
    mine = _he_keys.Exchange(agreement(NAME, 3), known["h001"], 1)
    zero = {"exchange": bytes(32), "signature": known[KEYS].sign(mine._message(KEYS, bytes(32), ()))}
    with pytest.raises(Refused, match="unusable X25519 key"):
        mine.accept(KEYS, zero)


# Malformed bytes


def second_key(_: Attack) -> bytes:
    return PLANE.encrypt(PLANE.create(), np.arange(40))


def other_modulus(_: Attack) -> bytes:
    plane = planes.Plane("bfv", PRIMES[1])
    return plane.encrypt(plane.create(), np.arange(40))


def other_scheme(_: Attack) -> bytes:
    plane = planes.Plane("ckks")
    return plane.encrypt(plane.create(), np.arange(40))


def multiplied(run: Attack) -> bytes:
    product = planes.tenseal().bfv_vector_from(run.key_holder.keys[1][1][0].copy(), run.vector("h001").serialize())
    product.context().auto_relin = False
    return PLANE._save(product * product)


def whole_vector(run: Attack) -> bytes:
    """TenSEAL's own form, with a length of its own choice: its decryption would read beyond the ciphertext."""
    length = struct.unpack_from("<I", run.blob("h001"))[0]
    inner = run.blob("h001")[4 : 4 + length]
    forged = b"\x0a\x05\xff\xff\xff\xff\x0f\x12" + planes._varint(len(inner)) + inner
    return struct.pack("<I", len(forged)) + forged


MALFORMED: dict[str, Callable[[Attack], bytes]] = {
    "empty": lambda _: b"",
    "cut short": lambda run: run.blob("h001")[:-1],
    "cut in its length": lambda run: run.blob("h001")[:3],
    "one more": lambda run: run.blob("h001") * 2,
    "with a tail": lambda run: run.blob("h001") + b"x",
    "of zero length": lambda _: bytes(4),
    "too long": lambda _: struct.pack("<I", 2**31) + bytes(100),
    "zeros": lambda run: run.blob("h001")[:4] + bytes(len(run.blob("h001")) - 4),
    "with a damaged header": lambda run: run.blob("h001")[:4] + b"\xff" * 16 + run.blob("h001")[20:],
    "of another modulus": other_modulus,
    "of another scheme": other_scheme,
    "multiplied": multiplied,
    "TenSEAL's own vector": whole_vector,
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_ciphertexts_are_refused_by_the_key_holder_and_by_the_coordinator_by_name(kind: str) -> None:
    run = attack()
    bad = MALFORMED[kind](run)
    with pytest.raises(Refused, match=r"want|more than"):
        run.opened(bad, ())
    coordinator = run.network.coordinator
    assert coordinator is not None
    rounds = coordinator.total(LAYOUT)
    next(rounds)
    replies = {name: dict(run.replies[name]) for name in ALL}
    replies["h002"]["ciphertext:0"] = bad
    with pytest.raises(EngineError, match="contribute: h002"):
        rounds.send(replies)


def test_random_damage_to_a_ciphertext_never_crashes() -> None:
    run = attack()
    rng = np.random.default_rng(0)
    for number in range(40):
        bad = bytearray(run.blob("h001"))
        for at in rng.integers(0, len(bad) if number % 2 else 120, 3):
            bad[at] ^= 1 << int(rng.integers(0, 8))
        try:
            run.opened(bytes(bad), (), round=str(number + 2).encode())
        except StatfedError:
            continue


def test_a_ciphertext_under_another_key_spoils_the_sum_in_the_open() -> None:
    network = Network(agreement(NAME, 3))
    given = {name: {"n": np.ones(40, np.int64)} for name in ALL}
    network.sum(given, LAYOUT)
    party = network.parties["h002"]
    assert isinstance(party, _he_parties.Holder)
    party.joined[1] = party.joined[1][0], (PLANE.create(),)
    with pytest.raises(EngineError, match="does not pass its checks"):
        network.sum(given, LAYOUT)


@pytest.mark.parametrize(
    ("stage", "party", "item", "value"),
    [
        ("keys", KEYS, "context:0", b"junk"),
        ("keys", KEYS, "context:0", b""),
        ("keys", KEYS, "context:0", planes.public_part(planes.Plane("bfv", PRIMES[1]).create())),
        ("keys", KEYS, "exchange", np.zeros(3)),
        ("keys", "h001", "signature", None),
        ("contribute", "h001", "seed", b"short"),
        ("contribute", "h001", "seed", None),
        ("contribute", "h001", "ciphertext:0", np.zeros(3)),
        ("open", KEYS, "sum", np.zeros((1, 39), np.uint32)),
        ("open", KEYS, "sum", np.zeros((1, 42))),
        ("open", KEYS, "sum", None),
    ],
)
def test_the_coordinator_names_a_party_whose_answer_does_not_fit(stage: str, party: str, item: str, value: Any) -> None:
    network = Network(agreement(NAME, 3))

    class Wrong:
        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def _changed(self, asked: str, packet: Packet) -> Packet:
            kept = {key: found for key, found in packet.items() if key != item or asked != stage}
            return kept | ({item: value} if value is not None and asked == stage else {})

        def answer(self, stage: str, packet: Packet) -> Packet:
            return self._changed(stage, self._inner.answer(stage, packet))

        def contribute(self, packet: Packet, arrays: Any, layout: Layout) -> Packet:
            return self._changed("contribute", self._inner.contribute(packet, arrays, layout))

    network.parties[party] = Wrong(network.parties[party])
    with pytest.raises(EngineError, match=party):
        network.sum({name: {"n": np.zeros(40, np.int64)} for name in ALL}, LAYOUT)


def test_a_context_with_a_secret_key_in_it_is_refused() -> None:
    context = PLANE.create()
    PLANE.open(planes.public_part(context))
    with pytest.raises(planes.Malformed, match="with a secret key"):
        PLANE.open(context.serialize(save_secret_key=True))


def test_a_value_outside_a_holders_range_or_not_finite_never_leaves_it() -> None:
    layout = Layout({"x": Slot((4,), 10.0)}, 3)
    for bad, kind in ((100.0, Refused), (np.nan, EngineError), (np.inf, EngineError)):
        network = Network(agreement(NAME, 3))
        given = {name: {"x": np.zeros(4)} for name in ALL} | {"h002": {"x": np.array([0, bad, 0, 0])}}
        with pytest.raises(kind, match="encoding: x"):
            network.sum(given, layout)
        assert "open" not in [stage for stage, _, _ in network.transcript]


# A key holder that changes what it opened


@pytest.mark.parametrize("change", ["one entry", "an entry and a check", "all", "the round before"])
@pytest.mark.parametrize("limit", [1e6, 1e14])
def test_a_key_holder_that_changes_a_total_is_found_out(change: str, limit: float) -> None:
    """Without checks, a residue moved by a multiple of the unit made a total 570 % too large, and nobody saw."""
    layout = Layout({"n": Slot((40,), limit, integer=True)}, 3)
    network = Network(agreement(NAME, 3))
    given = {name: {"n": np.full(40, 7, np.int64)} for name in ALL}
    np.testing.assert_array_equal(network.sum(given, layout).total["n"], np.full(40, 21))
    honest, seen = network.parties[KEYS].answer, []

    def shifted(stage: str, packet: Packet) -> Packet:
        answer = honest(stage, packet)
        if stage != "open":
            return answer
        found = np.array(answer["sum"])
        seen.append(found.copy())
        if change == "one entry":
            found[:, 3] = (found[:, 3].astype(np.uint64) + 100) % PRIMES[0]
        elif change == "an entry and a check":
            found[:, [3, 40]] += np.uint32(100)
        elif change == "all":
            found = (found.astype(np.uint64) * 3 % PRIMES[-1]).astype(np.uint32)
        elif len(seen) > 1:
            found = seen[0]
        return {"sum": found.astype(np.uint32)}

    network.parties[KEYS].answer = shifted  # type: ignore[method-assign]
    if change == "the round before":
        network.sum(given, layout)
    with pytest.raises(EngineError, match=r"key-holder: the sum does not pass its checks.*No total was formed"):
        network.sum(given, layout)


def test_a_coordinator_that_draws_other_checks_for_one_holder_gets_noise(pads: bool) -> None:
    """With coefficients of its own choice for one holder, a check would be that holder's entry."""
    run = attack()
    mine, given = LAYOUT.for_holder(1 / 3), {"n": run.sent["h001"]}
    other = {"planes": b"1", "round": b"3", "check": bytes(16)}
    alone = run.network.parties["h001"].contribute(other, given, mine)
    rest = {n: run.network.parties[n].contribute(other | {"check": CHECK}, {"n": run.sent[n]}, mine) for n in ALL[1:]}
    blobs = [(n, bytes((rest | {"h001": alone})[n]["ciphertext:0"])) for n in ALL]
    run = Attack(run.network, run.sent, rest | {"h001": alone})
    found = run.opened(PLANE.add(run.context, blobs, 42), ALL, round=b"3")
    assert_hidden(found, np.asarray(sum(run.sent.values())), pads)


def test_a_contribution_without_a_seed_of_checks_is_refused() -> None:
    run = attack()
    for number, check in enumerate([{}, {"check": b"short"}], start=3):
        packet = {"planes": b"1", "round": str(number).encode(), **check}
        with pytest.raises((Refused, UsageError), match="check"):
            run.network.parties["h001"].contribute(packet, {"n": run.sent["h001"]}, LAYOUT.for_holder(1 / 3))
