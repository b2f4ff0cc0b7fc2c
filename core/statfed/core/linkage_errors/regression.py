"""Linear and logistic regression of a variable of one file on variables of another, linked with errors.

Within a block of m records a link is right with probability q, and otherwise leads to any other record of the block
with the same chance (exchangeable linkage errors). The response that the links bring, y*, then has

    E[y*_i | X] = a f_i + (1 - a) mean of f over the block,     a = (q m - 1) / (m - 1),  f_i = E[y_i | x_i],

so that slopes are biased towards 0 by about a. Blocks are known classes within which links are wrong alike, such as
the blocks of the linkage or strata of its quality; few and large ones serve.

All that is needed of records are sums by block over the linked file (`Sums`): one protected sum for a linear
regression, one for each step of a logistic one, and one more for the standard errors (`spread`).
Source: Lahiri and Larsen 2005, Journal of the American Statistical Association 100, 222-230; Chambers 2009, Regression
analysis of probability-linked data, Official Statistics Research Series 4; Chambers and da Silva 2020, Journal of the
Royal Statistical Society A 183.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from statfed.core.errors import UsageError
from statfed.core.linkage_errors.estimate import Estimate
from statfed.core.result import Row

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Family = Literal["linear", "logistic"]
Form = Literal["chambers", "lahiri-larsen"]
"""Weights h of the estimating equation sum h_i (y*_i - E[y*_i]) = 0: x_i, or a x_i + (1 - a) the block's mean of x."""

_STEPS = 50


@dataclass(frozen=True)
class Records:
    """Linked records. Private. x: (n, p), with a column of ones for the intercept; y: (n,), as the links bring it;
    block: (n,), 0 ... blocks - 1."""

    x: Floats
    y: Floats
    block: Ints

    def __repr__(self) -> str:
        return "Records(<private>)"


@dataclass(frozen=True)
class Sums:
    """Sums over linked records at one beta: `a + b` is the sum over both sets of records.

    size: (Q,) records by block; x: (Q, p), sums of x; y, f: (Q,), of y* and f; wx: (Q, p), of w x, w = df / d(x beta);
    wxx: (Q, p, p), of w x x'; xy, xf: (Q, p), of x y* and x f. Linear: f = x beta, w = 1.
    """

    size: Floats
    x: Floats
    y: Floats
    f: Floats
    wx: Floats
    wxx: Floats
    xy: Floats
    xf: Floats

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class LinkedRegression:
    """Coefficients corrected for wrong links. naive: those of all links taken for right. covariance: (p, p), with the
    uncertainty of the shares of right links, which is also by itself in `from_rates`."""

    family: Family
    coefficients: tuple[Estimate, ...]
    naive: tuple[float, ...]
    covariance: Floats = field(repr=False)
    from_rates: Floats = field(repr=False)
    records: int

    def interval(self, level: float = 0.95) -> Mapping[str, tuple[float, float]]:
        """Confidence limits by name."""
        return {each.name: each.interval(level) for each in self.coefficients}

    def rows(self) -> Sequence[Row]:
        """For a table of a `Result`: with the naive figure beside each coefficient."""
        return [{**each.row(), "naive": n} for each, n in zip(self.coefficients, self.naive, strict=True)]

    def summary(self) -> str:
        """In words."""
        each = zip(self.coefficients, self.naive, strict=True)
        head = f"{self.family} regression corrected for wrong links, {self.records:,} linked records"
        return "\n".join([head, *(f"  {e}; naive {n:.6g}" for e, n in each)])


