"""The frontier of privacy, accuracy and cost: which techniques no other one beats, and where they lie.

Charts are drawn here, as SVG; the page's script only shows one axis of cost or another, hides protections and tells
what a point is. Without scripts and on paper the first chart is there, and the tables have every figure.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from markupsafe import Markup

from statfed.core.discovery import load, modules
from statfed.core.protection import PACKAGE
from statfed.federation.report import charts, formats
from statfed.lab.compare.report.columns import Form, Read, multiple
from statfed.lab.compare.tables import Tried

_TOP, _FOOT, _HEIGHT = 18.0, 322.0, 368
_LEFT, _RIGHT = 9.0, 71.0  # per cent of the width
_FLOOR = 1e-3  # errors below this share of the tolerance are drawn on it
_MARKS = ("circle", "square", "triangle", "diamond", "cross", "ring")
MOST_LABELS = 14


@dataclass(frozen=True)
class Axis:
    """A cost, or epsilon: what is laid off to the right, on a logarithmic scale. missing: what stands at its end for
    techniques without the figure; nothing: they are left out."""

    id: str
    title: str
    read: Read
    form: Form
    missing: str = ""


def _measure(name: str) -> Read:
    return lambda tried: tried.measure(name)


AXES: Sequence[Axis] = (
    Axis("epsilon", "Epsilon, per unit", lambda tried: tried.epsilon, formats.epsilon, "not DP"),
    Axis("overhead", "Processor time over plain", _measure("overhead"), multiple),
    Axis("sent", "Bytes that holders sent", lambda tried: tried.role("holder", "sent"), formats.size),
    Axis("wall", "Wall time, one machine", lambda tried: tried.column("wall"), formats.seconds),
    Axis("memory", "Peak memory, MiB", lambda tried: tried.column("memory_mib"), formats.number),
    Axis("wan-office", "Time on lines of 100 Mbit/s, 40 ms: MODELLED", _measure("wan_seconds.office"), formats.seconds),
    Axis("wan-remote", "Time on lines of 10 Mbit/s, 250 ms: MODELLED", _measure("wan_seconds.remote"), formats.seconds),
)


@cache
def reveals(protection: str) -> bool:
    """Does the coordinator get each holder's contribution? A protection that is not installed is taken to."""
    if protection not in modules(PACKAGE):
        return True
    return bool(load(PACKAGE, protection, "protection").REQUIRES.reveals_updates)


def objectives(tried: Tried, cost: Read) -> tuple[float, ...] | None:
    """What a technique is judged by; less is better in all: error (0 below a thousandth of the tolerance: rounding is
    no difference), share not released, epsilon (infinite without differential privacy), violations of disclosure rules
    (infinite where they were not counted), whether single contributions are seen, and the cost. None where nothing
    came out."""
    error = tried.column("error")
    if error is None or not math.isfinite(error.mean):
        return None
    hidden, epsilon, violations, price = (
        tried.column("suppressed"),
        tried.epsilon,
        tried.measure("violations"),
        cost(tried),
    )
    exact = error.mean <= _FLOOR * (tried.tolerance or 0.0)
    return (
        0.0 if exact else error.mean,
        hidden.mean if hidden else 0.0,
        epsilon.mean if epsilon else math.inf,
        violations.mean if violations else math.inf,
        float(reveals(tried.protection)),
        price.mean if price else math.inf,
    )


def pareto(points: Sequence[tuple[float, ...] | None]) -> list[bool]:
    """Which points no other one dominates: is as good in everything and better in something."""

    def beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
        return all(a <= b for a, b in zip(one, other, strict=True)) and one != other

    known = [point for point in points if point is not None]
    return [point is not None and not any(beats(other, point) for other in known) for point in points]


def optimal(tried: Sequence[Tried], cost: Read = AXES[1].read) -> list[bool]:
    """Which techniques are Pareto-optimal at this cost."""
    return pareto([objectives(one, cost) for one in tried])


@dataclass(frozen=True)
class Scale:
    """A logarithmic scale from `low` to `high`, places from 0 to 1; outside is drawn at the ends."""

    low: float
    high: float

    def __call__(self, value: float) -> float:
        if value <= self.low:
            return 0.0
        if value >= self.high:
            return 1.0
        return math.log(value / self.low) / math.log(self.high / self.low)

    def ticks(self, most: int = 7) -> list[float]:
        """Powers of ten; where these are few, also 2 and 5 times them."""
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        found = [10.0**power for power in range(first, last + 1, max(1, math.ceil((last - first) / most)))]
        if last - first <= 2:
            found = [m * 10.0**power for power in range(first, last + 1) for m in (1, 2, 5)]
        return [tick for tick in found if self.low * 0.999 <= tick <= self.high * 1.001]


