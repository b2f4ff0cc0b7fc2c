"""`statfed coordinator`: the hub that the parties of a pilot call."""

import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from statfed.cli._output import Json, emit_json, out, say, table
from statfed.cli.pilot import Folder, office_of
from statfed.core.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="The hub of a pilot, which its parties call: start, stop, status.")


def until_told() -> threading.Event:
    """An event that SIGTERM and SIGINT set, so that everything is left through its own door."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


Files = Annotated[Path, typer.Option("--output", "-o", help="The folder that the files go to.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")]
Host = Annotated[str, typer.Option(help="Address to listen on: all of this machine's.")]
Port = Annotated[
    int | None, typer.Option(help="Port to listen on, where a firewall forwards the pilot's own to another.")
]


@app.command()
def start(
    pilot: Folder = None,
    host: Host = "0.0.0.0",  # noqa: S104
    port: Port = None,
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


@app.command()
def files(
    output: Files,
    host: Host = "0.0.0.0",  # noqa: S104
    port: Port = None,
    overwrite: Overwrite = False,
    pilot: Folder = None,
    as_json: Json = False,
) -> None:
    """Write a systemd unit, a Containerfile and a compose file for this pilot's hub."""
    from statfed.core import VERSION
    from statfed.core.pilot.services import Service
    from statfed.core.pilot.services import files as made

    office = office_of(pilot)
    folder = office.root.resolve()
    options = ("--host", host, *(("--port", str(port)) if port is not None else ()))
    port = port if port is not None else office.settings.port
    service = Service(
        "coordinator", office.settings.name, folder, program(), VERSION, owner(folder), options=options, port=port
    )
    write(made(service), output, overwrite=overwrite, as_json=as_json)


def program() -> Path:
    """The `statfed` of this installation. Raises UsageError where there is none beside its Python."""
    path = Path(sys.executable).with_name("statfed")
    if not path.exists():
        raise UsageError(f"{path}: no such file; want statfed installed as a package")
    return path


def owner(folder: Path) -> tuple[str, int, int]:
    """Name, user and group number of whom a service of this folder runs as: its owner, or another one than root."""
    from statfed.core.pilot.services import NOBODY

    found = folder.stat()
    if found.st_uid == 0:
        say(f"{folder}: belongs to root; have it belong to a user of its own: chown -R {NOBODY}:{NOBODY} {folder}")
        return str(NOBODY), NOBODY, NOBODY
    try:
        return folder.owner(), found.st_uid, found.st_gid
    except KeyError:
        return str(found.st_uid), found.st_uid, found.st_gid


def write(made: Mapping[str, str], folder: Path, *, overwrite: bool, as_json: bool) -> None:
    """Write files of a service, all or none."""
    from statfed.core.outputs import Destinations

    folder.mkdir(parents=True, exist_ok=True)
    outputs, paths = Destinations(overwrite=overwrite), [folder / name for name in made]
    outputs.check(*paths)
    for path, text in zip(paths, made.values(), strict=True):
        outputs.write_text(path, text)
    if as_json:
        emit_json({"files": [str(path) for path in paths]})
        return
    say(f"wrote {', '.join(map(str, paths))}: the first lines of each say what to do with it")
