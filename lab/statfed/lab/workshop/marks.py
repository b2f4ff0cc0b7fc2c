"""Marks of a team's file, 0 to 100: each measure on a scale between two files that anybody can make.

*Utility.* 0 is what columns drawn independently of each other have (all relations lost), 100 what fresh records of the
same population have. Mean over the measures of the use. Of single columns alone (`hellinger`), 0 is what uniform
values of the codebook have. *Risk.* 0 is what is true of strangers too (an excess of 0, a membership of one half), 100
what the original itself has, handed in as if it were synthetic. The largest over the measures that the use sets a
limit for, and over the planted rare records: one attack that succeeds is enough.

A mark is read off a figure and has its error; the verdict beside it goes by whole intervals. Neither is a clearance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from statfed.core.synthesis import load_synthesis
from statfed.core.synthetic import membership
from statfed.core.synthetic.coded import Coded
from statfed.core.synthetic.evaluation import Asked, Evaluation, evaluate
from statfed.core.synthetic.guide import Use, guide
from statfed.core.synthetic.measured import Measured
from statfed.lab.workshop.contract import independent
from statfed.lab.workshop.folder import Workshop

SCALED = ("margins", "associations", "propensity-auc", "train-synthetic-test-real", "coefficients")
"""Measures of relations, which independent columns get wrong. `s-pmse` is judged by its limit alone: it has no end."""
_LEAST_SCALE = 0.02
"""Between both ends of a scale: where they are nearer, a measure tells nothing of this kit."""
PLANTED = "planted rare records"


@dataclass(frozen=True)
class Part:
    """What one measure adds. value: of the file; none, full: at 0 and at 100 points; points: 0 to 100."""

    measure: str
    about: str
    value: float
    none: float
    full: float
    points: float

    def __str__(self) -> str:
        about = f" ({self.about})" if self.about else ""
        title = guide().measure(self.measure).title.lower()
        ends = f"where {self.none:.3g} is 0 and {self.full:.3g} is 100"
        return f"{title}{about}: {self.value:.3g}, {ends}: {self.points:.0f}"


@dataclass(frozen=True)
class Mark:
    """value: 0 to 100, None where the use names no measure with a scale. parts: its reasons, largest points first."""

    kind: str
    value: float | None
    parts: tuple[Part, ...]
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"mark": self.value, "reason": self.reason, "parts": [asdict(one) for one in self.parts]}


@dataclass(frozen=True)
class Scale:
    """The ends: what independent (or uniform) columns have of utility, and the original itself of risk, by measure and
    what it is about."""

    low: Mapping[tuple[str, str], Measured]
    high: Mapping[tuple[str, str], Measured]


def marked_measures(use: Use) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of a use's measures that count for utility and for risk."""
    known = guide()
    limited = {limit.measure for limit in use.limits}
    utility = [name for name in use.measures if name in SCALED]
    utility += [name for name in use.measures if name == "hellinger" and name in limited]
    risk = [name for name in use.measures if name in limited and known.measure(name).kind == "risk"]
    return tuple(utility), tuple(risk)


def measured(table: Coded, workshop: Workshop, asked: Asked, more: Sequence[Measured] = ()) -> Evaluation:
    """A file evaluated for a use, attacks on planted records included. Deterministic in the kit and the file."""
    rng = np.random.default_rng(workshop.seed)
    planted = _planted(table, workshop) if "membership" in (asked.measures or guide().use(asked.use).measures) else ()
    return evaluate(workshop.original, table, workshop.fresh, asked, rng, more=(*more, *planted))


def _planted(table: Coded, workshop: Workshop) -> tuple[Measured, ...]:
    """Are planted records of the original told from others like them? All of both are attacked."""
    found = membership.membership(
        workshop.members, table, workshop.others, np.random.default_rng(workshop.seed), rare=1.0
    )
    return (replace(found, about=PLANTED),)


