"""An answer as files: CSV, Parquet, self-contained HTML."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from statfed.core.result import Result
from statfed.federation.published import keep

if TYPE_CHECKING:
    from statfed.federation.answers import Answer


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
    """A self-contained report: figures, charts, disclosure record, ledger, who learned what."""
    from statfed.federation.report import render

    path.write_text(render(answer), encoding="utf-8")


def write_run(answer: "Answer", folder: Path) -> None:
    """Write result.json, report.html, one CSV file a table and, of a training, model.npz into a run's folder; beside
    them parameters.json, which is not to be published."""
    from statfed.federation.answers import kept_back

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(answer.to_dict(), indent=2, ensure_ascii=False) + "\n", "utf-8")
    keep(folder, kept_back(answer))
    if "model" in answer.result.arrays:
        from statfed.federation.models import save_model

        save_model(answer, folder / "model.npz")
    write_html(answer, folder / "report.html")
    write_csv(answer.result, folder / f"{answer.result.main}.csv")


def _beside(path: Path, name: str, result: Result) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path if name == result.main else path.with_name(f"{path.stem}-{name}{path.suffix}")
