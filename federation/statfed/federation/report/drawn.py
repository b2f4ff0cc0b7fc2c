"""The run report: a `Answer` as one self-contained HTML file, without scripts, fonts or anything else to load.

    render(result)  the page as text
    write(result, path)

The page carries a content security policy that forbids scripts and every request. All texts of the result are
escaped: holder names, titles and warnings come from other organisations.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jinja2 import Template
from markupsafe import Markup

from statfed.core import toml
from statfed.federation.answers import Answer
from statfed.federation.report import charts, formats, pages
from statfed.federation.trained import Round, Spending
from statfed.federation.trained_report.facts import Facts, remaining

MOST_HOLDERS = 24  # in the budget chart; the table has them all


def render(result: Answer) -> str:
    """The report of `result` as one HTML page. Raises ValueError if it holds no federated model."""
    facts = Facts(result)
    source = toml.dumps(result.study).rstrip()
    return _template().render(r=result, facts=facts, svg=_charts(facts), source=source, most=MOST_HOLDERS)


def write(result: Answer, path: Path) -> None:
    """Write the report of `result` to `path`, UTF-8."""
    path.write_text(render(result), encoding="utf-8")


@cache
def _template() -> Template:
    environment = pages("statfed.federation.trained_report")
    environment.globals["remaining"] = remaining
    return environment.get_template("report.html.j2")


def _charts(facts: Facts) -> dict[str, Markup]:
    """The charts that the result has figures for, by name."""
    result, made = facts.result, {}
    if result.rounds:
        made["accuracy"] = charts.curve(
            "accuracy",
            f"Accuracy by {facts.round_}, per cent",
            [(r.round, r.accuracy) for r in result.rounds if r.accuracy is not None],
            _references(facts, "accuracy"),
        )
        made["macro_f1"] = charts.curve(
            "macro-f1",
            f"Macro-F1 by {facts.round_}, per cent",
            [(r.round, r.macro_f1) for r in result.rounds if r.macro_f1 is not None],
            _references(facts, "macro_f1"),
        )
    made["comparison"] = _comparison(facts)
    made["confusion"] = charts.matrix(
        "confusion",
        "Confusion matrix of the federated model",
        result.classes,
        facts.federated.scores.confusion,
    )
    if shown := tightest(result.spending):
        made["budget"] = charts.rows(
            "budget",
            "Epsilon spent and lifetime budget, by holder",
            "; ".join(f"{row.label}: {row.figure}" for row in shown) + ".",
            shown,
            formats.epsilon,
        )
    if result.phases:
        made["phases"] = charts.stack(
            "phases",
            "Time by phase",
            [charts.Part(p.name, p.seconds, f"p{i % 8}") for i, p in enumerate(result.phases)],
            formats.seconds,
        )
    if trained := [r for r in result.rounds if r.round > 0]:
        made |= _traffic(trained, facts.round_)
    return made


def _references(facts: Facts, measure: str) -> list[charts.Reference]:
    found = []
    if facts.pooled:
        found.append(charts.Reference("Pooled", getattr(facts.pooled.scores, measure), "c-pooled"))
    if facts.local:
        mean, span = getattr(facts.local, measure), getattr(facts.local, f"{measure}_span")
        found += [charts.Reference("Local best", span[1], "c-best")] if span else []
        found.append(charts.Reference("Local mean" if span else "Local-only", mean, "c-mean"))
    return found


def _comparison(facts: Facts) -> Markup:
    rows = []
    for line in facts.lines:
        accuracy, f1 = formats.percent(line.accuracy), formats.percent(line.macro_f1)
        bars = (
            charts.Bar(line.accuracy, line.css, f"accuracy {accuracy}", *(line.accuracy_span or (None, None))),
            charts.Bar(line.macro_f1, f"{line.css} second", f"macro-F1 {f1}", *(line.macro_f1_span or (None, None))),
        )
        rows.append(charts.Row(line.title, f"{accuracy} · F1 {f1}", bars))
    mark = charts.Reference("Pooled", facts.pooled.scores.accuracy, "c-pooled") if facts.pooled else None
    desc = "; ".join(f"{row.label}: accuracy {row.figure}" for row in rows) + "."
    return charts.rows("comparison", "Accuracy and macro-F1 of each way", desc, rows, formats.percent, mark, top=1.0)


def tightest(spending: Sequence[Spending]) -> list[charts.Row]:
    """Budget bars of the holders with the least left, at most `MOST_HOLDERS`, in the result's order."""
    having = [s for s in spending if s.budget_epsilon is not None and s.filter_epsilon is not None]
    nearest = {s.holder for s in sorted(having, key=lambda s: remaining(s) or 0.0)[:MOST_HOLDERS]}
    return [
        charts.Row(
            s.holder,
            f"{formats.epsilon(s.filter_epsilon)} of {formats.allowance(s.budget_epsilon)} used",
            tuple(
                charts.Bar(value, css, f"{label}: epsilon {formats.epsilon(value)}")
                for label, css, value in (
                    ("this study", "b-study", s.study_epsilon),
                    ("all history", "b-history", s.history_epsilon),
                    ("lifetime filter", "b-filter", s.filter_epsilon),
                )
                if value is not None
            ),
            s.budget_epsilon,
        )
        for s in having
        if s.holder in nearest
    ]


def _traffic(trained: Sequence[Round], round_: str) -> dict[str, Markup]:
    rounds = [r.round for r in trained]
    down = ("to holders", "b-study", [float(r.bytes_down) for r in trained])
    up = ("from holders", "b-filter", [float(r.bytes_up) for r in trained])
    taken = ("time", "c-mean", [r.seconds for r in trained])
    return {
        "bytes": charts.columns("bytes", f"Bytes by {round_}", rounds, [down, up], formats.size),
        "seconds": charts.columns("seconds", f"Seconds by {round_}", rounds, [taken], formats.seconds),
    }
