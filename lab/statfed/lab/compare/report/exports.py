"""The report as Markdown and CSV: the same figures as the page, for other tools."""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from statfed.core.outputs import plain_cells
from statfed.core.scenario import About
from statfed.lab.compare.report import heat
from statfed.lab.compare.report.columns import columns
from statfed.lab.compare.report.frontier import optimal
from statfed.lab.compare.report.pilots import PILOTS
from statfed.lab.compare.report.sections import Section
from statfed.lab.compare.tables import NAMES, Tables, Tried

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~])")


def plain(text: object) -> str:
    """Text of others as one line of Markdown in which nothing is markup."""
    return _MARKDOWN.sub(r"\\\1", " ".join(str(text).split()))


def grid(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table."""

    def line(cells: Sequence[object]) -> str:
        return "| " + " | ".join(plain(cell) or " " for cell in cells) + " |"

    return "\n".join([line(head), "| " + " | ".join("---" for _ in head) + " |", *map(line, rows)])


def markdown(
    tables: Tables, about: Mapping[str, About], measures: Mapping[str, str], sections: Sequence[Section] = ()
) -> str:
    """The report as one Markdown text: heat table, recommendations, scenarios, reproduction."""
    parts = ["# Comparison of techniques", "## Scenarios by techniques", _heat(tables)]
    reasons = [(t.scenario, t.id, t.word, "; ".join(t.reasons)) for t in tables.tried if t.reasons]
    if reasons:
        parts += ["### Not applicable and failed", grid(("Scenario", "Technique", "Status", "Reason"), reasons)]
    for section in sections:
        parts += [f"## {plain(section.title)}", *map(plain, section.text)]
        if section.columns:
            parts.append(grid(section.columns, section.rows))
    for name in names(tables, about):
        parts += _scenario(name, tables, about.get(name), measures.get(name, "error"))
    parts += ["## Reproduction of pilots", grid(*reproduction(tables))]
    return "\n\n".join(part for part in parts if part) + "\n"


def names(tables: Tables, about: Mapping[str, About]) -> list[str]:
    """Every scenario that is described or was tried; those of the inventory without trials last."""
    tried = {one.scenario for one in tables.tried}
    return sorted({*tried, *about}, key=lambda name: (name not in tried, name))


def reproduction(tables: Tables) -> tuple[list[str], list[list[str]]]:
    """The reproduction page: head and rows."""
    head = ["Pilot", "Figure", "Pilot's", "Ours", "Why different", "Taken as given", "Source"]
    return head, [[p.pilot, p.figure, p.value, p.shown(tables), p.why, p.given, p.source] for p in PILOTS]


def _heat(tables: Tables) -> str:
    head = ["Scenario", "Profile", "Release level", *heat.protections(tables)]
    rows = [
        [line.scenario, line.profile, line.level]
        + [f"{cell.word}: {cell.figure}" if cell.figure else cell.word for cell in line.cells]
        for line in heat.lines(tables)
    ]
    return grid(head, rows)


def _scenario(name: str, tables: Tables, about: About | None, measure: str) -> list[str]:
    parts = [f"## {plain(name)}"]
    if about:
        told = (("Title", about.title), ("Purpose", about.purpose), ("Parties", about.parties), ("Data", about.data),
                ("GSBPM", about.gsbpm), ("Source", about.source))  # fmt: skip
        parts.append("\n".join(f"- {key}: {plain(text)}" for key, text in told))
    tried = tables.of_scenario(name)
    if not tried:
        return [*parts, "Not tried: an entry of the inventory, or left out of this comparison."]
    shown, best = columns(tried), optimal(tried)
    head = ["Technique", "Profile", "Status", "Pareto", "Seeds", *(f"{c.group}: {c.title}" for c in shown)]
    rows = [
        [one.id, one.profile, one.word, "yes" if good else "", str(len(one.trials)), *(c.text(one) for c in shown)]
        for one, good in zip(tried, best, strict=True)
    ]
    learns = [[one.id, *row] for one in tried for row in one.learns]
    parts += [f"Error: {plain(measure)}.", grid(head, rows)]
    return parts + (
        ["Who learns what:", grid(["Technique", "Role", "Learns", "Protected by"], learns)] if learns else []
    )


def write_csv(tables: Tables, folder: Path) -> list[Path]:
    """A file for each table, one of summaries over seeds, one of the reproduction page."""
    written = [_write(folder / f"{name}.csv", getattr(tables, name)) for name in NAMES]
    written.append(_write(folder / "summary.csv", [row for tried in tables.tried for row in _summary(tried)]))
    head, rows = reproduction(tables)
    written.append(_write(folder / "reproduction.csv", [dict(zip(head, row, strict=True)) for row in rows]))
    return written


def _summary(tried: Tried) -> Iterable[dict[str, Any]]:
    what = {"scenario": tried.scenario, "profile": tried.profile, "protection": tried.protection,
            "options": tried.options, "level": tried.level, "status": tried.word}  # fmt: skip
    for column in columns([tried]):
        found = column.read(tried)
        if found is not None:
            yield what | {"figure": column.id, "mean": found.mean, "standard_error": found.error, "seeds": found.n}
    if not tried.done:
        yield what | {"figure": "", "mean": None, "standard_error": None, "seeds": 0}


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    head = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(plain_cells(head))
        writer.writerows(plain_cells(row.get(key) for key in head) for row in rows)
    return path
