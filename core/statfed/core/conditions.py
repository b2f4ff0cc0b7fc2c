"""Conditions: which records a question looks at. Read once, into conjunctions of comparisons and of alternatives.

    age >= 18
    region in north, south and not works = true
    (sex = f or `household income` between 10000 and 20000) and born < 2000-01-01
    wage is not null

`and` binds closer than `or`, `not` closest; words of the language are read in upper or lower case. A name is a column
of the codebook as it stands, or in backticks; a value a code of its column, a number, a date, or in quotation marks.

*Missing values.* A comparison with a missing value is neither true nor false, `not` leaves it so, `or` is true where
one side is, and a record is looked at where the whole is true: SQL's logic (Kleene's). `x != 1` and `not x = 1` are
the same, and neither holds where x is missing; `is null` and `is not null` are what asks for that.

*Form.* Every condition is brought to a conjunction of clauses, each a comparison or alternatives of comparisons, which
in that logic is true of the same records. So clauses can be taken one by one by whoever guards: a holder's policy, its
rules on differences, the memory of releases.
"""

import json
import math
import re
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Annotated, Any, Literal
from unicodedata import normalize

from pydantic import Field, Strict, TypeAdapter, model_validator

from statfed.core.codebook import MOST_CATEGORIES, Codebook, Column, day_of
from statfed.core.errors import UsageError
from statfed.core.section import Section, shown

MOST_CONDITIONS = 1_000
"""Comparisons of a study: more is not read, at any end."""
Operator = Literal["==", "!=", "<", "<=", ">", ">=", "in", "is null", "is not null"]
EXAMPLES = "want for example 'age >= 18', 'sex = f or region in north,south', 'not (age between 18 and 64)'"
COMPARED = "every figure is compared with earlier ones, column by column"
_NULL = ("is null", "is not null")
_NOT = {"==": "!=", "<": ">=", "<=": ">", "is null": "is not null"}
_NOT |= {other: one for one, other in _NOT.items()}
_DEEP = 50  # parentheses within each other
_SIMPLE = re.compile(r"[^\W\d][\w.-]*|[+-]?\d[\w.+-]*")
_WORDS = ("and", "or", "not", "in", "between", "is", "null")
_NUMBER = re.compile(r"[+-]?([0-9]+([.][0-9]*)?|[.][0-9]+)([eE][+-]?[0-9]{1,3})?")

Values = tuple[Annotated[str, Strict()], ...] | tuple[Annotated[float, Strict()], ...]


class Condition(Section):
    """Records whose `column` stands in relation `op` to `value`; for `in`, to any of them.

    The value of a date is its ISO form. `is null` and `is not null` have none.
    """

    column: str
    op: Operator
    value: float | str | Annotated[Values, Field(max_length=MOST_CATEGORIES)] | None = None

    @model_validator(mode="after")
    def _valued(self) -> "Condition":
        if (self.op in _NULL) != (self.value is None) or (self.op == "in") != isinstance(self.value, tuple):
            raise ValueError(f"value: got {type(self.value).__name__} for {self.op}; want what it compares with")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def either(self) -> tuple["Condition", ...]:
        """The comparisons of which one has to hold."""
        return (self,)

    def __str__(self) -> str:
        name = named(self.column)
        if self.op in _NULL:
            return f"{name} {self.op}"
        values = self.value if isinstance(self.value, tuple) else (self.value,)
        return f"{name} {self.op} {','.join(map(_valued, values))}"


class Either(Section):
    """Records for which at least one of several comparisons holds."""

    any: tuple[Condition, ...] = Field(min_length=2, max_length=MOST_CONDITIONS)

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(one.column for one in self.any))

    @property
    def either(self) -> tuple[Condition, ...]:
        """The comparisons of which one has to hold."""
        return self.any

    def __str__(self) -> str:
        return f"({' or '.join(map(str, self.any))})"


Clause = Condition | Either
_CLAUSE: TypeAdapter[Clause] = TypeAdapter(Clause)


def read_clause(told: Any) -> Clause:
    """A clause as `model_dump` gave it, or as JSON text. Raises pydantic's ValidationError."""
    return _CLAUSE.validate_json(told) if isinstance(told, str) else _CLAUSE.validate_python(told)


