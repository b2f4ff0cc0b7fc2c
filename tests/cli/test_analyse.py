"""`statfed analyse` and `statfed run` of tables, as users type them: answers, documents, files and mistakes."""

import html.parser
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import jsonschema
import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

from statfed.cli.main import app
from statfed.client.data.drafting import to_toml
from statfed.core.discovery import modules
from statfed.core.method import ANALYSES, load_method
from statfed.federation.schema import answer_schema
from tests.universe import CODEBOOK, people

COLUMNS = ["income", "age", "employed", "region", "sex"]
FRAME = people(360, 1)[[*COLUMNS, "w"]]
PARTS = [FRAME[:200], FRAME[200:290], FRAME[290:]]
ALL = "--holder a=a.parquet --holder b=b.csv --holder c=duckdb:///c.db?table=people"
TWO = "--holder a=a.parquet --holder b=b.csv"
KNOWN = f"{TWO} --codebook people.codebook.toml"
"""With a codebook that was not drafted for the occasion: private studies want one."""
Call = Callable[[str], Result]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The holders of the examples: Parquet, CSV and a DuckDB table."""
    folder = tmp_path_factory.mktemp("files")
    PARTS[0].to_parquet(folder / "a.parquet")
    PARTS[1].to_csv(folder / "b.csv", index=False)
    with duckdb.connect(str(folder / "c.db")) as connection:
        connection.register("part", PARTS[2])
        connection.execute("create table people as select * from part")
    columns = {name: CODEBOOK.columns[name] for name in FRAME.columns}
    (folder / "people.codebook.toml").write_text(to_toml(CODEBOOK.model_copy(update={"columns": columns})))
    return folder


@pytest.fixture
def call(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run `statfed` in the folder of the files, with a workspace of the test's own. No command ends in a traceback."""
    monkeypatch.chdir(files)
    monkeypatch.setenv("COLUMNS", "240")
    monkeypatch.setenv("STATFED_WORKSPACE", str(tmp_path / "ws"))
    monkeypatch.setenv("STATFED_RUNS", str(tmp_path / "runs"))

    def run(words: str) -> Result:
        result = CliRunner().invoke(app, shlex.split(words))
        assert "internal error" not in result.stderr, result.stderr
        assert "Traceback" not in result.output
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


