"""Products, sums of squares and exponentials whose every row is a function of that row alone, to the last bit.

Why that is so, and what it costs in precision, is said in `statfed.strategies.learning.exact`.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_DIGITS = 53
_CHUNK = 1024  # entries whose squares are added up exactly
_LEAST = -900  # exponent below which a row counts as that small: 2^900 is finite
_LN2 = (float.fromhex("0x1.62e42fefa38p-1"), float.fromhex("0x1.ef35793c7673p-45"))  # head with 11 zeros, and rest
_TERMS = tuple(1.0 / np.prod(np.arange(1.0, k + 1.0)) for k in range(14, -1, -1))


def exponential(values: Array) -> Array:
    """exp of values that are at most 0, to about 1e-16, by elementwise operations of IEEE 754 in a fixed order."""
    x = np.maximum(values, -700.0)
    times = np.rint(x * 1.4426950408889634)
    rest = (x - times * _LN2[0]) - times * _LN2[1]
    found = np.full_like(rest, _TERMS[0])
    for term in _TERMS[1:]:
        found *= rest
        found += term
    return np.asarray(np.ldexp(found, times.astype(np.int64)))


def bits_of(terms: int) -> int:
    """Binary digits of two factors so that sums of this many products are exact."""
    return (_DIGITS - max(0, terms - 1).bit_length()) // 2


def whole(values: Array, axes: int | tuple[int, ...], bits: int) -> tuple[Array, Array]:
    """Values as whole numbers of at most 2^bits, and the power of two that they are times, one along `axes`."""
    largest = np.abs(values).max(axis=axes, keepdims=True, initial=0.0)
    exponent = np.maximum(np.frexp(largest)[1], _LEAST)
    return np.rint(values * np.ldexp(1.0, bits - exponent)), np.ldexp(1.0, exponent - bits)


def product(rows: Array, columns: Array) -> Array:
    """(..., inputs) times (inputs, outputs), exact for rows and columns as `whole` rounds them."""
    bits = bits_of(len(columns))
    left, up = whole(rows, -1, bits)
    right, also = whole(columns, 0, bits)
    found = (left.reshape(-1, len(columns)) @ right).reshape(*rows.shape[:-1], -1)
    return np.asarray(found * up * also)


def squared(rows: Array) -> tuple[Array, Array]:
    """Rows, (units, entries), rounded so that sums of their squares are exact by chunks, and those sums, (units,).

    A row that is not finite is zero, and its sum infinite.
    """
    units, entries = rows.shape
    kept, total = np.empty_like(rows), np.zeros(units)
    finite = np.asarray(np.isfinite(rows).all(axis=1))
    if not finite.all():
        rows = np.where(finite[:, None], rows, 0.0)
        total[~finite] = np.inf
    for start in range(0, entries, _CHUNK):
        part = rows[:, start : start + _CHUNK]
        numbers, up = whole(part, 1, bits_of(part.shape[1]))
        kept[:, start : start + _CHUNK] = numbers * up
        total += np.square(numbers).sum(1) * up[:, 0] * up[:, 0]
    return kept, total
