"""`statfed doctor`: what stands against a pilot on this machine, in words."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from statfed.cli._output import Json, emit_json, out
from statfed.cli.holder import Through
from statfed.cli.pilot import find_office
from statfed.core.errors import UsageError

if TYPE_CHECKING:
    from statfed.core.pilot.checks import Finding
    from statfed.server.pilot.office import Office

MARKS = {"ok": "ok     ", "warning": "warning", "failed": "FAILED "}
COLOURS = {"ok": "green", "warning": "yellow", "failed": "red"}


def doctor(
    home: Annotated[Path, typer.Option("--home", help="A party's home folder.")] = Path(),
    pilot: Annotated[Path | None, typer.Option("--pilot", help="The coordinator's folder.")] = None,
    proxy: Through = None,
    offline: Annotated[bool, typer.Option("--offline", help="Look at files alone; call nobody.")] = False,
    as_json: Json = False,
) -> None:
    """Check keys, certificates, clock and connection of a pilot, as a party or as the coordinator.

    Each line has a code; docs/pilot.md says what to do about it. Exit code 4 if something failed.
    """
    from statfed.client.pilot.diagnosis import diagnosis
    from statfed.client.pilot.joining import KIT

    now = datetime.now(UTC)
    if pilot is None and (home / KIT).exists():
        found = list(diagnosis(home, now, proxy, offline=offline))
    elif office := find_office(pilot):
        found = list(_coordinator(office, now))
    else:
        raise UsageError("doctor: got neither a party's home nor a coordinator's folder; want --home or --pilot")
    failed = sum(one.state == "failed" for one in found)
    if as_json:
        emit_json({"failed": failed, "findings": [{"code": f.code, "state": f.state, "what": f.what} for f in found]})
    else:
        for one in found:
            out.print(f"{MARKS[one.state]} {one.code:<22}", style=COLOURS[one.state], markup=False, end=" ")
            out.print(one.what, markup=False, highlight=False, soft_wrap=True)
    if failed:
        raise typer.Exit(4)


def _coordinator(office: "Office", now: datetime) -> "Iterator[Finding]":
    from statfed.core.pilot.checks import Finding, certificate, until, versions

    yield versions()
    try:
        roster = office.roster
        yield Finding("roster", "ok", f"roster {roster.serial}: {len(roster.participants)} participants")
        for one in roster.participants:
            yield until("participant-expired", one.name, None, one.until, now)
            if not office.kit(one.name).exists():
                yield Finding("kit", "failed", f"{one.name}: its kit is missing; want `statfed pilot sign` again")
    except UsageError as error:
        yield Finding("roster", "failed", str(error))
    try:
        authority = office.authority.pem
    except UsageError as error:
        yield Finding("authority-unreadable", "failed", str(error))
        return
    hub = office.root / "hub"
    try:
        pem, key = (hub / "server.pem").read_bytes(), (hub / "server.key").read_bytes()
    except OSError as error:
        yield Finding(
            "certificate-unreadable", "failed", f"{hub}: {error.strerror}; want it as `statfed pilot renew` makes it"
        )
        return
    yield from certificate(pem, key, authority, office.settings.host, now)
