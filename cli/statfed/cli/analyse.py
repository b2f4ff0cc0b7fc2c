"""`statfed analyse`: one command per analysis, made from the analysis's own options."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
import typer
from rich import box
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup, TyperOption

from statfed.cli._fields import option_of, value_of
from statfed.cli._output import emit_json, out, progress_bars, remember_json, say, show_learns, table
from statfed.core.discovery import load, modules
from statfed.core.errors import UsageError
from statfed.core.method import PACKAGE, Analysis
from statfed.core.result import Result, Row
from statfed.core.section import apply_override
from statfed.core.terms import Placement

if TYPE_CHECKING:
    from statfed.federation import Answer, DryRun

COMMON = "Holders and privacy"
OUTPUT = "Output"
SHOWN_ROWS = 60


class Analyses(TyperGroup):
    """Finds its commands by discovery, and imports only the one that is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return sorted(modules(PACKAGE))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        return _command(cmd_name) if cmd_name in modules(PACKAGE) else None


app = typer.Typer(
    cls=Analyses,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Analyse tables that stay with their holders.\n\n"
    "statfed analyse describe --columns income,age --holder a=a.parquet --holder b=b.csv\n\n"
    "statfed analyse table --rows region --columns sex --holder a=a.csv --holder b=b.csv\n\n"
    "statfed analyse glm --formula 'employed ~ age + C(region)' --family binomial --holder a=a.csv --holder b=b.csv",
)


@app.callback()
def _group() -> None:
    pass


def _command(name: str) -> click.Command:
    analysis: Analysis = load(PACKAGE, name, "analysis")
    fields = analysis.Options.model_fields
    own = [option_of(key, field) for key, field in fields.items()]

    def run(**values: Any) -> None:
        given = {key: values.pop(f"option_{key}") for key in fields}
        options = {key: value_of(key, fields[key], text) for key, text in given.items() if text is not None}
        _run(name, options, **values)

    return TyperCommand(
        name,
        callback=run,
        params=[*own, *_common(), *_outputs()],
        help=f"{analysis.TITLE}.\n\nIn the holder's database: {analysis.PUSHES_DOWN}.",
        short_help=analysis.TITLE,
        rich_markup_mode="rich",
        rich_help_panel=analysis.GROUP,
    )


def _common() -> list[TyperOption]:
    def option(*names: str, help: str, **more: Any) -> TyperOption:
        return TyperOption(param_decls=list(names), help=help, rich_help_panel=COMMON, **more)

    return [
        option(
            "holder",
            "--holder",
            multiple=True,
            required=True,
            metavar="NAME=SOURCE",
            help="One holder's data: csv, parquet, arrow, or a URL such as duckdb:///c.db?table=people. Repeat.",
        ),
        option("codebook", "--codebook", metavar="FILE", help="Codebook; drafted from the data when left out."),
        option("where", "--where", multiple=True, metavar="TEXT", help="Only records with e.g. 'age >= 18'. Repeat."),
        option(
            "privacy",
            "--privacy",
            metavar="TEXT",
            help="Differential privacy: epsilon=1[,delta=1e-6][,unit=person,max-records=3][,mechanism=...]; "
            "or margin=50[,part=count], the margin of error that the noise may add to a total. In front local: (each "
            "holder adds noise), central: (a trusted coordinator does) or shared: (holders together, [,colluders=1]).",
        ),
        option(
            "exact",
            "--exact",
            is_flag=True,
            help="The result has to be exact, an official figure: noise is refused, and what does instead is named.",
        ),
        option("protect", "--protect", default="plain", metavar="NAME", help="Protection (statfed protections)."),
        option(
            "protect_option",
            "--protect-option",
            multiple=True,
            metavar="KEY=VALUE",
            help="Set one option of the protection (statfed protections NAME). Repeat.",
        ),
        option(
            "minimum_holders",
            "--minimum-holders",
            type=int,
            metavar="NUMBER",
            help="Fewest holders of a sum, where the protection survives dropout (all).",
        ),
        option(
            "disclosure",
            "--disclosure",
            type=click.Choice(["none", "standard"]),
            default="none",
            help="Rules of the release. A simulation on your own files needs none; a release does.",
        ),
        option(
            "rule",
            "--rule",
            multiple=True,
            metavar="KEY=VALUE",
            help="Set one rule, e.g. minimum_frequency=3 or method=controlled-round; switches the standard ones on.",
        ),
        option("engine", "--engine", type=click.Choice(["inprocess", "processes", "ray"]), help="Where holders run."),
        option("seed", "--seed", type=int, metavar="NUMBER", help="Simulation: the noise follows from it."),
        option(
            "budget", "--budget", type=float, metavar="NUMBER", help="Lifetime epsilon of every simulated holder [20]."
        ),
        option("fresh", "--fresh", is_flag=True, help="New holders with unspent budgets, for this run only."),
        option(
            "workspace",
            "--workspace",
            metavar="DIR",
            default=".statfed",
            envvar="STATFED_WORKSPACE",
            help="Where simulated holders keep their ledgers between runs.",
        ),
        option("dry_run", "--dry-run", is_flag=True, help="Show what it would cost and how exact it would be; stop."),
    ]


