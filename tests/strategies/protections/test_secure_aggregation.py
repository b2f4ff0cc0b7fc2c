"""Secure aggregation: totals are exact, whoever drops out and when, and uploads look like noise."""

import itertools
import json
import math
import os
import time
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any, Literal

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from statfed.core.errors import EngineError, Refused, UsageError
from statfed.core.fixed_point import Layout, Slot
from statfed.core.identity import Identity
from statfed.core.method import Arrays, Ask
from statfed.core.protection import Packet, Stage, conduct
from statfed.core.resolve import resolve
from statfed.core.terms import Terms
from statfed.strategies.protections import secure_aggregation
from statfed.strategies.protections._secagg_graph import Graph, Shape, _bounds, _tail, least_width
from statfed.strategies.protections._secagg_words import _PIECE, add, mask, subtract, to_numbers, to_words
from tests.conftest import toy_terms
from tests.protocol import Network, agreement, identities

BITS: tuple[Literal[32, 64, 192], ...] = (32, 64, 192)
LAYOUTS = {
    32: {"n": Slot((3,), 2.0**29, integer=True)},
    64: {"x": Slot((2, 3), 1e6), "n": Slot((), 1e12, integer=True)},
    192: {"score": Slot((4,), math.inf), "n": Slot((2,), 2.0**40, integer=True)},
}


def contributions(layout: Layout, names: Collection[str], seed: int = 0) -> dict[str, dict[str, NDArray[Any]]]:
    """Values all over each holder's share of the range."""
    rng = np.random.default_rng(seed)
    made: dict[str, dict[str, NDArray[Any]]] = {}
    for name in names:
        made[name] = {}
        for key, slot in layout.slots.items():
            limit = np.where(np.isfinite(slot.limit), slot.limit, 1e12) / layout.holders
            values = rng.uniform(-1, 1, slot.shape) * limit
            made[name][key] = np.asarray(np.trunc(values).astype(np.int64) if slot.integer else values)
    return made


def reference(layout: Layout, given: Mapping[str, Arrays], names: Collection[str]) -> Arrays:
    """The obvious sum: Python's integers."""
    share = layout.for_holder(1 / layout.holders)
    rows = [[int(x) for x in share.encode(given[name])] for name in names]
    total = [sum(column) for column in zip(*rows, strict=True)]
    return layout.decode(np.array(total, object if layout.bits == 192 else np.int64))


def same(found: Arrays, wanted: Arrays) -> bool:
    return set(found) == set(wanted) and all(np.array_equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(
    ("holders", "minimum"), [(2, None), (3, None), (5, None), (12, None), (4, 3), (5, 4), (7, 5), (12, 9)]
)
def test_the_total_is_the_plain_sum_to_the_bit(bits: int, holders: int, minimum: int | None) -> None:
    layout = Layout(LAYOUTS[bits], holders)
    assert layout.bits == bits
    network = Network(agreement("secure-aggregation", holders, minimum=minimum))
    for seed in range(3):
        given = contributions(layout, network.agreement.holders, seed)
        found = network.sum(given, layout)
        assert same(found.total, reference(layout, given, given))
        assert found.holders == network.agreement.holders


@settings(max_examples=25, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(0, 4), max_size=3).map(tuple), min_size=1, max_size=4),
    whole=st.lists(st.booleans(), min_size=4, max_size=4),
    exponents=st.lists(st.integers(0, 29), min_size=4, max_size=4),
    seed=st.integers(0, 1000),
    minimum=st.sampled_from([3, 4]),
    narrow=st.booleans(),
)
def test_any_layout_is_summed_exactly(
    shapes: list[tuple[int, ...]], whole: list[bool], exponents: list[int], seed: int, minimum: int, narrow: bool
) -> None:
    slots = {f"s{i}": Slot(shape, 2.0 ** exponents[i], whole[i]) for i, shape in enumerate(shapes)}
    layout = Layout(slots, 4, narrow=narrow)
    network = Network(agreement("secure-aggregation", 4, minimum=minimum, sums=1))
    given = contributions(layout, network.agreement.holders, seed)
    assert same(network.sum(given, layout).total, reference(layout, given, given))


