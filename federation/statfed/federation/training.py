"""What a run of training has beside its result: scores on held-out records, rounds, references, and warnings."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from statfed.client.data.tables import connect, inspect, open_table
from statfed.core.progress import Progress
from statfed.core.resolve import Resolved, resolve
from statfed.core.scenario import Population
from statfed.core.statement import Admission
from statfed.federation.trained import Round, Trained
from statfed.server.driver import Driven

if TYPE_CHECKING:
    from torch import nn

    from statfed.strategies.learning.prepared import Prepared

MUCH_NOISE = 1.0  # noise over the largest possible signal: above it nothing can be learned
FIT = "fit"


@dataclass
class Scored:
    """Held-out records, which the simulator scores models on after every round: of a reference scenario, or what the
    holders of the user's own tables keep apart. fitted: what each holder trains on; own: of the user's own."""

    study: Resolved
    data: "Prepared"
    persons: int
    fitted: "Callable[[], Mapping[str, Prepared]]" = field(repr=False)
    own: bool = False
    _model: "nn.Module | None" = field(default=None, repr=False)

    @property
    def regression(self) -> bool:
        """Is a number predicted?"""
        from statfed.strategies.learning.inputs import inputs_of

        return inputs_of(self.study.question).regression

    def outputs(self, vector: NDArray[Any]) -> NDArray[np.float32]:
        """What the study's model with these parameters gives for the held-out records."""
        from statfed.federation.references import outputs_of
        from statfed.strategies.learning.local import set_vector
        from statfed.strategies.learning.prepared import build

        if self._model is None:
            self._model = build(self.study.question)
        set_vector(self._model, np.asarray(vector, np.float32))
        return outputs_of(self._model, self.data)

    def note(self, curve: list[tuple[float, float]], state: Mapping[str, NDArray[Any]]) -> None:
        """Add the scores after a round to the curve, once for each round: accuracy and macro-F1, or of a number the
        root mean squared error and R squared."""
        from statfed.federation.references import Way, candidate, number_candidate

        missing = int(np.asarray(state["round"])) + 1 - len(curve) if "model" in state else 0
        if missing <= 0:
            return
        way = Way("federated", "", self.outputs(state["model"]))
        if self.regression:
            number = number_candidate(way, self.data, self.study.question).scores
            curve += [(number.rmse, number.r2 or 0.0)] * missing  # rounds whose sums were lost left the model alone
        else:
            after = candidate(way, self.data, self.study.question).scores
            curve += [(after.accuracy, after.macro_f1)] * missing


def scored(study: Resolved, population: Population) -> Scored:
    """The held-out records of a population, through the study's model."""
    from statfed.federation.references import prepare

    test, question = population.test, study.question

    def fitted() -> "Mapping[str, Prepared]":
        return {name: prepare(records, question) for name, records in population.holders.items()}

    return Scored(study, prepare(test, question), len(np.unique(test.persons)), fitted)


def scored_tables(study: Resolved, sources: Mapping[str, str]) -> Scored | None:
    """What holders keep apart of the user's own tables; None where that is nothing, or the tables do not fit the
    codebook, which the run then says. sources: absolute."""
    from statfed.federation.references import joined
    from statfed.strategies.learning.prepared import Prepared, prepared

    found: dict[str, Prepared] = {}
    first = 0
    for name, source in sources.items():
        question = resolve(study.terms, name).question
        with connect(source, Path()) as opened:
            seen = inspect(opened, question.codebook, study.columns)
            if seen.mismatches:
                return None
            table = open_table(opened, question.codebook, study.terms.where, study.columns, plain=seen.plain)
            mine = prepared(table, question)
        found[name] = Prepared(mine.inputs, mine.labels, mine.units + first, mine.apart)
        first += len(mine)
    test = joined(list(found.values())).scored
    if not len(test):
        return None
    return Scored(
        study, test, len(np.unique(test.units)), lambda: {name: data.fitted for name, data in found.items()}, True
    )


def digest(vector: NDArray[np.float32]) -> str:
    """SHA-256 of a model's parameters: equal digests mean bit-identical models."""
    return hashlib.sha256(np.ascontiguousarray(vector, np.float32).tobytes()).hexdigest()


def training_of(
    study: Resolved,
    driven: Driven,
    test: Scored | None,
    curve: Sequence[tuple[float, float]],
    compare: bool,
    cache: Path,
    progress: Progress,
) -> Trained:
    """What a finished training has beside its result. compare: train references too."""
    vector = np.asarray(driven.result.arrays["model"], np.float32)
    found = Trained(classes=_classes(study), rounds=_round_rows(driven, curve, test), model_digest=digest(vector))
    if test is None:
        return found
    from statfed.federation.references import Way, candidate, number_candidate, references

    note = f"{_rounds(study)}, {len(study.holders)} holders, protection {study.terms.protection.name}"
    exact = "; scored by the simulator, without noise" if test.own else ""
    ways = [Way("federated", f"Federated, {_how(study)}", test.outputs(vector), note + exact)]
    if compare:
        seed = study.terms.seed or 0
        ways += references(test.fitted(), test.data, study.question, seed, cache, progress, test.own)
    held_out = {"test_records": len(test.data), "test_persons": test.persons}
    if test.regression:
        numbers = [number_candidate(way, test.data, study.question) for way in ways]
        return found.model_copy(update={**held_out, "numbers": numbers})
    candidates = [candidate(way, test.data, study.question) for way in ways]
    return found.model_copy(update={**held_out, "candidates": candidates})


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


def _round_rows(driven: Driven, curve: Sequence[tuple[float, float]], test: Scored | None) -> list[Round]:
    names = ("rmse", "r2") if test and test.regression else ("accuracy", "macro_f1")
    fits = [one for one in driven.sums if one.ask == FIT]

    def after(number: int) -> dict[str, Any]:
        return dict(zip(names, curve[number], strict=True)) if number < len(curve) else {}

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
            f"{', '.join(told)}: exact figures, or models trained without noise, left these data before. The epsilon "
            "of this study says what it adds; no finite epsilon holds for the data's whole history."
        )
    return found
