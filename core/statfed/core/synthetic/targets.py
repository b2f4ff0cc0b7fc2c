"""Disclosure by what is the same for all who look alike: replicated uniques, DiSCO, TCAP.

The attacker knows some columns (keys) of a person and asks the synthetic data for another one (target). Sources:
Raab, Nowok and Dibben 2025 (synthpop's disclosure measures: repU, DiS, DiSCO); Taub et al. 2018 (TCAP). A rate here is
not a risk by itself: what everybody's data would give stands beside it, from fresh records or from the original's own
margin, and most of a rate is that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import UsageError
from statfed.core.synthetic.coded import Coded, grid_of
from statfed.core.synthetic.measured import Measured, attacked

_BINS = 20


@dataclass(frozen=True)
class _Keyed:
    """Groups of records with the same keys. group: (n,) of a table's records, places among the groups of all."""

    synthetic: NDArray[np.int64]
    attacked: NDArray[np.int64]
    groups: int


def _keyed(keys: Sequence[NDArray[np.int64]]) -> _Keyed:
    """keys: of the synthetic table and of the attacked one, (n, columns) each."""
    _, group = np.unique(np.vstack(keys), axis=0, return_inverse=True)
    group = group.ravel()
    return _Keyed(group[: len(keys[0])], group[len(keys[0]) :], int(group.max()) + 1)


def _codes(tables: Sequence[Coded], original: Coded, names: Sequence[str]) -> list[NDArray[np.int64]]:
    grid = grid_of(original, _BINS, names)
    return [grid.codes(table) for table in tables]


def replicated_uniques(
    original: Coded, synthetic: Coded, fresh: Coded | None, keys: Sequence[str], rng: np.random.Generator
) -> Measured:
    """Share of original records that are unique by their keys and stand as a unique in the synthetic data too (repU).

    Numbers are grouped in twentieths of the original. control: fresh records in the place of the original ones.
    """
    _checked(original, keys)
    size = original.count if fresh is None else min(original.count, fresh.count)

    def hit(table: Coded) -> NDArray[np.bool_]:
        return replicated(original, synthetic, table.drawn(size, rng), keys)

    return attacked("replicated-uniques", hit(original), None if fresh is None else hit(fresh), None, ", ".join(keys))


def replicated(reference: Coded, synthetic: Coded, table: Coded, keys: Sequence[str]) -> NDArray[np.bool_]:
    """Of each attacked record: is it unique by the keys among them, and one synthetic record as well?

    reference: whose twentieths numbers are grouped in.
    """
    found = _keyed(_codes((synthetic, table), reference, keys))
    once = [np.bincount(group, minlength=found.groups) == 1 for group in (found.synthetic, found.attacked)]
    return np.asarray((once[0] & once[1])[found.attacked], np.bool_)


def disclosive_correct(
    original: Coded,
    synthetic: Coded,
    fresh: Coded | None,
    keys: Sequence[str],
    target: str,
    rng: np.random.Generator,
) -> Measured:
    """Share of original records whose keys have one value of the target in the synthetic data, and it is theirs
    (DiSCO)."""
    _checked(original, keys, target)
    size = original.count if fresh is None else min(original.count, fresh.count)

    def hit(table: Coded) -> NDArray[np.bool_]:
        return unanimous(original, synthetic, table.drawn(size, rng), keys, target)[1]

    control = None if fresh is None else hit(fresh)
    return attacked("disco", hit(original), control, _unanimous_margin(original, target), f"{target} by {_list(keys)}")


def targeted_correct(
    original: Coded,
    synthetic: Coded,
    fresh: Coded | None,
    keys: Sequence[str],
    target: str,
) -> Measured:
    """Of records whose keys have one value of the target in the synthetic data, the share whose own it is (TCAP).

    naive: the share that the commonest value has in the original. Records whose keys are not in the synthetic data, or
    have several values there, are not attacked; without any left the figure is 0 of 0 attempts, and says so.
    """
    _checked(original, keys, target)

    def hit(table: Coded) -> NDArray[np.bool_]:
        open_, right = unanimous(original, synthetic, table, keys, target)
        return right[open_]

    hits = hit(original)
    naive, about = _unanimous_margin(original, target), f"{target} by {_list(keys)}"
    if not len(hits):
        return Measured("tcap", "risk", 0.0, n=0, about=about, note="no keys with one value in the synthetic data")
    control = None if fresh is None else hit(fresh)
    return attacked("tcap", hits, control, naive, about)


def unanimous(
    reference: Coded, synthetic: Coded, table: Coded, keys: Sequence[str], target: str
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Of each attacked record: do its keys have one value of the target in the synthetic data, and is it its own?

    reference: whose twentieths numbers are grouped in.
    """
    found = _keyed(_codes((synthetic, table), reference, keys))
    there, mine = (codes[:, 0] for codes in _codes((synthetic, table), reference, [target]))
    lowest = np.full(found.groups, np.iinfo(np.int64).max)
    highest = np.full(found.groups, -1)
    np.minimum.at(lowest, found.synthetic, there)
    np.maximum.at(highest, found.synthetic, there)
    one = lowest == highest
    open_ = np.asarray(one[found.attacked], np.bool_)
    return open_, np.asarray(open_ & (highest[found.attacked] == mine), np.bool_)


def _unanimous_margin(original: Coded, target: str) -> float:
    (codes,) = _codes((original,), original, [target])
    return float(np.bincount(codes[:, 0]).max() / original.count)


def _checked(original: Coded, keys: Sequence[str], target: str = "") -> None:
    original.only([*keys, *([target] if target else [])])
    if not keys or target in keys or len(set(keys)) < len(keys):
        raise UsageError(
            f"keys: got {_list(keys) or 'none'} for target {target or '-'}; want columns beside the target"
        )


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)
