"""`statfed audit`: the signed logs of a pilot: look, check one against the others, hand them over."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from statfed.cli._output import Json, Overwrite, emit_json, out, say, table
from statfed.cli.pilot import Folder, find_office
from statfed.core.errors import UsageError

if TYPE_CHECKING:
    from statfed.core.pilot.audit import Checked
    from statfed.core.pilot.crosscheck import Contradiction

app = typer.Typer(
    no_args_is_help=True,
    help="Signed logs of a pilot, at the coordinator and at each party: verify, show, export, accept.",
)
Home = Annotated[Path, typer.Option("--home", help="A party's home folder.")]
Files = Annotated[
    list[Path] | None, typer.Argument(help="Logs or exported crates of others, to be held against one another.")
]
WRONG = 4
_LONGEST = 160


@app.command()
def verify(files: Files = None, home: Home = Path(), pilot: Folder = None, as_json: Json = False) -> None:
    """Check a log entry by entry, and against what others have noted of it. Exit code 4 names the first wrong entry.

    Without files, the log of the home or of the coordinator's folder. With files, these too, each by the key that is
    known here of its owner; where nothing is known here, compare the keys that are shown with their owners.

    [bold]Examples[/bold]

    statfed audit verify --home istat

    statfed audit verify trade.zip cbs.zip --home istat
    """
    from statfed.core.pilot.crosscheck import cross_check
    from statfed.federation.logs import check

    own, keys = _place(home, pilot)
    if own is None and not files:
        raise UsageError("audit: got neither a home, nor a coordinator's folder, nor files; want one of them")
    logs = [check(path, keys) for path in ([own] if own else []) + list(files or ())]
    found = cross_check(logs)
    wrong = any(one.wrong for one in logs) or bool(found)
    if as_json:
        emit_json(
            {
                "right": not wrong,
                "logs": [_document(one, keys) for one in logs],
                "contradictions": [asdict(one) for one in found],
            }
        )
    else:
        _show(logs, found, keys)
    if wrong:
        raise typer.Exit(WRONG)


@app.command()
def show(
    home: Home = Path(),
    pilot: Folder = None,
    last: Annotated[int, typer.Option(min=0, help="Only so many, the newest; 0 for all.")] = 30,
    kind: Annotated[str | None, typer.Option(help="Only entries of this kind.")] = None,
    run: Annotated[str | None, typer.Option(help="Only entries of this run.")] = None,
    as_json: Json = False,
) -> None:
    """List entries of the log, the oldest first. It is not checked: see `verify`."""
    from statfed.core.pilot.audit import FILE, entries

    path = _own(home, pilot) / FILE
    found = [one for one in entries(path) if kind in (None, one.kind) and run in (None, one.facts.get("run"))]
    found = found[-last:] if last else found
    if as_json:
        emit_json({"log": str(path), "entries": [asdict(one) for one in found]})
        return
    shown = table(f"{path}: {len(found)} entries", "seq", "time", "kind", "facts", numbers=("seq",))
    for one in found:
        text = ", ".join(f"{name} {_short(value)}" for name, value in one.facts.items())
        shown.add_row(str(one.seq), one.time[:19], one.kind, text[:_LONGEST])
    out.print(shown, markup=False)


@app.command()
def export(
    output: Annotated[Path, typer.Option("--output", "-o", help="A new folder, or a file that ends in .zip.")],
    study: Annotated[
        int | None, typer.Option(help="Of this study alone; the log is whole, or it would prove nothing.")
    ] = None,
    home: Home = Path(),
    pilot: Folder = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write the log and what it is about as a Five Safes RO-Crate, with plain JSON in it. No data, keys or policy.

    `statfed audit verify` reads it back. Exit code 4 where the log is wrong; the crate then says so.
    """
    from tempfile import TemporaryDirectory

    from statfed.core.identity import load_identity
    from statfed.core.outputs import Destinations
    from statfed.core.pilot import audit
    from statfed.federation.crate import bag, write_folder, write_zip
    from statfed.federation.dossier import documents, dossier

    place = _own(home, pilot)
    zipped, to = output.suffix == ".zip", Destinations(overwrite=overwrite)
    if zipped:
        to.check(output)
    elif output.exists():
        raise UsageError(f"output: {output} exists; want a new folder")
    with TemporaryDirectory(prefix="statfed-") as work:
        copied = Path(work) / audit.FILE
        audit.copy(place / audit.FILE, copied)
        log = audit.verify(copied, load_identity(place, "", {}).public)
        if log.owner is None:
            raise UsageError(f"{place / audit.FILE}: {log.wrong}; want a log that says whose it is")
        files = bag(dossier(place, log, study), copied, documents(place, study))
    if zipped:
        with to.writing(output) as draft:
            write_zip(draft, output.stem, files)
    else:
        write_folder(output, files)
    facts = {"crate": str(output), "files": len(files), "entries": len(log.entries), "wrong": log.wrong}
    if as_json:
        emit_json(facts)
    else:
        say(f"wrote {output}: {len(files)} files, {len(log.entries)} entries of {log.owner.name}'s log")
        if log.wrong:
            say(f"entry {log.at}: {log.wrong}", "red")
    if log.wrong:
        raise typer.Exit(WRONG)


