"""Labelled sensor records and the codebook that every holder's data are checked against."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from statfed.core.errors import UsageError

LATIN_1 = "Latin-1 code"
"""Unit of a channel whose samples are the characters of a text."""


class Channel(BaseModel):
    """One measured column: values lie in [low, high]; `scale` is the public divisor that models use."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    unit: str
    low: float
    high: float
    scale: float = Field(default=1.0, gt=0)


class WindowCodebook(BaseModel):
    """What data of one kind look like, agreed before the study: public."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: tuple[Channel, ...] = Field(min_length=1)
    samples: int = Field(ge=1, description="length of one window")
    classes: tuple[str, ...] = Field(description="two or more; none where a number is predicted")

    @field_validator("classes")
    @classmethod
    def _several(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(value) == 1:
            raise ValueError("classes: got one; want two or more, or none where a number is predicted")
        return value

    @property
    def outputs(self) -> int:
        """Numbers that a model gives for a record: one a class, or one."""
        return len(self.classes) or 1


@dataclass(frozen=True)
class Records:
    """Labelled windows of one party. Private at a holder.

    windows: (records, channels, samples) float32; labels: (records,) int64, index into the codebook's classes;
    persons: (records,) int64, the person whose record it is.
    """

    windows: NDArray[np.float32]
    labels: NDArray[np.int64]
    persons: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return "Records(<private>)"

    def select(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> "Records":
        """The records at `rows` (indices or mask)."""
        return Records(self.windows[rows], self.labels[rows], self.persons[rows])

    def save(self, path: Path) -> None:
        """Write an uncompressed .npz file."""
        np.savez(path, windows=self.windows, labels=self.labels, persons=self.persons)


def concatenate(parts: list[Records]) -> Records:
    """All records of `parts`, in order."""
    return Records(
        np.concatenate([p.windows for p in parts]),
        np.concatenate([p.labels for p in parts]),
        np.concatenate([p.persons for p in parts]),
    )


def load_records(path: Path) -> Records:
    """Read a .npz file with arrays windows, labels, persons. Raises UsageError when it is missing or malformed."""
    if not path.exists():
        raise UsageError("data file not found; want the path given in policy.toml to exist")
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:  # numpy leaves a damaged one open
            missing = {"windows", "labels", "persons"} - set(file.files)
            if missing:
                raise UsageError(f"data file lacks {', '.join(sorted(missing))}; want windows, labels, persons")
            return Records(file["windows"], file["labels"], file["persons"])
    except UsageError:
        raise
    except Exception as error:  # noqa: BLE001  # a damaged archive raises whatever its reader meets first
        raise UsageError(f"data file is not a readable .npz file ({type(error).__name__})") from None


def mismatches(records: Records, codebook: WindowCodebook) -> list[str]:
    """Every way in which `records` differ from `codebook`. Empty when they fit.

    The words travel to the coordinator: they hold no data value and no count of records.
    """
    found = []
    shape = records.windows.shape
    want = (len(codebook.channels), codebook.samples)
    if records.windows.ndim != 3 or shape[1:] != want:
        got = ", ".join(map(str, shape[1:]))
        found.append(f"windows: got shape (records, {got}); want (records, {want[0]}, {want[1]})")
    elif not np.issubdtype(records.windows.dtype, np.floating):
        found.append(f"windows: got type {records.windows.dtype}; want floating point")
    else:
        for index, channel in enumerate(codebook.channels):
            values = records.windows[:, index]
            if not np.isfinite(values).all():
                found.append(f"{channel.name}: got missing or infinite values; want finite numbers")
            elif values.size and (values.min() < channel.low or values.max() > channel.high):
                found.append(f"{channel.name}: got values outside [{channel.low}, {channel.high}] {channel.unit}")
    for name, column in (("labels", records.labels), ("persons", records.persons)):
        if column.ndim != 1 or not np.issubdtype(column.dtype, np.integer):
            found.append(f"{name}: got {column.ndim} dimensions of {column.dtype}; want one whole number a record")
        elif records.windows.ndim and len(column) != len(records.windows):
            found.append(f"{name}: got another number of entries than windows; want one a record")
    if np.issubdtype(records.labels.dtype, np.integer) and records.labels.size:
        low, high = int(records.labels.min()), int(records.labels.max())
        if low < 0 or high >= len(codebook.classes):
            found.append(f"labels: got a class outside the codebook; want 0 to {len(codebook.classes) - 1}")
    if not len(records):
        found.append("no records: got an empty data set; want at least one record")
    return found
