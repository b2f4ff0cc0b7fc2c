"""What a report says of a trained model whose scores on held-out records are compared with others'."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from statfed.federation.report import formats
from statfed.federation.report.facts import Facts, Tile, many
from statfed.federation.trained import Candidate, Trained

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
class Compared(Facts):
    """An answer with candidates. Raises ValueError if none of them is the federated model."""

    def __post_init__(self) -> None:
        if not self.kind("federated"):
            kinds = ", ".join(sorted({c.kind for c in self.trained.candidates})) or "none"
            raise ValueError(f"candidates: got {kinds}; want one of kind federated")

    @property
    def trained(self) -> Trained:
        """Scores and rounds."""
        return self.answer.trained

    def kind(self, kind: str) -> list[Candidate]:
        """The candidates of one kind, in their order."""
        return [c for c in self.trained.candidates if c.kind == kind]

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
        single += [_line(c.title, "c-best", [c]) for c in self.kind("glm")]
        groups = [self.local, _line("Local-only with DP", "c-private", self.kind("local-dp"))]
        rest = [_line(c.title, "c-majority", [c]) for c in self.kind("majority")]
        return [line for line in (*single, *groups, *rest) if line is not None]

    @cached_property
    def grouped(self) -> bool:
        """Are there persons with several records?"""
        return bool(self.answer.scenario) or self.trained.test_persons < self.trained.test_records

    @cached_property
    def held_out(self) -> str:
        """What the models are measured on."""
        persons = f" of {many(self.trained.test_persons, 'person')}" if self.grouped else ""
        return f"{many(self.trained.test_records, 'held-out record')}{persons}"

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
            f"Trained across {self.how}, the federated model puts {formats.percent(own)} of the held-out records into "
            f"the right class{compared}, {self.guarantee}. Data: {self.answer.origin}"
        )

    @cached_property
    def warnings(self) -> list[str]:
        """Those of every report, then what the scores give reason to say."""
        found, own = list(super().warnings), self.federated.scores.accuracy
        majority = next(iter(self.kind("majority")), None)
        if majority and own <= majority.scores.accuracy:
            found.append("The federated model is no better than always naming the most frequent class.")
        if self.local and own < self.local.accuracy:
            found.append("The federated model is below the average holder that trains alone: federation did not pay.")
        few = many(self.trained.test_persons, "person" if self.grouped else "record")
        alike = "records of one person are alike, so " if self.grouped else ""
        if self.trained.test_persons < FEW_PERSONS:
            found.append(f"Measured on {few}: {alike}differences of a few percentage points can be chance.")
        if not self.answer.scenario:
            found.append(
                "The comparison was made by the simulator, from all records that holders keep apart and without noise: "
                "it is no part of what was released."
            )
        return found

    @cached_property
    def figures(self) -> list[Tile]:
        """Key figures of the model."""
        trained, scores = self.trained, self.federated.scores
        tiles = [
            Tile(
                "Federated accuracy",
                formats.percent(scores.accuracy),
                f"of {self.held_out}",
            ),
            Tile("Federated macro-F1", formats.percent(scores.macro_f1), f"mean over {len(trained.classes)} classes"),
        ]
        if self.pooled:
            theirs = self.pooled.scores.accuracy
            tiles.append(Tile("Against pooled", _pp(scores.accuracy - theirs), f"pooled {formats.percent(theirs)}"))
        if self.local:
            theirs = self.local.accuracy
            tiles.append(
                Tile("Against local-only", _pp(scores.accuracy - theirs), f"mean of holders {formats.percent(theirs)}")
            )
        return tiles


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
