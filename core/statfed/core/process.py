"""Processes that belong to another: they end when it ends, and how one ended is said in words."""

import ctypes
import os
import signal
import sys
import threading
import time

OFFLINE = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}
"""Settings with which Flower calls nobody but its own peers, and installs nothing."""
PARENT_POLL = 0.5
LAST_RESORT = 8.0


def die_with_parent(parent: int) -> None:
    """Send this process SIGTERM when the process `parent` has ended, and end it for good 8 seconds later.

    On Linux the kernel sends it at once, also when only the thread that started this process has ended; a poll of the
    parent's pid does it everywhere.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(LAST_RESORT)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def how(code: int) -> str:
    """An exit status, as `subprocess` gives it, in words."""
    if code >= 0:
        return f"exit status {code}"
    return f"killed by {signal.Signals(-code).name if -code in set(signal.Signals) else -code}"
