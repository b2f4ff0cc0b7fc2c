"""Annexes of a run say what its result.json says, leave blank what it does not, and let no name become markup."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import Result
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from statfed.cli.main import app
from statfed.core.card import TOPICS, Card
from statfed.core.codebook import make_codebook
from statfed.core.errors import UsageError
from statfed.core.terms import Protection, Terms
from statfed.federation.annex import STATEMENT, TO_FILL, Facts, facts_of, make_annex, to_html, to_markdown
from statfed.federation.annex.bearing import of
from statfed.federation.annex.document import LEFT_OUT, NO_CARD, TITLES, Annex
from statfed.federation.annex.parts import Asked, Section, Table
from statfed.federation.answers import read_answer
from statfed.federation.report import formats
from tests.strategies.protections.test_cards import VERDICT

HOSTILE = "</td><script>alert(1)</script>\"'><img src=x onerror=alert(2)> | & {{ 7 * 7 }} `x` [y](http://z) **b**"
CODEBOOK = """title = "People"
[columns.age]
type = "integer"
label = "age in years"
low = 0
high = 120
[columns.income]
type = "number"
low = 0
high = 10
unit = "kEUR"
[columns.sex]
type = "category"
categories = ["f", "m"]
"""
STUDY = """method = "table"
codebook = "people.codebook.toml"
where = ["age >= 18"]
disclosure = "{disclosure}"
[options]
rows = ["sex"]
[holders]
north = "north.parquet"
south = "south.parquet"
west = "west.parquet"
[protection]
name = "secure-aggregation"
{privacy}
"""
TRAINING = [
    "data.source=generated",
    "data.persons=6",
    "data.records_per_person=12",
    "data.test_persons=4",
    "options.rounds=1",
]
TRAINING += ["options.rounds=1", "options.model.hidden=8", "method=dp-fedsgd", "privacy.epsilon=3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three finished runs: a private table, an exact one, a private training."""
    root = tmp_path_factory.mktemp("annex")
    for more, name in enumerate(("north", "south", "west")):
        ages = [20 + more, 30 + more, 40, 50] * 15  # three data sets
        frame = pd.DataFrame({"age": ages, "sex": list("fmff") * 15, "income": [1.0, 2, 3, 4] * 15})
        frame.to_parquet(root / f"{name}.parquet")
    (root / "people.codebook.toml").write_text(CODEBOOK)
    private = '[privacy]\nepsilon = 1\nnoise = "shared"'
    (root / "private.toml").write_text(STUDY.format(disclosure="none", privacy=private))
    (root / "exact.toml").write_text(STUDY.format(disclosure="standard", privacy=""))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("STATFED_CACHE", str(root / "cache"))
        for name in ("private", "exact"):
            assert invoke("run", f"{name}.toml", "--fresh", "--runs", name).exit_code == 0
        changes = [word for change in TRAINING for word in ("--set", change)]
        made = invoke("run", "time-use", "--fresh", "--no-references", "--runs", "training", *changes)
        assert made.exit_code == 0, made.output
    return root


