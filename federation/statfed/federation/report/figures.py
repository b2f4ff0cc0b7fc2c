"""Charts of results, chosen by the shape of their rows: intervals, bins, curves, confusion."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from statfed.core.result import Result, Row
from statfed.federation.report import charts, formats

MOST = 40  # rows of a chart; beyond, the table says it better
_COLOURS = ("c-federated", "c-pooled", "c-mean", "c-best")


def of(result: Result) -> dict[str, Markup]:
    """Caption to chart, for what can be drawn; empty when nothing can."""
    made: dict[str, Markup] = {}
    for name, rows in result.tables.items():
        if not rows:
            continue
        if {"class", "predicted", "count"} <= rows[0].keys():
            made["Confusion matrix"] = _confusion(rows)
        elif {"lower", "upper", "density"} <= rows[0].keys():
            made["Distribution"] = _bins(rows)
        elif {"time", "survival"} <= rows[0].keys():
            made["Survival"] = _survival(rows)
        elif "std_error" in rows[0] and len(rows) <= MOST and name == result.main:
            chart = _intervals(result, rows)
            if chart:
                made["Estimates with 95 % intervals"] = chart
    return made


def _intervals(result: Result, rows: Sequence[Row]) -> Markup | None:
    value = next((k for k in ("estimate", "mean", "accuracy", "rmse", "total") if k in rows[0]), None)
    if value is None:
        return None
    limits = result.conf_int().to_dict("records")
    items = []
    for row, limit in zip(rows, limits, strict=True):
        ends = (limit["lower"], limit["upper"], row[value])
        if all(isinstance(end, int | float) and math.isfinite(end) for end in ends):
            items.append((_label(result, row), float(row[value] or 0), float(ends[0]), float(ends[1])))
    if not items:
        return None
    low, high = min(i[2] for i in items), max(i[3] for i in items)
    marks = charts.ticks(low, high, 4)
    span = (marks[-1] - marks[0]) or 1.0

    def x(number: float) -> float:
        return 100.0 * (number - marks[0]) / span

    body, y = Markup(""), 4.0
    for label, estimate, lower, upper in items:
        body += Markup('<text class="label" x="0" y="{:.1f}">{}</text>').format(y + 12, formats.short(label, 60))
        body += Markup(
            '<line class="whisker" x1="{:.2f}%" x2="{:.2f}%" y1="{y:.1f}" y2="{y:.1f}"/>'
            '<circle class="dot c-federated" cx="{:.2f}%" cy="{y:.1f}" r="4"><title>{}</title></circle>'
        ).format(x(lower), x(upper), x(estimate), f"{label}: {estimate:.6g} ({lower:.6g} to {upper:.6g})", y=y + 22)
        y += 34
    grid = Markup("").join(
        Markup(
            '<line class="grid" x1="{x:.2f}%" x2="{x:.2f}%" y1="4" y2="{:.1f}"/>'
            '<text class="tick" text-anchor="{}" x="{x:.2f}%" y="{:.1f}">{:g}</text>'
        ).format(y, "start" if m == marks[0] else "end" if m == marks[-1] else "middle", y + 16, m, x=x(m))
        for m in marks
    )
    return _chart("intervals", "Estimates with 95 % intervals", f"{len(items)} estimates", y + 22, grid + body)


def _label(result: Result, row: Row) -> str:
    keys = [k for k in ("name", "column", "group", *result.by) if k in row]
    return ", ".join(str(row[k]) for k in keys if row[k] is not None) or "all"


def _confusion(rows: Sequence[Row]) -> Markup:
    """Records of a true class by assigned class. Counts with noise may be below none: those are shown as none."""
    classes = list(dict.fromkeys(str(row["class"]) for row in rows))
    found = {(row["class"], row["predicted"]): max(0, int(row["count"] or 0)) for row in rows}
    counts = [[found.get((true, taken), 0) for taken in classes] for true in classes]
    return charts.matrix("released-confusion", "Confusion matrix of the model", classes, counts)


def _bins(rows: Sequence[Row]) -> Markup:
    heights = [max(0.0, float(row["density"] or 0)) for row in rows]
    edges = [(float(row["lower"] or 0), float(row["upper"] or 0)) for row in rows]
    top, left, right = max(heights) or 1.0, edges[0][0], max(e[1] for e in edges)
    span = (right - left) or 1.0
    bars = Markup("").join(
        Markup(
            '<rect class="bar c-federated segment" x="{:.3f}%" width="{:.3f}%" y="{:.1f}" height="{:.1f}">'
            "<title>{:g} to {:g}: {}</title></rect>"
        ).format(
            100 * (lo - left) / span, 100 * (hi - lo) / span, 204 - 196 * h / top, 196 * h / top, lo, hi, row["count"]
        )
        for (lo, hi), h, row in zip(edges, heights, rows, strict=True)
    )
    ends = Markup(
        '<text class="tick" x="0" y="222">{:g}</text><text class="tick" text-anchor="end" x="100%" y="222">{:g}</text>'
    )
    return _chart("bins", "Distribution", f"{len(rows)} bins", 228, bars + ends.format(left, right))


def _survival(rows: Sequence[Row]) -> Markup:
    groups = sorted({str(row.get("group")) for row in rows})
    last = max(float(row["time"] or 0) for row in rows) or 1.0
    body = Markup("")
    for place, group in enumerate(groups[: len(_COLOURS)]):
        points, height = ["0,8"], 8.0
        for row in rows:
            if str(row.get("group")) == group and row["survival"] is not None:
                x = 1000 * float(row["time"] or 0) / last
                points.append(f"{x:.1f},{height:.1f}")
                height = 8 + 196 * (1 - float(row["survival"]))
                points.append(f"{x:.1f},{height:.1f}")
        body += Markup('<polyline class="line {}" points="{}"><title>{}</title></polyline>').format(
            _COLOURS[place], " ".join(points), group
        )
    drawn = Markup('<svg width="100%" height="228" viewBox="0 0 1000 228" preserveAspectRatio="none">{}</svg>')
    names = Markup("").join(
        Markup('<text class="label {}" text-anchor="end" x="100%" y="{}">{}</text>').format(
            _COLOURS[i], 18 + 15 * i, formats.short(group, 40)
        )
        for i, group in enumerate(groups[: len(_COLOURS)])
        if len(groups) > 1
    )
    ends = Markup(
        '<text class="tick" x="0" y="222">0</text><text class="tick" text-anchor="end" x="100%" y="222">{:g}</text>'
    )
    return _chart("survival", "Survival", f"{len(groups)} curves", 228, drawn.format(body) + names + ends.format(last))


def _chart(key: str, title: str, desc: str, height: float, body: Markup) -> Markup:
    return charts.chart(key, title, desc, math.ceil(height), body)