@pytest.mark.parametrize("minimum", [5, 4])
def test_model_updates_are_summed_in_32_bit_words(minimum: int) -> None:
    study = resolve(terms(5))
    fit, norm = Ask("fit"), study.question.options.update_norm
    layout = study.layout(fit, study.parts(fit), None, dict.fromkeys(study.holders, 100))
    assert layout.bits == 32
    network = Network(agreement("secure-aggregation", 5, minimum=minimum))
    rng = np.random.default_rng(1)
    given = {}
    for name in network.agreement.holders:
        update = rng.normal(size=layout.slots["update"].shape)
        update *= norm / np.linalg.norm(update)
        given[name] = {"update": 100 * update, "weight": np.array(100)}
    found = network.sum(given, layout).total
    assert same(found, reference(layout, given, given))
    plain = sum(arrays["update"] for arrays in given.values())
    assert np.abs(found["update"] - plain).max() < 2.0**-25 * 500 * norm
    assert int(found["weight"]) == 500


def terms(holders: int, minimum: int | None = None) -> Terms:
    """A training study under this protection."""
    names = tuple(f"h{i}" for i in range(holders))
    return toy_terms(holders=names, protection={"name": "secure-aggregation", "minimum_holders": minimum})


# --- dropout

STAGES = ("keys", "share", "upload", "roster", "unmask")
LAYOUT = Layout(LAYOUTS[64], 5)


@pytest.mark.parametrize("when", STAGES)
@pytest.mark.parametrize("gone", ["h001", "h003", "h005"])
def test_one_of_five_may_drop_out_at_any_stage(when: str, gone: str) -> None:
    network = Network(agreement("secure-aggregation", 5, minimum=4, sums=2), drops={when: [gone]})
    given = contributions(LAYOUT, network.agreement.holders)
    after = STAGES.index(when) > STAGES.index("upload")  # its upload had arrived
    for turn in range(5):
        found = network.sum(given, LAYOUT)
        kept = [name for name in given if name != gone or (after and turn % 2 == 0)]  # a new setup asks all again
        assert found.holders == tuple(kept)
        assert same(found.total, reference(LAYOUT, given, kept))


def test_two_of_seven_may_drop_out_at_any_two_stages() -> None:
    layout = Layout(LAYOUTS[32], 7)
    for first, second in itertools.product(STAGES, repeat=2):
        drops: dict[str, list[str]] = {first: ["h002"]}
        drops.setdefault(second, []).append("h006")
        network = Network(agreement("secure-aggregation", 7, minimum=5, sums=1), drops=drops)
        given = contributions(layout, network.agreement.holders)
        late = {"h002": first, "h006": second}
        kept = [name for name in given if STAGES.index(late.get(name, "unmask")) > STAGES.index("upload")]
        found = network.sum(given, layout)
        assert found.holders == tuple(kept)
        assert same(found.total, reference(layout, given, kept))


@pytest.mark.parametrize("when", STAGES)
def test_below_the_threshold_there_is_no_total_and_the_missing_are_named(when: str) -> None:
    network = Network(agreement("secure-aggregation", 5, minimum=4), drops={when: ["h002", "h004"]})
    with pytest.raises(EngineError, match=f"{when}: no answer from h002, h004; .* got 3; want at least 4") as caught:
        network.sum(contributions(LAYOUT, network.agreement.holders), LAYOUT)
    assert "No total was formed" in str(caught.value)
    said = [packet for stage, _, packet in network.transcript if stage == "unmask"]
    assert not said or (when == "unmask" and len(said) < 4)  # too few shares for any secret


@pytest.mark.parametrize("when", ["keys", "upload"])
def test_where_every_holder_is_needed_one_missing_ends_the_sum(when: str) -> None:
    network = Network(agreement("secure-aggregation", 4), drops={when: ["h003"]})
    with pytest.raises(EngineError, match=f"{when}: no answer from h003; want every holder"):
        network.sum(contributions(Layout(LAYOUTS[32], 4), network.agreement.holders), Layout(LAYOUTS[32], 4))


def test_a_sum_that_failed_for_want_of_an_answer_can_be_asked_for_again() -> None:
    layout = Layout(LAYOUTS[64], 3)
    network = Network(agreement("secure-aggregation", 3))
    given = contributions(layout, network.agreement.holders)
    network.drops = {"upload": ["h002"]}
    with pytest.raises(EngineError):
        network.sum(given, layout)
    network.drops = {}
    assert same(network.sum(given, layout).total, reference(layout, given, given))


