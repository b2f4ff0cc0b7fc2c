"""Covariances, linear and logistic regression over the matched, from cross products on shares.

Holders share the columns of the model (`_features`). Their cross products over matched rows are one matrix product; of
it the asked entries alone are opened, whole numbers without rounding: they are those of the plain join of the values as
shared, each within half a unit of 2^-bits of half its range. The coordinator's halves of the horizontal methods take
from them, in exact arithmetic, what holders would have sent.

Logistic regression opens at each iteration, at public coefficients, what the horizontal method opens: score,
information and deviance. The linear predictor is linear on shares; the logistic function of it is one polynomial of
waves (`_waves`), made on shares and multiplied with the columns by a matrix product; those of the information have
fewer places. Cross products are opened with it, which the first iteration tells in any case: at coefficients of a
constant the information is their multiple, and the score follows from them. Parties limit how often they are asked and
how far the linear predictor may go; coefficients chosen so that a few records weigh most in the sums are left to a
coordinator that follows the protocol, as how records weigh is not looked at on shares.

Where a minimum frequency is agreed it is first decided on shares whether the number of matches and those at each level
of each category in the model are 0 or large enough; where one is not, nothing of the model is opened.
"""

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import Refused, UsageError
from statfed.core.method import Ask, Question, Total
from statfed.core.table import Expr, Table, real
from statfed.strategies.analyses._formula import Number
from statfed.strategies.analyses._glm_search import HALVINGS
from statfed.strategies.analyses._matrix import INTERCEPT, Design, Term, make_design
from statfed.strategies.analyses._regression import make_basis
from statfed.strategies.linkages import _waves
from statfed.strategies.linkages._features import Feature, bounded, encoded, owner, places
from statfed.strategies.linkages._rounds import Mail, Out
from statfed.strategies.linkages._shares import Machine, Value

KINDS = ("covariance", "ols", "glm")
STEP = ("coefficients", "period")
HIDDEN = 1e-6
"""Share of a column's variance, given the others, that may be rounding of what is shared."""
Words = NDArray[np.uint64]
Floats = NDArray[np.float64]
Exact = NDArray[Any]