def document(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


# ---- the commands of the documentation


def test_describe_of_a_parquet_file_a_csv_file_and_a_database_table_is_that_of_the_pooled_file(call: Call) -> None:
    result = call(f"analyse describe --columns income,age {ALL} --json")
    answer = document(result)
    jsonschema.validate(answer, answer_schema())
    assert answer["tables"] == ["columns"]
    for row in answer["columns"]:
        pooled = FRAME[row["column"]]
        assert row["count"] == len(pooled)
        assert row["mean"] == pytest.approx(pooled.mean(), rel=1e-12)
        assert row["variance"] == pytest.approx(pooled.var(), rel=1e-9)
        assert row["std_error"] == pytest.approx(pooled.sem(), rel=1e-9)
    assert answer["codebook_drafted"] is True
    assert "drafted from the union of the holders' own drafts" in result.stderr
    assert '[columns.region]\ntype = "category"\ncategories = ["north", "south", "west"]' in result.stderr


def test_holders_with_rules_do_not_show_the_categories_of_a_drafted_codebook(call: Call) -> None:
    """A category that one record has would be told although the holders refuse the question."""
    result = call(f"analyse describe --columns income {ALL} --rules standard")
    assert "drafted from the union of the holders' own drafts" in result.stderr
    assert "statfed codebook infer" in result.stderr
    assert "categories =" not in result.stderr
    assert "south" not in result.stderr


def test_a_table_has_cells_and_margins_and_where_selects(call: Call) -> None:
    where = "--where 'age >= 40' --where 'region in north,west'"
    answer = document(call(f"analyse table --rows region --columns sex,employed {TWO} {where} --json"))
    pooled = FRAME[:290]
    chosen = pooled[(pooled["age"] >= 40) & pooled["region"].isin(["north", "west"])]
    wanted = chosen.groupby(["region", "sex", "employed"]).size()
    for row in answer["cells"]:
        key = (row["region"], row["sex"], row["employed"] == "true")
        assert row["count"] == row["total"] == wanted.get(key, 0)
    assert answer["by"] == ["region", "sex", "employed"]
    whole = next(r for r in answer["margins"] if all(r[name] is None for name in answer["by"]))
    assert whole["count"] == len(chosen)
    shown = call(f"analyse table --rows sex {TWO}").stdout
    assert "Contingency table" in shown
    assert re.search(r"Who learns what.*coordinator.*each holder's", shown, re.DOTALL)
    assert "protection plain: 1 sum over 2 holders" in shown


def test_glm_names_its_coefficients_and_writes_every_form_of_file(call: Call, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    paths = f"--csv {out}/glm.csv --parquet {out}/glm.parquet --html {out}/glm.html"
    result = call(f"analyse glm --formula 'employed ~ age + C(region)' --family binomial {ALL} {paths} --json")
    rows = document(result)["coefficients"]
    assert [row["name"] for row in rows] == ["Intercept", "age", "C(region)[T.south]", "C(region)[T.west]"]
    assert all(row["std_error"] > 0 for row in rows)
    stored = pd.read_parquet(out / "glm.parquet")
    assert stored["estimate"].tolist() == [row["estimate"] for row in rows]
    assert pd.read_csv(out / "glm.csv")["estimate"].tolist() == pytest.approx(stored["estimate"].tolist(), rel=1e-15)
    page = (out / "glm.html").read_text()
    assert "C(region)[T.south]" in page
    assert Page(page).outside == []


class Page(html.parser.HTMLParser):
    """What a page would load from elsewhere, its scripts, and its tags that are not closed in order."""

    VOID = ("meta", "link", "br", "hr", "img", "input", "line", "rect", "circle", "polyline", "path")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "link", "iframe", "object", "embed", "img"):
            self.outside.append(tag)
        self.outside += [f"{k}={v}" for k, v in attrs if k in ("src", "href", "action") and not str(v).startswith("#")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_names_from_the_data_are_shown_as_they_are_on_the_terminal_and_escaped_in_the_page(
    call: Call, tmp_path: Path
) -> None:
    levels = ["<b>x</b>", "[/bold]", "[red]y", "z & 'q'"]
    frame = pd.DataFrame({"<i>g": levels * 5, "x": range(20)})
    frame.to_parquet(tmp_path / "odd.parquet")
    shown = call(f"analyse table --rows '<i>g' --holder a={tmp_path}/odd.parquet --html {tmp_path}/odd.html")
    assert shown.exit_code == 0, shown.stderr
    assert all(level in shown.stdout for level in levels)
    page = (tmp_path / "odd.html").read_text()
    assert "<b>x</b>" not in page
    assert "<i>g" not in page
    assert "&lt;b&gt;x&lt;/b&gt;" in page
    assert Page(page).outside == []


def test_levels_that_differ_between_holders_do_not_shift_cells(call: Call, tmp_path: Path) -> None:
    """The peer's defect: 240 instead of 300."""
    pd.DataFrame({"g": ["a"] * 60 + ["b"] * 40}).to_csv(tmp_path / "x.csv", index=False)
    pd.DataFrame({"g": ["b"] * 70 + ["d"] * 30}).to_parquet(tmp_path / "y.parquet")
    pd.DataFrame({"g": ["c"] * 100}).to_csv(tmp_path / "z.csv", index=False)
    holders = f"--holder {tmp_path}/x.csv --holder {tmp_path}/y.parquet --holder {tmp_path}/z.csv"
    answer = document(call(f"analyse table --rows g {holders} --json"))
    assert {row["g"]: row["count"] for row in answer["cells"]} == {"a": 60, "b": 110, "c": 100, "d": 30}
    assert answer["facts"]["observations"] == 300
    assert answer["terms"]["holders"] == ["x", "y", "z"]


# ---- help


@pytest.mark.parametrize("name", sorted(modules(ANALYSES)))
def test_help_of_every_analysis_names_every_option(call: Call, name: str) -> None:
    shown = call(f"analyse {name} --help").stdout
    analysis = load_method(name)
    own = [f"--{key.replace('_', '-')}" for key in analysis.Options.model_fields]
    common = ["--holder", "--codebook", "--where", "--privacy", "--disclosure", "--rule", "--engine", "--dry-run"]
    for flag in [*own, *common, "--json", "--csv", "--parquet", "--html", "--budget", "--fresh", "--workspace"]:
        assert re.search(rf"{re.escape(flag)}\b", shown), flag
    assert analysis.TITLE in shown


def test_the_list_of_analyses_names_them_all(call: Call) -> None:
    shown = call("analyse --help").stdout
    assert all(f" {name} " in shown for name in modules(ANALYSES))


# ---- mistakes

MISTAKES: dict[str, tuple[str, int, str]] = {
    "unknown analysis": (f"descibe --columns age {TWO}", 2, "No such command 'descibe'"),
    "required option": (f"describe {TWO}", 2, "Missing option '--columns'"),
    "no holder": ("describe --columns age", 2, "Missing option '--holder'"),
    "unknown option": (f"describe --columns age --colour red {TWO}", 2, "No such option"),
    "unknown column": (f"describe --columns age,agee {TWO}", 2, "columns: got 'agee'; want one of income, age"),
    "wrong type": (f"describe --columns region {TWO}", 2, "columns: region: got type category; want number"),
    "missing file": ("describe --columns age --holder a=none.csv", 2, "a: "),
    "missing database": ("describe --columns age --holder a=duckdb:///no.db?table=t", 2, "no such file"),
    "missing table": ("describe --columns age --holder c=duckdb:///c.db?table=persons", 2, "a table 'persons'"),
    "holder twice": ("describe --columns age --holder a=a.parquet --holder a=b.csv", 2, "--holder: got a twice"),
    "holder name": ("describe --columns age --holder A_1=a.parquet", 2, "holders: got 'A_1'; want lower-case letters"),
    "codebook": (f"describe --columns age --codebook no.toml {TWO}", 2, "codebook file not found: "),
    "where": (f"describe --columns age --where 'age !! 3' {TWO}", 2, "--where: got 'age !! 3'; want =, !=, <"),
    "level": (f"describe --columns age --where 'sex = x' {TWO}", 2, "want =, != or in, and codes of f, m"),
    "privacy": (f"count --privacy 1 {TWO}", 2, "--privacy: got '1'; want key=value"),
    "epsilon": (f"count --privacy epsilon=-1 {TWO}", 2, "epsilon: got '-1'; want greater than 0"),
    "no private form": (f"ols --formula 'age ~ nope' --privacy epsilon=1 {KNOWN}", 2, "nope"),
    "rule": (f"count --rule minimum_frequency {TWO}", 2, "--rule: got 'minimum_frequency'; want key=value"),
    "rule name": (f"count --rule minimum=3 {TWO}", 2, "disclosure.minimum: unknown key"),
    "budget of zero": (f"count --budget 0 {TWO}", 2, "lifetime_epsilon: got 0.0; want greater than 0"),
    "protection": (f"count --protect magic {TWO}", 2, "unknown protection: got 'magic'; want one of homo"),
    "code in a formula": (
        f"""glm --formula '__import__("os").mkdir("pwned") ~ age' {TWO}""",
        2,
        "formula",
    ),
    "json": (f"calibrate --columns income --weight w --margins '{{bad' {TWO}", 2, "--margins: got '{bad'; want JSON"),
    "number": (f"histogram --column income --bins ten {TWO}", 2, "bins: got 'ten'; want integer"),
    "budget exhausted": (f"count --privacy epsilon=1 --budget 0.5 {KNOWN}", 3, "a: privacy budget: asked epsilon"),
    "too few records": (
        f"ols --formula 'income ~ age' --where 'age > 80' --rule minimum_frequency=50 {TWO}",
        3,
        "minimum frequency: the model may not be released",
    ),
    "separation": ("glm --formula 'late ~ age' --holder a=separate.csv", 2, "separation: some responses"),
    "collinear": (
        "ols --formula 'income ~ age + old' --holder a=separate.csv",
        2,
        "collinear: old is a combination of age",
    ),
    "nothing left": (f"ols --formula 'income ~ age' --where 'age > 200' {TWO}", 2, "got no records that are complete"),
    "types in conflict": ("count --holder a=a.parquet --holder b=words.csv", 2, "age: got types category, integer"),
}


@pytest.fixture(scope="module", autouse=True)
def _more_files(files: Path) -> None:
    odd = PARTS[0].assign(late=PARTS[0]["age"] > 50, old=2 * PARTS[0]["age"])
    odd.to_csv(files / "separate.csv", index=False)
    PARTS[1].assign(age="young").to_csv(files / "words.csv", index=False)


@pytest.mark.parametrize("case", list(MISTAKES))
def test_a_mistake_gives_its_exit_code_and_a_message_that_says_what_is_wanted(
    call: Call, files: Path, case: str
) -> None:
    words, code, text = MISTAKES[case]
    result = call(f"analyse {words} --fresh")
    assert result.exit_code == code, result.stderr
    assert text in re.sub(r"\s+", " ", result.stderr)
    assert result.stdout == ""
    assert not (files / "pwned").exists()


def test_a_failure_is_a_json_document_too(call: Call) -> None:
    result = call(f"analyse describe --columns agee {TWO} --json")
    error = json.loads(result.stdout)["error"]
    assert (error["kind"], error["exit_code"], result.exit_code) == ("UsageError", 2, 2)
    assert "want one of income, age" in error["message"]


def test_holders_without_records_or_without_values_answer_with_zeros_and_nulls(call: Call, files: Path) -> None:
    PARTS[0].iloc[:0].to_parquet(files / "empty.parquet")
    PARTS[0].iloc[:0].to_csv(files / "empty.csv", index=False)
    pd.DataFrame({name: [None] * 9 for name in PARTS[0]}).to_csv(files / "missing.csv", index=False)
    nobody = "--holder d=empty.parquet --holder e=empty.csv --holder f=missing.csv"
    row = document(call(f"analyse describe --columns age {TWO} {nobody} --json"))["columns"][0]
    assert (row["count"], row["missing"]) == (290, 9)
    assert row["mean"] == pytest.approx(FRAME["age"][:290].mean(), rel=1e-12)
    row = document(call(f"analyse describe --columns age {nobody} --json"))["columns"][0]
    assert (row["count"], row["missing"], row["mean"], row["std_error"]) == (0, 9, None, None)


def test_every_mismatch_with_a_given_codebook_is_listed_at_once_for_every_holder(call: Call, tmp_path: Path) -> None:
    book = tmp_path / "people.codebook.toml"
    book.write_text(
        '[columns.income]\ntype = "number"\nlow = 0\nhigh = 1000\n'
        '[columns.region]\ntype = "category"\ncategories = ["north"]\n'
        '[columns.sex]\ntype = "boolean"\n[columns.gone]\ntype = "boolean"\n'
    )
    result = call(f"analyse mean --columns income,sex,gone --by region --codebook {book} {ALL}")
    assert result.exit_code == 2
    for holder in ("a", "b", "c"):
        assert f"{holder}: data do not fit the codebook:" in result.stderr
    assert result.stderr.count("income: got values above the codebook's bound; want at most 1000") == 3
    assert result.stderr.count("region: got a category outside the codebook; want one of north") == 3
    assert result.stderr.count("sex: got values that are not true or false") == 3
    assert result.stderr.count("gone: not a column of the data") == 3
    told = result.stderr.split("error:")[1]
    assert "south" not in told
    assert str(FRAME["income"].max()) not in told


# ---- privacy, disclosure and ledgers


def test_a_private_answer_shows_its_cost_and_says_so_everywhere(call: Call, tmp_path: Path) -> None:
    words = f"analyse count --by sex --privacy epsilon=1,delta=1e-6 --seed 5 {KNOWN} --disclosure standard"
    answer = document(call(f"{words} --json --html {tmp_path}/p.html"))
    assert answer["privacy"]["epsilon"] == 1.0
    assert [s["study_epsilon"] for s in answer["spending"]] == pytest.approx([1.0, 1.0], rel=0.02)
    assert all(s["history_epsilon"] <= 1.0 and s["disclosures"] == 0 for s in answer["spending"])
    assert all(row["std_error"] > 0 for row in answer["estimates"])
    assert "differentially private" in answer["disclosure"]["not_evaluated"].values()
    assert "Differentially private" in (tmp_path / "p.html").read_text()
    assert "epsilon 1 per record" in call(words).stdout
    exact = document(call(f"analyse count --by sex {TWO} --json"))
    assert all(s["history_epsilon"] is None and s["disclosures"] == 2 for s in exact["spending"])


def test_a_dry_run_spends_nothing_and_says_how_exact_it_would_be(call: Call) -> None:
    words = f"analyse count --by sex --privacy epsilon=1,delta=1e-6 {KNOWN} --dry-run"
    plan = document(call(f"{words} --json"))
    assert plan["dry_run"] is True
    assert [a["epsilon"] for a in plan["admissions"]] == pytest.approx([1.0, 1.0], rel=0.02)
    assert all(0 < margin["smallest"] <= margin["largest"] for margin in plan["margins"])
    shown = call(words).stdout
    assert "nothing was spent" in shown
    ledger = document(call("ledger show --holder a --json"))["ledgers"]
    assert [e["kind"] for e in ledger[0]["entries"]] == ["open", *["reserve", "release"] * 2]
    assert ledger[0]["spending"]["filter_epsilon"] == 0


def test_ledgers_of_analyses_are_found_shown_and_verified_by_the_holders_name(call: Call) -> None:
    answer = document(call(f"analyse count --privacy epsilon=0.5,delta=1e-6 {KNOWN} --json"))
    document(call(f"analyse describe --columns age {TWO} --json"))
    (ledger,) = document(call("ledger show --holder a --json"))["ledgers"]
    kinds = [e["kind"] for e in ledger["entries"]]
    assert kinds == ["open", "reserve", "charge", "release", "disclose", "disclose", "release"]
    assert ledger["entries"][1]["note"] == "count"
    assert [e["note"] for e in ledger["entries"][-3:-1]] == [
        "describe: means without noise",
        "describe: squares without noise",
    ]
    assert {e["study"] for e in ledger["entries"][1:4]} == {answer["study_digest"]}
    head = answer["spending"][0]["ledger_head"]
    assert call(f"ledger verify --holder a --anchor {head}").exit_code == 0
    assert len(document(call("ledger show --json"))["ledgers"]) == 2


def test_standard_rules_blank_small_cells_and_name_the_rule(call: Call, tmp_path: Path) -> None:
    frame = FRAME.assign(region=np.where(np.arange(len(FRAME)) < 4, "west", "north"))
    frame.to_parquet(tmp_path / "s.parquet")
    words = f"analyse table --rows region --columns sex --holder s={tmp_path}/s.parquet --fresh"
    answer = document(call(f"{words} --disclosure standard --json"))
    treated = [row for row in answer["cells"] if row["status"] not in ("released", "empty")]
    assert treated
    assert all(row["count"] is None and row["total"] is None for row in treated)
    assert "minimum frequency" in answer["disclosure"]["rules"]
    assert "minimum frequency" in call(f"{words} --rule minimum_frequency=3").stdout
    rounded = document(call(f"{words} --rule method=controlled-round --rule base=5 --json"))
    assert all(row["count"] % 5 == 0 for row in rounded["cells"])
    assert document(call(f"{words} --json"))["disclosure"]["rules"] == []


STUDY = """
method = "{method}"
codebook = "people.codebook.toml"
{more}
[options]
columns = ["age"]

[holders]
north = "north.parquet"
south = "south.csv"

[simulation.disclosure]
minimum_frequency = {minimum}
"""


@pytest.fixture
def study(tmp_path: Path, call: Call) -> Callable[..., Path]:
    """Write a study file beside its data; returns its path."""
    PARTS[0].to_parquet(tmp_path / "north.parquet")
    PARTS[1].to_csv(tmp_path / "south.csv", index=False)
    call(f"codebook infer {tmp_path}/north.parquet {tmp_path}/south.csv --out {tmp_path}/people.codebook.toml")

    def write(method: str = "describe", minimum: int | str = '"off"', more: str = "") -> Path:
        path = tmp_path / "people.study.toml"
        path.write_text(STUDY.format(method=method, minimum=minimum, more=more))
        return path

    return write


def test_a_study_file_runs_is_listed_shown_and_reported(call: Call, study: Callable[..., Path]) -> None:
    path = study()
    answer = document(call(f"run {path} --json"))
    assert answer["codebook_drafted"] is False
    assert answer["disclosure"]["rules"]
    assert answer["columns"][0]["mean"] == pytest.approx(FRAME["age"][:290].mean(), rel=1e-12)
    (listed,) = document(call("runs list --json"))["runs"]
    assert (listed["run"], listed["method"], listed["state"]) == (answer["run"], "describe", "finished")
    assert document(call("runs show last --json")) == answer
    assert "Description of columns" in call("runs show last").stdout
    report = Path(document(call(f"runs report {answer['run'][:15]} --json"))["report"])
    assert Page(report.read_text()).outside == []
    stored = json.loads((report.parent / "result.json").read_text())
    assert stored == answer
    assert pd.read_csv(report.parent / "columns.csv")["count"].tolist() == [290]


def test_keys_of_a_study_are_set_on_the_command_line(call: Call, study: Callable[..., Path]) -> None:
    path = study()
    answer = document(call(f"""run {path} --set 'options.columns=["income"]' --set disclosure=none --fresh --json"""))
    assert [row["column"] for row in answer["columns"]] == ["income"]
    assert answer["disclosure"]["rules"] == []
    plan = document(call(f"run {path} --set method=mean --set privacy.epsilon=1 --dry-run --json"))
    assert plan["admissions"][0]["epsilon"] == pytest.approx(1.0, rel=0.02)
    wrong = call(f"run {path} --set disclosure=strict")
    assert wrong.exit_code == 2
    assert "disclosure: got 'strict'; want none, standard or a table of rules" in wrong.stderr
    assert "unknown method: got 'descibe'" in call(f"run {path} --set method=descibe").stderr


def test_holders_refuse_a_population_that_differs_by_few_from_one_of_an_earlier_run(
    call: Call, study: Callable[..., Path]
) -> None:
    older = f'where = ["age < {int(np.sort(PARTS[0].age)[-3])}"]'
    assert call(f"run {study(minimum=10)}").exit_code == 0
    refused = call(f"run {study(minimum=10, more=older)} --json")
    assert refused.exit_code == 3
    error = json.loads(refused.stdout)["error"]
    assert error["kind"] == "Refused"
    assert "north: not allowed by this holder's differencing rule" in error["message"]
    other = call(f"run {study(minimum=25, more=older)} --json")
    assert json.loads(other.stdout)["error"]["message"] == error["message"]


def test_a_run_without_codebook_shows_the_drafted_one_too(call: Call, study: Callable[..., Path]) -> None:
    path = study()
    path.write_text(path.read_text().replace('codebook = "people.codebook.toml"\n', ""))
    assert "drafted from the union of the holders' own drafts" in call(f"run {path} --fresh").stderr


def test_a_study_file_of_the_earlier_format_is_read_and_said_to_be_one(call: Call, study: Callable[..., Path]) -> None:
    path = study()
    now = call(f"run {path} --fresh --json")
    assert "earlier format" not in now.stderr
    path.write_text(path.read_text().replace("method =", "analysis ="))
    earlier = call(f"run {path} --fresh --json")
    assert f"{path}: a study of an earlier format; read analysis as method" in " ".join(earlier.stderr.split())
    assert document(earlier)["study_digest"] == document(now)["study_digest"]
    assert document(earlier)["columns"] == document(now)["columns"]


def test_an_analysis_can_be_kept_as_a_run(call: Call, tmp_path: Path) -> None:
    result = call(f"analyse count {TWO} --runs {tmp_path}/runs --json")
    answer = document(result)
    assert document(call("runs show last --json")) == answer
    assert f"{answer['run']}/report.html" in result.stderr
    assert not call(f"analyse count {TWO} --fresh").stderr.count("report:")
