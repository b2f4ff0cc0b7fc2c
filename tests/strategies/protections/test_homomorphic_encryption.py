"""`homomorphic-encryption` against the plain sum, its parameters, what it refuses, and the whole path."""

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from statfed.core.applicability import obstacles
from statfed.core.errors import EngineError, UsageError
from statfed.core.fixed_point import Layout, Slot
from statfed.core.method import Arrays
from statfed.core.protection import Packet, named_protection
from statfed.core.randomness import Stream
from statfed.core.study import make_study
from statfed.core.terms import Privacy, Protection, Terms
from statfed.federation import Federation, Options, run_study
from statfed.strategies.protections import _he_planes as planes
from statfed.strategies.protections import homomorphic_encryption as he
from statfed.strategies.protections._he_codec import PRIMES, Residues, coarse
from tests.conftest import toy_terms
from tests.federate import split
from tests.protocol import Network, agreement
from tests.universe import CODEBOOK, people

NAME = "homomorphic-encryption"
NARROW = Layout({"n": Slot((2, 3), 1e6, integer=True)}, 6)
MIXED = Layout({"n": Slot((), 1e4, integer=True), "x": Slot((5,), 1e3)}, 6)
WIDE = Layout({"n": Slot((2,), 1e4, integer=True), "score": Slot((3,), math.inf)}, 6)
LAYOUTS = [pytest.param(NARROW, 32, id="32"), pytest.param(MIXED, 64, id="64"), pytest.param(WIDE, 192, id="192")]


