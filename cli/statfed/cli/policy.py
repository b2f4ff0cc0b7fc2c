"""`statfed policy`: begin a holder's policy from a template, check it, and see what it would say of a study."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from statfed.cli._output import Json, emit_json, out, say
from statfed.core.codebook import Codebook, load_codebook
from statfed.core.errors import Refused, StatfedError, UsageError

if TYPE_CHECKING:
    from statfed.client.guard.policy import Policy

app = typer.Typer(no_args_is_help=True, help="A holder's policy: begin one, check it, ask it about a study.")

Home = Annotated[Path, typer.Option("--home", help="The holder's home folder.")]
EPSILON = {"strict": 1.0, "standard": 3.0, "rehearsal": 20.0}


@app.command()
def init(
    template: Annotated[
        Literal["strict", "standard", "rehearsal"],
        typer.Option(
            help="strict: nothing leaves without noise; standard: exact statistics too, under every rule; rehearsal: "
            "one person owns all data."
        ),
    ],
    data: Annotated[str, typer.Option(help="Data file, or URL of a database with ?table=NAME.")],
    name: Annotated[str, typer.Option(help="This holder's name in study files.")],
    home: Home = Path(),
    codebook: Annotated[
        Path | None, typer.Option(help="Codebook to pin: checked, since its roles and bounds become this holder's.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="The dataset's name in its ledger [the holder's].")] = None,
    records: Annotated[int | None, typer.Option(help="PUBLIC number of records [counted].")] = None,
    persons: Annotated[int | None, typer.Option(help="PUBLIC number of persons [counted].")] = None,
    epsilon: Annotated[
        float | None, typer.Option(help="Privacy budget of the dataset's whole life [strict 1, standard 3].")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a commented policy.toml into a holder's home, and check the data against the codebook.

    Everything that is not allowed there is refused. Read it: it is yours to change.
    """
    from statfed.client.guard.policy import Budget, Dataset, HolderName, write_policy
    from statfed.client.guard.templates import made

    path = home / "policy.toml"
    if path.exists():
        raise UsageError(f"{path}: exists; want a home without a policy, or to change that one by hand")
    book = load_codebook(codebook) if codebook else None
    if book is None and template != "rehearsal":
        raise UsageError(f"--codebook: got none for {template}; want the codebook that studies may use")
    counted = _sizes(data, book)
    many = records or counted[0]
    people = min(persons or counted[1], many)
    unit: Literal["record", "person"] = "person" if book and book.role("unit") else "record"
    units = people if unit == "person" else many
    try:
        policy = made(
            template,
            holder=HolderName(name=name),
            dataset=Dataset(
                id=dataset or name,
                path=_placed(data, home),
                records=many,
                persons=people,
                codebooks=(book.digest(),) if book else (),
            ),
            budget=Budget(unit=unit, epsilon=epsilon or EPSILON[template], delta=min(1e-6, 0.1 / units)),
        )
    except ValueError as error:
        raise UsageError(f"policy: {error}") from None
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_policy(policy, path)
    if as_json:
        emit_json({"policy": str(path), "template": template, "findings": findings(policy, home)})
        return
    say(f"wrote {path}: {template}, {many:,} records and {people:,} persons, which become public; budget per {unit}")
    say("next: read it; statfed policy check; statfed identity; then pin the other parties' keys under [parties]")


def _sizes(source: str, codebook: Codebook | None) -> tuple[int, int]:
    """Numbers of records and persons, at least 1. Raises UsageError where the data do not fit the codebook."""
    from statfed.client.data.tables import connect, inspect

    with connect(source, Path.cwd()) as opened:
        if codebook and (found := inspect(opened, codebook, tuple(codebook.columns)).mismatches):
            raise UsageError("data do not fit the codebook (statfed codebook check):\n  " + "\n  ".join(found))
        records = max(1, int(opened.expr.count().to_pyarrow().as_py()))
        unit = codebook.role("unit") if codebook else None
        if unit is None or unit not in opened.expr.columns:
            return records, records
        return records, max(1, min(records, int(opened.expr[unit].nunique().to_pyarrow().as_py())))


def _placed(source: str, home: Path) -> str:
    """A data source as a policy names it: relative to the home where the file lies in it, else absolute."""
    from statfed.client.data.sources import absolute

    whole = absolute(source, Path.cwd())
    inside = Path(whole)
    return str(inside.relative_to(home.resolve())) if inside.is_relative_to(home.resolve()) else whole


