"""Try an input as a holder reads it: what came of it, and whether that is right."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from statfed.client.data.sources import connect
from statfed.client.data.tables import mismatches, open_table
from statfed.core.codebook import make_codebook
from statfed.core.errors import UsageError
from tests.inputs.cases import Case, cases


@dataclass(frozen=True)
class Outcome:
    """What came of a case. said: the refusal's first line; fault: what is wrong with it, or nothing."""

    case: Case
    said: str
    fault: str


def read(case: Case, folder: Path) -> list[tuple[Any, ...]]:
    """The records of a case under its codebook. Raises UsageError."""
    source = case.make(folder)
    book = make_codebook({"columns": dict(case.book)})
    with connect(str(source), folder) as opened:
        if problems := mismatches(opened, book):
            raise UsageError("\n".join(problems))
        rows = open_table(opened, book).rows(tuple(book.columns)).to_pylist()
    return [tuple(row[name] for name in book.columns) for row in rows]


def outcome(case: Case, folder: Path) -> Outcome:
    """Try one case in an empty folder."""
    try:
        records = read(case, folder)
    except UsageError as error:
        message = str(error)
        told = [value for value in case.private if value in message.replace(str(folder), "")]
        fault = "a value in the message" if told else "" if case.want is None else "refused"
        line = message.replace(str(folder), "").splitlines()[0]
        return Outcome(case, line.removeprefix(f"{case.named(folder)}: "), fault and f"{fault}: {message}")
    except Exception as error:  # noqa: BLE001  # whatever it is, it is a fault of ours
        return Outcome(case, "", f"{type(error).__name__}: {error}")
    if case.want is None:
        return Outcome(case, "", f"read as {records}; want a refusal")
    same = sorted(map(repr, records)) == sorted(map(repr, case.want))
    return Outcome(case, "", "" if same else f"read as {records}; want {list(case.want)}")


def outcomes(chosen: Iterable[Case] | None = None) -> Iterator[Outcome]:
    """Of all cases, each in a folder of its own."""
    for case in cases() if chosen is None else chosen:
        with TemporaryDirectory(prefix="input-") as folder:
            yield outcome(case, Path(folder))
