"""`statfed`: the command line."""

import logging
from typing import Annotated

import typer

from statfed.cli._commands import Commands
from statfed.cli._output import out
from statfed.core import VERSION

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


def main() -> None:
    """Entry point of the `statfed` command."""
    app()


if __name__ == "__main__":
    main()
