"""Attacks on the set-up of secure aggregation: keys, seeds, rings, members and what holders are asked for.

Each fails against us and, where there is one, succeeds against a copy with the check taken out.
"""

import hashlib
import os
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from statfed.core.errors import EngineError, Refused, StatfedError, UsageError
from statfed.core.fixed_point import Layout
from statfed.core.identity import Identity
from statfed.core.protection import Packet
from statfed.strategies.protections import _secagg_all, _secagg_party, secure_aggregation
from statfed.strategies.protections._secagg_all import AllParty
from statfed.strategies.protections._secagg_graph import SETUPS, Graph, Shape
from statfed.strategies.protections._secagg_messages import (
    Binding,
    Bundle,
    Commitment,
    Revealed,
    Setup,
    Share,
    Upload,
    Uploaded,
    body,
    derive,
    heard,
    public,
    session_of,
    shared,
    sign_bundle,
)
from statfed.strategies.protections._secagg_party import DropoutParty
from statfed.strategies.protections._secagg_secrets import pair_mask, self_mask
from statfed.strategies.protections._secagg_words import KEY, mask, to_numbers
from tests.protocol import Network, agreement, identities
from tests.secagg import RING, SLOT, VICTIM, Run, uniform, values

# --- keys


def middleman(kind: Callable[..., AllParty], signs: bool) -> tuple[NDArray[Any], NDArray[Any]]:
    """The coordinator shows the victim its own keys as everybody else's."""
    ours, layout = agreement("secure-aggregation", 4), Layout(SLOT, 4)
    victim = kind(ours, identities(ours.holders)[VICTIM])
    own = heard(victim.answer("keys", body(Setup(setup=1))), Bundle, VICTIM)
    key, binding = X25519PrivateKey.generate(), Binding(ours)
    bundles = {VICTIM: own}
    for name in ours.holders[1:]:
        forged = Bundle(key=public(key), signature="0" * 128)
        me = Identity.ephemeral(name)
        bundles[name] = sign_bundle(me, binding, 1, "", {"key": public(key)}) if signs else forged
    reply = victim.contribute(body(Upload(setup=1, number=1, bundles=bundles)), values(7), layout)
    words = np.asarray(reply["words"]).copy()
    request, session = heard(reply, Uploaded, VICTIM).request, session_of(binding, 1, bundles)
    secret = shared(key, own.key, VICTIM)
    for name in ours.holders[1:]:
        info = binding("mask", 1, 1, session, request, *sorted((VICTIM, name)))
        mask(words, [(derive(secret, info)[:KEY], name > VICTIM)])
    return to_numbers(words, 64), values(7)["x"]


@pytest.mark.parametrize("signs", [True, False])
def test_keys_that_the_coordinator_made_itself_are_refused(signs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refused, match="not by h002's pinned key"):
        middleman(AllParty, signs)
    monkeypatch.setattr(_secagg_all, "check_bundles", lambda *_: None)
    found, wanted = middleman(AllParty, signs)
    assert np.array_equal(found, wanted)


def test_keys_of_parties_that_nobody_pinned_or_of_fewer_parties_are_refused() -> None:
    ours = agreement("secure-aggregation", 4)
    known = identities(ours.holders)
    lonely = Identity(VICTIM, known[VICTIM]._key, {})
    for identity, missing, wanted in ((lonely, "", "no public key pinned"), (known[VICTIM], "h003", "of every holder")):
        parties = {name: AllParty(ours, identity if name == VICTIM else known[name]) for name in ours.holders}
        bundles = {n: heard(p.answer("keys", body(Setup(setup=1))), Bundle, n) for n, p in parties.items()}
        bundles.pop(missing, None)
        with pytest.raises(Refused, match=wanted):
            parties[VICTIM].contribute(body(Upload(setup=1, number=1, bundles=bundles)), values(1), Layout(SLOT, 4))


def test_a_key_of_small_order_is_refused_even_if_its_holder_signs_it() -> None:
    ours = agreement("secure-aggregation", 3)
    known, binding = identities(ours.holders), Binding(ours)
    parties = {name: AllParty(ours, known[name]) for name in ours.holders}
    bundles = {n: heard(p.answer("keys", body(Setup(setup=1))), Bundle, n) for n, p in parties.items()}
    bundles["h002"] = sign_bundle(known["h002"], binding, 1, "", {"key": "00" * 32})
    with pytest.raises(Refused, match="h002 that is no X25519 key"):
        parties[VICTIM].contribute(body(Upload(setup=1, number=1, bundles=bundles)), values(1), Layout(SLOT, 3))


# --- short seeds


