"""A holder's units as a linkage sees them: keys in normal form, and the columns that are worked out over the matched.

Records without a key, or without a value of a column that is looked at, are no units: a result is about units complete
at every holder, as it is about complete records in other studies. How many were left out is told to nobody.
"""

import hashlib
import json
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from statfed.client.guard.files import LINKS, check_modes
from statfed.core.codebook import Codebook, Column
from statfed.core.errors import Refused, UsageError
from statfed.core.linkage import Asked, Pairs, Units
from statfed.core.linkkeys import KeyPart, keys_of, read_key, together
from statfed.core.table import Table

LISTS = "lists"
"""In a home: what another attempt at an open run can go on with. As secret as the data, and no part of a backup."""
DAYS, MOST = 7.0, 8
"""How long that is kept, and of how many runs."""
_NAME = 32  # letters of a list's file
_RUN = re.compile("[A-Za-z0-9][A-Za-z0-9._~-]*")


def units_of(table: Table, asked: Asked, holder: str, *, parted: bool) -> Units:
    """The units of a holder's records. parted: one key a part, else one of all.

    Raises UsageError where a column of the analysis is neither a number nor of categories.
    """
    names = asked.columns[holder]
    table = table.complete(names)
    keys = keys_of(table, key_of(asked, table.codebook, parted=parted)).parts
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
    for batch in table.streamed(names) if names else ():
        for name in names:
            found[name].append(_numbers(batch.column(name), table.codebook.column(name), name))
    return Units(keys, {name: np.concatenate([*chunks, np.empty(0)]) for name, chunks in found.items()})


def key_of(asked: Asked, codebook: Codebook, *, parted: bool) -> tuple[KeyPart, ...]:
    """The parts of the key as they are compared. parted: one by one, with those that are needed beside them, or as one
    of all."""
    linking = asked.linking
    return linking.parts(codebook) if parted else (together(read_key(linking.key, codebook)),)


@dataclass
class Lines:
    """What a party says in its own log of a linkage: one line a tenth of what takes several messages."""

    _last: dict[str, tuple[str, int]] = field(default_factory=dict)

    def of(self, run: str, standing: tuple[str, int, int]) -> str:
        """The line, empty where there is nothing new. standing: `Party.standing`."""
        doing, done, total = standing
        tenth = 10 * done // max(total, 1)
        before = self._last.get(run, ("", 0))
        if not doing or (doing, tenth) == before or (before[0] != doing and tenth == 10):
            return ""
        self._last[run] = doing, tenth
        return f"{doing}: {done:,} of {total:,}"

    def forget(self, run: str) -> None:
        self._last.pop(run, None)


def check_name(run: str) -> None:
    """Raise Refused where pairs could not be kept under the name of a run: names are the coordinator's, and one may
    lead out of the folder."""
    if not _RUN.fullmatch(run):
        raise Refused("run: got a name under which no pairs are kept; want letters, digits, hyphens, dots and ~")


def list_of(home: Path, run: str, study: str) -> Path:
    """The file in which a run of a study, in whatever attempt, keeps what its linkage has made. study: its digest.

    Makes the folder, for the holder's own account alone, and removes from it what is old or too much for one more.
    """
    folder = home / LISTS
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / _named(run, study)
    prune_lists(home, path.name)
    return path


def prune_lists(home: Path, mine: str = "") -> None:
    """Remove lists that are old, or too many: at a holder's start, with every run that it admits and every list that it
    begins, so that those of a run that nobody came back to do not stay until there is another. mine: one that stays,
    beside which there may be as many as there may be less one."""
    folder = home / LISTS
    if not folder.is_dir():
        return
    begun: dict[str, float] = {}
    for each in folder.iterdir():
        with suppress(FileNotFoundError):  # another process of this holder prunes too
            begun[each.name[:_NAME]] = max(begun.get(each.name[:_NAME], 0.0), each.stat().st_mtime)
    begun.pop(mine, None)
    late = time.time() - DAYS * 86_400
    kept = sorted((name for name, at in begun.items() if at >= late), key=lambda name: begun[name])
    for name in set(begun) - set(kept[-(MOST - bool(mine)) :]):
        _remove(folder, name)


def forget_list(home: Path, run: str, study: str) -> None:
    """Remove what a run's linkage has kept: it is over."""
    _remove(home / LISTS, _named(run, study))


def _named(run: str, study: str) -> str:
    return hashlib.sha256(json.dumps([run.partition("~")[0], study]).encode()).hexdigest()[:_NAME]


def _remove(folder: Path, name: str) -> None:
    for path in folder.glob(f"{name}*"):
        path.unlink(missing_ok=True)


def write_pairs(home: Path, run: str, units: Units, pairs: Pairs) -> Path:
    """Keep which own units match: LINKS/RUN.parquet in the holder's home, with the number of the pair and the key.

    Nobody but the holder's own account can read it.
    """
    check_name(run)
    folder = home / LINKS
    folder.mkdir(exist_ok=True, mode=0o700)
    check_modes(home)  # it may have been there, open to others
    path = folder / f"{run}.parquet"
    places = pa.array(pairs.unit)
    keys = {part: units.packed(part).take(places).cast(pa.large_string()) for part in units.keys}
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        parquet.write_table(pa.table({"pair": pairs.number, **keys}), file)
    return path


def _numbers(values: object, column: Column, name: str) -> NDArray[np.float64]:
    """Numbers as they are, categories as the places of their levels."""
    found = values.to_pylist()  # type: ignore[attr-defined]
    if column.levels:
        places = {level: float(place) for place, level in enumerate(column.levels)}
        if column.type == "boolean":
            return np.array(found, np.float64)
        return np.array([places[value] for value in found], np.float64)
    if not column.numeric:
        raise UsageError(f"{name}: got type {column.type}; want a number or a category to work out over the matched")
    return np.array(found, np.float64)
