"""Generated pairs of registers of persons with typing errors, and who is whom.

Households share surname and address, names are skewed as names are, and each value of the second register is wrong
with the same probability: a letter changed, left out, doubled or swapped with its neighbour, day and month exchanged,
or missing. So pairs that are nobody's stand close to those that are somebody's, as in true registers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

COLUMNS = ("given_name", "surname", "street", "postcode", "birth_date")
_GIVEN, _SURNAMES, _STREETS = 300, 3_000, 800
_HEADS = ("b", "br", "d", "f", "g", "gr", "h", "j", "k", "kr", "l", "m", "n", "p", "r", "s", "sch", "st", "t", "v", "w")
_VOWELS = ("a", "e", "i", "o", "u", "aa", "ei", "ie", "ou")
_TAILS = ("", "", "l", "m", "n", "nd", "r", "rs", "s", "t", "ck")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_BORN = date(1930, 1, 1)
_DAYS = 34_000


@dataclass(frozen=True)
class Register:
    """One register. columns: by name, one text a record, None where it is missing; person: who it is, the truth."""

    columns: dict[str, list[str | None]]
    person: NDArray[np.int64]


def registers(size: int, overlap: float, errors: float, seed: int) -> tuple[Register, Register]:
    """Two registers of `size` persons each, of whom a share of `overlap` is in both, in another order.

    errors: probability that a value of the second is wrong.
    """
    random = np.random.default_rng([seed, size])
    both = round(size * overlap)
    people = _population(2 * size - both, random)
    order = random.permutation(2 * size - both)
    first, second = order[:size], random.permutation(order[size - both :])
    wrong = [
        tuple(mistyped(value, name, random) if random.random() < errors else value for name, value in _named(people[i]))
        for i in second
    ]
    return _register([people[i] for i in first], first), _register(wrong, second)


def _named(person: Sequence[str | None]) -> Iterator[tuple[str, str | None]]:
    return zip(COLUMNS, person, strict=True)


def _register(rows: Sequence[Sequence[str | None]], person: NDArray[np.int64]) -> Register:
    return Register({name: [row[place] for row in rows] for place, name in enumerate(COLUMNS)}, person)


def _population(count: int, random: np.random.Generator) -> list[tuple[str, ...]]:
    """Persons in households of one to five."""
    given, surnames, streets = (_words(size, random) for size in (_GIVEN, _SURNAMES, _STREETS))
    people: list[tuple[str, ...]] = []
    while len(people) < count:
        surname, street = surnames[_skewed(_SURNAMES, random)], streets[int(random.integers(_STREETS))]
        place = f"{int(random.integers(1000, 1400)):04d}"
        address = f"{street} {int(random.integers(1, 120))}"
        for _ in range(int(random.integers(1, 6))):
            born = _BORN + timedelta(days=int(random.integers(_DAYS)))
            people.append((given[_skewed(_GIVEN, random)], surname, address, place, born.isoformat()))
    return people[:count]


def _skewed(size: int, random: np.random.Generator) -> int:
    """A rank below `size`, the more likely the smaller: as of names, the tenth has a tenth of the first."""
    return int((size + 1) ** random.random()) - 1


def _words(count: int, random: np.random.Generator) -> list[str]:
    made: dict[str, None] = {}
    while len(made) < count:
        word = "".join(str(random.choice(part)) for _ in range(2) for part in (_HEADS, _VOWELS)) + str(
            random.choice(_TAILS)
        )
        made[word] = None
    return list(made)


def mistyped(value: str | None, name: str, random: np.random.Generator) -> str | None:
    """A value with one error in it: one in ten is missing. name: of the column, of which `COLUMNS` has the kinds."""
    if value is None or random.random() < 0.1:
        return None
    if name == "birth_date" and random.random() < 0.2 and int(value[8:]) <= 12:
        return f"{value[:4]}-{value[8:]}-{value[5:7]}"
    places = [place for place, sign in enumerate(value) if sign.isalnum()]
    if not places:
        return None
    place = int(random.choice(places))
    if name in ("postcode", "birth_date"):
        return value[:place] + str(int(random.integers(10))) + value[place + 1 :]
    letter = _LETTERS[int(random.integers(26))]
    kind = int(random.integers(4))
    if kind == 3 and place + 1 < len(value):
        return value[:place] + value[place + 1] + value[place] + value[place + 2 :]
    return value[:place] + ("", letter, value[place] * 2, letter)[kind] + value[place + 1 :]
