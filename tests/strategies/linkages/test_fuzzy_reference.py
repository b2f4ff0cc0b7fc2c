"""Encodings against plaintext: what `fuzzy` finds beside Fellegi-Sunter weights learned from the truth."""

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from statfed.scenarios._data.registers import COLUMNS, registers
from statfed.strategies.linkages._comparing import Candidates, Encoded, compare, one_to_one
from statfed.strategies.linkages._encodings import Attribute, Encoder, grams_of, tags
from tests.strategies.linkages.fuzzily import ATTRIBUTES, BLOCKS, keys_of

SECRET = bytes(range(32))
SIZE = 200


@cache
def level(one: str | None, other: str | None) -> int:
    """Missing, different, alike, the same."""
    if one is None or other is None:
        return 0
    grams = [set(grams_of(text, Attribute())) for text in (one, other)]
    return 3 if one == other else 1 + (2 * len(grams[0] & grams[1]) > 0.6 * (len(grams[0]) + len(grams[1])))


def best_recall(pairs: Candidates, truth: NDArray[np.bool_], partners: int, precision: float) -> float:
    """Highest recall of one-to-one links at a precision, over all thresholds."""
    links, _ = one_to_one(pairs, SIZE, SIZE)
    right = {(i, j) for i, j, true in zip(pairs.left.tolist(), pairs.right.tolist(), truth, strict=True) if true}
    order = np.argsort(-links.score)
    hits = np.array([(int(links.left[at]), int(links.right[at])) in right for at in order]).cumsum()
    kept = hits / np.arange(1, len(hits) + 1) >= precision
    return float(hits[kept].max(initial=0) / partners)


@pytest.fixture(scope="module")
def candidates() -> tuple[Candidates, NDArray[np.bool_], NDArray[np.float32]]:
    """Compared pairs, which of them are right, and their Fellegi-Sunter weights."""
    sides = registers(SIZE, 0.7, 0.2, 11)
    keys = [keys_of(side) for side in sides]
    encoder = Encoder(SECRET, {name: Attribute.model_validate(one) for name, one in ATTRIBUTES.items()})
    made = [Encoded(encoder.encode(one), tags(SECRET, {part: one[part] for part in BLOCKS})) for one in keys]
    found = compare(made[0], made[1], 0.1, 10**6, 10**6)
    truth = sides[0].person[found.left] == sides[1].person[found.right]
    weight = np.zeros(len(truth))
    for name in COLUMNS:
        a, b = (side.columns[name] for side in sides)
        levels = np.array([level(a[i], b[j]) for i, j in zip(found.left, found.right, strict=True)])
        m, u = ((np.bincount(levels[which], minlength=4) + 0.5) / (which.sum() + 2) for which in (truth, ~truth))
        weight += np.log(m / u)[levels]
    return found, truth, weight.astype(np.float32)


def test_encodings_find_fewer_pairs_than_plaintext_does(
    candidates: tuple[Candidates, NDArray[np.bool_], NDArray[np.float32]],
) -> None:
    found, truth, weight = candidates
    plain = Candidates(found.left, found.right, weight, found.offered, found.sought)
    reference = best_recall(plain, truth, 140, 0.98)
    assert reference > 0.9
    assert best_recall(found, truth, 140, 0.98) > reference - 0.03


def test_greedy_links_are_worse_than_the_best_assignment(
    candidates: tuple[Candidates, NDArray[np.bool_], NDArray[np.float32]],
) -> None:
    found, truth, _ = candidates
    pairs = found.above(0.6)
    score = np.zeros((SIZE, SIZE))
    score[pairs.left, pairs.right] = pairs.score
    rows, columns = linear_sum_assignment(score, maximize=True)
    right = {(i, j) for i, j, true in zip(found.left.tolist(), found.right.tolist(), truth, strict=True) if true}
    best = [pair for pair in zip(rows.tolist(), columns.tolist(), strict=True) if score[pair] > 0]
    links, _ = one_to_one(pairs, SIZE, SIZE)
    greedy = list(zip(links.left.tolist(), links.right.tolist(), strict=True))
    hits, all_hits = len(right & set(greedy)), len(right & set(best))
    assert hits >= all_hits - 2
    assert hits / len(greedy) >= all_hits / len(best) - 0.01
