"""Loader for a user's own copy of the UCI HAR data set (waist-worn phone, 30 persons, 6 activities).

Not downloaded by statfed. Expected is the unpacked folder "UCI HAR Dataset" with activity_labels.txt and, for each
of train and test, subject_*.txt, y_*.txt and nine files "Inertial Signals/<signal>_<axis>_*.txt" of 128 columns.

Source: Anguita, Ghio, Oneto, Parra and Reyes-Ortiz 2013, A public domain dataset for human activity recognition
using smartphones, ESANN.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import UsageError
from statfed.core.records import Channel, Records, WindowCodebook

ROWS: Mapping[str, int] = {"train": 7352, "test": 2947}
SAMPLES = 128
PERSONS = 30
_SIGNALS = ("body_acc", "body_gyro", "total_acc")
_LABELS = ("WALKING", "WALKING_UPSTAIRS", "WALKING_DOWNSTAIRS", "SITTING", "STANDING", "LAYING")


def _channel(signal: str, axis: str) -> Channel:
    if signal == "body_gyro":
        return Channel(name=f"{signal}_{axis}", unit="rad/s", low=-35.0, high=35.0, scale=1.0)
    return Channel(name=f"{signal}_{axis}", unit="g", low=-16.0, high=16.0, scale=0.5 if signal == "body_acc" else 1.0)


CODEBOOK = WindowCodebook(
    channels=tuple(_channel(signal, axis) for signal in _SIGNALS for axis in "xyz"),
    samples=SAMPLES,
    classes=tuple(name.lower().replace("_", " ") for name in _LABELS),
)


def load(folder: Path, expected: Mapping[str, int] = ROWS) -> Records:
    """All records of the folder, train before test; labels 0 to 5 in the order of `CODEBOOK.classes`.

    expected: rows that each part has to have. Result: windows (records, 9, 128), accelerometer in g, gyroscope in
    rad/s; persons 1 to 30. Raises UsageError that lists every missing, unreadable or misshapen file at once.
    """
    if not folder.is_dir():
        raise UsageError(f'data.path: got {str(folder)!r}, no such folder; want the unpacked folder "UCI HAR Dataset"')
    problems = _legend(folder / "activity_labels.txt")
    windows: list[NDArray[np.float64]] = []
    labels: list[NDArray[np.float64]] = []
    persons: list[NDArray[np.float64]] = []
    for part, rows in expected.items():
        root = folder / part
        for column, name, top in ((labels, "y", len(_LABELS)), (persons, "subject", PERSONS)):
            path = root / f"{name}_{part}.txt"
            values = _numbers(path, folder, (rows,), problems)
            wrong = values[(values < 1) | (values > top) | (values != np.round(values))]
            if len(wrong):
                problems.append(f"{path.relative_to(folder)}: got {len(wrong)} rows outside 1 to {top}")
            column.append(values)
        signals = [
            _numbers(root / "Inertial Signals" / f"{c.name}_{part}.txt", folder, (rows, SAMPLES), problems)
            for c in CODEBOOK.channels
        ]
        windows.append(np.stack(signals, 1))
    if problems:
        raise UsageError("data.path: not a complete UCI HAR data set:\n" + "\n".join(f"  {p}" for p in problems))
    return Records(
        np.concatenate(windows).astype(np.float32),
        np.concatenate(labels).astype(np.int64) - 1,
        np.concatenate(persons).astype(np.int64),
    )


def _legend(path: Path) -> list[str]:
    """Problems of activity_labels.txt, lines of `number NAME`."""
    want = [[str(i + 1), name] for i, name in enumerate(_LABELS)]
    try:
        got = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError:
        return [f"{path.name}: missing"]
    except (OSError, UnicodeDecodeError) as error:
        return [f"{path.name}: not readable ({type(error).__name__})"]
    return [] if got == want else [f"{path.name}: got other activities; want 1 {_LABELS[0]} to 6 {_LABELS[-1]}"]


def _numbers(path: Path, folder: Path, shape: tuple[int, ...], problems: list[str]) -> NDArray[np.float64]:
    """The file's numbers, of `shape`; ones, and a new entry in `problems`, when it cannot be used."""
    name = path.relative_to(folder)
    substitute = np.ones(shape)
    try:
        rows = [line.split() for line in path.read_text(encoding="ascii").splitlines() if line.strip()]
        values = np.array(rows, np.float64).reshape(len(rows), -1)
    except FileNotFoundError:
        problems.append(f"{name}: missing")
        return substitute
    except (OSError, ValueError) as error:
        problems.append(f"{name}: not a table of numbers ({type(error).__name__})")
        return substitute
    want = (shape[0], shape[1] if len(shape) > 1 else 1)
    if values.shape != want:
        problems.append(f"{name}: got {values.shape[0]} x {values.shape[1]}; want {want[0]} x {want[1]}")
        return substitute
    if not np.isfinite(values).all():
        problems.append(f"{name}: got missing or infinite numbers; want finite ones")
        return substitute
    return values.reshape(shape)