def canonical(clause: Clause) -> str:
    """One text for clauses that differ in order alone, as JSON that `read_clause` takes."""

    def told(one: Condition) -> dict[str, Any]:
        found = one.model_dump(mode="json", exclude_none=True)
        if isinstance(one.value, tuple):
            found["value"] = sorted(set(one.value))
        return found

    if isinstance(clause, Condition):
        return _json(told(clause))
    several = sorted({_json(told(one)) for one in clause.any})
    return several[0] if len(several) == 1 else _json({"any": [json.loads(one) for one in several]})


def columns_of(where: Iterable[Clause]) -> tuple[str, ...]:
    """Every column that conditions are on."""
    return tuple(dict.fromkeys(name for clause in where for name in clause.columns))


def parse_where(texts: Iterable[str], codebook: Codebook) -> tuple[Clause, ...]:
    """The clauses of conditions that all have to hold. Raises UsageError on what cannot be read or has no meaning."""
    found = [clause for text in texts for clause in _Reader(text, codebook).clauses()]
    made = {canonical(clause): checked(clause, codebook) for clause in found}
    if sum(len(clause.either) for clause in made.values()) > MOST_CONDITIONS:
        raise UsageError(f"--where: got more than {MOST_CONDITIONS:,} comparisons; want fewer")
    return tuple(made.values())


def parse_condition(text: str, codebook: Codebook) -> Clause:
    """The one clause of a condition. Raises UsageError where it has several."""
    found = parse_where((text,), codebook)
    if len(found) != 1:
        raise UsageError(f"--where: got {shown(text)}; want one condition, without and")
    return found[0]


def check_syntax(text: str) -> None:
    """Raises UsageError on what is no condition under any codebook."""
    if not re.fullmatch(r"\s*[^\s<>=!(]+\s*(==|!=|<=|>=|<|>|=|\bin\b)\s*.+", text):
        _Reader(text, None).clauses()


def comparable(where: Iterable[Clause]) -> None:
    """Raises UsageError on conditions by which a release cannot be compared with earlier ones, which goes column by
    column."""
    for clause in where:
        if any(one.op == "is null" for one in clause.either):
            raise UsageError(f"where: got '{clause}'; want is not null, or no rules of the release: {COMPARED}")
        if len(clause.columns) > 1:
            raise UsageError(
                f"where: got '{clause}' over several columns; want or within one column, or no rules of the release: "
                f"{COMPARED}"
            )


def checked(clause: Clause, codebook: Codebook) -> Clause:
    """A clause that has a meaning under a codebook. Raises UsageError."""
    for one in clause.either:
        _check(one, codebook)
    return clause


def _check(condition: Condition, codebook: Codebook) -> None:
    column = codebook.column(condition.column, "where")
    if column.type in ("id", "text"):
        raise UsageError(
            f"where: {condition.column}: got type {column.type}; want a column that does not single out records"
        )
    if column.type == "array":
        raise UsageError(f"where: {condition.column}: got type array; want a column with one value in a record")
    if condition.op in _NULL:
        return
    values = condition.value if isinstance(condition.value, tuple) else (condition.value,)
    if column.levels:
        if condition.op not in ("==", "!=", "in") or not values or any(v not in column.levels for v in values):
            raise UsageError(f"where: got '{condition}'; want =, != or in, and codes of {', '.join(column.levels)}")
    elif column.type == "date":
        try:
            _ = [day_of(value) for value in values or (None,)]
        except ValueError:
            raise UsageError(f"where: got '{condition}'; want a comparison with a date such as 2021-01-01") from None
    elif not values or not all(isinstance(value, float) for value in values):
        raise UsageError(f"where: got '{condition}'; want a comparison with a number")


_UNKNOWN = r"[^<>=!()`]+?(?=\s*[<>=!]|\s+(?:not\s+)?(?:in|between)\b|\s+is\s|\s*$)"
"""A column of whatever codebook, blanks included: up to the comparison."""
Formula = tuple[str, Any]
"""("one", Condition), ("not", formula), ("and", formulas), ("or", formulas)."""


