"""`statfed pilot`: from an empty folder to parties that know each other's keys."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from statfed.cli._output import Json, emit_json, out, say, table
from statfed.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from statfed.server.pilot.office import Office

app = typer.Typer(
    no_args_is_help=True,
    help="Prepare a pilot across organisations: authority, requests, kits, words to compare.\n\n"
    "The coordinator: [bold]init[/bold], then [bold]sign[/bold] each request. "
    "Each party: [bold]request[/bold], then [bold]join[/bold] with the kit it is sent.",
)

Home = Annotated[Path, typer.Option("--home", help="This party's home folder.")]
Folder = Annotated[
    Path | None, typer.Option("--pilot", help="The coordinator's folder; found where there is one here.")
]
Words = Annotated[
    list[str] | None,
    typer.Option("--words", help="Words that an organisation read out to you; once for each. Asked for on a terminal."),
]


@app.command()
def init(
    name: Annotated[str, typer.Argument(help="The pilot's name; its folder has it too.")],
    host: Annotated[str, typer.Option(help="Name or address by which the parties call the coordinator.")],
    port: Annotated[int, typer.Option(help="Port that they call.")] = 8443,
    also: Annotated[list[str] | None, typer.Option(help="Another name or address of the same machine.")] = None,
    as_json: Json = False,
) -> None:
    """Make a pilot's folder at the coordinator: its authority, the hub's certificate, the key that signs kits."""
    from pydantic import ValidationError

    from statfed.core.section import describe
    from statfed.server.pilot.office import Settings, create

    try:
        settings = Settings(name=name, host=host, port=port, also=tuple(also or ()))
    except ValidationError as error:
        raise UsageError(describe(error, "pilot", "name, host, port, also", Settings)) from None
    office = create(Path(name), settings)
    if as_json:
        emit_json({"pilot": name, "folder": str(office.root), "address": settings.address, "words": _words(office)})
        return
    say(f"made {office.root}: back it up, it holds the authority's and the coordinator's secret keys")
    out.print(f"Parties will ask for these words: {_words(office)}", markup=False, highlight=False, soft_wrap=True)
    out.print("Next: each party runs `statfed pilot request --name NAME` and sends you its file.", markup=False)


@app.command()
def request(
    name: Annotated[str, typer.Option(help="This party's name in the pilot.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where the request goes: NAME.request.")] = None,
    third_party: Annotated[
        bool, typer.Option("--third-party", help="A key holder or compute node, which holds no data.")
    ] = False,
    protection: Annotated[
        list[str] | None,
        typer.Option(help="Third party: takes part in this one [those that ask for a party of its name]."),
    ] = None,
    home: Home = Path(),
    as_json: Json = False,
) -> None:
    """Make this party's keys, which stay in HOME, and the request to send to the coordinator.

    A third party's home gets its party.toml as well; a data holder's gets its policy by `statfed holder add-data`.
    """
    from statfed.client.pilot.joining import REQUEST
    from statfed.client.pilot.joining import request as make
    from statfed.client.third_party import played_by, write_party
    from statfed.core.outputs import Destinations
    from statfed.core.section import NAME

    if not NAME.fullmatch(name):
        raise UsageError(f"--name: got {name!r}; want lower-case letters, digits and hyphens, 40 at most")
    path = output or Path(f"{name}.request")
    outputs = Destinations(overwrite=path.exists() and path.suffix == ".request")
    outputs.check(path)
    if protection and not third_party:
        raise UsageError("--protection: got one for a data holder; want it with --third-party")
    if third_party:
        if (home / "policy.toml").exists():
            raise UsageError(f"{home}: got the home of a data holder; want another one for a third party")
        played = write_party(home, name, protection or played_by(name))
        say(f"{played}: read it; it says what {name} takes part in")
    made = make(home, name, "third-party" if third_party else "holder")
    outputs.write_text(path, (home / REQUEST).read_text(encoding="utf-8"))
    if as_json:
        emit_json({"name": name, "role": made.role, "request": str(path), "home": str(home), "words": made.words})
        return
    say(f"wrote {path}: send it to the coordinator; the secret keys stay in {home}")
    out.print(f"Words of {name}, for whoever asks: {made.words}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def sign(
    requests: Annotated[list[Path], typer.Argument(help="Requests that parties have sent.")],
    words: Words = None,
    days: Annotated[int, typer.Option(min=1, max=3650, help="For how long.")] = 365,
    pilot: Folder = None,
    as_json: Json = False,
) -> None:
    """Admit parties to the pilot, or renew them: compare words, sign, and write everybody's kit."""
    from statfed.core.pilot.documents import read_document
    from statfed.core.pilot.papers import read_request

    office = office_of(pilot)
    read = [read_request(read_document(path), str(path)) for path in requests]
    wanted = {one.name: one.words for one in read}
    if len(wanted) != len(read):
        raise UsageError("requests: got two of one name; want one for each party")
    _compared(wanted, words, "Have all of them read these words to you, by telephone say?")
    kits = {one.name: str(office.sign(one, days)) for one in read}
    roster = office.roster
    if as_json:
        emit_json({"pilot": roster.pilot, "serial": roster.serial, "kits": kits, "words": _words(office)})
        return
    everybody = [str(office.kit(one.name)) for one in roster.participants]
    say(f"wrote {', '.join(everybody)}: send each to its party; they hold no secret")
    out.print(f"Words of the coordinator: {_words(office)}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def join(
    kit: Annotated[Path, typer.Argument(help="The kit that the coordinator sent.")],
    words: Words = None,
    home: Home = Path(),
    as_json: Json = False,
) -> None:
    """Join with a kit, or take a newer one: compare words with every organisation, then pin its keys."""
    from statfed.client.pilot.joining import join as take
    from statfed.client.pilot.joining import look

    change = look(home, kit)
    for name in change.replaced:
        say(f"{name} has other keys than it had: ask it why before you accept them", "yellow")
    _compared(change.to_compare(), words, "Has each organisation read these words to you, by telephone say?")
    own = take(home, change)
    if as_json:
        emit_json(
            {
                "pilot": own.pilot.name,
                "party": own.pilot.party,
                "serial": own.pilot.serial,
                "added": [one.name for one in change.added],
                "removed": list(change.removed),
                "parties": own.parties.root,
            }
        )
        return
    say(f"{home}: {own.pilot.party} has joined {own.pilot.name}, roster {own.pilot.serial}")
    known = ", ".join(own.parties.root) or "nobody yet: a newer kit will name the others"
    out.print(f"Pinned: {known}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="The participant.")],
    reason: Annotated[str, typer.Option(help="Why; all parties can read it.")],
    pilot: Folder = None,
    as_json: Json = False,
) -> None:
    """Take a party's keys out of the pilot, for good; it may come back with new ones."""
    office = office_of(pilot)
    gone = office.revoke(name, reason)
    roster = office.roster
    if as_json:
        emit_json({"revoked": gone.name, "serial": roster.serial, "kits": [one.name for one in roster.participants]})
        return
    say(f"{name} is out since roster {roster.serial}; send the others their new kits: `statfed pilot join` unpins it")


