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


def corrected(shares: Mapping[int, int], threshold: int) -> bytes:
    """The secret from shares by place of which at most (shares - threshold) / 2 are wrong, whichever they are.

    Raises ValueError where there are more wrong ones than that.
    Source: Gao 2003, A new algorithm for decoding Reed-Solomon codes.
    """
    places = sorted(shares)
    _distinct(places)
    above: list[int] = [1]  # the polynomial with a zero at each place, lowest power first
    through: list[int] = []  # the one of least degree through all shares, by Newton's divided differences
    for place in places:
        gap = (shares[place] - _value(through, place)) * pow(_value(above, place), -1, PRIME)
        through = _sum(through, [gap * c for c in above])
        above = _sum([0, *above], [-place * c for c in above])
    old, new, old_factor, new_factor = above, through, [], [1]
    while 2 * (len(new) - 1) >= len(places) + threshold:
        quotient, rest = _divided(old, new)
        old, new = new, rest
        product = [0] * (len(quotient) + len(new_factor))
        for i, a in enumerate(quotient):
            for j, b in enumerate(new_factor):
                product[i + j] += a * b
        old_factor, new_factor = new_factor, _sum(old_factor, [-c for c in product])
    found, rest = _divided(new, new_factor)
    wrong = sum(_value(found, place) != share for place, share in shares.items())
    if rest or len(found) > threshold or 2 * wrong > len(places) - threshold:
        raise ValueError("shares: more are wrong than can be told")
    value = _value(found, 0)
    if value >= 1 << (8 * SECRET):
        raise ValueError("shares: they do not belong together")
    return value.to_bytes(SECRET, "big")


def _value(polynomial: Sequence[int], place: int) -> int:
    value = 0
    for coefficient in reversed(polynomial):
        value = (value * place + coefficient) % PRIME
    return value


def _sum(one: Sequence[int], other: Sequence[int]) -> list[int]:
    """Modulo the prime, without zeros in front."""
    length = max(len(one), len(other))
    padded = ([*each, *[0] * (length - len(each))] for each in (one, other))
    found = [(a + b) % PRIME for a, b in zip(*padded, strict=True)]
    while found and not found[-1]:
        found.pop()
    return found


def _divided(one: Sequence[int], by: Sequence[int]) -> tuple[list[int], list[int]]:
    """Quotient and remainder. Raises ValueError on division by zero."""
    if not by:
        raise ValueError("shares: more are wrong than can be told")
    rest, inverse = list(one), pow(by[-1], -1, PRIME)
    quotient = [0] * max(0, len(rest) - len(by) + 1)
    for place in range(len(quotient) - 1, -1, -1):
        factor = rest[place + len(by) - 1] * inverse % PRIME
        quotient[place] = factor
        for i, coefficient in enumerate(by):
            rest[place + i] = (rest[place + i] - factor * coefficient) % PRIME
    return _sum(quotient, []), _sum(rest, [])


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
