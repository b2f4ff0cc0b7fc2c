"""Locks that a living process holds: let go by the system when it ends, however it ends.

A lock file says nothing by being there; who holds it does. Locks are advisory, and hold between processes and between
threads of one host.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from statfed.core.errors import UsageError

PATIENCE = 0.5
"""Seconds that taking a lock waits: whoever asks whether it is held takes it for a moment."""


@contextmanager
def held(path: Path, busy: str, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock file while the block runs. Raises UsageError with `busy` where another holds it, or it cannot be
    made. shared: others may hold it so too."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise UsageError(f"{path.parent}: cannot be written: {error.strerror}; want a folder that can be") from None
    try:
        if not _taken(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX):
            raise UsageError(busy)
        yield
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Does a living process hold this lock? Never waits, and writes nothing."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _taken(descriptor: int, kind: int) -> bool:
    end = time.monotonic() + PATIENCE
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(0.02)
