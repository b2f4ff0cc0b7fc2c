"""The run report: what it says equals the result, it loads nothing, and hostile names stay text."""

import json
import math
import re
import tomllib
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from statfed.core.protection import Disclosure
from statfed.core.result import Result
from statfed.core.study import make_study
from statfed.federation import Answer, Federation
from statfed.federation.answers import read_answer
from statfed.federation.export import write_html
from statfed.federation.population import described
from statfed.federation.report import charts, drawn, formats, render
from statfed.federation.report.compared import Compared
from statfed.federation.report.facts import Facts
from statfed.federation.schema import answer_schema
from statfed.federation.trained import Candidate, ClassScore, Phase, Round, Scores, Spending, Trained
from statfed.scenarios import time_use
from statfed.server.driver import Sum
from tests.federate import split
from tests.universe import CODEBOOK, people

CLASSES = ["vertical line", "horizontal line", "vertical sine", "horizontal sine", "clapping", "walking", "reading"]
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> & {{ 7 * 7 }}"
VOID = {"meta", "link", "br", "hr", "img", "input", "col"}


def scores(right: float, classes: list[str], records: int = 60) -> Scores:
    """Scores from a confusion matrix whose classes are right about `right` of the time, spilling to neighbours."""
    n = len(classes)
    confusion = [[0] * n for _ in classes]
    for i in range(n):
        total = records + 7 * i
        hit = round(total * min(1.0, right + 0.03 * ((i % 3) - 1)))
        confusion[i][i] = hit
        confusion[i][(i + 1) % n] += (total - hit) * 2 // 3
        confusion[i][(i + 2) % n] += total - hit - (total - hit) * 2 // 3
    rows = []
    for i, name in enumerate(classes):
        taken, support, hit = sum(line[i] for line in confusion), sum(confusion[i]), confusion[i][i]
        precision, recall = hit / taken if taken else 0.0, hit / support
        rows.append(
            ClassScore(
                name=name,
                precision=precision,
                recall=recall,
                f1=2 * precision * recall / (precision + recall) if hit else 0.0,
                support=support,
            )
        )
    return Scores(
        accuracy=sum(confusion[i][i] for i in range(n)) / sum(map(sum, confusion)),
        macro_f1=math.fsum(c.f1 for c in rows) / n,
        classes=rows,
        confusion=confusion,
    )


def spending(holder: str, i: int, private: bool) -> Spending:
    return Spending(
        holder=holder,
        records=1_000 + 137 * i,
        persons=30 + i,
        units=30 + i,
        unit="person" if private else None,
        delta=1e-5 if private else None,
        lifetime_delta=1e-6 if private else None,
        noise_multiplier=1.37 + 0.011 * i if private else None,
        sampling_rate=64 / (1_000 + 137 * i),
        steps=160 + 10 * i,
        study_epsilon=3.96 + 0.004 * i if private else None,
        history_epsilon=5.12 + 0.9 * i if private else None,
        filter_epsilon=6.81 + 1.3 * i if private else None,
        share=0.0237 * (i + 1) if private else None,
        budget_epsilon=20.0 if private else None,
        more=7 + i if private else None,
        noise_to_signal=0.21 + 0.01 * i if private else None,
        disclosures=i % 3 if private else 1 + i % 3,
        ledger_head=f"{i:02d}" + "ab12cd34" * 7 + "f00dfa",
    )


