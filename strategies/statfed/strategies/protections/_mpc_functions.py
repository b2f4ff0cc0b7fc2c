"""Functions of holders' figures that a sum cannot give, written on arrays that can add, multiply and compare.

The same lines run on numpy arrays and on MPyC's secret-shared arrays: `a < b` is then a secure comparison, and `*` a
secure product. Nothing here opens anything: what a function returns is what will be opened, and only that.

Values are whole numbers of a layout's unit, at most 2^62 in absolute value in total (2^30 in a narrow one). Every
difference that is compared stays within the `width` bits of `width(bits)`, whatever rules and quotients `Limits` allow.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from statfed.core.errors import Refused, UsageError
from statfed.core.fixed_point import Bits, Layout

Value = Any
"""An array of one entry per cell: numpy's, or MPyC's secret-shared one."""
Inputs = Mapping[str, Value]
"""One holder's slots, each of shape (rows, cells)."""
HUNDRED = 10_000  # per cent with two decimals
MOST = 8  # contributors of an (n,k) rule: with more a comparison would outgrow its width


@dataclass(frozen=True)
class Limits:
    """Public parameters, agreed in the study. n, k: of the (n,k) rule; p: of the p% rule; None: the rule is off. whole:
    quotients are below 2^whole; fraction: binary places of a quotient."""

    n: int
    k: float | None
    p: float | None
    whole: int
    fraction: int


@dataclass(frozen=True)
class Function:
    """One function. slots: what each holder puts in, all in one unit unless `free`; opens: what is opened, in words;
    rows: how many figures a cell; positive: slots whose values may not be negative."""

    slots: tuple[str, ...]
    opens: str
    rows: int
    compute: Callable[[Sequence[Inputs], Limits], Sequence[Value]]
    free: bool = False
    positive: tuple[str, ...] = ()


def width(bits: Bits) -> int:
    """Bits of the integers that MPyC compares. Raises UsageError where the layout is too wide."""
    if bits == 192:
        raise UsageError("functions: got figures without a finite bound; want bounds in the codebook")
    return 48 if bits == 32 else 80


def check(name: str, layout: Layout) -> Function:
    """The function `name`, which `layout` fits. Raises UsageError on an unknown one or a layout that does not."""
    if name not in FUNCTIONS:
        raise UsageError(f"function: got {name!r}; want one of {', '.join(FUNCTIONS)}")
    function = FUNCTIONS[name]
    if set(layout.slots) != set(function.slots):
        raise UsageError(f"{name}: got {', '.join(sorted(layout.slots))}; want {', '.join(function.slots)}")
    width(layout.bits)
    if not layout.entries:
        raise UsageError(f"{name}: got no cells; want one or more")
    leading = layout.slots[function.slots[0]]
    for slot in function.slots[1:]:
        own = layout.slots[slot]
        if slot == "largest":
            if own.shape[1:] != leading.shape or own.shape[:1] not in ((1,), (2,)):
                raise UsageError(f"{name}: largest: got shape {own.shape}; want one or two figures for {leading.shape}")
        elif own.shape != leading.shape:
            raise UsageError(f"{name}: {slot}: got shape {own.shape}; want {leading.shape}")
        alike = np.ndim(own.limit) == np.ndim(leading.limit) == 0 and own.limit == leading.limit
        if not function.free and not (alike and own.integer == leading.integer):
            raise UsageError(f"{name}: {slot}: got a limit of its own; want one limit for all: they are compared")
    return function


def admissible(name: str, arrays: Mapping[str, Any]) -> None:
    """Raises Refused when a holder's figures may not go into the function, naming the slot and never a value."""
    for slot in FUNCTIONS[name].positive:
        if (np.asarray(arrays[slot]) < 0).any():
            raise Refused(f"{name}: {slot}: got figures below zero; want none")


def maximum(holders: Sequence[Inputs], limits: Limits) -> Sequence[Value]:  # noqa: ARG001
    """The largest holder's figure in each cell."""
    return _tournament([[_row(inputs["value"])] for inputs in holders], 1)


def top_two(holders: Sequence[Inputs], limits: Limits) -> Sequence[Value]:  # noqa: ARG001
    """The two largest holders' figures in each cell, the largest first."""
    return _tournament([[_row(inputs["value"])] for inputs in holders], 2)


def median(holders: Sequence[Inputs], limits: Limits) -> Sequence[Value]:  # noqa: ARG001
    """The median of the holders' figures in each cell, for an even number of holders the sum of the two in the middle.

    By a sorting network (Batcher 1968), so that nobody learns whose figure it is.
    """
    rows = [_row(inputs["value"]) for inputs in holders]
    for i, j in _network(len(rows)):
        swap = rows[j] < rows[i]
        move = swap * (rows[j] - rows[i])
        rows[i], rows[j] = rows[i] + move, rows[j] - move
    middle = len(rows) // 2
    return [rows[middle] if len(rows) % 2 else rows[middle - 1] + rows[middle]]


def compare(holders: Sequence[Inputs], limits: Limits) -> Sequence[Value]:  # noqa: ARG001
    """Is the total of `a` below that of `b`? 1 or 0 in each cell."""
    return [_total(holders, "a") < _total(holders, "b")]


def dominance(holders: Sequence[Inputs], limits: Limits) -> Sequence[Value]:
    """Which cells fail the (n,k) rule or the p% rule on the pooled contributors: 1 or 0 in each, and not which rule.

    total: a holder's total in each cell; largest: its one or two largest contributors' figures in each, the largest
    first. No contributor is at two holders. With X the pooled total and x1, x2 the largest contributors, a cell fails
    where x1 (+ x2) > k % of X, and where X - x1 - x2 < p % of x1 (Hundepool et al. 2012, chapter 4). For n above 2 all
    contributors but the first count as x2, which can only make more cells fail.
    """
    first, second = _tournament([list(_rows(inputs["largest"])) for inputs in holders], 2)
    return [_fails(_total(holders, "total"), first, second, limits)]


