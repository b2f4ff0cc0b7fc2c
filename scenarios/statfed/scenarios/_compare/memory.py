"""Peak memory of this process since a moment, where the system tells (Linux)."""

import sys
from contextlib import suppress
from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak() -> None:
    """Start measuring the peak anew. Elsewhere than on Linux nothing happens."""
    if sys.platform == "linux":
        with suppress(OSError):
            _RESET.write_text("5")


def peak() -> float | None:
    """Peak resident MiB since `reset_peak`; None where the system does not tell."""
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration, ValueError):
        return None
