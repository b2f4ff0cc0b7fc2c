"""Files of a pilot's folders: secret from their first byte, replaced as a whole, or one process's alone."""

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from statfed.core.errors import UsageError


def write_secret(path: Path, content: bytes) -> Path:
    """Write a new file that only its owner can read; it never exists with wider rights."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    return path


def replace_file(path: Path, text: str) -> None:
    """Write a file that only its owner can read; an interruption leaves what was there."""
    draft = write_secret(path.with_name(f".{secrets.token_hex(4)}-{path.name}"), text.encode("utf-8"))
    try:
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def alone(lock: Path, what: str) -> Iterator[None]:
    """Hold a lock until the block, or this process, ends, however it ends. Raises UsageError where another holds it."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        for _ in range(20):  # whoever looks whether it is taken holds it for a moment
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(0.05)
        else:
            raise UsageError(f"{what}: got one that is up; want it stopped first")
        yield
    finally:
        os.close(descriptor)


def taken(lock: Path) -> bool:
    """Does a process that lives hold this lock?"""
    try:
        descriptor = os.open(lock, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
