"""One at a time: processes and threads of one host that wait for each other before they look at files and change them.

Locks are advisory, and let go by the system when their holder ends, however it ends.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def in_turn(path: Path) -> Iterator[int]:
    """Hold an existing file or folder while the block runs, after whoever holds it now. Gives its descriptor."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)
