"""`statfed ledger`: what was spent on a holder's data, and whether the record of it is intact."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from statfed.cli._output import Json, emit_json, out, table
from statfed.cli._runs import RUNS, WORKSPACE, Runs, Workspace, find_run
from statfed.core.errors import LedgerCorrupt, UsageError
from statfed.core.privacy.accountant import event_from_json, in_words

if TYPE_CHECKING:
    from statfed.client.guard.ledger import Ledger

app = typer.Typer(no_args_is_help=True, help="Privacy ledgers of data holders.")

Holder = Annotated[str | None, typer.Option(help="A simulated holder, e.g. office-1. Without it: all holders.")]
Home = Annotated[Path | None, typer.Option(help="A holder's home folder (in a pilot: your own).")]
Run = Annotated[str | None, typer.Option(help="Holders of a run made with --fresh: its id, or `last`.")]


def find_ledgers(holder: str | None, home: Path | None, run: str | None, runs: Path, workspace: Path) -> list[Path]:
    """Ledger files that the options name. Raises UsageError saying where it looked."""
    if home:
        found, where = _in(home, "."), str(home)
    elif run:
        root = find_run(runs, workspace, run) / "holders"
        found, where = _in(root, holder or "*"), f"{root} (was the run made with --fresh?)"
    else:
        training, tables = workspace / "holders", workspace / "tables"  # the latter named <holder>-<digest>
        found = [*_in(training, f"*/{holder or '*'}"), *_in(tables, f"{holder or '*'}-{'[0-9a-f]' * 12}")]
        where = f"{training} and {tables}"
    gone = [path for path in found if not path.exists()]
    if gone:
        raise LedgerCorrupt(
            f"{gone[0]}: missing, although it was opened before; want `statfed ledger restore --home {gone[0].parent}`"
        )
    if not found:
        raise UsageError(f"ledger of {holder or 'any holder'}: none found in {where}; name one with --home or --run")
    return found


def _in(root: Path, folders: str) -> list[Path]:
    """Ledger files below `root`, also those that are gone and left their marker."""
    found = [*root.glob(f"{folders}/ledger.sqlite"), *root.glob(f"{folders}/ledger.opened")]
    return sorted({path.with_name("ledger.sqlite") for path in found})


def _open(path: Path) -> "Ledger":
    from statfed.client.guard.ledger import read_only

    return read_only(path)


@app.command()
def show(
    holder: Holder = None,
    home: Home = None,
    run: Run = None,
    runs: Runs = RUNS,
    workspace: Workspace = WORKSPACE,
    as_json: Json = False,
) -> None:
    """Show what was spent, on what, and how many more like the last study there may be.

    `epsilon (PLD)` is the tight composition of everything charged. `total so far` is what that and what is set aside
    take of the lifetime budget, by the filter that enforces it: it adds up whatever was chosen.
    A disclosure is a sum that left without noise, or a refusal that depended on data.
    """
    documents: list[dict[str, Any]] = []
    for path in find_ledgers(holder, home, run, runs, workspace):
        with _open(path) as ledger:
            entries, spent = ledger.entries(), ledger.spending()
            more = ledger.more_like_last()
        documents.append(
            {
                "holder": path.parent.name,
                "ledger": str(path),
                "dataset": ledger.dataset,
                "unit": ledger.unit,
                "spending": asdict(spent) | {"more": more},
                "entries": [asdict(entry) for entry in entries],
            }
        )
    if as_json:
        emit_json({"ledgers": documents})
        return
    from statfed.federation.report import formats

    for document in documents:
        spent = document["spending"]
        history = "none: see disclosures" if spent["history_epsilon"] is None else f"{spent['history_epsilon']:.3f}"
        out.print(
            f"[bold]{document['holder']}[/bold]  dataset {document['dataset']}, per {document['unit']}\n"
            f"  epsilon (PLD) {history}; total so far {formats.share(spent['share'])} of epsilon {spent['budget']:g}"
            f"{_more(spent['more'])}\n"
            f"  {spent['disclosures']} disclosures, {spent['refusals']} of them refusals; "
            f"{spent['figures']:,} distinct exact figures{_most(Path(document['ledger']).parent)}",
            highlight=False,
        )
        rows = table("", "#", "time", "what", "run", "round", "event or note", numbers=("#", "round"))
        for entry in document["entries"]:
            event = in_words(event_from_json(entry["event"])) if entry["event"] else entry["note"]
            rounds = f"{entry['round']} in all" if entry["kind"] == "reserve" else str(entry["round"] or "")
            rows.add_row(str(entry["seq"]), entry["time"][:16], entry["kind"], entry["run"], rounds, event)
        out.print(rows)


def _more(number: int | None) -> str:
    return "" if number is None else f"; about {number:,} more like the last study"


def _most(home: Path) -> str:
    """How many exact figures the policy beside a ledger allows, in words; nothing where it counts none."""
    from statfed.client.guard.policy import load_policy

    try:
        most = load_policy(home / "policy.toml").limits.figures
    except UsageError:
        return ""
    return "" if most is None else f" of {most:,}"


@app.command()
def verify(
    holder: Holder = None,
    home: Home = None,
    run: Run = None,
    anchor: Annotated[
        str | None, typer.Option(help="A head hash seen earlier (result.json has them): finds a cut-off tail too.")
    ] = None,
    runs: Runs = RUNS,
    workspace: Workspace = WORKSPACE,
    as_json: Json = False,
) -> None:
    """Recompute the hash chain; exit code 5 names the first entry that was edited, removed or reordered."""
    results: list[dict[str, Any]] = []
    for path in find_ledgers(holder, home, run, runs, workspace):
        try:
            with _open(path) as ledger:
                head = ledger.verify(anchor)
                results.append({"ledger": str(path), "intact": True, "entries": len(ledger.entries()), "head": head})
        except LedgerCorrupt as error:
            raise LedgerCorrupt(f"{path}: {error}") from None
    if as_json:
        emit_json({"ledgers": results})
        return
    for result in results:
        out.print(f"intact: {result['ledger']}, {result['entries']} entries, head {result['head']}", highlight=False)


@app.command()
def restore(
    home: Annotated[Path, typer.Option(help="Your home folder, with its ledger put back from a backup, or gone.")],
    anchor: Annotated[
        str | None,
        typer.Option(
            help="The head of this ledger that the last result carried, where this machine knows no later one."
        ),
    ] = None,
    accept_loss: Annotated[
        str | None,
        typer.Option(
            "--accept-loss",
            metavar="REASON",
            help="Entries are lost: count all of the budget as spent, for this reason.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Put back what a ledger lost. It gives no budget back.

    This machine's register has a copy of every entry, and completes ledger and releases from it. On another machine, or
    without the register, want the anchor: `ledger_head` of this holder in the last result.json. If that is not in the
    ledger, entries are lost for good, and --accept-loss counts the whole budget as spent, on record.

    [bold]Example[/bold]

    statfed ledger restore --home /srv/statfed/office
    """
    from statfed.client.guard.restoring import restore as put_back

    done = put_back(home, anchor, accept_loss)
    if as_json:
        emit_json({"restored": [asdict(one) | {"path": str(one.path)} for one in done]})
        return
    for one in done:
        out.print(f"{one.path}: {one.said}; {one.entries} entries, head {one.head}", highlight=False, soft_wrap=True)
