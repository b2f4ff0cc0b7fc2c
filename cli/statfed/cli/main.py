"""`statfed`: the command line."""

import logging
from typing import Annotated

import click
import typer

from statfed.cli import (
    analyse,
    annex,
    audit,
    catalogue,
    codebook,
    compare,
    coordinator,
    data,
    doctor,
    holder,
    identity,
    ledger,
    link,
    pilot,
    plugin,
    policy,
    predict,
    protections,
    recommend,
    run,
    runs,
    status,
    study,
    synth,
    train,
    workshop,
)
from statfed.cli._output import ReportingGroup, out
from statfed.core import VERSION


class Commands(ReportingGroup):
    """All commands: those below, and `link`, whose options are those of every study and its own."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), "link"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return link.command() if cmd_name == "link" else super().get_command(ctx, cmd_name)


app = typer.Typer(
    name="statfed",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Official statistics and machine learning across organisations that may not pool their microdata.\n\n"
    "Start with [bold]statfed analyse --help[/bold] for statistics on your own files, "
    "[bold]statfed train --help[/bold] for models, or [bold]statfed run time-use[/bold] for a reference scenario.\n\n"
    "Exit codes: 0 done, 1 internal error, 2 wrong usage or data, 3 refused by policy or budget, "
    "4 a process or party failed, 5 a ledger does not verify, 130 interrupted.",
)


def _version(value: bool) -> None:
    if value:
        out.print(f"statfed {VERSION}", highlight=False)
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[  # noqa: ARG001  # its callback does the work
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    if not debug:  # simulated holders write into this process's log; what they refuse reaches the user as an error
        logging.getLogger("statfed.holder").setLevel(logging.ERROR)


app.add_typer(catalogue.app, name="scenarios")
app.command("compare")(compare.compare)
app.command("recommend")(recommend.recommend)
app.command("analyses")(catalogue.analyses)
app.command("protections")(protections.protections)
app.command("linkages")(link.linkages)
app.add_typer(plugin.app, name="plugin")
app.command("identity")(identity.identity)
app.command("run")(run.run)
app.add_typer(analyse.app, name="analyse")
app.add_typer(train.app, name="train")
app.command("predict")(predict.predict)
app.add_typer(codebook.app, name="codebook")
app.add_typer(runs.app, name="runs")
app.command("annex")(annex.annex)
app.add_typer(ledger.app, name="ledger")
app.add_typer(data.app, name="data")
app.add_typer(policy.app, name="policy")
app.add_typer(holder.app, name="holder")
app.add_typer(pilot.app, name="pilot")
app.add_typer(coordinator.app, name="coordinator")
app.add_typer(study.app, name="study")
app.command("status")(status.status)
app.command("stop")(status.stop)
app.command("resume")(status.resume)
app.command("logs")(status.logs)
app.add_typer(synth.app, name="synth")
app.add_typer(workshop.app, name="workshop")
app.add_typer(audit.app, name="audit")
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Entry point of the `statfed` command."""
    app()


if __name__ == "__main__":
    main()
