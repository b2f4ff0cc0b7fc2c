"""One holder's microdata as an Ibis expression: what the local half of an analysis computes on. Private.

Columns are those of the codebook, already checked and brought to one form by `statfed.client.data.tables`: `number`
float64, `integer` int64, `boolean` boolean, `category`, `id` and `text` strings, `date` int64 days since 1970-01-01,
`array` lists of float32 or float64, as stored, all of the codebook's length; missing codes are null. Conditions of the
query are applied. Aggregations run where the data are: nothing but their results is loaded, except by `batches`, which
streams.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, reduce
from operator import eq, ge, gt, le, lt, ne, or_
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.codebook import Codebook, day_of
from statfed.core.conditions import Clause, Condition
from statfed.core.errors import UsageError
from statfed.core.randomness import Stream
from statfed.core.section import Unit

Expr = Any  # an Ibis expression; Ibis's own annotations do not tell what kind of column a cast returns
BATCH = 65_536


def real(value: float) -> Expr:
    """A float64 constant that reaches the database bit for bit.

    A decimal literal does not: DuckDB reads one as an exact decimal, which its cast may round to a neighbour.
    """
    import ibis

    return ibis.literal(repr(float(value))).cast("float64")


@dataclass(frozen=True)
class Size:
    """Public numbers of records and of persons of one holder."""

    records: int
    persons: int

    def units(self, unit: Unit) -> int:
        """The number of privacy units."""
        return self.records if unit == "record" else self.persons


@dataclass(frozen=True)
class Table:
    """The records of one holder that a study looks at.

    expr: Ibis table; embedded: does the engine run in this process (DuckDB), so that streaming costs no network?
    compensated: add floats up with Kahan's algorithm, as private sums need (see `statfed.core.privacy.noise`); DuckDB
    only. size: public, as the holder declares it. random: stream of random numbers for one purpose of this ask, which
    no other ask or holder has. kept: what a method keeps of these very records from one ask to the next; private.
    """

    expr: Expr
    codebook: Codebook
    embedded: bool = True
    compensated: bool = False
    size: Size = Size(0, 0)
    random: Callable[[str], Stream] | None = field(default=None, repr=False)
    kept: dict[Any, Any] | None = field(default=None, repr=False)

    def __getitem__(self, name: str) -> Expr:
        """A column. Raises UsageError when the codebook does not list it."""
        self.codebook.column(name)
        return self.expr[name]

    def __repr__(self) -> str:
        return "Table(<private>)"

    def rows(self, names: Sequence[str]) -> Any:
        """Columns of the records as an Arrow table, private: in the order of the data where the engine keeps one
        (DuckDB), else sorted, so that the same data always come in the same order."""
        chosen = self.expr.select(*dict.fromkeys(names))
        if not self.embedded:
            return chosen.order_by(chosen.columns).to_pyarrow()
        connection = chosen.get_backend().con
        connection.execute("set preserve_insertion_order = true")
        try:
            return chosen.to_pyarrow()
        finally:
            connection.execute("set preserve_insertion_order = false")

    def streamed(self, names: Sequence[str], rows: int = BATCH) -> Iterator[Any]:
        """What `rows` gives, in the same order, a batch of about so many records at a time."""
        chosen = self.expr.select(*dict.fromkeys(names))
        if not self.embedded:
            yield from chosen.order_by(chosen.columns).to_pyarrow_batches(chunk_size=rows)
            return
        connection = chosen.get_backend().con
        connection.execute("set preserve_insertion_order = true")
        try:
            with _reader(chosen, rows, self.embedded) as reader:
                yield from reader
        finally:
            connection.execute("set preserve_insertion_order = false")

    def filter(self, *conditions: Expr) -> "Table":
        """The records for which every condition is true."""
        return replace(self, expr=self.expr.filter(list(conditions))) if conditions else self

    def complete(self, columns: Sequence[str]) -> "Table":
        """The records without a missing value in any of `columns`."""
        return self.filter(*(self[name].notnull() for name in dict.fromkeys(columns)))

    def number(self, name: str) -> Expr:
        """A numeric column as float64; a boolean is 0 or 1."""
        column = self[name]
        if self.codebook.columns[name].type == "boolean":  # PostgreSQL casts booleans to integers only
            return column.cast("int32").cast("float64")
        return column.cast("float64")

    def holds(self, clause: Clause) -> Expr:
        """Does a record meet a clause? Null where that depends on a missing value."""
        return reduce(or_, [self._compared(one) for one in clause.either])

    def _compared(self, condition: Condition) -> Expr:
        column, wanted = self[condition.column], condition.value
        if condition.op in ("is null", "is not null"):
            return column.isnull() if condition.op == "is null" else column.notnull()
        if self.codebook.columns[condition.column].levels:
            codes = list(wanted) if isinstance(wanted, tuple) else [wanted]
            values = [code == "true" for code in codes] if column.type().is_boolean() else codes
            return ~column.isin(values) if condition.op == "!=" else column.isin(values)
        listed: tuple[Any, ...] = wanted if isinstance(wanted, tuple) else (wanted,)
        if self.codebook.columns[condition.column].type == "date":
            listed = tuple(float(day_of(day)) for day in listed)
        if not all(isinstance(value, float) for value in listed):
            raise UsageError(f"where: got '{condition}'; want a comparison with a number")
        if condition.op == "in":
            return column.isin([real(value) for value in listed])
        compare = {"==": eq, "!=": ne, "<": lt, "<=": le, ">": gt, ">=": ge}
        return compare[condition.op](column, real(listed[0]))

    def aggregate(self, **values: Expr) -> dict[str, Any]:
        """Named aggregates over all records, as Python numbers. A sum over no records is 0."""
        row = self.expr.aggregate(**self._sums(values)).to_pyarrow().to_pylist()[0]
        return {name: row[name] if row[name] is not None else 0 for name in values}

    def grid(self, by: Sequence[str], **values: Expr) -> dict[str, NDArray[np.float64] | NDArray[np.int64]]:
        """Named aggregates in every combination of the levels of `by`, in the codebook's order.

        Write the number of records as `ibis._.count()`: records are filtered once more here.

        Each array has one axis per column of `by`; 0 where there are no records; int64 for integer aggregates.
        Records with a missing value in one of `by` are left out. by = () gives arrays of shape ().
        """
        if not by:
            return {name: _array(value) for name, value in self.aggregate(**values).items()}
        levels = [self.codebook.category(name).levels for name in by]
        complete = self.complete(by)
        keys = {f"level_{i}": complete.expr[name].cast("string") for i, name in enumerate(by)}
        found = complete.expr.group_by(**keys).aggregate(**self._sums(values)).to_pyarrow()
        codes = [
            _positions(found.column(key).to_pylist(), level, name)
            for key, level, name in zip(keys, levels, by, strict=True)
        ]
        shape = tuple(len(level) for level in levels)
        grids: dict[str, NDArray[np.float64] | NDArray[np.int64]] = {}
        for name in values:
            column = found.column(name)
            cells = [_number(value) for value in column.to_pylist()]
            integer = _integer(str(column.type))
            grid: NDArray[Any] = np.zeros(shape, np.int64 if integer else np.float64)
            if cells:
                grid[tuple(codes)] = cells
            grids[name] = grid
        return grids

    def _sums(self, values: Mapping[str, Expr]) -> Mapping[str, Expr]:
        return {name: _compensated(value) for name, value in values.items()} if self.compensated else values

    def batches(self, values: Mapping[str, Expr] | Sequence[Expr], rows: int = BATCH) -> Iterator[NDArray[np.float64]]:
        """Computed columns, streamed: arrays (rows, len(values)) of float64, column-major; missing is NaN."""
        named = values if isinstance(values, Mapping) else {f"v{i}": value for i, value in enumerate(values)}
        selected = self.expr.select(**{name: value.cast("float64") for name, value in named.items()})
        with _reader(selected, rows, self.embedded) as reader:
            for batch in reader:
                if batch.num_rows:
                    block = np.empty((batch.num_rows, len(named)), order="F")
                    for j, name in enumerate(named):
                        block[:, j] = batch.column(name).to_numpy(zero_copy_only=False)
                    yield block


def _compensated(value: Expr) -> Expr:
    """An aggregate with its sums of floats replaced by DuckDB's `fsum`."""
    import ibis
    import ibis.expr.operations as ops

    if not hasattr(value, "op"):  # a deferred count of records
        return value

    @ibis.udf.agg.builtin(name="fsum")  # type: ignore[untyped-decorator]
    def fsum(x: float) -> float:  # type: ignore[empty-body]  # the engine's own function
        ...

    def replaced(node: Any, arguments: Any) -> Any:
        node = node.__recreate__(arguments) if arguments else node
        if not (isinstance(node, ops.Sum) and node.arg.dtype.is_floating()):
            return node
        summed = node.arg.to_expr()
        return fsum(summed if node.where is None else node.where.to_expr().ifelse(summed, 0.0)).op()

    return value.op().replace(replaced).to_expr()


