"""Annexes of a run, for a data protection impact assessment or a data-sharing agreement, pre-filled with what it did.

    facts_of(answer)   the facts of a finished run
    facts_of_study(terms)   those of a study that has not run
    make_annex(facts, kind)
    to_html(annex), to_markdown(annex)

Both formats hold the same content. All texts
are escaped: names, titles and labels come from other organisations.
"""

import re
from functools import cache

from jinja2 import Template

from statfed.federation.annex.document import STATEMENT, Annex, Kind, make_annex
from statfed.federation.annex.facts import Facts, facts_of, facts_of_study
from statfed.federation.annex.parts import Asked, Cell, Drawing, Table
from statfed.federation.report import pages

__all__ = ["STATEMENT", "Annex", "Facts", "Kind", "facts_of", "facts_of_study", "make_annex", "to_html", "to_markdown"]

TO_FILL = "☐ to be filled in"
LEGEND = f'What follows from the facts is written in. Where it says "{TO_FILL}", only the parties can answer.'
NO_FACT = "There is no fact on this."
KNOWN = {False: "From the run:", True: "From the study:"}
_MARKS = re.compile(r"([\\`*\[\]|~#])|(?<![A-Za-z0-9])(_)|(_)(?![A-Za-z0-9])")


def to_html(annex: Annex) -> str:
    """The annex as one self-contained page, without scripts or anything to load."""
    return _template().render(a=annex, statement=STATEMENT, legend=LEGEND, fill=TO_FILL, no_fact=NO_FACT, known=KNOWN)


def to_markdown(annex: Annex) -> str:
    """The annex as Markdown with tables. Characters with a meaning in Markdown or HTML are escaped."""
    lines = [f"# {escaped(annex.title)}", "", f"{_when(annex)}.", ""]
    lines += [f"**{STATEMENT}**", "", escaped(LEGEND), ""]
    for heading, text in annex.banners:
        lines += [f"> **{escaped(heading)}.** {escaped(text)}", ""]
    for number, section in enumerate(annex.sections, start=1):
        lines += [f"## {number}. {escaped(section.title)}", ""]
        for block in section.blocks:
            if not isinstance(block, Drawing):
                lines += [*_block(block, annex.planned), ""]
    return "\n".join(lines).rstrip() + "\n"


def escaped(text: str) -> str:
    """A text on one line in which nothing is markup.

    >>> escaped("a|b <i>*c*</i>")
    'a\\\\|b &lt;i&gt;\\\\*c\\\\*&lt;/i&gt;'
    """
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKS.sub(lambda found: f"\\{found[0]}", plain)


def _when(annex: Annex) -> str:
    return "Of a study, before any run" if annex.planned else f"Run {escaped(annex.run)}, {escaped(annex.created)}"


def _block(block: str | Asked | Table, planned: bool) -> list[str]:
    if isinstance(block, str):
        return [escaped(block)]
    if isinstance(block, Asked):
        return _asked(block, planned)
    return _table(block)


def _asked(asked: Asked, planned: bool) -> list[str]:
    lines = [f"### {escaped(asked.topic.capitalize())}", ""]
    lines += [KNOWN[planned], "", *(f"- {escaped(text)}" for text in asked.known)] if asked.known else [NO_FACT]
    for one in asked.questions:
        lines += ["", f"**{escaped(one.question)}**", ""]
        lines += [f"- Known of it: {escaped(one.note)}"] if one.note else []
        lines += [f"- Answer: {_cell(None)}", f"- Evidence, such as {escaped(one.evidence)}: {_cell(None)}"]
    return lines


def _table(table: Table) -> list[str]:
    return [
        f"*{escaped(table.caption)}*",
        "",
        f"| {' | '.join(map(escaped, table.heads))} |",
        f"|{' --- |' * len(table.heads)}",
        *(f"| {' | '.join(map(_cell, row))} |" for row in table.rows),
    ]


def _cell(cell: Cell) -> str:
    return f"**{escaped(TO_FILL)}**" if cell is None else escaped(cell)


@cache
def _template() -> Template:
    return pages(__name__).get_template("annex.html.j2")
