"""Attacks on Bloom-filter encodings by a linkage unit: what it guesses of the records that it sees.

frequency: the most frequent encodings are the most frequent values (Kuzu, Kantarcioglu, Durham and Malin 2011).
mining: bits that records with a q-gram have in common tell which other records have it (after Christen, Ranbaduge,
Vatsalan and Schnell 2018, who find such bits without known records; here the unit is given the owners of some).
patterns: the same with every bit weighed by how it goes with the q-gram, which is the stronger attack.
dictionary: every guess encoded under a secret, and looked up.
graph: records whose similarities to the others are like those in a known register are taken for the same (after
Vidanage, Christen, Ranbaduge and Schnell 2020, with sorted similarities as the only feature).
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from statfed.strategies.linkages._encodings import Attribute, Encoder, grams_of

Words = NDArray[np.uint64]


def frequency(encodings: Words, values: Sequence[str]) -> float:
    """Share of records whose value is guessed, by who knows how frequent values are. values: the truth."""
    seen = [row.tobytes() for row in encodings]
    guessed = dict(
        zip(
            [one for one, _ in Counter(seen).most_common()],
            [value for value, _ in sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))],
            strict=False,
        )
    )
    return float(np.mean([guessed.get(one) == value for one, value in zip(seen, values, strict=True)]))


def mining(encodings: Words, values: Sequence[str], known: int, grams: int = 30) -> float:
    """Mean F measure of telling the records with a frequent q-gram by the bits that all known ones with it have set."""
    bits, inside, frequent = _grams(encodings, values, grams)
    found = []
    for gram in frequent:
        has = np.array([gram in one for one in inside])
        pattern = bits[:known][has[:known]].all(0)
        said = bits[known:][:, pattern].all(1) & pattern.any()
        found.append(2 * float((said & has[known:]).sum()) / float(said.sum() + has[known:].sum()))
    return float(np.mean(found))


def patterns(encodings: Words, values: Sequence[str], known: int, grams: int = 30) -> float:
    """Mean area under the curve, of telling records with a frequent q-gram from those without; 0.5 is guessing.

    Bits are weighed by log odds (naive Bayes) from the first `known` records, and tried on the others.
    """
    bits, inside, frequent = _grams(encodings, values, grams)
    areas = []
    for gram in frequent:
        has = np.array([gram in one for one in inside])
        learned, tried = has[:known], has[known:]
        odds = [(bits[:known][side].sum(0) + 0.5) / (side.sum() + 1.0) for side in (learned, ~learned)]
        weight = np.log(odds[0] / (1 - odds[0])) - np.log(odds[1] / (1 - odds[1]))
        rank = np.argsort(np.argsort(bits[known:] @ weight)) + 1.0
        right = tried.sum()
        areas.append((rank[tried].sum() - right * (right + 1) / 2) / (right * (~tried).sum()))
    return float(np.mean(areas))


def _grams(encodings: Words, values: Sequence[str], count: int) -> tuple[NDArray[np.uint8], list[set[str]], list[str]]:
    inside = [set(grams_of(value, Attribute())) for value in values]
    frequent = Counter(gram for one in inside for gram in sorted(one)).most_common(count)
    return np.unpackbits(encodings.view(np.uint8), axis=1), inside, [gram for gram, _ in frequent]


def dictionary(encodings: Words, keys: Mapping[str, Sequence[str | None]], encoder: Encoder) -> float:
    """Share of records whose most alike entry of a dictionary of all of them is their own. encoder: with the secret
    that is tried."""
    known = encoder.encode(keys)
    return float((_dice(encodings, known).argmax(1) == np.arange(len(encodings))).mean())


def graph(encodings: Words, keys: Mapping[str, Sequence[str | None]], encoder: Encoder, nearest: int = 20) -> float:
    """Share of records told by their similarities, by who has a register of the same persons in the same order.

    encoder: the attacker's own, under another secret.
    """
    seen, known = (_features(one, nearest) for one in (encodings, encoder.encode(keys)))
    distance = ((seen[:, None] - known[None]) ** 2).sum(2)
    return float((distance.argmin(1) == np.arange(len(seen))).mean())


def _features(encodings: Words, nearest: int) -> NDArray[np.float64]:
    dice = _dice(encodings, encodings)
    np.fill_diagonal(dice, 0)
    found: NDArray[np.float64] = np.sort(dice, 1)[:, -nearest:]
    return found


def _dice(one: Words, other: Words) -> NDArray[np.float64]:
    a, b = (np.unpackbits(side.view(np.uint8), axis=1).astype(np.float64) for side in (one, other))
    found: NDArray[np.float64] = 2 * (a @ b.T) / np.maximum(a.sum(1)[:, None] + b.sum(1)[None], 1)
    return found
