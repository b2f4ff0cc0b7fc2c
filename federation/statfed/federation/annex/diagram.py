"""The flow of a linkage as inline SVG: one upright line a party, one arrow for what goes from one to another."""

from markupsafe import Markup

from statfed.federation.annex.flow import COORDINATOR, Flow
from statfed.federation.report import charts, formats

WIDTH = 860
_LEFT, _TOP, _LINE, _GAP = 130.0, 46.0, 24.0, 14.0
MOST_STEPS = 40
"""Steps that are drawn; the table beside has all."""


def drawn(flow: Flow, title: str) -> Markup:
    """The diagram. What passes through the coordinator is dashed."""
    places = {name: _LEFT + (WIDTH - _LEFT) * (i + 0.5) / len(flow.parties) for i, name in enumerate(flow.parties)}
    shown = [step for step in flow.steps if step.arrows][:MOST_STEPS]
    body, y = Markup(""), _TOP
    for step in shown:
        body += Markup('<text class="tick" x="0" y="{:.0f}">{}</text>').format(y + 4, formats.short(step.label, 22))
        for line in step.lines:
            body += _arrow(places[line.sender], places[line.receiver], y, line.what, relayed=line.relayed)
            y += _LINE
        y += _GAP
    height = y + 6
    lanes = Markup("").join(
        Markup(
            '<line class="axis" x1="{x:.0f}" x2="{x:.0f}" y1="26" y2="{end:.0f}" stroke="currentColor" '
            'stroke-opacity=".35"{dash}/><text class="count" text-anchor="middle" x="{x:.0f}" y="16">{name}</text>'
        ).format(
            x=x,
            end=height - 4,
            dash=Markup(' stroke-dasharray="2 3"') if name == COORDINATOR else Markup(""),
            name=formats.short(name, 24),
        )
        for name, x in places.items()
    )
    said = "; ".join(
        f"{step.label}: {', '.join(f'{a.sender} to {a.receiver}: {a.what}' for a in step.lines)}" for step in shown
    )
    return charts.chart("flow", title, said, round(height), lanes + body, WIDTH)


def _arrow(start: float, end: float, y: float, what: str, *, relayed: bool) -> Markup:
    away = 5.0 if end > start else -5.0
    tip, back = end - away / 5, end - away * 2
    return Markup(
        '<line x1="{:.0f}" x2="{:.0f}" y1="{y:.0f}" y2="{y:.0f}" stroke="currentColor"{}/>'
        '<polygon fill="currentColor" points="{tip:.1f},{y:.0f} {back:.1f},{:.0f} {back:.1f},{:.0f}"/>'
        '<text class="tick" text-anchor="middle" x="{:.0f}" y="{:.0f}">{}</text>'
    ).format(
        start,
        back,
        Markup(' stroke-dasharray="6 3"') if relayed else Markup(""),
        y - 4,
        y + 4,
        (start + end) / 2,
        y - 5,
        formats.short(what, max(12, int(abs(end - start) / 6.5))),
        y=y,
        tip=tip,
        back=back,
    )