def _reader(expr: Expr, rows: int, embedded: bool) -> Any:
    if not embedded:
        return expr.to_pyarrow_batches(chunk_size=rows)
    engine = expr.get_backend()  # what Ibis calls there is deprecated by DuckDB
    return engine.raw_sql(_statement(expr.op())).to_arrow_reader(rows)


@lru_cache(maxsize=128)
def _statement(operation: Any) -> str:
    """The statement of an Ibis operation, which says names and constants and nothing of the data: equal operations
    have one, whatever they are asked of. (Zeros of either sign are equal: no sum tells them.)"""
    expr = operation.to_expr()
    text: str = expr.get_backend().compile(expr)
    return text


def _positions(found: list[str], levels: Sequence[str], name: str) -> NDArray[np.int64]:
    place = {level: i for i, level in enumerate(levels)}
    try:
        return np.array([place[code] for code in found], np.int64)
    except KeyError:  # the value stays here: the check against the codebook names the column only
        raise UsageError(f"{name}: got a category outside the codebook; want one of {', '.join(levels)}") from None


def _integer(arrow_type: str) -> bool:
    return arrow_type.startswith(("int", "uint")) or (arrow_type.startswith("decimal") and arrow_type.endswith(", 0)"))


def _number(value: Any) -> int | float:
    """A database's number as Python's: exact decimals without a fraction are integers."""
    if value is None:
        return 0
    if isinstance(value, bool | int):
        return int(value)
    return int(value) if not isinstance(value, float) and value == int(value) else float(value)


def _array(value: Any) -> NDArray[Any]:
    number = _number(value)
    return np.array(number, np.int64 if isinstance(number, int) else np.float64)
