"""What of a typed file the embedded engine would not read as it is stored: found in its schema, before a value is read.

DuckDB has decimals of at most 38 digits; of wider ones in Parquet it takes the bytes for another number.
"""

from collections import Counter
from collections.abc import Sequence
from unicodedata import normalize

import pyarrow as pa

from statfed.core.errors import UsageError

MOST_DIGITS = 38


def check_schema(schema: pa.Schema, shown: str = "") -> None:
    """Raises UsageError naming the columns that would not be read right, and those that two columns are called.

    shown: the source in words, without secrets.
    """
    front = f"{shown}: " if shown else ""
    wide = [field.name for field in schema if _wide(field.type)]
    if wide:
        raise UsageError(
            f"{front}{', '.join(wide)}: got decimals of more than {MOST_DIGITS} digits; want at most {MOST_DIGITS}, or "
            "float64"
        )
    twice = alike(schema.names)
    if twice:
        raise UsageError(f"{front}got {', '.join(twice)} as the name of several columns; want one column of each name")


def alike(names: Sequence[str]) -> list[str]:
    """Names that several columns have, up to capital letters, which SQL does not tell apart, and to how letters are
    composed, which people do not."""
    times = Counter(map(plain, names))
    return sorted({name for name in names if times[plain(name)] > 1})


def plain(name: str) -> str:
    """A name without what does not tell two of them apart."""
    return normalize("NFC", name).casefold()


def _wide(kind: pa.DataType) -> bool:
    if pa.types.is_decimal(kind):
        return bool(kind.precision > MOST_DIGITS)
    return any(_wide(kind.field(i).type) for i in range(kind.num_fields))