def test_a_holder_that_was_away_or_restarted_is_in_again_after_the_next_setup() -> None:
    network = Network(agreement("secure-aggregation", 5, minimum=4, sums=2), tolerant=True)
    given = contributions(LAYOUT, network.agreement.holders)
    assert len(network.sum(given, LAYOUT).holders) == 5
    module, ours = secure_aggregation, network.agreement
    network.parties["h004"] = module.party(ours, network.parties["h004"]._identity)  # type: ignore[attr-defined]
    assert network.sum(given, LAYOUT).holders == ("h001", "h002", "h003", "h005")
    assert "started after the setup" in network.refused["h004"]
    assert len(network.sum(given, LAYOUT).holders) == 5


def test_a_setup_provides_for_so_many_sums_and_then_renews_itself() -> None:
    network = Network(agreement("secure-aggregation", 5, minimum=4, sums=3))
    for seed in range(10):
        given = contributions(LAYOUT, network.agreement.holders, seed)
        assert same(network.sum(given, LAYOUT).total, reference(LAYOUT, given, given))
    stages = [stage for stage, name, _ in network.transcript if name == "h001"]
    assert stages[:2] == ["keys", "share"]
    assert stages.count("keys") == 4
    assert len(stages) == 4 * 2 + 10 * 3


def test_without_dropout_a_sum_after_the_first_is_one_message() -> None:
    network = Network(agreement("secure-aggregation", 5))
    for seed in range(4):
        network.sum(contributions(LAYOUT, network.agreement.holders, seed), LAYOUT)
    assert [stage for stage, name, _ in network.transcript if name == "h001"] == ["keys", *["upload"] * 4]


# --- rings


def ringed(**more: Any) -> Network:
    return Network(agreement("secure-aggregation", 40, minimum=32, colluders=4, neighbours=28, sums=2, **more))


def test_forty_holders_on_a_ring_with_dropout_at_every_stage() -> None:
    layout = Layout(LAYOUTS[64], 40)
    network = ringed()
    names = network.agreement.holders
    network.drops = {
        "commit": [names[3]],
        "keys": [names[7]],
        "share": [names[11]],
        "upload": [names[15]],
        "unmask": [names[19]],
    }
    given = contributions(layout, names)
    found = network.sum(given, layout)
    kept = [name for i, name in enumerate(names) if i not in (3, 7, 11, 15)]
    assert found.holders == tuple(kept)
    assert same(found.total, reference(layout, given, kept))
    graph = network.coordinator._graph  # type: ignore[union-attr]
    assert graph.width == 14
    assert len(graph.ring) == 38


def test_everybody_draws_the_same_ring_and_every_setup_another() -> None:
    layout = Layout(LAYOUTS[32], 40)
    network = ringed()
    given = contributions(layout, network.agreement.holders)
    rings = []
    for _ in range(3):  # two sums a setup
        network.sum(given, layout)
        known = {party._graph.ring for party in network.parties.values()}  # type: ignore[attr-defined]
        assert known == {network.coordinator._graph.ring}  # type: ignore[union-attr]
        rings.append(known.pop())
    assert rings[0] == rings[1] != rings[2]
    assert set(rings[0]) == set(rings[2])


def test_the_bounds_are_the_hypergeometric_tails() -> None:
    for population, marked, drawn in ((40, 4, 14), (200, 66, 93), (300, 0, 10), (50, 49, 20)):
        found = _tail(population, marked, drawn)
        wanted = stats.hypergeom.sf(np.arange(drawn + 2) - 1, population, marked, drawn)
        assert found == pytest.approx(wanted, rel=1e-8, abs=1e-25)
    for members, minimum, colluders in ((100, 80, 10), (300, 240, 30), (200, 160, 66)):
        width = least_width(members, minimum, colluders)
        quorum, threshold = _bounds(members, colluders, width)
        runs = stats.hypergeom.sf(quorum - 1, members, colluders, width) * members * 256
        keepers = stats.hypergeom.sf(threshold - 1, members - 1, colluders, 2 * width) * members * 256
        assert runs + keepers <= 2.0**-40
        assert threshold <= 2 * quorum


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(20, 60), st.integers(2, 8))
def test_survivors_that_pass_leave_the_honest_connected(rnd: Any, size: int, width: int) -> None:
    """The claim that the ring's check rests on, against a search: any loss that the check lets pass."""
    ring = tuple(f"p{i}" for i in range(size))
    quorum = rnd.randint(1, width)
    graph = Graph(ring, minimum=2, threshold=1, width=width, quorum=quorum)
    corrupt: set[str] = set()
    for name in rnd.sample(ring, size):  # as many as fit without `quorum` of them in any row
        tried = corrupt | {name}
        rows = (sum(ring[(i + j) % size] in tried for j in range(width)) for i in range(size))
        if max(rows) < quorum:
            corrupt = tried
    kept = set(ring)
    for name in rnd.sample(ring, size):  # drop honest ones as long as the check passes
        if name not in corrupt and not graph.obstacle(kept - {name}):
            kept -= {name}
    honest = kept - corrupt
    reached = {next(iter(honest))}
    while True:
        more = {n for name in reached for n in graph.neighbours(name) if n in honest} | reached
        if more == reached:
            break
        reached = more
    assert reached == honest


