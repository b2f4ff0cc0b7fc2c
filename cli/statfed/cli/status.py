"""`statfed status`, `stop`, `resume`: what goes on in a pilot, at the coordinator or at a party."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from statfed.cli._answers import notify, say_where, tell
from statfed.cli._output import Json, emit_json, out, progress_bars, say, table
from statfed.cli.pilot import Folder, Home, office_of
from statfed.cli.study import list_office, place, row_of
from statfed.core.errors import EngineError, UsageError

if TYPE_CHECKING:
    from statfed.server.pilot.office import Office


def status(home: Home = Path(), pilot: Folder = None, as_json: Json = False) -> None:
    """Say what goes on in a pilot: who is connected, what is asked and decided, what runs, what is left of a budget."""
    if office := place(home, pilot):
        _status_of_office(office, as_json)
    else:
        _status_of_party(home, as_json)


def stop(
    number: Annotated[int | None, typer.Argument(help="A study whose run is to stop [the hub].", min=1)] = None,
    pilot: Folder = None,
    as_json: Json = False,
) -> None:
    """Stop the run of a study, which `statfed resume` goes on with; without a number, stop the hub."""
    from statfed.federation.pilot import runs_of
    from statfed.federation.runs import interrupt
    from statfed.server.pilot import studies
    from statfed.server.pilot.hub import stop_hub

    office = office_of(pilot)
    if number is None:
        stopped = stop_hub(office)
    else:
        studies.find(office, number)
        stopped = any(interrupt(folder) for folder in runs_of(office, number))
    what = "the hub" if number is None else f"study {number}"
    if as_json:
        emit_json({"stopped": stopped})
        return
    say(f"{what}: {'stopped' if stopped else 'nothing was running'}")


def resume(
    number: Annotated[int, typer.Argument(help="The study's number.", min=1)],
    patience: Annotated[
        float | None, typer.Option(min=0, help="Seconds without progress for which it goes on trying by itself [600].")
    ] = None,
    pilot: Folder = None,
    as_json: Json = False,
) -> None:
    """Go on with the last interrupted run of a study, after its last finished sum: none is paid for twice."""
    from statfed.federation import Options
    from statfed.federation.pilot import resume_number, runs_of
    from statfed.federation.run import PATIENCE

    office = office_of(pilot)
    with progress_bars() as bars:
        answer = resume_number(
            office.root,
            number,
            Options(patience=PATIENCE if patience is None else patience),
            progress=bars,
            notify=notify,
        )
    tell(answer, as_json)
    say_where(runs_of(office, number)[-1])


def _status_of_office(office: "Office", as_json: bool) -> None:
    from statfed.federation.pilot import runs_of
    from statfed.federation.runs import read_status
    from statfed.server.pilot import studies
    from statfed.server.pilot.hub import connected

    try:
        there: dict[str, bool] | None = connected(office)
    except EngineError:
        there = None
    roster, now = office.roster, datetime.now(UTC)
    if not as_json:
        state = "hub up" if there is not None else "hub down: statfed coordinator start"
        out.print(f"{roster.pilot}, {office.settings.address}, {state}", markup=False, highlight=False)
        shown = table("Parties", "party", "role", "connected", "until")
        for one in roster.participants:
            shown.add_row(one.name, one.role, "yes" if (there or {}).get(one.name) else "no", f"{one.until:%Y-%m-%d}")
        out.print(shown, markup=False)
        list_office(office, {}, as_json=False)
        return
    found: list[dict[str, Any]] = []
    for signed in studies.listing(office):
        number = signed.proposal.number
        words = studies.words(office, number, now)
        runs = [read_status(folder) for folder in runs_of(office, number)]
        found.append({"number": number, "parties": {n: w.state for n, w in words.items()}, "runs": runs})
    parties = {one.name: bool((there or {}).get(one.name)) for one in roster.participants}
    emit_json({"pilot": roster.pilot, "up": there is not None, "connected": parties, "studies": found})


def _status_of_party(home: Path, as_json: bool) -> None:
    from statfed.client.guard.ledger import read_only
    from statfed.client.pilot import studies
    from statfed.client.pilot.joining import KIT, look

    own = studies.standing_of(home)
    if own is None:
        raise UsageError(f"{home}: has joined no pilot; want `statfed pilot join` first")
    kit = look(home, home / KIT).signed.kit
    rows = [row_of(home, one) for one in studies.listing(home)]
    ledger = home / "ledger.sqlite"
    share = None
    if ledger.exists():
        with read_only(ledger) as opened:
            share = opened.spending().share
    if as_json:
        facts = {"pilot": own.pilot.name, "party": own.pilot.party, "hub": kit.address, "share": share}
        emit_json(facts | {"studies": rows})
        return
    out.print(
        f"{own.pilot.party} in {own.pilot.name}, hub {kit.address}, roster {own.pilot.serial}",
        markup=False,
        highlight=False,
    )
    if share is not None:
        out.print(f"privacy budget: {share:.0%} used (statfed ledger show)", markup=False, highlight=False)
    waiting = [str(row["number"]) for row in rows if row["decision"] == "open"]
    shown = table("Studies", "number", "title", "decision", "until", "runs made")
    for row in rows:
        shown.add_row(str(row["number"]), row["title"], row["decision"], row["until"][:10], str(row["runs_made"]))
    if rows:
        out.print(shown, markup=False)
    say(f"to decide: {', '.join(waiting)} (statfed study review NUMBER)" if waiting else "nothing to decide")


def logs(
    number: Annotated[int, typer.Argument(help="The study's number.", min=1)],
    home: Home = Path(),
    pilot: Folder = None,
    as_json: Json = False,
) -> None:
    """Show what was recorded of a study here, in order: proposed, decided, sent, received, answered.

    The log is signed and chained: statfed audit verify.
    """
    from statfed.client.pilot import studies as at_home
    from statfed.core.pilot.audit import FILE, entries
    from statfed.server.pilot import studies as at_office

    office = place(home, pilot)
    folder = office.root if office else home
    proposal = (at_office.find(office, number) if office else at_home.find(home, number).signed).proposal
    marks = {"number": number, "study": proposal.digest}
    path = folder / FILE
    every = list(entries(path)) if path.exists() else []
    runs = {str(one.facts["run"]) for one in every if "run" in one.facts and _of(one.facts, marks)}
    found = [one for one in every if _of(one.facts, marks) or str(one.facts.get("run")) in runs]
    if as_json:
        rows = [{"seq": one.seq, "time": one.time, "kind": one.kind, "facts": dict(one.facts)} for one in found]
        emit_json({"study": number, "log": str(path), "entries": rows})
        return
    shown = table(f"Study {number}, {path}", "entry", "time", "what", "facts", numbers=("entry",))
    for one in found:
        told = {key: value for key, value in one.facts.items() if key in _TOLD}
        shown.add_row(str(one.seq), one.time[:19], one.kind, " ".join(f"{k}={v}" for k, v in told.items()))
    out.print(shown, markup=False)


_TOLD = ("to", "from", "step", "run", "round", "stage", "choice", "by", "reason", "outcome", "size")


def _of(facts: Mapping[str, Any], marks: Mapping[str, Any]) -> bool:
    return any(facts.get(key) == value for key, value in marks.items())
