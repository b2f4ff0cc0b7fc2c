"""The holders' halves of an ECDH linkage: the matcher, who compares and counts, and the mirror, who blinds again."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import Malformed, Refused, StatfedError, UsageError
from statfed.core.identity import Identity
from statfed.core.linkage import Pairs, Units
from statfed.core.protection import Agreement, Packet, text
from statfed.strategies.linkages import _ristretto as group
from statfed.strategies.linkages._channels import MEET, OFFER, TAG, Channels
from statfed.strategies.linkages._ecdh_list import own_list
from statfed.strategies.linkages._ecdh_plan import FIRST, OWN, SECOND, SIZE, TOTAL, Plan, plan_of
from statfed.strategies.linkages._elgamal import Digits, Key, Sums
from statfed.strategies.linkages._ristretto import Points

NUMBER, CHUNK, SUMS, WITHHELD = "number", "chunk", "sums", "withheld"
"""Items of packets: which message of a stage; what is relayed; sums for the owner of the columns; nothing is told."""


class Half(ABC):
    """What both halves have in common: stages in their order, each once, messages of the agreed length, then silence.

    The last answer is given again, byte by byte, to the same request: a reply that was lost on the way costs nothing.
    """

    def __init__(self, agreement: Agreement, identity: Identity, units: Units, keep: Path | None) -> None:
        self._plan: Plan = plan_of(agreement)
        self._name = identity.name
        self._other = next(name for name in agreement.holders if name != identity.name)
        self._list = own_list(agreement, identity.name, units, keep)
        self._channels = Channels(agreement, identity)
        self._script: Iterator[tuple[str, int]] = self._plan.script()
        self._last: tuple[bytes, Packet] = (b"", {})
        self._seen = hashlib.sha256()
        self.standing = ("", 0, 1)
        self.matched: NDArray[np.int64] | None = None
        """Which of this holder's units have matched, ascending; where pairs are revealed to it, at the end."""

    @property
    def pairs(self) -> Pairs | None:
        """The same, numbered: the other holder is told none."""
        return None if self.matched is None else Pairs(self.matched, np.arange(len(self.matched)))

    def answer(self, stage: str, packet: Packet) -> Packet:
        """Answer one stage. After a refusal there is no other answer: a fresh attempt has fresh channels."""
        asked = _digest(stage, packet)
        if asked == self._last[0]:
            return self._last[1]
        try:
            reply = self._answered(stage, packet)
        except StatfedError:
            self._script = iter(())
            raise
        self._last = asked, reply
        return reply

    def _answered(self, stage: str, packet: Packet) -> Packet:
        want = next(self._script, None)
        number = text(packet, NUMBER) if NUMBER in packet else b"0"
        if want is None or (stage.encode(), number) != (want[0].encode(), b"%d" % want[1]):
            due = "none" if want is None else f"{want[0]} {want[1]}"
            raise Malformed(f"stage: got one that is not due; want {due}")
        if stage == OFFER:
            return self._channels.offer()
        if stage == MEET:
            return self._channels.meet(packet)
        reply = self._listed(stage, want[1], packet)
        self.standing = self._plan.standing(stage, want[1] + 1)
        return reply

    @abstractmethod
    def _listed(self, stage: str, number: int, packet: Packet) -> Packet:
        """Answer a stage of the lists or the sums, which is due."""

    def _gives(self, stage: str, number: int, content: bytes) -> Packet:
        return {CHUNK: self._channels.seal(self._other, f"{stage} {number}", content)}

    def _takes(self, stage: str, number: int, packet: Packet, size: int, item: str = CHUNK) -> bytes:
        """What the other has sealed, `size` bytes. Raises Refused before it is opened where it has another length."""
        sealed = text(packet, item)
        if len(sealed) != size + TAG:
            raise Malformed(f"{stage} {number}: got {len(sealed)} bytes of {self._other}; want {size + TAG}")
        return self._channels.open(self._other, f"{stage} {number}", sealed)

    def _blinded_again(self, number: int, points: Points) -> Points:
        """The other's points of its first pass, times this holder's scalar."""
        self._seen.update(points.tobytes())
        return self._list.blinded(number, points, self._other)

    def _complete(self, blinded: Points) -> None:
        """The other's list is there, sorted in `blinded`. Raises Refused where a point is there twice, or it is another
        list than at the first attempt."""
        if not group.ascending(blinded):
            raise Refused(f"points: got one of {self._other} twice; want each once")
        self._list.commit(self._seen.digest())


