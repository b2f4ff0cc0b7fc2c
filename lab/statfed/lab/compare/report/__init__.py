"""The report of a comparison: one self-contained HTML file, Markdown, and CSV.

    write_report(tables, about, folder)

The page loads nothing. Its one script (sorting, choice of axis, what a point is) is in it; a content security policy
names the script's hash and forbids every other and every request. Charts are SVG that is drawn here: about 60 kB a
scenario, where a plotting library would weigh 5 MB, would draw nothing without scripts or on paper, and would need a
policy that lets it evaluate styles of its own. All texts are escaped: reasons and names come from other organisations.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Template
from markupsafe import Markup

from statfed.core.scenario import About
from statfed.federation.report import formats, pages
from statfed.lab.compare.report import exports, frontier, heat
from statfed.lab.compare.report.bars import Bars, bars
from statfed.lab.compare.report.columns import Column, columns
from statfed.lab.compare.report.frontier import Axis
from statfed.lab.compare.report.pilots import PILOTS
from statfed.lab.compare.report.sections import Section
from statfed.lab.compare.tables import Tables, Tried

__all__ = ["Section", "render", "write_report"]


@dataclass(frozen=True)
class Shown:
    """One scenario as the page shows it. best: which techniques are Pareto-optimal, at processor time as the cost."""

    name: str
    id: str
    about: About | None
    measure: str
    tried: tuple[Tried, ...]
    columns: Sequence[Column]
    best: Sequence[bool]
    plots: Sequence[tuple[Axis, Markup]]
    legend: Sequence[tuple[str, int, Markup]]
    bars: Bars | None

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Headings above the columns, with how many each spans."""
        names = list(dict.fromkeys(column.group for column in self.columns))
        return [(name, sum(column.group == name for column in self.columns)) for name in names]

    @property
    def learned(self) -> list[tuple[list[str], tuple[tuple[str, str, str], ...]]]:
        """Techniques with the same rows of who learns what, together."""
        found: dict[tuple[tuple[str, str, str], ...], list[str]] = {}
        for one in self.tried:
            if one.learns:
                found.setdefault(one.learns, []).append(one.id)
        return [(ids, rows) for rows, ids in found.items()]


def write_report(
    tables: Tables,
    about: Mapping[str, About],
    folder: Path,
    *,
    sections: Sequence[Section] = (),
    measures: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write `report.html`, `report.md` and CSV files to `folder`. Returns the files.

    about: by scenario; one without trials is shown as an entry. sections: made elsewhere, such as recommendations.
    measures: what the error of a scenario is, in words (`Success.title`).
    """
    folder.mkdir(parents=True, exist_ok=True)
    page, text = folder / "report.html", folder / "report.md"
    page.write_text(render(tables, about, sections=sections, measures=measures), encoding="utf-8")
    text.write_text(exports.markdown(tables, about, measures or {}, sections), encoding="utf-8")
    return [page, text, *exports.write_csv(tables, folder)]


def render(
    tables: Tables,
    about: Mapping[str, About],
    *,
    sections: Sequence[Section] = (),
    measures: Mapping[str, str] | None = None,
) -> str:
    """The page as text."""
    scenarios = [
        _shown(name, i, tables, about.get(name), (measures or {}).get(name, "error"))
        for i, name in enumerate(exports.names(tables, about))
    ]
    return _template().render(
        t=tables,
        scenarios=scenarios,
        ids={one.name: one.id for one in scenarios},
        protections=heat.protections(tables),
        lines=heat.lines(tables),
        shades=heat.SHADES,
        pilots=PILOTS,
        sections=sections,
        warnings=warnings(tables),
        row_id=frontier.row_id,
    )


def warnings(tables: Tables) -> list[str]:
    """What a reader must know before any figure."""
    found, failed = [], sum(row["status"] == "failed" for row in tables.trials)
    if failed:
        found.append(f"{failed} of {len(tables.trials)} trials failed. They are in the tables, with the reason.")
    for column, what in (("version", "versions of statfed"), ("machine", "machines")):
        values = tables.values(column)
        if len(values) > 1:
            found.append(f"Trials of {len(values)} {what} are averaged together: {', '.join(values)}.")
    if any(len(one.done) == 1 for one in tables.tried):
        found.append("Some techniques were tried on one seed only: their figures have no standard error.")
    return found


def _shown(name: str, number: int, tables: Tables, about: About | None, measure: str) -> Shown:
    tried, key = tables.of_scenario(name), f"s{number}"
    return Shown(
        name=name,
        id=key,
        about=about,
        measure=measure,
        tried=tried,
        columns=columns(tried),
        best=frontier.optimal(tried),
        plots=frontier.plots(key, tried, measure),
        legend=frontier.legend([one for one in tried if one.done]),
        bars=bars(f"{key}-time", tried),
    )


@cache
def _template() -> Template:
    environment = pages(__name__)
    loader = environment.loader
    assert loader is not None  # noqa: S101  # `pages` sets one
    script = loader.get_source(environment, "compare.js")[0]
    environment.globals["script"] = Markup(script)  # noqa: S704  # our own file, whose hash the policy names
    environment.globals["digest"] = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals["dash"] = formats.DASH
    return environment.get_template("compare.html.j2")