def make(
    holders: int = 4, private: bool = True, rounds: int = 15, name: str = "office", classes: list[str] = CLASSES
) -> Answer:
    """An answer as a run of the time-use scenario gives it; `name` is put into every text that others may choose."""
    ids = [f"{name}-{i + 1}" for i in range(holders)]
    candidates = [
        Candidate(id="federated", title=f"Federated, {name}", kind="federated", scores=scores(0.85, classes)),
        Candidate(
            id="pooled",
            title="Pooled, tuned",
            kind="pooled",
            scores=scores(0.91, classes),
            note="best of 12 settings on validation persons",
        ),
        *(
            Candidate(id=f"local/{h}", title=h, kind="local", scores=scores(0.62 + 0.22 * i / holders, classes))
            for i, h in enumerate(ids)
        ),
        *(
            Candidate(id=f"local-dp/{h}", title=h, kind="local-dp", scores=scores(0.4 + 0.1 * i / holders, classes))
            for i, h in enumerate(ids)
            if private
        ),
        Candidate(
            id="majority", title="Most frequent class", kind="majority", scores=scores(0.15, classes), note="no model"
        ),
    ]
    end = candidates[0].scores
    form = time_use.CODEBOOK
    table = described(form.model_copy(update={"classes": tuple(dict.fromkeys(classes))}), name)
    study = make_study(
        {
            "scenario": "time-use",
            "method": "local-sgd",
            "holders": [f"office-{i + 1}" for i in range(holders)],
            "seed": 1,
            "title": name,
            "privacy": {"unit": "person", "epsilon": 4.0} if private else None,
            "options": {
                "rounds": rounds,
                "clipping_norm": 1.5,
                "features": list(table.features),
                "target": table.target,
            },
        }
    )
    spent = tuple(spending(h, i, private) for i, h in enumerate(ids))
    passed = [
        Round(
            round=n,
            accuracy=end.accuracy - (end.accuracy - 0.14) * math.exp(-n / 3.0) * (n < rounds),
            macro_f1=end.macro_f1 - (end.macro_f1 - 0.05) * math.exp(-n / 3.2) * (n < rounds),
            seconds=2.1 + 0.4 * math.sin(n) if n else 0.0,
            bytes_down=holders * 34_567 if n else 0,
            bytes_up=holders * 35_001 if n else 0,
            holder_seconds={h: 1.0 + 0.1 * i for i, h in enumerate(ids)} if n else {},
        )
        for n in range(rounds + 1)
    ]
    return Answer(
        run="20261122-081500-time-use-7f3a",
        created="2026-11-22T08:15:00Z",
        title=f"Time use from smart watches, {name}",
        study=study.model_dump(mode="json"),
        terms=study.terms(table.codebook),
        result=Result("local-sgd", "Model mlp for class", {"model": [{"parameters": 9, "rounds": rounds}]}),
        engine="processes",
        drafted=False,
        sums=tuple(
            Sum("fit", one.seconds, one.bytes_down, one.bytes_up, dict(one.holder_seconds), {}) for one in passed[1:]
        ),
        spending=spent,
        learns=(
            Disclosure(
                "Coordinator (computing party)",
                f"The sum of the updates of {name}, public sizes, timing, failure messages",
                "Secure aggregation; Gaussian noise at every holder",
            ),
            Disclosure("Holder", "The global model of every round", "Differential privacy"),
            Disclosure("Result party", "The final model, this report", "Differential privacy"),
        ),
        seconds=54.8,
        origin=f"seeded generator of the seglearn watch schema, seed 1, {name}.",
        synthetic=True,
        warnings=(f"Class clapping has few records at {name}-1.",),
        phases=(
            Phase(name="data", seconds=1.913),
            Phase(name="start of processes", seconds=8.41),
            Phase(name="admission", seconds=0.72),
            Phase(name="training", seconds=31.5),
            Phase(name="baselines", seconds=12.25),
            Phase(name="report", seconds=0.04),
        ),
        memory_mib={"coordinator": 412.4, **{h: 505.2 + i for i, h in enumerate(ids)}},
        versions={"statfed": "0.1.0", "python": "3.11.2", "torch": "2.13.0", "flwr": "1.41.0", "opacus": "1.6.0"},
        training=Trained(
            classes=classes,
            test_records=sum(c.support for c in end.classes),
            test_persons=12,
            candidates=candidates,
            rounds=passed,
            model_digest="c0ffee" * 10 + "beef",
        ),
    )


def changed(answer: Answer, **training: Any) -> Answer:
    """The answer with other fields of what its training has."""
    return replace(answer, training=answer.trained.model_copy(update=training))


