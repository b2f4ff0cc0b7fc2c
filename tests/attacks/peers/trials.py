"""The attacks of an analyst that a peer has a function for, put before DataSHIELD's rules: does the answer come, and
with it the target's value?"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from tests.attacks.peers import datashield as ds
from tests.attacks.population import PERSON, enterprises, persons

INCOME = PERSON.secret["income"]


def _people() -> pd.DataFrame:
    return persons()["a"]


def _regression(frame: pd.DataFrame, *columns: np.ndarray) -> bool:
    y = frame["income"].to_numpy()
    return ds.model([y, *(np.asarray(x, np.float64) for x in columns)])


def _bump() -> bool:
    frame = _people()
    x = 1 / (1 + 1e7 * ((frame["age"] - 47) ** 2 + (frame["entry"] - 17) ** 2))
    return ds.text("1/(1+1e7*((age-47)^2+(entry-17)^2))") and _regression(frame, x.to_numpy())


def _grant() -> bool:
    """Two-valued: refused; with a little of another column added it has many values."""
    frame = _people()
    return _regression(frame, (frame["grant"] + 1e-6 * frame["age"]).to_numpy())


def _level() -> bool:
    frame = _people()
    return _regression(frame, (frame["list"] == "short").to_numpy())


def _interaction() -> bool:
    """The product of two indicators is two-valued; as part of one column of four values it is not."""
    frame = _people()
    club, union = (frame[name].eq("y").to_numpy(np.float64) for name in ("club", "union"))
    return _regression(frame, club, union, club + 2 * union + 4 * club * union)


def _weighted() -> bool:
    frame = _people()
    return ds.mean(len(frame))  # sum of a product of two columns that were made on the server, over all records


def _twelve() -> bool:
    return ds.subset(int((_people()["region"] == "far").sum())) and ds.mean(12)


def _dummy() -> bool:
    frame = _people()
    return _regression(frame, frame["region"].eq("far").to_numpy())


def _differences() -> bool:
    frame = _people()
    return ds.subset(int((frame["list"] == "long").sum())) and ds.mean(len(frame))


def _inclusion() -> bool:
    frame = _people()
    club, union = frame["club"].eq("y"), frame["union"].eq("y")
    return all(ds.subset(int(part.sum())) for part in (club, union, ~club & ~union))


def _bits() -> bool:
    """Subsets of three of whom two are known: refused where the third is not among them."""
    sizes = [3 - int(x > INCOME) for x in (1e5, 1.9e5)]
    return ds.subset(sizes[0]) != ds.subset(sizes[1])


def _enterprise() -> bool:
    frame = enterprises()["a"]
    return ds.subset(int((frame["sector"] == "mining").sum()))


def _steep() -> bool:
    """The client sends the coefficients of each iteration; none of the filters is about them."""
    frame = _people()
    x = [frame[name].to_numpy(np.float64) for name in ("age", "entry", "income")]
    return ds.model([frame["illness"].to_numpy(np.float64), *x])


def _small_cell() -> bool:
    frame = _people()
    return ds.table(pd.crosstab(frame["club"], frame["union"]).to_numpy())


TRIALS: dict[str, Callable[[], bool]] = {
    "formula that is one at the target": _bump,
    "column that one person has": _grant,
    "level of one person": _level,
    "interaction of one person": _interaction,
    "weight that one person has": _weighted,
    "mean of 12 records of one person": _twelve,
    "dummy of 12 records of one person": _dummy,
    "difference of two totals": _differences,
    "inclusion and exclusion": _inclusion,
    "refusals as bits": _bits,
    "total that one enterprise dominates": _enterprise,
    "steep coefficients of the coordinator": _steep,
    "table with a cell of one": _small_cell,
}
"""True where the answer comes, and the attack with it."""
