"""`statfed compare`: every technique that applies, side by side, on the same data and seeds."""

import math
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.markup import escape

from statfed.cli._output import Json, Overwrite, emit_json, out, progress_bars, say, table
from statfed.cli._runs import RUNS, WORKSPACE
from statfed.core.disclosure import HolderRules
from statfed.core.discovery import load, modules
from statfed.core.errors import UsageError
from statfed.core.names import one_of
from statfed.core.outputs import Destinations
from statfed.core.scenario import PACKAGE as SCENARIOS
from statfed.core.scenario import Profile

if TYPE_CHECKING:
    from statfed.lab.compare.tables import Tables

RESULTS = Path("compare") / "results.duckdb"
"""In the folder of runs."""


def compare(
    scenario: Annotated[
        list[str] | None, typer.Argument(help="Scenarios (statfed scenarios list). Or --all.", show_default=False)
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="The whole inventory.")] = False,
    profile: Annotated[str, typer.Option(help="quick: small worlds, one seed; full: realistic sizes, five.")] = "quick",
    seeds: Annotated[int | None, typer.Option(min=1, help="Worlds of each scenario (quick: 1, full: 5).")] = None,
    protect: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Only this protection, or linkage (statfed protections, statfed linkages). Repeat."
        ),
    ] = None,
    level: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Only this release level (statfed scenarios show). Repeat.")
    ] = None,
    rules: Annotated[
        HolderRules,
        typer.Option(help="What holders allow: everything, or what that template of statfed policy init does."),
    ] = "none",
    streams: Annotated[int | None, typer.Option(min=1, help="Processes at a time (one a core).")] = None,
    again: Annotated[bool, typer.Option("--again", help="Try also what has a result already.")] = False,
    report_only: Annotated[bool, typer.Option("--report-only", help="Try nothing; report what is there.")] = False,
    results: Annotated[
        Path | None,
        typer.Option(help="Where results are kept (compare/results.duckdb in the runs).", envvar="STATFED_RESULTS"),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Where runs are kept.", envvar="STATFED_RUNS")] = RUNS,
    report: Annotated[Path | None, typer.Option(help="Folder of the report (report/ beside the results).")] = None,
    overwrite: Overwrite = False,
    workspace: Annotated[
        Path, typer.Option(help="Where tuned references are kept.", envvar="STATFED_WORKSPACE")
    ] = WORKSPACE,
    as_json: Json = False,
) -> None:
    """Try every protection at every release level of a scenario, and report accuracy, privacy and cost.

    SCENARIO: one name or several (statfed scenarios list), or --all.

    Where units are matched first, linkages are tried in the place of protections.

    Results are kept: what was interrupted goes on, and what is there is not tried again. Techniques that do not apply
    are listed with the reason, those that fail with what went wrong.

    [bold]Examples[/bold]

    statfed compare income-tables

    statfed compare wages --protect plain --protect multi-party --level exact

    statfed compare set-intersection --protect helper

    statfed compare --all --profile quick

    statfed compare health --rules standard

    statfed compare --all --profile full --seeds 10
    """
    from statfed.lab.compare.harness import Comparison, Outcome, compare, plan
    from statfed.lab.compare.store import opened
    from statfed.lab.compare.tables import NAMES

    if profile not in ("quick", "full"):
        raise UsageError(f"--profile: got {profile}; want {one_of(('quick', 'full'), profile)}")
    if bool(scenario) == all_:
        raise UsageError("compare: want scenarios (statfed scenarios list), or --all for the whole inventory")
    wanted = Comparison(
        scenarios=tuple(dict.fromkeys(scenario or ())),
        protections=tuple(protect or ()),
        levels=tuple(level or ()),
        rules=rules,
        profile=cast(Profile, profile),
        seeds=seeds,
        streams=streams,
        again=again,
    )
    results = results or runs / RESULTS
    folder = report or results.parent / "report"
    if report is not None:
        Destinations((str(results),), overwrite).check(folder / "report.html", folder / "report.md")
    keys = {cell.key() for block in plan(wanted) for cell in block}
    outcome = Outcome()
    if not report_only:
        with progress_bars() as bars:
            outcome = compare(wanted, results, workspace / "cache", bars)
    with opened(results) as store:
        tables = store.tables(keys)
    if not tables.trials:
        raise UsageError(f"results: {results} has none of the trials that were asked for; want them tried first")
    try:
        files = _report(tables, f"{len(tables.trials)} trials in {results.name}", all_, folder)
    except OSError as error:
        raise UsageError(
            f"report: {folder}: cannot be written: {error.strerror}; want a folder. The results are in {results}: "
            "--report-only reports them"
        ) from None
    if as_json:
        emit_json(
            {"outcome": outcome.counts, "kept": outcome.kept, "files": list(map(str, files))}
            | {name: list(getattr(tables, name)) for name in NAMES}
        )
        return
    _show(tables, {name: load(SCENARIOS, name, "scenario").SUCCESS.title for name in tables.values("scenario")})
    counts = ", ".join(f"{number} {status}" for status, number in sorted(outcome.counts.items()))
    done = f"{len(tables.trials)} reported" if report_only else f"{counts or 'nothing new'}; {outcome.kept} kept"
    say(f"{done}. results: {results}; report: {files[0]}")


