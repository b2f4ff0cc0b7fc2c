"""The embedded engine that reads files, and how its statements are written. Private.

It spills to a folder of one source alone, under TMPDIR, which is removed on closing: it may hold records. The engine
sees files by links in that folder, so that no sign of a name is one of a pattern.
"""

import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from statfed.core.errors import UsageError
from statfed.core.table import Expr


@dataclass(frozen=True)
class Engine:
    """An open DuckDB. ibis: its Ibis backend; folder: of this source alone."""

    ibis: Any
    folder: Path

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """What a statement finds. Its errors may quote the data."""
        found: list[tuple[Any, ...]] = self.ibis.con.execute(statement).fetchall()
        return found

    def view(self, select: str) -> Expr:
        """The table that a `select` gives."""
        self.execute(f"create view records as {select}")
        return self.ibis.table("records")

    def registered(self, data: object) -> Expr:
        """A table of Arrow data."""
        self.ibis.con.register("records", data)
        return self.ibis.table("records")

    def link(self, file: Path, *parts: str) -> Path:
        """A name of `file` in the engine's folder."""
        link = self.folder.joinpath("files", *parts)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file.absolute())
        return link


def engine(stack: ExitStack) -> Engine:
    """An embedded engine that spills to a private folder, fetches nothing, and may stream in any order."""
    import ibis

    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="statfed-"))
    connection = ibis.duckdb.connect(temp_directory=folder)
    stack.callback(connection.disconnect)
    for setting in ("autoinstall_known_extensions = false", "preserve_insertion_order = false"):
        connection.con.execute(f"set {setting}")
    return Engine(connection, Path(folder))


def literal(text: str) -> str:
    """A text in a statement."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """A name in a statement."""
    return '"' + name.replace('"', '""') + '"'


def distinct(names: Iterable[str], shown: str) -> None:
    """Refuse columns of one name, also but for upper and lower case: DuckDB would rename one of them."""
    places: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        if other := places.get(name.casefold()):
            raise UsageError(
                f"{shown}: got columns {other} and {number} of one name ({name!r}, upper and lower case apart); want "
                "each to have its own"
            )
        places[name.casefold()] = number
