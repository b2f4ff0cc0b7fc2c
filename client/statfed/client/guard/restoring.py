"""A ledger put back from a backup: how it may be used again, without a budget regained.

Three cases, in this order. (1) The register knows how the chain went on: the file is completed from its copy, entry by
entry, and is what it was; nothing is lost. (2) The register does not know the chain (another machine, a lost register),
and an anchor is in it, the head that the last result carried: all that the anchor covers is there. That no later entry
is missing is what whoever names the anchor vouches for; an entry `restored` says so. (3) Otherwise entries may be lost,
and nobody knows what they spent. Then all of the lifetime budget counts as spent, since that is the most that they can
have been; see `statfed.client.guard.ledger` for what may follow.

The records of past exact releases (`releases.sqlite`) and of linkages (`linked.sqlite`) are completed by (1) and taken
along with their ledger in (2). There is no (3) for them, since no number stands for populations that were forgotten: no
exact release leaves any more, and no units are linked. Nor are they where the ledger has linkages and the record of
them is not there (`statfed.client.guard.links`).
"""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from statfed.client.guard import chain
from statfed.client.guard.chain import Entry
from statfed.client.guard.differencing import FILE as RELEASES
from statfed.client.guard.differencing import LINKED
from statfed.client.guard.ledger import Ledger
from statfed.client.guard.policy import load_policy
from statfed.client.guard.register import register_of
from statfed.core.errors import LedgerCorrupt, UsageError


@dataclass(frozen=True)
class Restored:
    """What was done to one file. said: in words; entries, head: of the chain now."""

    path: Path
    said: str
    entries: int
    head: str


def restore(home: Path, anchor: str | None, accept_loss: str | None) -> list[Restored]:
    """Make ledger, releases and linkages in `home` usable again. See the module for the cases, and for what each costs.

    anchor: a head of the ledger seen elsewhere; accept_loss: a reason, for case 3. Raises LedgerCorrupt where a file is
    another history than the register's or lacks the anchor, UsageError where an anchor is needed.
    """
    if not (home / "policy.toml").is_file():
        raise UsageError(f"--home: got {home}, without a policy.toml; want a holder's home folder")
    if accept_loss is not None and not accept_loss.strip():
        raise UsageError("--accept-loss: got no reason; want one, for the record")
    path, records = home / "ledger.sqlite", (home / RELEASES, home / LINKED)
    done = None if accept_loss else _completed(path)
    if done:
        others = [_completed(record) for record in records]
    elif not path.exists():
        raise UsageError(f"{path}: not there, and unknown to this machine's register; want a backup of it put there")
    elif accept_loss is None and anchor is None:
        raise UsageError(
            f"{path}: unknown to this machine's register; want --anchor HEAD, the head that the last result carried "
            "for this ledger, or --accept-loss REASON, by which all of the budget counts as spent"
        )
    else:
        _adopt(path, None if accept_loss else anchor)
        done = _said(home, anchor or "", accept_loss)
        others = []
        for record in records:
            if not record.exists():
                continue
            known = _completed(record)
            if known is None and not accept_loss:
                _adopt(record, None)
                known = Restored(record, "taken as it is, with its ledger", *_end(_rows(record)))
            others.append(known)
    return [done, *filter(None, others)]


def _completed(path: Path) -> Restored | None:
    """Case 1; None where the register does not know the chain."""
    register = register_of(path.parent)
    try:
        there = _rows(path)
        first = there[0].hash if there else register.at(path)
        known = [Entry(*row) for row in register.rows(first)] if first else []
    finally:
        register.close()
    if not known:
        return None
    chain.replay(known, lambda entry: None)  # noqa: ARG005  # the chain itself; its keeper reads it at the next opening
    shorter = min(len(there), len(known))
    if [entry.hash for entry in there[:shorter]] != [entry.hash for entry in known[:shorter]]:
        raise LedgerCorrupt(
            f"{path}: got another history than this machine's register has ({register.path}), not an older copy of it; "
            "want the file that was here, or --accept-loss REASON, by which all of the budget counts as spent"
        )
    missing = len(known) - shorter
    if missing:
        _put(path, known)
    said = f"{missing} entries put back from the register" if missing else "complete"
    return Restored(path, said, *_end(max(there, known, key=len)))


def _adopt(path: Path, anchor: str | None) -> None:
    """Take the chain as it is into the register. Raises LedgerCorrupt where `anchor` is not in it."""
    found = _rows(path)
    chain.replay(found, lambda entry: None)  # noqa: ARG005
    if anchor is not None and anchor not in {entry.hash for entry in found}:
        raise LedgerCorrupt(
            f"{path}: the anchor {anchor[:16]} is not in it, so entries are lost; want a later backup, or "
            "--accept-loss REASON, by which all of the budget counts as spent"
        )
    register = register_of(path.parent)
    try:
        register.record(found[0].hash, path, [chain.fields(entry) for entry in found], instead=True)
    finally:
        register.close()
    chain.forget(found[0].hash)
    chain.marker(path).unlink(missing_ok=True)  # the next opening writes that of this chain


def _said(home: Path, anchor: str, accept_loss: str | None) -> Restored:
    """Enter it in the ledger itself."""
    policy, path = load_policy(home / "policy.toml"), home / "ledger.sqlite"
    budget = policy.budget
    terms: dict[str, Any] = {"unit": budget.unit, "epsilon": budget.epsilon, "delta": budget.delta}
    with Ledger(path, dataset=policy.dataset.id, create=False, **terms) as ledger:
        head = ledger.restored(anchor, accept_loss is not None, accept_loss or "anchored")
        entries = ledger.spending().entries
    said = (
        "entries may be lost: all of its budget counts as spent" if accept_loss else "taken as it is: it has the anchor"
    )
    return Restored(path, said, entries, head)


def _rows(path: Path) -> list[Entry]:
    if not path.exists():
        return []
    with chain.translated(path):
        db = chain.connect(path, writable=False)
        try:
            return list(chain.rows(db))
        finally:
            db.close()


def _end(entries: list[Entry]) -> tuple[int, str]:
    return len(entries), entries[-1].hash


def _put(path: Path, entries: list[Entry]) -> None:
    """Write the whole chain under another name and rename it: it is there as a whole, or as it was."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        chain.written(draft, entries)
        os.replace(draft, path)  # noqa: PTH105
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        draft.unlink(missing_ok=True)
