"""One document on stdout, messages on stderr, errors as exit codes.

Whatever goes wrong after `--json` was typed is a document too, unless one is out already: there is one on stdout. A
reader that goes away, such as `head`, has what it wanted: that is no failure.
"""

import json
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Annotated, Any, Literal, NoReturn, Protocol

import click
import typer
from rich.console import Console, ConsoleDimensions
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from typer import rich_utils

from statfed.cli._names import Named
from statfed.cli._runs import resuming
from statfed.core.errors import StatfedError, printable

WIDEST = 10_000
"""Of what is piped: its reader wraps lines, or does not."""
PROSE = 160
"""Columns of a table of sentences, at most."""
_WANTED, _SAID = "statfed.as_json", "statfed.said"


class _Screen(Console):
    """A terminal as wide as it is; anything else as wide as what is written, unless COLUMNS says another width."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # for `ReportingGroup`: files that were asked for are written first

    @property
    def size(self) -> ConsoleDimensions:
        found = super().size
        asked = self._width is not None or os.environ.get("COLUMNS", "").isdigit()
        return found if asked or self.is_terminal else ConsoleDimensions(WIDEST, found.height)

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        self._width, self._height = new_size


out = _Screen()
err = Console(stderr=True)


def remember_json(ctx: click.Context, param: click.Parameter, value: bool) -> bool:
    """Let errors be reported as JSON too."""
    if value and param.name == "as_json":
        ctx.find_root().meta[_WANTED] = True
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
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    if context := click.get_current_context(silent=True):
        context.find_root().meta[_SAID] = True
    sys.stdout.write(text)
    sys.stdout.flush()


def say(message: str, style: str = "") -> None:
    """A message to the user, never on stdout, and without what would move the cursor."""
    err.print(printable(message), style=style, highlight=False, markup=False, soft_wrap=True)


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
    out.print(made, markup=False, width=min(out.width, PROSE))


class ReportingGroup(Named):
    """Turns the errors that users meet into a message and an exit code; `--debug` shows where they came from."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        arguments = list(sys.argv[1:] if args is None else args)
        try:
            found = super().main(arguments, prog_name, complete_var, False, windows_expand_args, **extra)
            sys.stdout.flush()
        except click.ClickException as error:
            if not standalone_mode:
                raise
            with suppress(BrokenPipeError):
                rich_utils.rich_format_error(error)
                if "--json" in arguments:
                    _emit_error("UsageError", error.format_message(), error.exit_code)
            sys.exit(error.exit_code)
        except click.Abort:
            if not standalone_mode:
                raise
            say("aborted", "red")
            sys.exit(1)
        except (BrokenPipeError, SystemExit) as stop:
            if isinstance(stop, SystemExit) and not isinstance(stop.__context__, BrokenPipeError):  # Rich's of its own
                raise
            _leave()
            found = 0
        if standalone_mode:
            sys.exit(found if type(found) is int else 0)
        return found

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except StatfedError as error:
            if ctx.params.get("debug"):
                traceback.print_exc()
            _fail(ctx, type(error).__name__, str(error), error.exit_code)
        except KeyboardInterrupt as stop:
            told = "interrupted: all processes of this command were stopped, and what had finished is kept"
            folder = getattr(stop, "folder", None)  # of a run that can go on
            told += f"; go on with: {resuming(folder)}" if folder else ""
            _fail(ctx, "Interrupted", told, 130, plain=True)
        except (click.exceptions.Exit, click.exceptions.Abort, click.ClickException, BrokenPipeError):
            raise
        except OSError as error:
            if ctx.params.get("debug"):
                raise
            what = f"{error.filename}: " if error.filename else ""
            _fail(
                ctx, "UsageError", f"{what}{error.strerror or type(error).__name__}; want it readable and writable", 2
            )
        except Exception as error:
            if ctx.params.get("debug"):
                raise
            say(f"internal error: {type(error).__name__}: {error}\nrun again with `statfed --debug ...`", "red")
            _fail(ctx, "InternalError", str(error), 1, told=True)


def _fail(
    ctx: click.Context, kind: str, message: str, code: int, *, plain: bool = False, told: bool = False
) -> NoReturn:
    """End the command: with a message, unless it was told, and a document where one is wanted and none is out."""
    if not told:
        say(message if plain else f"error: {message}", "red")
    if ctx.meta.get(_WANTED) and not ctx.meta.get(_SAID):
        with suppress(OSError):  # a reader that has gone, or a disk that is full: the exit code says it
            _emit_error(kind, message, code)
    raise typer.Exit(code) from None


def _emit_error(kind: str, message: str, code: int) -> None:
    emit_json({"error": {"kind": kind, "message": message, "exit_code": code}})


def _leave() -> None:
    """Nobody reads stdout any more: what is left in its buffer goes nowhere, without a word."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


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
