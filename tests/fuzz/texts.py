"""Targets: what people write, as files, as options of a command or as arguments."""

from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from statfed.cli._fields import value_of
from statfed.cli._study import read_holders, read_levels, read_privacy, read_protection
from statfed.client.data.sources import absolute, connect
from statfed.client.guard.policy import load_policy
from statfed.client.third_party import load_party
from statfed.core import toml
from statfed.core.codebook import load_codebook
from statfed.core.conditions import check_syntax, parse_where
from statfed.core.method import load_method, read_question
from statfed.core.section import apply_override
from statfed.core.study import load_study, make_study
from statfed.core.terms import Protection, Terms
from statfed.federation.preflight import before_data
from statfed.lab.recommend.cases import read_case
from tests.fuzz.mutations import lines, words
from tests.fuzz.trial import Target
from tests.office import BASE
from tests.universe import CODEBOOK

HOLDERS = {"a": "a.csv", "b": "b.csv", "c": "c.csv"}
BOOK = """title = "people"
[columns.region]
type = "category"
categories = {A = "north", B = "south"}
parents = {A = "land"}
[columns.income]
type = "number"
low = 0
high = 1000.5
missing = [-9, "NA"]
[columns.start]
type = "date"
low = 2001-01-01
high = 2020-12-31
[columns."a b"]
type = "text"
length = 20
[columns.w]
type = "number"
low = 0.1
high = 9
role = "weight"
[design]
lonely_psu = "adjust"
"""
STUDY = """method = "table"
title = "a table"
where = ["age >= 18", "region in north,south"]
engine = "inprocess"
seed = 1
[options]
rows = ["region"]
[holders]
a = "a.csv"
b = "b.csv"
[privacy]
epsilon = 1.0
unit = "person"
noise = "shared"
[protection]
name = "secure-aggregation"
minimum_holders = 2
[disclosure]
minimum_frequency = 3
method = "round"
[simulation]
lifetime_epsilon = 3.0
"""
TRAINING = """scenario = "time-use"
method = "dp-fedsgd"
holders = 4
[options]
rounds = 3
model = {name = "mlp", hidden = 8}
strategy = {name = "fedadam", tau = 1e-3}
[data]
source = "generated"
split = "label-skew"
persons = 6
[privacy]
epsilon = 1
"""
CASE = 'title = "x"\noutput = "model"\nparties = 4\nepsilon = 1.5\nrecords = 100\nexact = false\nrecurrence = "once"\n'
POLICY = toml.dumps(BASE)
PARTY = toml.dumps({"party": {"name": "key-holder"}, "allow": {"protections": ["plain"]}, "parties": {"a": "00"}})
_DEEP = "[" * 20_000
BOMBS = (
    f"a = {_DEEP}",
    "a = " + "{b=" * 2_000,
    "[" + "a." * 5_000 + "a]\nb = 1",
    "a = 0x" + "f" * 20_000,
    "a = " + "9" * 20_000,
    "a = 1e999999999",
    "a" * 100_000,
    'a = "' + "\\u0041" * 20_000 + '"',
    "holders = 99999999999999999999\nmethod = 'mean'",
    "seed = 0x" + "f" * 5_000 + "\nmethod = 'mean'\nholders = 1",
    "[columns.a]\ntype = 'number'\nlow = 0x" + "f" * 5_000,
    "[columns.a]\ntype = 'category'\ncategories = [" + "1," * 150_000 + "]",
    "[columns.a]\ntype = 'date'\nlow = 9999-12-31T00:00:00Z",
    "options = " + "{a=" * 60 + "1" + "}" * 60 + "\nmethod = 'mean'\nholders = {a = 'a.csv'}",
)
FORMULAS = (
    "income ~ age + C(region)",
    "log1p(income) ~ age * sex + I(age**2)",
    "employed ~ C(sex, Treatment('m')) + np.log(w)",
    "income ~ 1",
    "income ~ (age + hours + sex)**2 - age:hours",
    "income ~ `age` + exp(hours/80) - 1",
)
FORMULA_BOMBS = (
    "income ~ " + "(" * 10_000 + "age" + ")" * 10_000,
    "income ~ " + "(" * 80 + "age" + ")" * 80,
    "income ~ " + "(" * 40 + "age" + ")**2" * 40,
    "income ~ I(" + "(" * 60 + "age" + "**2)" * 60 + ")",
    "income ~ I(age**9**9**9**9)",
    "income ~ I(" + "-" * 5_000 + "age)",
    "income ~ " + "+" * 5_000 + "age",
    "income ~ I(" + "age+" * 5_000 + "age)",
    "income ~ " + "age:" * 5_000 + "age",
    "income ~ (age + hours + sex + region + employed + w + duration + event)**8",
    "income ~ (" + "+".join(f"I(age*{i})" for i in range(1, 200)) + ")**3",
    "income ~ I(" + "9" * 10_000 + "*age)",
    "income ~ I(age*1e999)",
    "income ~ " + "~".join(["age"] * 500),
    "income ~ " + "'" * 9_999,
    "income ~ `" + "a" * 100_000 + "`",
    "income ~ age" + " " * 200_000 + "+ sex",
    "income ~ __import__('os').system('true')",
    "income ~ {age.__class__}",
    "income ~ poly(age, 99999999)",
    "income ~ C(region, Treatment(" + "[" * 500 + "]" * 500 + "))",
)
CONDITIONS = (
    "age >= 18",
    "sex = f",
    "region in north,south",
    "income < 1e3",
    "employed == true",
    "age != 7",
    "age is not null",
    "not (age between 1 and 9 or sex in (f,m))",
)
CONDITION_BOMBS = (
    "age >= " + "9" * 100_000,
    "age" + " " * 100_000 + "!",
    "region in " + "north," * 200_000,
    "a" * 100_000 + " = " + " " * 100_000,
    "(" * 20_000 + "age >= 18" + ")" * 20_000,
    "age >= 18 and " * 5_000 + "age >= 18",
    "not " * 20_000 + "age >= 18",
)


