"""Smart-watch recordings of seven shoulder exercises by ten persons, read out of the seglearn package.

The package is downloaded by pip and never installed; the one member that is read has to have the known SHA-256
before anything is unpickled, and the unpickler builds numpy arrays and nothing else.

Source: Burns, Leung, Hardisty, Whyne, Henry and McLachlin 2018, Shoulder physiotherapy exercise recognition,
Physiological Measurement 39; seglearn 1.2.5 (BSD-3-Clause).
"""

import hashlib
import io
import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import UsageError
from statfed.core.progress import Progress, silent
from statfed.core.records import Records, load_records
from statfed.scenarios._data.packages import cache_folder, download

PACKAGE = "seglearn==1.2.5"
MEMBER = "seglearn/data/watch_dataset.npy"
SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"
CLASSES = ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")
SAMPLES = 128
STEP = 64

_BUILDERS = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("_codecs", "encode"),
}


def cache_file() -> Path:
    """The cached windows; the SHA-256 of this file stands beside it in `.sha256`."""
    return cache_folder() / "watch.npz"


def available() -> bool:
    """Whether the cache holds the data, undamaged."""
    return _intact(cache_file())


def fetch(progress: Progress = silent) -> Path:
    """Path of the cached windows, downloaded first when the cache lacks them or is damaged.

    Raises Unreachable when no package registry answers, and UsageError when the downloaded member is not the known
    one or the cache folder cannot be written.
    """
    target = cache_file()
    progress("fetch watch", 0, 3)
    if not _intact(target):
        content = _download()
        progress("fetch watch", 1, 3)
        records = cut(parse(content))
        progress("fetch watch", 2, 3)
        _store(records, target)
    progress("fetch watch", 3, 3)
    return target


def load() -> Records:
    """The cached windows: 3,605 records, accelerometer in g, gyroscope in rad/s, persons 1 to 10.

    Raises UsageError when they are not in the cache or the cached file is damaged.
    """
    target = cache_file()
    if not _intact(target):
        raise UsageError("watch: not in the cache, or damaged there; want `statfed data fetch watch` to be run first")
    return load_records(target)


def parse(content: bytes) -> dict[str, Any]:
    """The mapping in the package's member: X (series of (samples, 6)), y, subject and others.

    Raises UsageError when `content` has another SHA-256 than the known one; nothing is unpickled then.
    """
    got = hashlib.sha256(content).hexdigest()
    if got != SHA256:
        raise UsageError(f"watch: downloaded file is not the known one: got SHA-256 {got}; want {SHA256}")
    stream = io.BytesIO(content)
    np.lib.format.read_magic(stream)
    np.lib.format.read_array_header_1_0(stream)
    table: dict[str, Any] = ArrayUnpickler(stream, encoding="latin1").load().item()
    return table


class ArrayUnpickler(pickle.Unpickler):
    """Builds numpy arrays and refuses every other name, with UsageError."""

    def find_class(self, module: str, name: str) -> Any:
        """The builder called `name`, if it is one of the few that numpy's own pickles need."""
        module = module.replace("numpy.core.", "numpy._core.")
        if (module, name) not in _BUILDERS:
            raise UsageError(f"watch: pickle asks for {module}.{name}; want numpy arrays only")
        return super().find_class(module, name)


def cut(table: dict[str, Any]) -> Records:
    """Windows of 128 samples at half overlap; the rest of each series is left out.

    table: X, one (samples, 6) array a series; y and subject, one whole number a series.
    """
    windows: list[NDArray[np.float32]] = []
    labels: list[int] = []
    persons: list[int] = []
    for series, label, person in zip(table["X"], table["y"], table["subject"], strict=True):
        starts = np.arange(0, len(series) - SAMPLES + 1, STEP)
        rows = starts[:, None] + np.arange(SAMPLES)
        windows.append(np.asarray(series, np.float32)[rows].transpose(0, 2, 1))
        labels += [int(label)] * len(starts)
        persons += [int(person)] * len(starts)
    return Records(np.concatenate(windows), np.array(labels, np.int64), np.array(persons, np.int64))


def _download() -> bytes:
    want = 'want a package registry that pip can reach, or data.source = "generated"'
    return download("watch", PACKAGE, [MEMBER], want)[MEMBER]


def _store(records: Records, target: Path) -> None:
    """Write both files whole or not at all; a reader between the two moves sees a damaged cache, never wrong data."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".watch-", dir=target.parent) as folder:
            fresh = Path(folder) / target.name
            records.save(fresh)
            digest = Path(folder) / "digest"
            digest.write_text(_digest(fresh) + "\n", encoding="ascii")
            fresh.replace(target)
            digest.replace(_beside(target))
    except OSError as error:
        name = type(error).__name__
        raise UsageError(f"watch: cache folder: got {name}; want STATFED_CACHE to name a writable folder") from None


def _intact(target: Path) -> bool:
    try:
        return _beside(target).read_text(encoding="ascii").strip() == _digest(target)
    except (OSError, UnicodeDecodeError):
        return False


def _beside(target: Path) -> Path:
    return target.with_name(target.name + ".sha256")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
