"""The linkage unit's work against slow, obvious references: filters, comparison, assignment, estimates of quality."""

import hmac
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from statfed.core.errors import Refused
from statfed.scenarios._data.registers import registers
from statfed.strategies.linkages import _comparing
from statfed.strategies.linkages._comparing import (
    Candidates,
    Encoded,
    compare,
    leaning,
    one_to_one,
    repeated,
    two_best,
)
from statfed.strategies.linkages._encodings import LENGTH, Attribute, Encoder, Hardening, derived, grams_of, tags
from statfed.strategies.linkages._quality import BINS, assess, binned, grouped, halved
from tests.strategies.linkages.fuzzily import ATTRIBUTES, BLOCKS, keys_of, limits_held

SECRET = bytes(range(32))


def bits_of(words: NDArray[np.uint64]) -> NDArray[np.uint8]:
    return np.unpackbits(words.view(np.uint8), axis=1)


def plain_filter(value: str, attribute: Attribute, salt: str | None) -> set[int]:
    """One attribute's positions, as the module says it."""
    grams = sorted(set(grams_of(value, attribute)))
    each = max(1, round(attribute.bits / len(grams)))
    found = set()
    for gram in grams:
        text = (f"{len(salt)}:{salt}{gram}" if salt is not None else f":{gram}").encode()
        stream = b"".join(
            hmac.digest(derived(SECRET, "attribute a"), bytes([i]) + text, "sha256") for i in range(1 + each // 16)
        )
        found |= {int.from_bytes(stream[2 * i : 2 * i + 2], "little") % LENGTH for i in range(each)}
    return found


@pytest.mark.parametrize("hardening", ["none", "balanced", "fold", "rule90"])
@pytest.mark.parametrize("salted", [False, True])
def test_a_filter_has_other_bits_than_its_definition(hardening: Hardening, salted: bool) -> None:
    attribute = Attribute(bits=60)
    encoder = Encoder(SECRET, {"a": attribute}, "s" if salted else "", hardening)
    made = bits_of(encoder.encode({"a": ["smith", "o", None], "s": ["1990", None, "1"]}))
    assert made.shape == (3, encoder.words * 64)
    for row, (value, salt) in enumerate([("smith", "1990"), ("o", None), (None, "1")]):
        want = np.zeros(LENGTH, np.uint8)
        if value is not None:
            want[sorted(plain_filter(value, attribute, salt if salted else None))] = 1
        if hardening == "none":
            assert (made[row] == want).all()
        elif hardening == "fold":
            assert all(made[row, i] == (want[i] + want[i + LENGTH // 2]) % 2 for i in range(LENGTH // 2))
        elif hardening == "rule90":
            assert all(made[row, i] == (want[i - 1] + want[(i + 1) % LENGTH]) % 2 for i in range(LENGTH))
        else:
            assert made[row].sum() == LENGTH
            assert (made[0] != made[1]).sum() % 2 == 0


def test_grams_lose_their_ends_or_places() -> None:
    assert grams_of("abab", Attribute()) == sorted({"\x02a", "ab", "ba", "b\x02"})
    assert grams_of("11", Attribute(q=1, positional=True)) == ["0 1", "1 1"]


def test_encodings_or_tags_of_another_secret_or_attribute_are_alike() -> None:
    one = Encoder(SECRET, {"a": Attribute(bits=200)}, hardening="none")
    other = Encoder(SECRET[::-1], {"a": Attribute(bits=200)}, hardening="none")
    a, b = (bits_of(encoder.encode({"a": ["robinson"]}))[0] for encoder in (one, other))
    assert 2 * int((a & b).sum()) / int(a.sum() + b.sum()) < 0.4
    values: dict[str, list[str | None]] = {"x": ["1", "2", None], "y": ["1", "1", "1"]}
    made = tags(SECRET, values)
    assert made[0, 1] == made[1, 1] == made[2, 1]
    assert made[2, 0] == 0
    assert len({int(made[0, 0]), int(made[1, 0]), int(made[0, 1]), int(tags(SECRET[::-1], values)[0, 0])}) == 4
    assert str(SECRET) not in repr(one)


def test_flipped_bits_are_the_same_for_one_record_twice() -> None:
    encoder = Encoder(SECRET, {"a": Attribute(bits=200)}, flip=0.1)
    made = bits_of(encoder.encode({"a": ["robinson"] * 200}))
    turned = (made != bits_of(Encoder(SECRET, {"a": Attribute(bits=200)}).encode({"a": ["robinson"]}))).mean()
    assert len(np.unique(made, axis=0)) == 200
    assert abs(turned - 0.1) < 0.01


@pytest.fixture(scope="module")
def encoded() -> tuple[Encoded, Encoded]:
    sides = []
    for register in registers(90, 0.7, 0.2, 5):
        keys = keys_of(register)
        attributes = {name: Attribute.model_validate(one) for name, one in ATTRIBUTES.items()}
        sides.append(
            Encoded(Encoder(SECRET, attributes).encode(keys), tags(SECRET, {part: keys[part] for part in BLOCKS}))
        )
    return sides[0], sides[1]


@pytest.mark.parametrize(("small", "tile", "listed"), [(2048, 1024, 8192), (0, 7, 9), (20, 3, 50), (10**6, 1, 5)])
def test_a_pair_is_missed_or_compared_twice(
    encoded: tuple[Encoded, Encoded], monkeypatch: pytest.MonkeyPatch, small: int, tile: int, listed: int
) -> None:
    for name, value in (("_SMALL", small), ("_TILE", tile), ("_LISTED", listed)):
        monkeypatch.setattr(_comparing, name, value)
    a, b = encoded
    sets = [[frozenset(np.flatnonzero(row).tolist()) for row in bits_of(side.encodings)] for side in encoded]
    want = {
        (i, j): np.float32(2 * len(one & other)) / np.float32(len(one) + len(other))
        for i, one in enumerate(sets[0])
        for j, other in enumerate(sets[1])
        if any(x == y != 0 for x, y in zip(a.tags[i].tolist(), b.tags[j].tolist(), strict=True))
    }
    found = compare(a, b, 0.5, 10**6, 10**6)
    assert found.offered.tolist() == [sum(pair[0] == i for pair in want) for i in range(len(a.tags))]
    got = dict(zip(zip(found.left.tolist(), found.right.tolist(), strict=True), found.score.tolist(), strict=True))
    assert len(got) == len(found.left)
    assert got == {pair: score for pair, score in want.items() if score >= 0.5}
    best, second = two_best(found)
    for i in range(len(a.tags)):
        scores = sorted((score for pair, score in got.items() if pair[0] == i), reverse=True)
        assert [best[i], second[i]] == [*scores, 0.0, 0.0][:2]
    ranks = [{j: -score for (own, j), score in got.items() if own == i} for i in range(len(a.tags))]
    near = Counter(
        j
        for i in range(len(a.tags))
        for j in sorted((pair[1] for pair in got if pair[0] == i), key=ranks[i].__getitem__)[:2]
    )
    assert leaning(found) == pytest.approx(max(near.values()), abs=1)  # ties may go either way
    assert repeated(a) == max(
        Counter((*e, *t) for e, t in zip(a.encodings.tolist(), a.tags.tolist(), strict=True)).values()
    )


def test_more_pairs_than_agreed_are_compared_or_kept(encoded: tuple[Encoded, Encoded]) -> None:
    a, b = encoded
    with pytest.raises(Refused, match="more than the agreed 100 pairs to compare"):
        compare(a, b, 0.5, 100, 10**6)
    with pytest.raises(Refused, match="more than the agreed 10 pairs at or above"):
        compare(a, b, 0.1, 10**6, 10)


def test_registers_without_a_common_block_fail(encoded: tuple[Encoded, Encoded]) -> None:
    a, b = encoded
    found = compare(a, Encoded(b.encodings, b.tags + np.uint64(1)), 0.5, 10**6, 10**6)
    assert (int(found.offered.sum()), len(found.left)) == (0, 0)
    assert len(one_to_one(found, len(a.tags), len(b.tags))[0].left) == 0
    assert not two_best(found)[0].any()


def plain_assignment(pairs: list[tuple[int, int, float]]) -> tuple[set[tuple[int, int]], int]:
    """Greedy by descending score, records of undecided ties taken out."""
    chosen: set[tuple[int, int]] = set()
    undecided = 0
    while pairs:
        sure: list[tuple[int, int]] = []
        tied: list[tuple[int, int]] = []
        for i, j, score in pairs:
            rivals = [other for k, m, other in pairs if (k == i) != (m == j)]
            if score == max([score, *rivals]):
                (tied if score in rivals else sure).append((i, j))
        gone = sure or tied
        chosen |= set(sure)
        if not sure:
            undecided += len({i for i, _ in gone}) + len({j for _, j in gone})
        rows, columns = {i for i, _ in gone}, {j for _, j in gone}
        pairs = [pair for pair in pairs if pair[0] not in rows and pair[1] not in columns]
    return chosen, undecided


@settings(deadline=None, max_examples=150)
@given(st.dictionaries(st.tuples(st.integers(0, 5), st.integers(0, 5)), st.integers(1, 4), max_size=20))
def test_assignment_differs_from_the_greedy_one(given_pairs: dict[tuple[int, int], int]) -> None:
    pairs = [(i, j, score / 4) for (i, j), score in given_pairs.items()]
    found = Candidates(
        np.array([i for i, _, _ in pairs], np.int64),
        np.array([j for _, j, _ in pairs], np.int64),
        np.array([score for _, _, score in pairs], np.float32),
        np.zeros(6, np.int64),
        np.zeros(6, np.int64),
    )
    links, undecided = one_to_one(found, 6, 6)
    got = set(zip(links.left.tolist(), links.right.tolist(), strict=True))
    assert (got, undecided) == plain_assignment(pairs)
    assert len({i for i, _ in got}) == len({j for _, j in got}) == len(got)


def test_a_tie_is_decided_by_a_coin() -> None:
    tied = Candidates(
        np.array([0, 0, 1]),
        np.array([0, 1, 2]),
        np.array([0.9, 0.9, 0.8], np.float32),
        np.array([2, 1]),
        np.ones(3, np.int64),
    )
    links, undecided = one_to_one(tied, 2, 3)
    assert (links.left.tolist(), links.right.tolist(), undecided) == ([1], [2], 3)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15)), min_size=1, max_size=25),
    st.integers(3, 10),
    st.integers(0, 24),
)
def test_a_released_count_is_below_the_minimum(rows: list[tuple[int, int]], minimum: int, at: int) -> None:
    counts = np.array(rows, np.int64).T
    at = min(at, len(rows) - 1)
    starts, groups = grouped(counts, minimum, at)
    assert ((groups == 0) | (groups >= minimum)).all()
    assert (np.diff(starts) > 0).all()
    if groups.size == 0:
        return
    assert starts[0] in (0, at)
    ends = [*starts[1:].tolist(), at if starts[-1] < at else len(rows)]
    for start, end, group in zip(starts.tolist(), ends, groups.T, strict=True):
        assert (counts[:, start:end].sum(1) == group).all()