class Matcher(Half):
    """Sends its list, gets it back blinded twice, blinds the other's twice, and compares."""

    _returned: Points
    _order: NDArray[np.int64] | None = None  # places of its own list, where what came back is in that order
    _theirs: Points
    _sums: Sums | None = None

    def _listed(self, stage: str, number: int, packet: Packet) -> Packet:
        if stage == FIRST:
            return self._gives(stage, number, self._list.chunk(number).tobytes())
        if stage == SECOND:
            return self._got_back(number, packet)
        if stage == OWN:
            return self._compared(number, packet)
        raise Refused(f"stage: got {stage}; want none of it")

    def _got_back(self, number: int, packet: Packet) -> Packet:
        rows, start = self._plan.rows(self._name, number), number * self._plan.options.chunk
        points = group.points_of(self._takes(SECOND, number, packet, rows * group.SIZE))
        if not number:
            self._returned = np.empty((self._plan.slots[self._name], group.SIZE), np.uint8)
        self._returned[start : start + rows] = group.checked(points, self._other)
        if number + 1 == self._plan.chunks(self._name):
            if self._plan.options.reveal == "pairs":
                self._order = np.argsort(group.rows(self._returned))
                self._returned = self._returned[self._order]
                if not group.ascending(self._returned):
                    raise Refused(f"points: got one of {self._other} twice; want each once")
            elif not group.ascending(self._returned):
                raise Refused(
                    f"points: got them from {self._other} unsorted or twice; want each once, in order of bytes"
                )
            self._hit = np.zeros(len(self._returned), bool)
        return {}

    def _compared(self, number: int, packet: Packet) -> Packet:
        rows, start = self._plan.rows(self._other, number), number * self._plan.options.chunk
        if not number:
            self._theirs = np.empty((self._plan.slots[self._other], group.SIZE), np.uint8)
        digits = Digits(tuple(self._plan.options.columns.values())).count if self._plan.options.columns else 0
        keys, width = (0 if number else digits), (1 + digits if digits else 0)
        content = self._takes(OWN, number, packet, (keys + rows + rows * width) * group.SIZE)
        public, points, ciphertexts = np.split(group.points_of(content), [keys, keys + rows])
        blinded = self._blinded_again(number, points)
        self._theirs[start : start + rows] = blinded
        places = group.found(blinded, self._returned)
        self._hit[places[places >= 0]] = True
        if digits:
            if not number:
                self._sums = Sums(public, self._other)
            if self._sums is not None:
                self._sums.add(ciphertexts, places >= 0)
        return self._counted() if number + 1 == self._plan.chunks(self._other) else {}

    def _counted(self) -> Packet:
        """What is told of the figure: nothing of a size below the minimum."""
        group.sort(self._theirs)
        self._complete(self._theirs)
        size = int(self._hit.sum())
        if self._order is not None:
            self.matched = np.sort(self._list.unit_at(self._order[self._hit]))
        told = size
        if self._plan.noise is not None:
            none = dict.fromkeys(self._plan.options.columns, np.array(0.0))
            told = int(self._plan.noise.add({SIZE: np.array(size), **none}, self._list.noise())[SIZE])
        if told < self._plan.options.minimum:
            return {WITHHELD: b"1"}
        reply: dict[str, bytes | NDArray[np.int64]] = {SIZE: np.array(told)}
        if self._sums is not None:
            content = self._sums.finished().tobytes()
            reply[SUMS] = self._channels.seal(self._other, f"{TOTAL} 0", content)
        return reply


