"""A small ledger that the tests of the gate, the chain and crashes share."""

from pathlib import Path
from typing import Any

from statfed.client.guard.ledger import Ledger
from statfed.core.privacy.accountant import Gaussian
from statfed.core.privacy.spending import Reservation

NOISY, CLEARER = Gaussian(noise_multiplier=40.0), Gaussian(noise_multiplier=15.0)
DELTA = 1e-5
CLAIM = Reservation((), CLEARER, 10)
"""A budget that is spent in shares: one of NOISY is (15 / 40)^2 of it, so that seven are within it."""


def opened(path: Path, epsilon: float = 1.0, **changes: Any) -> Ledger:
    terms: dict[str, Any] = {"dataset": "toy", "unit": "person", "epsilon": epsilon, "delta": DELTA} | changes
    return Ledger(path, **terms)


def filled(path: Path) -> str:
    """A ledger of seven entries; returns the head."""
    with opened(path) as ledger:
        ledger.reserve("one", "study", 3, NOISY, "training")
        ledger.charge("one", "study", 1, NOISY)
        ledger.charge("one", "study", 2, NOISY)
        ledger.disclose("two", "other", 1, "model without noise")
        ledger.release("one")
        return ledger.reserve("three", "study", 1, NOISY)