@dataclass(frozen=True)
class Products:
    """What is shared and opened. features: of all holders; columns: keys of those that are multiplied with each other,
    the response of a formula last; levels: keys of the indicators that the minimum frequency goes by."""

    question: Question[Any]
    features: tuple[Feature, ...]
    columns: tuple[str, ...]
    levels: tuple[str, ...]
    minimum: int
    cap: int
    holders: tuple[str, ...]
    logistic: bool

    @property
    def figures(self) -> int:
        """Most exact figures that are opened: cross products; at each iteration score, information and deviance."""
        columns, terms = len(self.columns), len(self.terms)
        each = terms * (terms + 3) // 2 + 1
        most = int(getattr(self.question.options, "max_iterations", 0)) if self.logistic else 0
        return columns * (columns + 1) // 2 + most * each

    @property
    def bits(self) -> int:
        return places(self.cap, 2)

    @property
    def terms(self) -> tuple[str, ...]:
        """Keys of the columns less the response of a logistic model, the last one."""
        return self.columns[:-1] if self.logistic else self.columns

    @property
    def coarse(self) -> int:
        """Binary places of columns, and of their weights, in the information."""
        return places(self.cap, 3)

    def own(self, holder: str) -> list[Feature]:
        return [feature for feature in self.features if feature.holder == holder]

    def coarsened(self, holder: str) -> list[Feature]:
        """Features that are shared a second time with fewer places: numbers of a logistic model."""
        return [x for x in self.own(holder) if self.logistic and not x.whole and x.key in self.terms]

    def width(self, holder: str) -> int:
        return len(self.own(holder)) + len(self.coarsened(holder))

    def payload(self, holder: str, table: Table) -> Words:
        """(n, width): fine columns, then coarse ones."""
        fine = encoded(table, self.own(holder), self.bits)
        again = self.coarsened(holder)
        return np.concatenate([fine, encoded(table, again, self.coarse)], axis=1) if again else fine

    @property
    def ordered(self) -> tuple[Feature, ...]:
        """Features in the order of the shares, after the leading 1."""
        return tuple(feature for holder in self.holders for feature in self.own(holder))

    def place(self, key: str) -> int:
        """Of a feature among the rows of the cross products; 0 is the 1 of a match."""
        return 1 + next(i for i, feature in enumerate(self.ordered) if feature.key == key)

    def feature(self, key: str) -> Feature:
        return next(feature for feature in self.features if feature.key == key)

    @property
    def asked(self) -> NDArray[np.bool_]:
        """(1 + features, 1 + features): entries that are opened."""
        size = 1 + len(self.ordered)
        found = np.zeros((size, size), bool)
        found[0] = found[:, 0] = True
        inside = [self.place(key) for key in self.columns]
        found[np.ix_(inside, inside)] = True
        return found

    def program(self, m: Machine, w: Value, shared: Mapping[str, Value]) -> Generator[Out, Mail, None]:
        """On shares: see the module."""
        sides = [(len(self.own(holder)), shared[holder]) for holder in self.holders if self.width(holder)]
        jobs = [(w, value, "outer") for _, value in sides]
        inside = yield from m.products(jobs)  # type: ignore[arg-type]
        fine = m.combined([w, *(value.columns(0, count) for (count, _), value in zip(sides, inside, strict=True))])
        (found,) = yield from m.products([(fine, fine, "matrix")])
        allowed = True
        if self.minimum > 1:
            counted = np.array([0, *(self.place(key) for key in self.levels)])
            few = yield from m.few(
                m.grouped(found, counted, np.arange(len(counted)), len(counted)), self.minimum, self.cap
            )
            allowed = few is None or not few.any()
        opened = {}
        if found.share is not None and allowed:
            opened["opened"] = np.where(self.asked, found.share, np.uint64(0))
        mail = yield Out(public=opened)
        if not (self.logistic and allowed):
            return
        coarse = [value.columns(n, value.shape[1]) for (n, _), value in zip(sides, inside, strict=True)]
        low = self._coarse_columns(m, fine, [value for value in coarse if value.shape[1]])
        inner = [0, *(self.place(key) for key in self.terms)]
        for _ in range(3 * self.question.options.max_iterations + HALVINGS):
            b, period = (mail.word(name) for name in STEP)
            angle = m.linear(fine, self._angles(b, float(period)))
            waves = yield from m.waves(angle, _waves.Series(float(period), 0.0).factors)
            cut = np.array([_waves.SCALE - x for x in (self.bits, self.coarse, self.bits)], np.uint64)
            values = yield from m.halved(waves, cut)
            (weighted,) = yield from m.products([(values.columns(1, 2), low, "outer")])
            sums, information = yield from m.products(
                [(fine, values_of(values, (0, 2)), "matrix"), (weighted, low, "matrix")]
            )
            opened = {}
            if sums.share is not None and information.share is not None:
                opened = {
                    "score": sums.share[inner, 0],
                    "deviance": sums.share[0, 1:],
                    "information": information.share,
                }
            mail = yield Out(public=opened)

    def _coarse_columns(self, m: Machine, fine: Value, coarse: Sequence[Value]) -> Value:
        """[1, columns] with the places of the information."""
        at = {x.key: i for i, x in enumerate(x for holder in self.holders for x in self.coarsened(holder))}
        made = [fine.columns(0, 1)]
        for key in self.terms:
            source, place = (m.combined(coarse), at[key]) if key in at else (fine, self.place(key))
            made.append(source.columns(place, place + 1))
        return m.combined(made)

    def _angles(self, b: Floats, period: float) -> Words:
        """(1 + features, 1): factors that make turns of the linear predictor, 2^64 to the turn. b: of [1, terms], in
        units of the shared whole numbers."""
        if b.shape != (1 + len(self.terms),) or not np.isfinite(b).all():
            raise Refused(f"step: got coefficients of shape {b.shape}; want {1 + len(self.terms)} finite ones")
        units = [1.0, *(self.feature(key).half / self.feature(key).unit(self.bits) for key in self.terms)]
        reach = float(np.abs(b) @ np.array(units))
        if not reach < period < 1e3 or _waves.error(period, reach) > 2 * _waves.MOST_OFF:
            raise Refused("step: got a period that does not suit the coefficients; want one that does")
        factors = np.zeros((1 + len(self.ordered), 1), np.uint64)
        for at, value in zip([0, *(self.place(key) for key in self.terms)], b, strict=True):
            factors[at, 0] = round(Fraction(float(value)) / Fraction(period) * (1 << 64)) % (1 << 64)
        return factors


