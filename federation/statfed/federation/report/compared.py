"""What the report says: the sentences, key figures and comparison rows that follow from a result.

Nothing here is measured anew; every figure is a field of `Answer`, or a mean, extreme or difference of such fields.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from statfed.core.method import load_method
from statfed.federation.answers import Answer
from statfed.federation.report import formats
from statfed.federation.trained import Candidate, Spending

FEW_PERSONS = 30


@dataclass(frozen=True)
class Line:
    """One row of the comparison. Scores of several candidates are a mean with lowest and highest."""

    title: str
    css: str
    accuracy: float
    macro_f1: float
    note: str = ""
    accuracy_span: tuple[float, float] | None = None
    macro_f1_span: tuple[float, float] | None = None


@dataclass(frozen=True)
class Tile:
    """One key figure."""

    label: str
    value: str
    detail: str


@dataclass(frozen=True)
class Facts:
    """A result, read for its reader. Raises ValueError if it holds no federated model."""

    result: Answer

    def __post_init__(self) -> None:
        if not self.kind("federated"):
            kinds = ", ".join(sorted({c.kind for c in self.result.candidates})) or "none"
            raise ValueError(f"candidates: got {kinds}; want one of kind federated")

    def kind(self, kind: str) -> list[Candidate]:
        """The candidates of one kind, in their order."""
        return [c for c in self.result.candidates if c.kind == kind]

    @cached_property
    def federated(self) -> Candidate:
        """The model that the study is about."""
        return self.kind("federated")[0]

    @cached_property
    def pooled(self) -> Candidate | None:
        """The model trained on the union of the holders' data, where there is one."""
        return next(iter(self.kind("pooled")), None)

    @cached_property
    def local(self) -> Line | None:
        """Holders that train alone, without noise."""
        return _line("Local-only", "c-mean", self.kind("local"))

    @cached_property
    def lines(self) -> list[Line]:
        """The comparison: every federated and pooled model, local models as groups, the majority class."""
        single = [_line(c.title, "c-federated", [c]) for c in self.kind("federated")]
        single += [_line(c.title, "c-pooled", [c]) for c in self.kind("pooled")]
        groups = [self.local, _line("Local-only with DP", "c-private", self.kind("local-dp"))]
        rest = [_line(c.title, "c-majority", [c]) for c in self.kind("majority")]
        return [line for line in (*single, *groups, *rest) if line is not None]

    @cached_property
    def private(self) -> bool:
        """Was the model trained with differential privacy at every holder?"""
        return bool(self.result.spending) and all(s.study_epsilon is not None for s in self.result.spending)

    @cached_property
    def worst(self) -> Spending | None:
        """The holder that spent most on this study."""
        return max(self.result.spending, key=lambda s: s.study_epsilon or 0.0) if self.private else None

    @cached_property
    def trained(self) -> int:
        """Rounds of training; round 0 is the initial model."""
        return sum(r.round > 0 for r in self.result.rounds)

    @cached_property
    def round_(self) -> str:
        """What a round is called: one of dp-fedsgd is a single step of gradient descent."""
        return str(getattr(load_method(self.result.terms.method), "WORDS", ("", "", "round"))[2])

    @cached_property
    def protection(self) -> str:
        """How sums over holders were formed, with options that differ from the default."""
        name = self.option("protection", "name") or "plain"
        options = ", ".join(f"{key} {value}" for key, value in (self.option("protection", "options") or {}).items())
        fewest = self.option("protection", "minimum_holders")
        more = [f"at least {_many(fewest, 'holder')} in a sum"] if fewest else []
        return "; ".join([name, *more, *([options] if options else [])])

    def option(self, *path: str) -> Any:
        """A value of the study, None where it has none."""
        here: Any = self.result.study
        for key in path:
            here = here.get(key) if isinstance(here, dict) else None
        return here

    @cached_property
    def verdict(self) -> str:
        """The outcome in one sentence."""
        own = self.federated.scores.accuracy
        against = []
        if self.pooled:
            theirs = self.pooled.scores.accuracy
            against.append(f"{_relation(own - theirs)} a model of the pooled data ({formats.percent(theirs)})")
        if self.local:
            theirs = self.local.accuracy
            against.append(f"{_relation(own - theirs)} the average holder alone ({formats.percent(theirs)})")
        compared = f", {' and '.join(against)}" if against else ""
        return (
            f"Trained across {_many(len(self.result.spending), 'holder')} in {_many(self.trained, self.round_)} "
            f"under protection {self.option('protection', 'name') or 'plain'}, the "
            f"federated model puts {formats.percent(own)} of the held-out records into the right class{compared}, "
            f"{self.guarantee}. Data: {self.result.origin}"
        )

    @cached_property
    def guarantee(self) -> str:
        """The privacy of the training, as the end of a sentence."""
        if self.worst is None:
            return "without differential privacy"
        spent = {formats.epsilon(s.study_epsilon) for s in self.result.spending}
        most = "at most " if len(spent) > 1 else ""
        return (
            f"at a cost of {most}epsilon {formats.epsilon(self.worst.study_epsilon)} per {self.worst.unit} "
            f"(delta {formats.delta(self.worst.delta)}) at each holder, composed over all {self.round_}s{self.shared}"
        )

    @cached_property
    def shared(self) -> str:
        """Against whom the guarantee of shared noise holds, as the end of a sentence; else nothing."""
        if self.option("privacy", "noise") != "shared":
            return ""
        known = self.option("privacy", "colluders")
        whom = f"the noise of at most {_many(known, 'holder')}" if known else "no holder's noise"
        return f", by noise that the holders share, against whoever knows {whom}"

    @cached_property
    def banners(self) -> list[tuple[str, str]]:
        """What a reader must know before any figure: heading and sentence."""
        found = []
        if self.result.synthetic:
            found.append(
                ("Synthetic data", "The records are generated, not observed. No figure here describes a population.")
            )
        if self.result.simulated:
            found.append(
                (
                    "Simulated parties",
                    "Noise follows from the public seed; do not publish as a DP release. The epsilons are what the "
                    "same study would cost with noise drawn in secret."
                    if self.private
                    else "All holders ran on the coordinator's own machine; no other organisation took part.",
                )
            )
        return found

    @cached_property
    def warnings(self) -> list[str]:
        """The run's own warnings, then what the figures themselves give reason to say."""
        found, own = list(self.result.warnings), self.federated.scores.accuracy
        majority = next(iter(self.kind("majority")), None)
        if not self.private:
            found.append(
                "Trained without noise: the model is a disclosure. It can reveal records that it was trained on."
            )
        if majority and own <= majority.scores.accuracy:
            found.append("The federated model is no better than always naming the most frequent class.")
        if self.local and own < self.local.accuracy:
            found.append("The federated model is below the average holder that trains alone: federation did not pay.")
        if self.result.test_persons < FEW_PERSONS:
            found.append(
                f"Measured on {_many(self.result.test_persons, 'person')}: records of one person are alike, so "
                "differences of a few percentage points can be chance."
            )
        loud = [s.holder for s in self.result.spending if s.noise_to_signal is not None and s.noise_to_signal > 1]
        if loud:
            found.append(f"The noise exceeds the largest possible signal of one holder alone at {_some(loud)}.")
        over = [s.holder for s in self.result.spending if (left := remaining(s)) is not None and left < 0]
        if over:
            found.append(f"The lifetime budget is overdrawn at {_some(over)}.")
        return found

    @cached_property
    def tiles(self) -> list[Tile]:
        """The key figures."""
        result, scores = self.result, self.federated.scores
        tiles = [
            Tile(
                "Federated accuracy",
                formats.percent(scores.accuracy),
                f"of {formats.count(result.test_records)} held-out records, {_many(result.test_persons, 'person')}",
            ),
            Tile("Federated macro-F1", formats.percent(scores.macro_f1), f"mean over {len(result.classes)} classes"),
        ]
        if self.pooled:
            theirs = self.pooled.scores.accuracy
            tiles.append(Tile("Against pooled", _pp(scores.accuracy - theirs), f"pooled {formats.percent(theirs)}"))
        if self.local:
            theirs = self.local.accuracy
            tiles.append(
                Tile("Against local-only", _pp(scores.accuracy - theirs), f"mean of holders {formats.percent(theirs)}")
            )
        if self.worst:
            several = "highest of the holders, " if len(result.spending) > 1 else ""
            tiles.append(
                Tile(
                    "Epsilon of this study",
                    formats.epsilon(self.worst.study_epsilon),
                    f"{several}per {self.worst.unit}, delta {formats.delta(self.worst.delta)}",
                )
            )
            left = [x for s in result.spending if (x := remaining(s)) is not None]
            if left:
                tiles.append(Tile("Lifetime budget left", formats.allowance(min(left)), "epsilon, tightest holder"))
        else:
            released = sum(s.disclosures for s in result.spending)
            tiles.append(Tile("Privacy", "none", f"{_many(released, 'disclosure')} in the holders' ledgers"))
        moved = math.fsum(r.bytes_down + r.bytes_up for r in result.rounds)
        return [
            *tiles,
            Tile("Moved", formats.size(moved), f"protection {self.protection}"),
            Tile(
                f"{self.round_.capitalize()}s",
                formats.count(self.trained),
                f"{_many(len(result.spending), 'holder')}, {result.engine}",
            ),
            Tile("Time", formats.seconds(self.seconds), "all phases"),
        ]

    @cached_property
    def seconds(self) -> float:
        """All phases together."""
        return math.fsum(p.seconds for p in self.result.phases)


def remaining(spending: Spending) -> float | None:
    """What is left of a holder's lifetime budget: the budget less the filter's figure."""
    if spending.budget_epsilon is None or spending.filter_epsilon is None:
        return None
    return spending.budget_epsilon - spending.filter_epsilon


def _line(title: str, css: str, members: Sequence[Candidate]) -> Line | None:
    if not members:
        return None
    accuracies, f1s = ([getattr(c.scores, name) for c in members] for name in ("accuracy", "macro_f1"))
    if len(members) == 1:
        return Line(title, css, accuracies[0], f1s[0], members[0].note)
    return Line(
        f"{title}, mean of {len(members)}",
        css,
        math.fsum(accuracies) / len(members),
        math.fsum(f1s) / len(members),
        "",
        (min(accuracies), max(accuracies)),
        (min(f1s), max(f1s)),
    )


def _relation(difference: float) -> str:
    text = formats.points(difference).lstrip("+−")
    if text == "0.0":
        return "level with"
    return f"{text} percentage points {'above' if difference > 0 else 'below'}"


def _pp(difference: float) -> str:
    return f"{formats.points(difference)}\u00a0pp"


def _many(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5:,} more"
