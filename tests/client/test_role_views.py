"""Attacks on what each role actually sees of a training step: from which view can a record be rebuilt or found?

A softmax regression with bias is the attacker's best case: the gradient of one record is the record itself, up to a
factor that the bias tells (Phong et al. 2018, section 3), and a record raises the inner product of its own gradient
with the sum that it is in (Homer et al. 2008; Nasr et al. 2019).
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from statfed.core.fixed_point import Layout, Slot
from statfed.core.privacy.accountant import calibrate
from statfed.core.protection import Packet
from tests.protocol import Network, agreement

FEATURES, HOLDERS, TRIALS = 20, 5, 60
PARAMETERS = FEATURES + 1
Vector = NDArray[np.float64]


def gradient(records: NDArray[np.float64], labels: NDArray[np.float64]) -> Vector:
    """Sum of gradients of a binary logistic loss at zero coefficients, bias last: (PARAMETERS,)."""
    residual = 0.5 - labels
    return np.concatenate([residual @ records, [residual.sum()]])


def batch(rng: np.random.Generator, size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return rng.normal(size=(size, FEATURES)), rng.integers(0, 2, size).astype(np.float64)


def seen(protection: str, sent: Mapping[str, Vector], **options: object) -> tuple[list[Vector], list[Vector]]:
    """What the coordinator has of one sum: candidates for single contributions, and for the total."""
    network = Network(agreement(protection, len(sent), **options))  # type: ignore[arg-type]
    layout = Layout({"update": Slot((PARAMETERS,), 1e3 * len(sent))}, len(sent))
    aggregate = network.sum({name: {"update": vector} for name, vector in sent.items()}, layout)
    single = [
        array for _, party, packet in network.transcript if party in sent for array in numbers(packet, PARAMETERS)
    ]
    return single, [np.asarray(aggregate.total["update"])]


def numbers(packet: Packet, count: int) -> list[Vector]:
    """Every array of a packet that could be an update, read as the numbers that it would be in clear."""
    found = []
    for item in packet.values():
        if isinstance(item, np.ndarray) and item.size >= count:
            flat = item.reshape(-1)[:count]
            found.append(flat.view(np.int64).astype(np.float64) if flat.dtype == np.uint64 else flat.astype(np.float64))
    return found


def rebuilt(update: Vector) -> Vector:
    """The record that an update of one record would have come from."""
    return update[:-1] / (update[-1] or 1.0)


def likeness(one: Vector, other: Vector) -> float:
    return abs(float(np.corrcoef(one, other)[0, 1]))


def identified(views: list[Vector], victim: Vector, others: NDArray[np.float64]) -> bool:
    """Is the victim's record the likeliest of all candidates, given the best of the views?"""
    scores = [max(likeness(rebuilt(view), record) for view in views) for record in (victim, *others)]
    return int(np.argmax(scores)) == 0


@pytest.mark.parametrize(
    ("protection", "rebuilds"),
    [("plain", True), ("secure-aggregation", False), ("multi-party", False)],
)
def test_a_record_can_be_rebuilt_from_what_the_coordinator_sees_under_plain_alone(
    protection: str, rebuilds: bool
) -> None:
    rng = np.random.default_rng(1)
    found = 0
    for _ in range(TRIALS):
        batches = {f"h{i + 1:03}": batch(rng, 1) for i in range(HOLDERS)}
        single, _ = seen(protection, {name: gradient(*one) for name, one in batches.items()})
        assert single
        found += identified(single, batches["h001"][0][0], rng.normal(size=(99, FEATURES)))
    # by chance 1 in 100; where each update is seen, the four others' records compete with nobody among the candidates
    assert found == TRIALS if rebuilds else found <= 4


def test_a_total_over_holders_still_shows_a_record_when_the_others_contribute_next_to_nothing() -> None:
    """What no protection of sums can hold against: the sum itself. Noise or rules for the total have to."""
    rng = np.random.default_rng(2)
    record, label = batch(rng, 1)
    sent = {f"h{i + 1:03}": np.zeros(PARAMETERS) for i in range(HOLDERS)} | {"h001": gradient(record, label)}
    _, total = seen("secure-aggregation", sent)
    assert likeness(rebuilt(total[0]), record[0]) > 0.999


def auc(inside: list[float], outside: list[float]) -> float:
    """Probability that a member scores higher than a non-member."""
    return float(np.mean([a > b for a in inside for b in outside]))


def membership(view: Callable[[Mapping[str, Vector], np.random.Generator], Vector], size: int) -> tuple[float, float]:
    """AUC of the inner-product attack on a record of h001, and its largest advantage (true minus false positives)."""
    rng = np.random.default_rng(3)
    inside, outside = [], []
    for _ in range(400):
        batches = {f"h{i + 1:03}": batch(rng, size) for i in range(HOLDERS)}
        shown = view({name: clipped(*one) for name, one in batches.items()}, rng)
        records, labels = batches["h001"]
        inside.append(float(shown @ clipped(records[:1], labels[:1])))
        outside.append(float(shown @ clipped(*batch(rng, 1))))
    limits = sorted(inside + outside)
    advantage = max(float(np.mean(np.array(inside) > t) - np.mean(np.array(outside) > t)) for t in limits)
    return auc(inside, outside), advantage


def clipped(records: NDArray[np.float64], labels: NDArray[np.float64]) -> Vector:
    """Sum of per-record gradients, each scaled to norm at most 1."""
    total = np.zeros(PARAMETERS)
    for record, label in zip(records, labels, strict=True):
        one = gradient(record[None], np.array([label]))
        total += one / max(1.0, float(np.linalg.norm(one)))
    return total


def test_members_are_found_in_one_holders_update_less_in_a_total_and_under_noise_within_what_epsilon_allows() -> None:
    epsilon, delta = 1.0, 1e-5
    sigma = calibrate(1.0, 1, epsilon, delta)

    def single(sent: Mapping[str, Vector], rng: np.random.Generator) -> Vector:
        return sent["h001"]

    def total(sent: Mapping[str, Vector], rng: np.random.Generator) -> Vector:
        return np.asarray(np.sum(list(sent.values()), axis=0))

    def noisy(sent: Mapping[str, Vector], rng: np.random.Generator) -> Vector:
        return total(sent, rng) + rng.normal(0, sigma, PARAMETERS)

    one, _ = membership(single, 4)
    all_, _ = membership(total, 4)
    under, advantage = membership(noisy, 4)
    assert one > 0.9
    assert 0.6 < all_ < one  # a sum over few holders does not hide a member: that takes noise
    bound = (math.exp(epsilon) - 1.0 + 2.0 * delta) / (math.exp(epsilon) + 1.0)  # Kairouz, Oh and Viswanath 2015
    assert advantage <= bound + 0.1  # the largest of 800 thresholds over 400 trials
    assert under < 0.6 + (all_ - 0.6) / 2
