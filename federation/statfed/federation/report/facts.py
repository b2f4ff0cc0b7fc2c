"""What every report says, whatever the method: guarantee, banners, warnings, key figures that follow from an answer.

Nothing here is measured anew; every figure is a field of `Answer`, or a mean, extreme or difference of such fields.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from statfed.core import toml
from statfed.core.disclosure import Rules
from statfed.core.method import load_method
from statfed.core.protection import load_protection, shown_options
from statfed.core.terms import Privacy
from statfed.federation.answers import Answer
from statfed.federation.report import formats
from statfed.federation.trained import Spending


@dataclass(frozen=True)
class Tile:
    """One key figure."""

    label: str
    value: str
    detail: str


@dataclass(frozen=True)
class Facts:
    """An answer, read for its reader."""

    answer: Answer

    @cached_property
    def subject(self) -> str:
        """The reference scenario, or the method."""
        return self.answer.scenario or self.answer.terms.method

    @property
    def privacy(self) -> Privacy | None:
        """What was asked for."""
        return self.answer.terms.privacy

    @cached_property
    def training(self) -> bool:
        """Was a model trained?"""
        return self.answer.training is not None

    @cached_property
    def private(self) -> bool:
        """Is the result differentially private at every holder?"""
        return bool(self.answer.spending) and all(s.study_epsilon is not None for s in self.answer.spending)

    @cached_property
    def worst(self) -> Spending | None:
        """The holder that spent most on this study."""
        return max(self.answer.spending, key=lambda s: s.study_epsilon or 0.0) if self.private else None

    @cached_property
    def seeded(self) -> bool:
        """Does the noise follow from a public seed?"""
        return self.answer.simulated and self.answer.terms.seed is not None

    @cached_property
    def mechanism(self) -> bool:
        """Does a holder say anything of steps and their noise?"""
        return any(s.steps is not None or s.noise_multiplier is not None for s in self.answer.spending)

    @cached_property
    def sums(self) -> int:
        """Rounds of training, or sums."""
        if self.answer.training:
            return sum(r.round > 0 for r in self.answer.training.rounds)
        return len(self.answer.sums)

    @cached_property
    def round_(self) -> str:
        """What one of them is called: one of dp-fedsgd is a single step of gradient descent."""
        if not self.training:
            return "sum"
        return str(getattr(load_method(self.answer.terms.method), "WORDS", ("", "", "round"))[2])

    @cached_property
    def protection(self) -> str:
        """How sums over holders were formed."""
        return protection_of(self.answer)

    @cached_property
    def verdict(self) -> str:
        """The outcome in one sentence."""
        return f"{self.title} over {self.how}, {self.guarantee}. Data: {self.answer.origin}"

    @cached_property
    def title(self) -> str:
        """What was computed."""
        return self.answer.result.title.strip().rstrip(".") or self.answer.title

    @cached_property
    def how(self) -> str:
        """Whom it is over, and how, as part of a sentence."""
        return (
            f"{many(len(self.answer.spending), 'holder')} in {many(self.sums, self.round_)} "
            f"under protection {self.answer.terms.protection.name}"
        )

    @cached_property
    def guarantee(self) -> str:
        """The privacy of the result, as the end of a sentence."""
        if self.worst is None:
            return "without differential privacy"
        spent = {formats.epsilon(s.study_epsilon) for s in self.answer.spending}
        most = "at most " if len(spent) > 1 else ""
        return (
            f"at a cost of {most}epsilon {formats.epsilon(self.worst.study_epsilon)} per {self.worst.unit} "
            f"(delta {formats.delta(self.worst.delta)}) at each holder, composed over all {self.round_}s{self.shared}"
        )

    @cached_property
    def shared(self) -> str:
        """Against whom the guarantee of shared or central noise holds, as the end of a sentence; else nothing."""
        if self.privacy is None or self.privacy.noise == "local":
            return ""
        if self.privacy.noise == "central":
            return ", by noise that the coordinator adds, which sees the sums without it"
        known = self.privacy.colluders
        whom = f"the noise of at most {many(known, 'holder')}" if known else "no holder's noise"
        return f", by noise that the holders share, against whoever knows {whom}"

    @cached_property
    def banners(self) -> list[tuple[str, str]]:
        """What a reader must know before any figure: heading and sentence."""
        found = []
        if self.answer.synthetic:
            found.append(
                ("Synthetic data", "The records are generated, not observed. No figure here describes a population.")
            )
        if self.answer.simulated:
            found.append(
                (
                    "Simulated parties",
                    "Noise follows from the public seed; do not publish as a DP release. The epsilons are what the "
                    "same study would cost with noise drawn in secret."
                    if self.private and self.seeded
                    else "All holders ran on the coordinator's own machine; no other organisation took part.",
                )
            )
        return found

    @cached_property
    def warnings(self) -> list[str]:
        """The run's own warnings and notes, then what the figures themselves give reason to say."""
        found = [*self.answer.warnings, *self.answer.result.notes]
        if self.training and not self.private:
            found.append(
                "Trained without noise: the model is a disclosure. It can reveal records that it was trained on."
            )
        loud = [s.holder for s in self.answer.spending if s.noise_to_signal is not None and s.noise_to_signal > 1]
        if loud:
            found.append(f"The noise exceeds the largest possible signal of one holder alone at {some(loud)}.")
        over = [s.holder for s in self.answer.spending if s.share is not None and s.share > 1.0]
        if over:
            found.append(f"The lifetime budget is overdrawn at {some(over)}.")
        return found

    @cached_property
    def tiles(self) -> list[Tile]:
        """The key figures."""
        return [*self.figures, *self.costs]

    @cached_property
    def figures(self) -> list[Tile]:
        """Key figures of the result."""
        return [
            Tile(key.replace("_", " ").capitalize(), shown(value), "")
            for key, value in self.answer.result.facts.items()
            if value is not None
        ]

    @cached_property
    def costs(self) -> list[Tile]:
        """Key figures of what it took, privacy first."""
        spending, tiles = self.answer.spending, []
        if self.worst:
            several = "highest of the holders, " if len(spending) > 1 else ""
            tiles.append(
                Tile(
                    "Epsilon of this study",
                    formats.epsilon(self.worst.study_epsilon),
                    f"{several}per {self.worst.unit}, delta {formats.delta(self.worst.delta)}",
                )
            )
            total = max(((s.share, s.budget_epsilon) for s in spending if s.share is not None), default=None)
            if total:
                of = f"of the lifetime budget of epsilon {formats.allowance(total[1])}, highest of the holders"
                tiles.append(Tile("Total so far", formats.share(total[0]), of))
            if (more := more_like(spending)) is not None:
                tiles.append(Tile("More like this one", f"about {more[0]:,}", f"within the budget of {more[1]}"))
        else:
            released = sum(s.disclosures for s in spending)
            tiles.append(Tile("Privacy", "none", f"{many(released, 'disclosure')} in the holders' ledgers"))
        moved = math.fsum(one.bytes_down + one.bytes_up for one in self.answer.sums)
        return [
            *tiles,
            Tile("Moved", formats.size(moved), f"protection {self.protection}"),
            Tile(
                f"{self.round_.capitalize()}s",
                formats.count(self.sums),
                f"{many(len(spending), 'holder')}, {self.answer.engine}",
            ),
            Tile("Time", formats.seconds(self.seconds), "all phases"),
        ]

    @cached_property
    def seconds(self) -> float:
        """All phases together."""
        return math.fsum(p.seconds for p in self.answer.phases) or self.answer.seconds

    @cached_property
    def clipping(self) -> float | None:
        """The bound on one unit's gradient, in private training."""
        known = load_method(self.answer.terms.method).Options.model_fields.get("clipping_norm")
        return None if known is None else float(self.answer.terms.options.get("clipping_norm", known.default))

    @cached_property
    def source(self) -> str:
        """The study as TOML, without thresholds of disclosure control and what its protection keeps back."""
        study = dict(self.answer.study)
        used = dict(study.get("protection", {}))
        module = load_protection(used.get("name", "plain"))
        options = {k: v for k, v in used.get("options", {}).items() if shown_options(module, {k: v})[k] == v}
        study["protection"] = {**used, "options": options}
        if not self.rules.silent:
            study.pop("disclosure", None)
        simulation = dict(study.get("simulation", {}))
        simulation.pop("disclosure", None)
        study["simulation"] = simulation
        return toml.dumps({key: value for key, value in study.items() if value not in ({}, [], "")}).rstrip()

    @cached_property
    def bare(self) -> bool:
        """Does the study leave its codebook to whoever runs it?"""
        return not (self.answer.scenario or self.answer.drafted or self.answer.study.get("codebook"))

    @cached_property
    def repetition(self) -> str:
        """What running the study again gives."""
        what = "model" if self.training else "figures"
        if self.seeded and self.training:
            return (
                "Everything random follows from the seed. A repetition on the same versions and processor type gives "
                "the same model digest."
            )
        if self.seeded or not (self.private or self.training):
            return "A repetition on the same data and versions gives the same figures."
        if not self.private:
            return (
                "Everything random was drawn afresh: a repetition gives another model, with scores of the same order."
            )
        whom = "The noise was drawn afresh" if self.answer.simulated else "Holders drew their noise in secret"
        order = ", with scores of the same order" if self.training else " of the same order"
        return f"{whom}: a repetition gives {'another' if self.training else 'other'} {what}{order}."

    @cached_property
    def rules(self) -> Rules:
        """Of the release."""
        return Rules.model_validate(self.answer.study.get("disclosure", {}))


def protection_of(answer: Answer) -> str:
    """How sums over holders were formed: protection, fewest holders and options, those that stay secret not shown."""
    used = answer.terms.protection
    options = shown_options(load_protection(used.name), used.options)
    told = [f"{key} {_words(value)}" for key, value in options.items() if value not in (None, "", [], (), {})]
    more = [f"at least {many(used.minimum_holders, 'holder')} in a sum"] if used.minimum_holders else []
    return "; ".join([used.name, *more, *told])


def more_like(spending: Sequence[Spending]) -> tuple[int, str] | None:
    """How many more studies like this one the tightest holder would answer, and which that is; None without noise."""
    return min(((s.more, s.holder) for s in spending if s.more is not None), default=None)


def shown(value: object, margin: bool = False) -> str:
    """A value of a table of the result."""
    if value is None:
        return "all" if margin else formats.DASH
    if isinstance(value, float):
        return f"{value:,.6g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def many(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def some(names: Sequence[str]) -> str:
    """Up to five names, and how many more."""
    told = ", ".join(names[:5])
    return told if len(names) <= 5 else f"{told} and {len(names) - 5:,} more"


def _words(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