def _file(load: Any, text: str, folder: Path) -> None:
    path = folder / "x.toml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    load(path)


def _study(text: str, folder: Path) -> None:
    path = folder / "x.study.toml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    study = load_study(path, ["seed=1"])
    before_data(study, folder, None if study.scenario else CODEBOOK)


def _formula(text: str, _folder: Path) -> None:
    for method, options in (("ols", {}), ("glm", {"family": "binomial"}), ("glmm", {"group": "region"})):
        study = make_study({"method": method, "options": {"formula": text, **options}, "holders": HOLDERS})
        read_question(study.terms(CODEBOOK))


def _condition(text: str, _folder: Path) -> None:
    check_syntax(text)
    parse_where((text,), CODEBOOK)


def _overridden(text: str, folder: Path) -> None:
    base = {"method": "mean", "options": {"columns": ["income"]}, "holders": HOLDERS}
    before_data(make_study(base, [text]), folder, CODEBOOK)


def _holder(text: str, folder: Path) -> None:
    for name, source in read_holders([text]).items():
        make_study({"method": "count", "holders": {name: source}})
        connect(absolute(source, folder), folder).close()


def _privacy(text: str, folder: Path) -> None:
    given = {"method": "count", "holders": HOLDERS, "privacy": read_privacy(text)}
    before_data(make_study(given), folder, CODEBOOK)


def _rule(text: str, folder: Path) -> None:
    rules: dict[str, Any] = {}
    apply_override(rules, text, "--rule")
    given = {"method": "table", "options": {"rows": ["sex"]}, "holders": HOLDERS, "disclosure": rules}
    before_data(make_study(given), folder, CODEBOOK)


def _levels(text: str, _folder: Path) -> None:
    read_levels([text])


def _protection(given: tuple[str, str], folder: Path) -> None:
    name, text = given
    table = {"method": "count", "holders": HOLDERS, "protection": read_protection(name, [text], None)}
    before_data(make_study(table), folder, CODEBOOK)


