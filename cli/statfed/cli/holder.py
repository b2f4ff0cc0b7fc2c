"""`statfed holder`: a party of a pilot: its process, and what its people read at home."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from statfed.cli._add_data import add_data
from statfed.cli._output import Json, emit_json, out, say, table

app = typer.Typer(no_args_is_help=True, help="A party of a pilot: start it; read at home why it refused.")

Home = Annotated[Path, typer.Option("--home", help="The holder's home folder.")]


@app.command()
def start(home: Home = Path()) -> None:
    """Answer the pilot's coordinator until SIGTERM or Ctrl-C. Only this machine opens connections."""
    import logging

    from statfed.cli.coordinator import until_told
    from statfed.client.pilot.serving import check, serve

    logging.basicConfig(format="%(asctime)s %(name)s %(levelname)s %(message)s", level=logging.INFO)
    name = check(home)
    serve(home, until_told(), lambda address, pid: say(f"{name}: calling {address} (process {pid})"))
    say(f"{name}: stopped")


@app.command()
def why(
    refusal: Annotated[str, typer.Argument(metavar="ID", help="The id that whoever asked was told, or its beginning.")],
    home: Home = Path(),
    as_json: Json = False,
) -> None:
    """Say why this holder refused: what whoever asked was not told. For this organisation's eyes."""
    from statfed.client.guard.refusals import why as find

    found = asdict(find(home, refusal))
    if as_json:
        emit_json({"refusal": found})
        return
    for key, value in found.items():
        out.print(f"{key:<7}{value}", markup=False, highlight=False, soft_wrap=True)


@app.command("refusals")
def refusals_(home: Home = Path(), as_json: Json = False) -> None:
    """List the refusals that depended on data, the oldest first."""
    from statfed.client.guard.refusals import refusals

    found = refusals(home)
    if as_json:
        emit_json({"home": str(home), "refusals": [asdict(one) for one in found]})
        return
    shown = table(f"{len(found)} refusals that depended on data", "id", "time", "run", "study", "method", "reason")
    for one in found:
        shown.add_row(one.id, one.time[:16], one.run, one.study[:12], one.method, one.reason)
    out.print(shown, markup=False)


app.command("add-data")(add_data)
