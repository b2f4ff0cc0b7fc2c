"""`statfed workshop`: a course on synthetic data, from the task to a league table."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from statfed.cli._output import Json, Overwrite, ReportingGroup, emit_json, out, progress_bars, say, table
from statfed.core.errors import UsageError
from statfed.core.outputs import Destinations

if TYPE_CHECKING:
    from statfed.lab.workshop.score import Score

app = typer.Typer(
    cls=ReportingGroup,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Run a workshop on synthetic data: a task with generated records, marks for teams' files, a league table.\n\n"
    "Start with [bold]statfed workshop new labour-survey -o workshop[/bold].",
)
_SHOWN = 12  # parts of a mark on the screen
Judge = Annotated[
    Path | None,
    typer.Option("--judge", metavar="FOLDER", help="The judge's part, if it is not `judge` in the kit."),
]


@app.command("list")
def list_kits(as_json: Json = False) -> None:
    """The kits that there are, and the uses that files are judged for.

    [bold]Example[/bold]

    statfed workshop list
    """
    from statfed.lab.workshop.contract import load_kit, names, uses

    kits = {name: load_kit(name) for name in names()}
    if as_json:
        told = [
            {"kit": name, "title": kit.TITLE, "version": kit.VERSION, "columns": list(kit.CODEBOOK["columns"])}
            for name, kit in kits.items()
        ]
        emit_json({"kits": told, "uses": list(uses())})
        return
    rows = table("Kits (statfed workshop new KIT -o FOLDER)", "kit", "what", "columns", numbers=("columns",))
    for name, kit in kits.items():
        rows.add_row(name, kit.TITLE, str(len(kit.CODEBOOK["columns"])))
    out.print(rows, markup=False)
    out.print(f"uses (--use): {', '.join(uses())}", markup=False, highlight=False)


@app.command("new")
def new(
    kit: Annotated[str, typer.Argument(help="A kit (statfed workshop list).")],
    output: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FOLDER", help="New folder; by default the kit's name.")
    ] = None,
    use: Annotated[
        str, typer.Option("--use", metavar="NAME", help="What files are made for (statfed synth guide).")
    ] = "public-release",
    records: Annotated[int, typer.Option("--records", metavar="NUMBER", help="Training records.")] = 3000,
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="NUMBER", help="For the same kit again. Else drawn, so that nobody guesses it."),
    ] = None,
    judge: Annotated[
        Path | None, typer.Option("--judge", metavar="FOLDER", help="Where the judge's part goes; else `judge` in it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a kit: the task, a codebook with rules, generated records for teams, and held-back ones for the judge.

    [bold]Examples[/bold]

    statfed workshop new labour-survey -o workshop

    statfed workshop new business-register -o business --use testing-analysis --judge business-judge
    """
    from statfed.lab.workshop.folder import write

    folder = output or Path(kit)
    made = write(kit, folder, use, records, seed, judge)
    held = judge or folder / "judge"
    if as_json:
        emit_json({"folder": str(folder), "judge": str(held), "kit": made.model_dump(mode="json")})
        return
    out.print(f"{kit}, {records:,} generated records for {use}: {folder}", markup=False, highlight=False)
    say(f"Teams start with {folder / 'task.md'}. Give them {folder} and never {held}: what is there is held back.")
    if seed is not None:
        say("A seed that can be guessed gives the held-back part too: for a contest leave --seed out.", "yellow")
    say(f"Score: statfed workshop score TEAM.parquet --kit {folder}{'' if judge is None else f' --judge {judge}'}")


