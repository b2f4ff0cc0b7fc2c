"""Reports as one self-contained HTML file each, without scripts, fonts or anything else to load.

The page carries a content security policy that forbids scripts and every request. All texts are escaped: names and
notes come from other organisations. The style sheet, the number formats and the charts are shared with the reports of
scenarios.
"""

from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template

from statfed.core.discovery import load
from statfed.core.protection import PACKAGE as PROTECTIONS
from statfed.core.protection import shown_options
from statfed.federation.report import figures, formats

if TYPE_CHECKING:
    from statfed.federation.answers import Answer

MOST_ROWS = 500  # of one table in the page; CSV and JSON have them all
_FORMS = ("percent", "points", "count", "epsilon", "allowance", "delta", "number", "seconds", "size", "short")


def pages(package: str) -> Environment:
    """A template environment over the files of `package`, with this package's style sheet and formats."""

    def read(name: str) -> str:
        folder = __name__ if name == "report.css" else package
        return resources.files(folder).joinpath(name).read_text(encoding="utf-8")

    environment = Environment(
        loader=FunctionLoader(read),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for form in _FORMS:
        environment.filters[form] = getattr(formats, form)
    return environment


def render(answer: "Answer") -> str:
    """The report of one answer as an HTML page."""
    result = answer.result
    tables = {
        name: (list(dict.fromkeys(key for row in rows for key in row)), list(rows[:MOST_ROWS]), len(rows))
        for name, rows in result.tables.items()
        if rows
    }
    protection = answer.terms.protection
    options = shown_options(load(PROTECTIONS, protection.name, "protection"), protection.options)
    return _template().render(a=answer, r=result, tables=tables, charts=figures.of(result), show=_show, options=options)


@cache
def _template() -> Template:
    return pages(__name__).get_template("analysis.html.j2")


def _show(value: object, margin: bool = False) -> str:
    if value is None:
        return "all" if margin else formats.DASH
    if isinstance(value, float):
        return f"{value:,.6g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
