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

Where a minimum frequency is agreed, `_model_guards` says which models are refused: by a holder before it shares
anything, and on shares by one bit of all the groups that sums of the model are about. Where it says no, nothing of the
model is opened.
"""

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import Refused, UsageError
from statfed.core.linkage import Units
from statfed.core.method import Question
from statfed.core.table import Expr, Table, real
from statfed.strategies.analyses._formula import Number
from statfed.strategies.analyses._glm_search import HALVINGS
from statfed.strategies.analyses._matrix import INTERCEPT, Design, Term, make_design
from statfed.strategies.linkages import _waves
from statfed.strategies.linkages._features import Feature, bounded, encoded, owner, places, table_of
from statfed.strategies.linkages._model_guards import column_of, of_columns, of_model, refuse_few
from statfed.strategies.linkages._rounds import Mail, Out
from statfed.strategies.linkages._shares import Machine, Value

KINDS = ("covariance", "ols", "glm")
STEP = ("coefficients", "period")
MOST_GUARDED = 2_000
Words = NDArray[np.uint64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Products:
    """What is shared and opened. features: of all holders; columns: keys of those that are multiplied with each other,
    the response of a formula last; levels: keys of the indicators that the minimum frequency goes by."""

    question: Question[Any]
    features: tuple[Feature, ...]
    columns: tuple[str, ...]
    levels: tuple[str, ...]
    guarded: tuple[str, ...]
    minimum: int
    cap: int
    holders: tuple[str, ...]
    logistic: bool

    @property
    def figures(self) -> int:
        """Most exact figures that are opened: cross products of 1 and the columns, and levels; at each step score,
        information and deviance."""
        size = 1 + len(self.columns)
        found = size * (size + 1) // 2 + len(set(self.levels) - set(self.columns))
        return found + self.steps * self.each

    @property
    def each(self) -> int:
        """Figures of a step: score, information and deviance, of the terms and the intercept; 0 where there is none."""
        size = 1 + len(self.columns)
        return size * (size + 1) // 2 if self.logistic else 0

    @property
    def steps(self) -> int:
        """Most steps of a logistic model that are answered; none of others."""
        if not self.logistic:
            return 0
        return 3 * int(self.question.options.max_iterations) + HALVINGS

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

    @property
    def groups(self) -> int:
        """Bits that are decided of the guarded numbers of matches: one of all of them, if there are any."""
        return int(bool(self.guarded))

    def own(self, holder: str) -> list[Feature]:
        return [feature for feature in self.features if feature.holder == holder]

    def coarsened(self, holder: str) -> list[Feature]:
        """Features that are shared a second time with fewer places: numbers of a logistic model."""
        return [x for x in self.own(holder) if self.logistic and not x.whole and x.key in self.terms]

    def width(self, holder: str) -> int:
        return len(self.own(holder)) + len(self.coarsened(holder))

    def payload(self, holder: str, units: Units, names: Sequence[str]) -> Iterator[Words]:
        """`width` columns (n,): fine ones, then coarse ones. names: columns that the analysis reads.

        Raises Refused, before there is a column, where few of the holder's own units have a level or value.
        """
        if self.minimum > 1:
            refuse_few(self.question, units, names, self.minimum)
        table = table_of(units, self.question.codebook, names)
        fine = encoded(table, self.own(holder), self.bits)
        coarse = encoded(table, self.coarsened(holder), self.coarse)
        return iter([*fine.T, *coarse.T])

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
        inside = [0, *(self.place(key) for key in self.columns)]
        found[np.ix_(inside, inside)] = True
        alone = [self.place(key) for key in self.levels]
        found[0, alone] = found[alone, 0] = True
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
            only = np.zeros(1, np.int64)
            whole = yield from m.few(m.grouped(found, only, only, 1), self.minimum, self.cap, 0)
            if whole is not None and whole.any():
                return
            if self.guarded:
                counted = np.array([self.place(key) for key in self.guarded])
                grouped = m.grouped(found, counted, np.arange(len(counted)), len(counted))
                few = yield from m.any_few(grouped, self.minimum, self.cap)
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
        for _ in range(self.steps):
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
            m.steps += 1
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
    guarded: tuple[str, ...] = ()
    design = None if name == "covariance" else model_of(question)
    if design is None:
        columns = options.columns
        for each in columns:
            low, high = codebook.number(each, "columns").bounds or (-math.inf, math.inf)
            features[each] = bounded(each, owner((each,), of, each), low, high, column_of(each))
    else:
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
        key = f"number {response.text}"
        if name == "glm":  # 0 or 1, which its holder makes sure of: the sums do not show other values
            features[key] = replace(features[key], low=0.0, high=1.0, whole=True)
        columns = (*columns, key)
        levels = tuple(f"level {column} {code}" for column, codes in design.categories.items() for code in codes)
        for column, codes in design.categories.items():
            for code in codes:
                key = f"level {column} {code}"
                features.setdefault(
                    key, Feature(key, owner((column,), of, column), 0.0, 1.0, _level(column, code), True)
                )
    if minimum > 1:
        guards = of_model(question, design, response_of(design), of) if design else of_columns(question, of)
        guarded = tuple(dict.fromkeys((*levels, *(feature.key for feature in guards))))
        for feature in guards:
            features.setdefault(feature.key, feature)
        if len(guarded) > MOST_GUARDED:
            raise UsageError(f"{name}: got {len(guarded)} levels and cells; want at most {MOST_GUARDED:,}")
    return Products(question, tuple(features.values()), columns, levels, guarded, minimum, cap, holders, name == "glm")


def model_of(question: Question[Any]) -> Design:
    response: Literal["binary", "number"] = "binary" if question.terms.method == "glm" else "number"
    return make_design(question.options.formula, question.codebook, response=response)


def response_of(design: Design) -> Number:
    """Raises UsageError on a formula without a response."""
    if design.left is None:
        raise UsageError(f"formula: got {design.formula!r} without a response; want 'response ~ terms'")
    return design.left


def _level(column: str, code: str) -> Callable[[Table], Expr]:
    def build(table: Table) -> Expr:
        return (table[column].cast("string") == code).ifelse(real(1.0), real(0.0))

    return build


def key_of(term: Term) -> str:
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
        return Feature(key_of(term), at, 0.0, 1.0, term.expression, True)
    return bounded(key_of(term), at, *term.interval, term.expression)
