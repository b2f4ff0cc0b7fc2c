"""Fixed point: contributions as whole numbers whose sum over holders is exact, for protections that add modulo 2^k.

A `Layout` is made from public facts alone, so that both ends make the same. An entry gets a unit (a power of two, 1
for whole numbers) with which the largest possible total still fits; so no sum can wrap, whatever the data. A holder's
value outside its own share of the range is an error at that holder, never clipped: that is also the only bound on a
contribution that a protection which hides it can have checked, and the holder's own software is who checks it.

A unit is relative to bounds, which may be any number of times wider than the data; a sum of squares has the square of
that, and of values that do not differ it is some 10^-32 of theirs. So a layout of figures (`fine`), as those of all
statistics are,

- has words of 192 bits, with units of 2^-189 of the range, unless all its entries are whole numbers or it is longer
  than `LONGEST`: bounds 10^20 times wider than the data then leave 10^-12 of a variance;
- rounds no value but 0 to 0: a total of 0 is then one of zeros (or of terms that cancel), not of what was lost;
- states what every total may be off by (`resolution`), which the coordinator holds against the result
  (`statfed.core.resolution`): what a figure needs of it is known from the result alone.

Entries without a finite bound (a score of a generalised linear model, say) make the whole vector wide too, with a unit
of 2^-80 for themselves, which holds any float64 of practical size without loss.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import EngineError, Refused
from statfed.core.method import Arrays, Part

Bits = Literal[32, 64, 192]
HEADROOM = 2.0  # a public number of records may be out of date; the range is for twice as many
MOST_RECORDS = 2**40  # of all holders: so no unit is coarser than 2^-19 of the largest value of one record
LONGEST = 2**18
"""Entries of figures at most for which words are wide so as to be fine: 24 bytes an entry, and Python integers."""
WIDE_UNIT = 2.0**-80
"""Unit of entries without a finite bound."""
_ROUNDED = 1.0 + 2.0**-50  # a part over the whole, times the whole, may come out below the part
_WIDE_EXPONENT, _WIDE_RANGE = -80, 2.0**110
_OUTSIDE = "total: {}: got a sum outside the agreed range; a contribution did not keep to it"
_PIECE = 1 << 15


@dataclass(frozen=True)
class Slot:
    """One array of a contribution. limit: no holder's entry is larger than this times its share, in absolute value.

    limit: one number, or one per entry of `shape`, of the total over holders; infinite where nothing is known.
    integer: whole numbers. update: a model update, layer after layer: a study may let leading entries of it travel
    in clear, and of no other array.
    """

    shape: tuple[int, ...]
    limit: float | NDArray[np.float64]
    integer: bool = False
    update: bool = False


@dataclass(frozen=True)
class Layout:
    """How named arrays become one vector of whole numbers. slots: by name; holders: how many add up.

    share: own part of the range, 1 for everything (`for_holder`). narrow: allow 32-bit words where entries are not
    whole numbers, at a precision of 2^-30 of the range (model updates). even: holders have equal shares of the range,
    whatever their numbers of records (noise). fine: figures of statistics, see the module.
    """

    slots: Mapping[str, Slot]
    holders: int
    share: float = 1.0
    narrow: bool = False
    even: bool = False
    fine: bool = False

    @cached_property
    def entries(self) -> int:
        """Length of the vector."""
        return sum(math.prod(slot.shape) for slot in self.slots.values())

    @cached_property
    def places(self) -> Mapping[str, slice]:
        """Where each slot lies in the vector, in order: that of the names."""
        found, start = {}, 0
        for name, slot in sorted(self.slots.items()):
            found[name] = slice(start, start := start + math.prod(slot.shape))
        return found

    @cached_property
    def bits(self) -> Bits:
        """Width of a word of the vector: totals are whole numbers in [-2^(bits - 2), 2^(bits - 2)]."""
        limits = [np.asarray(slot.limit, np.float64) for slot in self.slots.values()]
        if not all(np.isfinite(limit).all() for limit in limits):
            return 192
        whole = max((float(_max(s.limit)) for s in self.slots.values() if s.integer), default=0.0)
        if whole > 2.0**62:
            return 192
        if self.fine and self.entries <= LONGEST and not all(slot.integer for slot in self.slots.values()):
            return 192
        small = whole <= 2.0**30 and (self.narrow or all(slot.integer for slot in self.slots.values()))
        return 32 if small else 64

    def resolution(self, holders: int) -> dict[str, NDArray[np.float64]]:
        """What each entry of a total over so many holders may be off by, by slot; 0 for whole numbers.

        Half a unit for each rounding, or a whole one where none but 0 becomes 0.
        """
        each = holders * (1.0 if self.fine else 0.5)
        found = {}
        for name, slot in self.slots.items():
            units = np.zeros(()) if slot.integer else np.ldexp(each, self._exponent(slot))
            found[name] = np.broadcast_to(np.asarray(units, np.float64), slot.shape).copy()
        return found

    def for_holder(self, share: float) -> "Layout":
        """The layout of a holder whose values may use `share` of the range."""
        return replace(self, share=share)

    def encode(self, arrays: Arrays, word: type[np.int32] | type[np.int64] = np.int64) -> NDArray[Any]:
        """Whole numbers, (entries,): of type `word`, or Python integers (dtype object) in a wide layout.

        arrays: private, by slot name. word: int32 only where `bits` is 32. Raises EngineError on other names or shapes
        and on values that are not finite; Refused on one outside this holder's share of the range, naming the slot and
        never the value.
        """
        if set(arrays) != set(self.slots):
            raise EngineError(f"encoding: got {', '.join(sorted(arrays))}; want {', '.join(sorted(self.slots))}")
        found: NDArray[Any] = np.empty(self.entries, object if self.bits == 192 else word)
        for name, place in self.places.items():
            slot, array = self.slots[name], np.asarray(arrays[name])
            if array.shape != slot.shape:
                raise EngineError(f"encoding: {name}: got shape {array.shape}; want {slot.shape}")
            if slot.integer and not np.issubdtype(array.dtype, np.integer):
                raise EngineError(f"encoding: {name}: got {array.dtype}; want whole numbers")
            self._check(name, slot, array)
            self._fill(slot, array.reshape(-1), found[place])
        return found

    def _check(self, name: str, slot: Slot, array: NDArray[Any]) -> None:
        if not array.size:
            return
        most = np.asarray(slot.limit, np.float64) * (self.share * _ROUNDED)
        if np.ndim(slot.limit) == 0:
            low, high = float(array.min()), float(array.max())
            inside = max(-low, high) <= float(most)
        else:
            low = high = 0.0
            inside = bool((np.abs(array.astype(np.float64)) <= most).all())
        if not (math.isfinite(low) and math.isfinite(high)) or (not inside and not np.isfinite(array).all()):
            raise EngineError(f"encoding: {name}: got values that are not finite")
        if inside and self.bits == 192:
            unbounded = ~np.isfinite(np.broadcast_to(slot.limit, slot.shape))
            inside = bool((np.abs(array.astype(np.float64))[unbounded] < _WIDE_RANGE / self.holders).all())
        if not inside:
            raise Refused(
                f"encoding: {name}: got a value outside the range that its bounds and the declared number of records "
                "allow; want bounds and dataset.records that fit the data"
            )

    def _exponent(self, slot: Slot) -> NDArray[np.int64]:
        """Binary exponent of the unit of each entry, () or the slot's shape."""
        limit = np.maximum(np.asarray(slot.limit, np.float64), 2.0**-900)
        if slot.integer:
            return np.zeros(limit.shape, np.int64)
        bounded = np.isfinite(limit)
        exponent = np.frexp(np.where(bounded, limit, 1.0))[1] - (self.bits - 3)  # limit < 2^e; half a bit for rounding
        return np.asarray(np.where(bounded, exponent, _WIDE_EXPONENT), np.int64)

    def _fill(self, slot: Slot, flat: NDArray[Any], out: NDArray[Any]) -> None:
        """Put whole numbers into `out`, which is as long as `flat`."""
        if self.bits == 192:
            whole = flat if slot.integer else self._rounded(flat, self._exponent(slot).reshape(-1))
            shift = -_WIDE_EXPONENT if slot.integer else 0
            out[:] = [int(x) << shift for x in whole.tolist()]
        elif slot.integer:
            out[:] = flat
        else:
            exponent = self._exponent(slot).reshape(-1)
            if len(exponent) == 1 and -900 < exponent[0] < 900 and not self.fine:
                _scale(flat, math.ldexp(1.0, -int(exponent[0])), out)
            else:
                out[:] = self._rounded(flat, exponent)

    def _rounded(self, flat: NDArray[Any], exponent: NDArray[np.int64]) -> NDArray[np.float64]:
        """Values in units, as whole numbers. Where the layout is `fine`, of 1 at least unless they are 0."""
        values = flat.astype(np.float64)
        units = np.rint(np.ldexp(values, -exponent))
        return np.where((units == 0) & (values != 0), np.sign(values), units) if self.fine else units

    def decode(self, total: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Arrays by slot name from a total of `encode`s: int64 for whole numbers, else float64.

        Raises EngineError on a total that is out of range: some holder sent what its layout does not allow.
        """
        if total.shape != (self.entries,):
            raise EngineError(f"total: got shape {total.shape}; want ({self.entries},)")
        most = 1 << (self.bits - 2)
        if self.entries and (int(total.max()) > most or int(total.min()) < -most):
            raise EngineError("total: got a sum outside the agreed range; a contribution did not keep to it")
        found = {}
        for name, place in self.places.items():
            slot, flat = self.slots[name], total[place]
            if self.bits == 192:
                if slot.integer:
                    whole = [int(x) >> -_WIDE_EXPONENT for x in flat.tolist()]
                    if any(abs(x) >= 1 << 63 for x in whole):
                        raise EngineError(_OUTSIDE.format(name))
                    values: NDArray[Any] = np.array(whole, np.int64)
                else:
                    values = np.ldexp([float(x) for x in flat.tolist()], self._exponent(slot).reshape(-1))
            elif slot.integer:
                values = flat.astype(np.int64)
            else:
                exponent = self._exponent(slot)
                plain = exponent.ndim == 0 and -900 < exponent < 900  # powers of 2: no product is rounded
                values = flat * math.ldexp(1.0, int(exponent)) if plain else np.ldexp(flat, exponent.reshape(-1))
            self._within(name, slot, values)
            found[name] = values.reshape(slot.shape)
        return found

    def _within(self, name: str, slot: Slot, values: NDArray[Any]) -> None:
        limit = np.asarray(slot.limit, np.float64).reshape(-1) * (1.0 + 2.0**-20)  # every holder rounds once
        if len(limit) == 1:
            inside = not values.size or max(-float(values.min()), float(values.max())) <= limit[0]
        else:
            inside = bool((np.abs(values.reshape(-1).astype(np.float64, copy=False)) <= limit).all())
        if not inside:
            raise EngineError(_OUTSIDE.format(name))


def _scale(flat: NDArray[Any], scale: float, out: NDArray[Any]) -> None:
    """Put the whole numbers next to `flat` times a power of 2 into `out`, piece by piece: what lies between stays in
    the processor's cache."""
    buffer = np.empty(min(len(flat), _PIECE))
    for start in range(0, len(flat), _PIECE):
        piece = buffer[: len(flat) - start]
        np.multiply(flat[start : start + _PIECE], scale, out=piece)
        np.rint(piece, out=piece)
        out[start : start + _PIECE] = piece


def layout_of(parts: Mapping[str, Part], sizes: Mapping[str, int], *, fine: bool = True) -> Layout:
    """The layout for sums of `parts` over records. sizes: public number of records by holder; fine: they are figures of
    statistics."""
    records = HEADROOM * sum(sizes.values())
    slots = {name: Slot(p.shape, np.asarray(p.bound, np.float64) * records, p.integer) for name, p in parts.items()}
    return Layout(slots, len(sizes), fine=fine)


def _max(limit: float | NDArray[np.float64]) -> float:
    return float(np.max(limit, initial=0.0))
