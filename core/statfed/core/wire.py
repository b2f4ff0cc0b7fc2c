"""What a protection's packet is made of as it travels: bytes, and arrays of numbers, each under a name.

`split` is the sender's half, `join` the receiver's; an adapter puts what lies between them into its transport's own
records. Whatever arrives is taken for hostile. An array travels as an .npy file of format 1.0 (NEP 1), whose header is
matched and never evaluated, and whose length is checked against its shape before anything is allocated. So no pickle is
ever read, and nothing is made larger than what came.
"""

import io
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import Refused, UsageError
from statfed.core.protection import Packet

LONGEST_NAME = 256
MOST_AXES = 32
TYPES = ("|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8")
"""As in .npy files: truth values, whole numbers and floating-point numbers, little-endian."""

MOST_BYTES = 2**31
"""Of a message once it is put together."""
_LONGEST_LIST = 2**16
"""Bytes of an array's list of its pieces, and of what else is said of it: enough for `MOST_BYTES`."""

_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(
    rb"\{'descr': '([^']{1,8})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:[0-9]{1,18}, ?)*(?:[0-9]{1,18})?)\), \} *\n"
)
_WANT_NAME = f"want 1 to {LONGEST_NAME} printable characters"


@dataclass(frozen=True)
class Encoded:
    """An array as it travels. dtype: numpy's name of it; data: an .npy file, which says dtype and shape once more."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


def split(packet: Packet) -> tuple[dict[str, bytes], dict[str, Encoded]]:
    """The bytes and the arrays of a packet. Raises UsageError on what may not travel."""
    if bad := sorted(repr(name)[:40] for name in packet if not _named(name)):
        raise UsageError(f"message: got the name {bad[0]}; {_WANT_NAME}")
    texts = {name: item for name, item in packet.items() if isinstance(item, bytes)}
    return texts, {name: encode(item, name) for name, item in packet.items() if not isinstance(item, bytes)}


def join(texts: Mapping[str, object], arrays: Mapping[str, Encoded]) -> Packet:
    """The packet whose bytes and arrays arrived. Raises Refused on anything that `split` does not make."""
    for name in (*texts, *arrays):
        if not _named(name):
            raise Refused(f"message: got a name that is none; {_WANT_NAME}")
    if both := sorted(set(texts) & set(arrays)):
        raise Refused(f"message: {both[0]}: got bytes and an array of one name; want one of them")
    found: dict[str, bytes | NDArray[Any]] = {}
    for name, item in texts.items():
        if not isinstance(item, bytes):
            raise Refused(f"message: {name}: got {type(item).__name__}; want bytes")
        found[name] = item
    return found | {name: decode(item, name) for name, item in arrays.items()}


def encode(array: NDArray[Any], name: str) -> Encoded:
    """An array as it travels. Raises UsageError when it has another type than `TYPES`, or too many axes."""
    plain = np.asarray(array)
    plain = plain.astype(plain.dtype.newbyteorder("<"), copy=False)
    if plain.dtype.str not in TYPES or plain.ndim > MOST_AXES:
        raise UsageError(f"message: {name}: got {plain.ndim} axes of {plain.dtype}; {_wanted()}")
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, plain, version=(1, 0), allow_pickle=False)
    return Encoded(str(plain.dtype), plain.shape, buffer.getvalue())


def decode(item: Encoded, name: str) -> NDArray[Any]:
    """The array that arrived, in memory of its own. Raises Refused on anything that `encode` does not make."""
    data = item.data
    if not isinstance(data, bytes) or data[:8] != _MAGIC:
        raise Refused(f"message: {name}: got no .npy file of format 1.0; want one")
    start = 10 + int.from_bytes(data[8:10], "little")
    header = _HEADER.fullmatch(data, 10, start) if start <= len(data) else None
    if header is None:
        raise Refused(f"message: {name}: got an .npy header that is none; want one of format 1.0")
    kind, shape = header[1].decode("ascii", "replace"), tuple(int(n) for n in header[3].split(b",") if n.strip())
    if kind not in TYPES or len(shape) > MOST_AXES:
        raise Refused(f"message: {name}: got {len(shape)} axes of {kind!r}; {_wanted()}")
    dtype = np.dtype(kind)
    if not isinstance(item.shape, tuple) or (item.dtype, item.shape) != (str(dtype), shape):
        raise Refused(f"message: {name}: got an array that is told as another; want {dtype} of shape {shape}")
    wanted = math.prod(shape) * dtype.itemsize
    if len(data) - start != wanted:
        raise Refused(f"message: {name}: got {len(data) - start} bytes of shape {shape}; want {wanted}")
    try:
        return np.ndarray(shape, dtype, data, start, order="F" if header[2] == b"True" else "C").copy(order="K")
    except ValueError:  # an axis of length 0 beside others that numpy cannot count
        raise Refused(f"message: {name}: got the shape {shape}; want one that an array can have") from None


def check_pieces(objects: Mapping[str, bytes], most: int = MOST_BYTES) -> None:
    """Raise Refused where the objects of a message would be larger together than `most`, before they are put together.

    objects: by id, as Flower carries them: kind, ids of children and length, then a zero byte and the content. Flower
    carries an array in pieces, with a list of which of them comes when: one that names the same piece a million times
    is a few bytes on the way and fills the memory of whoever reads it.
    """
    total = 0
    for content in objects.values():
        head, _, body = content.partition(b"\0")
        kind, _, rest = head.partition(b" ")
        if kind != b"Array":
            total += len(content)
            continue
        if len(body) > _LONGEST_LIST:
            raise Refused(f"message: got an array described in {len(body)} bytes; want at most {_LONGEST_LIST}")
        children = rest.partition(b" ")[0].decode("ascii").split(",")
        try:
            total += sum(len(objects[children[place]]) for place in json.loads(body)["arraychunk_ids"])
        except (ValueError, LookupError, TypeError, RecursionError):
            raise Refused("message: got an array of pieces that are not there; want one that is whole") from None
    if total > most:
        raise Refused(f"message: got {total} bytes once put together; want at most {most}")


def _named(name: object) -> bool:
    return isinstance(name, str) and 0 < len(name) <= LONGEST_NAME and name.isprintable()


def _wanted() -> str:
    return f"want at most {MOST_AXES} of {', '.join(str(np.dtype(kind)) for kind in TYPES)}"
