"""Numbers that persons and enterprises are known by in generated registers: a serial number and a check digit.

They are as such numbers are: short, issued one after another, and valid by a public rule, so that whoever wants to try
them all can list them.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

DIGITS = 8
"""Of a serial number, without the check digit."""
_PLAIN = {str(one): one for one in range(10)}
_DOUBLED = {str(one): 2 * one - 9 * (one > 4) for one in range(10)}
RULE = f"luhn({DIGITS + 1})"
"""The rule of such a key in a codebook."""


def numbered(serial: int) -> str:
    """A serial number with Luhn's check digit behind it.

    >>> numbered(79927398)
    '799273982'
    """
    text = f"{serial:0{DIGITS}d}"
    total = sum(map(_PLAIN.__getitem__, text[-2::-2])) + sum(map(_DOUBLED.__getitem__, text[::-2]))
    return f"{text}{-total % 10}"


def issued(count: int) -> Iterator[str]:
    """All numbers that were issued so far, in their order: what an attacker tries."""
    return map(numbered, range(count))


def drawn(count: int, of: int, random: np.random.Generator) -> NDArray[np.str_]:
    """Different numbers of those issued, in random order."""
    return np.array([numbered(serial) for serial in random.choice(of, count, replace=False).tolist()])
