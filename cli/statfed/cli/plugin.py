"""`statfed plugin`: what other packages bring, and whether it keeps the laws that built-ins are put under."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from statfed.cli._output import Json, emit_json, out, progress_bars, say, table
from statfed.core.discovery import GROUPS, Plugin, load, modules, origin, plugins
from statfed.core.errors import UsageError
from statfed.core.method import ANALYSES, TRAINING
from statfed.core.protection import PACKAGE as PROTECTIONS

if TYPE_CHECKING:
    from statfed.lab.laws.check import Check

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Protections, methods, models, scenarios and sources of other packages (docs/plugins.md).\n\n"
    "statfed plugin list\n\n"
    "statfed plugin check dealer-masks",
)
KINDS = {
    PROTECTIONS: "protection",
    ANALYSES: "analysis",
    TRAINING: "training method",
    "statfed.strategies.models": "model",
    "statfed.client.data.sources": "source",
}
VERDICT = {True: "pass", False: "FAIL", None: "warning"}
STYLE = {True: "green", False: "bold red", None: "yellow"}


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List what other packages bring, and whether each can be imported."""
    rows = [row for package in GROUPS for row in _rows(package)]
    if as_json:
        emit_json({"plugins": rows})
        return
    if not rows:
        say("no other package brings anything; docs/plugins.md says how to write one")
        return
    shown = table("Plugins", "id", "group", "package", "version", "loads")
    for row in rows:
        loads = "yes" if row["loads"] else str(row["error"])
        shown.add_row(row["id"], row["group"], row["distribution"], row["version"], loads)
    out.print(shown, markup=False)


def _rows(package: str) -> list[dict[str, Any]]:
    """One row for each plugin of a group; one with the error where the group itself cannot be told."""
    try:
        found = plugins(package)
    except UsageError as error:
        empty = {"group": GROUPS[package], "id": "", "distribution": "", "version": "", "module": ""}
        return [empty | {"loads": False, "error": str(error)}]
    return [_row(package, plugin) for plugin in found.values()]


def _row(package: str, plugin: Plugin) -> dict[str, Any]:
    error = None
    try:
        load(package, plugin.name, KINDS.get(package, "scenario"))
    except UsageError as raised:
        error = str(raised)
    return {
        "group": plugin.group,
        "id": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "module": plugin.module,
        "loads": error is None,
        "error": error,
    }


@app.command("check")
def check(
    name: Annotated[str, typer.Argument(help="A protection or a method, from outside or built in.")],
    as_json: Json = False,
) -> None:
    """Put a protection or a method under the laws of its contract. Exit code 2 when it breaks one.

    [bold]Examples[/bold]

    statfed plugin check dealer-masks

    statfed plugin check geometric-mean --json
    """
    kinds = [package for package in (PROTECTIONS, ANALYSES, TRAINING) if name in modules(package)]
    if not kinds:
        raise UsageError(f"plugin check: got {name!r}; want a protection or a method (statfed plugin list)")
    checked = [(package, _check(package, name)) for package in kinds]
    broken = sum(one.passed is False for _, checks in checked for one in checks)
    if as_json:
        subjects = [
            {"kind": KINDS[package], "from": origin(package, name) or None, "laws": [asdict(one) for one in checks]}
            for package, checks in checked
        ]
        emit_json({"id": name, "passed": not broken, "checked": subjects})
    else:
        for package, checks in checked:
            _show(f"{KINDS[package]} {name}, {origin(package, name) or 'built in'}", checks)
    if broken:
        say(f"{name}: breaks {broken} laws of its contract", "red")
        raise typer.Exit(UsageError.exit_code)


def _check(package: str, name: str) -> "list[Check]":
    with progress_bars() as bars:
        if package == PROTECTIONS:
            from statfed.lab.laws.protections import check_protection

            return check_protection(name, bars)
        from statfed.lab.laws.methods import check_method

        return check_method(name, bars)


def _show(title: str, checks: "list[Check]") -> None:
    rows = table(title, "law", "holds", "what it says, and what was found")
    for one in checks:
        style = STYLE[one.passed]
        found = f"{escape(one.title)}\n[dim]{escape(one.detail)}[/dim]" if one.detail else escape(one.title)
        rows.add_row(one.id, f"[{style}]{VERDICT[one.passed]}[/{style}]", found)
    out.print(rows)
