"""`statfed codebook`: draft, check and show the codebook of a table. Runs at the holder; nothing is sent."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from statfed.cli._output import Json, Overwrite, emit_json, out, say, table
from statfed.cli._study import LEVELS, TYPE, read_levels, read_types
from statfed.core.codebook import Codebook, Column, load_codebook
from statfed.core.errors import UsageError
from statfed.core.outputs import Destinations

app = typer.Typer(no_args_is_help=True, help="The codebook of a table: draft one, check data against it, show it.")

Sources = Annotated[
    list[str],
    typer.Argument(metavar="FILE...", help="CSV, Parquet or Arrow file, folder of them, or database URL?table=NAME."),
]
_NAMED = 5  # files
Book = Annotated[Path, typer.Argument(metavar="CODEBOOK", help="A *.codebook.toml file.")]


@app.command()
def infer(
    files: Sources,
    out_file: Annotated[Path | None, typer.Option("--out", help="Write here instead of the screen.")] = None,
    types: Annotated[list[str] | None, typer.Option("--type", metavar="COLUMN=TYPE", help=TYPE)] = None,
    levels: Annotated[list[str] | None, typer.Option("--levels", metavar="COLUMN=A,B", help=LEVELS)] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Draft a codebook from data; of several files the one that fits them all. Read it before you share it."""
    from statfed.client.data.drafting import draft, to_toml
    from statfed.client.data.tables import connect
    from statfed.client.data.uniting import check_stated, doubts, union

    to = Destinations(tuple(files), overwrite)
    to.check(out_file)
    stated, listed = read_types(types or ()), read_levels(levels or ())
    drafts = []
    for file in files:
        with connect(file, Path.cwd()) as source:
            drafts.append(draft(source, stated, listed))
    codebook = union(drafts, files)
    check_stated(codebook, stated, listed)
    for doubt in doubts(codebook):
        say(f"note: {doubt}", "yellow")
    text = to_toml(codebook)
    if out_file:
        to.write_text(out_file, text)
        say(f"wrote {out_file}: {len(codebook.columns)} columns. Read it before sharing: it shows categories.")
    if as_json:
        emit_json({"codebook": codebook.model_dump(mode="json"), "path": str(out_file) if out_file else None})
    elif not out_file:
        out.file.write(text)


@app.command()
def check(codebook_file: Book, file: Annotated[str, typer.Argument(metavar="FILE")], as_json: Json = False) -> None:
    """Check data against a codebook: every mismatch of all columns, with counts and examples; records that break rules.

    Exit code 2 if there are any.

    Counts, records (1 is the first after the header line) and examples are for you: what a coordinator learns is the
    column "message" alone, and of broken rules nothing.
    """
    from statfed.client.data.edits import broken_rules
    from statfed.client.data.tables import connect, local_mismatches

    codebook = load_codebook(codebook_file)
    with connect(file, Path.cwd()) as source:
        found = [*local_mismatches(source, codebook), *broken_rules(source, codebook)]
        read, skipped = source.files, source.skipped
    if as_json:
        rows = [
            {"column": m.column, "message": m.message, "count": m.count, "examples": list(m.examples)}
            | {"rows": list(m.rows)}
            for m in found
        ]
        whence = {"files": list(read), "skipped": list(skipped)}
        emit_json({"fits": not found, "columns": len(codebook.columns), "mismatches": rows, **whence})
    elif found:
        shown = table("Mismatches", "column", "message", "records", "first at", "for example", numbers=("records",))
        for m in found:
            records = "" if m.count is None else str(m.count)
            shown.add_row(
                m.column, m.message.removeprefix(f"{m.column}: "), records, _places(m.rows), ", ".join(m.examples)
            )
        out.print(shown, markup=False)
    else:
        out.print(f"The data fit the codebook: {len(codebook.columns)} columns", highlight=False)
    if skipped or len(read) > 1:
        say(f"read {_some(read)}; left out as no data: {_some(skipped)}")
    if found:
        say(f"error: {len(found)} mismatches with {codebook_file}", "red")
        raise typer.Exit(UsageError.exit_code)


@app.command()
def show(codebook_file: Book, as_json: Json = False) -> None:
    """Show a codebook: columns, types, ranges, categories, roles."""
    codebook = load_codebook(codebook_file)
    if as_json:
        emit_json({"codebook": codebook.model_dump(mode="json"), "digest": codebook.digest()})
        return
    shown = table(codebook.title or "Codebook", "column", "type", "what", "allowed", "missing", "role")
    for name, column in codebook.columns.items():
        missing = ", ".join(map(_plain, column.missing)) + (" (required)" if column.required else "")
        shown.add_row(name, column.type, _what(column), _allowed(column), missing.strip(), column.role or "")
    out.print(shown, markup=False)
    _show_design(codebook)


@app.command()
def pin(
    codebook_file: Book,
    home: Annotated[Path, typer.Option("--home", help="The holder's home folder, with its policy.toml.")] = Path(),
    only: Annotated[bool, typer.Option("--only", help="Instead of those that were pinned before.")] = False,
    as_json: Json = False,
) -> None:
    """Pin a codebook in this holder's policy: studies are answered under pinned codebooks only.

    Roles, hierarchies, missing codes and bounds are then the holder's and not whoever asks. Check them first.
    """
    from statfed.client.guard.policy import ANY, load_policy, write_policy

    path = home / "policy.toml"
    digest, policy = load_codebook(codebook_file).digest(), load_policy(path)
    before = () if only else tuple(one for one in policy.dataset.codebooks if one not in (digest, ANY))
    pinned = (*before, digest)
    dataset = policy.dataset.model_copy(update={"codebooks": pinned})
    write_policy(policy.model_copy(update={"dataset": dataset}), path)
    if as_json:
        emit_json({"policy": str(path), "codebook": str(codebook_file), "digest": digest, "codebooks": list(pinned)})
    else:
        say(f"pinned {codebook_file} in {path}: {digest}; {len(pinned)} in all")


def _places(rows: Sequence[int]) -> str:
    """Records by number; of a text file with a header line and no line ends within values, the line after."""
    return f"record {', '.join(map(str, rows))}" if rows else ""


def _show_design(codebook: Codebook) -> None:
    for rule in codebook.rules:
        out.print(f"rule: {rule}", highlight=False, markup=False)
    given: dict[str, Any] = codebook.design.model_dump(exclude_defaults=True)
    for key, value in given.items():
        out.print(f"design.{key}: {value}", highlight=False)


def _what(column: Column) -> str:
    return f"{column.label} ({column.unit})".strip() if column.unit else column.label


def _allowed(column: Column) -> str:
    if column.categories:
        return ", ".join(f"{code} {label}".strip() for code, label in column.categories.items())
    sizes = {"text": f"at most {column.length} characters", "array": f"{column.length} numbers"}
    size = sizes.get(column.type, "")
    if column.low is None and column.high is None:
        return size
    ends = (
        None if end is None else column.shown(end) if column.type == "date" else end
        for end in (column.low, column.high)
    )
    return ", ".join(filter(None, (size, " to ".join(map(_plain, ends)))))


def _some(names: Sequence[str]) -> str:
    """How many files, and the first of their names."""
    shown = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
    return f"{len(names)} file{'s' * (len(names) != 1)}" + (f" ({shown})" if shown else "")


def _plain(value: object) -> str:
    return "any" if value is None else f"{value:.15g}" if isinstance(value, float) else str(value)
