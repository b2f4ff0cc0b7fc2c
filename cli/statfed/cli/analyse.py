"""`statfed analyse`: one command per analysis, made from the analysis's own options."""

from pathlib import Path
from typing import Any

import click
import typer
from typer.core import TyperCommand

from statfed.cli._answers import carry_out
from statfed.cli._fields import option_of, value_of
from statfed.cli._names import Named
from statfed.cli._study import Common, Outputs, common_options, output_options
from statfed.cli._study import read_privacy as read_privacy
from statfed.core.discovery import modules
from statfed.core.method import ANALYSES, load_method
from statfed.core.study import make_study


class Analyses(Named):
    """Finds its commands by discovery, and imports only the one that is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return sorted(modules(ANALYSES))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        return _command(cmd_name) if cmd_name in modules(ANALYSES) else None


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
    method = load_method(name)
    fields = method.Options.model_fields
    own = [option_of(key, field) for key, field in fields.items()]

    def run(*, as_json: bool, csv: str | None, parquet: str | None, html: str | None, **values: Any) -> None:
        given = {key: values.pop(f"option_{key}") for key in fields}
        options = {key: value_of(key, fields[key], text) for key, text in given.items() if text is not None}
        outputs = Outputs(as_json, csv, parquet, html, values.pop("overwrite"), values.pop("runs"))
        common = Common(**values)
        study = make_study(common.study(name, options), where=f"statfed analyse {name}")
        carry_out(study, common, outputs, Path.cwd())

    return TyperCommand(
        name,
        callback=run,
        params=[*own, *common_options(), *output_options()],
        help=f"{method.TITLE}.\n\nIn the holder's database: {method.PUSHES_DOWN}.",
        short_help=method.TITLE,
        rich_markup_mode="rich",
        rich_help_panel=method.GROUP,
    )