def dominance_spanning(holders: Sequence[Inputs], limits: Limits) -> Sequence[Value]:
    """As `dominance`, where a contributor may have figures at several holders: some cells fail that need not.

    Of any n contributors a holder has at most its largest figure and n - 1 times its second. So with s1 and s2 the sums
    over holders of their largest and of their second figures, x1 <= s1, x1 + x2 <= s1 + s2 and x1 + ... + xn <=
    s1 + (n - 1) s2, and both rules fail sooner the larger the left sides are: whatever holders share, no unsafe cell
    passes.
    """
    rows = [list(_rows(inputs["largest"])) for inputs in holders]
    first, *others = (_sum([row[i] for row in rows]) for i in range(len(rows[0])))
    return [_fails(_total(holders, "total"), first, others[0] if others else 0 * first, limits)]


def _fails(total: Value, first: Value, second: Value, limits: Limits) -> Value:
    """1 where the (n,k) rule or the p% rule fails, else 0."""
    found = []
    if limits.k is not None:
        top = first if limits.n == 1 else first + (limits.n - 1) * second
        found.append(total * round(limits.k * 100) < top * HUNDRED)
    if limits.p is not None:
        found.append((total - first - second) * HUNDRED < first * round(limits.p * 100))
    one, *other = found
    return 1 - (1 - one) * (1 - other[0]) if other else one


def ratio(holders: Sequence[Inputs], limits: Limits) -> Sequence[Value]:
    """The total of `a` over that of `b`, in units of 2^-fraction, towards zero; all ones where it is too large.

    Long division, one secure comparison a digit: exact, and nothing but the quotient exists outside shares. A quotient
    of 2^whole or more is found first, since its remainder would outgrow the width; dividing by 0 is one of those.
    """
    rest, divisor = _total(holders, "a"), _total(holders, "b")
    sign = 1 - 2 * (rest < 0 * rest)
    rest = sign * rest
    over = 1 - (rest < divisor * 2**limits.whole)
    rest = rest - over * rest
    quotient = 0 * rest
    for place in range(limits.whole - 1, -limits.fraction - 1, -1):
        if place < 0:
            rest = 2 * rest
        part = divisor * 2 ** max(place, 0)
        digit = 1 - (rest < part)
        rest = rest - digit * part
        quotient = 2 * quotient + digit
    most = 2 ** (limits.whole + limits.fraction) - 1
    return [sign * (quotient + over * (most - quotient))]


FUNCTIONS: Mapping[str, Function] = {
    "maximum": Function(("value",), "the largest holder's figure in each cell", 1, maximum),
    "top-two": Function(("value",), "the two largest holders' figures in each cell", 2, top_two),
    "median": Function(("value",), "the median of the holders' figures in each cell", 1, median),
    "compare": Function(("a", "b"), "in which cells the total of a is below that of b", 1, compare),
    "dominance": Function(
        ("total", "largest"), "which cells fail the (n,k) or the p% rule", 1, dominance, positive=("total", "largest")
    ),
    "dominance-spanning": Function(
        ("total", "largest"),
        "which cells fail the (n,k) or the p% rule, for certain or because of contributors that holders share",
        1,
        dominance_spanning,
        positive=("total", "largest"),
    ),
    "ratio": Function(("a", "b"), "the quotient of two totals in each cell", 1, ratio, free=True, positive=("b",)),
}


def _row(value: Value) -> Value:
    return value[0]


def _rows(value: Value) -> list[Value]:
    return [value[i] for i in range(value.shape[0])]


def _total(holders: Sequence[Inputs], slot: str) -> Value:
    return _sum([_row(inputs[slot]) for inputs in holders])


def _sum(values: Sequence[Value]) -> Value:
    found = values[0]
    for value in values[1:]:
        found = found + value
    return found


def _tournament(entrants: Sequence[list[Value]], best: int) -> list[Value]:
    """The `best` (1 or 2) largest figures of all entrants, each with its own largest first."""
    round_ = [entrant[:best] for entrant in entrants]
    while len(round_) > 1:
        pairs = [_match(a, b, best) for a, b in zip(round_[::2], round_[1::2], strict=False)]
        round_ = pairs + (round_[-1:] if len(round_) % 2 else [])
    (winner,) = round_
    return winner if len(winner) == best else [*winner, 0 * winner[0]]


def _match(a: list[Value], b: list[Value], best: int) -> list[Value]:
    """The largest figures of two entrants. The loser of the first comparison meets the winner's second."""
    less = a[0] < b[0]
    first = a[0] + less * (b[0] - a[0])
    if best == 1:
        return [first]
    second = a[0] + b[0] - first
    if len(a) == len(b) == 1:
        return [first, second]
    longer = a if len(a) == 2 else b  # where an entrant with one figure won, the other's second is no rival, and loses
    rival = a[1] + less * (b[1] - a[1]) if len(a) == len(b) else longer[1]
    return [first, second + (second < rival) * (rival - second)]


def _network(count: int) -> list[tuple[int, int]]:
    """Batcher's odd-even merge exchange sort (Knuth 1998, algorithm 5.2.2M): pairs to put in order."""
    if count < 2:
        return []
    found = []
    top = 1 << ((count - 1).bit_length() - 1)
    p = top
    while p:
        q, r, d = top, 0, p
        while True:
            found += [(i, i + d) for i in range(count - d) if i & p == r]
            if q == p:
                break
            d, q, r = q - p, q >> 1, p
        p >>= 1
    return found
