"""A table by its codebook, as codes and numbers: what measures and methods of synthetic data look at.

Columns with levels are codes, columns with an order are numbers; what identifies (`id`, `text`, the roles unit, psu,
enterprise and record-key) and arrays are left out. A value that is missing is a level of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.codebook import Codebook, Column
from statfed.core.errors import UsageError

_IDENTIFIES = frozenset({"unit", "psu", "enterprise", "record-key", "replicate"})
_LEFT_OUT = frozenset({"id", "text", "array"})


def described(codebook: Codebook) -> tuple[str, ...]:
    """Names of the columns that are looked at, in order."""
    return tuple(
        name
        for name, column in codebook.columns.items()
        if column.type not in _LEFT_OUT and column.role not in _IDENTIFIES
    )


@dataclass(frozen=True)
class Coded:
    """A table by its codebook. Private as the table is.

    columns: by name; with levels int64 (n,), places in `Column.levels`, -1 where missing; others float64 (n,), dates in
    days since 1970-01-01, NaN where missing. All columns have n values.
    """

    codebook: Codebook
    columns: Mapping[str, NDArray[Any]]

    @property
    def names(self) -> tuple[str, ...]:
        """Columns, in the codebook's order."""
        return tuple(self.columns)

    @property
    def count(self) -> int:
        """The number of records."""
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def levelled(self, name: str) -> bool:
        """Has the column levels?"""
        return bool(self.codebook.columns[name].levels)

    def missing(self, name: str) -> NDArray[np.bool_]:
        """Which records miss a value of a column, (n,)."""
        values = self.columns[name]
        found: NDArray[np.bool_] = values < 0 if self.levelled(name) else np.isnan(values)
        return found

    def take(self, which: NDArray[Any]) -> "Coded":
        """Some records: places or a mask, (m,)."""
        return Coded(self.codebook, {name: values[which] for name, values in self.columns.items()})

    def only(self, names: Sequence[str]) -> "Coded":
        """Some columns. Raises UsageError naming those there are."""
        for name in names:
            if name not in self.columns:
                self.codebook.column(name)
                raise UsageError(f"columns: got {name}, which identifies or has no levels and no order; want another")
        return Coded(self.codebook, {name: self.columns[name] for name in names})

    def drawn(self, count: int, rng: np.random.Generator) -> "Coded":
        """So many records without replacement, in random order; all where there are no more."""
        return self.take(rng.permutation(self.count)[:count])

    def __repr__(self) -> str:
        return f"Coded(<{len(self.columns)} columns, private>)"


def coded(table: Any, codebook: Codebook, where: str = "data") -> Coded:
    """An Arrow table as holders' data are read (`statfed.core.table.Table.rows`): codes as text, truth values, numbers,
    dates in days, missing values null. Raises UsageError naming the column that does not fit, and never a value."""
    names = described(codebook)
    if not names:
        raise UsageError(f"{where}: got a codebook without columns that have levels or an order; want some")
    if absent := [name for name in names if name not in table.column_names]:
        raise UsageError(f"{where}: got no column {', '.join(absent)}; want every column of the codebook")
    if not table.num_rows:
        raise UsageError(f"{where}: got no records; want some")
    return Coded(
        codebook, {name: _read(table.column(name), codebook.columns[name], f"{where}: {name}") for name in names}
    )


def _read(values: Any, column: Column, where: str) -> NDArray[Any]:
    import pyarrow as pa
    import pyarrow.compute

    pc: Any = pyarrow.compute  # its functions are made when it is imported
    if not column.levels:
        numbers: NDArray[np.float64] = values.cast(pa.float64()).to_numpy().astype(np.float64)
        return numbers
    texts = pc.if_else(values, "true", "false") if pa.types.is_boolean(values.type) else values.cast(pa.string())
    places = pc.index_in(texts, value_set=pa.array(column.levels, pa.string()))
    if strange := places.null_count - texts.null_count:
        raise UsageError(f"{where}: got {strange} records with a code that is not listed; want those of the codebook")
    codes: NDArray[np.int64] = pc.fill_null(places, -1).to_numpy().astype(np.int64)
    return codes


def joined(*tables: Coded) -> Coded:
    """Tables of the same columns below one another."""
    names = tables[0].names
    return Coded(tables[0].codebook, {name: np.concatenate([each.columns[name] for each in tables]) for name in names})


@dataclass(frozen=True)
class Grid:
    """The cells that numbers are counted in. edges: by name, of columns without levels, increasing: a value is in the
    cell of the last edge that is not above it. sizes: cells of each column, the last one for missing."""

    codebook: Codebook
    names: tuple[str, ...]
    edges: Mapping[str, NDArray[np.float64]]

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Cells of each column, missing included."""
        return tuple(
            (len(self.edges[name]) + 1 if name in self.edges else len(self.codebook.columns[name].levels)) + 1
            for name in self.names
        )

    def codes(self, table: Coded) -> NDArray[np.int64]:
        """The cells of records, (n, columns)."""
        found = np.empty((table.count, len(self.names)), np.int64)
        for place, (name, size) in enumerate(zip(self.names, self.sizes, strict=True)):
            values = table.columns[name]
            cells = np.searchsorted(self.edges[name], values, side="right") if name in self.edges else values
            found[:, place] = np.where(table.missing(name), size - 1, cells)
        return found


def grid_of(table: Coded, bins: int = 10, names: Sequence[str] | None = None) -> Grid:
    """A grid whose cells of numbers have about equally many records of this table: it is as private as the table.

    A value that many records share begins a cell of its own.
    """
    chosen = tuple(names if names is not None else table.names)
    edges = {}
    for name in chosen:
        if not table.levelled(name):
            there = table.columns[name][~table.missing(name)]
            cuts = np.quantile(there, np.arange(1, bins) / bins, method="inverted_cdf") if len(there) else []
            inner = np.unique(cuts)
            heavy = _heavy(there, bins)
            after = [there[there > value].min() for value in heavy if (there > value).any()]
            edges[name] = np.unique(np.concatenate([inner, heavy, after])) if len(there) else np.empty(0)
            edges[name] = edges[name][edges[name] > there.min()] if len(there) else edges[name]
    return Grid(table.codebook, chosen, edges)


def _heavy(values: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """Values that more than one in `bins` records have."""
    there, times = np.unique(values, return_counts=True)
    found: NDArray[np.float64] = there[times * bins > len(values)]
    return found
