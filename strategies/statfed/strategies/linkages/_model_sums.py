"""The sums that holders of the plain join would have sent, from opened cross products and a logistic model's waves.

Cross products are whole numbers and are put in the units and about the centres of an ask in exact arithmetic, rounded
once. A column whose spread, given the others, is not far above the rounding of what is shared is refused: its
coefficient would be one of rounding.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import UsageError
from statfed.core.method import Ask, Question, Total
from statfed.strategies.analyses._matrix import INTERCEPT
from statfed.strategies.analyses._regression import make_basis
from statfed.strategies.linkages import _waves
from statfed.strategies.linkages._models import Products, key_of, model_of, response_of

HIDDEN = 1e-6
"""Share of a column's variance, given the others, that may be rounding of what is shared."""
Floats = NDArray[np.float64]
Exact = NDArray[Any]


@dataclass(frozen=True)
class Opened:
    """The cross products (1 + features, 1 + features) as opened, and what units they have."""

    products: Products
    found: NDArray[np.int64]

    @property
    def count(self) -> int:
        return int(self.found[0, 0])

    def sum(self, key: str) -> float:
        """Of a feature over the matched."""
        at = self.products.place(key)
        feature = self.products.ordered[at - 1]
        whole = Fraction(feature.unit(self.products.bits)) * int(self.found[0, at])
        return float(whole + Fraction(feature.middle) * self.count)

    def raw(self, keys: Sequence[str]) -> Exact:
        """(1 + features, 1 + keys): [1, keys] in terms of the rows of the cross products, exactly."""
        made = np.full((len(self.found), 1 + len(keys)), Fraction(0), object)
        made[0, 0] = Fraction(1)
        for j, key in enumerate(keys, 1):
            at = self.products.place(key)
            feature = self.products.ordered[at - 1]
            made[0, j], made[at, j] = Fraction(feature.middle), Fraction(feature.unit(self.products.bits))
        return made

    def crossed(self, z: Exact) -> Floats:
        """z' products z, exactly and then rounded once."""
        used = [i for i in range(len(z)) if any(z[i])]
        inner = np.array([[int(x) for x in row] for row in self.found[np.ix_(used, used)]], object)
        whole, power = _whole(z[used])
        found = whole.T @ inner @ whole
        return np.array([[int(x) / (1 << (2 * power)) for x in row] for row in found], np.float64)


def _whole(z: Exact) -> tuple[Exact, int]:
    """z times a power of two, whole numbers: what floats are in common units."""
    power = max((Fraction(x).denominator.bit_length() - 1 for x in z.flat), default=0)
    return np.array([[int(Fraction(x) * (1 << power)) for x in row] for row in z], object).reshape(z.shape), power


def _fractions(x: Floats) -> Exact:
    return np.array([Fraction(float(v)) for v in np.asarray(x).flat], object).reshape(np.shape(x))


def answer(opened: Opened, ask: Ask) -> Total:
    """What the holders' sums over the plain join would be, of all asks but a logistic model's steps."""
    products, question = opened.products, opened.products.question
    parts, n = question.method.parts(question, ask), opened.count
    found: dict[str, NDArray[Any]] = {name: np.array(n, np.int64) for name in parts if name in _COUNTS}
    found |= {
        name: np.zeros(parts[name].shape, np.int64 if parts[name].integer else np.float64)
        for name in parts
        if name in _NONE
    }
    if question.terms.method == "covariance":
        keys = question.options.columns
        found["sum"] = np.array([opened.sum(key) for key in keys])
        if n > 1:
            for key in keys:
                _check_resolution(opened, [key])
        if ask.name == "products":
            z = opened.raw(keys)
            z[0, 1:] -= _fractions(ask.arrays["centre"])
            crossed = opened.crossed(z)
            found |= {"sum": crossed[0, 1:], "products": crossed[1:, 1:][np.triu_indices(len(keys))]}
    elif ask.name == "start":
        design = model_of(question)
        found["levels"] = np.array([round(opened.sum(key)) for key in products.levels], np.int64)
        response = f"number {response_of(design).text}"
        sums = [opened.sum(key) for key in (*(f"number {x.text}" for x in design.numbers), response)]
        found |= {"sums": np.array(sums), "response": np.array(sums[-1]), "weight": np.array(float(n))}
        if n > len(products.terms):
            _check_resolution(opened, [key for key in products.columns if key != response])
    elif ask.name in ("products", "refined"):
        z = opened.raw(products.columns) @ basis_columns(question, products, ask)
        z[0, -1] -= Fraction(float(ask.arrays["mean"][-1]))
        if ask.name == "refined":
            z = z @ _fractions(ask.arrays["transform"])
        found["products"] = opened.crossed(z)
    if missing := sorted(set(parts) - set(found)):
        raise UsageError(f"{question.terms.method}: got an ask for {', '.join(missing)}, which has no form on shares")
    return Total({name: np.asarray(found[name]).reshape(part.shape) for name, part in parts.items()})


_COUNTS = ("count", "records", "defined", "looked_at")
_NONE = ("bad_response", "bad_weight", "bad_exposure", "unusable", "log_weight", "saturated", "invalid", "pearson")