class Page(HTMLParser):
    """Parses a page, insists that every tag is closed in order, and keeps tables, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.texts: list[str] = []
        self._rows: list[list[str]] = []
        self._caption = ""
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self._rows, self._caption = [], ""
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> out of order at {self.getpos()}"
        if tag == "table":
            self.tables[self._caption.strip()] = self._rows

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)
        if "caption" in self.open:
            self._caption += data
        elif self.open and ("td" in self.open or "th" in self.open):
            self._rows[-1][-1] += data

    def table(self, start: str) -> list[list[str]]:
        (found,) = [rows for caption, rows in self.tables.items() if caption.startswith(start)]
        return found


CASES = {
    "private": make(),
    "without privacy": make(private=False),
    "one holder": make(holders=1),
    "eight holders": make(holders=8),
    "many holders and rounds": make(holders=60, rounds=130),
    "long names": make(name="national-statistical-institute-of-somewhere-very-far-away-indeed"),
    "hostile": make(name=HOSTILE, classes=[*CLASSES[:6], HOSTILE]),
    "two classes": make(classes=["yes", "no"]),
}


@pytest.fixture(params=list(CASES.values()), ids=list(CASES))
def result(request: pytest.FixtureRequest) -> Answer:
    found = request.param
    assert isinstance(found, Answer)
    return found


def test_fixture_is_an_answer_by_its_json_schema_and_is_read_back(result: Answer) -> None:
    schema = answer_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    document = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    jsonschema.validate(document, schema)
    assert read_answer(document).to_dict() == result.to_dict()


def test_every_tag_is_closed_and_ids_are_unique_and_references_meet_one(result: Answer) -> None:
    page = Page(render(result))
    ids = [a["id"] for _, a in page.seen if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attrs in page.seen:
        for name in (attrs.get("aria-labelledby") or "").split():
            assert name in ids
        if (attrs.get("href") or "").startswith("#"):
            assert (attrs["href"] or "")[1:] in ids


def test_page_loads_nothing_and_forbids_scripts(result: Answer) -> None:
    text = render(result)
    page = Page(text)
    for tag, attrs in page.seen:
        assert tag not in {"script", "link", "img", "iframe", "object", "embed", "base", "form", "image", "use"}
        for name, value in attrs.items():
            assert not name.startswith("on"), (tag, name)
            assert name != "style"
            assert name not in {"src", "srcset", "data", "xlink:href"}
            if name == "href":
                assert value is not None
                assert value.startswith("#")
            elif name != "xmlns":
                assert "http://" not in (value or "")
                assert "https://" not in (value or "")
    css = text.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in css
    assert "@import" not in css
    (policy,) = [a["content"] for t, a in page.seen if t == "meta" and a.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'")
    assert "script" not in policy


def test_every_chart_has_title_description_and_role(result: Answer) -> None:
    text = render(result)
    shown = re.findall(r'<svg class="chart"[^>]*>.{0,60}', text)
    assert len(shown) == len(drawn.of_compared(Compared(result)) | drawn.of_any(Facts(result))) >= 6
    for start in shown:
        assert 'role="img"' in start
        assert "<title id=" in start
    assert text.count("<desc id=") == len(shown)


def test_tables_have_captions_and_scopes_and_even_rows(result: Answer) -> None:
    page = Page(render(result))
    assert len(page.tables) == sum(tag == "table" for tag, _ in page.seen)
    assert all(page.tables)
    assert all("scope" in attrs for tag, attrs in page.seen if tag == "th")
    for caption, rows in page.tables.items():
        assert len({len(row) for row in rows[2:]}) <= 1, caption


def test_hostile_names_stay_text() -> None:
    text = render(CASES["hostile"])
    assert "<script" not in text
    assert "<img" not in text
    assert HOSTILE in "".join(Page(text).texts)


def test_comparison_shows_the_results_figures(result: Answer) -> None:
    page, facts = Page(render(result)), Compared(result)
    table = page.table("Comparison of models")[1:]
    pooled = facts.pooled
    assert pooled is not None
    assert table[0] == [
        facts.federated.title,
        formats.percent(facts.federated.scores.accuracy),
        formats.points(facts.federated.scores.accuracy - pooled.scores.accuracy),
        formats.percent(facts.federated.scores.macro_f1),
        formats.points(facts.federated.scores.macro_f1 - pooled.scores.macro_f1),
        "",
    ]
    assert table[1][2] == table[1][4] == "0.0"
    (local,) = [row for row in table if row[0].startswith("Local-only") and "DP" not in row[0]]
    members = [c.scores.accuracy for c in result.candidates if c.kind == "local"]
    assert local[1].startswith(formats.percent(sum(members) / len(members)))
    if len(members) > 1:
        assert local[1].endswith(f"{formats.percent(min(members))} to {formats.percent(max(members))}")
        each = page.table("Local-only models. ")[1:]
        assert [row[:2] for row in each] == [
            [c.title, formats.percent(c.scores.accuracy)] for c in result.candidates if c.kind == "local"
        ]


def test_class_table_and_matrix_show_the_results_figures(result: Answer) -> None:
    page, facts = Page(render(result)), Compared(result)
    assert facts.pooled is not None
    for row, own, other in zip(
        page.table("Scores by class")[2:], facts.federated.scores.classes, facts.pooled.scores.classes, strict=True
    ):
        figures = [own.precision, own.recall, own.f1, other.precision, other.recall, other.f1]
        assert row == [
            own.name,
            formats.count(own.support),
            *map(formats.percent, figures),
            formats.points(own.f1 - other.f1),
        ]
    counts = page.table("Records of a true class")[1:]
    assert [[int(n.replace(",", "")) for n in row[1:]] for row in counts] == facts.federated.scores.confusion


def test_privacy_table_shows_the_results_figures(result: Answer) -> None:
    page = Page(render(result))
    heads = [a["title"] for t, a in page.seen if t == "code" and "title" in a]
    assert heads == [s.ledger_head for s in result.spending]
    for row, s in zip(page.table("Privacy by holder")[2:], result.spending, strict=True):
        assert row == [
            s.holder,
            s.unit or "–",
            formats.count(s.records),
            formats.count(s.units),
            formats.number(s.sampling_rate, 4),
            formats.number(s.noise_multiplier, 3),
            formats.count(s.steps),
            formats.number(s.noise_to_signal, 2),
            formats.epsilon(s.study_epsilon),
            formats.delta(s.delta),
            formats.epsilon(s.history_epsilon),
            formats.share(s.share),
            formats.allowance(s.budget_epsilon),
            formats.count(s.more),
            formats.delta(s.lifetime_delta),
            formats.count(s.disclosures),
            s.ledger_head[:11] + "…",
        ]


def test_rounds_phases_memory_roles_and_versions_show_the_results_figures(result: Answer) -> None:
    page = Page(render(result))
    for row, r in zip(page.table("Rounds")[1:], result.rounds, strict=True):
        assert row == [
            str(r.round),
            formats.percent(r.accuracy),
            formats.percent(r.macro_f1),
            formats.seconds(r.seconds),
            formats.seconds(max(r.holder_seconds.values(), default=None)),
            formats.size(r.bytes_down),
            formats.size(r.bytes_up),
        ]
    assert [row[:2] for row in page.table("Phases")[1:]] == [
        [p.name, formats.seconds(p.seconds)] for p in result.phases
    ]
    assert page.table("Peak")[1:] == [[k, formats.count(v)] for k, v in result.memory_mib.items()]
    assert page.table("What each role")[1:] == [[d.role, d.learns, d.protected_by] for d in result.learns]
    assert page.table("Versions")[1:] == [[k, v] for k, v in result.versions.items()]


def test_verdict_names_figures_unit_rounds_and_origin() -> None:
    private, plain = CASES["private"], CASES["without privacy"]
    text = Compared(private).verdict
    worst = max(s.study_epsilon or 0 for s in private.spending)
    assert f"at most epsilon {formats.epsilon(worst)} per person (delta 10⁻⁵)" in text
    assert "4 holders in 15 rounds" in text
    assert formats.percent(private.candidates[0].scores.accuracy) in text
    assert formats.percent(private.candidates[1].scores.accuracy) in text
    assert private.origin in text
    assert "without differential privacy" in Compared(plain).verdict
    assert "1 holder in" in Compared(CASES["one holder"]).verdict


def test_steps_protection_and_shared_noise_are_named() -> None:
    base = CASES["private"]
    study = make_study(
        base.study,
        [
            "method=dp-fedsgd",
            "protection.name=secure-aggregation",
            "protection.minimum_holders=3",
            "protection.options={sums=8}",
            "privacy.noise=shared",
            "privacy.colluders=1",
        ],
    )
    made = replace(base, study=study.model_dump(mode="json"), terms=study.terms(base.terms.codebook))
    text, page = Compared(made).verdict, render(made)
    assert "in 15 steps under protection secure-aggregation" in text
    assert "by noise that the holders share, against whoever knows the noise of at most 1 holder" in text
    assert "secure-aggregation; at least 3 holders in a sum; sums 8" in page
    assert "Accuracy by step (%)" in page
    assert " by round" not in page


def test_one_holder_without_epsilon_makes_the_run_not_private() -> None:
    mixed = make()
    part = mixed.spending[2].model_copy(update={"study_epsilon": None})
    mixed = replace(mixed, spending=(*mixed.spending[:2], part, mixed.spending[3]))
    assert not Facts(mixed).private
    assert "Trained without noise" in render(mixed)


def test_banners_and_statement_appear_only_where_true() -> None:
    text = render(CASES["private"])
    assert "Synthetic data" in text
    assert "do not publish as a DP release" in text
    assert "A model trained without noise is a disclosure" not in text
    assert "A model trained without noise is a disclosure" in render(CASES["without privacy"])
    pilot = replace(CASES["private"], synthetic=False, simulated=False, origin="own data")
    text = render(pilot)
    assert "Synthetic data" not in text
    assert "public seed" not in text
    assert "drew their noise in secret" in text


def test_pilot_without_baselines_is_reported() -> None:
    bare = CASES["private"]
    bare = replace(changed(bare, candidates=bare.candidates[:1], rounds=[]), memory_mib={}, phases=())
    page = Page(render(bare))
    assert page.table("Comparison of models")[1][2] == "–"
    assert not [a for _, a in page.seen if a.get("href") == "#curves"]


def test_result_without_federated_model_is_refused() -> None:
    bare = CASES["private"]
    with pytest.raises(ValueError, match="got local, local-dp, majority, pooled; want one of kind federated"):
        render(changed(bare, candidates=bare.candidates[1:]))


def test_infinite_epsilon_is_shown_as_such() -> None:
    run = CASES["one holder"]
    unbounded = run.spending[0].model_copy(update={"study_epsilon": math.inf, "history_epsilon": math.inf})
    text = render(replace(run, spending=(unbounded,)))
    assert "epsilon ∞ per person" in text
    assert "unbounded" in text


def test_noise_above_signal_and_overdrawn_budget_are_warned_of() -> None:
    run = CASES["one holder"]
    bad = run.spending[0].model_copy(update={"noise_to_signal": 1.2, "share": 1.05})
    said = " ".join(Facts(replace(run, spending=(bad,))).warnings)
    assert "noise exceeds" in said
    assert "overdrawn at office-1" in said
    assert "overdrawn" not in " ".join(Facts(run).warnings)


def test_study_shown_is_toml_that_gives_the_same_study(result: Answer) -> None:
    shown = Facts(result).source
    assert shown in "".join(Page(render(result)).texts)
    assert make_study(tomllib.loads(shown)).model_dump(mode="json") == result.study


def test_curve_has_a_point_and_a_marker_for_every_round() -> None:
    series = [(n, n / 20) for n in range(16)]
    svg = charts.curve("k", "t", series, [charts.Reference("Pooled", 0.9, "c-pooled")])
    (points,) = re.findall(r'<polyline class="line c-federated" points="([^"]*)"', svg)
    assert len(points.split()) == svg.count("<circle") == 16
    heights = [float(p.split(",")[1]) for p in points.split()]
    assert heights == sorted(heights, reverse=True)
    long = charts.curve("k", "t", [(n, 0.5) for n in range(500)], [])
    assert long.count("<circle") == 1


def test_matrix_columns_and_stack_have_a_mark_for_every_figure() -> None:
    cells = charts.matrix("k", "t", ["a", "b", "c"], [[1, 2, 0], [0, 0, 0], [3, 0, 9]])
    assert cells.count('<g class="cell">') == 9
    assert "c taken for a: 3 of 12, 25.0\u00a0%" in cells
    two = [("down", "b-study", [1.0] * 10), ("up", "b-filter", [2.0] * 10)]
    assert charts.columns("k", "t", range(1, 11), two, formats.size).count('class="bar') == 20
    many = charts.columns("k", "t", range(1, 131), [("time", "c-mean", [1.0] * 130)], formats.seconds)
    assert many.count('class="bar') == 44
    parts = [charts.Part(f"p{i}", 1.0, "p0") for i in range(4)]
    assert re.findall(r'width="(25\.000)%"', charts.stack("k", "t", parts, formats.seconds)) == ["25.000"] * 4


def test_budget_chart_keeps_the_holders_with_least_left() -> None:
    shown = drawn.tightest(CASES["many holders and rounds"].spending)
    assert [row.label for row in shown] == [f"office-{i}" for i in range(37, 61)]


def test_labels_are_kept_apart_and_inside() -> None:
    places = charts.spread([50.0, 51.0, 50.5, 210.0, 211.0], 16, 14, 212)
    ordered = sorted(places)
    assert all(b - a >= 16 for a, b in pairwise(ordered))
    assert ordered[0] >= 14
    assert ordered[-1] <= 212


def test_write_gives_the_rendered_page(tmp_path: Path) -> None:
    write_html(CASES["private"], tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render(CASES["private"])


# ---- the same page of answers that compare no models


@pytest.fixture(scope="module")
def asked() -> dict[str, Answer]:
    """Answers about tables: exact, private and under rules, and a training on them."""
    frames = {f"office-{i}": frame for i, frame in enumerate(split(people(300, 1), 2, seed=4))}
    found = {}
    with Federation(frames, CODEBOOK, seed=1, disclosure="standard") as federation:
        for name, ask in {
            "exact": {"analysis": "mean", "columns": ["income"], "by": ["sex"]},
            "private": {"analysis": "count", "by": ["sex"], "privacy": {"epsilon": 1.0}},
            "trained": {
                "analysis": "local-sgd",
                "target": "sex",
                "features": ["age", "hours", "income"],
                "rounds": 2,
                "holdout": 0.3,
                "model": {"hidden": 4},
            },
        }.items():
            federation.ask(**ask)  # type: ignore[arg-type]  # options of any method
            assert federation.last is not None
            found[name] = federation.last
    return found


@pytest.mark.parametrize("name", ["exact", "private", "trained"])
def test_answers_about_tables_get_the_parts_of_every_report(asked: dict[str, Answer], name: str) -> None:
    answer = asked[name]
    page = Page(render(answer))
    ids = [a["id"] for _, a in page.seen if "id" in a]
    assert len(ids) == len(set(ids))
    assert {"figures", "result", "disclosure", "privacy", "learns", "cost", "reproduce"} <= set(ids)
    rows = page.table("Privacy by holder")[2:]
    assert [row[0] for row in rows] == [s.holder for s in answer.spending]
    assert {len(row) for row in rows} == {17 if name == "trained" else 13}  # without steps no columns of them
    assert [row[-3] for row in rows] == [formats.delta(s.lifetime_delta) for s in answer.spending]
    assert page.table("What each role")[1:] == [[d.role, d.learns, d.protected_by] for d in answer.learns]
    assert page.table("Versions")[1:] == [[k, v] for k, v in answer.versions.items()]
    text = "".join(page.texts)
    assert answer.study_digest in text
    assert "Simulated parties" in text
    assert Facts(answer).verdict in text


def test_thresholds_of_release_rules_are_not_in_the_page(asked: dict[str, Answer]) -> None:
    text = render(asked["exact"])
    assert "Rules that ran on this release: " in text
    assert "[disclosure]" not in text
    assert "their thresholds are not shown" in text


def test_a_private_answer_says_what_it_cost_and_an_exact_one_that_it_is_none(asked: dict[str, Answer]) -> None:
    private, exact = render(asked["private"]), render(asked["exact"])
    assert "do not publish as a DP release" in private
    assert f"epsilon {formats.epsilon(asked['private'].spending[0].study_epsilon)} per record" in private
    assert "gradients clipped" not in private
    assert "No noise was added" in exact
    assert "Trained without noise" not in exact


def test_a_training_on_tables_shows_scores_classes_and_the_confusion_matrix(asked: dict[str, Answer]) -> None:
    answer = asked["trained"]
    page = Page(render(answer))
    scored = answer.result.tables["scores"]
    assert [row[0] for row in page.table("Scores")[1:]] == [row["name"] for row in scored]
    assert [row[0] for row in page.table("Classes")[1:]] == ["f", "m"]
    text = "".join(page.texts)
    assert "Confusion matrix of the model" in text
    assert "Estimates with 95 % intervals" in text
    assert "Trained without noise" in text
    assert answer.model_digest in text
    (low, high) = answer.result.conf_int().iloc[0][["lower", "upper"]]
    assert low < scored[0]["accuracy"] < high
