"""An answer as files: CSV, Parquet, self-contained HTML."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from statfed.core.outputs import Destinations, plain_cell, plain_cells
from statfed.core.result import Result
from statfed.federation.published import keep
from statfed.federation.runs import write_whole

if TYPE_CHECKING:
    from statfed.federation.answers import Answer


OWN = Destinations(overwrite=True)
"""For the program's own files, which it replaces."""


def write_csv(result: Result, path: Path, to: Destinations = OWN) -> list[Path]:
    """The main table as `path`, the others beside it as `<stem>-<table>.csv`. Returns the files.

    to: what may not be written over. Texts that a spreadsheet would take for a formula get an apostrophe in front.
    """
    written = []
    for name in result.tables:
        target = _beside(path, name, result)
        with to.writing(target) as draft:
            spreadsheet(result.to_pandas(name), draft)
        written.append(target)
    return written


def spreadsheet(frame: Any, path: Path) -> None:
    """Write a data frame as CSV in which no text is a formula."""
    safe = frame.copy(deep=False)
    for place, kind in enumerate(frame.dtypes):
        if kind.kind not in "biufcmM":
            safe.isetitem(place, frame.iloc[:, place].astype(object).map(plain_cell))
    safe.columns = plain_cells(frame.columns)
    safe.to_csv(path, index=False)


def write_parquet(result: Result, path: Path, to: Destinations = OWN) -> list[Path]:
    """As `write_csv`, in Parquet, with texts as they are."""
    written = []
    for name in result.tables:
        target = _beside(path, name, result)
        with to.writing(target) as draft:
            result.to_pandas(name).to_parquet(draft, index=False)
        written.append(target)
    return written


def write_html(answer: "Answer", path: Path, to: Destinations = OWN) -> None:
    """A self-contained report: figures, charts, disclosure record, ledger, who learned what."""
    from statfed.federation.report import render

    to.write_text(path, render(answer))


def write_answer(answer: "Answer", folder: Path) -> None:
    """Write result.json, as a whole, and beside it parameters.json, which is not to be published."""
    from statfed.federation.answers import kept_back

    keep(folder, kept_back(answer))
    write_whole(folder / "result.json", json.dumps(answer.to_dict(), indent=2, ensure_ascii=False) + "\n")


def write_run(answer: "Answer", folder: Path) -> None:
    """Write result.json, report.html, one CSV file a table and, of a training, model.npz into a run's folder; beside
    them parameters.json, which is not to be published. Raises OSError, with what was written before it left there."""
    folder.mkdir(parents=True, exist_ok=True)
    write_answer(answer, folder)
    if "model" in answer.result.arrays:
        from statfed.federation.models import save_model

        save_model(answer, folder / "model.npz")
    write_html(answer, folder / "report.html")
    write_csv(answer.result, folder / f"{answer.result.main}.csv")


def _beside(path: Path, name: str, result: Result) -> Path:
    return path if name == result.main else path.with_name(f"{path.stem}-{name}{path.suffix}")
