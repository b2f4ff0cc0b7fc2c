"""`statfed synth`: synthetic data from use to file, and what it is worth and risks."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from statfed.cli import _folding
from statfed.cli._output import Json, Overwrite, ReportingGroup, emit_json, out, progress_bars, say, table
from statfed.cli._study import read_holders, read_privacy, read_protection
from statfed.core.errors import UsageError
from statfed.core.outputs import Destinations
from statfed.core.section import apply_override

if TYPE_CHECKING:
    from statfed.core.synthetic.coded import Coded
    from statfed.core.synthetic.evaluation import Evaluation
    from statfed.core.synthetic.guide import Limit, Use
    from statfed.federation.synthetic import Synthesizer

app = typer.Typer(
    cls=ReportingGroup,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Make synthetic data, and measure what they are worth and what they risk.\n\n"
    "Start with [bold]statfed synth guide --use testing-analysis[/bold]: what suits a use, and why.",
)
app.command("fold")(_folding.fold)
app.command("unfold")(_folding.unfold)
_FORMS = (".parquet", ".csv")
_SHOWN = 60  # measures on the screen
Holder = Annotated[
    list[str] | None,
    typer.Option("--holder", metavar="NAME=SOURCE", help="One holder's data. Repeat.", show_default=False),
]
Book = Annotated[str | None, typer.Option("--codebook", metavar="FILE", help="Codebook: types, bounds, categories.")]
Seed = Annotated[int | None, typer.Option("--seed", metavar="NUMBER", help="Everything random follows from it.")]


@app.command("guide")
def show_guide(
    use: Annotated[
        str | None, typer.Option("--use", metavar="NAME", help="Show one use: methods, measures, limits.")
    ] = None,
    method: Annotated[str | None, typer.Option("--method", metavar="NAME", help="Show one method.")] = None,
    measure: Annotated[str | None, typer.Option("--measure", metavar="NAME", help="Show one measure.")] = None,
    as_json: Json = False,
) -> None:
    """Which method suits which use, how it is measured, and why.

    [bold]Examples[/bold]

    statfed synth guide

    statfed synth guide --use public-release
    """
    from statfed.core.names import one_of
    from statfed.core.synthetic.guide import guide

    known = guide()
    asked = {"--use": use, "--method": method, "--measure": measure}
    given = [f"{option} {name}" for option, name in asked.items() if name is not None]
    if len(given) > 1:
        raise UsageError(f"guide: got {' and '.join(given)}; want one of {', '.join(asked)}")
    methods = {one.id: one for one in known.methods}
    if method is not None and method not in methods:
        raise UsageError(f"--method: got {method!r}; want {one_of(methods, method)}")
    shown_use = None if use is None else known.use(use)
    shown_measure = None if measure is None else known.measure(measure)
    if as_json:
        parts: dict[str, object] = {}
        if shown_use is not None:
            parts["uses"] = (shown_use,)
        if method is not None:
            parts["methods"] = (methods[method],)
        if shown_measure is not None:
            parts["measures"] = (shown_measure,)
        emit_json(known.model_copy(update=parts).model_dump(mode="json"))
    elif shown_use is not None:
        _show_use(shown_use)
    elif method is not None:
        _facts(methods[method].title, methods[method].model_dump())
    elif shown_measure is not None:
        _facts(shown_measure.title, shown_measure.model_dump())
    else:
        uses = table("Uses (statfed synth guide --use NAME)", "use", "what", "methods that suit it")
        for one in known.uses:
            uses.add_row(one.id, one.what, ", ".join(one.methods))
        methods_ = table("Methods (--method NAME)", "method", "built", "what it does", "private")
        for entry in known.methods:
            methods_.add_row(entry.id, "yes" if entry.built else "no", entry.idea, entry.private)
        measures = table("Measures (--measure NAME)", "measure", "of", "what it says")
        for figure in known.measures:
            measures.add_row(figure.id, figure.kind, figure.reads)
        for shown in (uses, methods_, measures):
            out.print(shown, markup=False)
        say(known.challenge)


def _show_use(use: "Use") -> None:
    from statfed.core.synthetic.guide import guide

    known = guide()
    methods = {one.id: one for one in known.methods}
    out.print(f"{use.title}: {use.what}.", markup=False, highlight=False)
    out.print(f"It needs {use.needs}. Risk: {use.risk}.", markup=False, highlight=False)
    rows = table("Methods, the first choice first", "method", "suits", "when", "when not")
    for name in (*use.methods, *use.unsuitable):
        one = methods[name]
        suits = "yes" if name in use.methods else "no"
        rows.add_row(name, suits if one.built else f"{suits} (not built)", one.when, one.when_not)
    out.print(rows, markup=False)
    out.print(use.why, markup=False, highlight=False)
    limits = table("Limits: conventions, each can be changed (evaluate --limits)", "measure", "limit", "reason")
    for limit in use.limits:
        limits.add_row(limit.measure, str(limit), limit.reason)
    out.print(limits, markup=False)
    say(known.challenge)


def _facts(title: str, told: dict[str, Any]) -> None:
    rows = table(title, "", "")
    for key, value in told.items():
        rows.add_row(key.replace("_", " "), "yes" if value is True else "no" if value is False else str(value))
    out.print(rows, markup=False)


@app.command("fit")
def fit(
    data: Annotated[str | None, typer.Argument(help="Your own file; or give --holder.", show_default=False)] = None,
    output: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="Model file (JSON).")] = Path(
        "model.json"
    ),
    method: Annotated[str, typer.Option("--method", metavar="NAME", help="Method (statfed synth guide).")] = "aim",
    holder: Holder = None,
    codebook: Book = None,
    epsilon: Annotated[
        float | None, typer.Option("--epsilon", metavar="NUMBER", help="Short for --privacy epsilon=...")
    ] = None,
    privacy: Annotated[
        str | None, typer.Option("--privacy", metavar="TEXT", help="As of statfed analyse: epsilon=1,unit=person,...")
    ] = None,
    protect: Annotated[
        str, typer.Option("--protect", metavar="NAME", help="Protection (statfed protections).")
    ] = "plain",
    protect_option: Annotated[
        list[str] | None, typer.Option("--protect-option", metavar="KEY=VALUE", show_default=False)
    ] = None,
    disclosure: Annotated[str, typer.Option("--disclosure", help="Rules of what is asked: none or standard.")] = "none",
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="An option of the method. Repeat.", show_default=False),
    ] = None,
    engine: Annotated[str, typer.Option("--engine", help="Where holders run: inprocess or processes.")] = "inprocess",
    workspace: Annotated[
        Path | None, typer.Option(help="Where simulated holders keep their ledgers; else new ones.")
    ] = None,
    seed: Seed = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Fit a model of synthetic data: to your own file, or to several holders' data without pooling them.

    Holders' data are only asked about, under their policies, ledgers and the protection; what is learnt stands in
    clear in the model file.

    [bold]Examples[/bold]

    statfed synth fit people.parquet --codebook people.codebook.toml --method aim --epsilon 1 -o model.json

    statfed synth fit --holder a=a.parquet --holder b=b.parquet --holder c=c.parquet --codebook people.codebook.toml
    --method aim --privacy shared:epsilon=1 --protect secure-aggregation -o model.json
    """
    from statfed.federation import Federation
    from statfed.federation.synthetic import fit as fitted

    if (data is None) == (not holder):
        raise UsageError("data: got a file and holders, or neither; want a file, or --holder NAME=SOURCE")
    if epsilon is not None and privacy is not None:
        raise UsageError("--epsilon, --privacy: got both; want one of them")
    sources = read_holders(holder or [f"data={data}"])
    to = Destinations((*sources.values(), *filter(None, [codebook])), overwrite)
    to.check(output)
    options: dict[str, Any] = {}
    for text in change or []:
        apply_override(options, text, "--set")
    spent = read_privacy(privacy) if privacy else None if epsilon is None else {"epsilon": epsilon}
    with progress_bars() as bars:
        federation: Federation = Federation(
            sources,
            codebook=codebook,
            protection=read_protection(protect, protect_option or [], None),
            disclosure="standard" if disclosure == "standard" else "none",
            engine="processes" if engine == "processes" else "inprocess",
            workspace=workspace,
            seed=seed,
            progress=bars,
        )
        with federation:
            model = fitted(federation, method, options, spent)
    _save(model, output, to)
    if as_json:
        emit_json({key: value for key, value in model.to_dict().items() if key != "model"} | {"file": str(output)})
    else:
        out.print(f"{model.summary()}: {output}", markup=False, highlight=False)
        for note in model.fitted.origin.get("survey", ()):
            say(note, "yellow")
        say(f"Draw records: statfed synth sample {output} -n 10000 -o synthetic.parquet")


