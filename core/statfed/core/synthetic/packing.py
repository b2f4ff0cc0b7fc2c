"""A public table as one line of text, so that a question can carry it: numbers column by column, deflated, in base64.

Unpacking takes no more memory than the number of records that was announced: whoever sends more is refused.
"""

import base64
import binascii
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from statfed.core.codebook import Codebook
from statfed.core.errors import UsageError
from statfed.core.synthetic.coded import Coded


def packed(table: Coded) -> str:
    """A table of public records as text."""
    columns = [
        np.where(table.missing(name), np.nan, values.astype(np.float64)) for name, values in table.columns.items()
    ]
    return base64.b64encode(zlib.compress(np.stack(columns).astype("<f8").tobytes(), 6)).decode()


def unpacked(text: str, codebook: Codebook, names: Sequence[str], records: int) -> Coded:
    """The table again. Raises UsageError unless it has these columns, so many records, and values of the codebook."""
    wanted = 8 * records * len(names)
    try:
        inflate = zlib.decompressobj()
        raw = inflate.decompress(base64.b64decode(text, validate=True), wanted + 1)
    except (binascii.Error, zlib.error, ValueError):
        raise UsageError("table: got text that is no packed table; want that of `packed`") from None
    if len(raw) != wanted or not inflate.eof or inflate.unused_data:
        raise UsageError(f"table: got another size; want {records} records of {len(names)} columns")
    columns = np.frombuffer(raw, "<f8").reshape(len(names), records)
    found: dict[str, NDArray[np.float64] | NDArray[np.int64]] = {}
    for name, values in zip(names, columns, strict=True):
        column = codebook.columns[name]
        low, high = (0, len(column.levels) - 1) if column.levels else column.bounds or (-np.inf, np.inf)
        known = values[~np.isnan(values)]
        if not np.isfinite(known).all() or (known < low).any() or (known > high).any():
            raise UsageError(f"table: {name}: got a value outside the codebook; want {low:g} to {high:g}")
        if column.levels:
            if (known != np.floor(known)).any():
                raise UsageError(f"table: {name}: got a code that is no whole number; want places of levels")
            found[name] = np.where(np.isnan(values), -1, np.nan_to_num(values)).astype(np.int64)
        else:
            found[name] = values.astype(np.float64)
    return Coded(codebook, found)