def test_seeds_are_too_long_to_guess() -> None:
    """Secrets of 12 bits stand for the 32 bits that are searched in minutes elsewhere."""
    ours, layout = agreement("secure-aggregation", 3), Layout(SLOT, 3)

    def guess(random: Callable[[int], bytes]) -> NDArray[Any] | None:
        known, binding = identities(ours.holders), Binding(ours)
        parties = {name: AllParty(ours, known[name], random) for name in ours.holders}
        network = Network(ours, parties=dict(parties))
        network.sum({name: values(i) for i, name in enumerate(ours.holders)}, layout)
        bundles = {n: heard(p, Bundle, n) for stage, n, p in network.transcript if stage == "keys"}
        reply = next(p for stage, n, p in network.transcript if stage == "upload" and n == VICTIM)
        for candidate in range(1 << 12):
            key = X25519PrivateKey.from_private_bytes(candidate.to_bytes(32, "big"))
            if public(key) == bundles[VICTIM].key:
                words = np.asarray(reply["words"]).copy()
                session, request = session_of(binding, 1, bundles), heard(reply, Uploaded, VICTIM).request
                for name in ours.holders[1:]:
                    info = binding("mask", 1, 1, session, request, VICTIM, name)
                    pair = derive(shared(key, bundles[name].key, name), info)[:KEY]
                    mask(words, [(pair, True)])
                return to_numbers(words, 64)
        return None

    asked: list[int] = []

    def counted(size: int) -> bytes:
        asked.append(size)
        return os.urandom(size)

    assert guess(counted) is None
    assert set(asked) == {32}
    weak = guess(lambda size: (int.from_bytes(os.urandom(2), "big") >> 4).to_bytes(size, "big"))
    assert weak is not None
    assert np.array_equal(weak, values(0)["x"])


def test_every_secret_of_a_setup_is_its_own_and_of_full_length() -> None:
    run = Run()
    secrets = [party._held() for party in run.parties.values()]
    found = [key for one in secrets for key in (*one._seeds.values(), *one._masks.values(), *run.stolen.values())]
    assert {len(key) for key in found} == {32}
    assert len({*found}) == 5 * 2 + 5  # of the second sum, and the first sum's mask keys that the test took


# --- rings


class Narrow(Shape):
    """A ring that is too narrow, to show what the check of survivors is for. It is sized for one colluder."""

    quorum = 2

    @property
    def rings(self) -> bool:
        return True

    def draw(self, names: Collection[str], seed: bytes) -> Graph:
        ring = sorted(names, key=lambda name: hashlib.sha256(seed + name.encode()).digest())
        return Graph(tuple(ring), self.minimum, threshold=2, width=2, quorum=self.quorum)


class Unchecked(Narrow):
    quorum = 0


def isolate(shape: Shape) -> tuple[Run, NDArray[Any]]:
    """Say that the victim's neighbours dropped out, all but one, who colludes."""
    run = Run(16, 11, DropoutParty, shape)
    friend, *near = run.graph.neighbours(VICTIM)
    kept = [name for name in run.names if name not in near]
    signatures = {name: run.roster(name, kept) for name in kept}
    revealed = {name: run.unmask(name, signatures) for name in kept}
    words = run.words(VICTIM)
    seed = run.restored({name: one.seeds[VICTIM] for name, one in revealed.items() if VICTIM in one.seeds})
    mask(words, [(self_mask(*run.facts(), seed), True)])
    keys = {friend: run.stolen[friend]}
    for name in near:
        shares = {by: one.masks[name] for by, one in revealed.items() if name in one.masks}
        keys[name] = run.restored(shares)
    for name, key in keys.items():
        own = X25519PrivateKey.from_private_bytes(key)
        mask(words, [(pair_mask(*run.facts(), own, name, VICTIM, run.bundles[VICTIM].masks[0]), name > VICTIM)])
    return run, to_numbers(words, 64)


def test_a_victim_is_not_cut_off_by_declaring_its_neighbours_dropped() -> None:
    with pytest.raises(Refused, match="of some 2 in a row on the ring; want at least 2"):
        isolate(Narrow(16, 11, 1))
    run, numbers = isolate(Unchecked(16, 11, 1))
    assert run.seen(numbers)