def test_few_neighbours_are_refused_and_large_federations_get_as_many_as_it_takes() -> None:
    with pytest.raises(UsageError, match="neighbours: got 6; want at least 26 for 40 holders"):
        secure_aggregation.coordinator(agreement("secure-aggregation", 40, minimum=32, colluders=4, neighbours=6))
    assert not Shape(32, 22, 3).rings
    assert 2 * Shape(100, 80, 10).width(100) == 54
    assert not Shape(100, 67, 33).rings  # with a third of a hundred against the others, everybody is needed


# --- masks


@pytest.mark.parametrize("bits", BITS)
def test_words_of_the_ring_add_and_subtract_like_numbers(bits: Literal[32, 64, 192]) -> None:
    rng = np.random.default_rng(3)
    edge = 1 << (bits - 1)
    first = [
        -edge,
        edge - 1,
        -1,
        0,
        1,
        *(int.from_bytes(rng.bytes(24), "little") % (2 * edge) - edge for _ in range(99)),
    ]
    second = first[::-1]

    def words(numbers: list[int]) -> NDArray[Any]:
        return to_words(np.array(numbers, object if bits == 192 else np.int64), bits).copy()

    def wrapped(number: int) -> int:
        return (number + edge) % (2 * edge) - edge

    total, rest = words(first), words(first)
    assert to_numbers(total, bits).tolist() == first
    add(total, words(second))
    subtract(rest, words(second))
    pairs = list(zip(first, second, strict=True))
    assert to_numbers(total, bits).tolist() == [wrapped(a + b) for a, b in pairs]
    assert to_numbers(rest, bits).tolist() == [wrapped(a - b) for a, b in pairs]


@pytest.mark.parametrize("bits", BITS)
def test_masks_are_the_keystreams_whole_also_across_pieces(bits: Literal[32, 64, 192]) -> None:
    width = bits // 8
    entries = 2 * _PIECE // width + 7
    keys = [(os.urandom(16), False), (os.urandom(16), True), (os.urandom(16), True)]
    found = to_words(np.zeros(entries, object if bits == 192 else np.int64), bits).copy()
    mask(found, keys)
    wanted = np.zeros_like(found)
    for key, minus in keys:
        stream = Cipher(algorithms.AES128(key), modes.CTR(bytes(16))).encryptor().update(bytes(entries * width))
        (subtract if minus else add)(wanted, np.frombuffer(stream, found.dtype).reshape(found.shape))
    assert np.array_equal(found, wanted)
    mask(found, [(key, not minus) for key, minus in keys])
    assert not found.any()


@pytest.mark.parametrize("minimum", [3, None])
@pytest.mark.parametrize("bits", BITS)
def test_uploads_look_uniform_even_of_zeros(bits: int, minimum: int | None) -> None:
    """Every byte of every upload, and of every difference of two, is uniform: chi-square over 256 values."""
    slot = {32: Slot((30_000,), 1.0, integer=True), 64: Slot((30_000,), 1.0), 192: Slot((5_000,), math.inf)}[bits]
    network = Network(agreement("secure-aggregation", 4, minimum=minimum))
    layout = Layout({"x": slot}, 4)
    zeros = {"x": np.zeros(slot.shape, np.int64 if slot.integer else np.float64)}
    for _ in range(2):
        network.sum(dict.fromkeys(network.agreement.holders, zeros), layout)
    uploads = [np.asarray(packet["words"]) for stage, _, packet in network.transcript if stage == "upload"]
    assert len(uploads) == 8
    seen = [*uploads, *(a - b for a, b in itertools.combinations(uploads, 2))]
    values = [stats.chisquare(np.bincount(words.reshape(-1).view(np.uint8), minlength=256)).pvalue for words in seen]
    assert min(values) > 1e-7  # 36 tests