def test_a_threshold_stands_between_two_bins() -> None:
    scores = (np.arange(BINS + 1) / BINS).astype(np.float32)
    assert binned(scores).tolist() == list(range(BINS + 1))
    assert binned(np.nextafter(scores[1:], np.float32(0))).tolist() == list(range(BINS))
    assert all(b > a for a, b in pairwise(scores.tolist()))


@pytest.mark.parametrize("matched", [1.0, 0.7, 0.3])
def test_quality_is_estimated_wrongly_where_the_truth_is_known(matched: float) -> None:
    """Scores drawn from the model: strangers Poisson in number and alike, partners scored apart from them."""
    random = np.random.default_rng(3)
    n, strangers = 4_000, 12
    partner = np.where(random.random(n) < matched, random.beta(24, 4, n), 0.0)
    scores = np.where(
        np.arange(3 * strangers) < random.poisson(strangers, n)[:, None], random.beta(9, 9, (n, 3 * strangers)), 0.0
    )
    top = np.sort(np.column_stack([partner, scores]), 1).astype(np.float32)
    best, second = top[:, -1], top[:, -2]
    right = best == partner.astype(np.float32)
    right &= partner > 0
    quality = assess(best, second, np.full(n, strangers), best, 1)
    true_matched = int((partner > 0).sum())
    assert quality.matched == pytest.approx(true_matched, abs=0.03 * n)
    for threshold in (0.7, 0.8, 0.9):
        at = round(threshold * BINS)
        linked = best >= np.float32(threshold)
        for truth, (low, high), slack in (
            (right[linked].mean(), quality.precision_interval[:, at], 0.02),
            ((right & linked).sum() / true_matched, quality.recall_interval[:, at], 0.05),  # partners like strangers
        ):
            assert low - slack <= truth <= high + slack
            assert high - low < 0.25
    assert quality.matched_interval[0] <= quality.matched <= quality.matched_interval[1]
    for curve, (low, high) in (
        (quality.precision, quality.precision_interval),
        (quality.recall, quality.recall_interval),
    ):
        assert ((low <= curve) & (curve <= high)).mean() > 0.95


