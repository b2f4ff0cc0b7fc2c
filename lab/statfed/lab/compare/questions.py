"""The questions of one trial, put to simulated holders under one technique."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from scipy.optimize import brentq
from scipy.stats import norm

from statfed.core.applicability import applicable
from statfed.core.codebook import Codebook
from statfed.core.errors import UsageError
from statfed.core.linkage import linking_of, load_linkage
from statfed.core.method import read_question
from statfed.core.result import Result
from statfed.core.scenario import Level, Matching
from statfed.core.study import Study, make_study
from statfed.federation.answers import Answer
from statfed.federation.run import Options, run_study
from statfed.lab.compare.trial import Technique
from statfed.server.engine import Engine

DELTA = 1e-6
MARGIN = 0.98
BUDGET = 1000.0
"""Lifetime budget of simulated holders: a comparison measures what a technique spends, and is stopped by none."""


def under(
    technique: Technique,
    table: Mapping[str, Any],
    share: float = 1.0,
    minimum_holders: int | None = None,
    matched: Matching | None = None,
) -> dict[str, Any]:
    """A study's table under a technique, in place of its own privacy, protection and rules.

    Fields of `[privacy]` that the level does not name stay as the study has them. share: of the level's budget.
    matched: how units are matched, where the technique is a linkage. Raises UsageError on noise that a linkage has not.
    """
    level = technique.level
    privacy: dict[str, Any] | None = None
    if level.privacy:
        privacy = {"delta": DELTA} | dict(table.get("privacy") or {}) | dict(level.privacy)
        if share < 1.0:
            privacy["epsilon"] = part_of(privacy["epsilon"], privacy["delta"], share)
            if privacy["delta"]:  # `part_of` is about Gaussian noise
                privacy = {"mechanism": "discrete-gaussian"} | privacy
    options = dict(technique.options)
    if matched is not None:
        options = linking(technique, matched, str(table["method"]), private=privacy is not None) | options
    return {
        **table,
        "privacy": privacy,
        "protection": {
            "name": technique.protection,
            "minimum_holders": minimum_holders,
            "options": options,
        },
        "disclosure": level.disclosure,
        "simulation": {
            "lifetime_epsilon": BUDGET,
            "lifetime_delta": (privacy or {}).get("delta") or DELTA,
            "rules": level.rules,
        },
    }


def linking(technique: Technique, matched: Matching, method: str, *, private: bool) -> dict[str, Any]:
    """The options of a linkage in the place of a protection. private: is there to be noise in what comes out?

    Raises UsageError where the linkage has none for that.
    """
    module, own = load_linkage(technique.protection), dict(matched.options.get(technique.protection, {}))
    reveal = "size" if method == "count" else "totals"
    if private and (reveal not in module.PRIVATE or (reveal == "totals" and method not in module.PRIVATELY)):
        raise UsageError(f"linkage {technique.protection}: got level {technique.level.id}; want one without noise")
    parts = {"block": matched.block, "salt": matched.salt} if module.PARTED else {}
    return {
        "key": matched.key,
        "reveal": reveal,
        "minimum_frequency": max(matched.minimum_frequency, technique.level.disclosure.minimum_frequency or 1),
        "options": own,
        **parts,
        **({"estimate": matched.estimate} if matched.estimate != "none" else {}),
    }


@cache
def part_of(epsilon: float, delta: float, share: float) -> float:
    """The epsilon, at the same delta, of a release that may take `share` of a budget.

    A Gaussian release of sensitivity 1 and noise 1 / m is (epsilon, delta) private where delta is at least
    P(-epsilon / m + m / 2) - exp(epsilon) P(-epsilon / m - m / 2), P the normal distribution function; releases with
    m1, m2, ... are together one with m = sqrt(m1^2 + m2^2 + ...) (Dong, Roth and Su 2022, corollaries 2.13 and 3.3). So
    shares of m^2 compose to the whole without loss, but for MARGIN: discrete noise and its accounting are a little
    dearer. It is enough up to epsilon 3; beyond, noise on whole numbers of less than one unit departs from the normal
    law, and several tables of counts alone may compose to a sixth more than the level says. What is composed in the end
    is read from the ledgers, whatever was planned here. At delta 0 epsilon adds up.
    """
    if delta == 0.0:
        return epsilon * share

    def spent(m: float, e: float) -> float:
        return float(norm.cdf(-e / m + m / 2) - math.exp(e) * norm.cdf(-e / m - m / 2))

    whole = brentq(lambda m: spent(m, epsilon) - delta, 1e-4, 10.0 * (1.0 + math.sqrt(epsilon)))
    part = whole * math.sqrt(share * MARGIN)
    return float(brentq(lambda e: spent(part, e) - delta, 0.0, epsilon))


class Answered(Exception):  # not an error: it ends a walk after so many questions
    """Raised after the last question that is wanted."""


class Applies(Exception):  # not an error: it ends a dry walk
    """Raised at the first question of a technique that applies."""


@dataclass
class Questions:
    """The `Ask` of one trial: puts each question to the holders, and keeps what it cost.

    sources: holder to data file. workspace: where the holders' ledgers of this trial live. last: after so many
    questions Answered is raised. matched: how units are matched, where the technique is a linkage; codebooks: then each
    holder's own.
    """

    sources: Mapping[str, str]
    codebook: Codebook
    technique: Technique
    seed: int
    workspace: Path
    engine: Engine | None = None
    dry_run: bool = False
    minimum_holders: int | None = None
    last: int | None = None
    matched: Matching | None = None
    codebooks: Mapping[str, Codebook] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    shared: float = 0.0

    def __call__(self, analysis: str, *, share: float = 1.0, where: str | Sequence[str] = (), **options: Any) -> Result:
        """As `statfed.core.scenario.Ask`."""
        if self.technique.level.privacy:
            self.shared += share
            if self.shared > 1 + 1e-9:
                raise UsageError(f"{analysis}: shares of the privacy budget add up to {self.shared:g}; want at most 1")
        table = {
            "method": analysis,
            "options": {name: value for name, value in options.items() if value is not None},
            "where": (where,) if isinstance(where, str) else tuple(where),
        }
        return self.put(table, share).result

    @property
    def level(self) -> Level:
        """As `statfed.core.scenario.Ask`."""
        return self.technique.level

    def gives(self, analysis: str) -> bool:
        """As `statfed.core.scenario.Ask`."""
        if self.matched is None:
            return True
        module = load_linkage(self.technique.protection)
        methods = module.PRIVATELY if self.technique.level.privacy else module.METHODS
        return analysis in ("count", *methods)

    def study(self, table: Mapping[str, Any], share: float = 1.0) -> Study:
        """The study of these holders under the technique. table: its method, options and conditions, and what its
        `[privacy]` has of its own."""
        whole = {**table, "holders": dict(self.sources), "seed": self.seed}
        asked = under(self.technique, whole, share, self.minimum_holders, self.matched)
        return make_study(asked, where=str(table["method"]))

    def put(self, table: Mapping[str, Any], share: float = 1.0) -> Answer:
        """The holders' answer to `study(table, share)`."""
        how = Options(workspace=self.workspace, codebook=self.codebook, dry_run=self.dry_run, engine=self.engine)
        answer = run_study(self.study(table, share), how)
        self.answers.append(answer)
        if len(self.answers) == self.last:
            raise Answered
        return answer


@dataclass
class Dry(Questions):
    """An `Ask` that asks nobody: its first question finds out whether the technique applies.

    Raises UsageError with every obstacle, or Applies.
    """

    def put(self, table: Mapping[str, Any], share: float = 1.0) -> Answer:
        terms = self.study(table, share).terms(self.codebook, self.codebooks)
        read_question(terms)
        linking_of(terms)
        applicable(terms)
        raise Applies
