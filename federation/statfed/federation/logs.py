"""Logs that somebody was given, as files or in exported crates, read for checking and never unpacked elsewhere."""

import hashlib
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO

from statfed.core.errors import UsageError
from statfed.core.pilot.audit import FILE, Checked, verify
from statfed.federation.crated import beside

LARGEST = 8 * 2**30
"""Bytes of a crate, unpacked."""
_MOST_FILES = 100_000
_MANIFEST = "manifest-sha512.txt"


def check(path: Path, keys: Mapping[str, str]) -> Checked:
    """The log in a file, in a folder, or in a crate: then its manifest, and what lies beside the log, are checked too.

    keys: of those that are known, by name. A log of a name that is known has to be by that key. Raises UsageError where
    there is no log.
    """
    if path.is_dir():
        if not (path / "bagit.txt").exists():
            return _known(path / FILE, path / FILE, keys)
        bag = _folder(path)
        return _crate(path, bag, path / "data" / FILE, keys)
    if not zipfile.is_zipfile(path):
        return _known(path, path, keys)
    with TemporaryDirectory(prefix="statfed-") as work, zipfile.ZipFile(path) as archive:
        bag, log = _archive(archive, path), Path(work) / FILE
        if f"data/{FILE}" not in bag.sizes:
            raise UsageError(f"{path}: got an archive without data/{FILE}; want an exported crate")
        with bag.open(f"data/{FILE}") as packed, log.open("xb") as file:
            for block in _blocks(packed):
                file.write(block)
        return _crate(path, bag, log, keys)


@dataclass(frozen=True)
class _Bag:
    """Files of a bag: their sizes, by name, and how they are read. manifest: SHA-512, by name."""

    sizes: Mapping[str, int]
    open: Callable[[str], IO[bytes]]
    manifest: Mapping[str, str]


def _crate(path: Path, bag: _Bag, log: Path, keys: Mapping[str, str]) -> Checked:
    """The log of a crate, with what is wrong beside it. path: as messages name it."""
    found = _known(path, log, keys)
    wrong, notes = next(_unlike(bag), None), tuple[str, ...]()
    if wrong is None and found.wrong is None:
        payload = {name.removeprefix("data/"): size for name, size in bag.sizes.items() if name.startswith("data/")}

        def read(name: str) -> bytes:
            with bag.open(f"data/{name}") as file:
                return b"".join(_blocks(file))

        wrong, notes = beside(found, payload, read)
    return replace(found, beside=wrong, notes=(*found.notes, *notes))


def _unlike(bag: _Bag) -> Iterator[str]:
    """What does not fit the manifest of a bag."""
    if not bag.manifest:
        yield f"manifest: {_MANIFEST} is missing"
        return
    for name, digest in bag.manifest.items():
        if name not in bag.sizes:
            yield f"manifest: {name} is missing"
            continue
        with bag.open(name) as content:
            if _digest(content) != digest:
                yield f"manifest: {name} was edited"
    for name in sorted(bag.sizes):
        if name.startswith("data/") and name not in bag.manifest:
            yield f"manifest: {name} is not in it"


def _known(path: Path, log: Path, keys: Mapping[str, str]) -> Checked:
    """The log, by the key that is known of its owner. path: as messages name it."""
    found = verify(log)
    if found.owner is not None and found.owner.name in keys and found.owner.key != keys[found.owner.name]:
        found = verify(log, keys[found.owner.name])
    return replace(found, path=path)


def _folder(path: Path) -> _Bag:
    """A bag in a folder. Links are no files of it."""
    files = {
        one.relative_to(path).as_posix(): one for one in path.rglob("*") if one.is_file() and not _linked(one, path)
    }
    sizes = {name: one.stat().st_size for name, one in files.items()}
    if len(sizes) > _MOST_FILES or sum(sizes.values()) > LARGEST:
        raise UsageError(f"{path}: got more than {_MOST_FILES:,} files or {LARGEST:,} bytes; want an exported crate")
    text = files[_MANIFEST].read_bytes() if _MANIFEST in files else None
    return _Bag(sizes, lambda name: files[name].open("rb"), {} if text is None else _manifest(text, path))


def _linked(file: Path, top: Path) -> bool:
    return any(one.is_symlink() for one in (file, *file.parents) if one != top and top in one.parents)


def _archive(archive: zipfile.ZipFile, path: Path) -> _Bag:
    """A bag in an archive, which has one folder."""
    members = archive.infolist()
    if len(members) > _MOST_FILES or sum(one.file_size for one in members) > LARGEST:
        raise UsageError(f"{path}: got more than {_MOST_FILES:,} files or {LARGEST:,} bytes; want an exported crate")
    found = {PurePosixPath(one.filename).parts[0] for one in members if one.filename.strip("/")}
    if len(found) != 1:
        raise UsageError(f"{path}: got an archive of {len(found)} folders; want an exported crate, which is one")
    top = f"{found.pop()}/"
    files = [one for one in members if not one.is_dir()]
    sizes = {one.filename.removeprefix(top): one.file_size for one in files}
    if len(sizes) != len(files):
        raise UsageError(f"{path}: got an archive with a file twice; want an exported crate, which has each once")
    text = archive.read(top + _MANIFEST) if _MANIFEST in sizes else None
    return _Bag(sizes, lambda name: archive.open(top + name), {} if text is None else _manifest(text, path))


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