def test_a_nonce_that_was_not_committed_to_is_refused() -> None:
    """The last to show a nonce could choose it so that the victim sits between two colluders."""

    def place(kind: type[DropoutParty]) -> tuple[str, ...]:
        ours = agreement("secure-aggregation", 10)
        known, shape = identities(ours.holders), Narrow(10, 7, 0)
        parties = {name: kind(ours, known[name], shape, 1) for name in ours.holders}
        asked = body(Setup(setup=1))
        commitments = {n: heard(p.answer("commit", asked), Commitment, n) for n, p in parties.items()}
        asked = body(Setup(setup=1, commitments=commitments))
        bundles = {n: heard(p.answer("keys", asked), Bundle, n) for n, p in parties.items()}
        cheat, friends = ours.holders[-1], set(ours.holders[-4:])
        binding, among = Binding(ours), _secagg_party.among(Binding(ours), 1, commitments)
        while True:
            keys = bundles[cheat].model_dump(exclude={"signature", "nonce"}) | {"nonce": os.urandom(32).hex()}
            bundles[cheat] = sign_bundle(known[cheat], binding, 1, among, keys)
            graph = shape.draw(ours.holders, _secagg_party.ring_seed(binding, 1, bundles))
            if set(graph.neighbours(VICTIM)) == friends:
                break
        parties[VICTIM].answer("share", body(Share(setup=1, bundles=bundles)))
        return parties[VICTIM]._graph.neighbours(VICTIM)

    class Believing(DropoutParty):
        def _opened(self, bundles: Mapping[str, Bundle]) -> None:
            pass

    assert place(Believing) == ("h007", "h008", "h009", "h010")
    with pytest.raises(Refused, match="nonces that are not those committed to"):
        place(DropoutParty)


def test_whoever_committed_cannot_be_left_out_and_rings_cannot_be_drawn_without_end() -> None:
    ours = agreement("secure-aggregation", 40, minimum=32)
    known = identities(ours.holders)
    parties = {name: DropoutParty(ours, known[name], RING, 1) for name in ours.holders}
    asked = body(Setup(setup=1))
    commitments = {n: heard(p.answer("commit", asked), Commitment, n) for n, p in parties.items()}
    asked = body(Setup(setup=1, commitments=commitments))
    bundles = {n: heard(p.answer("keys", asked), Bundle, n) for n, p in parties.items()}
    fewer = {name: one for name, one in bundles.items() if name != "h040"}
    with pytest.raises(Refused, match="want every one of them"):
        parties[VICTIM].answer("share", body(Share(setup=1, bundles=fewer)))
    with pytest.raises(Refused, match="wrong time"):  # nor are other commitments taken once the nonce is shown
        parties[VICTIM].answer("keys", asked)
    parties[VICTIM].answer("commit", body(Setup(setup=SETUPS)))
    with pytest.raises(Refused, match=f"got setup {SETUPS + 1}"):
        parties[VICTIM].answer("commit", body(Setup(setup=SETUPS + 1)))
    with pytest.raises(Refused, match="got setup 3; want one after"):
        parties[VICTIM].answer("commit", body(Setup(setup=3)))


def test_a_ring_too_narrow_for_the_colluders_cannot_be_agreed_on() -> None:
    ours = agreement("secure-aggregation", 100, minimum=80, colluders=10, neighbours=4)
    with pytest.raises(Refused, match="neighbours: got 4; want at least 54"):
        secure_aggregation.party(ours, Identity.ephemeral(VICTIM))
    with pytest.raises(UsageError, match="neighbours: got 4; want at least 54"):
        secure_aggregation.coordinator(ours)


# --- inconsistent requests, members


def zeros_for_others(minimum: int | None) -> tuple[NDArray[Any] | str, NDArray[Any]]:
    """The others are sent parameters for which they contribute nothing (Pasquini et al. 2022)."""
    ours, layout = agreement("secure-aggregation", 5, minimum=minimum), Layout(SLOT, 5)

    def tell(stage: str, name: str, packet: Packet) -> Packet:
        digest = hashlib.sha256(b"the victim's" if name == VICTIM else b"the others'").digest()
        return {**packet, "request": digest} if stage == "upload" else packet  # as its own adapter has put it

    network = Network(ours, change=tell)
    nothing = {"x": np.zeros(2000, np.int64)}
    given = {name: values(1) if name == VICTIM else nothing for name in ours.holders}
    assert network.coordinator is not None
    try:
        return network.sum(given, layout).total["x"], given[VICTIM]["x"]
    except StatfedError as error:
        uploads = [np.asarray(packet["words"]) for stage, _, packet in network.transcript if stage == "upload"]
        assert uniform(np.sum(uploads, axis=0))
        return str(error), given[VICTIM]["x"]


