"""Where time goes: processor seconds by role, for every technique."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from statfed.federation.report import charts, formats
from statfed.lab.compare.tables import ROLES, Tried

_CSS = {"holder": "p0", "coordinator": "p1", "third party": "p2"}
_NAMES = {"holder": "holders", "coordinator": "coordinator", "third party": "third parties"}
_ROW = 30


@dataclass(frozen=True)
class Bars:
    """A chart and its legend: (colour, role)."""

    svg: Markup
    legend: tuple[tuple[str, str], ...]


def bars(key: str, tried: Sequence[Tried]) -> Bars | None:
    """Stacked bars on one scale, holders, coordinator and third parties; None where nothing was measured."""
    rows = [
        (one, [(role, found.mean) for role in ROLES if (found := one.role(role, "processor")) is not None])
        for one in tried
    ]
    rows = [(one, parts) for one, parts in rows if parts]
    if not rows:
        return None
    most = max(sum(value for _, value in parts) for _, parts in rows) or 1.0
    marks = charts.ticks(0.0, most, 4)
    body, y = Markup(""), 4.0
    for mark in marks:
        body += Markup('<line class="grid" x1="{x:.2f}%" x2="{x:.2f}%" y1="4" y2="{}"/>').format(
            4 + _ROW * len(rows), x=100 * mark / marks[-1]
        )
    for one, parts in rows:
        body += Markup('<text class="label" x="0" y="{:.1f}">{}<tspan class="figure" dx="10">{}</tspan></text>').format(
            y + 12, one.id, formats.seconds(sum(value for _, value in parts))
        )
        left = 0.0
        for role, value in parts:
            width = 100 * value / marks[-1]
            body += Markup(
                '<rect class="segment {}" x="{:.3f}%" y="{:.1f}" width="{:.3f}%" height="9"><title>{}</title></rect>'
            ).format(_CSS[role], left, y + 16, width, f"{one.id}, {_NAMES[role]}: {formats.seconds(value)}")
            left += width
        y += _ROW
    for mark in marks:
        place = "start" if mark == marks[0] else "end" if mark == marks[-1] else "middle"
        body += Markup('<text class="tick" text-anchor="{}" x="{:.2f}%" y="{:.1f}">{}</text>').format(
            place, 100 * mark / marks[-1], y + 14, formats.plain(formats.seconds(mark))
        )
    used = [role for role in ROLES if any(role == name for _, parts in rows for name, _ in parts)]
    title = "Processor time by role, mean over seeds"
    svg = charts.chart(key, title, f"{len(rows)} techniques; the table has the figures.", int(y + 22), body)
    return Bars(svg, tuple((_CSS[role], _NAMES[role]) for role in used))
