"""Files that a user asks for: never onto an input, never in place of a file that nobody said may go.

A destination is checked twice: by `Outputs.check` before anything is computed or spent, and when it is written. What is
written stands under another name beside it until it is whole, and is then renamed: an interruption leaves what was
there. Files that are the program's own (run folders, homes) do not pass here.
"""

import glob
import os
import re
import secrets
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from statfed.core.errors import UsageError

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?%?")
_OPTIONS = re.compile(r"[?](?=[A-Za-z_]+=)")  # of a text file, behind its name
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


@dataclass(frozen=True)
class Destinations:
    """How outputs are written. inputs: what the command reads, as the user named it, relative to `base`: files,
    folders, patterns, URLs; overwrite: may files be replaced that are no inputs?"""

    inputs: tuple[str, ...] = ()
    overwrite: bool = False
    base: Path = Path()

    def check(self, *paths: Path | str | None, beside: bool = False) -> None:
        """Raise UsageError unless each of these files may be written, and no two are one.

        beside: other files go there too, under names that begin with that of the file and a hyphen.
        """
        seen: dict[Path, Path] = {}
        for path in (Path(one) for one in paths if one is not None):
            if "\0" in str(path):
                raise UsageError("output: got a name that no file can have; want another")
            here = path.resolve()
            if here in seen:
                raise UsageError(f"output: got {path} twice; want a file of its own for each")
            seen[here] = path
            self._check(path)
            if beside:
                for other in sorted(path.parent.glob(f"{glob.escape(path.stem)}-*{glob.escape(path.suffix)}")):
                    self._check(other, f" (tables of the result go beside {path.name})")

    @contextmanager
    def writing(self, path: Path | str) -> Iterator[Path]:
        """A name to write to; what is there at the end of the block becomes `path`, as a whole.

        Raises UsageError where it may not be written, or cannot.
        """
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._check(path)
            draft = path.with_name(f".{secrets.token_hex(4)}-{path.name}"[:200])
            try:
                yield draft
                if self.overwrite:
                    os.replace(draft, path)  # noqa: PTH105
                else:
                    _put(draft, path)
            finally:
                with suppress(FileNotFoundError):
                    draft.unlink()
        except FileExistsError:
            raise UsageError(f"output: {path} exists; want a new file, or --overwrite") from None
        except OSError as error:
            raise UsageError(f"output: {path} cannot be written: {error.strerror}; want a file in a folder") from None

    def write_text(self, path: Path | str, text: str) -> None:
        """Write a text file; see `writing`."""
        with self.writing(path) as draft:
            draft.write_text(text, encoding="utf-8")

    def _check(self, path: Path, why: str = "") -> None:
        try:
            if path.is_dir():
                raise UsageError(f"output: {path} is a folder; want a file{why}")
            if path.exists() and not path.is_file():
                raise UsageError(f"output: {path} is no ordinary file; want one{why}")
            for named, file in self._files():
                if _same(path, file) or (file.is_dir() and path.resolve().is_relative_to(file.resolve())):
                    raise UsageError(f"output: {path} is {named}, which is read; want another file{why}")
            if os.path.lexists(path) and not self.overwrite:
                raise UsageError(f"output: {path} exists; want a new file, or --overwrite{why}")
            folder = next((one for one in path.absolute().parents if one.exists()), Path("/"))
            if not _can_be_written(folder):
                raise UsageError(f"output: {path} cannot be written; want a folder that may be{why}")
            if os.statvfs(folder).f_bavail == 0:
                raise UsageError(f"output: {path} cannot be written: no space is left in {folder}; want another{why}")
        except (OSError, ValueError):
            raise UsageError("output: got a name that no file can have; want another") from None

    def _files(self) -> Iterator[tuple[str, Path]]:
        """What is read, as files and folders, each with what to call it."""
        for source in self.inputs:
            for file in files_of(source, self.base):
                yield ("an input" if "@" in source else source), file


def files_of(source: str, base: Path) -> Sequence[Path]:
    """Files and folders that a source names: a path, a pattern, or the URL of a database that is a file."""
    try:
        if "\0" in source:
            return ()
        if "://" in source:
            url = urlsplit(source)
            if url.scheme.lower() not in ("duckdb", "sqlite"):
                return ()
            tail = unquote(url.netloc + url.path)
            return tuple(one for one in (base / tail.lstrip("/"), Path(tail)) if one.exists())
        path = base / Path(source).expanduser()
        if not path.exists() and (found := _OPTIONS.search(source)):
            source = source[: found.start()]
            path = base / Path(source).expanduser()
        if any(mark in source for mark in "*?[") and not path.exists():
            return tuple(path.parent.glob(path.name)) if path.parent.is_dir() else ()
        return (path,)
    except (ValueError, OSError, RuntimeError, NotImplementedError):  # the last is pathlib's, of an absolute pattern
        return ()  # it cannot be read either


def plain_cell(value: object) -> object:
    """A text that a spreadsheet would take for a formula, with an apostrophe in front; anything else as it is.

    >>> plain_cell("=HYPERLINK(1)"), plain_cell("-5"), plain_cell("- a"), plain_cell(-5)
    ("'=HYPERLINK(1)", '-5', "'- a", -5)
    """
    risky = isinstance(value, str) and value.startswith(_FORMULA) and not _NUMBER.fullmatch(value)
    return f"'{value}" if risky else value


def plain_cells(values: Iterable[object]) -> list[object]:
    """`plain_cell` of each."""
    return [plain_cell(value) for value in values]


def _can_be_written(folder: Path) -> bool:
    """Can a file be made in a folder? Tried, since permissions do not tell of all that stands against it."""
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        return False
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".statfed-"):
            return True
    except OSError:
        return False


def _put(draft: Path, path: Path) -> None:
    """Rename to a name that is free. Raises FileExistsError where it is not."""
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if os.path.lexists(path):
            raise FileExistsError(path) from None
        os.replace(draft, path)  # noqa: PTH105


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return one.resolve() == other.resolve()
