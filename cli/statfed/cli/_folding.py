"""`statfed synth fold` and `unfold`: units with their members as one record each, and back."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from statfed.cli._output import Json, Overwrite, emit_json, out, say
from statfed.core.errors import UsageError
from statfed.core.outputs import Destinations

if TYPE_CHECKING:
    import pandas as pd

_FORMS = (".parquet", ".csv")
Book = Annotated[Path, typer.Option("--codebook", metavar="FILE", help="Its codebook.")]


def fold(
    data: Annotated[str, typer.Argument(help="Your own file: one record per member.")],
    codebook: Book,
    most: Annotated[int, typer.Option("--most", metavar="NUMBER", help="Members that a record has columns for.")],
    output: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="Parquet or CSV file.")] = Path(
        "wide.parquet"
    ),
    codebook_out: Annotated[
        Path, typer.Option("--codebook-out", metavar="FILE", help="Codebook of the folded records.")
    ] = Path("wide.codebook.toml"),
    order: Annotated[
        str, typer.Option("--order", metavar="COLUMNS", help="Members in this order, as relation,age- (falling).")
    ] = "",
    shared: Annotated[
        str, typer.Option("--shared", metavar="COLUMNS", help="Columns that are the same for all members.")
    ] = "",
    larger: Annotated[
        str, typer.Option("--larger", metavar="HOW", help="Units with more: refuse, drop-members or top-code.")
    ] = "refuse",
    size: Annotated[str, typer.Option("--size", metavar="NAME", help="Column for the number of members.")] = "members",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Make one record per household (or other unit) of one record per member; the codebook says which is the unit.

    Every holder does it with the same codebook and options, and gets the same codebook. A household whose members lie
    with several holders is not found.

    [bold]Example[/bold]

    statfed synth fold members.parquet --codebook members.toml --most 6 --order relation,age- --shared region
    -o wide.parquet --codebook-out wide.toml
    """
    from statfed.client.data.drafting import to_toml
    from statfed.core.codebook import load_codebook
    from statfed.core.synthetic.folding import LARGER, Larger, Plan
    from statfed.federation.folding import folded

    _check(output)
    to = Destinations((data, str(codebook)), overwrite)
    to.check(output, codebook_out)
    if most < 1:
        raise UsageError(f"--most: got {most}; want 1 or more")
    known: dict[str, Larger] = {one: one for one in LARGER}
    how = known.get(larger)
    if how is None:
        raise UsageError(f"--larger: got {larger!r}; want {', '.join(LARGER)}")
    made = folded(data, load_codebook(codebook), Plan(most, _listed(order), _listed(shared), how, size))
    _write(made.frame, output, to)
    to.write_text(codebook_out, to_toml(made.codebook))
    if as_json:
        told = {"units": len(made.frame), "members": made.members, "dropped": made.dropped, "larger": made.larger}
        files = {"file": str(output), "codebook": str(codebook_out), "digest": made.codebook.digest()}
        emit_json(told | {"left_out": list(made.left_out)} | files)
        return
    out.print(
        f"{len(made.frame):,} records of {made.members:,} members: {output}; codebook: {codebook_out}",
        markup=False,
        highlight=False,
    )
    if made.larger:
        say(f"{made.larger:,} units have more than {most} members: {made.dropped:,} members were left out", "yellow")
    if made.left_out:
        say(f"left out, as they identify or have no order: {', '.join(made.left_out)}")


def unfold(
    data: Annotated[str, typer.Argument(help="Folded records: of `fold`, or synthetic ones.")],
    codebook: Book,
    output: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="Parquet or CSV file.")] = Path(
        "members.parquet"
    ),
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Make one record per member of folded records again; ids of households are made up.

    [bold]Example[/bold]

    statfed synth unfold wide-synthetic.parquet --codebook wide.toml -o members.parquet
    """
    from statfed.core.codebook import load_codebook
    from statfed.federation.folding import unfolded

    _check(output)
    to = Destinations((data, str(codebook)), overwrite)
    to.check(output)
    book = load_codebook(codebook)
    made = unfolded(data, book)
    _write(made, output, to)
    units = int(made.iloc[:, 0].nunique())
    if as_json:
        emit_json({"file": str(output), "members": len(made), "units": units, "columns": list(made.columns)})
        return
    out.print(f"{len(made):,} members of {units:,} units: {output}", markup=False, highlight=False)
    if book.folded is not None and book.folded.more:
        say(f"units with more than {book.folded.most} members have that many here: the others are not known", "yellow")


def _listed(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _check(output: Path) -> None:
    if output.suffix not in _FORMS:
        raise UsageError(f"--out: got {output.name}; want a file ending in {' or '.join(_FORMS)}")


def _write(frame: "pd.DataFrame", output: Path, to: Destinations) -> None:
    from statfed.federation.export import spreadsheet

    with to.writing(output) as draft:
        if output.suffix == ".csv":
            spreadsheet(frame, draft)
        else:
            frame.to_parquet(draft, index=False)