def _option(given: tuple[str, str, str], _folder: Path) -> None:
    method, key, text = given
    fields = load_method(method).Options.model_fields
    if key in fields:
        terms = Terms(
            method=method,
            options={key: value_of(key, fields[key], text)},
            codebook=CODEBOOK,
            holders=tuple(HOLDERS),
            seed=1,
            protection=Protection(),
        )
        read_question(terms)


_SOURCES = (
    "a=a.csv",
    "a.csv",
    "north=duckdb:///c.db?table=people",
    "s=sqlite://c.sqlite?table=a.b",
    "p=postgres://u:CANARY7391@[::1]:1/db?table=t",
    "p=mysql://u:CANARY7391@127.0.0.1:1/db?table=t",
    "a=data/*.parquet",
    "a=~nobody/x.csv",
    "a=file:///etc/passwd?table=x",
)
_PRIVACY = ("epsilon=1", "central:epsilon=1,delta=1e-6", "shared:epsilon=2,colluders=1", "margin=50,part=count")
_RULES = ("minimum_frequency=3", "method=controlled-round", "p_percent=10", "dominance_n=2", "base=5")
_OPTIONS = (
    ("secure-aggregation", "colluders=1"),
    ("secure-aggregation", "neighbours=2"),
    ("homomorphic-encryption", "scheme=bfv"),
    ("multi-party", "functions=['max']"),
    ("multi-party", "addresses={a='x:1'}"),
    ("plain", "x=1"),
)
_KEYED = (
    ("quantile", "probabilities", "0.1,0.5"),
    ("histogram", "edges", "0,10,20"),
    ("calibrate", "margins", '{"sex": {"f": 500.0, "m": 480.0}}'),
    ("table", "rows", "region,sex"),
    ("survival", "grid", "1,2,3"),
    ("local-sgd", "rounds", "3"),
)


def _changed(samples: tuple[tuple[str, ...], ...]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.sampled_from(samples).flatmap(
        lambda one: words(one[-1], *(other[-1] for other in samples)).map(lambda text: (*one[:-1], text))
    )


TARGETS = (
    Target("codebook", lines(BOOK), partial(_file, load_codebook), BOMBS),
    Target("study", lines(STUDY, TRAINING), _study, BOMBS, share=0.5),
    Target("policy", lines(POLICY), partial(_file, load_policy), BOMBS[:4]),
    Target("party", lines(PARTY), partial(_file, load_party), BOMBS[:4], share=0.5),
    Target("case", lines(CASE), partial(_file, read_case), BOMBS[:4], share=0.5),
    Target("formula", words(*FORMULAS), _formula, FORMULA_BOMBS, share=0.5),
    Target("condition", words(*CONDITIONS), _condition, CONDITION_BOMBS),
    Target(
        "--set",
        words("privacy.epsilon=1", "options.columns=['age']", "where=['age > 3']", "protection.name=plain", "seed=2"),
        _overridden,
        ("a." * 10_000 + "a=1", "options=" + "{a=" * 300 + "1" + "}" * 300, "where=" + "[" * 900 + "]" * 900),
        share=0.5,
    ),
    Target("--holder", words(*_SOURCES), _holder, ("a=" + "x" * 10_000, "=" * 10_000, "a=://?table=x"), share=0.3),
    Target("--privacy", words(*_PRIVACY), _privacy, ("epsilon=" + "9" * 10_000, "," * 10_000, "epsilon=1e-300")),
    Target("--rule", words(*_RULES), _rule, ("=", "a.b.c=1", "minimum_frequency=" + "9" * 10_000), share=0.5),
    Target("--levels", words("sex=f,m", 'sex="a,b",c', "sex=\nm"), _levels, ("sex=" + "f" * 200_000,), share=0.5),
    Target("--protect-option", _changed(_OPTIONS), _protection, share=0.5),
    Target("options of methods", _changed(_KEYED), _option, (("calibrate", "margins", "[" * 100_000),), share=0.5),
)