def _outputs() -> list[TyperOption]:
    def option(*names: str, help: str, **more: Any) -> TyperOption:
        return TyperOption(param_decls=list(names), help=help, rich_help_panel=OUTPUT, **more)

    return [
        option(
            "as_json",
            "--json",
            is_flag=True,
            callback=remember_json,
            help="One JSON document on stdout (docs/json.md); messages on stderr.",
        ),
        option("csv", "--csv", metavar="FILE", help="Write the main table (others beside it) as CSV."),
        option("parquet", "--parquet", metavar="FILE", help="The same as Parquet."),
        option("html", "--html", metavar="FILE", help="Write a self-contained report."),
    ]


def _run(
    analysis: str,
    options: dict[str, Any],
    *,
    holder: tuple[str, ...],
    codebook: str | None,
    where: tuple[str, ...],
    privacy: str | None,
    exact: bool,
    protect: str,
    protect_option: tuple[str, ...],
    minimum_holders: int | None,
    disclosure: str,
    rule: tuple[str, ...],
    engine: str | None,
    seed: int | None,
    budget: float | None,
    fresh: bool,
    workspace: str,
    dry_run: bool,
    as_json: bool,
    csv: str | None,
    parquet: str | None,
    html: str | None,
) -> None:
    from statfed.federation import DryRun, make_analysis_study, run_analysis

    rules: dict[str, Any] = {}
    for text in rule:
        if "=" not in text:
            raise UsageError(f"--rule: got {text!r}; want key=value, for example minimum_frequency=3")
        apply_override(rules, text)
    study = make_analysis_study(
        {
            "analysis": analysis,
            "options": options,
            "holders": read_holders(holder),
            "codebook": codebook,
            "where": where,
            "privacy": read_privacy(privacy) if privacy else None,
            "protection": read_protection(protect, protect_option, minimum_holders),
            "exact": bool(exact),
            "disclosure": rules or disclosure,
            "engine": engine or "inprocess",
            "seed": seed,
            "simulation": {} if budget is None else {"lifetime_epsilon": budget},
        },
        f"statfed analyse {analysis}",
    )
    try:
        with progress_bars() as bars:
            answer = run_analysis(
                study,
                workspace=None if fresh else Path(workspace),
                dry_run=dry_run,
                progress=bars,
                on_codebook=show_drafted,
            )
    except DryRun as stop:
        show_dry_run(stop, as_json)
        return
    write_outputs(answer, csv, parquet, html)
    if as_json:
        emit_json(answer.to_dict())
    else:
        show_answer(answer)


def read_holders(texts: tuple[str, ...]) -> dict[str, str]:
    """`name=source`, or a source alone, which is then named after its file."""
    holders: dict[str, str] = {}
    for text in texts:
        name, sign, source = text.partition("=")
        if not sign or "/" in name or "?" in name:
            name, source = Path(text.partition("?")[0]).stem.lower().replace("_", "-"), text
        if name in holders:
            raise UsageError(f"--holder: got {name} twice; want NAME=SOURCE with a name of its own for each")
        holders[name] = source
    return holders


def read_protection(name: str, options: Sequence[str], minimum_holders: int | None) -> dict[str, Any]:
    """The `[protection]` table of command-line options."""
    read: dict[str, Any] = {}
    for text in options:
        if not text.partition("=")[2]:
            raise UsageError(f"--protect-option: got {text!r}; want key=value (statfed protections {name})")
        apply_override(read, text)
    return {"name": name, "minimum_holders": minimum_holders, "options": read}


_PRIVACY_KEYS = {"max_records": "max_records_per_unit", "margin": "margin_of_error"}


def read_privacy(text: str) -> dict[str, Any]:
    """`epsilon=1,delta=1e-6,unit=person,max-records=3`, or `margin=50,part=count`, as the fields of a section.

    Who adds the noise stands in front: `central:epsilon=1`, `shared:epsilon=1,colluders=2`.
    """
    fields = {}
    where, sign, rest = text.partition(":")
    if sign:
        if where.strip() not in get_args(Placement):
            raise UsageError(f"--privacy: got {where!r} before the colon; want {', '.join(get_args(Placement))}")
        fields["noise"], text = where.strip(), rest
    for part in text.split(","):
        key, sign, value = part.partition("=")
        if not sign:
            raise UsageError(f"--privacy: got {part!r}; want key=value, for example epsilon=1,delta=1e-6")
        name = key.strip().replace("-", "_")
        fields[_PRIVACY_KEYS.get(name, name)] = value.strip()
    return fields


def show_drafted(codebook: Any) -> None:
    """A drafted codebook, on stderr."""
    from statfed.client.data.drafting import to_toml

    say("codebook: none given; drafted from the union of the holders' own drafts (a simulation may):", "yellow")
    say(to_toml(codebook))


