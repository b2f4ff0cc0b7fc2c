"""A party's process in a pilot: the pinned runner under this home's kit, started again when the connection ends.

Connections go outwards alone, by a proxy where there is one. A hub that is restarted, a network that is cut, a
SuperNode that ends: the runner is started again after a pause that doubles up to half a minute. What a kit names may
change while it runs: a newer one that was joined with holds from the next start on, and for identities at once. What
stands against the connection, or has become of the home's files, is looked for all the while and logged in words, once
for each cause.
"""

import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from statfed.client.guard.files import check_modes
from statfed.client.guard.policy import load_policy
from statfed.client.pilot.diagnosis import diagnosis
from statfed.client.pilot.joining import KIT, NODE_KEY, look, standing
from statfed.client.third_party import FILE as PARTY
from statfed.client.third_party import load_party
from statfed.core import VERSION
from statfed.core.errors import UsageError
from statfed.core.pilot.audit import record
from statfed.core.pilot.bundle import bundle_digest
from statfed.core.pilot.checks import Finding
from statfed.core.pilot.files import alone, replace_file
from statfed.core.pilot.proxy import carried, proxy_for
from statfed.core.process import how

AUTHORITY = "pilot.authority.pem"
LOCK = "pilot.lock"
SHORTEST, LONGEST = 1.0, 30.0
"""Seconds before the runner is started again."""
GOOD = 60.0
"""Seconds that a runner has to have lived for the next pause to be the shortest."""
FIRST_LOOK, NEXT_LOOK = 3.0, 30.0
"""Seconds before it is looked what stands against the connection."""
PYTHON = sys.executable

log = logging.getLogger("statfed.holder")


def serve(home: Path, stop: threading.Event, started: Callable[[str, int], None], proxy: str | None = None) -> None:
    """Answer the pilot's coordinator until `stop` is set.

    started: called at every start with whom the runner calls, and how, and its process. proxy: as it was named; None:
    what the environment says. Raises UsageError where the home has not joined, has no policy of its own, or is served
    by another process; what happens to it later is logged, and waited for.
    """
    check(home)
    proxy_for(look(home, home / KIT).signed.kit.address, proxy, os.environ)
    with alone(home / LOCK, f"holder in {home}"), _watched(home, proxy):
        record(home, "started", {"version": VERSION})
        pause = SHORTEST
        while not stop.is_set():
            try:
                command, environment, address = _command(home, proxy)
            except UsageError:  # which is logged by whoever watches
                stop.wait(pause)
                continue
            process = subprocess.Popen(command, env=environment)
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


class Told:
    """What has been logged of what is wrong: each cause once, whatever its numbers, until it was seen to be mended."""

    def __init__(self) -> None:
        self._now: set[tuple[str, str]] = set()

    def tell(self, findings: Iterable[Finding]) -> None:
        """Log what is new among these findings, and what has been mended since the last.

        What could not be looked at this time, since something else stood before it, is not mended.
        """
        found = list(findings)
        wrong = [
            (one, (one.code, f"{one.state} {re.sub('[0-9]+', '', one.what)}")) for one in found if one.state != "ok"
        ]
        codes = {one.code for one, _ in wrong}
        mended = {one.code for one in found} - codes if wrong else {code for code, _ in self._now}
        for code in sorted(mended & {code for code, _ in self._now}):
            log.info("%s: mended", code)
        for one, cause in wrong:
            if cause not in self._now:
                log.log(logging.ERROR if one.state == "failed" else logging.WARNING, "%s: %s", one.code, one.what)
        kept = {cause for cause in self._now if cause[0] not in mended | codes}
        self._now = kept | {cause for _, cause in wrong}


@contextmanager
def _watched(home: Path, proxy: str | None) -> Iterator[None]:
    """Have somebody look what stands against the connection, soon and then again and again."""
    leaving, told = threading.Event(), Told()

    def watch() -> None:
        pause = FIRST_LOOK
        while not leaving.wait(pause):
            try:
                told.tell(_looked(home, proxy))
            except (OSError, UsageError):  # a file that changes while it is looked at
                log.exception("what stands against the connection was not looked at")
            pause = NEXT_LOOK

    thread = threading.Thread(target=watch, name="diagnosis", daemon=True)
    thread.start()
    try:
        yield
    finally:
        leaving.set()


def _looked(home: Path, proxy: str | None) -> list[Finding]:
    """Is the home still as a start needs it, and is the hub there?"""
    found = list(diagnosis(home, datetime.now(UTC), proxy))
    if not any(one.code in ("modes", "kit") and one.state == "failed" for one in found):
        try:
            check(home)
            found.append(Finding("home", "ok", f"{home}: as it has to be"))
        except UsageError as error:
            found.append(Finding("home", "failed", str(error)))
    return found


def _command(home: Path, proxy: str | None) -> tuple[list[str], dict[str, str], str]:
    """How the runner is started, in which environment, and whom it calls."""
    check(home)
    kit = look(home, home / KIT).signed.kit
    replace_file(home / AUTHORITY, kit.authority)
    command = [PYTHON, "-P", "-m", "statfed.client.flower.runner", "--home", str(home.resolve())]
    command += ["--superlink", kit.address, "--root-certificates", str(home / AUTHORITY)]
    command += ["--node-key", str(home / NODE_KEY), "--bundle-sha256", bundle_digest()]
    command += ["--parent", str(os.getpid())]
    by = proxy_for(kit.address, proxy, os.environ)
    shown = kit.address if by is None else f"{kit.address} through {by.address}"
    return command, carried(by, os.environ), shown


def _end(process: subprocess.Popen[bytes], seconds: float = 8.0) -> None:
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
