"""An evaluation of synthetic data as documents: JSON, a table of figures, and a page.

The words are those of the guide; what is said of a measure, and where it misleads, stands beside its figure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from statfed.core import VERSION
from statfed.core.codebook import Codebook
from statfed.core.conditions import parse_where
from statfed.core.linkage import read_analysis, restricted
from statfed.core.method import load_method
from statfed.core.progress import Progress
from statfed.core.result import Row
from statfed.core.synthetic.details import FEWEST, Details
from statfed.core.synthetic.evaluation import Asked, Evaluation, Judged
from statfed.core.synthetic.guide import Limit, guide
from statfed.core.synthetic.measured import Measured
from statfed.core.synthetic.specific import coefficients
from statfed.core.synthetic.weights import by_weight
from statfed.federation.evaluation.apart import evaluate_apart
from statfed.federation.federation import Federation
from statfed.federation.synthetic import own_table

FORMAT = "statfed.evaluation/1"
FRESH = "fresh records of the same population"


def coefficients_of(
    original: Mapping[str, str], synthetic: Mapping[str, str], codebook: Codebook, models: Sequence[str]
) -> tuple[Measured, ...]:
    """Models fitted to both, each in one line as `ols income ~ age`, by the questions that holders are asked: the
    original may lie with several. By weight where the codebook has one (`statfed.core.synthetic.weights`). Raises
    UsageError where a line is none."""
    found = []
    for line in models:
        name, options = read_analysis(line)
        about, used = line, codebook
        if codebook.role("weight") is not None:
            fields = load_method(name).Options.model_fields
            weighted = "design" in fields and not {"design", "weight"} & {*options}
            options |= {"design": True} if weighted else {}
            used = by_weight(codebook) if weighted else codebook
            about += ", weighted" if weighted or {"design", "weight"} & {*options} else ", unweighted"
        results = []
        for sources in (original, synthetic):
            with Federation(sources, used) as federation:
                results.append(federation.ask(name, **options))
        found.append(replace(coefficients(results[0], results[1])[0], about=about))
    return tuple(found)


def of_holders(
    sources: Mapping[str, str],
    synthetic: Any,
    codebook: Codebook,
    asked: Asked,
    *,
    apart: str,
    models: Sequence[str],
    privacy: Any,
    protection: str,
    limits: Sequence[Limit],
    seed: int,
    progress: Progress,
) -> Evaluation:
    """An evaluation against several holders' records, by questions to them. synthetic: a path, frame or Arrow table."""
    used = names_beside(codebook, apart)
    made = own_table(synthetic, restricted(codebook, used), "synthetic")
    with Federation(sources, codebook, protection=protection, seed=seed, progress=progress) as federation:
        rng = np.random.default_rng(seed)
        return evaluate_apart(federation, made, asked, rng, apart=apart, models=models, privacy=privacy, limits=limits)


def names_beside(codebook: Codebook, apart: str) -> tuple[str, ...]:
    """The codebook's columns but those of a condition that only says which records were kept apart."""
    said = {name for clause in parse_where((apart,), codebook) for name in clause.columns} if apart else set()
    return tuple(name for name in codebook.columns if name not in said)


def to_dict(found: Evaluation, about: Mapping[str, Any]) -> dict[str, Any]:
    """The whole evaluation, ready for JSON; about: what was compared, for people."""
    original, synthetic, fresh = found.records
    return {
        "format": FORMAT,
        "version": VERSION,
        "about": dict(about),
        "use": found.use.id,
        "records": {"original": original, "synthetic": synthetic, "fresh": fresh},
        "verdict": {"utility": found.word("utility"), "risk": found.word("risk"), "sentence": found.sentence},
        "limits": [_judged(one) for one in found.judged],
        "measures": rows(found),
        "left_out": [{"measure": name, "reason": reason} for name, reason in found.left_out],
        "notes": [*found.notes, guide().challenge],
    }


def rows(found: Evaluation) -> list[Row]:
    """A row for every figure, with what it says and where it misleads."""
    known = guide()
    made: list[Row] = []
    for one in found.measured:
        measure = known.measure(one.name)
        made.append(
            {
                **one.row(),
                "title": measure.title,
                "reads": measure.reads,
                "misleads": measure.misleads,
                "source": measure.source,
            }
        )
    return made


def _judged(one: Judged) -> dict[str, Any]:
    limit = one.limit
    return {
        "measure": limit.measure,
        "figure": limit.figure,
        "most": limit.most,
        "least": limit.least,
        "value": None if one.measured is None else getattr(one.measured, limit.figure),
        "about": "" if one.measured is None else one.measured.about,
        "kept": one.kept,
        "reason": limit.reason,
    }


def render(found: Evaluation, about: Mapping[str, Any], told: Details | None = None) -> str:
    """The evaluation as one self-contained page. told: where the tables differ, for drawings; None: not drawn, as
    where the records stay with holders."""
    from statfed.federation.evaluation import drawn
    from statfed.federation.report import pages

    utility = [row for row in rows(found) if row["kind"] == "utility"]
    risk = [row for row in rows(found) if row["kind"] == "risk"]
    template = pages(__name__).get_template("evaluation.html.j2")
    words = {"utility": found.word("utility"), "risk": found.word("risk")}
    return template.render(
        found=found,
        words=words,
        about=dict(about),
        groups=[("Utility", utility), ("Disclosure risk", risk)],
        interval=interval,
        risks=drawn.risks(found),
        charts={} if told is None else drawn.of_details(told),
        told=told,
        keys=drawn.legends(),
        fewest=FEWEST,
        beside="records redrawn from the population" if guide().population.warning in found.notes else FRESH,
        judged=found.judged,
        titles={one.id: one.title for one in guide().measures},
        challenge=guide().challenge,
        version=VERSION,
    )


WIDTH, HEIGHT = 220, 22


def interval(row: Row) -> str:
    """A figure from 0 to 1 with its interval and baseline, as a small drawing; nothing for what has no such scale."""
    from markupsafe import Markup

    value = row["value"]
    ends: Sequence[Any] = (value, row["low"], row["high"], row["baseline"])
    known = [float(end) for end in ends if isinstance(end, int | float)]
    if not isinstance(value, int | float) or not known or min(known) < 0 or max(known) > 1:
        return Markup("")

    def x(share: float) -> float:
        return 4 + share * (WIDTH - 8)

    middle = HEIGHT / 2
    parts = [f'<line class="axis" x1="{x(0):g}" y1="{middle:g}" x2="{x(1):g}" y2="{middle:g}"/>']
    said = f"{float(value):.3g}"
    if isinstance(row["low"], int | float) and isinstance(row["high"], int | float):
        parts.append(
            f'<line class="band" x1="{x(float(row["low"])):.1f}" y1="{middle:g}" '
            f'x2="{x(float(row["high"])):.1f}" y2="{middle:g}"/>'
        )
        said += f", 95 % interval {float(row['low']):.3g} to {float(row['high']):.3g}"
    if isinstance(row["baseline"], int | float):
        at = x(float(row["baseline"]))
        parts.append(f'<line class="base" x1="{at:.1f}" y1="3" x2="{at:.1f}" y2="{HEIGHT - 3}"/>')
        said += f"; fresh records {float(row['baseline']):.3g}"
    parts.append(f'<circle class="dot" cx="{x(float(value)):.1f}" cy="{middle:g}" r="4"/>')
    return Markup(  # noqa: S704  # numbers and our own words
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{said}">'
        f"{''.join(parts)}</svg>"
    )