def test_a_precision_that_no_threshold_has_is_promised() -> None:
    random = np.random.default_rng(1)
    scores = np.sort(random.beta(9, 9, (500, 12)), 1).astype(np.float32)
    quality = assess(scores[:, -1], scores[:, -2], np.full(500, 12), scores[:, -1], 1)
    assert quality.threshold(0.99, 0.8) is None


def test_scores_below_nothing_are_assigned_for_ever() -> None:
    pairs = Candidates(
        np.array([0, 1]), np.array([0, 1]), np.array([-3.0, -2.0], np.float32), np.array([1, 1]), np.array([1, 1])
    )
    assert len(one_to_one(pairs, 2, 2)[0].left) == 2


@pytest.mark.parametrize(
    "errors", [0.1, pytest.param(0.0, marks=pytest.mark.whole), pytest.param(0.2, marks=pytest.mark.whole)]
)
def test_limits_of_a_chosen_threshold_hold_the_truth_too_seldom(errors: float) -> None:
    """The threshold is chosen as one where the estimate is high: limits from the records that chose it hold less."""
    seeds = range(1, 6) if errors == 0.1 else range(1, 41)
    rows = limits_held(300 if errors == 0.1 else 1_000, errors, seeds)
    rows = rows[np.isfinite(rows[:, 0])]
    assert len(rows) >= len(seeds) / 3
    assert rows[:, 2].mean() >= 0.9  # precision
    assert rows[:, 3].mean() >= 0.8  # recall


def test_halves_share_a_block_or_one_of_them_is_small() -> None:
    random = np.random.default_rng(1)
    blocks = random.integers(1, 2**63, 50, np.uint64)[random.integers(0, 50, 2_000)]
    half = halved(blocks, np.ones(2_000, np.int64))
    assert not set(blocks[half].tolist()) & set(blocks[~half].tolist())
    alike = halved(np.full(2_000, 8, np.uint64), np.ones(2_000, np.int64))
    assert 0.4 < alike.mean() < 0.6
