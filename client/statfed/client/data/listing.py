"""Which files a source is: one, those of a folder or those of a pattern. Private.

What other programs keep beside data is no data: names that begin with `.`, `_` or `~$` (hidden files, checkpoints of
notebooks, `_SUCCESS`), and ends that partial downloads, editors and locks have. In folders and patterns these are left
out and counted, as is what is of no built-in kind. A file that is named by itself is read whatever its name. Each file
counts once: under two names it is refused.
"""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from statfed.core.errors import UsageError

TEXT = (".csv", ".tsv")
COMPRESSED = ("", ".gz", ".zst")
FORMS = {
    **{f"{form}{packed}": form[1:] for form in TEXT for packed in COMPRESSED},
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}
"""End of a file's name, in lower case, to its form: csv, tsv, parquet or arrow."""
SUFFIXES = tuple(FORMS)
WANTED = (
    "a .csv, .tsv, .csv.gz, .csv.zst, .parquet, .arrow or .feather file, a folder of .csv, .tsv or .parquet files, "
    "or a database URL"
)
_LEFT = (".tmp", ".crdownload", ".part", ".partial", ".filepart", ".download", ".swp", ".bak", ".lock", "~")
_HIDDEN = (".", "_", "~$", "#")
_TABLES = {"_delta_log": "a Delta Lake table", ".hoodie": "a Hudi table", "_symlink_format_manifest": "a Delta table"}
_MARKS = "*?["


@dataclass(frozen=True)
class Listing:
    """files: to be read, in order of their names; root: the folder that they are named from; skipped: names, from
    there, of what was left out; one: was the source a single file?"""

    files: tuple[Path, ...]
    root: Path
    skipped: tuple[str, ...] = ()
    one: bool = True

    def name(self, file: Path) -> str:
        """A file's name for people."""
        return os.path.relpath(file, self.root) if not self.one else file.name

    @property
    def form(self) -> str | None:
        """Of the files, or None: of no built-in kind."""
        return form_of(self.files[0].name)


def form_of(name: str) -> str | None:
    """The form of a file by its name."""
    lower = name.lower()
    return next((form for end, form in FORMS.items() if lower.endswith(end)), None)


def listing(path: str, home: Path, shown: str) -> Listing:
    """The files of `path`, relative to `home` or absolute. Raises UsageError where there are none, or of two forms."""
    whole = home / Path(path).expanduser()
    if whole.exists() and not whole.is_dir():
        _regular(whole, shown)
        return Listing((whole,), whole.parent)
    if whole.is_dir():
        found = sorted(_walk(whole, shown))
        root = whole
    elif any(mark in path for mark in _MARKS):
        found = [Path(name) for name in sorted(glob.glob(str(whole), recursive=True, include_hidden=True))]  # noqa: PTH207  # the hidden are counted
        root = Path(str(whole)[: min(str(whole).find(mark) for mark in _MARKS if mark in str(whole))] + "x").parent
        if folders := [one for one in found if one.is_dir()]:
            raise UsageError(
                f"{shown}: got {len(folders)} folders by this pattern; want files alone, as in **/*.parquet"
            )
    else:
        raise UsageError(f"{shown}: no such file; want {WANTED}")
    return _sorted_out(found, root, whole, shown)


def _sorted_out(found: Sequence[Path], root: Path, whole: Path, shown: str) -> Listing:
    named = [(one, os.path.relpath(one, root)) for one in found]
    wanted = tuple(mark for mark in _HIDDEN if whole.name.startswith(mark) and not whole.is_dir())
    kept = [(one, name) for one, name in named if not _left_out(name, wanted)]
    files = [one for one, _ in kept if form_of(one.name)]
    skipped = tuple(name for one, name in named if one not in set(files))
    if not files:
        what = f", {len(skipped)} others left out" if skipped else ""
        where = "in it" if whole.is_dir() else "of such a name"
        raise UsageError(f"{shown}: no file of data {where}{what}; want .csv, .tsv or .parquet files")
    forms = sorted({str(form_of(one.name)) for one in files})
    if len(forms) > 1:
        raise UsageError(f"{shown}: got {' and '.join(forms)} files together; want one form")
    for file in files:
        _regular(file, f"{shown}: {os.path.relpath(file, root)}")
    if len(files) > 1:
        _each_once(files, root, shown)
    return Listing(tuple(files), root, skipped, one=False)


def _regular(file: Path, shown: str) -> None:
    """A pipe or a device is read once or without an end, and nothing tells when it changes."""
    if not file.exists():
        raise UsageError(f"{shown}: got a link to no file; want the file")
    if not file.is_file():
        raise UsageError(f"{shown}: got a pipe, socket or device; want a file, which can be read twice")


def _walk(folder: Path, shown: str) -> Iterator[Path]:
    seen: dict[str, str] = {}
    for here, folders, files in os.walk(folder, followlinks=True):
        for mark, what in _TABLES.items():
            if mark in folders:
                raise UsageError(f"{shown}: got {what}, whose folder has files of earlier states; want it exported")
        folders.sort()
        real = os.path.realpath(here)
        if real in seen:
            raise UsageError(f"{shown}: {os.path.relpath(here, folder)} leads to {seen[real]} again; want it once")
        seen[real] = os.path.relpath(here, folder)
        for name in files:
            yield Path(here) / name


def _left_out(name: str, wanted: tuple[str, ...]) -> bool:
    hidden = tuple(mark for mark in _HIDDEN if mark not in wanted)
    return name.lower().endswith(_LEFT) or any(part.startswith(hidden) for part in Path(name).parts)


def _each_once(files: Sequence[Path], root: Path, shown: str) -> None:
    seen: dict[tuple[int, int], Path] = {}
    for file in files:
        stat = file.stat()
        if other := seen.get((stat.st_dev, stat.st_ino)):
            pair = f"{os.path.relpath(other, root)} and {os.path.relpath(file, root)}"
            raise UsageError(f"{shown}: {pair} are one file; want it once")
        seen[stat.st_dev, stat.st_ino] = file
