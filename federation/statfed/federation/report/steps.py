"""Step curves of groups with confidence bands, a legend, axis titles and numbers at risk, as inline SVG.

One line a group, whatever its columns are called: which rows belong together is said by the caller. A line ends where a
figure is missing, and goes on as a line of its own.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from statfed.federation.report import charts, formats

MOST_GROUPS = 24
"""Curves of one chart: eight colours in three dashes. The table has the others."""
_COLOURS = 8
_LEFT, _RIGHT, _TOP, _BOTTOM = 9.0, 98.0, 30.0, 230.0
_LINE = 16.0
Place = Callable[[float], float]


@dataclass(frozen=True)
class Step:
    """A curve from `time` on. None where a figure was withheld. at_risk: just before `time`."""

    time: float
    value: float | None
    lower: float | None = None
    upper: float | None = None
    at_risk: float | None = None


@dataclass(frozen=True)
class Group:
    """One curve; empty label where there is one alone. beyond: at risk after its last step, where that is known."""

    label: str
    steps: tuple[Step, ...]
    beyond: float | None = None


def steps(key: str, title: str, x_title: str, y_title: str, groups: Sequence[Group]) -> Markup:
    """Curves that start at 1 and time 0, and fall."""
    shown = list(groups[:MOST_GROUPS])
    last = max((step.time for group in shown for step in group.steps), default=1.0) or 1.0
    times = [t for t in charts.ticks(0.0, last, 6) if t <= last * (1 + 1e-9)]
    scale = last if last > 0 else 1.0

    def x(time: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * time / scale

    def y(value: float) -> float:
        return _BOTTOM - value * (_BOTTOM - _TOP)

    def inner(step: float) -> float:
        return 1000 * step / scale

    grid = Markup("").join(
        Markup(
            '<line class="grid" x1="{}%" x2="{}%" y1="{y:.1f}" y2="{y:.1f}"/>'
            '<text class="tick" text-anchor="end" x="{}%" y="{:.1f}">{:g}</text>'
        ).format(_LEFT, _RIGHT, _LEFT - 1.5, y(mark) + 4, mark, y=y(mark))
        for mark in (0.0, 0.25, 0.5, 0.75, 1.0)
    )
    axis = Markup("").join(
        Markup('<text class="tick" text-anchor="middle" x="{:.2f}%" y="{:.1f}">{:g}</text>').format(
            x(time), _BOTTOM + 17, time
        )
        for time in times
    )
    titles = Markup(
        '<text class="axis y" x="0" y="14">{}</text>'
        '<text class="axis x" text-anchor="middle" x="{:.1f}%" y="{:.1f}">{}</text>'
    ).format(y_title, (_LEFT + _RIGHT) / 2, _BOTTOM + 35, x_title)
    drawn = Markup("").join(_curve(place, group, inner, y) for place, group in enumerate(shown))
    plot = Markup(
        '<svg x="{}%" y="0" width="{}%" height="{h}" viewBox="0 0 1000 {h}" preserveAspectRatio="none">{}</svg>'
    ).format(_LEFT, _RIGHT - _LEFT, drawn, h=int(_BOTTOM))
    legend, foot = _legend(shown, _BOTTOM + 44) if len(shown) > 1 else (Markup(""), _BOTTOM + 44)
    table, foot = _at_risk(shown, times, x, foot)
    left_out = f"; {len(groups) - len(shown)} more are in the table" if len(groups) > len(shown) else ""
    ends = "; ".join(
        f"{group.label or title} {end:.3g} at the end"
        for group in shown
        if (end := next((s.value for s in reversed(group.steps) if s.value is not None), None)) is not None
    )
    return charts.chart(
        key,
        title,
        f"{len(shown)} curves{left_out}. {ends}.",
        math.ceil(foot),
        grid + axis + titles + plot + legend + table,
    )


def _curve(place: int, group: Group, x: Place, y: Place) -> Markup:
    line, band = _path(group.steps, x, y), _band(group.steps, x, y)
    return Markup(
        '<g class="curve" data-group="{}">{}<path class="line s{} d{}" d="{}"><title>{}</title></path></g>'
    ).format(
        group.label,
        Markup('<path class="band s{}" d="{}"/>').format(place % _COLOURS, band) if band else "",
        place % _COLOURS,
        place // _COLOURS,
        line,
        group.label or "all",
    )


def _path(steps: Sequence[Step], x: Place, y: Place) -> str:
    """Across to each time at the height before it, then down: one H and one V a step."""
    words, open_ = [f"M0,{y(1.0):.1f}"], True
    for step in steps:
        if step.value is None:
            open_ = False
        elif open_:
            words.append(f"H{x(step.time):.1f} V{y(step.value):.1f}")
        else:
            words.append(f"M{x(step.time):.1f},{y(step.value):.1f}")
            open_ = True
    return " ".join(words)


def _band(steps: Sequence[Step], x: Place, y: Place) -> str:
    """Limits as areas between one step's time and the next one's."""
    words = []
    for step, following in pairwise(steps):
        if step.lower is not None and step.upper is not None:
            left, right, low, high = x(step.time), x(following.time), y(step.lower), y(step.upper)
            words.append(f"M{left:.1f},{low:.1f} H{right:.1f} V{high:.1f} H{left:.1f} Z")
    return " ".join(words)


def _legend(groups: Sequence[Group], top: float) -> tuple[Markup, float]:
    body = Markup("")
    for place, group in enumerate(groups):
        at = top + _LINE * place
        body += Markup(
            '<g class="key"><line class="line s{} d{}" x1="{}%" x2="{}%" y1="{y:.1f}" y2="{y:.1f}"/>'
            '<text class="label" x="{}%" y="{:.1f}">{}<title>{}</title></text></g>'
        ).format(
            place % _COLOURS,
            place // _COLOURS,
            _LEFT,
            _LEFT + 5,
            _LEFT + 6,
            at + 4,
            formats.short(group.label, 60),
            group.label,
            y=at,
        )
    return Markup('<g class="legend">{}</g>').format(body), top + _LINE * len(groups) + 4


def _at_risk(groups: Sequence[Group], times: Sequence[float], x: Place, top: float) -> tuple[Markup, float]:
    """Numbers at risk at the ticks, a line a group, under its name."""
    if not any(step.at_risk is not None for group in groups for step in group.steps):
        return Markup(""), top
    body = Markup('<text class="axis" x="0" y="{:.1f}">Number at risk</text>').format(top + 12)
    at = top + 12
    for group in groups:
        if group.label:
            at += _LINE
            body += Markup('<text class="label" x="0" y="{:.1f}">{}</text>').format(at, formats.short(group.label, 60))
        at += _LINE
        for time in times:
            found = next((step for step in group.steps if step.time > time), None)
            number = group.beyond if found is None else found.at_risk
            told = formats.DASH if number is None else f"{number:,.0f}"
            body += Markup('<text class="tick risk" text-anchor="middle" x="{:.2f}%" y="{:.1f}">{}</text>').format(
                x(time), at, told
            )
    return Markup('<g class="risks">{}</g>').format(body), at + 8
