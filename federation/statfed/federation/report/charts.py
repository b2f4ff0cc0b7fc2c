"""Charts as inline SVG: pure functions from figures to markup.

Horizontal positions are percentages of the chart's width and vertical ones pixels, so a chart fills its column at any
width while its text keeps its size. Colours are classes of report.css: light, dark and print need no second chart.
Every text passes through `Markup.format`, which escapes it.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from statfed.federation.report import formats

MOST_MARKERS = 60  # beyond, the points of a curve are drawn as a line only
MOST_COLUMNS = 48  # beyond, neighbouring rounds share a column
_LEFT, _RIGHT = 9.0, 63.0  # the plot of a curve, per cent of its width; its labels stand to the right
_GAP = 16.0  # pixels between the baselines of two labels


@dataclass(frozen=True)
class Reference:
    """A horizontal line to compare a curve with. `css` names its colour and dash."""

    label: str
    value: float
    css: str


@dataclass(frozen=True)
class Bar:
    """One bar; `low` to `high` is drawn as a whisker."""

    value: float
    css: str
    label: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Row:
    """Bars of one subject under a line of text; `limit` is drawn as an upright line across them."""

    label: str
    figure: str
    bars: tuple[Bar, ...]
    limit: float | None = None


@dataclass(frozen=True)
class Part:
    """A part of a whole."""

    label: str
    value: float
    css: str


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round values that cover `low` to `high` with at most about `most` steps.

    >>> ticks(0.0, 1.0)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    span = high - low
    if not math.isfinite(span) or span <= 0:
        span = abs(high) or 1.0
    raw = span / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]


def curve(key: str, title: str, series: Sequence[tuple[int, float]], references: Sequence[Reference]) -> Markup:
    """A score by round with reference lines. `series`: (round, share), in order of the rounds."""
    height, top, bottom = 250, 14.0, 212.0
    values = [v for _, v in series] + [r.value for r in references]
    marks = ticks(max(0.0, min(values)), min(1.0, max(values)))
    rounds = [n for n, _ in series]
    first, last = rounds[0], max(rounds[-1], rounds[0] + 1)

    def y(value: float) -> float:
        return bottom - (value - marks[0]) / (marks[-1] - marks[0]) * (bottom - top)

    def part(number: float) -> float:
        return (number - first) / (last - first)

    def x(number: float) -> float:
        return _LEFT + part(number) * (_RIGHT - _LEFT)

    grid = _join(
        Markup('<line class="grid" x1="{}%" x2="{}%" y1="{:.1f}" y2="{:.1f}"/>').format(_LEFT, _RIGHT, y(m), y(m))
        + Markup('<text class="tick" text-anchor="end" x="{}%" y="{:.1f}">{:g}</text>').format(
            _LEFT - 1.5, y(m) + 4, m * 100
        )
        for m in marks
    ) + _join(
        Markup('<text class="tick" text-anchor="middle" x="{:.2f}%" y="{:.1f}">{:.0f}</text>').format(
            x(m), bottom + 18, m
        )
        for m in ticks(first, last)
        if m == int(m) and first <= m <= last
    )
    line = " ".join(f"{part(n) * 1000:.1f},{y(v):.1f}" for n, v in series)
    lines = _join(
        Markup('<line class="line {}" x1="0" x2="1000" y1="{:.1f}" y2="{:.1f}"/>').format(r.css, y(r.value), y(r.value))
        for r in references
    ) + Markup('<polyline class="line c-federated" points="{}"/>').format(line)
    dots = _join(
        Markup('<circle class="dot c-federated" cx="{:.2f}%" cy="{:.1f}" r="3"><title>{}</title></circle>').format(
            x(n), y(v), f"round {n}: {formats.percent(v)}"
        )
        for n, v in (series if len(series) <= MOST_MARKERS else series[-1:])
    )
    ends = [Reference("Federated", series[-1][1], "c-federated"), *references]
    places = spread([y(end.value) for end in ends], _GAP, top, bottom)
    labels = _join(
        Markup('<polyline class="leader" points="0,{:.1f} 1000,{:.1f}"/>').format(y(end.value), place)
        for end, place in zip(ends, places, strict=True)
    )
    names = _join(
        Markup('<text class="label {}" x="{}%" y="{:.1f}">{} {:.1f}</text>').format(
            end.css, _RIGHT + 4, place + 4, end.label, end.value * 100
        )
        for end, place in zip(ends, places, strict=True)
    )
    told = ", ".join(f"{r.label.lower()} {formats.percent(r.value)}" for r in references)
    desc = (
        f"From {formats.percent(series[0][1])} at round {rounds[0]} to {formats.percent(series[-1][1])} at round "
        f"{rounds[-1]}." + (f" For comparison: {told}." if told else "")
    )
    body = (
        grid
        + _stretched(_LEFT, _RIGHT - _LEFT, height, lines)
        + dots
        + _stretched(_RIGHT + 0.5, 3, height, labels)
        + names
        + Markup('<text class="tick" text-anchor="middle" x="{}%" y="{}">round</text>').format(
            (_LEFT + _RIGHT) / 2, height - 2
        )
    )
    return chart(key, title, desc, height, body)


def rows(
    key: str,
    title: str,
    desc: str,
    items: Sequence[Row],
    form: Callable[[float], str],
    mark: Reference | None = None,
    top: float | None = None,
) -> Markup:
    """Horizontal bars, grouped by row, from zero to `top` (default: the largest value). `form` writes the axis."""
    finite = [v for row in items for b in row.bars for v in (b.value, b.high, row.limit) if v is not None]
    highest = top or max((v for v in [*finite, mark.value if mark else 0.0] if math.isfinite(v)), default=0.0) or 1.0
    marks = ticks(0.0, highest, 4)
    scale = 100.0 / marks[-1]
    apart = any(len(row.label) + len(row.figure) > 46 for row in items)
    body, cursor = Markup(""), 4.0
    for row in items:
        cursor += 14
        body += Markup(
            '<text class="label" x="0" y="{:.1f}">{}<title>{}</title><tspan class="figure"{}>{}</tspan></text>'
        ).format(
            cursor,
            formats.short(row.label, 46),
            row.label,
            Markup(' x="0" dy="16"') if apart else Markup(' dx="10"'),
            row.figure,
        )
        cursor += 7 + 16 * apart
        start = cursor
        for bar in row.bars:
            body += _bar(bar, cursor, scale)
            cursor += 11
        if row.limit is not None and math.isfinite(row.limit):
            body += _upright("limit", row.limit * scale, start - 2, cursor + 1)
        if mark:
            body += _upright(f"line {mark.css}", mark.value * scale, start - 2, cursor)
        cursor += 9
    foot = cursor
    grid = _join(_upright("grid", m * scale, 4, foot) for m in marks)
    axis = _join(
        Markup('<text class="tick" text-anchor="{}" x="{:.2f}%" y="{:.1f}">{}</text>').format(
            "start" if m == marks[0] else "end" if m == marks[-1] else "middle",
            m * scale,
            foot + 16,
            formats.plain(form(m)),
        )
        for m in marks
    )
    return chart(key, title, desc, math.ceil(foot + 22), grid + body + axis)


def _bar(bar: Bar, y: float, scale: float) -> Markup:
    finite = math.isfinite(bar.value)
    drawn = Markup('<rect class="bar {}" x="0" y="{:.1f}" width="{:.2f}%" height="9" rx="1"><title>{}</title></rect>')
    body = drawn.format(
        bar.css if finite else "unbounded", y, min(max(bar.value, 0.0) * scale, 100.0) if finite else 100.0, bar.label
    )
    if bar.low is not None and bar.high is not None:
        body += Markup('<line class="whisker" x1="{:.2f}%" x2="{:.2f}%" y1="{:.1f}" y2="{:.1f}"/>').format(
            bar.low * scale, bar.high * scale, y + 4.5, y + 4.5
        ) + _join(_upright("whisker", end * scale, y + 1.5, y + 7.5) for end in (bar.low, bar.high))
    return body


def matrix(key: str, title: str, classes: Sequence[str], counts: Sequence[Sequence[int]]) -> Markup:
    """A confusion matrix: counts with the share of their row. Rows are true classes, columns assigned ones.

    The grid has a fixed size: its container scrolls. Depth of colour is share^0.6, so that rare errors are seen.
    """
    small = len(classes) > 16
    cell, names = (40 if small else 58), [formats.short(c, 24) for c in classes]
    left = 24 + min(24, max(len(n) for n in names)) * 6.7
    head = 44 + min(24, max(len(n) for n in names)) * 4.9
    width, height = left + cell * len(classes) + max(60.0, head * 0.8), head + cell * len(classes) + 8
    body = Markup('<text class="tick" x="0" y="14">true class ↓   assigned class →</text>')
    for i, name in enumerate(names):
        x, y = left + (i + 0.5) * cell, head + (i + 0.5) * cell
        body += Markup('<text class="label" text-anchor="end" x="{:.1f}" y="{:.1f}">{}<title>{}</title></text>').format(
            left - 8, y + 4, name, classes[i]
        )
        body += Markup('<text class="label" transform="translate({:.1f} {:.1f}) rotate(-45)">{}</text>').format(
            x, head - 8, name
        )
    for i, line in enumerate(counts):
        total = sum(line)
        for j, n in enumerate(line):
            share = n / total if total else 0.0
            x, y = left + j * cell, head + i * cell
            kind = "right" if i == j else "wrong"
            body += Markup(
                '<g class="cell"><title>{}</title><rect class="base" x="{x:.1f}" y="{y:.1f}" width="{w}" height="{w}"/>'
                '<rect class="{k}" fill-opacity="{s:.3f}" x="{x:.1f}" y="{y:.1f}" width="{w}" height="{w}"/>'
            ).format(
                f"{classes[i]} taken for {classes[j]}: {n:,} of {total:,}, {formats.percent(share)}",
                k=kind, s=share**0.6, x=x, y=y, w=cell - 2,
            )  # fmt: skip
            middle = x + cell / 2 - 1
            body += Markup('<text class="count{}" text-anchor="middle" x="{:.1f}" y="{:.1f}">{:,}</text>').format(
                "" if n else " none", middle, y + cell / 2 - (2 if n and not small else -3), n
            )
            if n and not small:
                body += Markup('<text class="share" text-anchor="middle" x="{:.1f}" y="{:.1f}">{}</text>').format(
                    middle, y + cell / 2 + 13, formats.percent(share)
                )
            body += Markup("</g>")
    right = sum(counts[i][i] for i in range(len(classes)))
    everything = sum(map(sum, counts))
    desc = f"{right:,} of {everything:,} records on the diagonal, that is classified correctly; counts and row shares."
    return chart(key, title, desc, math.ceil(height), body, math.ceil(width))


def stack(key: str, title: str, parts: Sequence[Part], form: Callable[[float], str]) -> Markup:
    """One bar divided into parts. Parts below a thousandth of the whole are too thin to see; the table has them."""
    whole = math.fsum(max(p.value, 0.0) for p in parts) or 1.0
    body, left = Markup(""), 0.0
    for part in parts:
        width = max(part.value, 0.0) / whole * 100
        name = f"{part.label}: {form(part.value)}, {formats.percent(part.value / whole)}"
        body += Markup(
            '<rect class="segment {}" x="{:.3f}%" y="2" width="{:.3f}%" height="34"><title>{}</title></rect>'
        ).format(part.css, left, width, name)
        left += width
    desc = "; ".join(f"{p.label} {form(p.value)}" for p in parts) + "."
    return chart(key, title, desc, 38, body)


def columns(
    key: str,
    title: str,
    rounds: Sequence[int],
    series: Sequence[tuple[str, str, Sequence[float]]],
    form: Callable[[float], str],
) -> Markup:
    """Stacked columns by round. `series`: (name, css, one value per round). Many rounds: means of neighbours."""
    left, height, top, bottom = 16.0, 190, 14.0, 152.0
    share = math.ceil(len(rounds) / MOST_COLUMNS) or 1
    groups = [range(i, min(i + share, len(rounds))) for i in range(0, len(rounds), share)]
    stacks = [[math.fsum(values[i] for i in group) / len(group) for _, _, values in series] for group in groups]
    marks = ticks(0.0, max((math.fsum(s) for s in stacks), default=0.0) or 1.0, 3)
    step = (100 - left) / max(len(groups), 1)
    grid = _join(
        Markup('<line class="grid" x1="{}%" x2="100%" y1="{:.1f}" y2="{:.1f}"/>').format(left, at, at)
        + Markup('<text class="tick" text-anchor="end" x="{}%" y="{:.1f}">{}</text>').format(
            left - 1.5, at + 4, formats.plain(form(m))
        )
        for m in marks
        for at in [bottom - m / marks[-1] * (bottom - top)]
    )
    body, every = Markup(""), math.ceil(len(groups) / 10) or 1
    for place, (group, values) in enumerate(zip(groups, stacks, strict=True)):
        name = f"round {rounds[group[0]]}" + (f" to {rounds[group[-1]]}, mean" if len(group) > 1 else "")
        base = bottom
        for (label, css, _), value in zip(series, values, strict=True):
            tall = max(value, 0.0) / marks[-1] * (bottom - top)
            base -= tall
            body += Markup(
                '<rect class="bar {}" x="{:.3f}%" y="{:.2f}" width="{:.3f}%" height="{:.2f}"><title>{}</title></rect>'
            ).format(
                css, left + (place + 0.14) * step, base, min(step * 0.72, 9.0), tall, f"{name}, {label}: {form(value)}"
            )
        if place % every == 0:
            body += Markup('<text class="tick" text-anchor="middle" x="{:.2f}%" y="{:.1f}">{}</text>').format(
                left + (place + 0.14) * step + min(step * 0.72, 9.0) / 2, bottom + 17, rounds[group[0]]
            )
    body += Markup('<text class="tick" text-anchor="middle" x="{}%" y="{}">round</text>').format(
        left + (100 - left) / 2, height - 3
    )
    desc = "; ".join(f"{label}: {form(math.fsum(values))} over {len(rounds)} rounds" for label, _, values in series)
    return chart(key, title, desc + ".", height, grid + body)


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions as near to `wanted` as keeps them `gap` apart and, where there is room, within `low` to `high`.

    >>> spread([10.0, 11.0, 50.0], 16.0, 0.0, 60.0)
    [10.0, 26.0, 50.0]
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    places = [min(max(wanted[i], low), high) for i in order]
    for i, j in pairwise(range(len(places))):
        places[j] = max(places[j], places[i] + gap)
    if places and places[-1] > high:
        places[-1] = high
        for i in range(len(places) - 2, -1, -1):
            places[i] = min(places[i], places[i + 1] - gap)
    result = [0.0] * len(wanted)
    for place, i in zip(places, order, strict=True):
        result[i] = place
    return result


def _upright(css: str, x: float, top: float, bottom: float) -> Markup:
    return Markup('<line class="{}" x1="{x:.2f}%" x2="{x:.2f}%" y1="{:.1f}" y2="{:.1f}"/>').format(
        css, top, bottom, x=x
    )


def _stretched(left: float, width: float, height: int, body: Markup) -> Markup:
    """Lines drawn on a grid 1000 wide that is stretched to `width` per cent; strokes keep their width."""
    return Markup(
        '<svg x="{}%" y="0" width="{}%" height="{h}" viewBox="0 0 1000 {h}" preserveAspectRatio="none" '
        'overflow="visible">{}</svg>'
    ).format(left, width, body, h=height)


def chart(key: str, title: str, desc: str, height: int, body: Markup, width: int | None = None) -> Markup:
    """An SVG of `height` pixels that fills its column, with a title and a description for who cannot see it."""
    return Markup(
        '<svg class="chart" role="img" aria-labelledby="{key}-title {key}-desc" width="{width}" height="{height}" '
        'xmlns="http://www.w3.org/2000/svg"><title id="{key}-title">{title}</title>'
        '<desc id="{key}-desc">{desc}</desc>{body}</svg>'
    ).format(key=key, title=title, desc=desc, width=width or "100%", height=height, body=body)


def _join(parts: Iterable[Markup]) -> Markup:
    return Markup("").join(parts)