def linked_regression(
    records: Records,
    right: ArrayLike,
    *,
    family: Family = "linear",
    form: Form = "chambers",
    std_error: ArrayLike = 0.0,
    names: Sequence[str] | None = None,
) -> LinkedRegression:
    """Regression on linked records, corrected for wrong links.

    right: q, the share of links that are right (the precision of the linkage), for all or by block (Q,); std_error: of
    each; one error where one share serves for all, independent ones by block.

    Estimating equation sum_i h_i (y*_i - E[y*_i]) = 0. form: h = x, for a linear model (X' A X)^-1 X' y* (Chambers); or
    h = a x + (1 - a) mean of x, for a linear model least squares on A X (Lahiri and Larsen). Standard errors by the
    sandwich, and the derivative of beta by q times the error of q.

    Misleads where a link's being wrong depends on y or x beyond the block; where missed links leave out records that
    differ in f; where a wrong link leads out of the block or mostly to records alike (near neighbours). A sample linked
    to a register is served where the sample's x in a block have the mean of the register's.
    Raises UsageError where 1 / m is not below q (links are then no better than chance), or the design is singular.
    """
    x, y, block = _read(records)
    q, errors = np.asarray(right, dtype=float), np.asarray(std_error, dtype=float)
    shared = q.ndim == 0
    blocks = int(block.max()) + 1
    if not shared and q.shape != (blocks,):
        raise UsageError(f"right: got shape {q.shape}; want one share, or one a block, {blocks}")
    if errors.shape not in ((), q.shape) or not (np.isfinite(errors) & (errors >= 0)).all():
        raise UsageError("std_error: want one that is not negative, or one for each share")
    size = np.bincount(block, minlength=blocks).astype(float)
    a = kept(np.broadcast_to(q, (blocks,)), size)
    labels = tuple(names) if names is not None else tuple(f"x{i}" for i in range(x.shape[1]))
    if len(labels) != x.shape[1]:
        raise UsageError(f"names: got {len(labels)}; want {x.shape[1]}")
    data = Records(x, y, block)
    beta = _solved(data, a, family, form)
    naive = _solved(data, np.ones(blocks), family, form)
    found = sums(data, beta, blocks, family)
    inverse = np.linalg.inv(_jacobian(found, a, form))
    by_q = _by_share(found, a, form) @ inverse.T
    if shared:
        by_q = by_q.sum(axis=0, keepdims=True)
    moved = by_q * np.broadcast_to(errors, (len(by_q),))[:, None]
    of_rates = moved.T @ moved
    covariance = inverse @ spread(data, beta, found, a, family, form) @ inverse.T + of_rates
    estimates = zip(labels, beta, np.sqrt(np.diag(covariance)), strict=True)
    return LinkedRegression(
        family=family,
        coefficients=tuple(Estimate(name, float(value), float(error)) for name, value, error in estimates),
        naive=tuple(map(float, naive)),
        covariance=covariance,
        from_rates=of_rates,
        records=len(y),
    )


def kept(right: Floats, size: Floats) -> Floats:
    """a = (q m - 1) / (m - 1) by block: what a link keeps of its own record. A block of one record keeps all.

    Raises UsageError unless 1 / m < q <= 1 in every block of several records.
    """
    several = size > 1
    if ((right > 1) | (several & (right * size <= 1))).any() or not np.isfinite(right).all():
        raise UsageError(
            "right: got shares of right links that are above 1, or no better than chance; want 1 / m < q <= 1"
        )
    return np.where(several, (right * size - 1) / np.maximum(size - 1, 1), 1.0)


def sums(records: Records, beta: Floats, blocks: int, family: Family) -> Sums:
    """The sums over these records at beta that a step needs; additive over records."""
    x, y, block = records.x, records.y, records.block
    f, w = _mean(x @ beta, family)

    def by_block(values: Floats) -> Floats:
        flat = values.reshape(len(values), -1)
        columns = [np.bincount(block, weights=column, minlength=blocks) for column in flat.T]
        return np.stack(columns, axis=1, dtype=float).reshape(blocks, *values.shape[1:])

    return Sums(
        size=np.bincount(block, minlength=blocks).astype(float),
        x=by_block(x),
        y=by_block(y),
        f=by_block(f),
        wx=by_block(w[:, None] * x),
        wxx=by_block(w[:, None, None] * x[:, :, None] * x[:, None, :]),
        xy=by_block(x * y[:, None]),
        xf=by_block(x * f[:, None]),
    )


