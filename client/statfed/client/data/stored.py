"""What of a typed file the embedded engine would not read as it is stored: found in its schema, before a value is read.

DuckDB has decimals of at most 38 digits; of wider ones in Parquet it takes the bytes for another number.
"""

import pyarrow as pa

from statfed.client.data.engine import distinct
from statfed.core.errors import UsageError

MOST_DIGITS = 38


def check_schema(schema: pa.Schema, shown: str) -> None:
    """Raises UsageError naming the columns that would not be read right, and those that two columns are called.

    shown: the source in words, without secrets.
    """
    wide = [field.name for field in schema if _wide(field.type)]
    if wide:
        raise UsageError(
            f"{shown}: {', '.join(wide)}: got decimals of more than {MOST_DIGITS} digits; want at most {MOST_DIGITS}, "
            "or float64"
        )
    distinct(schema.names, shown)


def _wide(kind: pa.DataType) -> bool:
    if pa.types.is_decimal(kind):
        return bool(kind.precision > MOST_DIGITS)
    return any(_wide(kind.field(i).type) for i in range(kind.num_fields))
