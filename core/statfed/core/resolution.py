"""Is a result finer than the encoding of the totals that it is made of? Of any method, by doing its last part again.

A total states what each entry may be off by (`Total.resolution`). What that does to a figure (a standard error from a
difference of sums of squares, say) only the method knows, and it says so in `coordinate`: a function of the totals. So
the coordinator goes through `coordinate` again with totals moved by as much at random, and refuses a result of which a
figure moves.

- Moved are entries where adding the resolution makes another float64: no other could make another result. With the
  wide words of `statfed.core.fixed_point` and bounds that fit the data there is hardly any, and mostly nothing is done
  again.
- A total of 0 stays: no value but 0 is rounded to 0.
- Each entry moves by `MARGIN` times its resolution, up or down as a fair coin says; then all the other way. To first
  order a figure moves by sum_i g_i e_i s_i with independent signs s_i, whose square is the sum of (g_i e_i)^2 in the
  mean, and what was truly rounded is at most as large in the mean by a factor of 1 / MARGIN; a second pair of draws
  makes it unlikely that terms cancel in both. The opposite draw is for figures that are cut off, such as a variance
  at 0.
- A figure may move by `TOLERANCE` of itself, or by `GRAIN` of the largest figure of its row (or of the facts): less
  than that float64 does not tell apart where a figure is a difference, under any protection.
- Asks of the second time are answered by what the first one was told, in order. A method that goes on longer, since
  rounding decides when it has converged, gets the last total of such an ask again; one that takes another course has
  no result that can be told from its rounding, and is refused.

Centres and other parameters that follow from earlier totals move as well, and the totals about them do not follow: so a
figure may seem to move more than it does, never less.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from statfed.core.errors import Refused, StatfedError
from statfed.core.fixed_point import LONGEST
from statfed.core.method import Ask, Coordination, Total
from statfed.core.randomness import stream
from statfed.core.result import Result, Row

TOLERANCE = 1e-6
"""Of a figure, relative: what it may differ by from that of the same study without encoding."""
GRAIN = 2.0**-44
"""Of the largest figure beside it."""
MARGIN = 4.0
DRAWS = 2
_LONGER = 20  # asks more than the first time


@dataclass(frozen=True)
class Told:
    """One ask of a run and what the method was told."""

    ask: Ask
    answer: Total | Refused


class _Astray(Exception):
    """Another course than the first time."""


def check(begin: Callable[[], Coordination], told: Sequence[Told], result: Result, protection: str) -> None:
    """Raises Refused where a figure of `result` is not known to within `TOLERANCE`.

    The result has not passed the rules of the release: named is the kind of figure, never its row, and neither its
    value nor how far it moves, which tells of the value.

    begin: the coordination again, from the start; told: all its asks, in order, and the answers.
    """
    coarse = [one for one in told if isinstance(one.answer, Total) and _moves(one.answer)]
    if not coarse:
        return
    for draw in range(DRAWS):
        for way in (1.0, -1.0):
            try:
                other = _again(begin(), told, draw, way)
            except _Astray:
                where = "the course of the method"
            except (ArithmeticError, ValueError, StatfedError):
                where = "whether there is a result"
            else:
                found = moved(result, other)
                if found is None:
                    continue
                where = found[0]
            raise Refused(f"{where}: {_why(coarse, protection)}")


def moved(one: Result, other: Result) -> tuple[str, float] | None:
    """The figure that differs most beyond what may be, and by how much of itself; None where none does."""
    worst: tuple[str, float] | None = None
    for where, a, b, beside in _figures(one, other):
        off = abs(a - b)
        if off <= max(TOLERANCE * abs(a), GRAIN * beside):
            continue
        relative = off / abs(a) if a else math.inf
        if worst is None or not relative <= worst[1]:
            worst = where, relative
    return worst


def _again(run: Coordination, told: Sequence[Told], draw: int, way: float) -> Result:
    """The result with every total moved."""
    answer: Total | Refused | None = None
    for number in range(len(told) + _LONGER):
        try:
            ask = run.throw(answer) if isinstance(answer, Refused) else run.send(answer)  # type: ignore[arg-type]
        except StopIteration as end:
            found: Result = end.value
            return found
        at = min(number, len(told) - 1)
        was = told[at]
        alike = was.ask.name == ask.name and _shapes(was.ask) == _shapes(ask)
        if not alike:
            break
        answer = was.answer if isinstance(was.answer, Refused) else _moved(was.answer, draw, at, way)
    raise _Astray


def _shapes(ask: Ask) -> dict[str, tuple[int, ...]]:
    return {name: np.shape(array) for name, array in ask.arrays.items()}


def _moves(total: Total) -> bool:
    return any(np.any(_seen(total, name)) for name in total)


def _seen(total: Total, name: str) -> Any:
    """Entries that another total within the resolution could tell apart."""
    off = total.resolution[name]
    if not np.any(off):
        return np.zeros(np.shape(off), np.bool_)
    values = np.asarray(total[name], np.float64)
    return (values != 0) & (np.abs(values) + MARGIN * off != np.abs(values))


def _moved(total: Total, draw: int, number: int, way: float) -> Total:
    arrays = {}
    for name in total:
        seen = _seen(total, name)
        arrays[name] = total[name]
        if np.any(seen):
            words = stream(0, "resolution", draw, number, name).words(seen.size).reshape(seen.shape)
            signs = np.where(words & np.uint64(1), way, -way)
            step = np.where(seen, MARGIN * total.resolution[name], 0.0)
            arrays[name] = np.asarray(total[name], np.float64) + signs * step
    return Total(arrays, total.noise, total._each, total.sizes, total.holders, total.resolution)


def _figures(one: Result, other: Result) -> Iterator[tuple[str, float, float, float]]:
    """Numbers that are not whole, of both results, with the largest beside them: those for rules alone left out."""
    for name, rows in one.tables.items():
        others = other.tables.get(name, ())
        if len(others) != len(rows):
            yield f"number of rows of {name}", 0.0, math.inf, 0.0
            return
        basis = one.basis_of(name)
        places = (*basis.secret, *basis.places) if basis else ()
        for row, same in zip(rows, others, strict=True):
            for key, a, b, beside in _pairs(row, same, places):
                yield f"{key} of {name}", a, b, beside
    yield from _pairs(one.facts, other.facts, one.public)
    for name, given in one.arrays.items():
        array, again = np.asarray(given, np.float64), np.asarray(other.arrays.get(name), np.float64)
        if array.size:
            off = float(np.max(np.abs(array - again))) if array.shape == again.shape else math.inf
            largest = float(np.max(np.abs(array)))
            yield name, largest, largest + off, 0.0


def _pairs(row: Row, other: Row, left_out: Sequence[str]) -> Iterator[tuple[str, float, float, float]]:
    numbers = {key: value for key, value in row.items() if _real(value) and key not in left_out}
    beside = max((abs(float(value)) for value in numbers.values()), default=0.0)  # type: ignore[arg-type]
    for key, value in row.items():
        same = other.get(key)
        if key in numbers or (_real(same) and key not in left_out):
            known = isinstance(same, int | float) and isinstance(value, int | float)
            yield key, float(value or 0.0), float(same or 0.0) if known else math.inf, beside


def _real(value: object) -> bool:
    return isinstance(value, float | np.floating) and math.isfinite(value)


def _why(coarse: Sequence[Told], protection: str) -> str:
    """The coarsest total beside what it is."""
    found: tuple[float, str, float] = (0.0, "", 0.0)
    for one in coarse:
        if isinstance(one.answer, Total):
            for name in one.answer:
                seen = _seen(one.answer, name)
                if np.any(seen):
                    off = one.answer.resolution[name][seen]
                    relative = off / np.abs(np.asarray(one.answer[name], np.float64)[seen])
                    worst = int(np.argmax(relative))
                    found = max(found, (float(relative[worst]), f"{one.ask.name}.{name}", float(off[worst])))
    return (
        f"got from totals that {protection} rounds: an entry of {found[1]} to {found[2]:.1e}, which may move it by "
        f"more than {TOLERANCE:g} of itself; "
        "want bounds in the codebook nearer to the data, of the columns that are read (bounds, weights and numbers of "
        f"records set the unit), at most {LONGEST:,} cells, or a protection that adds numbers as they are"
    )
