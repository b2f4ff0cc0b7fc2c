"""Attacks on secure aggregation by a coordinator that does as it likes, alone and with holders.

Each fails against the protection; where a check is what stops it, it succeeds against a copy without that check.
"""

import hashlib
import itertools
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray
from scipy import stats

from statfed.core.errors import EngineError, Refused, StatfedError, UsageError
from statfed.core.fixed_point import Layout, Slot
from statfed.core.identity import Identity
from statfed.core.protection import Agreement, Packet
from statfed.strategies.protections import _secagg_all, _secagg_party, secure_aggregation
from statfed.strategies.protections._secagg_all import AllParty
from statfed.strategies.protections._secagg_graph import SETUPS, Graph, Shape
from statfed.strategies.protections._secagg_messages import (
    Binding,
    Bundle,
    Commitment,
    Revealed,
    Roster,
    Setup,
    Share,
    Signed,
    Unmask,
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
from statfed.strategies.protections._secagg_party import DropoutParty, members_session
from statfed.strategies.protections._secagg_secrets import pair_mask, self_mask
from statfed.strategies.protections._secagg_shamir import restore
from statfed.strategies.protections._secagg_words import KEY, mask, to_numbers
from tests.protocol import Network, agreement, identities

SLOT = {"x": Slot((2000,), 2.0**40, integer=True)}
VICTIM = "h001"


def values(seed: int) -> dict[str, NDArray[Any]]:
    return {"x": np.random.default_rng(seed).integers(-1000, 1000, 2000)}


def uniform(words: NDArray[Any]) -> bool:
    counts = np.bincount(np.ascontiguousarray(words).view(np.uint8).reshape(-1), minlength=256)
    return float(stats.chisquare(counts).pvalue) > 1e-9


@dataclass
class Run:
    """A run that survives dropout, up to its first uploads, in the attacker's hands."""

    holders: int = 5
    minimum: int = 4
    kind: Callable[..., DropoutParty] = DropoutParty
    shape: Shape | None = None
    tell: Callable[[str, Packet], Packet] = lambda _name, packet: packet
    parties: dict[str, DropoutParty] = field(default_factory=dict)
    uploads: dict[str, Packet] = field(default_factory=dict)
    stolen: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.agreement = agreement("secure-aggregation", self.holders)
        self.names = self.agreement.holders
        shape = self.shape or Shape(self.holders, self.minimum, 0)
        known = identities(self.names)
        self.parties = {n: self.kind(self.agreement, known[n], shape, 2) for n in self.names}
        self.contributions = {name: values(i) for i, name in enumerate(self.names)}
        self.layout = Layout(SLOT, self.holders)
        self.binding = Binding(self.agreement)
        commitments: dict[str, Commitment] = {}
        if shape.rings:
            asked = body(Setup(setup=1))
            commitments = {n: heard(p.answer("commit", asked), Commitment, n) for n, p in self.parties.items()}
        asked = body(Setup(setup=1, commitments=commitments))
        self.bundles = {n: heard(p.answer("keys", asked), Bundle, n) for n, p in self.parties.items()}
        self.sealed = {
            n: np.asarray(p.answer("share", body(Share(setup=1, bundles=self.bundles)))["shares"])
            for n, p in self.parties.items()
        }
        self.graph = self.parties[VICTIM]._graph
        self.session = members_session(self.binding, 1, session_of(self.binding, 1, self.bundles), self.names)
        for name, party in self.parties.items():
            self.stolen[name] = party._held()._masks[1]
            packet = self.tell(name, self.upload(name))
            share = self.layout.for_holder(1 / self.holders)
            self.uploads[name] = party.contribute(packet, self.contributions[name], share)
        self.request = heard(self.uploads[VICTIM], Uploaded, VICTIM).request

    def upload(self, name: str, number: int = 1) -> Packet:
        rows = [self.sealed[n][self.graph.neighbours(n).index(name)] for n in self.graph.neighbours(name)]
        return body(Upload(setup=1, number=number, members=self.names), inbox=np.stack(rows))

    def signed(self, names: Collection[str]) -> dict[str, str]:
        return {n: heard(self.uploads[n], Uploaded, n).signature for n in names}

    def roster(self, name: str, survivors: Collection[str], number: int = 1) -> str:
        packet = body(Roster(setup=1, number=number, survivors=self.signed(survivors)))
        return heard(self.parties[name].answer("roster", packet), Signed, name).signature

    def unmask(self, name: str, signatures: Mapping[str, str], number: int = 1) -> Revealed:
        packet = body(Unmask(setup=1, number=number, signatures=dict(signatures)))
        return heard(self.parties[name].answer("unmask", packet), Revealed, name)

    def words(self, name: str) -> NDArray[Any]:
        return np.asarray(self.uploads[name]["words"]).copy()

    def facts(self) -> tuple[Binding, int, int, str, str]:
        return self.binding, 1, 1, self.session, self.request

    def without_pairs(self, words: NDArray[Any], victim: str, key: bytes, others: Collection[str]) -> None:
        """Take the victim's masks with `others` off, by its own mask key."""
        own = X25519PrivateKey.from_private_bytes(key)
        for other in others:
            pair = pair_mask(*self.facts(), own, victim, other, self.bundles[other].masks[0])
            mask(words, [(pair, victim < other)])

    def exposed(self, seeds: Mapping[str, str], keys: Mapping[str, str]) -> NDArray[Any]:
        """The victim's numbers from shares of its seed and its mask key, by who gave them."""
        words = self.words(VICTIM)
        mask(words, [(self_mask(*self.facts(), self.restored(seeds)), True)])
        self.without_pairs(words, VICTIM, self.restored(keys), self.graph.neighbours(VICTIM))
        return to_numbers(words, 64)

    def restored(self, shares: Mapping[str, str]) -> bytes:
        chosen = sorted(shares)[: self.graph.threshold]
        return restore({self.graph.places[name]: int(shares[name], 16) for name in chosen})

    def seen(self, numbers: NDArray[Any]) -> bool:
        return bool(np.array_equal(numbers, self.contributions[VICTIM]["x"]))


# --- both kinds of share of one node; replayed and reordered stages


class Forgetful(DropoutParty):
    """Takes any stage at any time, and keeps what it has revealed."""

    def _advance(self, setup: int, number: int, stage: str, *after: str) -> None:
        self._at = stage

    def _reveal(self, packet: Packet) -> Packet:
        kept = dict(self._held()._shares)
        reply = super()._reveal(packet)
        self._held()._shares = kept
        return reply


def both_kinds(run: Run) -> NDArray[Any]:
    """First everybody survives; then the victim has dropped out."""
    rest = [name for name in run.names if name != VICTIM]
    first = {name: run.roster(name, run.names) for name in run.names}
    seeds = {name: run.unmask(name, first).seeds[VICTIM] for name in rest}
    second = {name: run.roster(name, rest) for name in rest}
    keys = {name: run.unmask(name, second).masks[VICTIM] for name in rest}
    return run.exposed(seeds, keys)


def test_nobody_is_listed_as_active_and_as_dropped() -> None:
    with pytest.raises(Refused, match=r"roster: got setup 1, sum 1 at the wrong time; .* after unmask"):
        both_kinds(Run())
    run = Run(kind=Forgetful)
    assert run.seen(both_kinds(run))


def test_a_second_roster_is_refused_whether_or_not_the_first_was_used() -> None:
    run = Run()
    run.roster("h002", run.names)
    for survivors in (run.names, [name for name in run.names if name != VICTIM]):
        with pytest.raises(Refused, match="wrong time"):
            run.roster("h002", survivors)


def test_every_stage_is_accepted_once_and_in_order() -> None:
    run = Run()
    party = run.parties["h002"]
    keys, shares = body(Setup(setup=1)), body(Share(setup=1, bundles=run.bundles))

    def early(number: int, name: str) -> None:
        with pytest.raises(Refused, match="wrong time"):
            run.unmask(name, {}, number)

    def old() -> None:
        with pytest.raises(Refused, match="want one after 1"):
            party.answer("keys", keys)
        with pytest.raises(Refused, match="wrong time"):
            party.answer("share", shares)
        with pytest.raises(Refused, match="got sum 1; want 2 to 2"):
            party.contribute(run.upload("h002"), values(1), run.layout)

    early(1, "h002")  # before the roster
    old()
    with pytest.raises(Refused, match="wrong time"):
        run.roster("h002", run.names, number=2)  # a sum that has no uploads
    signatures = {name: run.roster(name, run.names) for name in run.names}
    old()
    early(2, "h002")
    run.unmask("h002", signatures)
    old()
    early(1, "h002")
    party.contribute(body(Upload(setup=1, number=2)), values(1), run.layout)
    with pytest.raises(Refused, match="wrong time"):
        run.roster("h002", run.names)
    early(1, "h002")
    assert heard(party.answer("keys", body(Setup(setup=2))), Bundle, "h002") != run.bundles["h002"]
    with pytest.raises(Refused, match="wrong time"):
        run.roster("h002", run.names, number=2)


class Repeating(AllParty):
    """Uploads under one number as often as it is asked."""

    def contribute(self, packet: Packet, arrays: Any, layout: Layout) -> Packet:
        self._number = 0
        return super().contribute(packet, arrays, layout)


def test_two_uploads_under_one_mask_would_show_their_difference() -> None:
    ours = agreement("secure-aggregation", 3)
    layout = Layout(SLOT, 3)
    for kind, leaks in ((AllParty, False), (Repeating, True)):
        known = identities(ours.holders)
        network = Network(ours, parties={name: kind(ours, known[name]) for name in ours.holders})
        network.sum({name: values(1) for name in ours.holders}, layout)
        first = network.transcript[-3][2]["words"]
        again = body(Upload(setup=1, number=1))
        if not leaks:
            with pytest.raises(Refused, match="upload 1; want setup 1, upload 2 or later"):
                network.parties[VICTIM].contribute(again, values(2), layout)
            continue
        second = network.parties[VICTIM].contribute(again, values(2), layout)["words"]
        difference = to_numbers(np.asarray(second) - np.asarray(first), 64)
        assert np.array_equal(difference, values(2)["x"] - values(1)["x"])


# --- rosters: equivocation, signatures


def two_lists(run: Run, with_victim: Collection[str], without: Collection[str]) -> NDArray[Any]:
    """One list for one group and another for the other; everybody signs once."""
    rest = [name for name in run.names if name != VICTIM]
    kept = {name: run.roster(name, run.names) for name in with_victim}
    lost = {name: run.roster(name, rest) for name in without}
    seeds = {name: run.unmask(name, kept).seeds[VICTIM] for name in with_victim}
    keys = {name: run.unmask(name, lost).masks[VICTIM] for name in without}
    return run.exposed(seeds, keys)


def test_two_lists_for_two_groups_reveal_nothing_above_two_thirds() -> None:
    run = Run(7, 5)
    for size in range(1, 6):
        with pytest.raises(
            Refused, match=r"unmask: got \d valid signatures of the list that this party signed; want 5"
        ):
            two_lists(Run(7, 5), run.names[1 : 1 + size], run.names[1 + size :])
    weak = Run(7, 3)  # fewest survivors below two thirds
    assert weak.seen(two_lists(weak, weak.names[1:4], weak.names[4:]))
    for minimum in (3, 4):  # which neither end can be talked into
        ours = agreement("secure-aggregation", 7, minimum=minimum)
        with pytest.raises(Refused, match="more than two thirds"):
            secure_aggregation.party(ours, Identity.ephemeral(VICTIM))


class Trusting(DropoutParty):
    """Reveals without looking at signatures."""

    def _verified(self, name: str, message: bytes, signature: str) -> bool:
        return True


RING = Shape(40, 32, 4, 28)  # a share's threshold is small where a ring is


def test_two_lists_work_where_signatures_are_not_looked_at() -> None:
    def attack(kind: type[DropoutParty]) -> tuple[Run, NDArray[Any]]:
        run = Run(40, 32, kind, RING)
        near = run.graph.neighbours(VICTIM)
        claimed = {"h002": "0" * 128}
        rest = [name for name in run.names if name != VICTIM]
        for i, name in enumerate(near):
            run.roster(name, run.names if i % 2 else rest)
        signatures = dict.fromkeys(run.names, claimed["h002"])
        seeds = {name: run.unmask(name, signatures).seeds[VICTIM] for name in near[1::2]}
        keys = {name: run.unmask(name, signatures).masks[VICTIM] for name in near[::2]}
        return run, run.exposed(seeds, keys)

    with pytest.raises(Refused, match="got 0 valid signatures"):
        attack(DropoutParty)
    run, numbers = attack(Trusting)
    assert run.seen(numbers)


def test_too_few_signatures_or_twice_the_same_reveal_nothing() -> None:
    run = Run()
    signatures = {name: run.roster(name, run.names) for name in run.names}
    few = dict(itertools.islice(signatures.items(), 3))
    for given in (few, few | {"h004": signatures["h003"]}, few | {"h005": "0" * 128}, few | {"other": few["h001"]}):
        trial = Run()
        for name in trial.names:
            trial.roster(name, trial.names)
        with pytest.raises(Refused, match=r"got \d valid signatures"):
            trial.unmask("h002", given)
        with pytest.raises(Refused, match="wrong time"):  # and no second try: the shares are gone
            trial.unmask("h002", signatures)
    with pytest.raises(Refused, match="got 3 valid signatures"):
        run.unmask("h002", few)


@pytest.mark.parametrize(
    ("survivors", "wanted"),
    [
        (["h001", "h003", "h004", "h005"], "this party among them"),
        (["h001", "h002", "h003"], "got 3; want at least 4"),
        (["h001", "h002", "h003", "h004", "other"], "want names of members"),
    ],
)
def test_a_list_that_is_too_short_or_has_strangers_is_not_signed(survivors: list[str], wanted: str) -> None:
    run = Run()
    run.uploads["other"] = run.uploads["h003"]
    with pytest.raises(Refused, match=wanted):
        run.roster("h002", survivors)


def test_who_has_not_uploaded_cannot_be_listed_as_a_survivor() -> None:
    run = Run()
    for other in ("h004", "h005"):  # somebody else's signature, or an old one
        run.uploads["h003"] = run.uploads[other]
        with pytest.raises(Refused, match=r"roster: h003: got no signature of an upload"):
            run.roster({"h004": "h002", "h005": "h001"}[other], run.names)


class Careless(DropoutParty):
    """Signs a list of survivors without saying of which sum."""

    def _roster(self) -> bytes:
        return self._binding("roster", self._survivors)


def test_signatures_of_another_run_study_or_sum_do_not_count() -> None:
    ours = agreement("secure-aggregation", 5, minimum=4, run="one")
    known = identities(ours.holders)

    def bundle(to: Agreement, name: str) -> Bundle:
        party = DropoutParty(to, known[name], Shape(5, 4, 0), 2)
        return heard(party.answer("keys", body(Setup(setup=1))), Bundle, name)

    for other in (
        agreement("secure-aggregation", 5, minimum=4, run="two"),
        Agreement(**{**vars(ours), "study": "1" * 64}),
        Agreement(**{**vars(ours), "sizes": dict.fromkeys(ours.holders, 99)}),
        agreement("secure-aggregation", 5, minimum=4, run="one", sums=2),
    ):
        party = DropoutParty(ours, known["h001"], Shape(5, 4, 0), 2)
        own = heard(party.answer("keys", body(Setup(setup=1))), Bundle, "h001")
        brought = {name: bundle(other, name) for name in ours.holders} | {"h001": own}
        with pytest.raises(Refused, match="not by h002's pinned key"):
            party.answer("share", body(Share(setup=1, bundles=brought)))

    def later(kind: type[DropoutParty]) -> Revealed:
        run = Run(kind=kind)
        old = {name: run.roster(name, run.names) for name in run.names}
        for name, party in run.parties.items():
            packet = body(Upload(setup=1, number=2))
            run.uploads[name] = party.contribute(packet, run.contributions[name], run.layout.for_holder(0.2))
        run.roster("h002", run.names, number=2)
        return run.unmask("h002", old, number=2)

    with pytest.raises(Refused, match="got 0 valid signatures"):
        later(DropoutParty)
    assert VICTIM in later(Careless).seeds


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


# --- colluders


def subsets(names: Collection[str]) -> list[tuple[str, ...]]:
    """All but the whole."""
    return [some for size in range(1, len(names)) for some in itertools.combinations(sorted(names), size)]


@pytest.mark.parametrize("colluders", [0, 1, 2, 3])
def test_all_but_two_holders_and_the_coordinator_see_the_sum_of_the_others_alone(colluders: int) -> None:
    ours, layout = agreement("secure-aggregation", 5), Layout(SLOT, 5)
    known, binding = identities(ours.holders), Binding(ours)
    parties = {name: AllParty(ours, known[name]) for name in ours.holders}
    network = Network(ours, parties=dict(parties))
    given = {name: values(i) for i, name in enumerate(ours.holders)}
    network.sum(given, layout)
    uploads = {name: packet for stage, name, packet in network.transcript if stage == "upload"}
    bad, honest = ours.holders[5 - colluders :], ours.holders[: 5 - colluders]
    session = parties[VICTIM]._session
    left = {}
    for name in honest:
        words = np.asarray(uploads[name]["words"]).copy()
        request = heard(uploads[name], Uploaded, name).request
        for other in bad:
            info = binding("mask", 1, 1, session, request, *sorted((name, other)))
            mask(words, [(derive(parties[other]._pairs[name], info)[:KEY], other > name)])
        left[name] = words
    for some in subsets(honest):
        assert uniform(np.sum([left[name] for name in some], axis=0))
    both = to_numbers(np.sum([left[name] for name in honest], axis=0), 64)
    assert np.array_equal(both, sum(given[name]["x"] for name in honest))


def test_all_but_one_holder_see_everything_which_is_the_stated_limit() -> None:
    ours, layout = agreement("secure-aggregation", 3), Layout(SLOT, 3)
    network = Network(ours)
    given = {name: values(i) for i, name in enumerate(ours.holders)}
    total = network.sum(given, layout).total["x"]
    assert np.array_equal(total - given["h002"]["x"] - given["h003"]["x"], given[VICTIM]["x"])


def test_two_sums_of_one_thing_over_holders_that_differ_by_one_show_that_one_which_is_the_stated_limit() -> None:
    ours, layout = agreement("secure-aggregation", 5, minimum=4), Layout(SLOT, 5)
    network = Network(ours)
    given = {name: values(i) for i, name in enumerate(ours.holders)}
    everybody = network.sum(given, layout).total["x"]
    network.drops = {"upload": [VICTIM]}
    assert np.array_equal(everybody - network.sum(given, layout).total["x"], given[VICTIM]["x"])


@pytest.mark.parametrize("colluders", [0, 1, 2])
def test_below_the_threshold_colluders_see_the_sum_of_the_others_alone(colluders: int) -> None:
    run = Run(7, 5)
    dropped = "h005"
    kept = [name for name in run.names if name != dropped]
    signatures = {name: run.roster(name, kept) for name in kept}
    bad = run.names[7 - colluders :]
    own_shares = {name: dict(run.parties[name]._held()._shares[1]) for name in bad}
    revealed = {name: run.unmask(name, signatures) for name in kept}
    honest = [name for name in kept if name not in bad]
    left = {}
    for name in honest:
        words = run.words(name)
        seed = run.restored({by: one.seeds[name] for by, one in revealed.items()})
        mask(words, [(self_mask(*run.facts(), seed), True)])
        lost = run.restored({by: one.masks[dropped] for by, one in revealed.items()})
        for other, key in [(dropped, lost), *((one, run.stolen[one]) for one in bad)]:
            own = X25519PrivateKey.from_private_bytes(key)
            pair = pair_mask(*run.facts(), own, other, name, run.bundles[name].masks[0])
            mask(words, [(pair, name < other)])
        left[name] = words
    for some in subsets(honest):
        assert uniform(np.sum([left[name] for name in some], axis=0))
    total = to_numbers(np.sum([left[name] for name in honest], axis=0), 64)
    assert np.array_equal(total, sum(run.contributions[name]["x"] for name in honest))
    for name in honest:  # nor do their own shares, with all that was revealed, give an honest mask key
        assert all(name not in one.masks for one in revealed.values())
        assert sum(name in shares for shares in own_shares.values()) < run.graph.threshold


# --- dropout forcing


class Bare(DropoutParty):
    """Uploads without a self mask."""

    def contribute(self, packet: Packet, arrays: Any, layout: Layout) -> Packet:
        secrets, real = self._held(), self._held().masks
        secrets.masks = lambda *given: real(*given)[1:]  # type: ignore[method-assign]
        return super().contribute(packet, arrays, layout)


def test_an_upload_that_arrives_after_its_holder_was_declared_dropped_stays_masked() -> None:
    def late(kind: type[DropoutParty]) -> tuple[Run, NDArray[Any]]:
        run = Run(kind=kind)
        kept = [name for name in run.names if name != VICTIM]
        signatures = {name: run.roster(name, kept) for name in kept}
        keys = {name: run.unmask(name, signatures).masks[VICTIM] for name in kept}
        words = run.words(VICTIM)
        run.without_pairs(words, VICTIM, run.restored(keys), kept)
        return run, words

    run, words = late(DropoutParty)
    assert uniform(words)
    with pytest.raises(Refused, match="this party among them"):  # the victim itself signs no list without itself
        run.roster(VICTIM, [name for name in run.names if name != VICTIM])
    run, words = late(Bare)
    assert run.seen(to_numbers(words, 64))


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