def scale(values: Sequence[float]) -> Scale:
    """A scale that covers positive finite values with some air; 0 lies at its lower end."""
    found = [value for value in values if 0.0 < value < math.inf] or [1.0]
    low, high = min(found), max(found)
    return Scale(low / 1.6, max(high * 1.6, low * 4.0))


def plots(key: str, tried: Sequence[Tried], measure: str) -> list[tuple[Axis, Markup]]:
    """A chart for every axis that at least one technique has a figure for. measure: what the error is, in words."""
    drawn = [one for one in tried if one.column("error") is not None]
    found = []
    for axis in AXES:
        points = [one for one in drawn if axis.missing or axis.read(one) is not None]
        if any(axis.read(one) is not None for one in points):
            found.append((axis, _plot(f"{key}-{axis.id}", points, axis, measure)))
    return found


def _plot(key: str, points: Sequence[Tried], axis: Axis, measure: str) -> Markup:
    values = [found.mean if (found := axis.read(one)) else None for one in points]
    errors = [found.mean if (found := one.column("error")) else math.nan for one in points]
    tolerance = next((one.tolerance for one in points if one.tolerance), None)
    across = scale([value for value in values if value is not None])
    up = _upward([error for error in errors if math.isfinite(error)], tolerance)
    width = _RIGHT - _LEFT
    end = 0.9 if axis.missing and None in values else 1.0  # where values end and what has none begins

    def x(value: float | None) -> float:
        return _RIGHT - 2.0 if value is None else _LEFT + width * end * across(value)

    def y(error: float) -> float:
        return _TOP if math.isinf(error) else _FOOT - 12 - (_FOOT - _TOP - 26) * up(error)

    best = optimal(points, AXES[1].read if axis.id == "epsilon" else axis.read)
    body = _grid(up, across, y, x, axis, None in values and bool(axis.missing), math.inf in errors)
    if tolerance is not None:
        body += Markup(
            '<line class="tolerance" x1="{}%" x2="{}%" y1="{:.1f}" y2="{y:.1f}"/>'
            '<text class="tick" x="{}%" y="{:.1f}">tolerance {}</text>'
        ).format(_LEFT, _RIGHT, y(tolerance), _LEFT + 0.6, y(tolerance) - 5, formats.number(tolerance), y=y(tolerance))
    chosen = [i for i, good in enumerate(best) if good]
    if len(chosen) <= MOST_LABELS:
        for i, place in zip(chosen, charts.spread([y(errors[i]) for i in chosen], 14.0, _TOP, _FOOT), strict=True):
            body += Markup(
                '<g class="named" data-by="{}"><line class="leader" x1="{:.2f}%" x2="{}%" y1="{:.1f}" y2="{:.1f}"/>'
                '<text class="label small" x="{}%" y="{:.1f}">{}</text></g>'
            ).format(
                points[i].by, x(values[i]), _RIGHT + 1, y(errors[i]), place, _RIGHT + 1.5, place + 4,
                formats.short(points[i].id, 34),
            )  # fmt: skip
    order = names(points)  # at one epsilon protections have near the same error: they stand side by side
    kinds = {by: _MARKS[i % len(_MARKS)] for i, by in enumerate(order)}
    for one, value, error, good in zip(points, values, errors, best, strict=True):
        aside = 9.0 * (order.index(one.by) - (len(order) - 1) / 2) if axis.missing else 0.0
        body += _mark(one, kinds[one.by], x(value), y(error), aside, good, axis, value, error)
    told = "; ".join(points[i].id for i in chosen) or "none"
    desc = f"{measure} against {axis.title.lower()}, both logarithmic. Pareto-optimal: {told}."
    return Markup(
        '<svg class="chart plot" role="group" aria-labelledby="{key}-desc" width="100%" height="{}" '
        'xmlns="http://www.w3.org/2000/svg"><desc id="{key}-desc">{}</desc>{}</svg>'
    ).format(_HEIGHT, desc, body, key=key)


def names(points: Sequence[Tried]) -> list[str]:
    """Protections in the order of their marks."""
    return list(dict.fromkeys(one.by for one in sorted(points, key=lambda one: (one.protection != "plain", one.by))))