def _save(model: "Synthesizer", output: Path, to: Destinations) -> None:
    with to.writing(output) as draft:
        model.save(draft)


@app.command("sample")
def sample(
    model: Annotated[Path, typer.Argument(help="What `statfed synth fit` wrote.")],
    count: Annotated[int, typer.Option("-n", "--records", metavar="NUMBER", help="Records to draw.")] = 10_000,
    output: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="Parquet or CSV file.")] = Path(
        "synthetic.parquet"
    ),
    seed: Seed = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Draw records from a model, on this machine alone. A Parquet file says that its records are synthetic.

    [bold]Example[/bold]

    statfed synth sample model.json -n 10000 -o synthetic.parquet
    """
    from statfed.federation.export import spreadsheet
    from statfed.federation.synthetic import load_synthesizer

    if output.suffix not in _FORMS:
        raise UsageError(f"--out: got {output.name}; want a file ending in {' or '.join(_FORMS)}")
    to = Destinations((str(model),), overwrite)
    to.check(output)
    maker = load_synthesizer(model)
    found = maker.sample(count, seed)
    with to.writing(output) as draft:
        if output.suffix == ".csv":
            spreadsheet(found, draft)
        else:
            maker.write_parquet(found, draft)
    if as_json:
        emit_json({"file": str(output), "records": len(found), "columns": list(found.columns)})
    else:
        out.print(f"{len(found):,} synthetic records: {output}", markup=False, highlight=False)


@app.command("check")
def check_file(
    file: Annotated[Path, typer.Argument(help="Synthetic records that are to be given away: Parquet or CSV.")],
    codebook: Annotated[Path, typer.Option("--codebook", metavar="FILE", help="Codebook that is public.")],
    model: Annotated[
        Path | None, typer.Option("--model", metavar="FILE", help="Model that they were drawn from.")
    ] = None,
    columns: Annotated[str, typer.Option("--columns", metavar="COLUMNS", help="All that may be in it.")] = "",
    decimals: Annotated[
        int | None, typer.Option("--decimals", min=0, max=12, metavar="NUMBER", help="Most decimals of a number.")
    ] = None,
    original_records: Annotated[
        int | None, typer.Option("--original-records", min=1, metavar="NUMBER", help="Records of the original.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a file of low fidelity (dummy records, records from tables) before it is given away. No clearance.

    Exit code 2 where a check fails, as for data that do not fit. What it tells of persons is measured by
    [bold]statfed synth evaluate[/bold].

    [bold]Example[/bold]

    statfed synth check synthetic.parquet --codebook c.toml --model model.json --decimals 2 --original-records 48211
    """
    from statfed.core.codebook import load_codebook
    from statfed.federation import lowfidelity
    from statfed.federation.synthetic import load_synthesizer

    maker = None if model is None else load_synthesizer(model)
    given = lowfidelity.Given(load_codebook(codebook), maker, _listed(columns), decimals, original_records)
    found = lowfidelity.check(file, given)
    if as_json:
        emit_json(lowfidelity.to_dict(file, found))
    else:
        rows = table("Checks before release: passing them is no clearance", "check", "kept", "asks", "found")
        for one in found:
            rows.add_row(one.name, {True: "yes", False: "no", None: "look"}[one.kept], one.asks, one.found)
        out.print(rows, markup=False)
    if not lowfidelity.passed(found):
        raise typer.Exit(UsageError.exit_code)


