"""Reports as one self-contained HTML file each, without scripts, fonts or anything else to load.

    render(answer)  the report of any answer

The page carries a content security policy that forbids scripts and every request. All texts are escaped: names and
notes come from other organisations. The page's frame, style sheet, number formats and charts are shared with annexes
and the reports of comparisons.
"""

from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template

from statfed.federation.report import formats

if TYPE_CHECKING:
    from statfed.federation.answers import Answer

MOST_ROWS = 500  # of one table in the page; CSV and JSON have them all
_FORMS = ("percent", "points", "count", "epsilon", "share", "allowance", "delta", "number", "seconds", "size", "short")
SHARED = ("report.css", "page.html.j2", "parts.html.j2")
"""Files of this package that templates of others are made with."""


def pages(package: str) -> Environment:
    """A template environment over the files of `package`, with this package's frame, style sheet and formats."""

    def read(name: str) -> str:
        folder = __name__ if name in SHARED else package
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
    """The report of one answer as an HTML page: what models are compared, and the tables of its result.

    Raises ValueError where models are compared and none is the federated one.
    """
    from statfed.federation.report import drawn, facts, figures
    from statfed.federation.report.compared import Compared

    told = Compared(answer) if answer.training and answer.training.candidates else facts.Facts(answer)
    result, svg, charts = answer.result, drawn.of_any(told), figures.of(answer.result, answer.terms)
    tables = {
        name: (list(dict.fromkeys(key for row in rows for key in row)), list(rows[:MOST_ROWS]), len(rows))
        for name, rows in result.tables.items()
        if rows
    }
    name = "tables.html.j2"
    if isinstance(told, Compared):
        name, svg = "compared.html.j2", drawn.of_compared(told) | svg
        if "scores" not in tables:  # what was released is the model alone
            tables, charts = {}, {}
    parts: dict[str, Any] = {"show": facts.shown, "most": drawn.MOST_HOLDERS}
    return _template(name).render(a=answer, r=result, facts=told, tables=tables, charts=charts, svg=svg, **parts)


@cache
def _template(name: str) -> Template:
    return pages(__name__).get_template(name)