def findings(policy: "Policy", home: Path) -> list[str]:
    """What a policy leaves open, or closes so far that nothing is answered, in words."""
    from statfed.client.guard.policy import ANY

    allow, found = policy.allow, list[str]()
    if policy.rehearsal:
        found.append("refusals.explain: a rehearsal: refusals tell of the data; only where one person owns them all")
    elif not policy.dataset.codebooks:
        found.append("dataset.codebooks: none is pinned, so nothing is answered; want statfed codebook pin")
    if allow.public_seed:
        found.append("allow.public_seed: whoever has the study can subtract its noise; only in a simulation")
    if ANY in allow.protections or "plain" in allow.protections:
        found.append("allow.protections: plain shows the coordinator this holder's own sums")
    if allow.without_privacy and policy.disclosure.silent:
        found.append(
            "allow.without_privacy with every rule under [disclosure] off: exact figures of single records leave"
        )
    if allow.without_privacy and (ANY in allow.methods or "local-sgd" in allow.methods):
        found.append("allow.methods: local-sgd without noise: a model can hold single records")
    if ANY in allow.weights and allow.without_privacy:
        found.append("allow.weights: any column may weigh records: one that is 0 for all but one singles it out")
    if ANY in allow.functions and allow.without_privacy:
        found.append("allow.functions: any function may be used: one can be a bump that a single record stands in")
    if "central" in allow.noise:
        found.append("allow.noise: central trusts the coordinator with exact sums")
    if policy.minimum.holders < 3:
        found.append("minimum.holders: a sum of two holders tells each the other's part")
    if not (home / "identity.key").exists():
        found.append("identity.key: none yet; want statfed identity")
    return found


@app.command()
def check(home: Home = Path(), as_json: Json = False) -> None:
    """Check a policy: is it understood, are the files private, what does it leave open? Exit code 2 where it is not."""
    from statfed.client.guard.files import check_modes
    from statfed.client.guard.policy import load_policy

    check_modes(home)
    policy = load_policy(home / "policy.toml")
    found = findings(policy, home)
    if as_json:
        emit_json({"policy": str(home / "policy.toml"), "holder": policy.holder.name, "findings": found})
        return
    out.print(f"{home / 'policy.toml'}: understood, and private to its owner", highlight=False, markup=False)
    for one in found:
        out.print(f"- {one}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def explain(
    study: Annotated[Path | None, typer.Argument(metavar="[STUDY]", help="A study file, with its codebook.")] = None,
    home: Home = Path(),
    as_json: Json = False,
) -> None:
    """Say what a policy allows, or what it would say of a study. Reads no data, so rules on cells are not tried.

    Exit code 3 where the study would be refused.
    """
    from statfed.client.guard.policy import load_policy

    policy = load_policy(home / "policy.toml")
    if study is None:
        lines = summary(policy)
        if as_json:
            emit_json({"holder": policy.holder.name, "allows": lines})
            return
        for line in lines:
            out.print(line, highlight=False, markup=False, soft_wrap=True)
        return
    reason = refused(policy, study)
    if as_json:
        emit_json({"holder": policy.holder.name, "study": str(study), "admitted": not reason, "reason": reason})
    elif reason:
        out.print(f"would be refused:\n{reason}", highlight=False, markup=False, soft_wrap=True)
    else:
        out.print("would be admitted; rules on its cells are tried on the data", highlight=False, markup=False)
    if reason:
        raise typer.Exit(Refused.exit_code)


def refused(policy: "Policy", path: Path) -> str:
    """Why `policy` would refuse the study of a file; nothing where it would not."""
    from statfed.client.guard.admission import admit, bounded
    from statfed.core.resolve import resolve
    from statfed.core.study import load_study

    study = load_study(path)
    if study.codebook is None:
        raise UsageError(f"{path}: codebook: got none; want the one that holders have pinned")
    codebook = load_codebook(path.parent / study.codebook)
    others = {name: load_codebook(path.parent / file) for name, file in study.codebooks.items()}
    terms = study.terms(codebook, others)
    try:
        bounded(policy.limits, terms)
        admit(policy, resolve(terms, policy.holder.name))
    except StatfedError as error:
        return str(error)
    return ""


def summary(policy: "Policy") -> list[str]:
    """What a policy allows, in lines."""
    allow, limits, rules = policy.allow, policy.limits, policy.disclosure
    exact = "under the rules of [disclosure]" if not rules.silent else "with every rule off"
    return [
        f"methods: {', '.join(allow.methods) or 'none'}",
        f"without noise: {exact if allow.without_privacy else 'nothing'}",
        f"privacy: epsilon {policy.budget.epsilon:g} per {policy.budget.unit}, noise {', '.join(allow.noise)}",
        f"protections: {', '.join(allow.protections) or 'none'}",
        f"columns: {', '.join(allow.columns) or 'none'}; to select records by: {', '.join(allow.filters) or 'none'}",
        f"weights beside the codebook's: {', '.join(allow.weights) or 'none'}; functions: {', '.join(allow.functions)}",
        f"codebooks pinned: {', '.join(policy.dataset.codebooks) or 'none'}",
        f"exact figures: {_most(limits.figures)}",
        f"refusals that depended on data: {_most(limits.refusals)} in {limits.days:g} days",
        f"what they tell: {'everything (a rehearsal)' if policy.rehearsal else 'one text, no reason'}",
    ]


def _most(number: int | None) -> str:
    return "not counted" if number is None else f"at most {number:,}"
