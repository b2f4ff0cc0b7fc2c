"""`statfed recommend`: which technique suits a case, why, and what would have to change for another."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from statfed.cli._output import Json, Overwrite, emit_json, err, out, say, table
from statfed.cli._runs import RUNS
from statfed.core.errors import UsageError
from statfed.core.outputs import Destinations

if TYPE_CHECKING:
    from statfed.core.scenario import Case
    from statfed.lab.recommend import Answer
    from statfed.lab.recommend.answer import Flip, Ranked
    from statfed.lab.recommend.synthetic import Synthetic


def recommend(
    what: Annotated[
        str | None, typer.Argument(metavar="[CASE]", help="A case file (case.toml), or a reference scenario by name.")
    ] = None,
    case: Annotated[Path | None, typer.Option(help="A file with the case's facts (--template prints one).")] = None,
    interactive: Annotated[bool, typer.Option("--interactive", help="Ask for the facts, one after another.")] = False,
    scenario: Annotated[str | None, typer.Option(help="Take the facts of this reference scenario.")] = None,
    template: Annotated[bool, typer.Option("--template", help="Print a commented case file and stop.")] = False,
    change: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set one fact. Repeat.", show_default=False)
    ] = None,
    use: Annotated[
        str, typer.Option("--use", metavar="NAME", help="What synthetic records are for (statfed synth guide).")
    ] = "",
    results: Annotated[
        Path | None,
        typer.Option(help="Results of a comparison (runs/compare/results.duckdb if there).", envvar="STATFED_RESULTS"),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Where runs are kept.", envvar="STATFED_RUNS")] = RUNS,
    save: Annotated[Path | None, typer.Option(help="Write the case's facts to this file.")] = None,
    to: Annotated[Path | None, typer.Option("--out", help="Write the recommendation to this Markdown file.")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Rank the techniques for a case by rules over its facts and by what was measured in similar scenarios.

    Shows what hard rules exclude and why, what could not be measured, and how the shortlist changes when a single fact
    does. docs/recommend.md lists the rules.

    [bold]Examples[/bold]

    statfed recommend --template > case.toml

    statfed recommend case.toml --out recommendation.md

    statfed recommend set-intersection

    statfed recommend case.toml --set output=synthetic-data --use public-release

    statfed recommend --interactive --save case.toml

    statfed recommend --scenario time-use --set third_party=true
    """
    from statfed.cli.compare import RESULTS
    from statfed.lab.recommend import recommend as decide
    from statfed.lab.recommend.cases import template as commented
    from statfed.lab.recommend.cases import written
    from statfed.lab.recommend.evidence import measurements
    from statfed.lab.recommend.markdown import markdown

    if what is not None:
        case, scenario = _named(what, case, scenario)
    if template:
        typer.echo(commented(), nl=False)
        return
    known = runs / RESULTS
    there = results if results is not None else known if known.is_file() else None
    target = Destinations(tuple(str(one) for one in (case, there) if one is not None), overwrite)
    target.check(save, to)
    facts = _facts(case, interactive, scenario, change or [])
    if save is not None:
        _write(target, save, written(facts, comments=True), "case")
    answer = decide(facts, measurements(there), use=use)
    if to is not None:
        _write(target, to, markdown(answer), "recommendation")
    if as_json:
        emit_json(answer.model_dump(mode="json"))
    else:
        _show(answer)


def _named(what: str, case: Path | None, scenario: str | None) -> tuple[Path | None, str | None]:
    """Case file and scenario, of which the argument is one: a file where it is there or its name ends like one."""
    if case or scenario:
        raise UsageError(f"recommend: got {what} and {'--case' if case else '--scenario'}; want one case")
    path = Path(what)
    return (path, None) if path.suffix == ".toml" or path.is_file() else (None, what)


def _facts(case: Path | None, interactive: bool, scenario: str | None, changes: list[str]) -> "Case":
    """The facts, from the one source that was named."""
    from statfed.core.discovery import load
    from statfed.core.scenario import PACKAGE
    from statfed.lab.recommend.cases import make_case, read_case

    given = [
        name for name, there in (("--case", case), ("--interactive", interactive), ("--scenario", scenario)) if there
    ]
    if len(given) != 1:
        raise UsageError(
            f"recommend: got {' and '.join(given) or 'no case'}; want one of FILE, --case FILE, --interactive, "
            "--scenario NAME, --template"
        )
    if case is not None:
        return read_case(case, changes)
    if scenario is not None:
        about = load(PACKAGE, scenario, "scenario").ABOUT
        return make_case(about.case.model_dump(exclude_none=True), changes, scenario)
    return _asked(make_case({}, changes))