@app.command()
def accept(
    name: Annotated[str, typer.Argument(help="Whose log: a party's name, or `coordinator`.")],
    reason: Annotated[str, typer.Option(help="Why its history begins anew; it stays in this log.")],
    home: Home = Path(),
    pilot: Folder = None,
    as_json: Json = False,
) -> None:
    """Take another history of somebody's log from now on, after it was put back from a backup, say.

    Nothing is forgotten: `verify` tells the contradiction for ever, and this entry says who accepted it and why.
    """
    from statfed.core.pilot.audit import record
    from statfed.core.pilot.witness import ACCEPTED

    place, (_, keys) = _own(home, pilot), _place(home, pilot)
    if name not in keys:
        raise UsageError(f"accept: got {name}; want one that is known here: {', '.join(sorted(keys)) or 'nobody yet'}")
    head = record(place, ACCEPTED, {"whose": name, "key": keys[name], "reason": reason[:500]})
    if as_json:
        emit_json({"accepted": name, "key": keys[name], "entry": head.seq if head else None})
        return
    say(f"{name}: what its log shows next is taken; entry {head.seq if head else '-'} of this log says so")


def _place(home: Path, pilot: Path | None) -> tuple[Path | None, dict[str, str]]:
    """The log that is here, and the keys that are known here, by name. None where nothing is here."""
    from statfed.client.pilot.joining import KIT, standing
    from statfed.core.identity import load_identity
    from statfed.core.pilot.audit import COORDINATOR, FILE

    if pilot is None and (home / KIT).exists() and (own := standing(home)) is not None:
        mine = {own.pilot.party: load_identity(home, "", {}).public}
        return home / FILE, {COORDINATOR: own.pilot.coordinator} | dict(own.parties.root) | mine
    if office := find_office(pilot):
        theirs = {one.name: one.identity for one in office.roster.participants}
        return office.root / FILE, theirs | {COORDINATOR: office.identity.public}
    return None, {}


def _own(home: Path, pilot: Path | None) -> Path:
    """The folder that is meant. Raises UsageError where there is none."""
    log, _ = _place(home, pilot)
    if log is None:
        raise UsageError("audit: got neither a party's home nor a coordinator's folder; want --home or --pilot")
    return log.parent


def _document(log: "Checked", keys: dict[str, str]) -> dict[str, Any]:
    return {
        "log": str(log.path),
        "owner": log.owner.facts() if log.owner else None,
        "known": log.owner is not None and keys.get(log.owner.name) == log.owner.key,
        "entries": len(log.entries),
        "head": log.head.facts() if log.head else None,
        "first_wrong": log.at,
        "wrong": log.wrong,
        "notes": list(log.notes),
    }


def _show(logs: "list[Checked]", found: "tuple[Contradiction, ...]", keys: dict[str, str]) -> None:
    for log in logs:
        whose = f"{log.owner.name} of {log.owner.pilot}" if log.owner else "nobody known"
        what = f"entry {log.at}: {log.wrong}" if log.wrong else "right"
        style = "red" if log.wrong else "green"
        out.print(f"{what:<8}", style=style, markup=False, highlight=False, end=" ", soft_wrap=True)
        head = f", head {log.head.seq} {log.head.hash}" if log.head else ""
        out.print(
            f"{log.path}: {whose}, {len(log.entries)} entries{head}", markup=False, highlight=False, soft_wrap=True
        )
        for note in log.notes:
            out.print(f"         {note}", markup=False, highlight=False, soft_wrap=True)
        if log.owner and keys.get(log.owner.name) != log.owner.key:
            out.print(
                f"         not known here: compare key {log.owner.key} with {log.owner.name}",
                style="yellow",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
    for one in found:
        out.print(f"entry {one.at} of {one.whose}: {one.what}", style="red", markup=False, soft_wrap=True)
    if len(logs) > 1 and not found:
        out.print(f"{len(logs)} logs do not contradict one another", markup=False, highlight=False)


def _short(value: object) -> str:
    """A fact in a table: digests by their beginning, lists by their number."""
    if isinstance(value, str):
        return value[:12] if len(value) == 64 else value
    return f"({len(value)})" if isinstance(value, list | dict) else json.dumps(value)
