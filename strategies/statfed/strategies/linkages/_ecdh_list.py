"""A holder's own list: keys in a secret order, filled up, hashed and blinded by a scalar of this agreement alone.

What is made with the scalar can be kept for another attempt at the same run under the same agreement: the list and, as
far as it got, its points and the other's list blinded again (`_kept_points`). The same scalar in two agreements would
let the other holder see which units have stayed, and would answer it about a second list of its own. So a list is bound
to its run and agreement, to the units, and, once the other's list has come, to that list: an attempt in which the other
has another one is refused. What an attempt that goes on sends is what the first one sent, under fresh channels.
The files are as secret as the keys are: with the scalar, every guess of a key can be tried on the points.
"""

import hashlib
import hmac
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from statfed.core.errors import Refused, UsageError
from statfed.core.linkage import Units
from statfed.core.protection import Agreement
from statfed.core.randomness import Stream, stream
from statfed.strategies.linkages import _ristretto as group
from statfed.strategies.linkages._ecdh_plan import Plan, plan_of
from statfed.strategies.linkages._kept_points import KeptPoints
from statfed.strategies.linkages._ristretto import Points

pc: Any = pyarrow.compute  # its functions are made when it is imported
_FIELDS = ("context", "units", "scalar", "order", "partner", "tag")
_OWN, _OTHERS = ".own", ".others"  # files of points beside that of the list
_ROWS = 1 << 16


