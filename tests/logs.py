"""Folders of a pilot that have logs, and histories that their owners change."""

from pathlib import Path

from statfed.core.identity import create_identity
from statfed.core.pilot import audit
from statfed.core.pilot.audit import Head
from statfed.core.pilot.witness import HEADS, Noted


def folder(root: Path, name: str = "", pilot: str = "trade") -> Path:
    """A coordinator's folder or, with a name, a party's home, without a log."""
    home = root / (name or "office")
    home.mkdir(mode=0o700)
    create_identity(home)
    party = f'party = "{name}"\n' if name else 'host = "h"\n'
    (home / audit.OWNER).write_text(f'[pilot]\nname = "{pilot}"\n{party}')
    return home


def log(home: Path) -> Path:
    return home / audit.FILE


def key(home: Path) -> str:
    return create_identity(home)


def noting(whose: str, head: Head | None) -> audit.Facts:
    assert head is not None
    return {HEADS: [Noted(whose, head).facts()]}


def rewritten(home: Path, keep: int) -> None:
    """A second history after some entries, with the owner's own key: the strongest attacker."""
    lines = log(home).read_bytes().splitlines(keepends=True)
    log(home).write_bytes(b"".join(lines[:keep]))
    for number in range(keep, len(lines)):
        audit.record(home, "did", {"n": number, "another": "history"})