def _report(tables: "Tables", origin: str, entries: bool, folder: Path) -> list[Path]:
    """Write the report of what was asked for; with the entries of the inventory where all of it was."""
    from statfed.lab.compare.report import write_report
    from statfed.lab.recommend import Measurements
    from statfed.lab.recommend.sections import sections

    tried = list(dict.fromkeys(str(row["scenario"]) for row in tables.trials))
    found = {name: load(SCENARIOS, name, "scenario") for name in (sorted(modules(SCENARIOS)) if entries else tried)}
    return write_report(
        tables,
        {name: module.ABOUT for name, module in found.items()},
        folder,
        sections=sections(tried, Measurements(tables.trials, origin)),
        measures={name: found[name].SUCCESS.title for name in tried},
    )


def _show(tables: "Tables", measures: Mapping[str, str]) -> None:
    """For each scenario what came out, by release level and protection; below it what did not apply or failed."""
    overhead = {row["key"]: row["value"] for row in tables.measures if row["name"] == "overhead"}
    for name in dict.fromkeys(str(row["scenario"]) for row in tables.trials):
        mine = [row for row in tables.trials if row["scenario"] == name]
        protections = sorted({str(row["protection"]) for row in mine})
        done = [row for row in mine if row["status"] == "done"]
        limit = f", at most {done[0]['tolerance']:g}" if done else ""
        out.print(f"[bold]{name}[/bold]: {escape(measures[name])}{limit}", highlight=False)
        broken = [one.replace("-", "-\n") for one in protections]  # where a narrow screen may break it
        rows = table("", "level", "epsilon", *broken, numbers=("epsilon",))
        levels = list(dict.fromkeys(str(row["level"]) for row in mine))
        known = [level.id for level in load(SCENARIOS, name, "scenario").LEVELS]
        for level in sorted(levels, key=lambda one: known.index(one) if one in known else len(known)):
            here = [row for row in mine if row["level"] == level]
            spent = [row["epsilon"] for row in here if row["epsilon"] is not None]
            words = [_cell([row for row in here if row["protection"] == one], overhead) for one in protections]
            rows.add_row(level, _up(max(spent)) if spent else "", *words)
        out.print(rows, markup=False)
        alone = [row["local"] for row in done if row["local"] is not None]
        if alone:
            out.print(f"a holder alone: {sum(alone) / len(alone):.3g}; x: processor time over plain", highlight=False)
        _show_rest(mine)


def _up(epsilon: float) -> str:
    """Three digits, never less than what was spent.

    >>> _up(3.0012), _up(0.1), _up(math.inf)
    ('3.01', '0.1', 'inf')
    """
    if not math.isfinite(epsilon) or epsilon <= 0:
        return f"{epsilon:g}"
    step = Decimal(1).scaleb(Decimal(repr(epsilon)).adjusted() - 2)
    return f"{float(Decimal(repr(epsilon)).quantize(step, ROUND_CEILING)):g}"


def _cell(rows: Sequence[Mapping[str, Any]], overhead: Mapping[str, float]) -> str:
    """One technique in a few characters: mean error over seeds, whether it is small enough, cost."""
    done = [row for row in rows if row["status"] == "done"]
    if not done:
        return "failed" if any(row["status"] == "failed" for row in rows) else "-"
    reached = sum(bool(row["reached"]) for row in done)
    word = "yes" if reached == len(rows) else "no" if not reached else f"{reached} of {len(rows)}"
    error = sum(row["error"] for row in done) / len(done)
    costs = [overhead[row["key"]] for row in done if row["key"] in overhead]
    cost = sum(costs) / len(costs) if costs else 0.0
    return f"{error:.2g} {word}" + (f" x{cost:,.0f}" if cost >= 100 else f" x{cost:.2g}" if costs else "")


def _show_rest(rows: Sequence[Mapping[str, Any]]) -> None:
    for status in ("not-applicable", "failed"):
        reasons: dict[str, list[str]] = {}
        for row in rows:
            if row["status"] == status:
                reasons.setdefault(row["reason"], []).append(f"{row['protection']}, {row['level']}")
        for reason, techniques in reasons.items():
            said = "; ".join(dict.fromkeys(techniques))
            out.print(f"{status}: {said}: {reason}", markup=False, highlight=False)