def _asked(start: "Case") -> "Case":
    """Ask for every fact, with `start` as the defaults; what does not fit is asked again."""
    from statfed.lab.recommend.cases import FACTS, answered, choices, make_case

    say("Enter keeps the value in brackets.")
    found = {}
    for number, fact in enumerate(FACTS, 1):
        words, default = choices(fact), getattr(start, fact)
        shown = ("yes" if default else "no") if isinstance(default, bool) else "none" if default is None else default
        info = type(start).model_fields[fact]
        say(f"\n{number}/{len(FACTS)} {info.description}{' [' + ', '.join(words) + ']' if words else ''}")
        while True:
            text = str(typer.prompt(fact, default=str(shown), err=True))
            try:
                found[fact] = answered(fact, text)
                break
            except UsageError as error:
                say(str(error), "red")
    return make_case(found)


def _write(target: Destinations, path: Path, text: str, what: str) -> None:
    target.write_text(path, text)
    say(f"{what}: {path}")


def _show(answer: "Answer") -> None:
    """The recommendation on a screen."""
    out.print(f"[bold]{escape(answer.case.title or 'Recommendation')}[/bold]", highlight=False)
    out.print(f"{escape(answer.headline)}\n", highlight=False)
    err.print(f"measurements: {answer.measurements}", highlight=False, markup=False)
    if answer.ranked:
        rows = table("Shortlist", "technique", "points", "reasons", "measured", numbers=("points",))
        rows.show_lines = True
        for kept in answer.ranked:
            more = f"\nbrought by {kept.origin}" if kept.origin else ""
            more += f"\nnot installed: {kept.install}" if kept.install else ""
            rows.add_row(kept.id, f"{kept.score:g}", _reasons(kept), _measured(kept) + more)
        out.print(rows, markup=False)
    for told in answer.synthetic:
        _show_synthetic(told, alone=len(answer.synthetic) == 1 and told.role == "records")
    for remedy in answer.remedies:
        out.print(f"[bold]would do[/bold]: {escape(remedy.text)}: {escape('; '.join(remedy.lets))}", highlight=False)
    rows = table("Excluded", "rule", "why", "techniques")
    rows.show_lines = True
    broken: dict[tuple[str, str], list[str]] = {}
    for lost in answer.rejected:
        for one in lost.exclusions:
            broken.setdefault((one.rule, one.text), []).append(lost.id)
    for (rule, text), names in broken.items():
        rows.add_row(rule, text, "\n".join(names))
    out.print(rows, markup=False)
    rows = table("Outside this software: not measured", "technique", "for this case", "published facts")
    rows.show_lines = True
    for other in answer.not_measured:
        fits = "excluded: " + "; ".join(why.text for why in other.exclusions) if other.exclusions else "might do"
        rows.add_row(other.id, fits + ("" if other.built else "; not built yet"), other.note)
    out.print(rows, markup=False)
    _show_sensitivity(answer.sensitivity, answer.indifferent)
    near = ", ".join(f"{close.scenario} ({close.distance:.2f})" for close in answer.nearest[:3])
    if near:
        out.print(f"nearest reference scenarios (distance): {near}", highlight=False, markup=False)


def _show_synthetic(told: "Synthetic", *, alone: bool) -> None:
    """Synthetic records for a use. alone: they are what is asked for, so that measures and their limits are told."""
    twin = "" if told.role == "records" else "A synthetic twin to rehearse on: "
    rows = table(f"{twin}{told.title}", "method", "assumes", "when", "when not", "stands against it here")
    rows.show_lines = True
    for one in told.methods:
        rows.add_row(one.method, one.assumes, one.when, one.when_not, one.stands_against)
    out.print(rows, markup=False)
    out.print(told.why, markup=False, highlight=False)
    if alone:
        rows = table("To be shown", "measure", "reads", "limits")
        for shown in told.measures:
            rows.add_row(shown.title, shown.reads, "; ".join(shown.limits))
        out.print(rows, markup=False)
    for command in told.commands if told.role == "records" else told.commands[:3]:
        out.print(f"  {command}", markup=False, highlight=False)
    say(told.caution)


def _show_sensitivity(flips: "tuple[Flip, ...]", indifferent: tuple[str, ...]) -> None:
    rows = table("If a fact were another", "fact", "what changes")
    for flip in flips:
        rows.add_row(f"{flip.fact} = {flip.value}", flip.text)
    if flips:
        out.print(rows, markup=False)
    if indifferent:
        text = f"other values of these change neither members nor first place: {', '.join(indifferent)}"
        out.print(text, highlight=False, markup=False)


def _reasons(one: "Ranked") -> str:
    """Reasons that count; the others are in --out and --json."""
    said = [reason for reason in one.reasons if reason.points and reason.aspect != "evidence"]
    return "\n".join(f"{reason.points:+g} {reason.text}" for reason in said)


def _measured(one: "Ranked") -> str:
    said = [reason.text for reason in one.reasons if reason.aspect == "evidence"]
    for row in one.evidence[:4]:
        error = "" if row.error is None else f": error {row.error:.2g}, tolerance {row.tolerance or 0:.2g}"
        said.append(f"{row.scenario}, {row.level}{error}")
    more = len(one.evidence) - 4
    return "\n".join(said + ([f"and {more} more (--json, --out)"] if more > 0 else []))
