"""A synthetic table evaluated for a use: the measures that the guide names, its limits, and what they say in words.

Never a clearance. What is found is evidence against a use, or none found by these measures; whoever releases decides.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from statfed.core.errors import UsageError
from statfed.core.progress import Progress, silent
from statfed.core.synthetic import attacks, membership, population, specific, targets, utility, weights
from statfed.core.synthetic.coded import Coded
from statfed.core.synthetic.guide import Limit, Use, guide
from statfed.core.synthetic.measured import Measured

Word = Literal["evidence against", "no evidence against", "not enough evidence", "not judged"]
Plan = dict[str, Callable[[], list[Measured]]]
"""What is done for each measure."""
MOST_KEYS = 4
MOST_SECRETS = 12


@dataclass(frozen=True)
class Asked:
    """What an evaluation looks at. keys: what an attacker knows of a person; secrets: what it would like to know;
    target: that a model is trained for. Empty: chosen from the columns, and said. attempts: of each attack; measures:
    empty for those of the use; population: is the original a whole population, so that there are no fresh records?"""

    use: str
    keys: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    target: str = ""
    attempts: int = 1000
    measures: tuple[str, ...] = ()
    population: bool = False


@dataclass(frozen=True)
class Judged:
    """A limit of the use, and whether a figure keeps it; None where the figure is not known."""

    limit: Limit
    measured: Measured | None
    kept: bool | None

    def __str__(self) -> str:
        title = guide().measure(self.limit.measure).title
        if self.measured is None:
            return f"{title}: not known; the limit is {self.limit}"
        low, high = self.measured.limits(self.limit.figure)
        between = "" if low is None or high is None else f", {low:.3g} to {high:.3g}"
        about = f" ({self.measured.about})" if self.measured.about else ""
        value = getattr(self.measured, self.limit.figure)
        return f"{title}{about}: {self.limit.figure} {value:.3g}{between}; the limit is {self.limit}"


@dataclass(frozen=True)
class Evaluation:
    """What was measured for a use, and what it says. left_out: measures that could not be taken, with the reason."""

    use: Use
    measured: tuple[Measured, ...]
    judged: tuple[Judged, ...]
    records: tuple[int, int, int | None]
    left_out: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = field(default=())

    def word(self, kind: str) -> Word:
        """Of utility or risk."""
        chosen = [one for one in self.judged if guide().measure(one.limit.measure).kind == kind]
        if any(one.kept is False for one in chosen):
            return "evidence against"
        if any(one.kept is None for one in chosen):
            return "not enough evidence"
        return "no evidence against" if chosen else "not judged"

    @property
    def sentence(self) -> str:
        """The verdict in words, which is no clearance."""
        said = []
        for kind, what in (("utility", "that it is useful enough"), ("risk", "that it is safe enough")):
            broken = [
                one for one in self.judged if one.kept is False and guide().measure(one.limit.measure).kind == kind
            ]
            word = self.word(kind)
            names = ", ".join(dict.fromkeys(guide().measure(one.limit.measure).title.lower() for one in broken))
            if word == "not judged":
                said.append(f"not judged whether {what.removeprefix('that ')}, the use sets no limit")
                continue
            said.append(f"{word} {what}" + (f" ({names})" if names else ""))
        return f"For {self.use.title.lower()}: {'; '.join(said)}. This is evidence by some measures, and no clearance."


def evaluate(
    original: Coded,
    synthetic: Coded,
    fresh: Coded | None,
    asked: Asked,
    rng: np.random.Generator,
    progress: Progress = silent,
    more: Sequence[Measured] = (),
    limits: Sequence[Limit] = (),
) -> Evaluation:
    """Measure a synthetic table against the original for a use.

    fresh: records of the same population that the synthetic data were not made from; without them there is no control:
    of most risks nothing can then be said but an upper end. more: what was measured elsewhere, as coefficients. limits:
    in place of the use's own for the same figures, or beside them.
    Raises UsageError on names that are none; a measure that cannot be taken is left out and said.
    """
    use = guide().use(asked.use)
    if asked.population:
        population.refused(fresh)
        use = guide().of_population(use)
    use = with_limits(use, limits)
    names = tuple(dict.fromkeys(asked.measures or (*use.measures, *(limit.measure for limit in use.limits))))
    for name in names:
        guide().measure(name)
    original.only((*asked.keys, *asked.secrets, *((asked.target,) if asked.target else ())))
    there = synthetic.only(original.names)
    found: list[Measured] = list(more)
    left_out: list[tuple[str, str]] = []
    why = dict.fromkeys(guide().population.not_judged, _EVERYBODY) if asked.population else _WHY
    plan = _plan(original, there, fresh, asked, rng)
    for done, name in enumerate(names):
        progress("measures", done, len(names))
        if name not in plan:
            if not any(one.name == name for one in found):
                left_out.append((name, why.get(name, _WHY.get(name, "it was not measured"))))
            continue
        try:
            found += plan[name]()
        except UsageError as error:
            left_out.append((name, str(error)))
    progress("measures", len(names), len(names))
    found = weights.unweighted(found, original.codebook)
    if "margins" in names:
        try:
            found += weights.weighted_figures(original, there, fresh)
        except UsageError as error:
            left_out.append(("margins", f"by weight: {error}"))
    whole = guide().population
    first = (whole.warning, whole.utility) if asked.population else () if fresh is not None else (NO_FRESH,)
    notes = (*first, *weights.survey_notes(original.codebook))
    counts = (original.count, there.count, None if fresh is None else fresh.count)
    return judged_for(use, found, counts, left_out, notes)


_EVERYBODY = "it takes fresh records, which a whole population does not have"
NO_FRESH = "No fresh records were given: risks have no control, and no limit on an excess is kept."


def judged_for(
    use: Use,
    measured: Sequence[Measured],
    records: tuple[int, int, int | None],
    left_out: Sequence[tuple[str, str]],
    notes: Sequence[str],
) -> Evaluation:
    """What was measured, held against the limits of a use."""
    judged = tuple(_judged(limit, measured) for limit in use.limits)
    return Evaluation(use, tuple(measured), judged, records, tuple(left_out), tuple(notes))


_WHY = {
    "distance-to-closest-record": "it is no evidence: see the guide",
    "coefficients": "it takes a model, as --model 'ols income ~ age'",
    "membership": "it takes fresh records of the same population (--fresh)",
    "train-synthetic-test-real": "it takes fresh records of the same population (--fresh) and a --target",
}


def _judged(limit: Limit, found: Sequence[Measured]) -> Judged:
    """The figure of the measure that says most against the limit: one that breaks it, else one that leaves it open."""
    mine = [one for one in found if one.name == limit.measure and getattr(one, limit.figure) is not None]
    if not mine:
        return Judged(limit, None, None)
    order: dict[bool | None, int] = {False: 2, None: 1, True: 0}
    sign = 1 if limit.most is not None else -1
    worst = max(mine, key=lambda one: (order[limit.kept(one)], sign * getattr(one, limit.figure)))
    return Judged(limit, worst, limit.kept(worst))


def _plan(original: Coded, synthetic: Coded, fresh: Coded | None, asked: Asked, rng: np.random.Generator) -> Plan:
    """What is done for each measure."""
    if asked.population:
        return _plan_of_population(original, synthetic, asked, rng)
    secrets, keys = _targets(original, asked)
    three = (original, synthetic, fresh)

    def several(one: Callable[[str], Measured]) -> list[Measured]:
        return [one(secret) for secret in secrets]

    plan = _utility(original, synthetic, fresh, rng) | _attacks(original, synthetic, fresh, asked, rng)
    plan |= {
        "replicated-uniques": lambda: [targets.replicated_uniques(*three, _uniques(original, asked), rng)],
        "disco": lambda: several(lambda one: targets.disclosive_correct(*three, keys[one], one, rng)),
        "tcap": lambda: several(lambda one: targets.targeted_correct(*three, keys[one], one)),
        "copies": lambda: [membership.copies(*three, rng)],
    }
    if fresh is not None:
        plan["membership"] = lambda: [membership.membership(original, synthetic, fresh, rng)]
        if asked.target:
            plan["train-synthetic-test-real"] = lambda: [
                specific.train_synthetic_test_real(original, synthetic, fresh, asked.target, rng)
            ]
    return plan


def _plan_of_population(original: Coded, synthetic: Coded, asked: Asked, rng: np.random.Generator) -> Plan:
    """As `_plan`, where everybody is in the original."""
    secrets, keys = _targets(original, asked)
    there, uniques = (original, synthetic), _uniques(original, asked)

    def without_control(attack: Callable[[], list[Measured]]) -> Callable[[], list[Measured]]:
        return lambda: [population.drawn(one) for one in attack()]

    attacked = _attacks(original, synthetic, None, asked, rng)
    plan = _utility(original, synthetic, population.redrawn(original, synthetic.count, rng), rng)
    return plan | {
        **{name: without_control(attack) for name, attack in attacked.items()},
        "replicated-uniques": lambda: [population.replicated_uniques(*there, uniques)],
        "disco": lambda: [population.disclosive_correct(*there, keys[one], one) for one in secrets],
        "tcap": lambda: [population.targeted_correct(*there, keys[one], one) for one in secrets],
        "copies": lambda: [population.copies(*there)],
    }


def _utility(original: Coded, synthetic: Coded, fresh: Coded | None, rng: np.random.Generator) -> Plan:
    three, ways = (original, synthetic, fresh), [each for each in (2, 3) if each <= len(original.names)]
    return {
        "margins": lambda: [utility.margins(*three, rng, each) for each in ways],
        "hellinger": lambda: [utility.hellinger(*three, rng)],
        "associations": lambda: [utility.associations(*three, rng)],
        "pmse": lambda: [utility.propensity(*three, rng)[0]],
        "s-pmse": lambda: [utility.propensity(*three, rng)[1]],
        "logistic-auc": lambda: [utility.logistic_auc(*three, rng)],
        "propensity-auc": lambda: [utility.discrimination(*three, rng)],
    }


def _attacks(original: Coded, synthetic: Coded, fresh: Coded | None, asked: Asked, rng: np.random.Generator) -> Plan:
    three, (secrets, _) = (original, synthetic, fresh), _targets(original, asked)
    return {
        "singling-out": lambda: [
            attacks.singling_out(*three, rng, asked.attempts // 2, columns)
            for columns in (1, min(3, len(original.names)), min(5, len(original.names)))
        ],
        "linkability": lambda: [attacks.linkability(*three, rng, attempts=asked.attempts)],
        "inference": lambda: [attacks.inference(*three, rng, one, attempts=asked.attempts) for one in secrets],
    }


def _targets(original: Coded, asked: Asked) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Secrets, and the keys of each."""
    secrets = asked.secrets or original.names[:MOST_SECRETS]
    return secrets, {secret: _keys(original, asked, secret) for secret in secrets}


def _uniques(original: Coded, asked: Asked) -> tuple[str, ...]:
    return asked.keys or original.names[: MOST_KEYS + 1]


def _keys(original: Coded, asked: Asked, secret: str) -> tuple[str, ...]:
    """What is known beside a secret: the given keys, or the first columns with levels, then others."""
    given = tuple(name for name in asked.keys if name != secret)
    if given:
        return given
    ordered = sorted(original.names, key=lambda name: not original.levelled(name))
    return tuple(name for name in ordered if name != secret)[:MOST_KEYS]


def with_limits(use: Use, changed: Sequence[Limit]) -> Use:
    """A use with some limits changed: one for the same figure of a measure takes the place of the guide's."""
    for limit in changed:
        guide().measure(limit.measure)
    new = {(limit.measure, limit.figure): limit for limit in changed}
    kept = [new.pop((limit.measure, limit.figure), limit) for limit in use.limits]
    return use.model_copy(update={"limits": (*kept, *new.values())})