@pytest.mark.parametrize("minimum", [None, 4])
def test_contributions_to_different_requests_do_not_unmask_together(
    minimum: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _ = zeros_for_others(minimum)
    assert "about another request" in str(found)
    for module in (_secagg_all, _secagg_party):
        monkeypatch.setattr(module, "request_of", lambda *_: "0" * 64)
    found, victim = zeros_for_others(minimum)
    assert np.array_equal(found, victim)


def test_a_list_over_uploads_for_different_requests_or_members_is_not_signed() -> None:
    def tell(name: str, packet: Packet) -> Packet:
        return {**packet, "request": b"\1" * 32 if name == VICTIM else b"\2" * 32}

    run = Run(tell=tell)
    with pytest.raises(Refused, match="h001: got no signature of an upload for this request"):
        run.roster("h002", run.names)
    with pytest.raises(Refused, match="h002: got no signature of an upload for this request"):
        run.roster(VICTIM, run.names)

    def split(name: str, packet: Packet) -> Packet:
        if name != VICTIM:
            return packet
        members = tuple(f"h{i:03}" for i in range(1, 5))
        return {**body(Upload(setup=1, number=1, members=members)), "inbox": np.asarray(packet["inbox"])[:3]}

    run = Run(tell=split)
    with pytest.raises(Refused, match="h001: got no signature of an upload for this request and these members"):
        run.roster("h002", run.names)
    with pytest.raises(Refused, match="want the same all setup long"):
        run.parties[VICTIM].contribute(run.upload(VICTIM, 2), values(1), run.layout)


def test_a_setup_of_few_members_or_with_shares_withheld_is_refused() -> None:
    run = Run()
    party = DropoutParty(run.agreement, identities(run.names)[VICTIM], Shape(5, 4, 0), 2)
    own = heard(party.answer("keys", body(Setup(setup=1))), Bundle, VICTIM)
    with pytest.raises(Refused, match="want at least 4 holders of this run"):
        party.answer("share", body(Share(setup=1, bundles={VICTIM: own})))

    def withhold(name: str, packet: Packet) -> Packet:
        return {**packet, "inbox": np.asarray(packet["inbox"])[1:]}

    with pytest.raises(Refused, match="want those of every neighbour"):
        Run(tell=withhold)


def test_shares_that_were_tampered_with_are_noticed_and_do_not_make_a_wrong_total() -> None:
    def tamper(name: str, packet: Packet) -> Packet:
        inbox = np.asarray(packet["inbox"]).copy()
        inbox[0, 5] ^= 1
        return {**packet, "inbox": inbox}

    run = Run(tell=tamper)
    signatures = {name: run.roster(name, run.names) for name in run.names}
    assert VICTIM not in run.unmask("h002", signatures).seeds
    network = Network(agreement("secure-aggregation", 5, minimum=4))

    def change(stage: str, name: str, packet: Packet) -> Packet:
        return tamper(name, packet) if stage == "upload" and "inbox" in packet else packet

    network.change = change
    with pytest.raises(EngineError, match="shares about h001; want 4"):
        network.sum({name: values(1) for name in network.agreement.holders}, Layout(SLOT, 5))


def test_a_holder_that_reveals_wrong_shares_cannot_make_a_wrong_total() -> None:
    layout = Layout(SLOT, 5)

    def spoilt(drops: Mapping[str, Collection[str]]) -> NDArray[Any]:
        network = Network(agreement("secure-aggregation", 5, minimum=4), drops=drops)
        party = network.parties["h002"]
        honest = party.answer

        def answer(stage: str, packet: Packet) -> Packet:
            reply = honest(stage, packet)
            if stage != "unmask":
                return reply
            told = heard(reply, Revealed, "h002")
            wrong = {name: f"{int(share, 16) ^ 1:066x}" for name, share in told.seeds.items()}
            return body(Revealed(seeds=wrong, masks=told.masks))

        party.answer = answer  # type: ignore[method-assign]
        given = {name: values(i) for i, name in enumerate(network.agreement.holders)}
        total: NDArray[Any] = network.sum(given, layout).total["x"] - np.sum([v["x"] for v in given.values()], axis=0)
        return total

    assert not spoilt({}).any()  # four right shares are enough
    with pytest.raises(EngineError, match="do not give what it had promised"):
        spoilt({"unmask": ["h005"]})


def test_commitments_of_strangers_of_too_few_or_of_nobody_known_are_refused() -> None:
    ours = agreement("secure-aggregation", 40, minimum=32)
    known, asked = identities(ours.holders), body(Setup(setup=1))

    def show(change: Callable[[dict[str, Commitment]], object]) -> None:
        parties = {name: DropoutParty(ours, known[name], RING, 1) for name in ours.holders}
        commitments = {n: heard(p.answer("commit", asked), Commitment, n) for n, p in parties.items()}
        change(commitments)
        parties[VICTIM].answer("keys", body(Setup(setup=1, commitments=commitments)))

    forged = Commitment(digest="0" * 64, signature="0" * 128)
    show(len)
    for change, wanted in (
        (lambda found: found.update(h002=forged), "not by h002's pinned key"),
        (lambda found: found.update(h002=found["h003"]), "not by h002's pinned key"),
        (lambda found: found.update(h001=forged), "without this party's own"),
        (lambda found: found.update(other=forged), "holders of this run"),
        (lambda found: [found.pop(name) for name in ours.holders[-9:]], "want at least 32 holders of this run"),
        (lambda found: found.clear(), "want at least 32 holders of this run"),
    ):
        with pytest.raises(Refused, match=wanted):
            show(change)