@app.command("score")
def score(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A team's file: Parquet or CSV.")],
    kit: Annotated[
        Path | None, typer.Option("--kit", metavar="FOLDER", help="The kit; by default the file's folder.")
    ] = None,
    judge: Judge = None,
    use: Annotated[str, typer.Option("--use", metavar="NAME", help="Another use than the kit's.")] = "",
    team: Annotated[str, typer.Option("--team", metavar="NAME", help="By default the file's name.")] = "",
    attempts: Annotated[int, typer.Option("--attempts", metavar="NUMBER", help="Attempts of each attack.")] = 1000,
    output: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="Page (.html) or document (.json).")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Judge a team's file: is it valid, useful for the kit's use, risky; with reasons, and never a clearance.

    The score is kept in the kit, for the league table. The same file and kit give the same marks.

    [bold]Example[/bold]

    statfed workshop score workshop/team.parquet -o team.html
    """
    from statfed.lab.workshop.folder import read
    from statfed.lab.workshop.score import keep
    from statfed.lab.workshop.score import score as judged

    if not 20 <= attempts <= 1_000_000:
        raise UsageError(f"--attempts: got {attempts}; want 20 to 1,000,000")
    if output is not None and output.suffix not in (".html", ".json"):
        raise UsageError(f"--out: got {output.name}; want a file ending in .html or .json")
    folder = kit or file.parent
    parts = [*folder.glob("*.*"), *(judge or folder / "judge").glob("*.*")]
    kept = tuple(str(one) for one in parts if output is None or one.suffix != output.suffix)
    to = Destinations((str(file), *kept), overwrite)
    to.check(output)
    workshop = read(folder, judge)
    with progress_bars() as bars:
        found = judged(file, workshop, use, team, attempts, bars)
    keep(found, folder)
    document = found.document()
    if output is not None and output.suffix == ".html":
        to.write_text(output, found.page())
    elif output is not None:
        to.write_text(output, json.dumps(document, indent=2, allow_nan=False) + "\n")
    if as_json:
        emit_json(document)
        return
    _show(found)
    if output is not None:
        say(f"report: {output}")
    say(f"League table: statfed workshop table {folder}")


@app.command("table")
def league_table(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A kit in which files were scored.")],
    as_json: Json = False,
) -> None:
    """The league table: every team's last score, by use.

    [bold]Example[/bold]

    statfed workshop table workshop
    """
    from statfed.core.synthetic.guide import guide
    from statfed.lab.workshop.league import ORDER, league

    found = league(folder)
    if as_json:
        uses = [
            {"use": use, "teams": [{"place": i} | one.model_dump(mode="json") for i, one in enumerate(lines, 1)]}
            for use, lines in found.items()
        ]
        emit_json({"uses": uses, "order": ORDER})
        return
    for use, lines in found.items():
        rows = table(
            guide().use(use).title, "place", "team", "utility", "risk", "useful enough?", "safe enough?", "remarks",
            numbers=("utility", "risk"),
        )  # fmt: skip
        for place, one in enumerate(lines, 1):
            broken = f"{1 - one.obeying:.1%} of records break a rule" if one.obeying < 1 else ""
            remarks = "passed off: not made" if one.passed_off else broken
            rows.add_row(
                str(place),
                one.team,
                _mark(one.utility),
                _mark(one.risk),
                one.utility_verdict,
                one.risk_verdict,
                remarks,
            )
        out.print(rows, markup=False)
    say(ORDER)


def _mark(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _show(found: "Score") -> None:
    """Marks and reasons first, then what they are made of, then the verdict by limits."""
    out.print(f"{found.team}: {found.title}", markup=False, highlight=False)
    for reason in found.reasons:
        out.print(f"- {reason}", markup=False, highlight=False)
    for mark in (found.utility, found.risk):
        rows = table(
            mark.kind.capitalize(), "measure", "about", "figure", "is 0", "is 100", "points",
            numbers=("figure", "is 0", "is 100", "points"),
        )  # fmt: skip
        for one in mark.parts[:_SHOWN]:
            rows.add_row(
                one.measure, one.about, f"{one.value:.3g}", f"{one.none:.3g}", f"{one.full:.3g}", f"{one.points:.0f}"
            )
        if mark.parts:
            out.print(rows, markup=False)
    out.print(found.found.sentence, markup=False, highlight=False)
    for limit in found.found.judged:
        kept = {True: "kept", False: "broken", None: "open"}[limit.kept]
        out.print(f"- {kept}: {limit}", markup=False, highlight=False)