def test_uploads_of_the_same_data_have_nothing_in_common_between_sums_or_runs() -> None:
    layout = Layout(LAYOUTS[64], 4)
    seen = set()
    for minimum, run in itertools.product((None, 3), ("one", "two")):
        network = Network(agreement("secure-aggregation", 4, minimum=minimum, run=run))
        given = contributions(layout, network.agreement.holders)
        for _ in range(3):
            network.sum(given, layout)
        uploads = [packet["words"] for stage, _, packet in network.transcript if stage == "upload"]
        seen |= {int(word) for words in uploads for word in np.asarray(words)}
    assert len(seen) == 4 * 3 * 4 * layout.entries


# --- what cannot be set up, and packets that are not understood


@pytest.mark.parametrize(
    ("holders", "minimum", "options", "wanted"),
    [
        (6, 4, {}, "more than two thirds"),
        (1, 1, {}, "two or more"),
        (5, 4, {"colluders": 3}, "colluders: got 3; want at most 2"),
    ],
)
def test_numbers_with_which_it_would_not_hold_are_refused_at_both_ends(
    holders: int, minimum: int, options: dict[str, Any], wanted: str
) -> None:
    ours = agreement("secure-aggregation", holders, minimum=minimum, **options)
    with pytest.raises(UsageError, match=wanted):
        secure_aggregation.coordinator(ours)
    with pytest.raises(Refused, match=wanted):
        secure_aggregation.party(ours, Identity.ephemeral("h001"))


GARBAGE: list[Packet] = [
    {},
    {"body": b""},
    {"body": b"\xff\x00"},
    {"body": b"[]"},
    {"body": b'{"number": 1}'},
    {"body": np.zeros(3)},
    {"body": b'{"key": "zz"}', "words": np.zeros(3, np.uint64), "shares": np.zeros((1, 1), np.uint8)},
    {"body": b'{"request": "' + b"0" * 64 + b'"}', "words": np.zeros(3, np.float64)},
    {"body": b'{"seeds": {}, "masks": {}}'},
    {"body": b'{"seeds": {"h001": "' + b"f" * 66 + b'"}, "masks": {}}'},
]


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize(("minimum", "stages"), [(4, STAGES), (None, ("keys", "upload"))])
def test_an_answer_that_is_not_understood_is_an_error_that_names_its_sender(
    minimum: int | None, stages: tuple[str, ...], garbage: Packet
) -> None:
    for wrong in stages:
        network = Network(agreement("secure-aggregation", 5, minimum=minimum))
        given = contributions(LAYOUT, network.agreement.holders)
        assert network.coordinator is not None
        rounds = network.coordinator.total(LAYOUT)

        def send(stage: Stage, wrong: str = wrong, network: Network = network, given: Any = given) -> Any:
            replies = {}
            for name, packet in stage.packets.items():
                party = network.parties[name]
                if stage.carries:
                    replies[name] = party.contribute(packet, given[name], LAYOUT.for_holder(0.2))
                else:
                    replies[name] = party.answer(stage.name, packet)
            return replies | ({"h002": garbage} if stage.name == wrong else {})

        if wrong == "unmask":  # one wrong revelation is survived
            assert same(conduct(rounds, send).total, reference(LAYOUT, given, given))
            continue
        with pytest.raises((EngineError, Refused), match="h002"):
            conduct(rounds, send)


