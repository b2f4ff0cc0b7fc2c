"""`statfed coordinator`: the hub that the parties of a pilot call."""

import signal
import threading
from typing import Annotated

import typer

from statfed.cli._output import Json, emit_json, out, say, table
from statfed.cli.pilot import Folder, office_of

app = typer.Typer(no_args_is_help=True, help="The hub of a pilot, which its parties call: start, stop, status.")


def until_told() -> threading.Event:
    """An event that SIGTERM and SIGINT set, so that everything is left through its own door."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


@app.command()
def start(
    pilot: Folder = None,
    host: Annotated[str, typer.Option(help="Address to listen on: all of this machine's.")] = "0.0.0.0",  # noqa: S104
    port: Annotated[
        int | None, typer.Option(help="Port to listen on, where a firewall forwards the pilot's own to another.")
    ] = None,
) -> None:
    """Serve the parties until SIGTERM or Ctrl-C. They reach /v1/fleet and /health, by TLS, and nothing else."""
    from statfed.server.pilot.hub import serve

    office = office_of(pilot)
    serve(office, until_told(), lambda shown: say(f"{office.settings.name}: listening on {shown}"), host, port)
    say(f"{office.settings.name}: stopped")


@app.command()
def stop(pilot: Folder = None, as_json: Json = False) -> None:
    """Stop the hub of this pilot."""
    from statfed.server.pilot.hub import stop_hub

    office = office_of(pilot)
    there = stop_hub(office)
    if as_json:
        emit_json({"stopped": there})
        return
    say(f"{office.settings.name}: {'stopped' if there else 'nothing was up'}")


@app.command()
def status(pilot: Folder = None, as_json: Json = False) -> None:
    """Say which participants are connected. Exit code 4 where no hub is up."""
    from statfed.server.pilot.hub import connected

    office = office_of(pilot)
    found = connected(office)
    if as_json:
        emit_json({"pilot": office.settings.name, "address": office.settings.address, "connected": found})
        return
    shown = table(f"{office.settings.name}, {office.settings.address}", "party", "connected")
    for name, there in found.items():
        shown.add_row(name, "yes" if there else "no")
    out.print(shown, markup=False)
