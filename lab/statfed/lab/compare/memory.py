"""Peak memory of this process above what it held at a moment, where the system tells (Linux)."""

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def watched() -> Callable[[], float | None]:
    """Start watching; what it returns gives the peak since, in MiB above now. None where the system does not tell."""
    if sys.platform == "linux":
        with suppress(OSError):
            _RESET.write_text("5")  # lets the kernel's peak start anew from what is resident now
    start = _resident("VmRSS")

    def above() -> float | None:
        peak = _resident("VmHWM")
        return None if start is None or peak is None else max(0.0, peak - start)

    return above


def _resident(field: str) -> float | None:
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))
    except (OSError, StopIteration, ValueError):
        return None
