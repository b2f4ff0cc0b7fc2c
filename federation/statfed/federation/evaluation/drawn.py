"""Drawings of an evaluation: risks with intervals, pairs of columns as heat maps, columns by themselves.

Charts are those of reports (`statfed.federation.report.charts`): colours by class, no script, a description that says
the finding. What of the original is shown, and how coarsely, is `statfed.core.synthetic.details`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from statfed.core.synthetic.details import FEWEST, Details, Distribution
from statfed.core.synthetic.evaluation import Evaluation
from statfed.core.synthetic.guide import Limit, guide
from statfed.core.synthetic.measured import Measured
from statfed.federation.report import charts, formats

MOST_RISKS, MOST_LEVELS = 40, 24
_CELL, _TOP = 44, 26.0


@dataclass(frozen=True)
class _Risk:
    """A risk on the axis from 0 to 1. limit: the value at which the limit of the use is met."""

    label: str
    measured: Measured
    limit: float | None
    kept: bool | None


def risks(found: Evaluation) -> Markup:
    """Every measure of risk as a dot with its interval, beside fresh records and its limit; nothing without any.

    A limit on an excess e of attacks is drawn where the value has it: baseline + e (1 - baseline).
    """
    rows = [_risk(one, found) for one in found.measured if one.kind == "risk"]
    told = [one for one in rows if 0 <= one.measured.value <= 1][:MOST_RISKS]
    if not told:
        return Markup("")
    body, y = Markup(""), _TOP
    for one in told:
        body += _drawn(one, y)
        y += 40
    marks = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    grid = Markup("").join(
        Markup(
            '<line class="grid" x1="{x:.2f}%" x2="{x:.2f}%" y1="4" y2="{:.1f}"/>'
            '<text class="tick" text-anchor="{}" x="{x:.2f}%" y="{:.1f}">{:g}</text>'
        ).format(y - 10, "start" if mark == 0 else "end" if mark == 1 else "middle", y + 6, mark, x=100 * mark)
        for mark in marks
    )
    broken = [one for one in told if one.kept is False]
    opened = sum(one.kept is None for one in told if one.limit is not None)
    words = f"{len(broken)} of {len(told)} figures of risk break a limit"
    words += f": {'; '.join(_words(one) for one in broken)}" if broken else ""
    words += f". {opened} more have an interval that reaches beyond it." if opened else "."
    return charts.chart(
        "risks", "Figures of risk, their fresh baselines and limits", words, math.ceil(y + 12), grid + body
    )


def _risk(one: Measured, found: Evaluation) -> _Risk:
    title = guide().measure(one.name).title
    limits = [limit for limit in found.use.limits if limit.measure == one.name and limit.most is not None]
    limit = limits[0] if limits else None
    label = f"{title}: {one.about}" if one.about else title
    return _Risk(label, one, _place(limit, one), None if limit is None else limit.kept(one))


def _place(limit: Limit | None, one: Measured) -> float | None:
    if limit is None or limit.most is None:
        return None
    if limit.figure == "value":
        return limit.most
    if one.baseline is None:
        return None
    return one.baseline + limit.most * (1.0 if one.name == "membership" else 1.0 - one.baseline)


def _words(one: _Risk) -> str:
    measured = one.measured
    between = "" if measured.low is None or measured.high is None else f" ({measured.low:.2f} to {measured.high:.2f})"
    limit = "" if one.limit is None else f", limit {one.limit:.3g}"
    return f"{one.label} {measured.value:.2f}{between}{limit}"


def _drawn(one: _Risk, y: float) -> Markup:
    measured = one.measured
    body = Markup('<text class="label" x="0" y="{:.1f}">{}<title>{}</title></text>').format(
        y - 8, formats.short(one.label, 80), one.label
    )
    if measured.low is not None and measured.high is not None:
        ends = (100 * min(max(end, 0.0), 1.0) for end in (measured.low, measured.high))
        body += Markup('<line class="whisker" x1="{:.2f}%" x2="{:.2f}%" y1="{y:.1f}" y2="{y:.1f}"/>').format(
            *ends, y=y + 5
        )
    for css, at in (("line c-pooled", measured.baseline), ("limit", one.limit)):
        if at is not None and 0 <= at <= 1:
            body += Markup('<line class="{}" x1="{x:.2f}%" x2="{x:.2f}%" y1="{:.1f}" y2="{:.1f}"/>').format(
                css, y - 3, y + 13, x=100 * at
            )
    return body + Markup(
        '<circle class="dot c-federated" cx="{:.2f}%" cy="{:.1f}" r="4"><title>{}</title></circle>'
    ).format(100 * measured.value, y + 5, _words(one))


def of_details(told: Details) -> Mapping[str, Markup]:
    """Caption to drawing: two heat maps, and a chart a column where distributions were asked for."""
    made: dict[str, Markup] = {}
    if len(told.names) > 1:
        made["Distance of the margins of two columns"] = _heat("distances", "Distance of margins", told, told.distances)
        made["Difference of associations of two columns"] = _heat(
            "associations", "Difference of associations", told, told.associations
        )
    for place, one in enumerate(told.distributions):
        made[f"Distribution: {one.name}"] = _distribution(place, one)
    return made


def _heat(key: str, title: str, told: Details, values: NDArray[np.float64]) -> Markup:
    """Pairs of columns by depth of colour, which is share^0.6, so that small ones are seen; the figure in each cell."""
    names = [formats.short(name, 24) for name in told.names]
    left = 14 + max(len(name) for name in names) * 6.7
    head = 30 + max(len(name) for name in names) * 4.9
    body = Markup("")
    for i, name in enumerate(names):
        body += Markup('<text class="label" text-anchor="end" x="{:.1f}" y="{:.1f}">{}<title>{}</title></text>').format(
            left - 8, head + (i + 0.5) * _CELL + 4, name, told.names[i]
        ) + Markup('<text class="label" transform="translate({:.1f} {:.1f}) rotate(-45)">{}</text>').format(
            left + (i + 0.5) * _CELL, head - 8, name
        )
        for j in range(len(names)):
            body += _cell(told.names[i], told.names[j], values[i, j], left + j * _CELL, head + i * _CELL)
    width = left + _CELL * len(names) + head * 0.8
    return charts.chart(
        key, title, _said(told, values), math.ceil(head + _CELL * len(names) + 8), body, math.ceil(width)
    )


def _cell(first: str, second: str, value: float, x: float, y: float) -> Markup:
    known = math.isfinite(value)
    body = Markup(
        '<g class="cell"><title>{}</title><rect class="base" x="{x:.1f}" y="{y:.1f}" width="{w}" height="{w}"/>'
        '<rect class="wrong" fill-opacity="{:.3f}" x="{x:.1f}" y="{y:.1f}" width="{w}" height="{w}"/>'
    ).format(
        f"{first} with {second}: {f'{value:.2f}' if known else 'none'}",
        min(max(value, 0.0), 1.0) ** 0.6 if known else 0.0,
        x=x, y=y, w=_CELL - 2,
    )  # fmt: skip
    text = Markup('<text class="share" text-anchor="middle" x="{:.1f}" y="{:.1f}">{}</text></g>')
    return body + text.format(x + _CELL / 2 - 1, y + _CELL / 2 + 3, f"{value:.2f}" if known else formats.DASH)


def _said(told: Details, values: NDArray[np.float64]) -> str:
    """The finding: the farthest pair and the middle one."""
    pairs = [(values[i, j], i, j) for i in range(len(values)) for j in range(i) if math.isfinite(values[i, j])]
    if not pairs:
        return "No two columns vary together in both tables."
    worst, i, j = max(pairs)
    middle = float(np.median([value for value, _, _ in pairs]))
    words = f"Farthest: {told.names[j]} with {told.names[i]}, {worst:.2f}; half of the {len(pairs)} pairs are at most "
    words += f"{middle:.2f}."
    hidden = told.columns - len(told.names)
    return words + (f" {hidden} columns that are nearer are not shown." if hidden else "")


def _distribution(place: int, one: Distribution) -> Markup:
    """Bars of the original and the synthetic records by level. Where there are many, the commonest in the synthetic."""
    kept = sorted(range(len(one.shares)), key=lambda i: -one.shares[i].synthetic)[:MOST_LEVELS]
    rows = [_row(one, i) for i in sorted(kept)]
    told = [(abs(share.synthetic - share.original), share) for share in one.shares if share.original is not None]
    withheld = len(one.shares) - len(told)
    words = "Nothing of the original is shown."
    if told:
        apart, share = max(told, key=lambda pair: pair[0])
        words = f"Farthest: {share.label}, {formats.percent(share.synthetic)} synthetic and "
        words += f"{formats.percent(share.original)} original, {100 * apart:.1f} points apart."
    words += f" {withheld} classes of fewer than {FEWEST} original records are withheld." if withheld else ""
    hidden = len(one.shares) - len(kept)
    words += f" {hidden} rarer levels are not drawn." if hidden else ""
    return charts.rows(f"column-{place}", f"Distribution of {one.name}", words, rows, formats.percent)


def _row(one: Distribution, place: int) -> charts.Row:
    share = one.shares[place]
    made = formats.percent(share.synthetic)
    bars = [charts.Bar(share.synthetic, "c-federated", f"synthetic: {made}")]
    own = "withheld"
    if share.original is not None:
        own = f"about {formats.percent(share.original)}"
        bars.insert(0, charts.Bar(share.original, "c-pooled", f"original: {own}"))
    return charts.Row(share.label, f"original {own}, synthetic {made}", tuple(bars))


def legends() -> Sequence[tuple[str, str]]:
    """Class of a key and what it stands for, of distributions."""
    return (("c-pooled", "original, rounded"), ("c-federated", "synthetic"))
