"""`statfed study`: proposed at the coordinator, read and decided at each party, from the first word to the last."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from statfed.cli._output import Json, emit_json, out, progress_bars, say, show_learns, table
from statfed.cli.pilot import Folder, Home, find_office, office_of
from statfed.core.errors import UsageError

if TYPE_CHECKING:
    from statfed.client.pilot.studies import Asked
    from statfed.core.identity import Identity
    from statfed.core.pilot.proposals import Proposal
    from statfed.federation.rehearsed import Rehearsal
    from statfed.server.pilot.office import Office
    from statfed.server.pilot.studies import Word

app = typer.Typer(
    no_args_is_help=True,
    help="Studies of a pilot: proposed by the coordinator, decided by each party, run as approved.\n\n"
    "The coordinator: [bold]propose[/bold] a file, [bold]send[/bold] it again, [bold]list[/bold] who has approved. "
    "Each party: [bold]review[/bold], then [bold]approve[/bold] or [bold]refuse[/bold].",
)

Number = Annotated[int, typer.Argument(help="The study's number.", min=1)]
As = Annotated[str | None, typer.Option("--as", help="Who decides, where the policy lists people under approval.")]
Key = Annotated[
    Path | None, typer.Option(help="Folder with that person's identity.key (statfed identity), their own alone.")
]


@app.command()
def propose(
    study: Annotated[Path, typer.Argument(help="A study file, with holders by name and a codebook.")],
    purpose: Annotated[str, typer.Option(help="What it is for, in words that each party reads.")] = "",
    runs: Annotated[int, typer.Option(min=1, help="How many runs approval is asked for.")] = 1,
    days: Annotated[float, typer.Option(min=0.01, max=3650, help="For how long, from now on.")] = 90.0,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the study.")
    ] = None,
    pilot: Folder = None,
    as_json: Json = False,
) -> None:
    """Number and sign a study, and send it to its parties, as far as they are connected.

    What is signed is what is run: a change is another study, with another number.
    """
    from statfed.core.study import load_study
    from statfed.federation.pilot import propose as make

    office = office_of(pilot)
    signed = make(
        office,
        load_study(study, ['engine="pilot"', *(set_ or [])]),
        study.parent,
        purpose=purpose,
        runs=runs,
        days=days,
    )
    number = signed.proposal.number
    failed = _corresponded(office, [number])
    _tell(office, number, failed, as_json)


@app.command()
def send(
    number: Annotated[int | None, typer.Argument(help="The study (default: all that are open).", min=1)] = None,
    pilot: Folder = None,
    as_json: Json = False,
) -> None:
    """Send proposals to parties that have not had them, and ask what they have decided."""
    from statfed.server.pilot import studies

    office, now = office_of(pilot), datetime.now(UTC)
    every = [one.proposal.number for one in studies.listing(office) if one.proposal.until > now]
    numbers = [number] if number else every
    if number:
        studies.find(office, number)
    failed = _corresponded(office, numbers) if numbers else {}
    if number:
        _tell(office, number, failed, as_json)
    else:
        list_office(office, failed, as_json)


@app.command("list")
def list_(home: Home = Path(), pilot: Folder = None, as_json: Json = False) -> None:
    """List studies, with what is decided: at the coordinator by party, at a party its own."""
    if office := place(home, pilot):
        list_office(office, {}, as_json)
        return
    from statfed.client.pilot import studies

    found = [row_of(home, one) for one in studies.listing(home)]
    if as_json:
        emit_json({"studies": found})
        return
    shown = table("Studies", "number", "title", "method", "decision", "until", "runs made")
    for row in found:
        cells = (row["number"], row["title"], row["method"], row["decision"], row["until"][:10], row["runs_made"])
        shown.add_row(*map(str, cells))
    out.print(shown if found else "no study has come yet", markup=False)


@app.command()
def review(
    number: Number,
    rehearse: Annotated[
        bool, typer.Option(help="Run it with generated records under this home's policy, to see what would leave.")
    ] = True,
    home: Home = Path(),
    pilot: Folder = None,
    as_json: Json = False,
) -> None:
    """Show a study before deciding: what it computes, who learns what, what it costs, what the policy says.

    Nothing is sent or spent. This holder's data are looked at for whether they fit the codebook, and no further.
    """
    from statfed.federation.rehearsal import rehearse as run

    if office := place(home, pilot):
        from statfed.server.pilot import studies as at_office

        signed = at_office.find(office, number)
        _show_proposal(signed.proposal, signed.id, as_json)
        return
    from statfed.client.pilot import studies

    asked = studies.find(home, number)
    proposal = asked.proposal
    found = None
    if rehearse:
        with progress_bars() as bars:
            found = run(proposal.agreed, home, title=proposal.title, progress=bars)
    _show_proposal(proposal, asked.signed.id, as_json, row_of(home, asked), found)


@app.command()
def approve(
    number: Number,
    runs: Annotated[int | None, typer.Option(min=1, help="At most so many runs (default: what is asked for).")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="At most so many sums in each (default: 1,000).")] = None,
    until: Annotated[
        str | None, typer.Option(metavar="DAY", help="Last day, as 2027-06-30 (default: what is asked for).")
    ] = None,
    since: Annotated[str | None, typer.Option(metavar="DAY", help="First day (default: today).")] = None,
    reason: Annotated[str, typer.Option(help="A word with it, which the coordinator reads.")] = "",
    as_: As = None,
    key: Key = None,
    home: Home = Path(),
    as_json: Json = False,
) -> None:
    """Approve a study: sign its hash, for its parties with the keys that are pinned now.

    It holds until it is refused here, its time is over, its runs are made, or a party's key changes.
    """
    from dataclasses import replace

    from statfed.client.pilot import studies

    now = datetime.now(UTC).replace(microsecond=0)
    wanted = studies.find(home, number).proposal
    limits = studies.standard(wanted, now)
    limits = replace(
        limits,
        runs=runs or limits.runs,
        rounds=rounds or limits.rounds,
        since=_day(since, "--since") if since else limits.since,
        until=min(_day(until, "--until") + timedelta(days=1), wanted.until) if until else limits.until,
    )
    if limits.rounds < (many := needed(wanted)):
        raise UsageError(f"--rounds: got {limits.rounds} for a study of {many} sums; want as many, or it has no result")
    _decided(home, number, "approved", reason, limits, as_, key, now, as_json)


@app.command()
def refuse(
    number: Number,
    reason: Annotated[str, typer.Option(help="Why; the coordinator reads it.")],
    as_: As = None,
    key: Key = None,
    home: Home = Path(),
    as_json: Json = False,
) -> None:
    """Refuse a study, or take an approval back: nothing of it is answered from the next statement on."""
    _decided(home, number, "refused", reason, None, as_, key, datetime.now(UTC).replace(microsecond=0), as_json)


def _decided(
    home: Path,
    number: int,
    choice: Any,
    reason: str,
    limits: Any,
    name: str | None,
    key: Path | None,
    now: datetime,
    as_json: bool,
) -> None:
    from statfed.client.pilot import studies
    from statfed.client.third_party import approval_of

    rules = approval_of(home)
    asked = studies.decide(
        home, number, choice, rules, reason=reason, limits=limits, person=_person(name, key), now=now
    )
    row = row_of(home, asked)
    if as_json:
        emit_json({"study": row})
        return
    have = len(studies.agreeing(asked, rules))
    if choice == "approved" and rules.people and have < rules.needed:
        say(f"study {number}: {have} of the {rules.needed} people that the policy wants have approved it")
    else:
        say(f"study {number}: {row['decision']}; the coordinator is told when it asks")


def _person(name: str | None, key: Path | None) -> "tuple[str, Identity] | None":
    from statfed.core.identity import load_identity

    if (name is None) != (key is None):
        raise UsageError("--as, --key: got one without the other; want a person and the folder with their key")
    return None if name is None or key is None else (name, load_identity(key, name, {}))


def _day(text: str, option: str) -> datetime:
    try:
        return datetime.combine(datetime.fromisoformat(text).date(), time(), UTC)
    except ValueError:
        raise UsageError(f"{option}: got {text!r}; want a day as 2027-06-30") from None


def needed(proposal: "Proposal") -> int:
    """How many sums a study takes, where that is known beforehand; else 0."""
    from statfed.core.method import Fixed
    from statfed.core.resolve import resolve

    budget = resolve(proposal.agreed).budget
    return len(budget.order) if isinstance(budget, Fixed) else 0


def place(home: Path, pilot: Path | None) -> "Office | None":
    """The coordinator's folder, where one is meant; None in a party's home. Raises UsageError where it is neither."""
    from statfed.client.pilot.joining import KIT

    if pilot is None and (home / KIT).exists():
        return None
    if (pilot or home == Path()) and (office := find_office(pilot)):
        return office
    raise UsageError("got neither a party's home nor a coordinator's folder here; want --home or --pilot")


def _corresponded(office: "Office", numbers: list[int]) -> dict[str, str]:
    from statfed.core.errors import EngineError
    from statfed.server.pilot.hub import correspond

    try:
        with progress_bars():
            return correspond(office, numbers)
    except EngineError as error:
        say(f"not sent: {error}; then `statfed study send`", "yellow")
        return {}


def _tell(office: "Office", number: int, failed: Mapping[str, str], as_json: bool) -> None:
    from statfed.server.pilot import studies

    signed, found = studies.find(office, number), studies.words(office, number, datetime.now(UTC))
    if as_json:
        told = {name: _said(one) for name, one in found.items()}
        emit_json(
            {"number": number, "id": signed.id, "study": signed.proposal.digest, "parties": told, "failed": failed}
        )
        return
    shown = table(
        f"Study {number}: {signed.proposal.title or signed.proposal.method}", "party", "state", "said", "statfed"
    )
    for one in found.values():
        shown.add_row(one.party, one.state, one.what, one.version)
    out.print(shown, markup=False)
    for name, what in failed.items():
        say(f"{name}: {what}", "yellow")


def list_office(office: "Office", failed: Mapping[str, str], as_json: bool) -> None:
    from statfed.federation.pilot import runs_of
    from statfed.federation.runs import read_status
    from statfed.server.pilot import studies

    now, rows = datetime.now(UTC), []
    for signed in studies.listing(office):
        proposal = signed.proposal
        words = studies.words(office, proposal.number, now)
        made = runs_of(office, proposal.number)
        rows.append(
            {
                "number": proposal.number,
                "title": proposal.title,
                "method": proposal.method,
                "until": proposal.until.isoformat(),
                "parties": {name: _said(one) for name, one in words.items()},
                "runs": [run.name for run in made],
                "state": str(read_status(made[-1])["state"]) if made else "",
            }
        )
    if as_json:
        emit_json({"studies": rows, "failed": failed})
        return
    shown = table("Studies", "number", "title", "method", "approved", "open", "last run")
    for row in rows:
        by_state: Mapping[str, Any] = row["parties"]  # type: ignore[assignment]
        yes = [name for name, one in by_state.items() if one["state"] == "approved"]
        no = [f"{name} ({one['state']})" for name, one in by_state.items() if one["state"] != "approved"]
        cells = (row["number"], row["title"], row["method"], ", ".join(yes), ", ".join(no), row["state"])
        shown.add_row(*map(str, cells))
    out.print(shown if rows else "no study was proposed yet: statfed study propose FILE", markup=False)
    for name, what in failed.items():
        say(f"{name}: {what}", "yellow")


def _said(one: "Word") -> dict[str, str]:
    return {"state": one.state, "what": one.what, "version": one.version}


def row_of(home: Path, asked: "Asked") -> dict[str, Any]:
    """A study at a party, in plain values."""
    from statfed.client.pilot.permits import used

    proposal, decision = asked.proposal, asked.decision.decision if asked.decision else None
    return {
        "number": proposal.number,
        "id": asked.signed.id,
        "title": proposal.title,
        "method": proposal.method,
        "decision": decision.choice if decision else "open",
        "by": decision.by if decision else "",
        "reason": decision.reason if decision else "",
        "people": {name: said.decision.choice for name, said in asked.people},
        "since": decision.since.isoformat() if decision else "",
        "until": (decision.until if decision else proposal.until).isoformat(),
        "runs": decision.runs if decision else proposal.runs,
        "rounds": decision.rounds if decision else 0,
        "runs_made": len({str(one["run"]).partition("~")[0] for one in used(home, proposal.digest)}),
    }


def _show_proposal(
    proposal: "Proposal",
    id_: str,
    as_json: bool,
    row: Mapping[str, Any] | None = None,
    rehearsed: "Rehearsal | None" = None,
) -> None:
    from statfed.cli._review import document, show_rehearsal
    from statfed.core.resolve import resolve
    from statfed.federation.answers import learns

    terms = proposal.agreed
    rows = learns(resolve(terms))
    if as_json:
        emit_json(
            {
                "proposal": proposal.model_dump(mode="json", exclude={"terms", "study"}),
                "id": id_,
                "terms": terms.model_dump(mode="json"),
                "learns": [{"role": r.role, "learns": r.learns, "protected_by": r.protected_by} for r in rows],
                "decision": row,
                "rehearsal": document(rehearsed) if rehearsed else None,
            }
        )
        return
    privacy, many = terms.privacy, len(terms.holders)
    cost = (
        f"epsilon {privacy.epsilon:g}, delta {privacy.delta:g} per {privacy.unit}, {privacy.noise} noise"
        if privacy
        else "no noise: exact figures, under the rules of this holder"
    )
    facts = {
        "study": f"{proposal.number}, {proposal.title or proposal.method}",
        "purpose": proposal.purpose or "not said",
        "computes": f"{terms.method}: {', '.join(f'{key} = {value}' for key, value in terms.options.items())}",
        "of records": " and ".join(map(str, terms.where)) or "all",
        "columns": ", ".join(resolve(terms).columns) or "none",
        "sums": needed(proposal) or "as many as it takes to converge",
        "parties": ", ".join(proposal.parties),
        "protection": f"{terms.protection.name}, over at least {resolve(terms).minimum_holders} of {many} holders",
        "options": ", ".join(f"{key} = {value}" for key, value in terms.protection.options.items()) or "none",
        "privacy": cost,
        "release": json.loads(proposal.study).get("disclosure", {}).get("method", "no rules"),
        "asked for": f"{proposal.runs} runs, until {proposal.until:%Y-%m-%d}",
        "hash": id_,
    }
    if row:
        facts["decided"] = f"{row['decision']} {row['reason']}".strip()
    for name, text in facts.items():  # a text of two lines would say another fact
        shown = str(text).replace("\n", "\\n")
        out.print(f"{name:<11}{shown}", markup=False, highlight=False, soft_wrap=True)
    if rehearsed and privacy is None:
        out.print("Earlier exact answers were not looked at: beside them, this one may be refused.", markup=False)
    if rehearsed:
        out.print("\nRehearsed with generated records, under the policy of this home:", markup=False)
        show_rehearsal(rehearsed)
    else:
        show_learns("Who learns what", rows)
