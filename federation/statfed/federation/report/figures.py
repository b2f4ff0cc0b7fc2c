"""Charts of results, chosen by the shape of their rows: intervals, bins, curves, confusion.

Which rows belong together says the result: columns that say which row it is (`Result.places`), less the chart's own
axis. No chart joins or overlays rows of different groups.
"""

import math
from collections.abc import Sequence

from markupsafe import Markup

from statfed.core.result import Result, Row
from statfed.core.terms import Terms
from statfed.federation.report import charts, formats
from statfed.federation.report.steps import Group, Step, steps

MOST = 40  # rows of a chart; beyond, the table says it better
MOST_GROUPS = 12  # histograms below one another; beyond, the table says it better
_VALUES = ("estimate", "mean", "accuracy", "rmse", "total")


def of(result: Result, terms: Terms | None = None) -> dict[str, Markup]:
    """Caption to chart, for what can be drawn; empty when nothing can. terms: names and units of axes."""
    made: dict[str, Markup] = {}
    for name, rows in result.tables.items():
        if not rows:
            continue
        if {"class", "predicted", "count"} <= rows[0].keys():
            made["Confusion matrix"] = _confusion(rows)
        elif {"lower", "upper", "density"} <= rows[0].keys():
            made |= _histograms(result, name, terms)
        elif {"time", "survival"} <= rows[0].keys():
            made["Baseline survival" if name == "baseline" else "Survival"] = _survival(result, name, terms)
        elif "std_error" in rows[0] and len(rows) <= MOST and name == result.main:
            chart = _intervals(result, rows)
            if chart:
                made["Estimates with 95 % intervals"] = chart
    return made


def groups_of(result: Result, table: str, axis: Sequence[str]) -> dict[str, list[Row]]:
    """Rows by what they are of, in order: the values of the table's places without those of the axis."""
    names = [key for key in result.places(table) if key not in axis]
    found: dict[str, list[Row]] = {}
    for row in result.tables[table]:
        values = ["all" if row.get(key) is None else str(row[key]) for key in names]
        label = ", ".join(values if len(names) == 1 else (f"{k} {v}" for k, v in zip(names, values, strict=True)))
        found.setdefault(label, []).append(row)
    return found


def _titled(terms: Terms | None, option: str, otherwise: str) -> str:
    """The column that an option names, with its unit."""
    name = str((terms.options.get(option) if terms else None) or otherwise)
    column = terms.codebook.columns.get(name) if terms else None
    unit = column.unit if column else ""
    return f"{name} ({unit})" if unit else name


def _intervals(result: Result, rows: Sequence[Row]) -> Markup | None:
    value = next((k for k in _VALUES if k in rows[0]), None)
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
    title = Markup('<text class="axis x" text-anchor="middle" x="50%" y="{:.1f}">{}</text>').format(y + 32, value)
    desc = f"{len(items)} estimates"
    return _chart("intervals", "Estimates with 95 % intervals", desc, y + 38, grid + body + title)


def _label(result: Result, row: Row) -> str:
    places = result.places(result.main)
    return ", ".join(str(row[k]) for k in places if row.get(k) is not None) or "all"


def _confusion(rows: Sequence[Row]) -> Markup:
    """Records of a true class by assigned class. Counts with noise may be below none: those are shown as none."""
    classes = list(dict.fromkeys(str(row["class"]) for row in rows))
    found = {(row["class"], row["predicted"]): max(0, int(row["count"] or 0)) for row in rows}
    counts = [[found.get((true, taken), 0) for taken in classes] for true in classes]
    return charts.matrix("released-confusion", "Confusion matrix of the model", classes, counts)


def _histograms(result: Result, table: str, terms: Terms | None) -> dict[str, Markup]:
    """A histogram a group, on common axes."""
    groups = groups_of(result, table, ("bin", "lower", "upper"))
    every = [row for rows in groups.values() for row in rows]
    span = min(_number(row["lower"]) for row in every), max(_number(row["upper"]) for row in every)
    top = max(_number(row["density"]) for row in every) or 1.0
    names = _titled(terms, "column", "value")
    made = {}
    for place, (label, rows) in enumerate(list(groups.items())[:MOST_GROUPS]):
        caption = f"Distribution: {label}" if label else "Distribution"
        made[caption] = _bins(f"bins-{place}" if label else "bins", caption, rows, span, top, names)
    return made


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _bins(key: str, title: str, rows: Sequence[Row], span: tuple[float, float], top: float, x_title: str) -> Markup:
    """Densities of one group, as areas."""
    left, wide = span[0], (span[1] - span[0]) or 1.0

    def height(row: Row) -> float:
        return 186 * max(0.0, _number(row["density"])) / top

    bars = Markup("").join(
        Markup(
            '<rect class="bar c-federated segment" x="{:.3f}%" width="{:.3f}%" y="{:.1f}" height="{:.1f}">'
            "<title>{:g} to {:g}: {}</title></rect>"
        ).format(
            100 * (_number(row["lower"]) - left) / wide,
            100 * (_number(row["upper"]) - _number(row["lower"])) / wide,
            204 - height(row),
            height(row),
            row["lower"],
            row["upper"],
            "withheld" if row["count"] is None else row["count"],
        )
        for row in rows
    )
    axis = Markup(
        '<text class="tick" x="0" y="222">{:g}</text><text class="tick" text-anchor="end" x="100%" y="222">{:g}</text>'
        '<text class="axis x" text-anchor="middle" x="50%" y="222">{}</text><text class="axis y" x="0" y="12">{}</text>'
    ).format(*span, x_title, f"density, up to {top:.3g}")
    return _chart(key, title, f"{len(rows)} bins", 228, bars + axis)


def _survival(result: Result, table: str, terms: Terms | None) -> Markup:
    groups = [
        Group(label, tuple(_step(row) for row in rows if row.get("time") is not None), _beyond(rows[-1]))
        for label, rows in groups_of(result, table, ("time",)).items()
    ]
    return steps(f"survival-{table}", "Survival", _titled(terms, "time", "time"), "Probability of survival", groups)


def _beyond(row: Row) -> float | None:
    """Records that are still there after the last interval."""
    found = [row.get(key) for key in ("at_risk", "events", "censored")]
    numbers = [float(value) for value in found if isinstance(value, int | float)]
    return numbers[0] - numbers[1] - numbers[2] if len(numbers) == len(found) else None


def _step(row: Row) -> Step:
    def figure(key: str) -> float | None:
        value = row.get(key)
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None

    return Step(figure("time") or 0.0, figure("survival"), figure("lower"), figure("upper"), figure("at_risk"))


def _chart(key: str, title: str, desc: str, height: float, body: Markup) -> Markup:
    return charts.chart(key, title, desc, math.ceil(height), body)