def basis_columns(question: Question[Any], products: Products, ask: Ask) -> Exact:
    """(1 + columns, 1 + basis + 1): [1, columns of the ask's basis, response] in terms of [1, columns]."""
    basis, design = make_basis(model_of(question), question.codebook, ask), model_of(question)
    rows = {INTERCEPT: 0}
    rows |= {term.name: 1 + products.columns.index(key_of(term)) for term in design.terms if term.name != INTERCEPT}
    made = np.full((1 + len(products.columns), basis.size + 1), Fraction(0), object)
    made[0, 0] = made[len(products.columns), basis.size] = Fraction(1)
    others = iter(range(1, basis.size))
    for j, name in enumerate(basis.design.names):
        column = 0 if name == INTERCEPT else next(others)
        if name != INTERCEPT:
            for i, term in enumerate(basis.design.names):
                if basis.matrix[i, j]:
                    made[rows[term], column] += Fraction(float(basis.matrix[i, j]))
    return made


def _check_resolution(opened: Opened, keys: Sequence[str]) -> None:
    """Raises UsageError where a column varies so little, given the others, that rounding may be part of it."""
    products = opened.products
    crossed = opened.crossed(opened.raw(keys))
    scale = np.sqrt(np.where(np.diag(crossed) > 0, np.diag(crossed), 1.0))
    inverse = np.linalg.pinv(crossed / scale[:, None] / scale, rcond=1e-15, hermitian=True)
    for j, key in enumerate(keys, 1):
        feature = products.feature(key)
        if feature.whole:
            continue
        left = max(crossed[j, j], 0.0) / max(inverse[j, j], 1e-300) / max(opened.count, 1)
        if feature.unit(products.bits) ** 2 / 12 > HIDDEN * left:
            raise UsageError(
                f"{key.removeprefix('number ')}: its spread, given the other columns, is too small beside its bounds "
                "to be told from the rounding of what is shared; want narrower bounds, or it left out if it is a "
                "combination of the others"
            )


@dataclass(frozen=True)
class Point:
    """Coefficients of a logistic model's step as parties are told them: of [1, terms] in shared units."""

    told: Floats
    series: _waves.Series


def point(products: Products, ask: Ask) -> Point:
    """Where a step's sums are taken. Raises UsageError where the series does not reach."""
    z = basis_columns(products.question, products, ask)[:, :-1]
    b = z @ _fractions(ask.arrays["coefficients"])  # of [1, columns], response last with 0
    told, reach = [b[0]], Fraction(0)
    for key, value in zip(products.terms, b[1:-1], strict=True):
        feature = products.feature(key)
        told[0] += value * Fraction(feature.middle)
        told.append(value * Fraction(feature.unit(products.bits)))
        reach += abs(value) * Fraction(feature.half)
    return Point(np.array([float(x) for x in told]), _waves.plan(float(abs(told[0]) + reach)))


def stepped(opened: Opened, ask: Ask, at: Point, sums: Mapping[str, NDArray[np.int64]]) -> Total:
    """Score, information and deviance at a point, from what was opened there."""
    products, series = opened.products, at.series
    fine, n, size = products.bits, opened.count, 1 + len(products.terms)
    used = [0, *(products.place(key) for key in products.terms)]
    whole = opened.found[np.ix_(used, used)].astype(np.longdouble)
    b = at.told.astype(np.longdouble)
    eta = whole @ b  # sums of the linear predictor times each column
    last = products.place(products.columns[-1])
    y = products.ordered[last - 1]
    with_response = opened.found[used, last].astype(np.longdouble) * y.unit(fine) + whole[:, 0] * y.middle
    score = with_response - whole[:, 0] / 2 - eta / series.period - sums["score"] / np.longdouble(2.0**fine)
    softplus = eta[0] / 2 + n * series.level + b @ eta / (2 * series.period) + int(sums["deviance"][0]) / 2.0**fine
    deviance = 2 * (softplus - b @ with_response)
    units, coarse, shift = np.ones(size), np.ones(size), np.zeros(size)
    for j, key in enumerate(products.terms, 1):
        feature = products.feature(key)
        units[j], coarse[j], shift[j] = feature.unit(fine), feature.unit(products.coarse), feature.middle
    waves = sums["information"] * (np.outer(coarse, coarse) / 2.0**products.coarse)
    centred = waves + np.array(whole * np.outer(units, units), np.float64) / series.period
    move = np.eye(size)
    move[0, 1:] = shift[1:]
    z = move @ np.array(basis_columns(products.question, products, ask)[:-1, :-1], np.float64)
    information = z.T @ centred @ z
    moved = np.array(score * units, np.float64)
    found = {
        "score": z.T @ moved,
        "information": (information + information.T) / 2,
        "deviance": np.array(float(deviance)),
        "pearson": np.array(0.0),
        "invalid": np.array(0, np.int64),
    }
    each = _deviation(products, series)
    reach = np.sqrt(np.maximum(np.diag(z.T @ (np.array(whole * np.outer(units, units), np.float64)) @ z), 0.0))
    resolution = {"deviance": np.array(12 * each * math.sqrt(n) + 2 * n * series.off * series.period)}
    resolution["score"] = 6 * each * reach + series.off * math.sqrt(n) * reach
    return Total(found, resolution=resolution)


def _deviation(products: Products, series: _waves.Series) -> float:
    """Standard deviation, at most, of the error that fixed point leaves in one record's waves."""
    waves = 2.0 ** -(_waves.PLACES + 1) * math.sqrt(2 * _waves.FREQUENCIES) * max(1.0, series.period / 8)
    return math.hypot(waves, 2.0**-products.bits)
