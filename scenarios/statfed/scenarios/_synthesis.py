"""What scenarios of synthetic data share: records made from answers, figures read off them, and when they are useful.

A method's fit is a recipe over released answers, and so is a scenario's `compute`: the questions of the one are those
of the other. Which method a level has follows from how it releases. Records are drawn with a fixed seed, and as many as
are public: the number of the originals stays with the holders. So every figure is a share, a mean, a coefficient, a
quantile or an index, and none is a total.

The same program reads figures off synthetic records and off the originals together: what differs is the records.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from statfed.core.codebook import Codebook
from statfed.core.errors import UsageError
from statfed.core.result import Result
from statfed.core.scenario import Ask, Figure, Figures, Level, Reference
from statfed.core.synthesis import read_synthesis
from statfed.core.synthetic import edits
from statfed.core.synthetic.coded import Coded

RECORDS = 10_000
"""Synthetic records of a scenario. A share of a fifth then has a standard error of 0.4 points by the draw alone."""
SHARE = 0.98
"""Of the budget of a level that the one question takes: what is composed in the end stays below what was said."""
COARSE: Mapping[str, Mapping[str, Any]] = {"cart": {"classes": 24, "smallest": 20, "depth": 8}, "aim": {"classes": 24}}
"""Options of methods that are tried under every technique: coarser than their defaults, and quicker."""
SEED = 1
"""Of the draw. Answers differ from trial to trial, the draw does not."""


def method_of(level: Level) -> str:
    """The method of synthetic data that suits a level: `aim` with noise, `margins` under rules, else `cart`."""
    return "aim" if level.privacy else "cart" if level.disclosure.silent else "margins"


def made(ask: Ask, codebook: Codebook, columns: Mapping[str, Sequence[str]], **options: Any) -> pd.DataFrame:
    """`drawn`, as a data frame."""
    return framed(drawn(ask, codebook, columns, **options))


def drawn(ask: Ask, codebook: Codebook, columns: Mapping[str, Sequence[str]], **options: Any) -> Coded:
    """Synthetic records by the method of the level that is asked at, all of which obey the codebook's rules.

    columns: by method, in its order; of `margins` those that have levels. options: by method, further ones to `COARSE`.
    Raises what the fit raises.
    """
    method = method_of(ask.level)
    if method not in columns:
        raise UsageError(f"level {ask.level.id}: got method {method}; want a level of {', '.join(columns)}")
    chosen = {"columns": tuple(columns[method]), **COARSE.get(method, {}), **options.get(method, {})}
    module, read = read_synthesis(method, chosen)

    def within_budget(analysis: str, *, share: float = 1.0, where: str | Sequence[str] = (), **more: Any) -> Result:
        return ask(analysis, share=SHARE * share, where=where, **more)

    model, rng = module.fit(within_budget, codebook, read), np.random.default_rng(SEED)

    def generate(size: int) -> Coded:
        return Coded(codebook, dict(module.generate(model, codebook, size, rng)))

    least = edits.LEAST_SHARE if codebook.folded is None else edits.LEAST_OF_UNITS
    return edits.drawn(generate, codebook, RECORDS, least)


def framed(table: Coded) -> pd.DataFrame:
    """A coded table without missing values as a data frame: codes as text, truth values, numbers."""
    found: dict[str, Any] = {}
    for name, values in table.columns.items():
        column = table.codebook.columns[name]
        if table.missing(name).any():
            raise UsageError(f"{name}: got missing values; want columns that are required")
        found[name] = values == 1 if column.type == "boolean" else values
        if column.levels and column.type != "boolean":
            found[name] = np.asarray(column.levels, object)[values]
    return pd.DataFrame(found)


def within(frame: pd.DataFrame, name: str, limits: Mapping[str, tuple[float, float]]) -> NDArray[np.float64]:
    """Numbers for classes, each evenly drawn within the public limits of its class, (n,)."""
    low, high = np.array([limits[str(code)] for code in frame[name]], np.float64).reshape(-1, 2).T
    found: NDArray[np.float64] = low + (high - low) * np.random.default_rng(SEED + 1).random(len(frame))
    return found


# Figures


def shares(frame: pd.DataFrame, codebook: Codebook, *by: str) -> dict[str, float]:
    """Share of all records in each cell of a table, empty ones included. by: columns with levels."""
    texts = [_texts(frame[name]) for name in by]
    counts = pd.Series(list(zip(*texts, strict=True))).value_counts()
    cells = product(*(codebook.columns[name].levels for name in by))
    return {f"table/{' x '.join(by)}/{'|'.join(cell)}": float(counts.get(cell, 0)) / len(frame) for cell in cells}


def means(frame: pd.DataFrame, value: str, by: str, codebook: Codebook) -> dict[str, float]:
    """Mean of a column in each category of another; not a number where there is none."""
    texts = pd.Series(_texts(frame[by]))
    found = pd.Series(frame[value].to_numpy(np.float64)).groupby(texts).mean()
    return {f"mean/{value}/{code}": float(found.get(code, math.nan)) for code in codebook.columns[by].levels}


def coefficients(
    frame: pd.DataFrame, target: NDArray[np.float64], terms: Sequence[str], codebook: Codebook, errors: bool = False
) -> dict[str, float]:
    """Coefficients of least squares, without the intercept; categories against the first. Not a number where records
    do not determine one. errors: with their standard errors, under `error/`."""
    names, columns = [""], [np.ones(len(frame))]
    for term in terms:
        column = codebook.columns[term]
        if column.levels:
            texts = np.asarray(_texts(frame[term]), object)
            names += [f"{term}={level}" for level in column.levels[1:]]
            columns += [(texts == level).astype(np.float64) for level in column.levels[1:]]
        else:
            names.append(term)
            columns.append(frame[term].to_numpy(np.float64))
    design = np.column_stack(columns)
    there = np.ptp(design, axis=0) > 0
    there[0] = True
    kept = design[:, there]
    if np.linalg.matrix_rank(kept) < kept.shape[1]:
        there[:] = False
    estimate, error = np.full(len(names), math.nan), np.full(len(names), math.nan)
    if there.any():
        estimate[there] = np.linalg.lstsq(kept, target, rcond=None)[0]
        residual = target - kept @ estimate[there]
        variance = float(residual @ residual) / (len(target) - kept.shape[1])
        error[there] = np.sqrt(variance * np.diag(np.linalg.inv(kept.T @ kept)))
    found = {f"coefficient/{name}": float(value) for name, value in zip(names[1:], estimate[1:], strict=True)}
    return found | (
        {f"error/{name}": float(value) for name, value in zip(names[1:], error[1:], strict=True)} if errors else {}
    )


def gini(values: NDArray[np.float64]) -> float:
    """Gini coefficient of amounts that are not negative: 0 where all are equal, 1 where one has all."""
    ordered = np.sort(values)
    places = np.arange(1, len(ordered) + 1)
    return float((2 * places - len(ordered) - 1) @ ordered / (len(ordered) * ordered.sum()))


def told(found: Mapping[str, float]) -> Figures:
    """Figures as they come out; what is not a number is not there."""
    return {name: Figure(value if math.isfinite(value) else None) for name, value in found.items()}


def _texts(values: pd.Series) -> list[str]:
    return [str(one).lower() if isinstance(one, bool | np.bool_) else str(one) for one in values]


# Utility

RELATIVE = frozenset({"mean", "quantile"})
"""Kinds of figures whose error is relative to the pooled one."""


def worst(limits: Mapping[str, float]) -> Callable[[Figures, Reference], float]:
    """Largest error of a kind of figures over what its use allows. limits: by kind, the first part of a figure's name.

    Error of `table`: total variation distance, half the sum of differences of shares, mean over tables: the share of
    records that would have to lie in other cells. Of other kinds: the largest difference, of `RELATIVE` ones as a part
    of the pooled figure. One that did not come out is infinitely wrong.
    """

    def measure(figures: Figures, pooled: Reference) -> float:
        return max(errors(figures, pooled)[kind] / limit for kind, limit in limits.items())

    return measure


def errors(figures: Figures, pooled: Reference) -> dict[str, float]:
    """Error of each kind of figures, as of `worst`."""
    tables: dict[str, float] = {}
    found: dict[str, float] = {}
    for name, figure in figures.items():
        kind, _, rest = name.partition("/")
        away = math.inf if figure.value is None else abs(figure.value - pooled[name])
        if kind == "table":
            table = rest.partition("/")[0]
            tables[table] = tables.get(table, 0.0) + away / 2
        else:
            size = abs(pooled[name]) if kind in RELATIVE else 1.0
            found[kind] = max(found.get(kind, 0.0), away / size if size else math.inf * away if away else 0.0)
    return found | ({"table": sum(tables.values()) / len(tables)} if tables else {})
