"""Attacks on secure aggregation by a coordinator that does as it likes, alone and with holders.

Each fails against the protection; where a check is what stops it, it succeeds against a copy without that check.
"""

import itertools
from collections.abc import Collection
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from statfed.core.errors import Refused
from statfed.core.fixed_point import Layout
from statfed.core.identity import Identity
from statfed.core.protection import Agreement, Packet
from statfed.strategies.protections import secure_aggregation
from statfed.strategies.protections._secagg_all import AllParty
from statfed.strategies.protections._secagg_graph import Shape
from statfed.strategies.protections._secagg_messages import (
    Binding,
    Bundle,
    Revealed,
    Setup,
    Share,
    Upload,
    Uploaded,
    body,
    derive,
    heard,
)
from statfed.strategies.protections._secagg_party import DropoutParty
from statfed.strategies.protections._secagg_secrets import pair_mask, self_mask
from statfed.strategies.protections._secagg_words import KEY, mask, to_numbers
from tests.protocol import Network, agreement, identities
from tests.secagg import RING, SLOT, VICTIM, Run, uniform, values

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
