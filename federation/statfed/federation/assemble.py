"""From what the coordinator and the holders report to the parts of a `Result`, and to warnings."""

import hashlib
import math
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from statfed.core import VERSION
from statfed.core.discovery import load
from statfed.core.scenario import Population
from statfed.core.statement import Closing, Plan
from statfed.core.terms import Terms
from statfed.federation.trained import Disclosure, Round, Spending
from statfed.server.app import Training

ACCOUNTANT = (
    "Privacy loss distributions (dp-accounting, pessimistic) over all rounds; "
    "the lifetime budget is gated on a Renyi filter of one fixed order"
)
MUCH_NOISE = 1.0  # noise over the largest possible signal: above it nothing can be learned


def digest(vector: NDArray[np.float32]) -> str:
    """SHA-256 of a model's parameters: equal digests mean bit-identical models."""
    return hashlib.sha256(np.ascontiguousarray(vector, np.float32).tobytes()).hexdigest()


def noise_warnings(plans: Mapping[str, Plan], terms: Terms) -> list[str]:
    """What to say before spending: where the noise of the averaged model exceeds the largest possible signal.

    Independent noise of holders with weights w_i and ratios r_i averages to sqrt(sum (w_i r_i)^2) / sum w_i.
    """
    if terms.privacy is None:
        return []
    ratios = {name: plan.noise_to_signal or 0.0 for name, plan in plans.items()}
    total = sum(plan.size for plan in plans.values())
    together = math.sqrt(sum((plan.size * ratios[name]) ** 2 for name, plan in plans.items())) / total
    if together <= MUCH_NOISE:
        return []
    unit = terms.privacy.unit
    fewest = min(plan.units for plan in plans.values())
    needed = math.ceil(fewest * together / (MUCH_NOISE / 4))
    return [
        f"Expect no utility: after averaging, the noise of the whole run is {together:.1f} times the largest signal "
        f"that clipped gradients can carry. The smallest holder has {fewest} {unit}s; "
        f"at epsilon {terms.privacy.epsilon:g} learning starts to be possible at roughly {needed} {unit}s a holder."
    ]


def dropout_warnings(closings: Mapping[str, Closing], terms: Terms) -> list[str]:
    """What to say of holders that a protected training went on without."""
    gone = [name for name in terms.holders if name not in closings]
    if not gone:
        return []
    return [
        f"{', '.join(gone)} dropped out: the model was trained on without what they would have contributed since. What "
        "they had contributed is in it, and charged to their ledgers."
    ]


def disclosure_warnings(closings: Mapping[str, Closing], terms: Terms) -> list[str]:
    """What to say when this study is private and earlier releases of the same data were not."""
    told = [name for name, closing in closings.items() if closing.disclosures]
    if terms.privacy is None or not told:
        return []
    return [
        f"{', '.join(told)}: models trained without noise left these data before. The epsilon of this study says what "
        "it adds; no finite epsilon holds for the data's whole history."
    ]


def class_warnings(population: Population, classes: Sequence[str]) -> list[str]:
    found = []
    for name, records in population.holders.items():
        missing = sorted(set(range(len(classes))) - set(records.labels.tolist()))
        if missing:
            found.append(f"{name} holds no records of: {', '.join(classes[i] for i in missing)}")
    return found


def rounds_of(training: Training, curve: Sequence[tuple[float, float]]) -> list[Round]:
    first = Round(round=0, accuracy=curve[0][0], macro_f1=curve[0][1], seconds=0.0, bytes_down=0, bytes_up=0)
    return [first] + [
        Round(
            round=r.round,
            accuracy=accuracy,
            macro_f1=macro_f1,
            seconds=r.seconds,
            bytes_down=r.bytes_down,
            bytes_up=r.bytes_up,
            holder_seconds=r.holder_seconds,
        )
        for r, (accuracy, macro_f1) in zip(training.rounds, curve[1:], strict=True)
    ]


def spending(plan: Plan, closing: Closing, terms: Terms) -> Spending:
    private = terms.privacy is not None
    return Spending(
        holder=plan.holder,
        records=plan.size,
        units=plan.units,
        unit=terms.privacy.unit if terms.privacy else None,
        delta=plan.delta,
        lifetime_delta=closing.delta,
        noise_multiplier=plan.noise_multiplier,
        sampling_rate=plan.sampling_rate,
        steps=plan.steps_per_round * terms.rounds,
        study_epsilon=closing.study_epsilon if private else None,
        history_epsilon=closing.history_epsilon,
        filter_epsilon=closing.filter_epsilon,
        budget_epsilon=closing.budget_epsilon,
        noise_to_signal=plan.noise_to_signal,
        disclosures=closing.disclosures,
        ledger_head=closing.ledger_head,
    )


def learns(terms: Terms) -> list[Disclosure]:
    """The protection's own rows, then what every run of this package shows."""
    protection = load("statfed.strategies.protections", terms.protection.name, "protection")
    always = (
        (
            "coordinator",
            "each holder's public numbers of records and persons, and its ledger's head hash",
            "nothing: declared public in the holder's policy",
        ),
        ("coordinator", "whether a holder refuses, and by which rule", "thresholds stay secret"),
        (
            "coordinator",
            "whether a holder's data fit the codebook, and if not, in which column",
            "no value or count is named",
        ),
        ("coordinator", "how long each holder computes each time", "nothing: time varies with the sampled records"),
    )
    rows = [(row.role, row.learns, row.protected_by) for row in protection.learns(terms)]
    return [Disclosure(role=role, learns=learns, protected_by=by) for role, learns, by in (*rows, *always)]


def versions() -> dict[str, str]:
    names = ("flwr", "torch", "opacus", "numpy", "dp-accounting", "scikit-learn", "cryptography")
    return {"statfed": VERSION, "python": platform.python_version()} | {name: version(name) for name in names}
