"""The population of a reference scenario as tables: what its simulated holders have in their home folders."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from statfed.core.codebook import Codebook, Column
from statfed.core.records import Records, WindowCodebook

TARGET, UNIT = "class", "person"
FILE, MARK = "data.parquet", "data.sha256"


@dataclass(frozen=True)
class Described:
    """The codebook of a population's tables, and which columns a model is trained on."""

    codebook: Codebook
    features: tuple[str, ...]
    target: str = TARGET


def described(form: WindowCodebook, title: str = "") -> Described:
    """A codebook with one column a channel, the class and the person. Arrays where a record has several samples."""
    columns = {}
    for channel in form.channels:
        low, high = (float(np.float32(value)) for value in (channel.low, channel.high))  # as values are stored
        columns[channel.name] = Column(
            type="array" if form.samples > 1 else "number",
            unit=channel.unit,
            low=min(low, channel.low),
            high=max(high, channel.high),
            scale=channel.scale,
            length=form.samples if form.samples > 1 else None,
            required=True,
        )
    features = tuple(columns)
    columns[TARGET] = Column(type="category", categories=dict.fromkeys(form.classes, ""), required=True)
    columns[UNIT] = Column(type="id", role="unit", required=True)
    return Described(Codebook(title=title, columns=columns), features)


def table_of(records: Records, form: WindowCodebook) -> pa.Table:
    """A holder's records as a table."""
    columns: dict[str, pa.Array] = {}
    for place, channel in enumerate(form.channels):
        values = np.ascontiguousarray(records.windows[:, place], np.float32)
        flat = pa.array(values.reshape(-1))
        columns[channel.name] = pa.FixedSizeListArray.from_arrays(flat, form.samples) if form.samples > 1 else flat
    columns[TARGET] = pa.array([form.classes[label] for label in records.labels.tolist()], pa.string())
    width = len(str(int(records.persons.max(initial=0))))
    columns[UNIT] = pa.array([f"{person:0{width}d}" for person in records.persons.tolist()], pa.string())
    return pa.table(columns)


def write_tables(holders: Mapping[str, Records], form: WindowCodebook, homes: Mapping[str, Path]) -> dict[str, str]:
    """Each holder's table in its home folder; one that is there already stays as it is. Returns holder to file."""
    written = {}
    for name, records in holders.items():
        path, mark = homes[name] / FILE, homes[name] / MARK
        digest = _digest(records)
        if not (path.exists() and mark.exists() and mark.read_text() == digest):
            parquet.write_table(table_of(records, form), path, row_group_size=1 << 30)
            mark.write_text(digest)
        written[name] = str(path)
    return written


def _digest(records: Records) -> str:
    found = hashlib.sha256()
    arrays: tuple[NDArray[np.generic], ...] = (records.windows, records.labels, records.persons)
    for array in arrays:
        found.update(str((array.dtype, array.shape)).encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