def _upward(errors: Sequence[float], tolerance: float | None) -> Scale:
    positive = [error for error in errors if error > 0]
    top = max([*positive, tolerance or 0.0], default=1.0) or 1.0
    low = tolerance * _FLOOR if tolerance else min(positive, default=top) / 2
    low = max(low, min([*positive, tolerance or top]) / 2)
    return Scale(low, max(top * 1.6, low * 4))


def _grid(
    up: Scale,
    across: Scale,
    y: Callable[[float], float],
    x: Callable[[float | None], float],
    axis: Axis,
    missing: bool,
    endless: bool,
) -> Markup:
    body = Markup("")
    for tick in [up.low, *(t for t in up.ticks() if up(t) > 0.04)]:
        text = f"≤ {formats.number(up.low)}" if tick == up.low else formats.number(tick)
        body += Markup(
            '<line class="grid" x1="{}%" x2="{}%" y1="{y:.1f}" y2="{y:.1f}"/>'
            '<text class="tick" text-anchor="end" x="{}%" y="{:.1f}">{}</text>'
        ).format(_LEFT, _RIGHT, _LEFT - 1, y(tick) + 4, text, y=y(tick))
    for tick in across.ticks():
        body += Markup(
            '<line class="grid" x1="{x:.2f}%" x2="{x:.2f}%" y1="{}" y2="{}"/>'
            '<text class="tick" text-anchor="middle" x="{x:.2f}%" y="{}">{}</text>'
        ).format(_TOP, _FOOT, _FOOT + 17, formats.plain(axis.form(tick)), x=x(tick))
    if endless:
        body += Markup('<text class="tick" text-anchor="end" x="{}%" y="{}">∞</text>').format(_LEFT - 1, _TOP + 4)
    if missing:
        body += Markup('<text class="tick" text-anchor="middle" x="{:.2f}%" y="{}">{}</text>').format(
            x(None), _FOOT + 17, axis.missing
        )
    return body + Markup('<text class="tick" text-anchor="middle" x="{}%" y="{}">{}</text>').format(
        (_LEFT + _RIGHT) / 2, _HEIGHT - 8, f"{axis.title} →"
    )


_SHAPES = {
    "circle": Markup('<circle r="5.5"/>'),
    "square": Markup('<rect x="-5" y="-5" width="10" height="10"/>'),
    "triangle": Markup('<path d="M0,-6.5 6,5 -6,5Z"/>'),
    "diamond": Markup('<path d="M0,-7 7,0 0,7 -7,0Z"/>'),
    "cross": Markup('<path d="M-6,-2H-2V-6H2V-2H6V2H2V6H-2V2H-6Z"/>'),
    "ring": Markup('<path d="M-5,-3 0,-6 5,-3V3L0,6 -5,3Z"/>'),
}


def shape(kind: str) -> Markup:
    """A mark around the origin."""
    return _SHAPES[kind]


def legend(points: Sequence[Tried]) -> list[tuple[str, int, Markup]]:
    """(protection, number of its colour, mark) for every protection."""
    return [(by, i % len(_MARKS), shape(_MARKS[i % len(_MARKS)])) for i, by in enumerate(names(points))]


def _mark(
    one: Tried,
    kind: str,
    x: float,
    y: float,
    aside: float,
    good: bool,
    axis: Axis,
    value: float | None,
    error: float,
) -> Markup:
    spread = one.column("error")
    told = [one.id, f"error {'∞' if math.isinf(error) else formats.number(error)}"]
    if spread and spread.error:
        told[-1] += f" ± {formats.number(spread.error)}"
    told.append(f"{axis.title.lower()} {axis.missing if value is None else axis.form(value)}")
    told += [one.word] + (["Pareto-optimal"] if good else [])
    ring = Markup('<circle class="best" r="10.5"/>') if good else Markup("")
    # a nested svg takes per cent for its place; the mark itself is drawn around that point in pixels
    return Markup(
        '<svg class="point k{} {}" x="{:.2f}%" y="{:.1f}" overflow="visible" tabindex="0" role="img" '
        'aria-label="{told}" data-by="{}" data-row="{}" data-x="{}" data-y="{!r}" data-best="{}">'
        '<g transform="translate({:.1f} 0)">{}{}</g></svg>'
    ).format(
        _MARKS.index(kind), one.word.replace(" ", "-"), x, y, one.by, row_id(one), "" if value is None else repr(value),
        error, int(good), aside, ring, shape(kind), told="; ".join(told),
    )  # fmt: skip


def row_id(tried: Tried) -> str:
    """Names a technique's row in the page."""
    return f"r-{tried.tables.tried.index(tried)}"