class Mirror(Half):
    """Blinds the matcher's list again and gives it back, then gives its own, with encrypted values where there are
    totals, and reads their sums."""

    def __init__(self, agreement: Agreement, identity: Identity, units: Units, keep: Path | None) -> None:
        super().__init__(agreement, identity, units, keep)
        self._columns = self._plan.options.columns
        self._digits = Digits(tuple(self._columns.values()))
        self._values = _values(self._plan, units) if self._columns else None
        self._key = Key.fresh(self._digits.count) if self._columns else None

    _blinded: Points

    def _listed(self, stage: str, number: int, packet: Packet) -> Packet:
        if stage == FIRST:
            return self._blinds(number, packet)
        if stage == SECOND:
            rows, start = self._plan.rows(self._other, number), number * self._plan.options.chunk
            return self._gives(stage, number, self._blinded[start : start + rows].tobytes())
        if stage == OWN:
            return self._gives(stage, number, self._listed_own(number))
        return self._totalled(packet)

    def _blinds(self, number: int, packet: Packet) -> Packet:
        rows, start = self._plan.rows(self._other, number), number * self._plan.options.chunk
        points = group.points_of(self._takes(FIRST, number, packet, rows * group.SIZE))
        if not number:
            self._blinded = np.empty((self._plan.slots[self._other], group.SIZE), np.uint8)
        self._blinded[start : start + rows] = self._blinded_again(number, points)
        if number + 1 == self._plan.chunks(self._other):
            # in order of their bytes the points say nothing of the order in which they came
            in_order = self._blinded.copy() if self._plan.options.reveal == "pairs" else self._blinded
            group.sort(in_order)
            self._complete(in_order)
        return {}

    def _listed_own(self, number: int) -> bytes:
        size = self._plan.options.chunk
        content = self._list.chunk(number).tobytes()
        if self._key is None or self._values is None:
            return content
        units = self._list.order[number * size : (number + 1) * size]
        known = units < len(self._values)
        digits = np.zeros((len(units), self._digits.count), np.int64)
        digits[known] = self._values[units[known]]
        public = b"" if number else self._key.public.tobytes()
        return public + content + self._key.encrypted(digits).tobytes()

    def _totalled(self, packet: Packet) -> Packet:
        if self._key is None:
            raise Refused("stage: got sums; want none: there are no totals")
        content = self._takes(TOTAL, 0, packet, (1 + self._digits.count) * group.SIZE, SUMS)
        items = min(self._plan.slots.values())
        sums = self._key.decrypted(group.points_of(content), self._digits.bounds, items, self._other)
        told = {name: np.array(value) for name, value in zip(self._columns, self._digits.read(sums), strict=True)}
        if self._plan.noise is not None:
            noisy = self._plan.noise.add({SIZE: np.array(0), **told}, self._list.noise())
            told = {name: noisy[name] for name in self._columns}
        return told


def _values(plan: Plan, units: Units) -> NDArray[np.int64]:
    """The digits of a holder's columns, (n, digits). Raises UsageError where one is missing or beyond its bounds."""
    count, found = units.count, []
    for name, column in plan.options.columns.items():
        value = units.columns.get(name)
        if value is None or value.shape != (count,):
            raise UsageError(f"columns: got no {name} of every unit; want one number each")
        if not ((value >= column.low) & (value <= column.high)).all():
            raise UsageError(f"columns: got {name} beyond its bounds; want every value in them, none missing")
        found.append(np.asarray(value, np.float64))
    return Digits(tuple(plan.options.columns.values())).written(found)


def half(agreement: Agreement, identity: Identity, units: Units | None, keep: Path | None) -> Matcher | Mirror:
    """A holder's half. Raises UsageError on anybody else's."""
    role = plan_of(agreement).role(identity.name)
    if units is None:
        raise UsageError(f"ecdh: got no units of {identity.name}; want a holder's own")
    return (Matcher if role == "matcher" else Mirror)(agreement, identity, units, keep)


def _digest(stage: str, packet: Packet) -> bytes:
    """Of a request. Raises UsageError where it has anything but bytes."""
    found = hashlib.sha256(f"{len(stage)}:{stage}".encode())
    for name in sorted(packet):
        item = text(packet, name)
        found.update(f"{len(name)}:{name}{len(item)}:".encode())
        found.update(item)
    return found.digest()
