"""Files of a holder's home folder: nobody else's to read or write, and one exact answer at a time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from statfed.core.errors import UsageError
from statfed.core.turns import in_turn

PRIVATE = (
    "policy.toml",
    "identity.key",
    "node.key",
    "pilot.toml",
    "ledger.sqlite",
    "ledger.opened",
    "releases.sqlite",
    "releases.opened",
    "linked.sqlite",
    "linked.opened",
    "refusals.jsonl",
)
"""Files of a home that are their owner's alone."""


LINKS = "links"
"""In a home: pairs that this holder was told by linkages, a file a run."""


def check_modes(home: Path) -> None:
    """Raise UsageError, naming the command, where a file of the home can be read or written by others than its owner,
    or its owner is another account, which could open it to itself.

    As OpenSSH does with keys: whoever can write policy or ledger decides what leaves, and thresholds are secret. Nor
    may others write to the folder, in which they could put other files, or to party.toml, which holds no secret.
    """
    for path, closed, want in (
        (home, 0o022, "go-w"),
        (home / "party.toml", 0o022, "go-w"),
        (home / "studies", 0o077, "700"),
        (home / "open", 0o077, "700"),
        (home / LINKS, 0o077, "700"),
        *((file, 0o077, "600") for file in sorted((home / LINKS).glob("*"))),
        *((home / name, 0o077, "600") for name in PRIVATE),
    ):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UsageError(f"{path}: cannot be looked at: {error.strerror}") from None
        if status.st_uid not in (0, os.geteuid()):
            raise UsageError(
                f"{path}: got the owner {status.st_uid}; want this account's own: chown {os.geteuid()} {path}"
            )
        if (mode := status.st_mode & 0o777) & closed:
            raise UsageError(f"{path}: got mode {mode:04o}, open to others; want it its owner's: chmod {want} {path}")


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whatever the umask is: it is so before anything is in it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, 0o600)
        file.truncate()
        file.write(text)


def append_private(path: Path, line: str) -> None:
    """Add a line to a file that only its owner can read, and return once it is on disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(descriptor)


@contextmanager
def one_at_a_time(home: Path) -> Iterator[None]:
    """Hold the home for one answer: no other process or thread looks at counted limits until it is recorded.

    Two processes that each see the last refusal or figure left would otherwise both use it. Let go when a process dies.
    """
    with in_turn(home / "policy.toml"):
        yield
