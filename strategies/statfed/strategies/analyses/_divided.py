"""Sums of bounded amounts for a private release: numbers, sums, sums of squares, from noise of one record's own size.

An amount a in [low, high] is t = (a - low) / (high - low) in [0, 1], and (1 - t)^2 + 2 t (1 - t) + t^2 = 1: the three
terms (Bernstein polynomials of degree 2) are not negative and add up to 1 at every record. So their sums b0, b1, b2
change by at most 1 in L1 norm together when a record comes or goes, and from them follow, at the price of one number,
the number of records b0 + b1 + b2, the sum of t, b1 / 2 + b2, and the sum of t^2, b2. A record without an amount or
outside the domains counts in one more entry, the rest, instead. Of each form all entries are in the units of the amount
(of its square):

- of means: as above. The noise of a mean is at most that of the sum alone if the number of records were known.
- of totals of amounts of one sign: t = |a| / largest, and t + (1 - t)^2 + t (1 - t) = 1, so that the sum is an entry by
  itself, with the noise of one number, and sums of squares are the first less the third.
- of totals of amounts of either sign: the sum by itself with most of the budget, and numbers and squares, (1 - t^2) +
  t^2 = 1 with t = a / largest, with SPREAD beside it.
- of means with weights w in [0, W]: w (1 - t) / W, w t / W and 1 - w / W, which add up to 1 too, and the squares
  (w / W)^2 times the three terms, which serve sampling variances alone, with SQUARES beside them.
- of ratios of two amounts, the nine products of the terms of one and of the other, which add up to 1 as well; with
  weights as before.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from statfed.core.method import Arrays, Magnitude, Part, Total
from statfed.core.table import Expr, real

Floats = NDArray[np.float64]
SPREAD, SQUARES = 0.05, 0.1


@dataclass(frozen=True)
class Piece:
    """Entries of one part: how many in a domain, in which unit. of: coefficients of what is read from them.

    rest: is there an entry for all other records? single: does a record touch one entry only?
    """

    entries: int
    unit: float
    share: float = 1.0
    rest: bool = True
    single: bool = False


@dataclass(frozen=True)
class Form:
    """How sums of an amount are released; `y` is the sum of a - low, or of w (a - low), `x` the number, or sum of w.

    reads: for each of y, x, yy, yx, xx and count the piece and the coefficients of its entries. other: low and width of
    the denominator of a ratio, of which y and x are the sums of numerator and denominator themselves. whole: is the
    amount an entry by itself?
    """

    low: float
    width: float
    heaviest: float
    pieces: Mapping[str, Piece]
    reads: Mapping[str, tuple[str, tuple[float, ...]]]
    other: tuple[float, float] | None = None
    whole: bool = False


def product(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """Bounds of the product of two numbers within bounds."""
    ends = [x * y for x in one for y in other]
    return min(ends), max(ends)


def of_total(low: float, high: float) -> Form:
    """The form for totals of an amount, 0 where a record is not in the domain."""
    largest = max(-low, high) or 1.0
    if low >= 0.0 or high <= 0.0:
        sign = 1.0 if low >= 0.0 else -1.0
        y, x = ("amounts", (sign, 0.0, 0.0)), ("amounts", (1 / largest,) * 3)
        yy = ("amounts", (largest, 0.0, -largest))
        reads: dict[str, tuple[str, tuple[float, ...]]] = {"y": y, "yx": y, "x": x, "xx": x, "count": x, "yy": yy}
        return Form(0.0, sign * largest, 1.0, {"amounts": Piece(3, largest)}, reads, whole=True)
    pieces = {"sum": Piece(1, largest, rest=False, single=True), "spread": Piece(2, largest**2, SPREAD)}
    s, n = ("sum", (1.0,)), ("spread", (largest**-2,) * 2)
    reads = {"y": s, "yx": s, "x": n, "xx": n, "count": n, "yy": ("spread", (0.0, 1.0))}
    return Form(0.0, largest, 1.0, pieces, reads)


def of_mean(low: float, high: float) -> Form:
    """The form for means of an amount."""
    width = high - low or 1.0
    y, x = ("amounts", (0.0, 0.5, 1.0)), ("amounts", (1 / width,) * 3)
    reads = {"y": y, "yx": y, "x": x, "xx": x, "count": x, "yy": ("amounts", (0.0, 0.0, width))}
    return Form(low, width, 1.0, {"amounts": Piece(3, width)}, reads)


def of_weighted_mean(low: float, high: float, heaviest: float) -> Form:
    """The form for means with weights from 0 to `heaviest`."""
    width = high - low or 1.0
    linear, square = width * heaviest, (width * heaviest) ** 2
    pieces = {"amounts": Piece(3, linear), "squares": Piece(3, square, SQUARES, rest=False)}
    reads = {
        "y": ("amounts", (0.0, 1.0, 0.0)),
        "x": ("amounts", (1 / width, 1 / width, 0.0)),
        "count": ("amounts", (1 / linear,) * 3),
        "yy": ("squares", (0.0, 0.0, 1.0)),
        "yx": ("squares", (0.0, 0.5 / width, 1 / width)),
        "xx": ("squares", (width**-2,) * 3),
    }
    return Form(low, width, heaviest, pieces, reads)


def of_ratio(numerator: tuple[float, float], denominator: tuple[float, float], heaviest: float | None) -> Form:
    """The form for ratios of two amounts, with weights from 0 to `heaviest`, or without."""
    (low, high), (lowest, most) = numerator, denominator
    e, f = np.array([low, (low + high) / 2, high]), np.array([lowest, (lowest + most) / 2, most])
    ee, ff, one = np.array([low**2, low * high, high**2]), np.array([lowest**2, lowest * most, most**2]), np.ones(3)
    of = {"y": (e, one), "x": (one, f), "yy": (ee, one), "yx": (e, f), "xx": (one, ff), "count": (one, one)}
    flat = {key: tuple(np.outer(*pair).reshape(-1).tolist()) for key, pair in of.items()}
    pieces = {"amounts": Piece(9 if heaviest is None else 10, 1.0)}
    reads = {key: ("amounts", values) for key, values in flat.items()}
    if heaviest is not None:
        pieces["squares"] = Piece(9, 1.0, SQUARES, rest=False)
        for key in ("y", "x"):
            reads[key] = "amounts", (*(heaviest * value for value in flat[key]), 0.0)
        reads["count"] = "amounts", (1.0,) * 10
        for key in ("yy", "yx", "xx"):
            reads[key] = "squares", tuple(heaviest**2 * value for value in flat[key])
    other = lowest, most - lowest or 1.0
    return Form(low, high - low or 1.0, heaviest or 1.0, pieces, reads, other)


def parts(form: Form, domains: int, suffix: str = "") -> dict[str, Part]:
    """Public facts of the arrays: one a piece, (entries * domains,), and one entry more for the rest."""
    return {
        f"{name}{suffix}": Part(
            (piece.entries * domains + piece.rest,),
            piece.unit,
            single=piece.single,
            together=None if piece.single else (1.0, 1.0),
            share=piece.share,
            what=Magnitude(),
        )
        for name, piece in form.pieces.items()
    }


def expressions(
    form: Form, amount: Expr, weight: Expr | None = None, other: Expr | None = None
) -> dict[str, list[Expr]]:
    """What a record adds to the entries of its domain, by piece; null where the amount is. weight: of a mean or ratio;
    other: the denominator of a ratio."""
    if "sum" in form.pieces:
        square = amount * amount
        return {"sum": [amount], "spread": [real(form.width**2) - square, square]}
    t = _scaled(amount, form.low, form.width)
    terms = [t, (real(1.0) - t) * (real(1.0) - t), t * (real(1.0) - t)] if form.whole else _terms(t)
    if form.other is not None and other is not None:
        terms = [x * y for x in terms for y in _terms(_scaled(other, *form.other))]
    linear = real(form.pieces["amounts"].unit)
    if weight is None:
        return {"amounts": [linear * x for x in terms]}
    share, square = weight / real(form.heaviest) + real(0.0) * terms[0], real(form.pieces["squares"].unit)
    divided = [real(1.0) - t, t] if form.other is None else terms
    rest = real(1.0) - share
    return {
        "amounts": [linear * x for x in (*(share * x for x in divided), rest)],
        "squares": [square * share * share * x for x in terms],
    }


def _scaled(amount: Expr, low: float, width: float) -> Expr:
    return (amount - real(low)) / real(width) if low else amount / real(width)


def _terms(t: Expr) -> list[Expr]:
    return [(real(1.0) - t) * (real(1.0) - t), real(2.0) * t * (real(1.0) - t), t * t]


def arrays(form: Form, sums: Mapping[str, list[Floats]], others: int, suffix: str = "") -> dict[str, Floats]:
    """What `parts` announces. sums: of `expressions`, by piece, (domains,) each; others: records in none of them."""
    found = {}
    for name, piece in form.pieces.items():
        rest = [np.array([others * piece.unit])] if piece.rest else []
        found[f"{name}{suffix}"] = np.concatenate([*(np.ravel(each) for each in sums[name]), *rest]).astype(np.float64)
    return found


@dataclass(frozen=True)
class Sums:
    """What is read from a release, (domains,) each; records: all of them, `records_noise` its standard deviation."""

    form: Form
    noise: Mapping[str, float]
    count: Floats
    y: Floats
    x: Floats
    yy: Floats
    yx: Floats
    xx: Floats
    records: float
    records_noise: float

    @property
    def mu(self) -> float:
        """The ratio that y is already taken less."""
        return self.form.low if self.form.other is None else 0.0

    @property
    def total(self) -> Floats:
        """Sums of the amount itself."""
        return self.y + self.form.low * self.x

    @property
    def squares(self) -> Floats:
        """Sums of squares of the amount itself."""
        return self.yy + 2 * self.form.low * self.yx + self.form.low**2 * self.xx

    @property
    def total_noise(self) -> Floats:
        """Standard deviation of the noise in `total`."""
        return np.sqrt(self.variance(1.0, self.form.low)) + np.zeros(self.y.shape)

    def squares_noise(self, a: Floats | float, b: Floats | float) -> Floats:
        """Standard deviation of the noise in a^2 yy + 2 a b yx + b^2 xx, the sum of squares of a y + b x."""
        each: dict[str, Floats] = {}
        for key, factor in (("yy", np.square(a)), ("yx", 2.0 * np.multiply(a, b)), ("xx", np.square(b))):
            name, of = self.form.reads[key]
            each[name] = each.get(name, np.zeros(())) + np.multiply.outer(np.array(of), factor)
        squared = [self.noise[name] ** 2 * (of**2).sum(axis=0) for name, of in each.items()]
        return np.sqrt(sum(squared, np.zeros(self.y.shape)))

    def variance(self, a: Floats | float, b: Floats | float) -> Floats:
        """Variance of the noise in a y + b x."""
        (first, of_y), (second, of_x) = self.form.reads["y"], self.form.reads["x"]
        one, other = self.noise[first] ** 2, self.noise[second] ** 2
        if first != second:
            return np.asarray(
                np.square(a) * one * math.fsum(c * c for c in of_y)
                + np.square(b) * other * math.fsum(c * c for c in of_x)
            )
        return np.asarray(
            sum(one * np.square(np.multiply(a, c) + np.multiply(b, d)) for c, d in zip(of_y, of_x, strict=True))
        )


def positive(value: Floats, noise: Floats) -> Floats:
    """The mean of a number that is 0 or more, given that it is normal around `value` with deviation `noise`.

    Where the noise of a sampling variance is as large as the variance, a negative one counted as 0 made limits of
    totals that hold the truth in 80 % of releases instead of 95 %.
    """
    from scipy import stats

    known = np.where(noise > 0.0, noise, 1.0)
    added = known * np.exp(stats.norm.logpdf(value / known) - stats.norm.logcdf(value / known))
    return np.where(noise > 0.0, value + added, np.maximum(value, 0.0))


def read(form: Form, total: Total | Arrays, noise: Mapping[str, Floats], domains: int, suffix: str = "") -> Sums:
    """The sums of a release and the noise in them. noise: standard deviations of the parts, equal in each."""
    entries = {
        name: np.asarray(total[f"{name}{suffix}"])[: piece.entries * domains].reshape(piece.entries, domains)
        for name, piece in form.pieces.items()
    }
    spread = {name: float(np.max(noise[f"{name}{suffix}"], initial=0.0)) for name in form.pieces}
    found = {key: np.array(of) @ entries[name] for key, (name, of) in form.reads.items()}
    (name, piece), *_ = ((name, piece) for name, piece in form.pieces.items() if piece.rest)
    every = np.asarray(total[f"{name}{suffix}"])
    return Sums(
        form,
        spread,
        **found,
        records=float(every.sum() / piece.unit),
        records_noise=spread[name] / piece.unit * math.sqrt(every.size),
    )
