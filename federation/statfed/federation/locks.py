"""Locks that a living process holds: let go by the system when it ends, however it ends.

A lock file says nothing by being there; who holds it does. Locks are advisory, and hold between processes and between
threads of one host.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from statfed.core.errors import UsageError

PATIENCE = 0.5
"""Seconds that taking a lock waits: whoever asks whether it is held takes it for a moment."""


@contextmanager
def held(path: Path, busy: str) -> Iterator[None]:
    """Hold a lock file while the block runs. Raises UsageError with `busy` where another holds it, or it cannot be
    made."""
    descriptor = _opened(path)
    try:
        if not _taken(descriptor, fcntl.LOCK_EX):
            raise UsageError(busy)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def used(path: Path, busy: str, change: Callable[[], None] | None) -> Iterator[None]:
    """Hold a lock file together with others while the block runs, after `change` was made with nobody else there.

    Raises UsageError with `busy` where something is to be changed that others use.
    """
    descriptor = _opened(path)
    try:
        if change is not None:
            if not _taken(descriptor, fcntl.LOCK_EX):
                raise UsageError(busy)
            change()
        if not _taken(descriptor, fcntl.LOCK_SH):
            raise UsageError(busy)
        yield
    finally:
        os.close(descriptor)


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise UsageError(f"{path.parent}: cannot be written: {error.strerror}; want a folder that can be") from None


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
