"""What was answered on the strength of which approval: `studies/uses.jsonl` in a home, one line an attempt.

The home's signed log has them too, and what was decided, so that a record that was cut or put back is noticed.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from statfed.client.guard.policy import Standing
from statfed.client.guard.spent import base
from statfed.core.errors import UsageError
from statfed.core.pilot.audit import FILE as LOG
from statfed.core.pilot.proposals import SignedProposal

USES = Path("studies") / "uses.jsonl"
BEGUN = "begun"


def left(
    rule: Standing, signed: SignedProposal, entries: Sequence[Mapping[str, object]], run: str, cost: float
) -> bool:
    """Is a run of this cost still within a standing approval, over all studies and numbers?

    A run is one of one proposal: names of runs are the coordinator's, and say nothing by themselves. run: without the
    number of its attempt, empty for one that has no name yet.
    """
    under = {
        (str(one["proposal"]), base(str(one["run"]))): (str(one["study"]), float(str(one["epsilon"])))
        for one in entries
        if one["by"] == f"standing {rule.name}"
    }
    others = [found for key, found in under.items() if key != (signed.id, run)]
    spent = sum(epsilon for _, epsilon in others)
    again = sum(study == signed.proposal.digest for study, _ in others)
    return spent + cost <= rule.total * (1 + 1e-9) and again < rule.runs


def uses_of(home: Path) -> list[dict[str, object]]:
    """Every run that was answered. Raises UsageError where the record is damaged."""
    path, found = home / USES, list[dict[str, object]]()
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        found = [json.loads(line) for line in lines]
        for one in found:
            if set(one) != _USE or not isinstance(one["epsilon"], int | float):
                raise ValueError
    except (OSError, ValueError, TypeError, RecursionError):
        raise UsageError(f"{path}: got a line that is damaged; want the record as it was written") from None
    if _log(home).begun - {(str(one["proposal"]), str(one["run"])) for one in found}:
        raise UsageError(f"{path}: lacks runs that this home's log has; want the record as it was written")
    return found


def decided_last(home: Path, proposal: str) -> dict[str, object] | None:
    """The last decision on a proposal that the home's log has; None where it has none. Raises UsageError."""
    return _log(home).decided.get(proposal)


@dataclass
class _Log:
    """What of a home's log was read: up to where, the attempts that it says were begun, and what was decided last of
    each proposal."""

    read: int = 0
    begun: set[tuple[str, str]] = field(default_factory=set)
    decided: dict[str, dict[str, object]] = field(default_factory=dict)


_logs: dict[Path, _Log] = {}


def _log(home: Path) -> _Log:
    """What this home's log has of attempts and decisions. It is read as far as it has grown.

    Raises UsageError where it is shorter than it was.
    """
    path, known = home / LOG, _logs.setdefault(home.resolve(), _Log())
    size = path.stat().st_size if path.exists() else 0
    if size < known.read:
        raise UsageError(f"{path}: got {size} bytes where {known.read} were; want the log as it was written")
    if size > known.read:
        with path.open("rb") as file:
            file.seek(known.read)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                known.read += len(line)
                if b'"kind":"begun"' in line:
                    facts = json.loads(line)["facts"]
                    known.begun.add((str(facts["proposal"]), str(facts["run"])))
                elif b'"kind":"decided"' in line:
                    facts = json.loads(line)["facts"]
                    known.decided[str(facts["proposal"])] = facts
    return known


_USE = {"study", "proposal", "number", "run", "by", "epsilon", "at"}
