"""Shamir's secret sharing (Shamir 1979) of 32-byte secrets over the prime field of 2^256 + 297 elements.

Fewer than `threshold` shares are independent of the secret: for any secret there is exactly one polynomial of degree
below `threshold` through it and them. Shares carry no proof that their dealer kept to one polynomial; whoever restores
a secret compares it with a public commitment.

The sequence of operations depends on public numbers alone. Python's integers are not constant in time: how long a share
takes may tell something about it to whoever can time this process closely, which only its own machine can.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

PRIME = 2**256 + 297
SECRET, SHARE = 32, 33  # bytes


def split(secret: bytes, threshold: int, places: Sequence[int], random: Callable[[int], bytes]) -> list[int]:
    """One share for each of `places`, which are distinct and positive. random: that many random bytes.

    Raises ValueError on a secret of another length, fewer places than the threshold, or places that are not distinct.
    """
    if len(secret) != SECRET:
        raise ValueError(f"secret: got {len(secret)} bytes; want {SECRET}")
    if not 1 <= threshold <= len(places):
        raise ValueError(f"threshold: got {threshold}; want 1 to {len(places)}")
    _distinct(places)
    coefficients = [_uniform(random) for _ in range(threshold - 1)] + [int.from_bytes(secret, "big")]
    shares = []
    for place in places:
        value = 0
        for coefficient in coefficients:
            value = (value * place + coefficient) % PRIME
        shares.append(value)
    return shares


def restore(shares: Mapping[int, int]) -> bytes:
    """The secret from `threshold` shares by place. Fewer, or wrong ones, give another secret or none.

    Raises ValueError on a share outside the field or a result that is no 32-byte secret.
    """
    if not shares or not all(0 <= value < PRIME for value in shares.values()):
        raise ValueError("shares: want at least one, and each in the field")
    weights = _weights(tuple(sorted(shares)))
    value = sum(weights[place] * share for place, share in shares.items()) % PRIME
    if value >= 1 << (8 * SECRET):
        raise ValueError("shares: they do not belong together")
    return value.to_bytes(SECRET, "big")


@lru_cache(maxsize=64)
def _weights(places: tuple[int, ...]) -> dict[int, int]:
    """Lagrange coefficients at zero."""
    _distinct(places)
    found = {}
    for place in places:
        above = below = 1
        for other in places:
            if other != place:
                above, below = above * other % PRIME, below * (other - place) % PRIME
        found[place] = above * pow(below, -1, PRIME) % PRIME
    return found


def _distinct(places: Sequence[int]) -> None:
    if len(set(places)) != len(places) or not all(0 < place < PRIME for place in places):
        raise ValueError("places: want distinct ones between 0 and the prime")


def _uniform(random: Callable[[int], bytes]) -> int:
    """A uniform element: 48 random bytes are 2^128 times as many values as the field has."""
    return int.from_bytes(random(48), "big") % PRIME
