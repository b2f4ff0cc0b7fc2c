"""`statfed holder`: a party of a pilot: its process, and what its people read at home."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from statfed.cli._output import Json, emit_json, out, say, table
from statfed.cli.coordinator import Files, Overwrite, owner, program, write
from statfed.cli.policy import KIND, Dataset, Epsilon, Kind, Persons, Records, show
from statfed.core.codebook import load_codebook
from statfed.core.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="A party of a pilot: start it; read at home why it refused.")

Home = Annotated[Path, typer.Option("--home", help="The holder's home folder.")]
Through = Annotated[
    str | None,
    typer.Option(
        "--proxy",
        help="http://HOST:PORT of an HTTP proxy, or none. By default what HTTPS_PROXY and NO_PROXY say.",
    ),
]


@app.command()
def start(home: Home = Path(), proxy: Through = None) -> None:
    """Answer the pilot's coordinator until SIGTERM or Ctrl-C. Only this machine opens connections.

    What stands against the connection is logged in words, as `statfed doctor` says it.
    """
    import logging

    from statfed.cli.coordinator import until_told
    from statfed.client.pilot.serving import check, serve

    logging.basicConfig(format="%(asctime)s %(name)s %(levelname)s %(message)s", level=logging.INFO)
    name = check(home)
    serve(home, until_told(), lambda how, pid: say(f"{name}: calling {how} (process {pid})"), proxy)
    say(f"{name}: stopped")


@app.command("add-data")
def add_data(
    data: Annotated[str, typer.Argument(help="File, folder, or URL of a database with ?table=NAME.")],
    codebook: Annotated[
        Path | None, typer.Option(help="Codebook to pin: checked, since its roles and bounds become this holder's.")
    ] = None,
    template: Annotated[Kind | None, KIND] = None,
    third_party: Annotated[
        list[str] | None, typer.Option(help="A key holder or compute node that is trusted with its part.")
    ] = None,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the data into the home, readable by you alone.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="A newer state of the same data: policy, ledger and budget go on.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="This holder's name [that of its pilot].")] = None,
    dataset: Dataset = None,
    records: Records = None,
    persons: Persons = None,
    epsilon: Epsilon = None,
    home: Home = Path(),
    as_json: Json = False,
) -> None:
    """Put data under a policy: check them against the codebook, pin it, and write a commented policy.toml.

    Everything that is not allowed there is refused. Read it: it is yours to change (docs/policy.md).
    """
    from statfed.client.guard.beginning import Chosen, begin, name_of, renew
    from statfed.client.guard.explaining import findings, summary

    if replace and template:
        raise UsageError("--replace: got --template; want one of them: the policy is kept")
    party = name_of(home, name)
    book = load_codebook(codebook) if codebook else None
    chosen = Chosen(dataset, records, persons, epsilon, tuple(third_party or ()))
    if replace and book is None:
        raise UsageError("--codebook: got none; want the one that the data fit")
    if replace and book:
        policy = renew(home, data, book, chosen, copy=copy)
    else:
        policy = begin(home, template or "standard", data, book, party, chosen, copy=copy)
    path, found, allows = home / "policy.toml", findings(policy, home), summary(policy)
    if as_json:
        emit_json(
            {
                "policy": str(path),
                "holder": policy.holder.name,
                "template": None if replace else template or "standard",
                "records": policy.dataset.records,
                "persons": policy.dataset.persons,
                "codebook": book.digest() if book else None,
                "allows": allows,
                "findings": found,
            }
        )
        return
    sizes = policy.dataset
    kind = "kept; the ledger and its budget go on" if replace else template or "standard"
    say(f"wrote {path}: {kind}; read it, it is yours to change")
    many = f"{sizes.records:,} records and {sizes.persons:,} persons, which become public"
    fit = f"they fit the codebook, which is pinned: {book.digest()[:16]}" if book else "no codebook is pinned"
    show([f"Data: {many}; {fit}", "What it allows:", *(f"  {line}" for line in allows)])
    show(["What is left open:", *(f"- {one}" for one in found)] if found else [])
    say("next: statfed policy explain STUDY, for what it would say of a study; statfed holder start")


@app.command()
def files(
    output: Files,
    home: Home = Path(),
    proxy: Through = None,
    data: Annotated[
        list[Path] | None, typer.Option(help="A file or folder outside HOME that a container has to see.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write a systemd unit, a Containerfile and a compose file for this party."""
    from statfed.client.pilot.joining import standing
    from statfed.core import VERSION
    from statfed.core.errors import UsageError
    from statfed.core.pilot.proxy import NONE, read_proxy
    from statfed.core.pilot.services import Service
    from statfed.core.pilot.services import files as made

    own = standing(home)
    if own is None:
        raise UsageError(f"{home}: got a home that has joined no pilot; want `statfed pilot join` first")
    if proxy not in (None, NONE) and read_proxy(proxy, "--proxy").user is not None:
        raise UsageError(
            "--proxy: got one with a password, which files of services would show; want it in HTTPS_PROXY, set in a "
            "file that its owner alone can read and the service is given (EnvironmentFile=, env_file:)"
        )
    folder = home.resolve()
    options = ("--proxy", proxy) if proxy is not None else ()
    reads = tuple(one.resolve() for one in data or ())
    if missing := [str(one) for one in reads if not one.exists()]:
        raise UsageError(f"--data: got {', '.join(missing)}, which is not there; want files or folders that are")
    service = Service(
        "holder", own.pilot.party, folder, program(), VERSION, owner(folder), options=options, reads=reads
    )
    write(made(service), output, overwrite=overwrite, as_json=as_json)


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