class _Reader:
    """One text, from left to right."""

    def __init__(self, text: str, codebook: Codebook | None) -> None:
        self.text, self.at, self.codebook, self.depth = normalize("NFC", text), 0, codebook, 0
        self.names = sorted(codebook.columns if codebook else (), key=len, reverse=True)

    def clauses(self) -> tuple[Clause, ...]:
        found = self._or()
        if self._rest():
            raise self._unread("and, or, or the end")
        return tuple(_clause(one, self.codebook) for one in _conjunction(found, True))

    def _unread(self, want: str) -> UsageError:
        rest = self._rest()
        got = f"at {rest[:40]!r}" if rest else "at its end"
        return UsageError(f"--where: got {shown(self.text)}; want {want} {got}; {EXAMPLES}")

    def _rest(self) -> str:
        return self.text[self.at :].strip()

    def _take(self, pattern: str) -> str | None:
        match = re.compile(rf"\s*({pattern})", re.IGNORECASE).match(self.text, self.at)
        if not match:
            return None
        self.at = match.end()
        return match[1]

    def _word(self, *words: str) -> bool:
        return self._take(r"\s+".join(words) + r"(?![\w.-])") is not None

    def _or(self) -> Formula:
        found = [self._and()]
        while self._word("or"):
            found.append(self._and())
        return ("or", found) if len(found) > 1 else found[0]

    def _and(self) -> Formula:
        found = [self._one()]
        while self._word("and"):
            found.append(self._one())
        return ("and", found) if len(found) > 1 else found[0]

    def _one(self) -> Formula:
        self.depth += 1
        if self.depth > _DEEP:
            raise UsageError(f"--where: got more than {_DEEP} parentheses within each other; want fewer")
        try:
            name = self._column()
            if name is not None:
                return self._comparison(name)
            if self._word("not") or self._take(r"not(?=\s*\()"):
                return ("not", self._one())
            if self._take(r"\("):
                found = self._or()
                if not self._take(r"\)"):
                    raise self._unread("a closing parenthesis")
                return found
            name = self._take(r"[^\s<>=!()`]+" if self.codebook else _UNKNOWN)
            if name is None:
                raise self._unread("a column")
            return self._comparison(name)
        finally:
            self.depth -= 1

    def _column(self) -> str | None:
        """A column in backticks, or the longest that stands here."""
        self._take("")
        if self._take("`"):
            match = re.compile("((?:[^`]|``)+)`").match(self.text, self.at)
            if not match:
                raise self._unread("a column and a closing backtick")
            self.at = match.end()
            return match[1].replace("``", "`")
        for name in self.names:
            for form in {name, normalize("NFC", name)}:
                end = self.at + len(form)
                if self.text.startswith(form, self.at) and re.compile(r"\s|[<>=!]").match(self.text, end):
                    self.at = end
                    return name
        return None

    def _comparison(self, name: str) -> Formula:
        column = None
        if self.codebook:
            name = next((known for known in self.names if normalize("NFC", known) == normalize("NFC", name)), name)
            column = self.codebook.column(name, "--where")
        if self._word("is", "not", "null"):
            return ("one", Condition(column=name, op="is not null"))
        if self._word("is", "null"):
            return ("one", Condition(column=name, op="is null"))
        negated = self._word("not")
        if self._word("between"):
            low = self._value(name, column)
            if not self._word("and"):
                raise self._unread("and")
            ends = (Condition(column=name, op=">=", value=low), self._compared(name, column, "<="))
            found: Formula = ("and", [("one", end) for end in ends])
        elif self._word("in") or self._take(r"in(?=\s*[('\"])"):
            found = ("one", Condition(column=name, op="in", value=self._values(name, column)))
        elif negated:
            raise self._unread("in or between")
        else:
            op = self._take("==|!=|<>|<=|>=|<|>|=")
            if op is None:
                raise self._unread("=, !=, <, <=, >, >=, in, between, is null or is not null")
            found = ("one", self._compared(name, column, {"=": "==", "<>": "!="}.get(op, op)))
        return ("not", found) if negated else found

    def _compared(self, name: str, column: Column | None, op: Any) -> Condition:
        return Condition(column=name, op=op, value=self._value(name, column))

    def _values(self, name: str, column: Column | None) -> Any:
        closed = self._take(r"\(")
        found = [self._value(name, column)]
        while self._take(","):
            found.append(self._value(name, column))
        if closed and not self._take(r"\)"):
            raise self._unread("a comma or a closing parenthesis")
        return tuple(found)

    def _value(self, name: str, column: Column | None) -> float | str:
        self._take("")
        quoted = re.compile("'((?:[^']|'')*)'|\"((?:[^\"]|\"\")*)\"").match(self.text, self.at)
        if quoted:
            self.at = quoted.end()
            text = quoted[1].replace("''", "'") if quoted[1] is not None else quoted[2].replace('""', '"')
        else:
            text = self._bare(column)
        if column is None or column.type not in ("number", "integer"):
            return text
        return _number(name, text)

    def _bare(self, column: Column | None) -> str:
        for level in sorted(column.levels if column else (), key=len, reverse=True):
            end = self.at + len(level)
            if level and self.text.startswith(level, self.at) and re.compile(r"\s|[,)]|$").match(self.text, end):
                self.at = end
                return level
        match = re.compile(r"[^,()]+?(?=\s*(?:[,()]|$)|\s+(?:and|or)(?![\w.-]))", re.IGNORECASE).match(
            self.text, self.at
        )
        if not match:
            raise self._unread("a value")
        self.at = match.end()
        return match[0].strip()


