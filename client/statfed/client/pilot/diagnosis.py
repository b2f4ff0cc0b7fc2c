"""What stands against a party's part in a pilot, in words: its files, its kit, its keys, and the hub as it calls it."""

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from statfed.client.flower._flwr import signed_as
from statfed.client.guard.files import check_modes
from statfed.client.guard.ledger import read_only
from statfed.client.guard.register import register_of
from statfed.client.pilot.joining import KIT, NODE_KEY, look, node_key, standing
from statfed.core.errors import StatfedError, UsageError
from statfed.core.pilot.checks import Finding, authority, call, until, versions
from statfed.core.pilot.proxy import proxy_for


def diagnosis(home: Path, now: datetime, proxy: str | None = None, *, offline: bool = False) -> Iterator[Finding]:
    """Each thing that was looked at, as `statfed doctor` shows it and a running party logs what failed.

    proxy: as it was named to the command; None: what the environment says. offline: look at files alone.
    """
    yield versions()
    try:
        check_modes(home)
        yield Finding("modes", "ok", f"{home}: its files are its owner's alone")
    except UsageError as error:
        yield Finding("modes", "failed", str(error))
    try:
        change, own = look(home, home / KIT), standing(home)
    except UsageError as error:
        yield Finding("kit", "failed", str(error))
        return
    kit = change.signed.kit
    if own is None or change.added or change.removed:
        yield Finding("kit", "failed", f"{home}: got a kit that was not joined with; want `statfed pilot join`")
    else:
        yield Finding("kit", "ok", f"{home}: {kit.party} in {kit.roster.pilot}, roster {kit.roster.serial}")
    yield from _ledger(home)
    for one in kit.roster.participants:
        yield until("participant-expired", one.name, None, one.until, now)
    yield authority(kit.authority.encode("ascii"), now)
    if offline:
        return
    try:
        by = proxy_for(kit.address, proxy, os.environ)
    except UsageError as error:
        yield Finding("proxy", "failed", str(error))
        return
    if by is not None:
        yield Finding("proxy", "ok", f"{kit.address}: called through {by.address}, which {by.source} names")
    yield from call(kit.address, kit.authority, now, by, signed_as(node_key(home / NODE_KEY)))


def _ledger(home: Path) -> Iterator[Finding]:
    """Does the ledger verify, and does this process find the register under which it was begun?"""
    path = home / "ledger.sqlite"
    if not path.exists():
        return
    try:
        with read_only(path) as ledger:
            first = ledger.entries()[0]
        register = register_of(home)
        known = register.mark(first.hash)
        register.close()
    except StatfedError as error:
        yield Finding("ledger", "failed", str(error))
        return
    if known is None:
        yield Finding(
            "ledger",
            "failed",
            f"{path}: got a register, {register.path}, that does not know it; want the one under which it was begun "
            "(STATFED_REGISTER), or nothing is answered",
        )
    else:
        yield Finding("ledger", "ok", f"{path}: verified, and known to {register.path}")
