"""Recommendations for the reference scenarios as sections of a comparison's report."""

from collections.abc import Iterable

from statfed.core.discovery import load
from statfed.core.scenario import PACKAGE
from statfed.lab.compare.report.sections import Section
from statfed.lab.recommend.answer import Answer
from statfed.lab.recommend.decide import recommend
from statfed.lab.recommend.evidence import Measurements


def sections(names: Iterable[str], measured: Measurements) -> list[Section]:
    """One section for each scenario: what suits its facts and what was measured, and what a rule excludes."""
    found = []
    for name in names:
        about = load(PACKAGE, name, "scenario").ABOUT
        found.append(_section(about.title, recommend(about.case, measured)))
    return found


def _section(title: str, answer: Answer) -> Section:
    rows = []
    for place, one in enumerate(answer.ranked, 1):
        why = "; ".join(f"{reason.points:+g} {reason.text}" for reason in one.reasons if reason.points)
        rows.append((str(place), one.id, f"{one.score:g}", why))
    rows += [("excluded", one.id, "", "; ".join(rule.text for rule in one.exclusions)) for one in answer.rejected]
    return Section(
        f"Recommendation: {title}",
        (answer.headline, f"Measured: {answer.measurements}."),
        ("place", "technique", "points", "why"),
        rows,
    )
