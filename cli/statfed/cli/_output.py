"""One document on stdout, messages on stderr, errors as exit codes."""

import json
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal, Protocol

import click
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from statfed.cli._names import Named
from statfed.core.errors import StatfedError

out = Console()
err = Console(stderr=True)


def remember_json(ctx: click.Context, param: click.Parameter, value: bool) -> bool:
    """Let errors be reported as JSON too."""
    if value:
        ctx.find_root().meta[f"statfed.{param.name}"] = True
    return value


Json = Annotated[
    bool,
    typer.Option(
        "--json", help="One JSON document on stdout (docs/json.md); messages on stderr.", callback=remember_json
    ),
]


Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace files that are there; never one that the command reads.")
]


def emit_json(document: Any) -> None:
    """The command's one JSON document."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def say(message: str, style: str = "") -> None:
    """A message to the user, never on stdout."""
    err.print(message, style=style, highlight=False, markup=False, soft_wrap=True)


def table(title: str, *columns: str, numbers: tuple[str, ...] = ()) -> Table:
    """An empty table; columns in `numbers` are right-aligned."""
    made = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for place, column in enumerate(columns):
        justify: Literal["right", "left"] = "right" if column in numbers else "left"
        made.add_column(column, justify=justify, overflow="fold", no_wrap=place == 0)
    return made


class Learned(Protocol):
    """One row of *who learns what*."""

    @property
    def role(self) -> str: ...
    @property
    def learns(self) -> str: ...
    @property
    def protected_by(self) -> str: ...


def show_learns(title: str, rows: Iterable[Learned]) -> None:
    """Who learns what, as a table whose first column may be folded too."""
    made = table(title, "role", "learns", "protected by")
    made.columns[0].no_wrap = False
    made.show_lines = True
    for row in rows:
        made.add_row(row.role, row.learns, row.protected_by)
    out.print(made, markup=False)


class ReportingGroup(Named):
    """Turns the errors that users meet into a message and an exit code; `--debug` shows where they came from."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except StatfedError as error:
            if ctx.params.get("debug"):
                traceback.print_exc()
            say(f"error: {error}", "red")
            if ctx.meta.get("statfed.as_json"):
                body = {"kind": type(error).__name__, "message": str(error), "exit_code": error.exit_code}
                emit_json({"error": body})
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            say("interrupted: all processes of this run were stopped; what had finished is kept", "red")
            raise typer.Exit(130) from None
        except (click.exceptions.Exit, click.exceptions.Abort, click.ClickException, BrokenPipeError):
            raise
        except Exception as error:
            if ctx.params.get("debug"):
                raise
            say(f"internal error: {type(error).__name__}: {error}\nrun again with `statfed --debug ...`", "red")
            if ctx.meta.get("statfed.as_json"):
                emit_json({"error": {"kind": "InternalError", "message": str(error), "exit_code": 1}})
            raise typer.Exit(1) from None


class _Bars:
    """A progress listener with one bar a phase."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, phase: str, done: int, total: int) -> None:
        if phase not in self._tasks:
            self._tasks[phase] = self._bars.add_task(phase, total=total or None)
        self._bars.update(self._tasks[phase], completed=done, total=total or None)


@contextmanager
def progress_bars() -> Iterator[_Bars]:
    """Bars on stderr while the block runs."""
    columns = (
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err) as bars:
        yield _Bars(bars)
