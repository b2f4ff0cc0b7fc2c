"""Made-up keys by which generated records of several holders are matched: the same at every holder, row by row.

All different as far as the column allows, and taken by every rule that the study has for the column (check digits
hold), so that a rehearsal of a linkage has units in common.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta

import numpy as np

from statfed.core.codebook import Codebook, Column
from statfed.core.errors import UsageError
from statfed.core.keyrules import Rule
from statfed.core.linkage import Linking
from statfed.core.randomness import stream

Rules = Mapping[str, Sequence[Rule]]
_TRIES = 400
"""Values tried for each record: of two check digits one in 97 holds."""
_DATES = frozenset({"date", "date-dmy", "date-mdy"})
_NUMBERS = frozenset({"digits", "number", "luhn", "gtin", "mod11-10", "mod97-10", "iban"})
_WIDTH, _LETTERS = 12, 12
_FIRST, _DAYS = date(1930, 1, 1), 30_000


def rules_of(linking: Linking, codebook: Codebook) -> Rules:
    """By column of the key, of blocks and of the salt, the rules that bring it to a normal form."""
    found: dict[str, list[Rule]] = {}
    for part in linking.parts(codebook):
        for piece in part.pieces:
            found.setdefault(piece.column, []).append(piece.rule)
    return found


def keyed(column: Column, name: str, records: int, rules: Sequence[Rule], seed: int) -> list[object]:
    """Values of one column of a key. Raises UsageError where none is found that all rules take."""
    random = np.random.default_rng(stream(seed, "generated key", name).seed())
    if column.levels:
        codes = [code for code in column.levels if code not in column.missing] or list(column.levels)
        picked = [codes[i] for i in random.integers(0, len(codes), records)]
        return [code == "true" if column.type == "boolean" else code for code in picked]
    found: dict[str, object] = {}
    for _, value in zip(range(_TRIES * records), _values(column, rules, random), strict=False):
        text = value.isoformat() if isinstance(value, date) else str(value)
        if all(rule(text) is not None for rule in rules):
            found.setdefault(text, value)
        if len(found) == records:
            break
    if not found:
        raise UsageError(f"key: {name}: found no value to generate that {', '.join(map(str, rules))} takes")
    values = list(found.values())
    return [values[i % len(values)] for i in range(records)]


def _values(column: Column, rules: Sequence[Rule], random: np.random.Generator) -> Iterator[object]:
    """Values without end, before rules look at them."""
    names = {rule.name for rule in rules}
    width = max((rule.width for rule in rules), default=0) or _WIDTH
    length = min(column.length or _LETTERS, _LETTERS)
    low, high = column.bounds or (0.0, 10.0**9)
    while True:
        if column.type == "date" or (column.type != "integer" and names & _DATES):
            day = _FIRST + timedelta(days=int(random.integers(0, _DAYS)))
            if column.type == "date" and column.bounds is not None:
                day = date(1970, 1, 1) + timedelta(days=int(random.integers(int(low), int(high) + 1)))
            yield day if column.type == "date" else day.isoformat()
        elif column.type == "integer":
            yield int(random.integers(int(low), int(high) + 1))
        elif names & _NUMBERS:
            yield "".join(map(str, random.integers(0, 10, width)))
        else:
            yield "".join(chr(97 + one) for one in random.integers(0, 26, length))
