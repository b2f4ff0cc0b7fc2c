"""Two generated registers, linked by `fuzzy` in this process."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.codebook import Codebook
from statfed.core.identity import Identity
from statfed.core.linkage import Outcome, Party, Units, linked
from statfed.core.linkkeys import keys_of_texts, read_key
from statfed.core.protection import Agreement
from statfed.scenarios._data.registers import Register, registers
from statfed.strategies.linkages import fuzzy
from statfed.strategies.linkages._comparing import Candidates, Encoded, Words, compare, one_to_one, two_best
from statfed.strategies.linkages._encodings import Attribute, Encoder, tags
from statfed.strategies.linkages._quality import BINS, estimated, halved

CODEBOOK = Codebook.model_validate(
    {
        "columns": {
            "given_name": {"type": "text", "length": 40, "key": "name"},
            "surname": {"type": "text", "length": 40, "key": "name"},
            "street": {"type": "text", "length": 40, "key": "name"},
            "postcode": {"type": "id", "key": "digits"},
            "birth_date": {"type": "id"},
        }
    }
)
PLACED = {"q": 1, "positional": True}
ATTRIBUTES: dict[str, dict[str, Any]] = {
    "given_name:name": {"bits": 50},
    "surname:name": {"bits": 60},
    "street:name": {"bits": 50},
    "postcode:digits": {"bits": 40, **PLACED},
    "birth_date:exact": {"bits": 70, **PLACED},
}
BLOCKS = ("surname:soundex", "birth_date:exact", "postcode:digits")
Keys = Mapping[str, Sequence[str | None]]


def keys_of(register: Register) -> Keys:
    parts = read_key(",".join(dict.fromkeys([*ATTRIBUTES, *BLOCKS, "birth_date:exact[:4]"])), CODEBOOK)
    return keys_of_texts(register.columns, parts).parts


def agreed(count: int, **options: Any) -> Agreement:
    given = {"attributes": ATTRIBUTES, "block": BLOCKS, **options}
    made = fuzzy.Options.model_validate(given)
    sizes = {"bank": count, "office": count}
    return Agreement("run", "study", "fuzzy", ("bank", "office"), fuzzy.third_parties(made), 2, sizes, made)


def parties_of(agreement: Agreement, units: Mapping[str, Units]) -> dict[str, Party]:
    made = {name: Identity.ephemeral(name) for name in agreement.parties}
    pins = {name: one.public for name, one in made.items()}
    found = {}
    for name, one in made.items():
        others = {other: pin for other, pin in pins.items() if other != name}
        found[name] = fuzzy.party(agreement, Identity(name, one._key, others), units.get(name))
    return found


def run(agreement: Agreement, units: Mapping[str, Units]) -> tuple[Outcome, dict[str, Party]]:
    parties = parties_of(agreement, units)
    return linked(fuzzy.coordinator(agreement), parties), parties


def linked_registers(
    size: int, overlap: float, errors: float, seed: int, pad: int = 0, **options: Any
) -> tuple[Outcome, dict[str, Party], tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """What comes out, the parties, and who each record is at the bank and at the office."""
    a, b = registers(size, overlap, errors, seed)
    units = {"bank": Units(keys_of(a)), "office": Units(keys_of(b))}
    outcome, parties = run(agreed(size + pad, **options), units)
    return outcome, parties, (a.person, b.person)


def truth(parties: Mapping[str, Party], persons: tuple[NDArray[np.int64], NDArray[np.int64]]) -> tuple[float, float]:
    """Precision and recall of the pairs that both holders have been told."""
    whose = []
    for name, person in zip(("bank", "office"), persons, strict=True):
        pairs: Any = parties[name]
        order = np.argsort(pairs.pairs.number)
        whose.append(person[pairs.pairs.unit[order]])
    right = int((whose[0] == whose[1]).sum())
    return right / len(whose[0]), right / len(np.intersect1d(*persons))


def compared(size: int, errors: float, seed: int, overlap: float = 0.7) -> tuple[Candidates, Words, NDArray[np.bool_]]:
    """Pairs of two generated registers at or above a floor of .5, tags of the first's first block, and which pairs are
    true: what the linkage unit sees, without the protocol around it."""
    pair = registers(size, overlap, errors, seed)
    random = np.random.default_rng(seed)
    secret, sides = random.bytes(32), []
    encoder = Encoder(secret, {name: Attribute.model_validate(one) for name, one in ATTRIBUTES.items()})
    for keys in map(keys_of, pair):
        marks = tags(secret, {part: keys[part] for part in BLOCKS})
        marks[marks == 0] = random.integers(1, 2**63, int((marks == 0).sum()), np.uint64)
        sides.append(Encoded(encoder.encode(keys), marks))
    found = compare(sides[0], sides[1], 0.5, 10**10, 10**8)
    return found, sides[0].tags[:, 0], pair[0].person[found.left] == pair[1].person[found.right]


def limits_held(size: int, errors: float, seeds: Sequence[int]) -> NDArray[np.float64]:
    """By draw at a chosen threshold: true precision and recall of links, then whether the printed limits hold each of
    them; recall is of the matches that are among the compared. NaN where no threshold is found."""
    rows = []
    for seed in seeds:
        found, first, true = compared(size, errors, seed)
        links, _ = one_to_one(found, size, size)
        best, second = two_best(found)
        half = halved(first, found.offered)
        threshold, quality = estimated(best, second, found.offered, links, half, (0.99, 0.8), seed)
        if threshold is None:
            rows.append([np.nan] * 4)
            continue
        at = round(max(threshold, 0.5) * BINS)
        pairs = dict(zip(zip(found.left.tolist(), found.right.tolist(), strict=True), true.tolist(), strict=True))
        linked = links.above(at / BINS)
        right = sum(pairs[pair] for pair in zip(linked.left.tolist(), linked.right.tolist(), strict=True))
        shares = right / len(linked.left), right / int(true.sum())
        limits = quality.precision_interval[:, at], quality.recall_interval[:, at]
        held = [low - 1e-9 <= share <= high + 1e-9 for share, (low, high) in zip(shares, limits, strict=True)]
        rows.append([*shares, *map(float, held)])
    return np.array(rows)
