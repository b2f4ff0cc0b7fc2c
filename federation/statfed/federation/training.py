"""What a run of training has beside its result: scores on held-out records, rounds, references, and warnings."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.progress import Progress
from statfed.core.records import WindowCodebook
from statfed.core.resolve import Resolved
from statfed.core.scenario import Population
from statfed.core.statement import Admission
from statfed.federation.trained import Candidate, Round, Scores, Trained
from statfed.server.driver import Driven

if TYPE_CHECKING:
    from torch import nn

    from statfed.strategies.learning.prepared import Prepared

MUCH_NOISE = 1.0  # noise over the largest possible signal: above it nothing can be learned
FIT = "fit"


@dataclass
class Scored:
    """Held-out records of a reference scenario, which the simulator scores models on after every round."""

    study: Resolved
    classes: tuple[str, ...]
    data: "Prepared"
    records: int
    persons: int
    _model: "nn.Module | None" = field(default=None, repr=False)

    def model(self, vector: NDArray[Any]) -> "nn.Module":
        """The study's model with these parameters."""
        from statfed.strategies.learning.local import set_vector
        from statfed.strategies.learning.prepared import build

        if self._model is None:
            self._model = build(self.study.question)
        set_vector(self._model, np.asarray(vector, np.float32))
        return self._model

    def scores(self, vector: NDArray[Any]) -> Scores:
        """Scores of a model."""
        from statfed.federation.references import scores

        return scores(self.model(vector), self.data, self.classes)

    def note(self, curve: list[tuple[float, float]], state: Mapping[str, NDArray[Any]]) -> None:
        """Add the scores after a round to the curve, once for each round."""
        if "model" not in state or int(np.asarray(state["round"])) < len(curve):
            return
        after = self.scores(state["model"])
        curve.append((after.accuracy, after.macro_f1))


def scored(study: Resolved, population: Population, form: WindowCodebook) -> Scored:
    """The held-out records of a population, through the study's model."""
    from statfed.federation.references import prepare

    test = population.test
    persons = len(np.unique(test.persons))
    return Scored(study, form.classes, prepare(test, study.question), len(test), persons)


def digest(vector: NDArray[np.float32]) -> str:
    """SHA-256 of a model's parameters: equal digests mean bit-identical models."""
    return hashlib.sha256(np.ascontiguousarray(vector, np.float32).tobytes()).hexdigest()


def training_of(
    study: Resolved,
    driven: Driven,
    test: Scored | None,
    curve: Sequence[tuple[float, float]],
    population: Population | None,
    cache: Path,
    progress: Progress,
) -> Trained:
    """What a finished training has beside its result. population: to train references on; None for none."""
    vector = np.asarray(driven.result.arrays["model"], np.float32)
    compared: list[Candidate] = []
    if test is not None:
        compared.append(
            Candidate(
                id="federated",
                title=f"Federated, {_how(study)}",
                kind="federated",
                scores=test.scores(vector),
                note=f"{_rounds(study)}, {len(study.holders)} holders, protection {study.terms.protection.name}",
            )
        )
        if population is not None:
            from statfed.federation.references import references

            seed = study.terms.seed or 0
            compared += references(population.holders, test.data, study.question, seed, cache, progress)
    return Trained(
        classes=list(test.classes) if test else _classes(study),
        test_records=test.records if test else 0,
        test_persons=test.persons if test else 0,
        candidates=compared,
        rounds=_round_rows(driven, curve),
        model_digest=digest(vector),
    )


def _classes(study: Resolved) -> list[str]:
    from statfed.strategies.learning.inputs import inputs_of

    return list(inputs_of(study.question).form.classes)


def _how(study: Resolved) -> str:
    privacy = study.privacy
    epsilon = f", epsilon {privacy.epsilon:g}" if privacy else ""
    method = "" if study.terms.method == "local-sgd" else f"{study.terms.method}, "
    return f"{method}{study.question.options.strategy.name}{epsilon}"


def _rounds(study: Resolved) -> str:
    word = getattr(study.method, "WORDS", ("", "", "round"))[2]
    return f"{study.question.options.rounds} {word}s"


def _round_rows(driven: Driven, curve: Sequence[tuple[float, float]]) -> list[Round]:
    fits = [one for one in driven.sums if one.ask == FIT]

    def after(number: int) -> dict[str, Any]:
        return {"accuracy": curve[number][0], "macro_f1": curve[number][1]} if number < len(curve) else {}

    first = Round(round=0, seconds=0.0, bytes_down=0, bytes_up=0, **after(0))
    return [first] + [
        Round(
            round=number,
            seconds=one.seconds,
            bytes_down=one.bytes_down,
            bytes_up=one.bytes_up,
            holder_seconds=one.holder_seconds,
            **after(number),
        )
        for number, one in enumerate(fits, start=1)
    ]


def noise_warnings(admissions: Mapping[str, Admission], study: Resolved) -> list[str]:
    """What to say before spending: where the noise of the averaged model exceeds the largest possible signal.

    Independent noise of holders with weights w_i and ratios r_i averages to sqrt(sum (w_i r_i)^2) / sum w_i.
    """
    privacy = study.privacy
    ratios = {name: one.noise_to_signal for name, one in admissions.items()}
    if privacy is None or any(ratio is None for ratio in ratios.values()):
        return []
    total = sum(one.size for one in admissions.values())
    together = math.sqrt(sum((one.size * (ratios[name] or 0.0)) ** 2 for name, one in admissions.items())) / total
    if together <= MUCH_NOISE:
        return []
    unit = privacy.unit
    fewest = min(one.size if unit == "record" else one.persons for one in admissions.values())
    needed = math.ceil(fewest * together / (MUCH_NOISE / 4))
    return [
        f"Expect no utility: after averaging, the noise of the whole run is {together:.1f} times the largest signal "
        f"that clipped gradients can carry. The smallest holder has {fewest} {unit}s; "
        f"at epsilon {privacy.epsilon:g} learning starts to be possible at roughly {needed} {unit}s a holder."
    ]


def warnings_of(study: Resolved, driven: Driven) -> list[str]:
    """What to say of holders that dropped out of training, and of earlier releases without noise."""
    if not study.training:
        return []
    found = []
    gone = [name for name in study.holders if name not in driven.closings]
    if gone:
        found.append(
            f"{', '.join(gone)} dropped out: the model was trained on without what they would have contributed since. "
            "What they had contributed is in it, and charged to their ledgers."
        )
    told = [name for name, closing in driven.closings.items() if closing.disclosures]
    if study.privacy and told:
        found.append(
            f"{', '.join(told)}: models trained without noise left these data before. The epsilon of this study says "
            "what it adds; no finite epsilon holds for the data's whole history."
        )
    return found
