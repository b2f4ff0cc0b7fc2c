"""`statfed holder add-data`: a party's data under a policy in one step."""

from pathlib import Path
from typing import Annotated

import typer

from statfed.cli._output import Json, emit_json, say
from statfed.cli.policy import KIND, Dataset, Epsilon, Home, Kind, Persons, Records, show
from statfed.core.codebook import load_codebook
from statfed.core.errors import UsageError


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