def values_of(value: Value, places: Sequence[int]) -> Value:
    """Some columns of a value."""
    share = None if value.share is None else np.ascontiguousarray(value.share[:, list(places)])
    return Value((value.shape[0], len(places)), share)


def read(question: Question[Any], of: dict[str, str], holders: tuple[str, ...], cap: int, minimum: int) -> Products:
    """The products of a question. of: the holder of each column. Raises UsageError on what has no form on shares."""
    options, codebook, name = question.options, question.codebook, question.terms.method
    wanted = {"robust": "none", "family": "binomial"}
    for key in ("weight", "design", "robust", "offset", "exposure", "family"):
        if getattr(options, key, None) not in (None, False, wanted.get(key)):
            raise UsageError(f"{name}: got {key}; want it without: that has no form on shares")
    if name == "glm" and (options.link or "logit") != "logit":
        raise UsageError(f"link: got {options.link}; want logit: others have no form on shares")
    features: dict[str, Feature] = {}
    levels: tuple[str, ...] = ()
    if name == "covariance":
        columns = options.columns
        for each in columns:
            low, high = codebook.number(each, "columns").bounds or (-math.inf, math.inf)
            features[each] = bounded(each, owner((each,), of, each), low, high, _column(each))
    else:
        design = model_of(question)
        response = response_of(design)
        for term in design.terms:
            if term.name != INTERCEPT:
                made = _of_term(term, of)
                features[made.key] = made
        columns = tuple(features)
        for number in (*design.numbers, response):
            key = f"number {number.text}"
            if key not in features:
                features[key] = bounded(
                    key, owner(number.columns, of, number.text), number.low, number.high, number.build
                )
        columns = (*columns, f"number {response.text}")
        levels = tuple(f"level {column} {code}" for column, codes in design.categories.items() for code in codes)
        for column, codes in design.categories.items():
            for code in codes:
                key = f"level {column} {code}"
                features.setdefault(
                    key, Feature(key, owner((column,), of, column), 0.0, 1.0, _level(column, code), True)
                )
    return Products(question, tuple(features.values()), columns, levels, minimum, cap, holders, name == "glm")


def model_of(question: Question[Any]) -> Design:
    response: Literal["binary", "number"] = "binary" if question.terms.method == "glm" else "number"
    return make_design(question.options.formula, question.codebook, response=response)


def response_of(design: Design) -> Number:
    """Raises UsageError on a formula without a response."""
    if design.left is None:
        raise UsageError(f"formula: got {design.formula!r} without a response; want 'response ~ terms'")
    return design.left


def _column(name: str) -> Callable[[Table], Expr]:
    return lambda table: table.number(name)


def _level(column: str, code: str) -> Callable[[Table], Expr]:
    def build(table: Table) -> Expr:
        return (table[column].cast("string") == code).ifelse(real(1.0), real(0.0))

    return build


def _key(term: Term) -> str:
    """One name for one column, whichever way it comes about."""
    if term.scale == 1 and len(term.numbers) == 1 and not term.cells:
        return f"number {term.numbers[0].text}"
    if term.scale == 1 and len(term.cells) == 1 and not term.numbers:
        return f"level {term.cells[0][0].column} {term.cells[0][1]}"
    return f"term {term.name}"


def _of_term(term: Term, of: dict[str, str]) -> Feature:
    read = [*(name for number in term.numbers for name in number.columns), *(c.column for c, _ in term.cells)]
    at = owner(tuple(dict.fromkeys(read)), of, term.name)
    if not term.numbers and term.scale == 1:
        return Feature(_key(term), at, 0.0, 1.0, term.expression, True)
    return bounded(_key(term), at, *term.interval, term.expression)


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
    rows |= {term.name: 1 + products.columns.index(_key(term)) for term in design.terms if term.name != INTERCEPT}
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
