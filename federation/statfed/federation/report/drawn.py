"""Charts of an answer: what it cost in every report, and of compared models how well they do."""

from collections.abc import Sequence

from markupsafe import Markup

from statfed.federation.answers import Answer
from statfed.federation.report import charts, formats
from statfed.federation.report.compared import Compared
from statfed.federation.report.facts import Facts
from statfed.federation.trained import Round, Spending

MOST_HOLDERS = 24  # in the budget chart; the table has them all


def of_any(facts: Facts) -> dict[str, Markup]:
    """Budgets, phases and traffic, by name, as far as there are figures."""
    answer, made = facts.answer, {}
    if shown := tightest(answer.spending) if facts.private else []:
        made["budget"] = charts.rows(
            "budget",
            "Taken of the lifetime budget, by holder",
            "; ".join(f"{row.label}: {row.figure}" for row in shown) + ".",
            shown,
            formats.share,
        )
    if answer.phases:
        made["phases"] = charts.stack(
            "phases",
            "Time by phase",
            [charts.Part(p.name, p.seconds, f"p{i % 8}") for i, p in enumerate(answer.phases)],
            formats.seconds,
        )
    if rounds := _rounds(answer):
        made |= _traffic(rounds, facts.round_)
    return made


def of_compared(facts: Compared) -> dict[str, Markup]:
    """Learning curves, comparison and confusion."""
    trained, made = facts.trained, {}
    for key, name, measure in (("accuracy", "Accuracy", "accuracy"), ("macro-f1", "Macro-F1", "macro_f1")):
        series = [(r.round, value) for r in trained.rounds if (value := getattr(r, measure)) is not None]
        if series:
            title = f"{name} by {facts.round_}, per cent"
            made[measure] = charts.curve(key, title, series, _references(facts, measure))
    made["comparison"] = _comparison(facts)
    made["confusion"] = charts.matrix(
        "confusion", "Confusion matrix of the federated model", trained.classes, facts.federated.scores.confusion
    )
    return made


def tightest(spending: Sequence[Spending]) -> list[charts.Row]:
    """Budget bars of the holders with the least left, at most `MOST_HOLDERS`, in the result's order."""
    having = {s.holder: s.share for s in spending if s.share is not None}
    nearest = sorted(having, key=lambda name: -having[name])[:MOST_HOLDERS]
    return [
        charts.Row(
            s.holder,
            f"{formats.share(s.share)} of epsilon {formats.allowance(s.budget_epsilon)} used",
            (charts.Bar(s.share, "b-filter", f"total so far: {formats.share(s.share)} of the lifetime budget"),),
            1.0,
        )
        for s in spending
        if s.share is not None and s.holder in nearest
    ]


def _references(facts: Compared, measure: str) -> list[charts.Reference]:
    found = []
    if facts.pooled:
        found.append(charts.Reference("Pooled", getattr(facts.pooled.scores, measure), "c-pooled"))
    if facts.local:
        mean, span = getattr(facts.local, measure), getattr(facts.local, f"{measure}_span")
        found += [charts.Reference("Local best", span[1], "c-best")] if span else []
        found.append(charts.Reference("Local mean" if span else "Local-only", mean, "c-mean"))
    return found


def _comparison(facts: Compared) -> Markup:
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


def _rounds(answer: Answer) -> list[Round]:
    return [r for r in answer.training.rounds if r.round > 0] if answer.training else []


def _traffic(trained: Sequence[Round], round_: str) -> dict[str, Markup]:
    rounds = [r.round for r in trained]
    down = ("to holders", "b-study", [float(r.bytes_down) for r in trained])
    up = ("from holders", "b-filter", [float(r.bytes_up) for r in trained])
    taken = ("time", "c-mean", [r.seconds for r in trained])
    return {
        "bytes": charts.columns("bytes", f"Bytes by {round_}", rounds, [down, up], formats.size),
        "seconds": charts.columns("seconds", f"Seconds by {round_}", rounds, [taken], formats.seconds),
    }
