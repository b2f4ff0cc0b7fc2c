"""Files of a pilot's folders: secret from their first byte, or replaced as a whole."""

import os
import secrets
from pathlib import Path


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
