"""A party's process in a pilot: the pinned runner under this home's kit, started again when the connection ends.

Connections go outwards alone. A hub that is restarted, a network that is cut, a SuperNode that ends: the runner is
started again after a pause that doubles up to half a minute. What a kit names may change while it runs: a newer one
that was joined with holds from the next start on, and for identities at once.
"""

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from statfed.client.guard.files import check_modes
from statfed.client.guard.policy import load_policy
from statfed.client.pilot.joining import KIT, NODE_KEY, look, standing
from statfed.client.third_party import FILE as PARTY
from statfed.client.third_party import load_party
from statfed.core import VERSION
from statfed.core.errors import UsageError
from statfed.core.pilot.audit import record
from statfed.core.pilot.bundle import bundle_digest
from statfed.core.pilot.files import replace_file
from statfed.core.process import how

AUTHORITY = "pilot.authority.pem"
SHORTEST, LONGEST = 1.0, 30.0
"""Seconds before the runner is started again."""
GOOD = 60.0
"""Seconds that a runner has to have lived for the next pause to be the shortest."""

log = logging.getLogger("statfed.holder")


def serve(home: Path, stop: threading.Event, started: Callable[[str, int], None]) -> None:
    """Answer the pilot's coordinator until `stop` is set.

    started: called with the hub's address and the runner's process at every start. Raises UsageError where the home has
    not joined, or has no policy of its own.
    """
    pause = SHORTEST
    check(home)
    record(home, "started", {"version": VERSION})
    while not stop.is_set():
        command, address = _command(home)
        process = subprocess.Popen(command)
        begun = time.monotonic()
        try:
            started(address, process.pid)
            while process.poll() is None and not stop.wait(0.2):
                pass
        finally:
            _end(process)
        if stop.is_set():
            break
        pause = SHORTEST if time.monotonic() - begun > GOOD else min(2 * pause, LONGEST)
        log.warning("the runner ended (%s); it is started again in %.0f s", how(process.returncode), pause)
        stop.wait(pause)
    record(home, "stopped", {})


def check(home: Path) -> str:
    """The party's name, where its home has all that `serve` needs. Raises UsageError saying what is missing."""
    check_modes(home)
    if not (home / KIT).exists():
        raise UsageError(f"{home}: got no kit; want `statfed pilot join` first")
    change, own = look(home, home / KIT), standing(home)
    if own is None or change.to_compare() or change.removed:
        raise UsageError(f"{home}: got a kit that was not joined with; want `statfed pilot join`")
    third = (home / PARTY).exists()
    name = load_party(home / PARTY).party.name if third else load_policy(home / "policy.toml").holder.name
    if name != own.pilot.party:
        raise UsageError(f"{home}: got {name} in its own file and {own.pilot.party} in the kit; want one name")
    return name


def _command(home: Path) -> tuple[list[str], str]:
    """How the runner is started, and whom it calls."""
    check(home)
    kit = look(home, home / KIT).signed.kit
    replace_file(home / AUTHORITY, kit.authority)
    command = [sys.executable, "-P", "-m", "statfed.client.flower.runner", "--home", str(home.resolve())]
    command += ["--superlink", kit.address, "--root-certificates", str(home / AUTHORITY)]
    command += ["--node-key", str(home / NODE_KEY), "--bundle-sha256", bundle_digest()]
    return command, kit.address


def _end(process: subprocess.Popen[bytes], seconds: float = 8.0) -> None:
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