def contribution(layout: Layout, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Random arrays within every holder's share, of both signs."""
    found: dict[str, NDArray[Any]] = {}
    for name, slot in layout.slots.items():
        most = min(float(np.max(slot.limit)), 1e12) / 8
        drawn = rng.uniform(-most, most, slot.shape)
        found[name] = np.asarray(np.rint(drawn).astype(np.int64) if slot.integer else drawn)
    return found


def contributions(network: Network, layout: Layout, seed: int = 0) -> dict[str, dict[str, NDArray[Any]]]:
    rng = np.random.default_rng(seed)
    return {name: contribution(layout, rng) for name in network.agreement.holders}


def plain_total(sent: dict[str, dict[str, NDArray[Any]]], layout: Layout, names: tuple[str, ...]) -> Arrays:
    """The sum in clear of the same whole numbers."""
    return layout.decode(sum(layout.encode(sent[name]) for name in names))  # type: ignore[arg-type]


def assert_exact(found: Arrays, wanted: Arrays) -> None:
    assert set(found) == set(wanted)
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("holders", [3, 4, 5, 6])
@pytest.mark.parametrize(("layout", "bits"), LAYOUTS)
def test_totals_equal_the_plain_sum_bit_by_bit_over_rounds(layout: Layout, bits: int, holders: int) -> None:
    layout = replace(layout, holders=holders)
    assert layout.bits == bits
    network = Network(agreement(NAME, holders))
    for seed in (1, 2):
        sent = contributions(network, layout, seed)
        found = network.sum(sent, layout)
        assert found.holders == network.agreement.holders
        assert not found.each
        assert_exact(found.total, plain_total(sent, layout, found.holders))


def test_sums_of_all_widths_follow_each_other_in_one_run() -> None:
    network = Network(agreement(NAME, 3))
    for layout in (NARROW, WIDE, MIXED, NARROW, WIDE):
        sent = contributions(network, layout)
        assert_exact(network.sum(sent, layout).total, plain_total(sent, layout, network.agreement.holders))
    assert [stage for stage, party, _ in network.transcript if party == "key-holder"].count("keys") == 3


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_totals_of_a_layout_do_not_wrap(sign: int) -> None:
    layout = Layout({"n": Slot((2,), 2.0**30, integer=True)}, 4)
    network = Network(agreement(NAME, 4))
    sent = {name: {"n": np.full(2, sign * 2**28)} for name in network.agreement.holders}
    assert network.sum(sent, layout).total["n"].tolist() == [sign * 2**30] * 2


def test_a_sum_spans_several_ciphertexts_and_a_partly_filled_one() -> None:
    layout = Layout({"n": Slot((planes.SLOTS + 3,), 1e6, integer=True)}, 3)
    network = Network(agreement(NAME, 3))
    sent = contributions(network, layout)
    assert_exact(network.sum(sent, layout).total, plain_total(sent, layout, network.agreement.holders))


@pytest.mark.parametrize("stage", ["keys", "join", "contribute"])
def test_dropout_at_any_stage_leaves_the_exact_sum_of_those_who_stayed(stage: str) -> None:
    network = Network(agreement(NAME, 5, minimum=4), drops={stage: ["h002"]})
    sent = contributions(network, MIXED)
    found = network.sum(sent, MIXED)
    assert found.holders == ("h001", "h003", "h004", "h005")
    assert_exact(found.total, plain_total(sent, MIXED, found.holders))


@pytest.mark.parametrize("stage", ["keys", "join", "contribute"])
def test_dropout_below_the_minimum_opens_nothing_and_names_who_is_missing(stage: str) -> None:
    network = Network(agreement(NAME, 5, minimum=4), drops={stage: ["h002", "h004"]})
    with pytest.raises(EngineError, match=f"{stage}: 3 holders left, no answer from h002, h004; want at least 4"):
        network.sum(contributions(network, MIXED), MIXED)
    assert "open" not in [stage for stage, _, _ in network.transcript]


def test_a_holder_that_dropped_out_of_one_sum_takes_part_in_the_next() -> None:
    network = Network(agreement(NAME, 4, minimum=3), drops={"contribute": ["h002"]})
    sent = contributions(network, MIXED)
    assert len(network.sum(sent, MIXED).holders) == 3
    network.drops = {}
    assert_exact(network.sum(sent, MIXED).total, plain_total(sent, MIXED, network.agreement.holders))


def test_the_key_holder_never_has_the_total_nor_the_same_numbers_twice() -> None:
    network = Network(agreement(NAME, 3))
    sent = contributions(network, NARROW)
    wanted = Residues(32).split(sum(NARROW.encode(sent[name]) for name in sent))  # type: ignore[arg-type]
    answers: list[Packet] = []
    for _ in range(2):
        network.sum(sent, NARROW)
        answers.append(network.transcript[-1][2])
    first, second = (np.asarray(answer["sum"]) for answer in answers)
    assert not (first[:, : wanted.shape[1]] == wanted).any()  # two numbers more are checks
    assert not (first == second).any()


# Parameters


def test_the_primes_are_primes_for_batching_and_hold_every_total() -> None:
    for prime in PRIMES:
        assert prime < 2**32
        assert prime % (2 * planes.SLOTS) == 1
        assert all(prime % d for d in range(3, math.isqrt(prime) + 1, 2))
    for bits in (32, 64, 192):
        assert math.prod(PRIMES[: bits // 32]) > 2 ** (bits - 1)
    assert len(set(PRIMES)) == len(PRIMES)


def test_the_noise_of_the_most_holders_stays_below_what_decryption_bears() -> None:
    assert planes.MOST_HOLDERS * (4096 + 4) <= 2**59 / (2 * 2**32)
    assert planes.MOST_HOLDERS >= 10_000  # what a study may have
    plane = planes.Plane("bfv", PRIMES[0])
    context = plane.create()
    numbers = np.full(planes.SLOTS, PRIMES[0] // 2)
    blob = plane.encrypt(context, numbers)
    for _ in range(14):  # 2^14 times the noise of one
        blob = plane.add(context, [("a", blob), ("b", blob)], planes.SLOTS)
    assert (plane.decrypt(context, blob, planes.SLOTS) == 2**14 * numbers % PRIMES[0]).all()


def test_masks_redraw_words_that_a_prime_does_not_reach() -> None:
    class Words(Stream):
        """First the words given, then small ones."""

        def __init__(self, first: list[int]) -> None:
            super().__init__(bytes(16))
            self._first = np.array(first, np.uint32).view(np.uint64)

        def words(self, count: int) -> NDArray[np.uint64]:
            found, self._first = self._first[:count], self._first[count:]
            return np.concatenate([found, np.full(count - len(found), 7, np.uint64)])

    prime = PRIMES[0]
    masks = Residues(32).masks(Words([prime, prime - 1, 2**32 - 1, 5]), 4)
    assert masks.tolist() == [[7, prime - 1, 0, 5]]  # one 64-bit word gives the two that were redrawn
    drawn = Residues(64).masks(Stream(bytes(16)), 100_000)
    assert all((row < p).all() and abs(row.mean() / p - 0.5) < 0.01 for row, p in zip(drawn, PRIMES, strict=False))


# CKKS and partial encryption


def test_ckks_totals_are_within_the_stated_error_and_whole_numbers_exact() -> None:
    layout = Layout({"n": Slot((2,), 1e6, integer=True), "x": Slot((5000,), 1e3)}, 5)
    network = Network(agreement(NAME, 5, scheme="ckks"))
    sent = contributions(network, layout)
    found, wanted = network.sum(sent, layout).total, plain_total(sent, layout, network.agreement.holders)
    np.testing.assert_array_equal(found["n"], wanted["n"])
    off = np.abs(found["x"] - wanted["x"]).max()
    assert 0 < off <= 5 / 2 * 2.0**-36 * 2.0**11  # limit 1e3 < 2^10; totals of a slot reach twice that power


def test_ckks_loses_nothing_in_words_of_32_bits() -> None:
    layout = Layout({"update": Slot((4000,), 10.0), "weight": Slot((), 1e4, integer=True)}, 3, narrow=True)
    network = Network(agreement(NAME, 3, scheme="ckks"))
    sent = contributions(network, layout)
    assert_exact(network.sum(sent, layout).total, plain_total(sent, layout, network.agreement.holders))


def test_the_key_holder_returns_rounded_ckks_totals_without_noise_in_them() -> None:
    plane = planes.Plane("ckks")
    context = plane.create()
    numbers = np.random.default_rng(0).integers(-(2**35), 2**35, 6000)
    blob = plane.add(context, [(name, plane.encrypt(context, numbers)) for name in "ab"], 6000)
    assert (plane.decrypt(context, blob, 6000) == 2 * numbers).all()


@pytest.mark.parametrize(
    ("layout", "reason"),
    [
        (NARROW, "a sum of whole numbers, which has to be exact; want bfv"),
        (WIDE, "entries that have no bound, or so wide ones that its steps are too coarse; want bfv"),
        (Layout({"n": Slot((), 2.0**40, integer=True), "x": Slot((), 1.0)}, 3), "n: got whole numbers beyond 2\\^36"),
    ],
)
def test_ckks_is_refused_where_rounding_is_not_acceptable(layout: Layout, reason: str) -> None:
    network = Network(agreement(NAME, 3, scheme="ckks"))
    with pytest.raises(UsageError, match=reason):
        network.sum(contributions(network, layout), layout)
    assert not network.transcript
    with pytest.raises(UsageError, match=reason):
        coarse(layout)


def test_partial_encryption_shows_other_layers_and_hides_the_last_one_and_the_weight() -> None:
    layout = Layout({"update": Slot((50,), 10.0, update=True), "weight": Slot((), 1e4, integer=True)}, 3, narrow=True)
    network = Network(agreement(NAME, 3, last_layer=8))
    sent = contributions(network, layout)
    found = network.sum(sent, layout)
    assert_exact(found.total, plain_total(sent, layout, found.holders))
    packets = {party: packet for stage, party, packet in network.transcript if stage == "contribute"}
    for name, packet in packets.items():
        np.testing.assert_array_equal(np.asarray(packet["clear"]), layout.encode(sent[name])[:42])
    opened = network.transcript[-1][2]
    assert np.asarray(opened["sum"]).shape == (1, 9 + 2)  # and two checks


@pytest.mark.parametrize("scheme", ["bfv", "ckks"])
@pytest.mark.parametrize(("update", "weight"), [("update", "weight"), ("weight", "update"), ("z", "a"), ("x", "x.y")])
def test_what_is_encrypted_does_not_follow_from_the_names_of_slots(update: str, weight: str, scheme: str) -> None:
    slots = {update: Slot((6,), 10.0, update=True), weight: Slot((), 1e4, integer=True)}
    layout = Layout(slots, 3, narrow=True)
    network = Network(agreement(NAME, 3, last_layer=2, scheme=scheme))
    sent = contributions(network, layout)
    found = network.sum(sent, layout)
    assert_exact(found.total, plain_total(sent, layout, found.holders))
    packets = {party: packet for stage, party, packet in network.transcript if stage == "contribute"}
    for name, packet in packets.items():
        leading = layout.encode(sent[name])[layout.places[update]][:4]
        np.testing.assert_array_equal(np.asarray(packet["clear"]), leading)


@pytest.mark.parametrize(
    ("layout", "last", "reason"),
    [
        (MIXED, 2, "got a sum that is not a model update"),
        (Layout({"gradient": Slot((9,), 1e6, True)}, 3), 2, "got a sum that is not a model update"),
        (Layout({"update": Slot((9,), 1.0), "weight": Slot((), 9.0, True)}, 3), 2, "got a sum that is not a model"),
        (Layout({n: Slot((9,), 1.0, update=True) for n in "ab"}, 3), 2, "got a sum that is not a model update"),
        (Layout({"update": Slot((9,), 1.0, update=True)}, 3), 9, "got 9 of 9 entries"),
    ],
)
def test_partial_encryption_is_refused_where_it_makes_no_sense(layout: Layout, last: int, reason: str) -> None:
    network = Network(agreement(NAME, 3, last_layer=last))
    with pytest.raises(UsageError, match=f"last_layer: {reason}"):
        network.sum(contributions(network, layout), layout)
    with pytest.raises(UsageError, match=f"last_layer: {reason}"):
        network.parties["h001"].contribute({}, contribution(layout, np.random.default_rng(0)), layout)


# What is refused before anything is asked


def test_paillier_is_refused_with_its_cost_and_the_nearest_choice() -> None:
    with pytest.raises(UsageError, match=r"660,000 times .* 9 minutes and 528,000 times the size; want bfv"):
        named_protection(NAME, {"scheme": "paillier"})


@pytest.mark.parametrize("options", [{"scheme": "rsa"}, {"last_layer": -1}, {"key_holder": "Key Holder"}, {"keys": 1}])
def test_unknown_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="want"):
        named_protection(NAME, options)


def test_a_holder_cannot_be_the_key_holder() -> None:
    with pytest.raises(UsageError, match="key_holder: got h001, a holder; want a party that holds no data"):
        Network(agreement(NAME, 3, key_holder="h001"))


def test_more_holders_than_the_noise_allows_are_refused() -> None:
    few = agreement(NAME, 3)
    many = replace(few, holders=tuple(f"h{i}" for i in range(planes.MOST_HOLDERS + 1)))
    with pytest.raises(UsageError, match="the noise of more ciphertexts would spoil the sum"):
        he.coordinator(many)


def test_without_the_library_both_halves_say_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    run = agreement(NAME, 3)
    monkeypatch.setitem(sys.modules, "tenseal", None)
    with pytest.raises(UsageError, match=r"needs TenSEAL: pip install 'statfed\[he\]'"):
        Network(run)
    with pytest.raises(UsageError, match=r"needs TenSEAL: pip install 'statfed\[he\]'"):
        he.coordinator(run)


def test_no_secret_is_shown() -> None:
    network = Network(agreement(NAME, 3))
    network.sum(contributions(network, NARROW), NARROW)
    for party in network.parties.values():
        assert "_key" not in repr(party)
        assert "_shared" not in repr(party)
        assert "joined" not in repr(party)


# Who learns what


def query(**protection: Any) -> Terms:
    held = ("h1", "h2", "h3")
    return Terms(
        method="count", codebook=CODEBOOK, holders=held, seed=1, protection=Protection(name=NAME, **protection)
    )


def rows(terms: Any) -> dict[str, str]:
    return {f"{row.role}: {row.learns}": row.protected_by for row in he.learns(terms)}


def test_each_role_has_its_row_and_ckks_and_partial_encryption_say_what_they_give_up() -> None:
    exact, rounded = rows(query()), rows(query(options={"scheme": "ckks"}))
    roles = {row.role for row in he.learns(query())}
    assert roles >= {"coordinator", "key holder", "coordinator with the key holder", "other holders", "result party"}
    assert "key holder: sizes, and who contributed to every sum; no total" in exact
    assert "key holder: every sum of contributions, sizes, and who contributed" in rounded
    assert any("if the coordinator follows the protocol" in text for text in rounded.values())
    assert not any("if the coordinator follows the protocol" in text for text in exact.values())
    partial = rows(toy_terms(holders=3, protection={"name": NAME, "options": {"last_layer": 30}}))
    assert any(key.startswith("coordinator: partial: each holder's other layers") for key in partial)


def test_noise_is_named_where_it_protects_and_central_noise_does_not_cover_a_ckks_key_holder() -> None:
    private = query(options={"scheme": "ckks"}).model_copy(update={"privacy": Privacy(epsilon=1.0, noise="central")})
    seen = rows(private)
    assert seen["key holder: every sum of contributions, sizes, and who contributed"].startswith("trust alone")
    local = rows(private.model_copy(update={"privacy": Privacy(epsilon=1.0)}))
    assert "epsilon 1" in local["coordinator with the key holder: every holder's contribution to every sum"]


def test_partial_encryption_of_a_statistic_is_an_obstacle_before_the_run() -> None:
    assert any("last_layer" in str(one) for one in obstacles(query(options={"last_layer": 3})))
    assert not obstacles(query())
    with pytest.raises(UsageError, match="last_layer: got a statistic"):
        he.learns(query(options={"last_layer": 3}))


# The whole path


def test_analyses_through_the_whole_path_equal_plain() -> None:
    holders = {f"holder-{i}": frame for i, frame in enumerate(split(people(300, 1), 3, seed=4))}
    plain = Federation(holders, CODEBOOK, seed=1)
    hidden = Federation(holders, CODEBOOK, seed=1, protection=NAME)
    asks: dict[str, dict[str, Any]] = {"count": {}, "glm": {"formula": "employed ~ age + sex", "family": "binomial"}}
    for name, options in asks.items():
        wanted, found = plain.ask(name, **options), hidden.ask(name, **options)
        assert found.tables
        assert list(found.tables) == list(wanted.tables)
        for table in wanted.tables:
            for mine, theirs in zip(found.tables[table], wanted.tables[table], strict=True):
                for key, value in theirs.items():
                    near = pytest.approx(value, rel=1e-9, abs=1e-9) if isinstance(value, float) else value
                    assert mine[key] == near, (name, table, key)
    assert hidden.last is not None
    assert "key holder" in {row.role for row in hidden.last.learns}


def test_training_encrypted_wholly_partly_or_under_ckks_gives_the_same_model_as_in_clear(tmp_path: Path) -> None:
    def model(number: int, **protection: Any) -> NDArray[np.float64]:
        data = {"source": "generated", "persons": 4, "records_per_person": 10, "test_persons": 4}
        options = {"rounds": 2, "model": {"hidden": 8}, "batch_size": 16}
        study = {"method": "local-sgd", "scenario": "time-use", "holders": 3, "options": options, "data": data}
        answer = run_study(
            make_study(study | {"protection": protection, "seed": 1}),
            Options(workspace=tmp_path / f"{number}", references=False),
        )
        return np.asarray(answer.result.arrays["model"])

    clear, whole = model(0, name="plain"), model(1, name=NAME)
    np.testing.assert_allclose(whole, clear, atol=1e-5)
    np.testing.assert_array_equal(model(2, name=NAME, options={"last_layer": 20}), whole)
    np.testing.assert_array_equal(model(3, name=NAME, options={"scheme": "ckks"}), whole)