def spread(records: Records, beta: Floats, found: Sums, a: Floats, family: Family, form: Form) -> Floats:
    """Sum over records of h h' (y* - E[y*])^2, (p, p): the middle of the sandwich; additive over records.

    found: `sums` over all records at beta, for the means of blocks.
    """
    f, _ = _mean(records.x @ beta, family)
    of, own = records.block, a[records.block]
    left = records.y - own * f - (1 - own) * _by_size(found.f, found)[of]
    weights = records.x
    if form == "lahiri-larsen":
        weights = own[:, None] * records.x + (1 - own)[:, None] * _by_size(found.x, found)[of]
    scores = weights * left[:, None]
    return np.asarray(scores.T @ scores)


def step(found: Sums, a: Floats, form: Form) -> Floats:
    """What Newton's method adds to beta, from sums alone. Raises UsageError where the design is singular."""
    by_record = found.xy - a[:, None] * found.xf - ((1 - a) * _by_size(found.f, found))[:, None] * found.x
    if form == "lahiri-larsen":
        by_record = a[:, None] * by_record + ((1 - a) * (found.y - found.f))[:, None] * _by_size(found.x, found)
    jacobian = _jacobian(found, a, form)
    scale = np.sqrt(np.abs(np.diag(jacobian)))
    if (scale == 0).any() or np.linalg.cond(jacobian / np.outer(scale, scale)) > 1e12:
        raise UsageError("the design is singular: columns of x that others make up, or too few records")
    return np.asarray(np.linalg.solve(jacobian, by_record.sum(axis=0)))


def _jacobian(found: Sums, a: Floats, form: Form) -> Floats:
    """Of the estimating equation, less its sign: sum a w x x' + (1 - a) m mean(x) mean(w x)'; a squared for form
    lahiri-larsen."""
    a = a**2 if form == "lahiri-larsen" else a
    own = np.einsum("q,qij->ij", a, found.wxx)
    return np.asarray(own + np.einsum("q,qi,qj->ij", 1 - a, found.x, _by_size(found.wx, found)))


def _by_share(found: Sums, a: Floats, form: Form) -> Floats:
    """Derivative of the estimating equation by q of each block, (Q, p), at a solution."""
    by_a = _by_size(found.f, found)[:, None] * found.x - found.xf
    a_by_q = np.where(found.size > 1, found.size / np.maximum(found.size - 1, 1), 0.0)
    return np.asarray((a_by_q * (a if form == "lahiri-larsen" else 1.0))[:, None] * by_a)


def _by_size(total: Floats, found: Sums) -> Floats:
    """Means of blocks."""
    size = np.maximum(found.size, 1)
    return np.asarray(total / (size[:, None] if total.ndim == 2 else size))


def _solved(records: Records, a: Floats, family: Family, form: Form) -> Floats:
    beta = np.zeros(records.x.shape[1])
    for _ in range(_STEPS):
        move = step(sums(records, beta, len(a), family), a, form)
        beta = beta + move
        if np.abs(move).max() < 1e-9 * (1 + np.abs(beta).max()):
            return beta
        if family == "linear":
            continue
        if not np.isfinite(beta).all() or np.abs(records.x @ beta).max() > 100:
            break
    raise UsageError(f"{family} regression: no solution; want a response that x does not separate")


def _mean(linear: Floats, family: Family) -> tuple[Floats, Floats]:
    """f and its derivative."""
    if family == "linear":
        return linear, np.ones_like(linear)
    f = 1 / (1 + np.exp(-np.clip(linear, -500, 500)))
    return f, f * (1 - f)


def _read(records: Records) -> tuple[Floats, Floats, Ints]:
    x, y, block = np.asarray(records.x, float), np.asarray(records.y, float), np.asarray(records.block)
    if x.ndim != 2 or y.shape != (len(x),) or block.shape != (len(x),) or not len(x):
        raise UsageError("records: want x (n, p), y (n,) and block (n,)")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise UsageError("records: got numbers that are not finite")
    if not np.issubdtype(block.dtype, np.integer) or block.min() < 0:
        raise UsageError("records: got blocks that are not whole numbers from 0")
    return x, y, block.astype(np.int64)