@pytest.mark.parametrize(("liars", "formed"), [(1, True), (3, True), (4, False)])
def test_wrong_shares_are_left_out_where_enough_are_right_and_named_where_not(liars: int, formed: bool) -> None:
    network = Network(agreement("secure-aggregation", 10, minimum=7))
    wide = contributions(LAYOUT, network.agreement.holders)
    given = {name: {key: array // 4 for key, array in one.items()} for name, one in wide.items()}
    assert network.coordinator is not None
    wrong = network.agreement.holders[1 : 1 + liars]

    def send(stage: Stage) -> Any:
        replies = {}
        for name, packet in stage.packets.items():
            party = network.parties[name]
            if stage.carries:
                replies[name] = party.contribute(packet, given[name], LAYOUT.for_holder(0.2))
                continue
            replies[name] = party.answer(stage.name, packet)
            if stage.name == "unmask" and name in wrong:
                body = json.loads(bytes(replies[name]["body"]))
                body["seeds"] = {key: "00" + os.urandom(32).hex() for key in body["seeds"]}
                replies[name] = {"body": json.dumps(body).encode()}
        return replies

    rounds = network.coordinator.total(LAYOUT)
    if formed:
        assert same(conduct(rounds, send).total, reference(LAYOUT, given, given))
        return
    with pytest.raises(EngineError, match=r"shares about h\d+ do not give .* dealt wrong ones, or some of .*h002"):
        conduct(rounds, send)


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("minimum", [4, None])
def test_a_request_that_is_not_understood_is_refused(minimum: int | None, garbage: Packet) -> None:
    for stage in (*STAGES, "commit", "nonsense"):
        ours = agreement("secure-aggregation", 5, minimum=minimum)
        party = secure_aggregation.party(ours, identities(ours.holders)["h001"])
        given = contributions(LAYOUT, ours.holders)["h001"]
        call = partial(party.answer, stage, garbage)
        if stage == "upload":
            call = partial(party.contribute, garbage, given, LAYOUT.for_holder(0.2))
        with pytest.raises((Refused, EngineError)):
            call()


def test_nothing_secret_shows_when_a_party_is_printed() -> None:
    network = Network(agreement("secure-aggregation", 5, minimum=4))
    network.sum(contributions(LAYOUT, network.agreement.holders), LAYOUT)
    party = network.parties["h001"]
    secrets = party._secrets  # type: ignore[attr-defined]
    shown = repr(party) + repr(secrets) + repr(party._identity)  # type: ignore[attr-defined]
    for secret in (*secrets._seeds.values(), *secrets._masks.values()):
        assert secret.hex() not in shown
        assert repr(secret) not in shown
    assert len(shown) < 1000


def test_secrets_of_a_sum_are_gone_after_it() -> None:
    network = Network(agreement("secure-aggregation", 5, minimum=4, sums=3))
    given = contributions(LAYOUT, network.agreement.holders)
    for number in (1, 2):
        network.sum(given, LAYOUT)
        for party in network.parties.values():
            secrets = party._secrets  # type: ignore[attr-defined]
            later = set(range(number + 1, 4))
            assert set(secrets._seeds) == set(secrets._masks) == set(secrets._shares) == later


def test_who_learns_what_says_how_many_may_collude() -> None:
    rows = secure_aggregation.learns(terms(7))
    assert any("up to 2 holders" in row.role for row in rows)
    assert any("dropped out" in row.learns for row in rows)
    rows = secure_aggregation.learns(terms(7, minimum=7))
    assert any("up to 5 holders" in row.role for row in rows)
    assert not any("dropped out" in row.learns for row in rows)


def speed(entries: int, bits: Literal[32, 64], holders: int = 5, repeats: int = 5) -> dict[str, float]:
    """Milliseconds at one holder, medians of interleaved repetitions, to run by hand.

    floor: AES-128-CTR keystream of one mask for each other holder; mask: masking a vector; contribute: encoding it too.
    """
    layout = Layout({"x": Slot((entries,), 100.0)}, holders, narrow=bits == 32)
    network = Network(agreement("secure-aggregation", holders))
    values = {"x": np.random.default_rng(0).normal(size=entries)}
    given = dict.fromkeys(network.agreement.holders, values)
    own = layout.for_holder(1 / holders)
    spent: dict[str, list[float]] = {"floor": [], "mask": [], "contribute": []}
    network.sum(given, layout)
    zeros, buffer = bytes(_PIECE), bytearray(_PIECE + 15)
    for turn in range(repeats):
        keys = [(os.urandom(16), i % 2 == 0) for i in range(holders - 1)]
        started = time.perf_counter()
        for key, _ in keys:
            stream = Cipher(algorithms.AES128(key), modes.CTR(bytes(16))).encryptor()
            for start in range(0, entries * bits // 8, _PIECE):
                stream.update_into(memoryview(zeros)[: min(_PIECE, entries * bits // 8 - start)], buffer)
        spent["floor"].append(time.perf_counter() - started)
        words = to_words(own.encode(given["h001"]), layout.bits)
        started = time.perf_counter()
        mask(words, keys)
        spent["mask"].append(time.perf_counter() - started)
        upload = b'{"setup":1,"number":%d}' % (turn + 2)
        started = time.perf_counter()
        network.parties["h001"].contribute({"body": upload}, given["h001"], own)
        spent["contribute"].append(time.perf_counter() - started)
    return {name: 1e3 * float(np.median(times)) for name, times in spent.items()}