def scale(workshop: Workshop, asked: Asked, low: Sequence[Measured] = ()) -> Scale:
    """Both ends for a use. low: coefficients of independent columns, which are measured elsewhere."""
    use = guide().use(asked.use)
    utility, risk = marked_measures(use)
    rng = np.random.default_rng(workshop.seed)
    ends: dict[tuple[str, str], Measured] = {(one.name, one.about): one for one in low}
    relations = tuple(name for name in utility if name in SCALED)
    for names, table in (
        (relations, independent(workshop.original, rng)),
        (tuple(name for name in utility if name == "hellinger"), _uniform(workshop, rng)),
    ):
        if names:
            found = measured(table, workshop, replace(asked, measures=names)).measured
            ends |= {(one.name, one.about): one for one in found if one.name in names}
    top = measured(workshop.original, workshop, replace(asked, measures=risk)).measured if risk else ()
    return Scale(ends, {(one.name, one.about): one for one in top})


def marks(found: Evaluation, ends: Scale, obeying: float, passed_off: str) -> tuple[Mark, Mark]:
    """Of utility and risk. obeying: share of records that break no rule; passed_off: what the file is, if it is another
    one: its risk is 100, whatever was measured."""
    utility, risk = marked_measures(found.use)
    parts = [part for name in utility for one in _of(found, name) if (part := _useful(one, ends)) is not None]
    by_measure = [
        np.mean([part.points for part in parts if part.measure == name]) for name in utility if _in(name, parts)
    ]
    value = float(np.mean(by_measure)) * obeying if by_measure else None
    share = f", times {obeying:.3g}, the share of records that break no rule" if obeying < 1 else ""
    useful = Mark(
        "utility",
        None if value is None else round(value, 1),
        _sorted(parts),
        "no measure of this use has a scale" if value is None else f"mean over {len(by_measure)} measures{share}",
    )
    attacks = [part for name in risk for one in _of(found, name) if (part := _risky(one, ends)) is not None]
    most = max((part.points for part in attacks), default=None)
    worst = next((str(part) for part in attacks if part.points == most), "no measure of this use has a scale")
    if passed_off:
        most, worst = 100.0, f"it is {passed_off}"
    return useful, Mark("risk", None if most is None else round(most, 1), _sorted(attacks), worst)


def _of(found: Evaluation, name: str) -> list[Measured]:
    return [one for one in found.measured if one.name == name]


def _in(name: str, parts: Sequence[Part]) -> bool:
    return any(part.measure == name for part in parts)


def _sorted(parts: Sequence[Part]) -> tuple[Part, ...]:
    return tuple(sorted(parts, key=lambda part: -part.points))


def _useful(one: Measured, ends: Scale) -> Part | None:
    """Points of utility; None without a scale. Coefficients are best at 1, others at what fresh records have."""
    low = ends.low.get((one.name, one.about))
    full = 1.0 if one.name == "coefficients" else one.baseline
    return None if low is None or full is None else _part(one, one.value, low.value, full)


def _risky(one: Measured, ends: Scale) -> Part | None:
    """Points of risk; None where the original itself shows no more than strangers do, or nothing is known of them."""
    top = ends.high.get((one.name, one.about))
    if one.name == "membership":
        return None if top is None else _part(one, one.value, 0.5, top.value)
    if top is None or one.excess is None or top.excess is None:
        return None
    return _part(one, one.excess, 0.0, top.excess)


def _part(one: Measured, value: float, none: float, full: float) -> Part | None:
    if not np.isfinite([value, none, full]).all() or abs(full - none) < _LEAST_SCALE:
        return None
    points = float(np.clip((value - none) / (full - none), 0.0, 1.0)) * 100
    return Part(one.name, one.about, value, none, full, round(points, 1))


def _uniform(workshop: Workshop, rng: np.random.Generator) -> Coded:
    """As many records as the original, uniform over what the codebook allows; rules are not looked at."""
    module, codebook = load_synthesis("dummy"), workshop.codebook
    axes = module.fit(_nobody, codebook, module.Options())
    table = Coded(codebook, dict(module.generate(axes, codebook, workshop.original.count, rng)))
    return table.only(workshop.original.names)


def _nobody(analysis: str, **_: Any) -> Any:
    raise AssertionError(f"{analysis}: dummy asks nobody")