@app.command("evaluate")
def evaluate(
    synthetic: Annotated[str, typer.Argument(help="Synthetic records: Parquet or CSV.")],
    codebook: Annotated[Path, typer.Option("--codebook", metavar="FILE", help="Codebook of both.")],
    original: Annotated[
        str | None,
        typer.Option("--original", metavar="FILE", help="The records that they were made from; or --holder."),
    ] = None,
    holder: Holder = None,
    apart: Annotated[
        str,
        typer.Option(
            "--apart", metavar="TEXT", help="Holders' records that they were not made from, as 'part = kept'."
        ),
    ] = "",
    privacy: Annotated[
        str | None, typer.Option("--privacy", metavar="TEXT", help="Of each question to holders.")
    ] = None,
    protect: Annotated[str, typer.Option("--protect", metavar="NAME", help="Protection of holders' sums.")] = "plain",
    fresh: Annotated[
        str | None,
        typer.Option("--fresh", metavar="FILE", help="Records of the same population, kept apart before the fit."),
    ] = None,
    population: Annotated[
        bool,
        typer.Option("--population", help="The original is a whole population (a register, a census): no fresh ones."),
    ] = False,
    use: Annotated[
        str, typer.Option("--use", metavar="NAME", help="What for (statfed synth guide).")
    ] = "testing-analysis",
    keys: Annotated[
        str, typer.Option("--keys", metavar="COLUMNS", help="What an attacker knows, as age,sex,region.")
    ] = "",
    secrets: Annotated[str, typer.Option("--secrets", metavar="COLUMNS", help="What it would like to know.")] = "",
    target: Annotated[str, typer.Option("--target", metavar="COLUMN", help="Target of a model trained on it.")] = "",
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", metavar="TEXT", help="A model to compare, as 'ols income ~ age'. Repeat.", show_default=False
        ),
    ] = None,
    limits: Annotated[
        Path | None, typer.Option("--limits", metavar="FILE", help="TOML file of limits in place of the guide's.")
    ] = None,
    attempts: Annotated[int, typer.Option("--attempts", metavar="NUMBER", help="Attempts of each attack.")] = 1000,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="Page (.html), document (.json) or figures (.parquet, .csv)."),
    ] = None,
    confidential: Annotated[
        bool,
        typer.Option("--confidential", help="Draw distributions of the original too: rounded, and not for everybody."),
    ] = False,
    seed: Annotated[int, typer.Option("--seed", metavar="NUMBER", help="Attacks and draws follow from it.")] = 1,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Measure what synthetic records are worth and what they risk, for a use; never a clearance.

    Risks are read against fresh records of the same population (--fresh): without them what was learnt of persons
    cannot be told from what is true of everybody. A whole population has none (--population): then shares of the
    persons themselves are told, and what needs fresh records is left out.

    [bold]Example[/bold]

    statfed synth evaluate synthetic.parquet --original data.parquet --fresh apart.parquet --codebook c.toml
    --use public-release --keys age,sex,region --secrets income -o report.html

    statfed synth evaluate synthetic.parquet --holder a=a.parquet --holder b=b.parquet --apart 'part = kept'
    --codebook c.toml --use testing-analysis
    """
    import numpy as np

    from statfed.core.codebook import load_codebook
    from statfed.core.synthetic.details import details
    from statfed.core.synthetic.evaluation import Asked
    from statfed.core.synthetic.evaluation import evaluate as measure
    from statfed.federation import evaluation
    from statfed.federation.synthetic import own_table

    if not 20 <= attempts <= 1_000_000:
        raise UsageError(f"--attempts: got {attempts}; want 20 to 1,000,000")
    if (original is None) == (not holder):
        raise UsageError("original: got a file and holders, or neither; want --original FILE, or --holder NAME=SOURCE")
    sources = read_holders(holder or [f"original={original}"])
    inputs = (
        synthetic,
        *sources.values(),
        str(codebook),
        *filter(None, [fresh]),
        *filter(None, [limits and str(limits)]),
    )
    to = Destinations(tuple(str(one) for one in inputs), overwrite)
    to.check(output)
    if output is not None and output.suffix not in (".html", ".json", ".parquet", ".csv"):
        raise UsageError(f"--out: got {output.name}; want a file ending in .html, .json, .parquet or .csv")
    if confidential and (original is None or output is None or output.suffix != ".html"):
        raise UsageError("--confidential: got it without --original and a page; want -o NAME.html of records here")
    book, changed, told = load_codebook(codebook), _limits(limits), None
    asked = Asked(use, _listed(keys), _listed(secrets), target, attempts, population=population)
    with progress_bars() as bars:
        if original is None:
            if fresh is not None or target:
                raise UsageError("--fresh, --target: got one with --holder; want --apart, a condition on their records")
            found = evaluation.of_holders(
                sources,
                synthetic,
                book,
                asked,
                apart=apart,
                models=tuple(model or ()),
                privacy=read_privacy(privacy) if privacy else None,
                protection=protect,
                limits=changed,
                seed=seed,
                progress=bars,
            )
        else:
            if apart or privacy or protect != "plain":
                raise UsageError("--apart, --privacy, --protect: got one with --original; want them with --holder")
            tables: list[Coded | None] = []
            for place, source in enumerate((original, synthetic, fresh)):
                bars("read", place, 3)
                what = ("original", "synthetic", "fresh")[place]
                tables.append(None if source is None else own_table(source, book, what))
            bars("read", 3, 3)
            real, made, kept = tables
            if real is None or made is None:
                raise UsageError("data: got none; want the original and the synthetic records")
            more = evaluation.coefficients_of(sources, {"synthetic": synthetic}, book, tuple(model or ()))
            found = measure(real, made, kept, asked, np.random.default_rng(seed), bars, more, changed)
            if output is not None and output.suffix == ".html":
                told = details(real, made, confidential=confidential)
    about = {
        "original": ", ".join(sources) if holder else Path(str(original)).name,
        "synthetic": Path(synthetic).name,
        "seed": seed,
    }
    document = evaluation.to_dict(found, about)
    if output is not None:
        if output.suffix == ".html":
            to.write_text(output, evaluation.render(found, about, told))
        else:
            _written(output, to, found, document)
    if as_json:
        emit_json(document)
    else:
        show_evaluation(found)
        if output is not None:
            say(f"report: {output}")


def _listed(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _limits(path: Path | None) -> "tuple[Limit, ...]":
    from statfed.core.beside import read_as
    from statfed.core.synthetic.guide import Limits

    return () if path is None else read_as(path, Limits, "measure, figure, most or least, and reason").limits


def _written(output: Path, to: Destinations, found: "Evaluation", document: dict[str, Any]) -> None:
    import pandas as pd

    from statfed.federation import evaluation
    from statfed.federation.export import spreadsheet

    if output.suffix == ".json":
        to.write_text(output, json.dumps(document, indent=2, allow_nan=False) + "\n")
    else:
        frame = pd.DataFrame([dict(row) for row in evaluation.rows(found)])
        with to.writing(output) as draft:
            if output.suffix == ".csv":
                spreadsheet(frame, draft)
            else:
                frame.to_parquet(draft, index=False)


def show_evaluation(found: "Evaluation") -> None:
    """The verdict first, then the limits, then every figure."""
    from statfed.core.synthetic.guide import guide

    out.print(found.sentence, markup=False, highlight=False)
    for one in found.judged:
        mark = {True: "kept", False: "broken", None: "open"}[one.kept]
        out.print(f"- {mark}: {one}", markup=False, highlight=False)
    for kind in ("utility", "risk"):
        rows = table(
            kind.capitalize(),
            "measure",
            "about",
            "figure",
            "95 % interval",
            "fresh",
            "excess",
            numbers=("figure", "fresh", "excess"),
        )
        for row in [one for one in found.measured if one.kind == kind][:_SHOWN]:
            between = "" if row.low is None or row.high is None else f"{row.low:.3g} to {row.high:.3g}"
            rows.add_row(
                guide().measure(row.name).title,
                row.about,
                f"{row.value:.4g}",
                between,
                "" if row.baseline is None else f"{row.baseline:.4g}",
                "" if row.excess is None else f"{row.excess:.4g}",
            )
        out.print(rows, markup=False)
    for name, reason in found.left_out:
        say(f"not measured: {guide().measure(name).title.lower()}: {reason}")
    for note in found.notes:
        say(note, "yellow")
    say(guide().challenge)
