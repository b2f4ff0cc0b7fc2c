"""`statfed policy`: begin a holder's policy from a template, check it, and see what it would say of a study."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from statfed.cli._output import Json, emit_json, out, say
from statfed.core.codebook import load_codebook
from statfed.core.errors import Refused, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

app = typer.Typer(no_args_is_help=True, help="A holder's policy: begin one, check it, ask it about a study.")

Home = Annotated[Path, typer.Option("--home", help="The holder's home folder.")]
Kind = Literal["strict", "standard", "rehearsal"]
KIND = typer.Option(
    help="strict: nothing leaves without noise; standard: exact statistics too, under every rule; rehearsal: one "
    "person owns all data."
)
Dataset = Annotated[str | None, typer.Option(help="The dataset's name in its ledger [the holder's].")]
Records = Annotated[int | None, typer.Option(help="PUBLIC number of records [counted].")]
Persons = Annotated[int | None, typer.Option(help="PUBLIC number of persons [counted].")]
Epsilon = Annotated[
    float | None, typer.Option(help="Privacy budget of the dataset's whole life [strict 1, standard 3].")
]


@app.command()
def init(
    template: Annotated[Kind, KIND],
    data: Annotated[str, typer.Option(help="Data file, or URL of a database with ?table=NAME.")],
    name: Annotated[str, typer.Option(help="This holder's name in study files.")],
    home: Home = Path(),
    codebook: Annotated[
        Path | None, typer.Option(help="Codebook to pin: checked, since its roles and bounds become this holder's.")
    ] = None,
    dataset: Dataset = None,
    records: Records = None,
    persons: Persons = None,
    epsilon: Epsilon = None,
    as_json: Json = False,
) -> None:
    """Write a commented policy.toml into a holder's home, and check the data against the codebook.

    Everything that is not allowed there is refused. Read it: it is yours to change. In a pilot `statfed holder
    add-data` does the same, and knows the name.
    """
    from statfed.client.guard.beginning import Chosen, begin
    from statfed.client.guard.explaining import findings

    book = load_codebook(codebook) if codebook else None
    policy = begin(home, template, data, book, name, Chosen(dataset, records, persons, epsilon))
    path = home / "policy.toml"
    if as_json:
        emit_json({"policy": str(path), "template": template, "findings": findings(policy, home)})
        return
    sizes = policy.dataset
    many = f"{sizes.records:,} records and {sizes.persons:,} persons, which become public"
    say(f"wrote {path}: {template}, {many}; budget per {policy.budget.unit}")
    say("next: read it; statfed policy check; statfed identity; then pin the other parties' keys under [parties]")


@app.command()
def check(home: Home = Path(), as_json: Json = False) -> None:
    """Check a policy: is it understood, are the files private, what does it leave open? Exit code 2 where it is not."""
    from statfed.client.guard.explaining import findings
    from statfed.client.guard.files import check_modes
    from statfed.client.guard.policy import load_policy

    check_modes(home)
    policy = load_policy(home / "policy.toml")
    found = findings(policy, home)
    if as_json:
        emit_json({"policy": str(home / "policy.toml"), "holder": policy.holder.name, "findings": found})
        return
    show([f"{home / 'policy.toml'}: understood, and private to its owner", *(f"- {one}" for one in found)])


@app.command()
def explain(
    study: Annotated[
        Path | None,
        typer.Argument(
            metavar="[STUDY]", help="A study file, with its codebook; or a proposal, HOME/studies/N/proposal.json."
        ),
    ] = None,
    key: Annotated[
        list[str] | None, typer.Option("--key", help="What a key or a section is for, as limits.figures or limits.")
    ] = None,
    home: Home = Path(),
    as_json: Json = False,
) -> None:
    """Say what a policy allows, what a key is for, or all that stands against a study and what to change.

    Reads no data, so rules on cells are not tried. Exit code 3 where the study would be refused.
    """
    from statfed.client.guard.explaining import approval_by, meaning, summary, terms_in, verdict
    from statfed.client.guard.policy import load_policy

    policy = load_policy(home / "policy.toml")
    if key:
        if study:
            raise UsageError("explain: got a study and --key; want one of them")
        found = meaning(policy, key)
        if as_json:
            emit_json({"keys": [{"key": name, "value": value, "what": what} for name, value, what in found]})
        else:
            show(f"{name} = {value}\n  {what}" for name, value, what in found)
        return
    if study is None:
        lines = summary(policy)
        if as_json:
            emit_json({"holder": policy.holder.name, "allows": lines})
        else:
            show(lines)
        return
    terms = terms_in(study)
    said = verdict(policy, terms, approval_by(policy, terms))
    if as_json:
        emit_json(
            {
                "holder": policy.holder.name,
                "study": str(study),
                "admitted": said.admitted,
                "reason": "\n".join(rule.text for rule in said.refusing),
                "reasons": [{"reason": rule.text, "key": rule.key} for rule in said.refusing],
                "approval": said.approval,
            }
        )
    else:
        show(said.lines())
    if not said.admitted:
        raise typer.Exit(Refused.exit_code)


@app.command()
def rehearse(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY", help="A study file, with its codebook; or a proposal that has arrived.")
    ],
    records: Annotated[
        int | None, typer.Option(min=10, max=100_000, help="Generated records of each holder [as many as here].")
    ] = None,
    home: Home = Path(),
    as_json: Json = False,
) -> None:
    """Run a study with generated records under this policy's rules: what would leave, what it costs, who learns what.

    Nothing is sent or charged, and the home is only read: do the data fit the codebook, what is left in the ledger?
    Exit code 3 where the study would be refused.
    """
    from statfed.cli._output import progress_bars
    from statfed.cli._review import document, show_rehearsal
    from statfed.client.guard.explaining import terms_in
    from statfed.federation.rehearsal import rehearse as run

    with progress_bars() as bars:
        found = run(terms_in(study), home, records, title=study.stem, progress=bars)
    if as_json:
        emit_json(document(found))
    else:
        show_rehearsal(found)
    if found.answer == "refused":
        raise typer.Exit(Refused.exit_code)


@app.command()
def export(
    output: Annotated[Path, typer.Option("--output", "-o", help="Where it goes, as policy.jsonld.")],
    form: Annotated[Literal["odrl"], typer.Option("--format", help="ODRL 2.2 in JSON-LD.")] = "odrl",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file.")] = False,
    home: Home = Path(),
    as_json: Json = False,
) -> None:
    """Write what a policy offers in a standard form, for catalogues and contracts. Secret thresholds are not in it."""
    import json

    from statfed.client.guard.odrl import exported
    from statfed.client.guard.policy import load_policy
    from statfed.core.outputs import Destinations

    policy = load_policy(home / "policy.toml")
    document = exported(policy)
    outputs = Destinations(overwrite=overwrite)
    outputs.check(output)
    outputs.write_text(output, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    if as_json:
        emit_json({"policy": str(home / "policy.toml"), "format": form, "output": str(output), "uid": document["uid"]})
        return
    say(f"wrote {output}: for reading; {home / 'policy.toml'} alone decides")


def show(lines: "Iterable[str]") -> None:
    """Lines as they are."""
    for line in lines:
        out.print(line, highlight=False, markup=False, soft_wrap=True)