def _number(name: str, text: str) -> float:
    number = float(text) if _NUMBER.fullmatch(text.strip()) else math.nan
    if not math.isfinite(number):
        raise UsageError(f"--where: {name}: got {text[:40]!r}; want a finite number")
    if re.fullmatch("[+-]?[0-9]+", text.strip()) and int(number) != int(text):  # digits that a float does not hold
        raise UsageError(f"--where: {name}: got {text[:40]!r}; want a number that a float holds, such as {number:.0f}")
    return number


def _conjunction(formula: Formula, wanted: bool) -> list[tuple[Condition, ...]]:
    """A formula, or its negation, as clauses: each a tuple of comparisons, one of which has to hold."""
    kind, of = formula
    if kind == "not":
        return _conjunction(of, not wanted)
    if kind == "one":
        return [(of,)] if wanted else _negated(of)
    parts = [_conjunction(one, wanted) for one in of]
    if (kind == "and") == wanted:
        return [clause for part in parts for clause in part]
    if math.prod(map(len, parts)) > MOST_CONDITIONS:
        raise UsageError(f"--where: got what takes more than {MOST_CONDITIONS:,} comparisons to say; want less of it")
    found = [tuple(dict.fromkeys(one for clause in chosen for one in clause)) for chosen in product(*parts)]
    least = {frozenset(clause): clause for clause in found}
    return [clause for these, clause in least.items() if not any(other < these for other in least)]


def _negated(one: Condition) -> list[tuple[Condition, ...]]:
    if isinstance(one.value, tuple):
        return [(Condition(column=one.column, op="!=", value=value),) for value in dict.fromkeys(one.value)]
    return [(one.model_copy(update={"op": _NOT[one.op]}),)]


def _clause(comparisons: Sequence[Condition], codebook: Codebook | None) -> Clause:
    """Alternatives as one clause; equalities of one column are one `in`."""
    kept: list[Condition] = []
    equal: dict[str, list[Any]] = {}
    for one in comparisons:
        if one.op in ("==", "in") and len(comparisons) > 1:
            values = one.value if isinstance(one.value, tuple) else (one.value,)
            if one.column in equal:
                equal[one.column] += values
                continue
            equal[one.column] = [*values]
        kept.append(one)
    for i, one in enumerate(kept):
        values = tuple(dict.fromkeys(equal.get(one.column, ()))) if one.op in ("==", "in") else ()
        if len(values) > 1 and values != one.value:
            kept[i] = Condition(column=one.column, op="in", value=_ordered(values, one.column, codebook))
    return kept[0] if len(kept) == 1 else Either(any=tuple(kept))


def _ordered(values: tuple[Any, ...], column: str, codebook: Codebook | None) -> tuple[Any, ...]:
    levels = codebook.columns[column].levels if codebook else ()
    return tuple(sorted(values, key=levels.index)) if set(values) <= set(levels) else tuple(sorted(values))


def named(name: str) -> str:
    """A column as it stands in a condition, in backticks where it has to."""
    plain = _SIMPLE.fullmatch(name) and name.lower() not in _WORDS
    return name if plain else "`" + name.replace("`", "``") + "`"


def _valued(value: object) -> str:
    text = str(value)
    plain = not isinstance(value, str) or (_SIMPLE.fullmatch(text) and text.lower() not in _WORDS)
    return text if plain else "'" + text.replace("'", "''") + "'"


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