def show_dry_run(stop: "DryRun", as_json: bool) -> None:
    """What a run would cost, and how exact it would be, before anything is spent."""
    if as_json:
        emit_json(
            {
                "dry_run": True,
                "privacy": stop.privacy.model_dump(mode="json") if stop.privacy else None,
                "admissions": [a.model_dump(mode="json") for a in stop.admissions.values()],
                "margins": [{"part": part, "smallest": a, "largest": b} for part, (a, b) in stop.margins.items()],
            }
        )
        return
    rows = table("Dry run: nothing was spent", "holder", "epsilon", "delta", numbers=("epsilon", "delta"))
    for admission in stop.admissions.values():
        rows.add_row(admission.holder, *("" if v is None else f"{v:.4g}" for v in (admission.epsilon, admission.delta)))
    out.print(rows)
    if stop.margins:
        columns = ("noisy sum", "smallest", "largest")
        errors = table("Noise in the totals: half-width of 95 %", *columns, numbers=columns[1:])
        for part, ends in stop.margins.items():
            errors.add_row(part, *(f"{end:,.5g}" for end in ends))
        out.print(errors)


def write_outputs(answer: "Answer", csv: str | None, parquet: str | None, html: str | None) -> None:
    """The files that the user asked for."""
    from statfed.federation import export

    if csv:
        export.write_csv(answer.result, Path(csv))
    if parquet:
        export.write_parquet(answer.result, Path(parquet))
    if html:
        export.write_html(answer, Path(html))


def show_answer(answer: "Answer") -> None:
    """A finished run on the terminal."""
    show_tables(answer.result, answer.run)
    _show_protection(answer)


def show_tables(result: Result, run: str) -> None:
    """The tables, facts and notes of a result."""
    out.print(f"[bold]{escape(result.title)}[/bold]  ({run})", highlight=False)
    for name, rows in result.tables.items():
        if not rows:
            continue
        keys = _shown(rows)
        numbers = tuple(key for key in keys if all(_is_number(row.get(key)) for row in rows))
        heads = [key.replace("_", " ") for key in keys]
        shown = table(name.replace("_", " "), *heads, numbers=tuple(key.replace("_", " ") for key in numbers))
        shown.box, shown.pad_edge = box.SIMPLE_HEAD, False
        for column, key in zip(shown.columns, keys, strict=True):
            column.no_wrap = column.justify == "right"
            longest = max(len(text) for text in (*key.split("_"), *(_cell(row.get(key)) for row in rows)))
            column.min_width = 0 if column.no_wrap else min(12, longest)
        for row in rows[:SHOWN_ROWS]:
            shown.add_row(*(_cell(row.get(key), key in result.by) for key in keys))
        out.print(shown, markup=False)
        if len(rows) > SHOWN_ROWS:
            out.print(f"... {len(rows) - SHOWN_ROWS} more rows; --csv or --json has them all", highlight=False)
    facts = ", ".join(
        f"{key.replace('_', ' ')} {_cell(value)}" for key, value in result.facts.items() if value is not None
    )
    if facts:
        out.print(facts, highlight=False, markup=False)
    for note in result.notes:
        out.print(f"note: {note}", highlight=False, markup=False)


def _show_protection(answer: "Answer") -> None:
    record = answer.result.disclosure
    rules = ", ".join(record.get("rules", ())) or "none asked for; --disclosure standard applies them"
    rules += f"; method {record['method']}" if record.get("method") and record.get("treated") else ""
    treated = ", ".join(f"{count} {kind}" for kind, count in record.get("treated", {}).items() if count) or "none"
    held = ", ".join(sorted({rule for one in answer.sums for rule in one.rules})) or "none set in the policies"
    out.print(f"\nrelease rules: {rules}; treated cells: {treated}\nholders' rules: {held}", highlight=False)
    if answer.query.privacy:
        spent = table("Privacy, composed per holder", "holder", "epsilon", "history", "filter", "budget")
        for closing in answer.closings.values():
            figures = (closing.study_epsilon, closing.history_epsilon, closing.filter_epsilon, closing.budget_epsilon)
            spent.add_row(closing.holder, *("" if f is None else f"{f:.4g}" for f in figures))
        out.print(spent)
    show_learns("Who learns what", answer.learns)
    from statfed.federation.report.formats import size

    asked = "1 sum" if len(answer.sums) == 1 else f"{len(answer.sums)} sums"
    moved = sum(one.bytes_down + one.bytes_up for one in answer.sums)
    out.print(
        f"protection {answer.query.protection.name}: {asked} over {len(answer.closings)} holders, "
        f"{size(moved)} moved, {answer.seconds:.2f} s",
        highlight=False,
    )


def _shown(rows: Sequence[Row]) -> list[str]:
    """Keys worth a column on the screen: not those that are empty, or say the same as another, in every row."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    columns = {key: [row.get(key) for row in rows] for key in keys}
    empty = [key for key in keys if all(value in (None, "", "released") for value in columns[key])]
    twice = [k for k in ("mean", "total") if "estimate" in columns and columns.get(k) == columns["estimate"]]
    return [key for key in keys if key not in (*empty, *twice)]


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _cell(value: object, margin: bool = False) -> str:
    if value is None:
        return "all" if margin else ""
    return f"{value:,.5g}" if isinstance(value, float) else str(value)
