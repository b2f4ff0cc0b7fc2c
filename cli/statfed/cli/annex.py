"""`statfed annex`: a run as pre-filled annexes to an impact assessment and to a data-sharing agreement."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from statfed.cli._output import Json, Overwrite, emit_json, out
from statfed.cli._runs import RUNS, WORKSPACE, Runs, Workspace, find_run
from statfed.core.errors import UsageError
from statfed.core.outputs import Destinations

if TYPE_CHECKING:
    from statfed.federation.annex import Facts

Kinds = Literal["dpia", "agreement", "both"]
Format = Literal["html", "md"]


def annex(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN|STUDY",
            help="A run's id, or an unambiguous beginning of it, or `last`; or a study.toml, before it runs.",
        ),
    ],
    kind: Annotated[
        Kinds, typer.Option(help="dpia: for an impact assessment; agreement: for a data-sharing agreement.")
    ] = "both",
    format_: Annotated[
        Format, typer.Option("--format", help="html: one page, for a browser or a word processor; md: Markdown.")
    ] = "html",
    folder: Annotated[
        Path | None, typer.Option("--out", help="Where the files go (the run's or the study's folder).")
    ] = None,
    overwrite: Overwrite = False,
    runs: Runs = RUNS,
    workspace: Workspace = WORKSPACE,
    as_json: Json = False,
) -> None:
    """Write a run's annexes: what it did, who learned what, and the questions that are left to the parties.

    Of a study file: what it would do. Of a linkage also what is matched by which key rules, who sends what to whom, and
    how right the links are.

    Facts of the run are filled in; what only the parties can say is marked. It is no legal assessment.

    [bold]Examples[/bold]

    statfed annex last

    statfed annex last --kind dpia --format md --out dossier

    statfed annex trade.study.toml --kind agreement
    """
    from statfed.federation.annex import make_annex, to_html, to_markdown

    study = Path(run)
    if study.suffix == ".toml" or study.is_file():
        facts, target, name = _planned(study), folder or study.parent, study.stem.removesuffix(".study")
    else:
        found = find_run(runs, workspace, run)
        facts, target, name = _facts(found), folder or found, found.name
    if target.exists() and not target.is_dir():
        raise UsageError(f"--out: got {target}, a file; want a folder")
    to, written = Destinations(overwrite=overwrite or folder is None), []
    kinds: tuple[Literal["dpia", "agreement"], ...] = ("dpia", "agreement") if kind == "both" else (kind,)
    paths = [target / f"{name}-annex-{one}.{format_}" for one in kinds]
    to.check(*paths)
    for one, path in zip(kinds, paths, strict=True):
        made = make_annex(facts, one)
        to.write_text(path, to_html(made) if format_ == "html" else to_markdown(made))
        written.append({"kind": one, "format": format_, "file": str(path)})
    if as_json:
        emit_json({"run": name, "annexes": written})
        return
    for each in written:
        out.print(each["file"], highlight=False, soft_wrap=True, markup=False)


def _planned(path: Path) -> "Facts":
    """What a study would do. Raises UsageError where it cannot be read, or has no codebook: none is drafted here."""
    from statfed.core.progress import silent
    from statfed.core.study import load_study
    from statfed.federation.annex import facts_of_study
    from statfed.federation.simulation import world_of

    study = load_study(path)
    if study.codebook is None and not study.scenario:
        raise UsageError("codebook: got none; want that of the study, since an annex before a run reads no data")
    world = world_of(study, path.parent, None, silent)
    return facts_of_study(world.terms, title=study.title, scenario=study.scenario or "")


def _facts(folder: Path) -> "Facts":
    """What a finished run did. Raises UsageError where it is not finished or its result cannot be read."""
    from statfed.federation import load_answer
    from statfed.federation.annex import facts_of
    from statfed.federation.runs import read_status

    status = read_status(folder)
    if status.get("state") != "finished":
        raise UsageError(
            f"run {folder.name}: got one that is {status.get('state')}; want a finished one, since an annex says what "
            "was done"
        )
    answer = load_answer(folder)
    try:
        return facts_of(answer)
    except UsageError as error:
        raise UsageError(f"run {folder.name}: {error}") from None
