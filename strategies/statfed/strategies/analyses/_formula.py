"""Factors of a formula as Ibis expressions with intervals: a walk over a fixed list of syntax nodes, never evaluation.

A coordinator sends a formula as text. `formulaic` splits it into terms and factors; here each factor is parsed as a
Python expression and translated node by node. What is not on the list is refused, so no text of a query runs as code.
Intervals follow from the codebook's bounds by interval arithmetic (Moore 1966) and are public.
"""

import ast
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import ibis

from statfed.core.codebook import Codebook
from statfed.core.errors import UsageError
from statfed.core.table import Expr, Table, real

LARGEST = 1e150  # a square still fits into a float64
FUNCTIONS = ("log", "log1p", "exp", "sqrt", "abs")
MARKS = ("level", "missing", "known")
_ALLOWED = "columns, numbers, + - * / **, log, log1p, exp, sqrt, abs, I(...), C(column) or C(column, Treatment('code'))"
NO_MARKS = "level, missing and known are of ols and glm without noise"


@dataclass(frozen=True)
class Number:
    """A numeric expression. low, high: public interval of its values. total: has it a finite value at every record
    within the codebook's bounds? Where not, `build` gives null (or a value beyond `LARGEST`) instead of an error.
    text: as in the formula. functions: names of what is done to columns, among `FUNCTIONS`, `square`, `power`,
    `product`, `ratio` and, for sums and multiples by constants, `standardise`. marks: columns with a code, or None for
    a missing value, that it tells the number of records of (`MARKS`); it has a value where these columns have none.
    cases: what 0 and 1 mean, of one that is 1 at those records.
    """

    build: Callable[[Table], Expr]
    low: float
    high: float
    columns: tuple[str, ...] = ()
    total: bool = True
    constant: float | None = None
    text: str = ""
    functions: frozenset[str] = frozenset()
    marks: tuple[tuple[str, str | None], ...] = ()
    cases: tuple[str, ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns whose missing value it has no value for."""
        return () if self.marks else self.columns


@dataclass(frozen=True)
class Category:
    """A column coded by its levels. codes: in the codebook's order; reference: the code without an indicator where
    the coding has reduced rank, None for the first."""

    column: str
    codes: tuple[str, ...]
    reference: str | None = None
    boolean: bool = False

    def label(self, code: str) -> str:
        """How a level appears in a coefficient's name."""
        return code.capitalize() if self.boolean else code


def read_factor(text: str, codebook: Codebook, where: str, column: bool = False) -> Number | Category:
    """The factor `text` (column: it is the name of a column as it stands).

    Raises UsageError on anything but columns, numbers and the listed functions, on columns that are not in the
    codebook, and on a logarithm, root or quotient that the codebook's bounds do not keep defined.
    """
    try:
        read = _column(text, codebook, where) if column else _read(_parsed(text), codebook, where)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise UsageError(f"{where}: got {_shown(text)}; want {_ALLOWED}") from None
    if isinstance(read, Category):
        return read
    if not read.columns:
        raise UsageError(f"{where}: got {_shown(text)} without a column; want {_ALLOWED}")
    return replace(read, text=text)


def _parsed(text: str) -> ast.expr:
    """A Python expression in which names in backticks are names, whatever signs they have, and so are dotted ones."""
    names: dict[str, str] = {}

    def standing(match: re.Match[str]) -> str:
        return names.setdefault(match[1], f"name_in_backticks_{len(names)}")

    tree = ast.parse(re.sub("`([^`]+)`", standing, text), mode="eval").body
    meant = {placeholder: name for name, placeholder in names.items()}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            node.id = meant.get(node.id, node.id)
    made = _Dotted().visit(tree)
    return cast(ast.expr, made)


class _Dotted(ast.NodeTransformer):
    """Makes `a.b` one name, but for the names of functions."""

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        text = ast.unparse(node)
        return ast.Name(text) if re.fullmatch(r"\w+(\.\w+)+", text) else node

    def visit_Call(self, node: ast.Call) -> ast.Call:
        node.args = [self.visit(one) for one in node.args]
        for keyword in node.keywords:
            keyword.value = self.visit(keyword.value)
        return node


def _read(node: ast.expr, codebook: Codebook, where: str) -> Number | Category:
    if isinstance(node, ast.Name):
        return _column(node.id, codebook, where)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "C":
        return _category(node, codebook, where)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "I":
        if len(node.args) != 1 or node.keywords:
            raise _refused(node, where)
        return _number(node.args[0], codebook, where)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MARKS:
        return _marked(node, node.func.id, codebook, where)
    return _number(node, codebook, where)


def _marked(node: ast.Call, name: str, codebook: Codebook, where: str) -> Number:
    """What is said of missing values: `missing(x)`, 1 where x is missing; `known(x)`, 0 there and else x, a number, an
    expression of one column, or a date in days since 1970; `level(x, 'code')`, 1 where x has the code, 0
    else: by itself, or as its place in the codebook from 0 on."""
    if len(node.args) != (2 if name == "level" else 1) or node.keywords:
        raise _refused(node, where)
    if name == "known":
        return _known(node.args[0], codebook, where)
    if not isinstance(node.args[0], ast.Name):
        raise _refused(node, where)
    column = node.args[0].id
    if name == "missing":
        codebook.column(column, where)
        return Number(
            lambda table: ibis.ifelse(table[column].isnull(), real(1.0), real(0.0)),
            0.0,
            1.0,
            (column,),
            functions=frozenset({name}),
            marks=((column, None),),
            cases=("known", "missing"),
        )
    told, listed = node.args[1], codebook.category(column, f"{where}: level()")
    code = told.value if isinstance(told, ast.Constant) else None
    if type(code) is int and code < len(listed.levels):
        code = listed.levels[code]
    if not isinstance(code, str) or code not in listed.levels:
        raise UsageError(f"{where}: level({column}, ...): got no code of it; want one of {', '.join(listed.levels)}")
    category, text = Category(column, listed.levels, boolean=listed.type == "boolean"), code
    return Number(
        lambda table: ibis.ifelse(at_level(table, category, text).fill_null(False), real(1.0), real(0.0)),
        0.0,
        1.0,
        (column,),
        functions=frozenset({name}),
        marks=((column, text),),
        cases=("another or none", text),
    )


def _known(node: ast.expr, codebook: Codebook, where: str) -> Number:
    if isinstance(node, ast.Name) and codebook.column(node.id, where).type == "date":
        name, column = node.id, codebook.columns[node.id]
        low = -math.inf if column.low is None else column.low
        high = math.inf if column.high is None else column.high
        inner = Number(lambda table: table[name].cast("float64"), low, high, (name,))
    else:
        inner = _number(node, codebook, where)
    if len(set(inner.columns)) != 1:
        raise UsageError(f"{where}: known({_shown(ast.unparse(node))}): want an expression of one column")
    of = inner.columns[0]
    return replace(
        inner,
        build=lambda table: ibis.ifelse(table[of].isnull(), real(0.0), inner.build(table)),
        low=min(inner.low, 0.0),
        high=max(inner.high, 0.0),
        columns=(of,),
        constant=None,
        functions=inner.functions | {"known"},
        marks=((of, None),),
    )


def at_level(table: Table, category: Category, code: str) -> Expr:
    """Does a category take a code? Null where it is missing."""
    column = table[category.column]
    if category.boolean:
        return column if code == "true" else ~column
    return column.cast("string") == code


def _column(name: str, codebook: Codebook, where: str) -> Number | Category:
    column = codebook.column(name, where)
    if column.type == "category":
        return Category(name, column.levels)
    if not column.numeric:
        raise UsageError(f"{where}: {name}: got type {column.type}; want number, integer, boolean or category")
    low, high = column.bounds or (
        -math.inf if column.low is None else column.low,
        math.inf if column.high is None else column.high,
    )
    return Number(lambda table: table.number(name), low, high, (name,))


def _category(node: ast.Call, codebook: Codebook, where: str) -> Category:
    if not node.args or not isinstance(node.args[0], ast.Name) or len(node.args) > 2 or node.keywords:
        raise _refused(node, where)
    name = node.args[0].id
    column = codebook.category(name, f"{where}: C()")
    boolean = column.type == "boolean"
    made = Category(name, column.levels, boolean=boolean)
    if len(node.args) == 1:
        return made
    reference = _reference(node.args[1], where)
    code = str(reference).lower() if boolean else str(reference)
    if code not in made.codes:
        raise UsageError(f"{where}: {name}: got reference {reference!r}; want one of {', '.join(made.codes)}")
    return replace(made, reference=code)


def _reference(node: ast.expr, where: str) -> object:
    """The level in `Treatment("code")` or `contr.treatment("code")`, by position or as base= or reference=."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Treatment", "contr.treatment"):
        given = [*node.args, *(k.value for k in node.keywords if k.arg in ("base", "reference"))]
        if len(given) == 1 and len(node.args) + len(node.keywords) == 1 and isinstance(given[0], ast.Constant):
            return given[0].value
    raise UsageError(f"{where}: got contrast {_shown(ast.unparse(node))}; want Treatment('code')")


def _number(node: ast.expr, codebook: Codebook, where: str) -> Number:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        value = _finite(node.value, where)
        return Number(lambda table: real(value), value, value, constant=value)  # noqa: ARG005
    if isinstance(node, ast.Name):
        found = _column(node.id, codebook, where)
        if isinstance(found, Category):
            raise UsageError(f"{where}: {node.id}: got type category inside an expression; want a numeric column")
        return found
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        inner = _number(node.operand, codebook, where)
        return inner if isinstance(node.op, ast.UAdd) else _negated(inner)
    if isinstance(node, ast.BinOp):
        left, right = _number(node.left, codebook, where), _number(node.right, codebook, where)
        if isinstance(node.op, ast.Pow):
            made = _power(left, right, ast.unparse(node), where)
            return replace(made, functions=left.functions | {"square" if right.constant == 2 else "power"})
        return _arithmetic(node.op, left, right, ast.unparse(node), where)
    if isinstance(node, ast.Call):
        name = ast.unparse(node.func)
        if name == "I" and len(node.args) == 1 and not node.keywords:
            return _number(node.args[0], codebook, where)
        if name.removeprefix("np.") in FUNCTIONS and len(node.args) == 1 and not node.keywords:
            inner = _number(node.args[0], codebook, where)
            made = _function(name.removeprefix("np."), inner, ast.unparse(node), where)
            return replace(made, functions=inner.functions | {name.removeprefix("np.")})
    raise _refused(node, where)


def _finite(number: float, where: str) -> float:
    if not abs(number) <= LARGEST:
        raise UsageError(f"{where}: got a number beyond {LARGEST:g}; want a smaller one")
    return float(number)


def _negated(a: Number) -> Number:
    return replace(
        a,
        build=lambda table: -a.build(table),
        low=-a.high,
        high=-a.low,
        constant=None if a.constant is None else -a.constant,
    )


def _arithmetic(op: ast.operator, a: Number, b: Number, text: str, where: str) -> Number:
    return replace(_combined(op, a, b, text, where), functions=a.functions | b.functions | {_kind(op, a, b)} - {""})


def _kind(op: ast.operator, a: Number, b: Number) -> str:
    if not (a.columns and b.columns):
        return ("ratio" if isinstance(op, ast.Div) and b.columns else "standardise") if a.columns or b.columns else ""
    return {ast.Mult: "product", ast.Div: "ratio"}.get(type(op), "standardise")


def _combined(op: ast.operator, a: Number, b: Number, text: str, where: str) -> Number:
    columns = tuple(dict.fromkeys((*a.columns, *b.columns)))
    total = a.total and b.total
    if isinstance(op, ast.Add):
        low, high = a.low + b.low, a.high + b.high
        return _capped(Number(lambda table: a.build(table) + b.build(table), low, high, columns, total))
    if isinstance(op, ast.Sub):
        low, high = a.low - b.high, a.high - b.low
        return _capped(Number(lambda table: a.build(table) - b.build(table), low, high, columns, total))
    if isinstance(op, ast.Mult):
        low, high = _product((a.low, a.high), (b.low, b.high))
        return _capped(Number(lambda table: a.build(table) * b.build(table), low, high, columns, total))
    if isinstance(op, ast.Div):
        if b.low <= 0 <= b.high:
            if math.isfinite(b.low) and math.isfinite(b.high):
                raise UsageError(f"{where}: {text}: got a divisor that can be 0 within the codebook's bounds; want not")
            return Number(
                lambda table: a.build(table) / b.build(table).nullif(0.0), -math.inf, math.inf, columns, False
            )
        inverse = sorted((1 / b.low, 1 / b.high))
        low, high = _product((a.low, a.high), (inverse[0], inverse[1]))
        return _capped(Number(lambda table: a.build(table) / b.build(table), low, high, columns, total))
    raise UsageError(f"{where}: got {_shown(text)}; want {_ALLOWED}")


def _power(a: Number, b: Number, text: str, where: str) -> Number:
    """Constant exponents only. An exponent that is no whole number wants a base that is not negative."""
    k = b.constant
    if k is None or abs(k) > 100:
        raise UsageError(f"{where}: {text}: got that exponent; want a number of at most 100 in absolute value")
    whole = k == int(k)
    if k == 0:
        return replace(a, build=lambda table: a.build(table) * real(0.0) + real(1.0), low=1.0, high=1.0, constant=None)
    ends = [a.low, a.high] + ([0.0] if a.low < 0 < a.high else [])
    wanted = -math.inf if whole else 0.0
    if (a.low < wanted and math.isfinite(a.low)) or (k < 0 and a.low <= 0 <= a.high and math.isfinite(a.high - a.low)):
        raise UsageError(
            f"{where}: {text}: not defined for all values within the codebook's bounds; want a base above 0"
        )
    total = a.total and a.low >= wanted and (k > 0 or not a.low <= 0 <= a.high)
    limit = LARGEST ** (1 / abs(k))

    def build(table: Table) -> Expr:
        base = a.build(table)
        defined = (base.abs() <= limit) if k > 0 else (base.abs() >= 1 / limit)
        return (
            base**k if total and _within(ends, limit, k) else _where(defined & (base >= wanted), base, lambda x: x**k)
        )

    if not total:
        return Number(build, -math.inf, math.inf, a.columns, False)
    values = [_pow(end, k) for end in ends]
    return _capped(Number(build, min(values), max(values), a.columns, total))


def _within(ends: list[float], limit: float, k: float) -> bool:
    return all(abs(end) <= limit if k > 0 else abs(end) >= 1 / limit for end in ends)


def _pow(x: float, k: float) -> float:
    if math.isinf(x):
        return 0.0 if k < 0 else (-math.inf if x < 0 and k % 2 == 1 else math.inf)
    try:
        return float(x**k)
    except OverflowError:
        return -math.inf if x < 0 and k % 2 == 1 else math.inf


def _function(name: str, a: Number, text: str, where: str) -> Number:
    if name == "abs":
        low = 0.0 if a.low <= 0 <= a.high else min(abs(a.low), abs(a.high))
        return replace(
            a, build=lambda table: a.build(table).abs(), low=low, high=max(abs(a.low), abs(a.high)), constant=None
        )
    if name == "exp":
        safe = a.total and a.low >= -700 and a.high <= 340

        def exponential(table: Table) -> Expr:
            x = a.build(table)
            return x.exp() if safe else _where((x <= 700) & (x >= -700), x, lambda x: x.exp())

        return Number(exponential, _exp(a.low), _exp(a.high), a.columns, safe)
    least = {"log": 0.0, "log1p": -1.0, "sqrt": 0.0}[name]
    inside = a.low >= least if name == "sqrt" else a.low > least
    if not inside and math.isfinite(a.low):
        hint = (
            "; want log1p, or bounds above 0 in the codebook" if name == "log" else "; want bounds that keep it defined"
        )
        raise UsageError(f"{where}: {text}: not defined for all values within the codebook's bounds{hint}")

    def defined(table: Table) -> Expr:
        x = a.build(table)
        if a.total and inside:
            return _apply(name, x)
        return _where((x >= least) if name == "sqrt" else (x > least), x, lambda x: _apply(name, x))

    low = _monotone(name, a.low) if inside else -math.inf
    return Number(defined, low, _monotone(name, a.high), a.columns, a.total and inside)


def _apply(name: str, x: Expr) -> Expr:
    """log1p as in Kahan: x * log(1 + x) / ((1 + x) - 1), accurate near 0 on every database."""
    if name != "log1p":
        return x.sqrt() if name == "sqrt" else x.ln()
    y = x + real(1.0)
    return ibis.ifelse(y == 1.0, x, y.ln() * (x / (y - real(1.0)).nullif(0.0)))


def _monotone(name: str, x: float) -> float:
    if math.isinf(x):
        return x
    return {"log": math.log, "log1p": math.log1p, "sqrt": math.sqrt}[name](x)


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf


def _where(condition: Expr, x: Expr, function: Callable[[Expr], Expr]) -> Expr:
    """function(x) where `condition` holds, else null; the function never sees any other x."""
    return function(ibis.ifelse(condition, x, ibis.null("float64")))


def _product(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    ends = [0.0 if 0.0 in (x, y) else x * y for x in a for y in b]
    return min(ends), max(ends)


def _capped(number: Number) -> Number:
    """Not `total` any more when values within the bounds could leave the range whose squares a float64 holds."""
    finite = [x for x in (number.low, number.high) if math.isfinite(x)]
    large = any(abs(x) > LARGEST for x in finite) or math.isnan(number.low) or math.isnan(number.high)
    return replace(number, low=-math.inf, high=math.inf, total=False) if large else number


def _refused(node: ast.AST, where: str) -> UsageError:
    return UsageError(f"{where}: got {_shown(ast.unparse(node))}; want {_ALLOWED}")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
