"""Fuzzy matching: recall and precision against the truth, estimated beside true, cost, and attacks on encodings.

    python benchmarks/linkage_fuzzy.py                  # all of it; FEBRL4 and pseudopeople where they are cached
    python benchmarks/linkage_fuzzy.py quality cost attacks

`statfed data fetch febrl4` and `statfed data fetch pseudopeople` bring the published registers. Seeds are fixed;
secrets and orders are drawn anew, so that figures move by a few pairs. Times are processor time of this one process.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.strategies.linkages import fuzzily
from tests.strategies.linkages.bloom_attacks import dictionary, frequency, graph, mining, patterns

from statfed.core.codebook import Codebook
from statfed.core.errors import Refused
from statfed.core.linkage import Units
from statfed.core.linkkeys import keys_of_texts, read_key
from statfed.scenarios._data import published
from statfed.scenarios._data.registers import Register, registers
from statfed.strategies.linkages._comparing import Encoded, compare
from statfed.strategies.linkages._encodings import Attribute, Encoder, Hardening, tags

HARDENINGS: tuple[Hardening, ...] = ("none", "balanced", "fold", "rule90")
BOTH = ("bank", "office")
TEXT: dict[str, Any] = {"type": "text", "length": 80, "key": "name"}
FEBRL = Codebook.model_validate(
    {
        "columns": {
            **dict.fromkeys(("given_name", "surname", "address_1", "suburb"), TEXT),
            **{name: {"type": "id", "key": "digits"} for name in ("street_number", "postcode", "date_of_birth")},
        }
    }
)
FEBRL_BITS = {
    "given_name": 45, "surname": 55, "address_1": 55, "suburb": 45, "street_number": 15, "postcode": 30,
    "date_of_birth": 55,
}  # fmt: skip
FEBRL_BLOCKS = "surname:soundex,given_name:soundex,date_of_birth,suburb"
PEOPLE = Codebook.model_validate(
    {"columns": {"first_name": TEXT, "last_name": TEXT, "birth_date": {"type": "id", "key": "date"}}}
)
PEOPLE_BITS = {"first_name": 110, "last_name": 130, "birth_date": 150}
PEOPLE_BLOCKS = "birth_date,last_name:soundex+birth_date[:4],first_name:soundex+last_name[:2]"


def attributes_of(bits: Mapping[str, int], codebook: Codebook) -> dict[str, dict[str, Any]]:
    """Attributes by part: digits and dates by place, names by bigrams."""
    found = {}
    for name, count in bits.items():
        placed = codebook.columns[name].key != "name"
        found[read_key(name, codebook)[0].name] = {"bits": count, "q": 1 if placed else 2, "positional": placed}
    return found


def linked(pair: Sequence[Register], codebook: Codebook, bits: Mapping[str, int], blocks: str, **options: Any) -> str:
    """One linkage: recall, precision and what was estimated."""
    attributes = attributes_of(bits, codebook)
    block = [part.name for part in read_key(blocks, codebook)]
    salt = options.pop("salt", "")
    salted = read_key(salt, codebook)[0].name if salt else ""
    written = ",".join(dict.fromkeys([*attributes, *block, *([salted] if salt else [])]))
    parts = read_key(written, codebook)
    units = [Units(keys_of_texts(side.columns, parts).parts) for side in pair]
    size = max(one.count for one in units)
    agreement = fuzzily.agreed(
        size, **{"attributes": attributes, "block": block, "salt": salted, **options}, pairs_to=BOTH
    )
    started = time.process_time()
    try:
        outcome, parties = fuzzily.run(agreement, dict(zip(BOTH, units, strict=True)))
    except Refused as error:
        return f"refused: {error}"
    spent = time.process_time() - started
    precision, recall = fuzzily.truth(parties, (pair[0].person, pair[1].person))
    figures = outcome.figures
    (p, p_low, p_high), (r, r_low, r_high) = np.asarray(figures["quality"])
    return (
        f"threshold {float(figures['threshold']):.3f}  links {outcome.size:6,}  recall {recall:.4f}  "
        f"precision {precision:.4f}  estimated: recall {r:.3f} ({r_low:.3f}-{r_high:.3f}) "
        f"precision {p:.3f} ({p_low:.3f}-{p_high:.3f})  {int(figures['compared']):,} pairs, {spent:.1f} s"
    )


def quality() -> None:
    """Recall and precision on published and generated registers."""
    if published.febrl4_available():
        pair = published.febrl4()
        for hardening in HARDENINGS:
            print(f"FEBRL4, {hardening:8}    {linked(pair, FEBRL, FEBRL_BITS, FEBRL_BLOCKS, hardening=hardening)}")
        print(f"FEBRL4, floor .6    {linked(pair, FEBRL, FEBRL_BITS, FEBRL_BLOCKS, floor=0.6)}")
        print(f"FEBRL4, salted      {linked(pair, FEBRL, FEBRL_BITS, FEBRL_BLOCKS, salt='date_of_birth[:4]')}")
        print(f"FEBRL4, 5 % flipped {linked(pair, FEBRL, FEBRL_BITS, FEBRL_BLOCKS, flip=0.05)}")
        half = Register({name: values[:2500] for name, values in pair[1].columns.items()}, pair[1].person[:2500])
        print(f"FEBRL4, 5,000/2,500 {linked((pair[0], half), FEBRL, FEBRL_BITS, FEBRL_BLOCKS)}")
    else:
        print("FEBRL4: not in the cache; statfed data fetch febrl4")
    bits = {name: one["bits"] for name, one in zip(("given_name", "surname", "street", "postcode", "birth_date"),
                                                   fuzzily.ATTRIBUTES.values(), strict=True)}  # fmt: skip
    for errors in (0.0, 0.1, 0.2):
        if published.pseudopeople_available():
            pair = published.pseudopeople(errors, 1)
            print(f"pseudopeople, {errors:3.0%}   {linked(pair, PEOPLE, PEOPLE_BITS, PEOPLE_BLOCKS)}")
        for overlap in (0.7, 0.3):
            pair = registers(5_000, overlap, errors, 1)
            line = linked(pair, fuzzily.CODEBOOK, bits, ",".join(fuzzily.BLOCKS))
            print(f"generated {overlap:.0%} {errors:3.0%}   {line}")


def cost() -> None:
    """Processor time of encoding a record and of comparing a pair, and bytes a record."""
    keys = fuzzily.keys_of(registers(5_000, 0.0, 0.0, 1)[0])
    attributes = {name: Attribute.model_validate(one) for name, one in fuzzily.ATTRIBUTES.items()}
    for hardening in HARDENINGS:
        encoder = Encoder(bytes(32), attributes, hardening=hardening)
        started = time.process_time()
        made = encoder.encode(keys)
        each = (time.process_time() - started) / len(made) * 1e3
        marks = tags(bytes(32), {part: keys[part] for part in fuzzily.BLOCKS})
        line = f"{hardening:9}{each:6.3f} ms a record, {made[0].nbytes + marks[0].nbytes:4} bytes; pairs:"
        random = np.random.default_rng(1)
        for size in (10, 100, 2_500):
            side = Encoded(made, random.integers(1, 5_000 // size + 1, (5_000, 1)).astype(np.uint64))
            started = time.process_time()
            found = compare(side, side, 0.99, 10**10, 10**8)
            line += f"  {(time.process_time() - started) / found.offered.sum() * 1e9:5.1f} ns in blocks of {size:,}"
        print(line)


def attacks() -> None:
    """What a linkage unit guesses, before and after hardening."""
    keys = fuzzily.keys_of(registers(1_500, 0.0, 0.0, 1)[0])
    few = {name: list(values)[:500] for name, values in keys.items()}
    surnames = [value or "" for value in keys["surname:name"]]
    one = {"surname:name": Attribute(bits=200)}
    every = {name: Attribute.model_validate(options) for name, options in fuzzily.ATTRIBUTES.items()}
    secret, other = bytes(range(32)), bytes(range(32, 64))
    print(
        "hardening flip salt | frequency: surname alone, all | mining | weighed | dictionary: no secret, leaked | graph"
    )
    for hardening in HARDENINGS:
        for flip in (0.0, 0.05):
            for salt in ("", "birth_date:exact[:4]"):
                alone = Encoder(secret, one, salt, hardening, flip).encode(keys)
                encoder, mine = (Encoder(key, every, salt, hardening, flip) for key in (secret, other))
                made = encoder.encode(keys)
                print(
                    f"{hardening:9} {flip:4} {'year' if salt else '-':4} | {frequency(alone, surnames):.3f} "
                    f"{frequency(made, surnames):.3f} | {mining(made, surnames, 500):.3f} | "
                    f"{patterns(made, surnames, 500):.3f} | {dictionary(made[:500], few, mine):.3f} "
                    f"{dictionary(made[:500], few, encoder):.3f} | {graph(made[:500], few, mine):.3f}"
                )


def main() -> None:
    """Print what was asked for."""
    parts = {"quality": quality, "cost": cost, "attacks": attacks}
    for name in sys.argv[1:] or parts:
        print(f"\n{name}")
        parts[name]()


if __name__ == "__main__":
    main()
