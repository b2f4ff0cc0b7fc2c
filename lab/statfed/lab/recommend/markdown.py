"""A recommendation as Markdown, for a file that travels with the case."""

from collections.abc import Iterable, Sequence

from statfed.core.scenario import Case
from statfed.lab.recommend.answer import Answer, Evidence, Exclusion, Ranked
from statfed.lab.recommend.synthetic import Synthetic


def markdown(answer: Answer) -> str:
    """The whole document."""
    title = answer.case.title or "a case"
    parts = [f"# Recommendation for {title}", "", f"**{answer.headline}**", ""]
    parts += [f"statfed {answer.version}. Measurements: {answer.measurements}.", ""]
    parts += ["## The case", "", *_table(("fact", "value"), _facts(answer.case)), ""]
    parts += _shortlist(answer)
    for place, one in enumerate(answer.ranked, 1):
        parts += _one(place, one)
    for each in answer.synthetic:
        parts += _records(each)
    parts += ["## Excluded", ""]
    parts += _table(
        ("technique", "rule", "why"), ((o.id, e.rule, e.text) for o in answer.rejected for e in o.exclusions)
    )
    measured_too = [(one.id, *measured(row)) for one in answer.rejected for row in one.evidence]
    if measured_too:
        parts += ["", "Measured all the same, in scenarios whose facts differ:", ""]
        parts += _table(("technique", *EVIDENCE), measured_too)
    parts += ["", "## Outside this software: not measured", ""]
    rows = ((one.id, _fits(one.exclusions, one.built), "; ".join(one.trust), one.note) for one in answer.not_measured)
    parts += [*_table(("technique", "for this case", "trusts", "published facts"), rows), ""]
    parts += ["## If a fact were another", ""]
    parts += [f"- {flip.text}" for flip in answer.sensitivity] or ["No other value of a single fact changes anything."]
    if answer.indifferent:
        parts += ["", f"Other values of these change neither members nor first place: {', '.join(answer.indifferent)}."]
    parts += ["", "## Nearest reference scenarios", ""]
    near = ((n.scenario, f"{n.distance:.2f}", ", ".join(n.differs), str(n.measured)) for n in answer.nearest[:5])
    parts += _table(("scenario", "distance", "differs in", "trials measured"), near)
    return "\n".join(parts).rstrip() + "\n"


def _shortlist(answer: Answer) -> list[str]:
    if answer.ranked:
        rows = ((str(i), one.id, f"{one.score:g}", one.title) for i, one in enumerate(answer.ranked, 1))
        return ["## Shortlist", "", *_table(("place", "technique", "points", "what it is"), rows), ""]
    lines = ["## Nothing remains", "", "Smallest changes of facts that would let something through:", ""]
    return [*lines, *(f"- {one.text}: {'; '.join(one.lets)}" for one in answer.remedies), ""]


def _one(place: int, one: Ranked) -> list[str]:
    lines = [f"### {place}. {one.id} ({one.score:g} points)", ""]
    lines += [f"- {reason.points:+g} {reason.aspect}: {reason.text}" for reason in one.reasons]
    lines += ["", "It holds when:", "", *(f"- {word}" for word in one.trust), ""]
    if one.origin:
        lines += [f"Brought by {one.origin}, not by statfed itself.", ""]
    if one.install:
        lines += [f"Not installed completely: `{one.install}`", ""]
    if one.evidence:
        lines += [*_table(EVIDENCE, map(measured, one.evidence)), ""]
    return lines


def _records(told: Synthetic) -> list[str]:
    head = "Synthetic records for" if told.role == "records" else "A synthetic twin to rehearse on, for"
    lines = [f"## {head} {told.title.lower()}", "", f"{told.what}. It needs {told.needs}. Risk: {told.risk}.", ""]
    rows = (
        (str(i), one.method, one.assumes, one.when, one.when_not, one.private, one.stands_against)
        for i, one in enumerate(told.methods, 1)
    )
    heads = ("place", "method", "assumes", "when", "when not", "private", "stands against it here")
    lines += [*_table(heads, rows), "", told.why, "", f"Not for this use: {', '.join(told.unsuitable)}.", ""]
    shown = ((one.title, one.reads, one.misleads, "; ".join(one.limits)) for one in told.measures)
    lines += [*_table(("to be shown", "reads", "misleads", "limits"), shown), ""]
    return [*lines, "```", *told.commands, "```", "", told.caution, ""]


EVIDENCE = ("scenario", "level", "reached", "error / tolerance", "alone", "epsilon", "suppressed", "cost", "from")


def measured(row: Evidence) -> tuple[str, ...]:
    """One row of evidence, under the columns of EVIDENCE."""
    reached = "" if row.reached is None else f"{row.reached:.0%} of {row.trials}"
    failed = f", {row.failed} failed" if row.failed else ""
    error = f"{_number(row.error)} / {_number(row.tolerance)}"
    cost = f"x {row.multiple:.3g}" if row.multiple is not None else ""
    name = f"{row.scenario} ({row.profile})"
    hidden = "" if row.suppressed is None else f"{row.suppressed:.0%}"
    source = f"{row.version}, {row.machine}"
    return (name, row.level, reached + failed, error, _number(row.local), _number(row.epsilon), hidden, cost, source)


def _fits(exclusions: Sequence[Exclusion], built: bool) -> str:
    if exclusions:
        return f"excluded: {'; '.join(one.text for one in exclusions)}"
    return "might do" if built else "might do; not built yet"


def _facts(case: Case) -> Iterable[tuple[str, str]]:
    for fact in Case.model_fields:
        value = getattr(case, fact)
        yield fact, "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(heads)} |", f"| {' | '.join('---' for _ in heads)} |"]
    return lines + [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