@dataclass
class List:
    """One holder's list. Private.

    size: items of a message; keys: of its units; order: (slots,) the unit at each place, as many as there are or more
    where it is filled up; partner: digest of the other's list, empty until that has come; path: where this is kept.
    """

    context: bytes
    units: bytes
    scalar: bytes
    order: NDArray[np.int64]
    keys: pa.LargeBinaryArray = field(repr=False)
    size: int
    partner: bytes = b""
    path: Path | None = None

    def __repr__(self) -> str:
        return "List(<private>)"

    def chunk(self, number: int) -> Points:
        """The blinded points of message `number`, the same whenever they are made."""
        units = self.order[number * self.size : (number + 1) * self.size]
        kept = self._kept(_OWN)
        found = kept.get(number, self.context, len(units)) if kept else None
        if found is None:
            keys = self.keys.take(pa.array(units, mask=units >= len(self.keys))).to_pylist()
            first = number * self.size
            keys = [self._filling(first + i) if key is None else key for i, key in enumerate(keys)]
            found = group.multiplied(self.scalar, group.hashed(self.context, keys), "this holder")
            if kept:
                kept.put(number, self.context, found)
        return found

    def blinded(self, number: int, points: Points, sender: str) -> Points:
        """The points of message `number` of the other's list, times the scalar. Raises Refused, naming the sender,
        where one is none."""
        kept, source = self._kept(_OTHERS), points.tobytes()
        found = kept.get(number, source, len(points)) if kept else None
        if found is None:
            found = group.multiplied(self.scalar, points, sender)
            if kept:
                kept.put(number, source, found)
        return found

    def unit_at(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The units at places of the list. Raises Refused where one has no key: nobody can have its point."""
        units = self.order[places]
        if (units >= len(self.keys)).any() or self.keys.take(pa.array(units)).null_count:
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
            self.keep()

    def _filling(self, place: int) -> bytes:
        """A key that no unit has, for a place that is filled up: nobody without the scalar can tell its point from a
        random one, and other attempts have the same, or they would tell which places are filled up."""
        return hashlib.blake2b(place.to_bytes(8, "big"), key=self.scalar, person=b"statfed.filling").digest()

    def keep(self) -> None:
        """Write the list to its file, of mode 0600, where it has one."""
        if self.path is None:
            return
        beside = self.path.with_name(self.path.name + ".new")
        beside.unlink(missing_ok=True)
        small = {name: getattr(self, name) for name in ("context", "units", "scalar", "partner")}
        small["tag"] = _tag(small, self.order)
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            arrays = {name: np.frombuffer(content, np.uint8) for name, content in small.items()}
            np.savez(file, allow_pickle=False, order=self.order, **arrays)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self.path)

    def _kept(self, suffix: str) -> KeptPoints | None:
        path = self.path
        return None if path is None else KeptPoints(path.with_name(path.name + suffix), self.scalar, self.size)


def own_list(agreement: Agreement, name: str, units: Units, keep: Path | None = None) -> List:
    """The list of holder `name`. keep: a file; what it and those beside it have is gone on with, else they are made.

    Raises UsageError on keys of more than one part, more units than agreed or a key that is there twice, Refused on a
    file of another agreement or other units.
    """
    plan = plan_of(agreement)
    keys = _keys(plan, name, units)
    context, digest = context_of(agreement), _digest(keys)
    made = List(context, digest, b"", np.empty(0, np.int64), keys, plan.options.chunk, path=keep)
    if keep is not None and keep.exists():
        return _read(keep, made, plan.slots[name])
    made.scalar, made.order = group.fresh_scalar(), stream(None).permutation(plan.slots[name])
    made.keep()
    return made


def context_of(agreement: Agreement) -> bytes:
    """What a list is bound to: the agreement of a run, whichever attempt at it (`NAME~2` goes on with `NAME`)."""
    return replace(agreement, run=agreement.run.partition("~")[0]).context("linkage list")


def _keys(plan: Plan, name: str, units: Units) -> pa.LargeBinaryArray:
    plan.role(name)
    if len(units.keys) != 1:
        raise UsageError(f"keys: got {len(units.keys)} parts; want one for exact matching")
    if units.count > plan.slots[name]:
        raise UsageError(f"units: got more than the {plan.slots[name]} items agreed for {name}; want at most as many")
    keys = units.packed(next(iter(units.keys)))
    if _repeated(keys):
        raise UsageError(f"keys: got one of {name} twice; want every unit under a key of its own")
    return keys


def _repeated(keys: pa.LargeBinaryArray) -> bool:
    """Is any key there twice? Looked at by short digests first, in a tenth of the memory."""
    short = np.empty(len(keys) - keys.null_count, np.uint64)
    at = 0
    for start in range(0, len(keys), _ROWS):
        made = [
            hashlib.blake2b(key, digest_size=8).digest() for key in keys.slice(start, _ROWS).drop_null().to_pylist()
        ]
        short[at : at + len(made)] = np.frombuffer(b"".join(made), np.uint64)
        at += len(made)
    ordered = np.sort(short)
    alike = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(alike):
        return False
    places = np.flatnonzero(keys.is_valid().to_numpy(zero_copy_only=False))[np.isin(short, alike)]
    found = keys.take(pa.array(places)).to_pylist()
    return len(set(found)) < len(found)


def _digest(keys: pa.LargeBinaryArray) -> bytes:
    found = hashlib.sha256()
    for start in range(0, len(keys), _ROWS):
        part = keys.slice(start, _ROWS)
        found.update(pc.binary_length(part).fill_null(-1).to_numpy(zero_copy_only=False).astype("<i8").tobytes())
        found.update(b"".join(part.drop_null().to_pylist()))
    return found.digest()


def _tag(small: dict[str, bytes], order: NDArray[np.int64]) -> bytes:
    made = hashlib.blake2b(digest_size=32, key=small["scalar"], person=b"statfed.list")
    for name in ("context", "units", "partner"):
        made.update(len(small[name]).to_bytes(8, "big") + small[name])
    made.update(np.ascontiguousarray(order, "<i8").tobytes())
    return made.digest()


def _read(path: Path, made: List, slots: int) -> List:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            kept = {name: arrays[name] for name in _FIELDS}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        raise UsageError("list: the file of the first pass cannot be read; want it whole, or none") from None
    small = {name: kept[name].tobytes() for name in _FIELDS if name != "order"}
    if small["context"] != made.context or small["units"] != made.units:
        raise Refused(
            "list: got the first pass of another agreement or of other units; want a fresh one: the same scalar twice "
            "would let the other holder compare the lists"
        )
    order = kept["order"]
    fits = order.shape == (slots,) and order.dtype == np.int64 and len(small["scalar"]) == group.SIZE
    if not fits or not hmac.compare_digest(small["tag"], _tag(small, order)):
        raise UsageError("list: the file of the first pass is damaged; want it whole, or none")
    made.scalar, made.order, made.partner = small["scalar"], order, small["partner"]
    return made
