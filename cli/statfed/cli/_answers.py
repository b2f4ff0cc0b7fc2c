"""Answers on the screen and as files: one assembly for every method."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from statfed.cli._output import emit_json, out, progress_bars, say, show_learns, table
from statfed.cli._runs import kept_in
from statfed.cli._study import Common, Outputs
from statfed.cli._tables import Column, rendered
from statfed.core.codebook import Codebook
from statfed.core.errors import StatfedError, UsageError
from statfed.core.outputs import Destinations
from statfed.core.result import Result, Row
from statfed.core.study import Study

if TYPE_CHECKING:
    from statfed.federation import Answer, DryRun
    from statfed.federation.trained import Trained

SHOWN_ROWS = 60
_HEADS = {"accuracy": "accuracy", "macro_f1": "macro-F1", "rmse": "RMSE", "mae": "MAE", "r2": "R2"}


def carry_out(study: Study, common: Common, outputs: Outputs, base: Path, references: bool = False) -> "Answer | None":
    """Run a study, show the answer and write what was asked for; None after a dry run.

    Destinations are looked at before anything is spent. What cannot be written after that loses nothing: the answer is
    on the screen and kept.
    """
    from statfed.federation import DryRun, Options, run_study

    to = outputs.to(study, base)
    how = Options(
        workspace=None if common.fresh else Path(common.workspace),
        runs=Path(outputs.runs) if outputs.runs else None,
        keep=kept_in(Path(common.workspace)),
        fresh=common.fresh and bool(outputs.runs),
        dry_run=common.dry_run,
        references=references,
        base=base,
    )
    try:
        with progress_bars() as bars:
            answer = run_study(study, how, progress=bars, notify=notify, on_codebook=partial(show_drafted, study))
    except DryRun as stop:
        show_dry_run(stop, outputs.as_json)
        return None
    try:
        tell(answer, outputs.as_json)
    finally:  # also where the reader of stdout has gone
        write_outputs(answer, outputs, to)
    if how.runs:
        say_where(how.runs / answer.run)
    return answer


def say_where(folder: Path) -> None:
    """Where the report of a run is, if it could be written."""
    if (folder / "report.html").exists():
        say(f"report: {folder / 'report.html'}")


def notify(text: str) -> None:
    """A warning of a run, on stderr."""
    say(f"note: {text}", "yellow")


def tell(answer: "Answer", as_json: bool) -> None:
    """The answer as the one document, or on the screen."""
    if as_json:
        emit_json(answer.to_dict())
    else:
        show_answer(answer)


def show_drafted(study: Study, codebook: Codebook) -> None:
    """A drafted codebook, on stderr; not where holders have rules: a category tells of the records that have it."""
    from statfed.client.data.drafting import to_toml

    drafted = "codebook: none given; drafted from the union of the holders' own drafts (a simulation may)"
    if study.simulation.rules == "none" and study.simulation.disclosure.silent:
        say(f"{drafted}:", "yellow")
        say(to_toml(codebook))
        return
    say(f"{drafted}; not shown, as holders with rules show no categories: write one (statfed codebook infer)", "yellow")


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
    rows = [
        {
            "holder": one.holder,
            "records": str(one.size),
            "epsilon": _figure(one.epsilon),
            "delta": _figure(one.delta),
            "steps": "" if one.steps is None else str(one.steps),
            "rate": _figure(one.sampling_rate),
            "sigma": _figure(one.noise_multiplier),
            "noise / signal": _figure(one.noise_to_signal),
        }
        for one in stop.admissions.values()
    ]
    _filled("Dry run: nothing was spent", rows)
    if stop.margins:
        columns = ("noisy sum", "smallest", "largest")
        errors = table("Noise in the totals: half-width of 95 %", *columns, numbers=columns[1:])
        for part, ends in stop.margins.items():
            errors.add_row(part, *(f"{end:,.5g}" for end in ends))
        out.print(errors)


def write_outputs(answer: "Answer", outputs: Outputs, to: Destinations, model: Path | None = None) -> None:
    """The files that the user asked for, each as far as it can be written. model: of an answer that was read back.

    Raises UsageError naming those that cannot, and how to have them later.
    """
    from statfed.federation import export
    from statfed.federation.models import copy_model, save_model

    wanted: list[tuple[str, str | None, Callable[[Path], object]]] = [
        ("--csv", outputs.csv, lambda path: export.write_csv(answer.result, path, to)),
        ("--parquet", outputs.parquet, lambda path: export.write_parquet(answer.result, path, to)),
        ("--html", outputs.html, lambda path: export.write_html(answer, path, to)),
        ("--save", outputs.model, lambda path: copy_model(model, path, to) if model else save_model(answer, path, to)),
    ]
    failed = []
    for name, path, write in wanted:
        if not path:
            continue
        try:
            write(Path(path))
        except Exception as error:  # noqa: BLE001  # the answer was paid for: the other files are written all the same
            failed.append((name, str(error) if isinstance(error, StatfedError) else f"{path}: {error}"))
        else:
            if name == "--save":
                say(f"model: {path}; statfed predict {path} DATA -o FILE")
    if failed:
        again = " ".join(f"{name} FILE" for name, _ in failed)
        told = "\n".join(text for _, text in failed)
        raise UsageError(f"{told}\nthe answer is kept: statfed runs export {answer.run} {again}")


def show_answer(answer: "Answer") -> None:
    """A finished run: what came out, what it cost each holder, who learned what, what it took."""
    if answer.synthetic:
        out.print("[bold yellow]SYNTHETIC DATA[/bold yellow]: these figures describe a generator, not people")
    out.print(f"[bold]{escape(answer.title)}[/bold]  ({answer.run})", highlight=False)
    if answer.scenario:
        out.print(answer.origin, highlight=False, markup=False)
    show_tables(answer.result)
    training = answer.training
    if training and training.comparison:
        _show_comparison(training)
    if training is None or answer.result.disclosure.get("rules") or answer.result.disclosure.get("not_evaluated"):
        _show_rules(answer)
    _show_privacy(answer)
    show_learns("Who learns what", answer.learns)
    _show_cost(answer)


def show_tables(result: Result) -> None:
    """The tables, facts and notes of a result."""
    for name, rows in result.tables.items():
        if not rows:
            continue
        places = result.places(name)
        columns = [
            Column(
                key.replace("_", " "),
                tuple(_cell(row.get(key), key in result.by) for row in rows[:SHOWN_ROWS]),
                key in places,
                all(_is_number(row.get(key)) for row in rows),
            )
            for key in _shown(rows, places)
        ]
        for part in rendered(name.replace("_", " "), columns, out):
            out.print(part, markup=False, highlight=False, soft_wrap=isinstance(part, str))
        if len(rows) > SHOWN_ROWS:
            out.print(f"... {len(rows) - SHOWN_ROWS} more rows; --csv or --json has them all", highlight=False)
    facts = ", ".join(
        f"{key.replace('_', ' ')} {_cell(value)}" for key, value in result.facts.items() if value is not None
    )
    if facts:
        out.print(facts, highlight=False, markup=False)
    for note in result.notes:
        out.print(f"note: {note}", highlight=False, markup=False)


def _show_comparison(training: "Trained") -> None:
    """Scores of the model and of what the simulator compares it with; of holders alone their mean."""
    rows = training.comparison
    figures = [key for key in rows[0] if key not in ("id", "title", "note")]
    persons = f" of {training.test_persons} persons" if training.test_persons < training.test_records else ""
    heads = tuple(_HEADS.get(key, key) for key in figures)
    lines: list[dict[str, str]] = []
    for kind, title in (("local", "Local only, mean"), ("local-dp", "Local only, same privacy, mean")):
        alone = [row for row in rows if str(row["id"]).startswith(f"{kind}/")]
        if alone:
            means = ([float(row[key] or 0.0) for row in alone] for key in figures)
            texts = (f"{sum(found) / len(found):.3f}" for found in means)
            lines.append({"model": f"{title} of {len(alone)}", **dict(zip(heads, texts, strict=True))})
    for row in rows:
        if "/" not in str(row["id"]):
            values = ("" if row[key] is None else f"{row[key]:.3f}" for key in figures)
            lines.append({"model": str(row["title"]), **dict(zip(heads, values, strict=True))})
    _filled(f"Compared on {training.test_records} held-out records{persons}", lines, words=("model",))


def _show_rules(answer: "Answer") -> None:
    record = answer.result.disclosure
    rules = ", ".join(record.get("rules", ())) or "none asked for; --disclosure standard applies them"
    rules += f"; method {record['method']}" if record.get("method") and record.get("treated") else ""
    treated = ", ".join(f"{count} {kind}" for kind, count in record.get("treated", {}).items() if count) or "none"
    noisy = answer.terms.privacy is not None and answer.terms.privacy.noise != "central"
    none = "not applied: what left has noise" if noisy else "none set in the policies"
    held = ", ".join(sorted({rule for one in answer.sums for rule in one.rules})) or none
    out.print(f"\nrelease rules: {rules}; treated: {treated}", highlight=False)
    for rule, why in record.get("not_evaluated", {}).items():
        out.print(f"not evaluated: {rule}: {why}", highlight=False, markup=False)
    out.print(f"holders' rules: {held}", highlight=False)


def _show_privacy(answer: "Answer") -> None:
    """What the run and its history cost each holder, and how many more like it there may be."""
    from statfed.federation.report import formats
    from statfed.federation.report.facts import more_like

    gauges = [f"{s.holder} {s.figures:,} of {s.most_figures:,}" for s in answer.spending if s.most_figures is not None]
    if gauges:
        out.print(f"exact figures given, of those that the data ever give: {', '.join(gauges)}", highlight=False)
    if not answer.terms.privacy:
        if answer.training:
            out.print("Trained without noise: every update is a disclosure in the holders' ledgers.")
        return
    rows = [
        {
            "holder": one.holder,
            "unit": one.unit or "",
            "n": str(one.units),
            "sigma": _figure(one.noise_multiplier),
            "this query": _figure(one.study_epsilon),
            "total so far": "" if one.share is None else formats.share(one.share),
            "of epsilon": _figure(one.budget_epsilon),
            "more like it": "" if one.more is None else f"{one.more:,}",
        }
        for one in answer.spending
    ]
    _filled("Epsilon, composed per holder", rows, words=("holder", "unit"))
    if (more := more_like(answer.spending)) is not None:
        out.print(f"about {more[0]:,} more like this one, by the budget of {more[1]}", highlight=False, markup=False)
    if answer.terms.seed is not None:
        out.print("Simulated: the noise follows from the public seed. A rehearsal, not a release.")


def _show_cost(answer: "Answer") -> None:
    from statfed.federation.report import formats
    from statfed.federation.report.facts import protection_of

    left, asked = len(answer.spending), len(answer.terms.holders)
    held = f"{asked} holders" if left == asked else f"{left} of {asked} holders to the end"
    sums = f"{len(answer.sums)} sum{'' if len(answer.sums) == 1 else 's'}"
    moved = sum(one.bytes_down + one.bytes_up for one in answer.sums)
    out.print(
        f"protection {protection_of(answer)}: {sums} over {held}, {formats.size(moved)} moved, {answer.seconds:.2f} s",
        highlight=False,
        markup=False,
    )


def _filled(title: str, rows: Sequence[dict[str, str]], words: tuple[str, ...] = ("holder",)) -> None:
    """A table of the columns in which any row says something, and of the first one."""
    names = [key for key in rows[0] if key == words[0] or any(row[key] for row in rows)] if rows else [words[0]]
    columns = [Column(key, tuple(row[key] for row in rows), key == words[0], key not in words) for key in names]
    for part in rendered(title, columns, out):
        out.print(part, markup=False, highlight=False, soft_wrap=isinstance(part, str))


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _shown(rows: Sequence[Row], places: Sequence[str]) -> list[str]:
    """Keys worth a column on the screen: `places`, and those that are not empty, nor say the same as another, in every
    row."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    columns = {key: [row.get(key) for row in rows] for key in keys}
    empty = [key for key in keys if all(value in (None, "", "released") for value in columns[key])]
    twice = [k for k in ("mean", "total") if "estimate" in columns and columns.get(k) == columns["estimate"]]
    return [key for key in keys if key in places or key not in (*empty, *twice)]


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _cell(value: object, margin: bool = False) -> str:
    if value is None:
        return "all" if margin else ""
    return f"{value:,.5g}" if isinstance(value, float) else str(value)
