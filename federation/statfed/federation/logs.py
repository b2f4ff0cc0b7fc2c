"""Logs that somebody was given, as files or in exported crates, read for checking and never unpacked elsewhere."""

import hashlib
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO

from statfed.core.errors import UsageError
from statfed.core.pilot.audit import FILE, Checked, verify

LARGEST = 8 * 2**30
"""Bytes of a crate, unpacked."""
_MOST_FILES = 100_000
_MANIFEST = "manifest-sha512.txt"


def check(path: Path, keys: Mapping[str, str]) -> Checked:
    """The log in a file, in a folder, or in a crate, whose manifest is checked too.

    keys: of those that are known, by name. A log of a name that is known has to be by that key. Raises UsageError where
    there is no log.
    """
    if path.is_dir():
        return _bag(path, keys) if (path / "bagit.txt").exists() else _known(path / FILE, path / FILE, keys)
    if not zipfile.is_zipfile(path):
        return _known(path, path, keys)
    with TemporaryDirectory(prefix="statfed-") as work, zipfile.ZipFile(path) as archive:
        wrong = next(_zipped(archive, path), None)
        log = Path(work) / FILE
        with _member(archive, path) as packed, log.open("xb") as file:
            for block in _blocks(packed):
                file.write(block)
        found = _known(path, log, keys)
    return found if wrong is None or found.wrong else replace(found, wrong=wrong)


def _known(path: Path, log: Path, keys: Mapping[str, str]) -> Checked:
    """The log, by the key that is known of its owner. path: as messages name it."""
    found = verify(log)
    if found.owner is not None and found.owner.name in keys and found.owner.key != keys[found.owner.name]:
        found = verify(log, keys[found.owner.name])
    return replace(found, path=path)


def _bag(path: Path, keys: Mapping[str, str]) -> Checked:
    found = _known(path, path / "data" / FILE, keys)
    if found.wrong is not None:
        return found
    for name, digest in _manifest((path / _MANIFEST).read_bytes(), path).items():
        file = path / name
        if file.is_symlink() or not file.is_file():
            return replace(found, wrong=f"manifest: {name} is missing")
        with file.open("rb") as content:
            if _digest(content) != digest:
                return replace(found, wrong=f"manifest: {name} was edited")
    return found


def _zipped(archive: zipfile.ZipFile, path: Path) -> Iterator[str]:
    """What does not fit the manifest of a zipped bag."""
    members = archive.infolist()
    if len(members) > _MOST_FILES or sum(one.file_size for one in members) > LARGEST:
        raise UsageError(f"{path}: got more than {_MOST_FILES:,} files or {LARGEST:,} bytes; want an exported crate")
    names = {one.filename for one in members}
    top = _top(archive, path)
    if f"{top}/{_MANIFEST}" not in names:
        yield f"manifest: {_MANIFEST} is missing"
        return
    for name, digest in _manifest(archive.read(f"{top}/{_MANIFEST}"), path).items():
        if f"{top}/{name}" not in names:
            yield f"manifest: {name} is missing"
            continue
        with archive.open(f"{top}/{name}") as content:
            if _digest(content) != digest:
                yield f"manifest: {name} was edited"


@contextmanager
def _member(archive: zipfile.ZipFile, path: Path) -> Iterator[IO[bytes]]:
    """The log in a zipped bag."""
    try:
        with archive.open(f"{_top(archive, path)}/data/{FILE}") as file:
            yield file
    except KeyError:
        raise UsageError(f"{path}: got an archive without data/{FILE}; want an exported crate") from None


def _top(archive: zipfile.ZipFile, path: Path) -> str:
    found = {PurePosixPath(one.filename).parts[0] for one in archive.infolist() if one.filename.strip("/")}
    if len(found) != 1:
        raise UsageError(f"{path}: got an archive of {len(found)} folders; want an exported crate, which is one")
    return found.pop()


def _manifest(content: bytes, path: Path) -> dict[str, str]:
    """SHA-512 by name. Raises UsageError on what is none, and on names that lead elsewhere."""
    found = {}
    try:
        for line in content.decode("utf-8").splitlines():
            digest, name = line.split("  ", 1)
            place = PurePosixPath(name)
            if place.is_absolute() or ".." in place.parts or place.parts[0] != "data":
                raise ValueError
            found[name] = digest
    except (ValueError, IndexError):
        raise UsageError(f"{path}: got a manifest that is none; want one of SHA-512 of files under data/") from None
    if f"data/{FILE}" not in found:
        raise UsageError(f"{path}: got a manifest without data/{FILE}; want an exported crate")
    return found


def _digest(file: IO[bytes]) -> str:
    digest = hashlib.sha512()
    for block in _blocks(file):
        digest.update(block)
    return digest.hexdigest()


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    """A file's content. Raises UsageError past the most that is read, whatever an archive says of its size."""
    size = 0
    while block := file.read(2**20):
        size += len(block)
        if size > LARGEST:
            raise UsageError(f"got a file of more than {LARGEST:,} bytes; want a log of a pilot")
        yield block
