"""What DataSHIELD's documented rules let through of our attacks: nearly all."""

import numpy as np

from tests.attacks.peers import datashield
from tests.attacks.peers.trials import TRIALS


def test_the_rules_find_what_they_are_for() -> None:
    assert not datashield.table([[20, 2], [7, 9]])
    assert datashield.table([[20, 0], [7, 9]])
    assert not datashield.model([np.arange(100.0), np.eye(100)[0]])
    assert datashield.model([np.arange(100.0), np.arange(100.0) ** 2])
    assert not datashield.subset(0)


def test_attacks_that_they_hold() -> None:
    held = {name for name, through in TRIALS.items() if not through()}
    assert held == {"level of one person", "table with a cell of one"}
