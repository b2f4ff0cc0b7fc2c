"""An answer as files: CSV, Parquet, self-contained HTML."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from statfed.core.result import Result

if TYPE_CHECKING:
    from statfed.federation.answering import Answer


def write_csv(result: Result, path: Path) -> list[Path]:
    """The main table as `path`, the others beside it as `<stem>-<table>.csv`. Returns the files."""
    written = []
    for name in result.tables:
        target = _beside(path, name, result)
        result.to_pandas(name).to_csv(target, index=False)
        written.append(target)
    return written


def write_parquet(result: Result, path: Path) -> list[Path]:
    """As `write_csv`, in Parquet."""
    written = []
    for name in result.tables:
        target = _beside(path, name, result)
        result.to_pandas(name).to_parquet(target, index=False)
        written.append(target)
    return written


def write_html(answer: "Answer", path: Path) -> None:
    """A self-contained report: tables, charts, disclosure record, ledger, who learned what."""
    from statfed.federation.report import render

    path.write_text(render(answer), encoding="utf-8")


def write_run(answer: "Answer", runs: Path) -> Path:
    """Write `runs/<id>/` with result.json, report.html and one CSV file a table. Returns the folder."""
    folder = runs / answer.run
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(answer.to_dict(), indent=2, ensure_ascii=False) + "\n", "utf-8")
    status = {"run": answer.run, "analysis": answer.result.analysis, "engine": answer.engine, "state": "finished"}
    (folder / "status.json").write_text(json.dumps(status, indent=2) + "\n")
    write_html(answer, folder / "report.html")
    write_csv(answer.result, folder / f"{answer.result.main}.csv")
    return folder


def _beside(path: Path, name: str, result: Result) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path if name == result.main else path.with_name(f"{path.stem}-{name}{path.suffix}")
