"""`statfed train`: one command per model, made from the options of the training methods."""

from pathlib import Path
from typing import Any

import click
import typer
from pydantic.fields import FieldInfo
from typer.core import TyperCommand

from statfed.cli._answers import carry_out
from statfed.cli._fields import option_of, value_of
from statfed.cli._names import Choice, Named
from statfed.cli._study import Common, Outputs, common_options, output_options, panel
from statfed.core.discovery import modules
from statfed.core.errors import UsageError
from statfed.core.method import TRAINING, load_method
from statfed.core.section import Section, apply_override
from statfed.core.statement import MODELS
from statfed.core.study import make_study

DEFAULT = "local-sgd"
HOLDOUT = 0.2
"""Share of the units that `statfed train` keeps apart to score the model on, unless told otherwise."""
_TABLES = ("model", "strategy")
"""Options that are tables; the first key of each has an option of its own."""


class Models(Named):
    """Finds its commands by discovery: a model is a file of `statfed.strategies.models`."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return sorted(modules(MODELS))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        return _command(cmd_name) if cmd_name in modules(MODELS) else None


app = typer.Typer(
    cls=Models,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Train a model on tables that stay with their holders.\n\n"
    "statfed train mlp --target employed --features age,sex,region --holder a=a.parquet --holder b=b.csv\n\n"
    "statfed train mlp --target employed --features age,sex --method dp-fedsgd --privacy shared:epsilon=3 "
    "--protect secure-aggregation --holder a=a.csv --holder b=b.csv --holder c=c.csv --save employed.statfed\n\n"
    "Then: statfed predict employed.statfed new.parquet -o predicted.parquet",
)


@app.callback()
def _group() -> None:
    pass


def _fields() -> dict[str, FieldInfo]:
    """Options of all training methods that are no tables, by key."""
    found: dict[str, FieldInfo] = {}
    for name in sorted(modules(TRAINING), key=lambda name: (name != DEFAULT, name)):
        for key, field in load_method(name).Options.model_fields.items():
            if key not in _TABLES:
                found.setdefault(key, field)
    required = ("target", "features")
    return {key: field for key, field in found.items() if key in required} | found


def _command(model: str) -> click.Command:
    fields = _fields()
    own = [option_of(key, field) for key, field in fields.items()]
    for option in own:
        if option.name in ("option_target", "option_features"):
            option.required = True
        if option.name == "option_holdout":
            option.help = f"{fields['holdout'].description} [default: {HOLDOUT}]"

    def run(*, as_json: bool, csv: str | None, parquet: str | None, html: str | None, **values: Any) -> None:
        given = {key: values.pop(f"option_{key}") for key in fields}
        method, save, references = values.pop("method"), values.pop("save"), values.pop("references")
        tables = {
            "model": {"name": model, "hidden": values.pop("hidden")},
            "strategy": {"name": values.pop("strategy")},
        }
        own = {key: value_of(key, fields[key], text) for key, text in given.items() if text is not None}
        options = _options(method, own, tables, values.pop("option"))
        outputs = Outputs(as_json, csv, parquet, html, values.pop("overwrite"), values.pop("runs"), save)
        common = Common(**values)
        study = make_study(common.study(method, options), where=f"statfed train {model}")
        carry_out(study, common, outputs, Path.cwd(), references)

    return TyperCommand(
        model,
        callback=run,
        params=[*own[:2], *_training(), *own[2:], *common_options(), *_save(), *output_options("runs")],
        help=f"Train the model {model}: {_title(model)}",
        short_help=_title(model),
        rich_markup_mode="rich",
    )


def _options(
    method: str, own: dict[str, Any], tables: dict[str, dict[str, Any]], changes: tuple[str, ...]
) -> dict[str, Any]:
    """The method's options. Raises UsageError for those that it does not have."""
    known: type[Section] = load_method(method).Options
    astray = [f"--{key.replace('_', '-')}" for key in own if key not in known.model_fields]
    if astray:
        raise UsageError(f"{', '.join(astray)}: not an option of {method}; want it left out, or another --method")
    options = {key: {k: v for k, v in table.items() if v is not None} for key, table in tables.items()}
    options = {key: table for key, table in options.items() if table} | own
    options.setdefault("holdout", HOLDOUT)  # type: ignore[arg-type]  # one of the values that are no tables
    for text in changes:
        if not text.partition("=")[2]:
            raise UsageError(f"--option: got {text!r}; want key=value, for example strategy.server_momentum=0.5")
        apply_override(options, text, "--option")
    return options


def _training() -> list[Any]:
    option = panel("Options")
    return [
        option(
            "method",
            "--method",
            type=Choice(sorted(modules(TRAINING))),
            default=DEFAULT,
            help="local-sgd: each holder trains for a round; dp-fedsgd: steps on the noisy sum of gradients.",
        ),
        option("hidden", "--hidden", type=int, metavar="NUMBER", help="Width of the hidden layer, or channels."),
        option("strategy", "--strategy", metavar="NAME", help="How updates become the next model: fedavg, krum, ..."),
        option(
            "option",
            "--option",
            multiple=True,
            metavar="KEY=VALUE",
            help="Any other option of the method, e.g. strategy.server_momentum=0.5 (docs/study.md). Repeat.",
        ),
    ]


def _save() -> list[Any]:
    option = panel("Output")
    return [
        option(
            "references",
            "--references",
            is_flag=True,
            help="Also train a pooled model and each holder's own, to compare with: a simulation can.",
        ),
        option("save", "--save", metavar="FILE", help="Write the model into a file, for statfed predict."),
    ]


def _title(model: str) -> str:
    from statfed.core.discovery import load

    return (load(MODELS, model, "model").__doc__ or "").strip().partition("\n")[0]