@app.command()
def renew(
    days: Annotated[int, typer.Option(min=1, max=3650, help="For how long.")] = 365,
    pilot: Folder = None,
    as_json: Json = False,
) -> None:
    """Renew the hub's key and certificate under the same authority: no kit changes."""
    end = office_of(pilot).renew(days)
    if as_json:
        emit_json({"until": end.isoformat()})
        return
    say(f"the hub's certificate is valid until {end:%Y-%m-%d}")


@app.command()
def participants(pilot: Folder = None, as_json: Json = False) -> None:
    """List who takes part, with their words, and whose keys were revoked."""
    office = office_of(pilot)
    roster, now = office.roster, datetime.now(UTC)
    if as_json:
        emit_json(
            {
                **roster.model_dump(mode="json"),
                "words": {one.name: one.words for one in roster.participants} | {"coordinator": _words(office)},
            }
        )
        return
    shown = table(f"{roster.pilot}, roster {roster.serial}", "party", "role", "until", "words")
    for one in roster.participants:
        shown.add_row(one.name, one.role, f"{one.until:%Y-%m-%d}{' expired' if one.until < now else ''}", one.words)
    out.print(shown, markup=False)
    for gone in roster.revoked:
        out.print(f"revoked: {gone.name}, {gone.at:%Y-%m-%d}, {gone.reason}", markup=False, soft_wrap=True)


def find_office(pilot: Path | None) -> "Office | None":
    """The coordinator's folder that is named, or is here, or is the only one in here; None where there is none."""
    from statfed.server.pilot.office import FILE, open_office

    here = Path()
    found = [pilot] if pilot else [one for one in (here, *sorted(here.iterdir())) if (one / "authority").is_dir()]
    found = [one for one in found if (one / FILE).exists()] if pilot is None else found
    if len(found) > 1:
        raise UsageError(f"--pilot: got {len(found)} of them here; want one of {', '.join(map(str, found))}")
    return open_office(found[0]) if found else None


def office_of(pilot: Path | None) -> "Office":
    """The coordinator's folder, opened. Raises UsageError where there is none."""
    office = find_office(pilot)
    if office is None:
        raise UsageError("--pilot: got no folder of a pilot here; want one, made by `statfed pilot init`")
    return office


def _words(office: "Office") -> str:
    """What the parties compare."""
    from statfed.core.pilot.words import words_of

    return words_of(office.settings.name, office.identity.public, office.authority.pem.decode("ascii"))


def _compared(wanted: "Mapping[str, str]", words: list[str] | None, question: str) -> None:
    """Have words compared: those given, or by whoever sits here. Raises UsageError unless all of them are."""
    from statfed.core.pilot.words import confirm

    if words or not wanted:
        confirm(wanted, words or ())
        return
    if not sys.stdin.isatty():
        raise UsageError(
            f"words: got none for {', '.join(wanted)}; want --words for each, as that organisation reads them out"
        )
    shown = table("compare outside this system", "whose", "words")
    for name, said in wanted.items():
        shown.add_row(name, said)
    out.print(shown, markup=False)
    if not typer.confirm(question):
        raise UsageError("words: got no agreement; want the same at both ends: nothing was changed")
