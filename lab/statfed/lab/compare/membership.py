"""Membership inference: who has a model and a record with its label, can they tell whether the model was trained on it?

The attack by loss (Yeom et al. 2018, "Privacy risk in machine learning", section 3.3): a model tends to be surer of
the labels of records that it was trained on. It needs the model's probabilities only, and no other model. Records are
ranked by loss, so no threshold has to be chosen: the figure is the area under the receiver operating characteristic,
0.5 for an attack that guesses and 1 for one that always knows.

It is a lower bound of what leaks: an attacker with models of similar data finds more (Carlini et al. 2022), and an
attack that finds nothing proves nothing. Averages hide who is exposed, hence slices. The best of several slices is
above 0.5 by chance alone; `best_slice` gives each slice's standard error beside it.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

SMALLEST = 20
"""Fewest members and fewest non-members of a slice that is attacked: fewer give noise."""
_FLOOR = 1e-12  # of a probability: a model's float32 softmax may give 0


def losses(probabilities: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """Cross-entropy of each record's label, (records,). probabilities: (records, classes); labels: (records,)."""
    given = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    found: NDArray[np.float64] = -np.log(np.maximum(given, _FLOOR))
    return found


def auc(members: NDArray[np.float64], non_members: NDArray[np.float64]) -> float:
    """Probability that a member's loss is below a non-member's, ties counted half. Both (records,).

    Raises ValueError where either is empty or a loss is not a number.
    """
    if not len(members) or not len(non_members):
        raise ValueError(f"membership: got {len(members)} members and {len(non_members)} others; want some of both")
    both = np.concatenate([members, non_members])
    if np.isnan(both).any():
        raise ValueError("membership: got a loss that is not a number; want finite probabilities")
    ranks = rankdata(-both)[: len(members)]
    return float((ranks.sum() - len(members) * (len(members) + 1) / 2) / (len(members) * len(non_members)))


def standard_error(members: int, non_members: int) -> float:
    """Of `auc` where the losses of members and non-members have one continuous law (Mann and Whitney 1947)."""
    return math.sqrt((members + non_members + 1) / (12.0 * members * non_members))


def attack(
    member_probabilities: NDArray[np.floating],
    member_labels: NDArray[np.integer],
    other_probabilities: NDArray[np.floating],
    other_labels: NDArray[np.integer],
) -> float:
    """Area under the curve of the attack by loss on all records.

    probabilities: the model's, (records, classes), of records it was trained on and of others; labels: (records,).
    Where the others are of another population (another mix of classes, rightly coded where members are miscoded), the
    figure tells populations apart and not members: compare it with that of a model that saw neither.
    """
    return auc(losses(member_probabilities, member_labels), losses(other_probabilities, other_labels))


@dataclass(frozen=True)
class Slice:
    """A group of records that was attacked by itself. error: standard error of `auc` where nothing leaks."""

    name: str
    auc: float
    members: int
    others: int

    @property
    def error(self) -> float:
        return standard_error(self.members, self.others)


def slices(
    member_probabilities: NDArray[np.floating],
    member_labels: NDArray[np.integer],
    other_probabilities: NDArray[np.floating],
    other_labels: NDArray[np.integer],
) -> tuple[Slice, ...]:
    """The attack on all records, on those of each class, and on those that the model gets right and wrong.

    Arguments as of `attack`. Left out: a slice of fewer than SMALLEST members or others; all records are never left
    out. Whoever attacks knows the slice of a record: it follows from its label and the model.
    """
    inside, outside = losses(member_probabilities, member_labels), losses(other_probabilities, other_labels)
    right = [
        probabilities.argmax(1) == labels
        for probabilities, labels in ((member_probabilities, member_labels), (other_probabilities, other_labels))
    ]
    groups = [("all", np.ones(len(inside), np.bool_), np.ones(len(outside), np.bool_))]
    groups += [
        (f"class {label}", member_labels == label, other_labels == label)
        for label in range(member_probabilities.shape[1])
    ]
    groups += [("right", right[0], right[1]), ("wrong", ~right[0], ~right[1])]
    return tuple(
        Slice(name, auc(inside[mine], outside[others]), int(mine.sum()), int(others.sum()))
        for name, mine, others in groups
        if name == "all" or min(mine.sum(), others.sum()) >= SMALLEST
    )


def best_slice(found: tuple[Slice, ...]) -> Slice:
    """The slice on which the attack is best."""
    return max(found, key=lambda one: one.auc)
