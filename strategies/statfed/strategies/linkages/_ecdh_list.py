"""A holder's own list: keys in a secret order, filled up, hashed and blinded by a scalar of this agreement alone.

The blinded points can be made before parties meet, and kept in a file for another attempt under the same agreement. The
same scalar in two agreements would let the other holder see which units have stayed, and would answer it about a second
list of its own. So a list is bound to its agreement, to the units, and, once the other's list has come, to that list.
The file is as secret as the keys are: with the scalar, every guess of a key can be tried on the points.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import Refused, UsageError
from statfed.core.linkage import Units
from statfed.core.protection import Agreement
from statfed.core.randomness import Stream, stream
from statfed.strategies.linkages import _ristretto as group
from statfed.strategies.linkages._ecdh_plan import Plan, plan_of
from statfed.strategies.linkages._ristretto import Points

_FIELDS = ("context", "units", "scalar", "order", "points", "partner")


@dataclass
class List:
    """One holder's list. Private.

    keys: of its units; order: (slots,) the unit at each place, as many as there are or more where it is filled up;
    points: (slots, 32) of the first pass where it was made ahead; partner: digest of the other's list, empty until that
    has come; path: where all this is kept.
    """

    context: bytes
    units: bytes
    scalar: bytes
    order: NDArray[np.int64]
    keys: Sequence[str | None] = field(repr=False)
    points: Points | None = None
    partner: bytes = b""
    path: Path | None = None

    def __repr__(self) -> str:
        return "List(<private>)"

    def chunk(self, number: int, size: int) -> Points:
        """The blinded points at the places of message `number`."""
        places = slice(number * size, (number + 1) * size)
        return self._blinded(places) if self.points is None else self.points[places]

    def unit_at(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The units at places of the list. Raises Refused where one has no key: nobody can have its point."""
        units = self.order[places]
        if any(unit >= len(self.keys) or self.keys[unit] is None for unit in units.tolist()):
            raise Refused(
                "pairs: got a match of an item that is no unit: the other holder has not followed the protocol"
            )
        return units

    def noise(self) -> Stream:
        """The random numbers of the noise: as secret as the scalar, and the same in another attempt that goes on with
        this list, or attempts would average the noise out."""
        return Stream(hashlib.blake2b(self.scalar, digest_size=16, person=b"statfed.linkage").digest())

    def commit(self, partner: bytes) -> None:
        """Note the digest of the other's list. Raises Refused where it was another one under this agreement."""
        if self.partner not in (b"", partner):
            raise Refused("list: got another one than at the first attempt of this agreement; want the same")
        if self.partner != partner:
            self.partner = partner
            self._keep()

    def make(self, path: Path, size: int) -> "List":
        """Blind everything now, `size` items at a time, and keep it in a file of mode 0600."""
        points = np.empty((len(self.order), group.SIZE), np.uint8)
        for start in range(0, len(points), size):
            points[start : start + size] = self._blinded(slice(start, start + size))
        self.points, self.path = points, path
        self._keep()
        return self

    def _blinded(self, places: slice) -> Points:
        count = len(self.keys)
        keys = [self.keys[unit] if unit < count else None for unit in self.order[places].tolist()]
        return group.multiplied(self.scalar, group.hashed(self.context, keys), "this holder")

    def _keep(self) -> None:
        if self.path is None:
            return
        beside = self.path.with_name(self.path.name + ".new")
        beside.unlink(missing_ok=True)
        small = {
            name: np.frombuffer(getattr(self, name), np.uint8) for name in ("context", "units", "scalar", "partner")
        }
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            np.savez(file, allow_pickle=False, order=self.order, points=np.asarray(self.points), **small)
        beside.replace(self.path)


def own_list(agreement: Agreement, name: str, units: Units, keep: Path | None = None) -> List:
    """The list of holder `name`. keep: a file; what it has is gone on with, else it is made, with the whole first pass.

    Raises UsageError on keys of more than one part, more units than agreed or a key that is there twice, Refused on a
    file of another agreement or other units.
    """
    plan = plan_of(agreement)
    keys = _keys(plan, name, units)
    context, digest = agreement.context("linkage list"), _digest(keys)
    if keep is not None and keep.exists():
        return _read(keep, context, digest, keys, plan.slots[name])
    order = stream(None).permutation(plan.slots[name])
    made = List(context, digest, group.fresh_scalar(), order, keys)
    return made if keep is None else made.make(keep, plan.options.chunk)


def _keys(plan: Plan, name: str, units: Units) -> Sequence[str | None]:
    plan.role(name)
    if len(units.keys) != 1:
        raise UsageError(f"keys: got {len(units.keys)} parts; want one for exact matching")
    (keys,) = units.keys.values()
    if len(keys) > plan.slots[name]:
        raise UsageError(f"units: got more than the {plan.slots[name]} items agreed for {name}; want at most as many")
    present = len(keys) - sum(1 for key in keys if key is None)
    if len(set(keys) - {None}) < present:
        raise UsageError(f"keys: got one of {name} twice; want every unit under a key of its own")
    return keys


def _digest(keys: Sequence[str | None]) -> bytes:
    found = hashlib.sha256()
    for key in keys:
        text = b"" if key is None else key.encode("utf-8", "surrogatepass")
        found.update((-1 if key is None else len(text)).to_bytes(8, "big", signed=True) + text)
    return found.digest()


def _read(path: Path, context: bytes, units: bytes, keys: Sequence[str | None], slots: int) -> List:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            kept = {name: arrays[name] for name in _FIELDS}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        raise UsageError("list: the file of the first pass cannot be read; want it whole, or none") from None
    if kept["context"].tobytes() != context or kept["units"].tobytes() != units:
        raise Refused(
            "list: got the first pass of another agreement or of other units; want a fresh one: the same scalar twice "
            "would let the other holder compare the lists"
        )
    points, order, scalar = kept["points"], kept["order"], kept["scalar"].tobytes()
    if points.shape != (slots, group.SIZE) or order.shape != (slots,) or len(scalar) != group.SIZE:
        raise UsageError("list: the file of the first pass is damaged; want it whole, or none")
    return List(context, units, scalar, order, keys, points, kept["partner"].tobytes(), path)
