"""Key holders and compute nodes in a pilot: they join, approve and refuse like everybody; figures are the pooled."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from statfed.client.guard.policy import load_policy, write_policy
from statfed.client.pilot import joining, studies
from statfed.client.third_party import approval_of, write_party
from statfed.core.errors import Pending, Refused, UsageError
from statfed.server.pilot import studies as at_office
from tests.pilots import HOLDERS, Pilot, make_pilot

THIRD = {"homomorphic-encryption": ("key-holder",), "multi-party": ("node-1", "node-2", "node-3")}


def joined(root: Path, protection: str) -> Pilot:
    """A pilot with the third parties that a protection wants, whom every holder trusts with their part."""
    pilot, names = make_pilot(root), THIRD[protection]
    for name in names:
        write_party(root / name, name, (protection,))
        pilot.office.sign(joining.request(root / name, name, "third-party"))
    for name in (*HOLDERS, *names):
        joining.join(root / name, joining.look(root / name, pilot.office.kit(name)))
    for name in HOLDERS:
        path = root / name / "policy.toml"
        policy = load_policy(path)
        allow = policy.allow.model_copy(update={"third_parties": names})
        write_policy(policy.model_copy(update={"allow": allow}), path)
    return pilot


def decide(pilot: Pilot, number: int, name: str, choice: Any = "approved") -> None:
    home, now = pilot.home(name), datetime.now(UTC).replace(microsecond=0)
    studies.decide(home, number, choice, approval_of(home), now=now, reason="")


@pytest.mark.parametrize("protection", list(THIRD))
def test_third_parties_approve_too_and_the_figure_is_the_pooled_one(tmp_path: Path, protection: str) -> None:
    pilot, names = joined(tmp_path, protection), THIRD[protection]
    everybody = (*HOLDERS, *names)
    number = pilot.propose(runs=2, protection={"name": protection}).proposal.number
    assert set(at_office.find(pilot.office, number).proposal.parties) == set(everybody)
    pilot.post(number, names=everybody)
    for name in (*HOLDERS, *names[1:]):
        decide(pilot, number, name)
    pilot.post(number, names=everybody)
    with pytest.raises(Pending, match=f"{names[0]}: has not decided"):
        pilot.run(number)
    decide(pilot, number, names[0])
    pilot.post(number, names=everybody)
    pooled = pd.concat(pilot.frames.values()).age.mean()
    answer = pilot.run(number)
    assert answer.result.tables["estimates"][0]["estimate"] == pytest.approx(pooled, rel=1e-9)
    decide(pilot, number, names[0], "refused")
    with pytest.raises(Refused, match=f"{names[0]}: study {number}: {names[0]} has refused it"):
        pilot.run(number)  # the coordinator has not asked, and is refused


def test_a_holder_is_no_third_party_and_a_third_party_no_holder(tmp_path: Path) -> None:
    pilot = joined(tmp_path, "homomorphic-encryption")
    with pytest.raises(UsageError, match="key-holder"):
        pilot.propose(holders=[*HOLDERS, "key-holder"])
    option = {"name": "homomorphic-encryption", "options": {"key_holder": "insee"}}
    with pytest.raises(UsageError, match="insee: got a holder where the protection wants a party without data"):
        pilot.propose(holders=["istat", "cbs"], protection=option, privacy={"epsilon": 1.0})