def invoke(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def stored(folder: Path, name: str) -> Any:
    (path,) = (folder / name).glob("*/result.json")
    return json.loads(path.read_text())


@pytest.fixture
def private(folder: Path) -> Facts:
    return facts_of(read_answer(stored(folder, "private")))


@pytest.fixture
def trained(folder: Path) -> Facts:
    return facts_of(read_answer(stored(folder, "training")))


def table(annex: Annex, caption: str) -> Table:
    (found,) = (b for s in annex.sections for b in s.blocks if isinstance(b, Table) and b.caption == caption)
    return found


def asked(annex: Annex) -> list[Asked]:
    return [block for section in annex.sections for block in section.blocks if isinstance(block, Asked)]


class Page(HTMLParser):
    """The texts of a page, its tags with attributes, and the texts of each table."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


# ---- what it says is what result.json says


def test_the_annex_of_an_analysis_has_the_figures_of_its_result(folder: Path, private: Facts) -> None:
    answer = stored(folder, "private")
    assert private.run == answer["run"]
    assert private.digests["study"] == answer["study_digest"]
    assert private.digests["codebook"] == make_codebook(answer["terms"]["codebook"]).digest()
    assert [vars(row) for row in private.learns] == answer["learns"]
    assert private.privacy == answer["terms"]["privacy"]
    assert [party.name for party in private.holders] == ["north", "south", "west"]
    assert private.technique.minimum_holders == 3
    assert (private.bytes_down, private.bytes_up) == tuple(
        sum(one[way] for one in answer["sums"]) for way in ("bytes_down", "bytes_up")
    )
    assert {one.name: one.read for one in private.variables} == {"age": True, "income": False, "sex": True}
    for one, row in zip(private.accounts, answer["spending"], strict=True):
        assert (one.holder, one.epsilon, one.history) == (row["holder"], row["study_epsilon"], row["history_epsilon"])
        assert (one.share, one.budget, one.ledger_head) == (
            row["share"],
            row["budget_epsilon"],
            row["ledger_head"],
        )
        assert one.delta == answer["terms"]["privacy"]["delta"], "the study's delta, not the lifetime's"
        assert one.lifetime_delta == row["lifetime_delta"]


def test_the_annex_of_a_training_has_the_figures_of_its_result(folder: Path, trained: Facts) -> None:
    result = stored(folder, "training")
    assert trained.digests["study"] == result["study_digest"]
    assert trained.digests["model"] == result["training"]["model_digest"]
    assert [vars(row) for row in trained.learns] == result["learns"]
    assert trained.versions == result["versions"]
    assert trained.case.questions, "the scenario's own questions"
    assert {p.name: p.records for p in trained.holders} == {s["holder"]: s["records"] for s in result["spending"]}
    for one, row in zip(trained.accounts, result["spending"], strict=True):
        assert (one.epsilon, one.delta, one.history) == (row["study_epsilon"], row["delta"], row["history_epsilon"])
        assert (one.lifetime_delta, one.ledger_head) == (row["lifetime_delta"], row["ledger_head"])
    assert [one.name for one in trained.variables][:1] == ["acc_x"]


@pytest.mark.parametrize("kind", TITLES)
@pytest.mark.parametrize("name", ["private", "exact", "training"])
def test_both_formats_show_what_the_run_did_and_decide_nothing(folder: Path, name: str, kind: Any) -> None:
    result = stored(folder, name)
    facts = facts_of(read_answer(result))
    annex = make_annex(facts, kind)
    page, text = Page(to_html(annex)), to_markdown(annex)
    for shown in (page.text, Page(MarkdownIt().enable("table").render(text)).text):
        assert STATEMENT in shown
        assert TO_FILL in shown
        for digest in facts.digests.values():
            assert digest in shown
        for row in facts.learns:
            assert " ".join(row.learns.split()) in shown
        for one in facts.accounts:
            assert one.ledger_head in shown
            assert formats.epsilon(one.epsilon) in shown if facts.privacy else "not private" in shown
        for question in facts.technique.card.questions:
            assert (question.question in shown) == (question.topic not in LEFT_OUT[kind]), question.question
        assert VERDICT.search(shown) is None, VERDICT.search(shown)


def test_the_table_of_epsilons_is_the_composition_per_holder(folder: Path, private: Facts) -> None:
    rows = table(make_annex(private, "dpia"), "Composed for each holder").rows
    for row, spent in zip(rows, stored(folder, "private")["spending"], strict=True):
        assert row[0] == spent["holder"]
        assert row[1] == formats.epsilon(spent["study_epsilon"])
        assert row[3] == formats.epsilon(spent["history_epsilon"])
        assert row[5] == formats.allowance(spent["budget_epsilon"])


def test_an_exact_run_shows_no_epsilon_and_no_finite_history(folder: Path) -> None:
    facts = facts_of(read_answer(stored(folder, "exact")))
    annex = make_annex(facts, "agreement")
    for row in table(annex, "Composed for each holder").rows:
        assert row[1:4] == ("not private", formats.DASH, "none is finite")
        assert row[7] == "1", "the exact release in the ledger"
    assert ("No differential privacy" in [heading for heading, _ in annex.banners]) is True
    assert "minimum frequency" in to_markdown(annex)


def test_thresholds_that_nodes_apply_are_not_shown(folder: Path) -> None:
    answer = stored(folder, "exact")
    query = Terms.model_validate(answer["terms"])
    options = {"functions": ["dominance"], "n": 3, "k": 87.65, "p": 12.34}
    changed = query.model_copy(update={"protection": Protection(name="multi-party", options=options)})
    answer |= {"terms": changed.model_dump(mode="json"), "study_digest": changed.digest()}
    facts = facts_of(read_answer(answer))
    assert (facts.technique.options["n"], facts.technique.options["functions"]) == ("not shown", ["dominance"])
    for kind in TITLES:
        text = to_markdown(make_annex(facts, kind))
        assert "87.65" not in text
        assert "12.34" not in text
        for node in ("node-1", "node-2", "node-3"):
            assert f"| {node} | third party" in text


def test_shared_noise_says_against_whom_it_does_not_hold(private: Facts) -> None:
    assert "know the noise of at most 1 of them" in to_markdown(make_annex(private, "dpia"))


def test_a_public_seed_is_said_before_everything_else(trained: Facts, private: Facts) -> None:
    ((_, simulated),) = make_annex(trained, "dpia").banners
    assert "the public seed 1" in simulated
    assert "public seed" not in to_markdown(make_annex(private, "dpia")), "it had none"


def test_every_topic_is_in_one_annex_at_least_with_what_the_run_says_on_it(private: Facts) -> None:
    kinds = {kind: {one.topic for one in asked(make_annex(private, kind))} for kind in TITLES}
    assert kinds["dpia"] | kinds["agreement"] == set(TOPICS)
    silent = {topic for topic in TOPICS if not of(topic, private)}
    assert silent == {"safe people", "skills"}, "a run holds no facts on persons"


def test_what_the_run_does_not_say_is_left_blank(private: Facts, trained: Facts) -> None:
    rows = table(make_annex(private, "agreement"), "Parties").rows
    assert [row[2] for row in rows[:3]] == ["60"] * 3, "public numbers of records"
    assert all(row[3] is None and row[4] is None for row in rows), "organisations and contacts"
    assert table(make_annex(trained, "agreement"), "Parties").rows[0][2] == "72"
    dpia = make_annex(private, "dpia")
    for one in asked(dpia):
        alone = replace(dpia, banners=(), sections=(Section("", (one,)),))
        assert to_markdown(alone).count(f"**{TO_FILL}**") == 2 * len(one.questions), "answer and evidence of each"


def test_a_holder_that_dropped_out_is_a_party_of_the_annex(folder: Path) -> None:
    answer = stored(folder, "private")
    answer["spending"] = answer["spending"][:2]
    roles = {row[0]: row[1] for row in table(make_annex(facts_of(read_answer(answer)), "dpia"), "Parties").rows}
    assert roles["west"] == "data holder; dropped out before the end"
    assert roles["north"] == "data holder"


def test_a_technique_without_a_card_says_so(private: Facts) -> None:
    bare = replace(private, technique=replace(private.technique, card=Card()))
    assert NO_CARD in to_markdown(make_annex(bare, "dpia"))
    assert NO_CARD in Page(to_html(make_annex(bare, "dpia"))).text


# ---- texts of others stay texts


def hostile(private: Facts) -> Facts:
    return replace(
        private,
        title=HOSTILE,
        origin=HOSTILE,
        notes=(HOSTILE,),
        filters=(HOSTILE,),
        holders=tuple(replace(party, name=f"{HOSTILE} {party.name}") for party in private.holders),
        variables=tuple(replace(one, name=HOSTILE, kind=HOSTILE, label=HOSTILE) for one in private.variables),
        learns=tuple(replace(row, role=HOSTILE, learns=HOSTILE) for row in private.learns),
        digests={HOSTILE: HOSTILE},
        cast={HOSTILE: HOSTILE},
    )


@pytest.mark.parametrize("kind", TITLES)
def test_hostile_names_stay_text_in_html(private: Facts, kind: Any) -> None:
    page, honest = Page(to_html(make_annex(hostile(private), kind))), Page(to_html(make_annex(private, kind)))
    assert {tag for tag, _ in page.tags} == {tag for tag, _ in honest.tags}
    assert "script" not in {tag for tag, _ in page.tags}
    assert not [a for _, attributes in page.tags for a in attributes if a.startswith("on")]
    assert HOSTILE in page.text
    assert not [v for _, a in page.tags for k, v in a.items() if k in ("src", "href") and not str(v).startswith("#")]


@pytest.mark.parametrize("kind", TITLES)
def test_hostile_names_stay_text_in_markdown(private: Facts, kind: Any) -> None:
    render = MarkdownIt("commonmark", {"html": True}).enable("table").render
    page, honest = (Page(render(to_markdown(make_annex(facts, kind)))) for facts in (hostile(private), private))
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in honest.tags}
    assert HOSTILE in page.text
    twin = Page(to_html(make_annex(hostile(private), kind)))
    assert page.text.count(HOSTILE) == twin.text.count(HOSTILE) > 10, "nothing is cut off or split"


# ---- the command


@pytest.fixture
def runs(folder: Path, tmp_path: Path) -> Path:
    """A copy of the runs that a test may change."""
    copy = tmp_path / "runs"
    for name in ("private", "training"):
        shutil.copytree(folder / name, copy, dirs_exist_ok=True)
    return copy


@pytest.mark.parametrize("beginning", ["table", "time-use"])
def test_the_command_writes_both_annexes_of_either_kind_of_run(runs: Path, tmp_path: Path, beginning: str) -> None:
    (run,) = (path.name for path in runs.iterdir() if beginning in path.name)
    made = invoke("annex", run, "--runs", str(runs), "--out", str(tmp_path / "out"), "--format", "md", "--json")
    assert made.exit_code == 0, made.output
    written = json.loads(made.stdout)
    assert written["run"] == run
    assert [one["kind"] for one in written["annexes"]] == ["dpia", "agreement"]
    for one in written["annexes"]:
        assert Path(one["file"]).read_text(encoding="utf-8").startswith(f"# {TITLES[one['kind']]}")


def test_the_command_writes_into_the_run_unless_told_otherwise(runs: Path) -> None:
    made = invoke("annex", "last", "--runs", str(runs), "--kind", "dpia")
    (line,) = made.stdout.split()
    assert Path(line).parent.parent == runs
    assert Path(line).read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


@pytest.mark.parametrize("state", ["running", "failed", "interrupted", "dry-run"])
def test_a_run_that_is_not_finished_has_no_annex(runs: Path, tmp_path: Path, state: str) -> None:
    (path,) = runs.glob("*time-use*/status.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"state": state}))
    made = invoke("annex", path.parent.name, "--runs", str(runs), "--out", str(tmp_path / "out"))
    assert made.exit_code == 2
    told = "interrupted" if state == "running" else state  # nobody holds its lock
    assert f"got one that is {told}; want a finished one" in " ".join(made.stderr.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("beginning", ["table", "time-use"])
def test_a_damaged_result_has_no_annex(runs: Path, beginning: str) -> None:
    (path,) = runs.glob(f"*{beginning}*/result.json")
    whole = path.read_text()
    for damaged in (whole[: len(whole) // 2], "[]", "{}"):
        path.write_text(damaged)
        made = invoke("annex", path.parent.name, "--runs", str(runs))
        assert made.exit_code == 2, made.output
        assert "result.json" in made.stderr
        assert path.parent.name in made.stderr


@pytest.mark.parametrize("name", ["private", "training"])
def test_a_study_that_is_not_what_the_holders_saw_is_refused(folder: Path, name: str) -> None:
    answer = stored(folder, name)
    answer["terms"]["privacy"]["epsilon"] = 0.5
    with pytest.raises(UsageError, match="whose digest is another than the one holders saw"):
        read_answer(answer)


def test_the_documented_keys_are_those_of_the_document(runs: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "json.md").read_text(encoding="utf-8")
    (line,) = (line for line in page.splitlines() if line.startswith("| `annex RUN`"))
    (keys,) = re.findall(r"\[\{(.*?)\}\]", line)
    (one, _) = json.loads(invoke("annex", "last", "--runs", str(runs), "--json").stdout)["annexes"]
    assert set(keys.split(", ")) == set(one)
