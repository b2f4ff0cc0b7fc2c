"""`statfed scenarios` and `statfed analyses`: what there is."""

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.markup import escape

from statfed.cli._output import Json, emit_json, out, table
from statfed.core.discovery import load, modules
from statfed.core.scenario import PACKAGE as SCENARIOS
from statfed.core.scenario import kind_of, matching_of

app = typer.Typer(invoke_without_command=True, help="The reference scenarios: cases of official statistics to compare.")


@app.callback()
def scenarios(context: typer.Context, as_json: Json = False) -> None:
    """The reference scenarios: who takes part, what data, which protections apply."""
    if context.invoked_subcommand is None:
        list_scenarios(as_json)


@app.command("list")
def list_scenarios(as_json: Json = False) -> None:
    """List the reference scenarios."""
    found = {key: load(SCENARIOS, key, "scenario") for key in sorted(modules(SCENARIOS))}
    if as_json:
        emit_json({"scenarios": [_scenario(key, m) for key, m in found.items()]})
        return
    rows = table("Reference scenarios", "scenario", "case", "data lie", "kind")
    for key, m in found.items():
        kind = kind_of(m)
        what = "not built yet" if kind == "entry" else "linkage" if matching_of(m) else kind
        rows.add_row(key, m.ABOUT.title, m.ABOUT.partitioning, what)
    out.print(rows, markup=False)
    out.print("statfed scenarios show NAME describes one; statfed compare NAME tries every technique on it")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A scenario (statfed scenarios list).")], as_json: Json = False
) -> None:
    """Show one scenario: case, roles, data, release levels, when it succeeds, and questions for the parties."""
    module = load(SCENARIOS, name, "scenario")
    if as_json:
        emit_json({"scenarios": [_scenario(name, module)]})
        return
    about, kind = module.ABOUT, kind_of(module)
    out.print(f"[bold]{name}[/bold]: {escape(about.title)}\n\n{escape(about.purpose)}\n", highlight=False)
    for label in ("parties", "data", "partitioning", "gsbpm", "source"):
        out.print(f"[bold]{label}[/bold]: {escape(getattr(about, label))}", highlight=False)
    matched = matching_of(module)
    out.print(
        f"[bold]{'linkages' if matched else 'protections'}[/bold]: {', '.join(about.protections) or 'not built yet'}",
        highlight=False,
    )
    if matched:
        out.print(f"[bold]matched by[/bold]: {escape(matched.key)}", highlight=False)
    roles = table("Roles", "role", "who")
    for role, who in about.roles.items():
        roles.add_row(role, who)
    out.print(roles, markup=False)
    if kind != "entry":
        levels = table("Release levels", "level", "what")
        for level in module.LEVELS:
            levels.add_row(level.id, level.title)
        out.print(levels, markup=False)
        success = module.SUCCESS
        out.print(f"[bold]success[/bold]: {escape(success.title)}, at most {success.tolerance:g}\n", highlight=False)
    asked = table("Questions for the parties", "topic", "question", "evidence")
    asked.show_lines = True
    for one in about.card.questions:
        asked.add_row(one.topic, f"{one.question}\n({one.note})" if one.note else one.question, one.evidence)
    out.print(asked, markup=False)
    commands = [f"statfed compare {name}"] if kind != "entry" else []
    commands += [f"statfed run {name}"] if kind == "training" else []
    commands.append(f"statfed recommend --scenario {name}")
    out.print("Next:\n  " + "\n  ".join(commands), highlight=False)


def _scenario(name: str, module: Any) -> dict[str, Any]:
    about, kind = module.ABOUT, kind_of(module)
    matched = matching_of(module)
    shown = (
        {"id": name, "kind": kind}
        | ({"key": matched.key} if matched else {})
        | asdict(about)
        | {"case": about.case.model_dump(), "roles": dict(about.roles)}
    )
    if kind != "entry":
        levels = [{"id": one.id, "title": one.title, "privacy": one.privacy} for one in module.LEVELS]
        success = {"title": module.SUCCESS.title, "tolerance": module.SUCCESS.tolerance}
        shown |= {"levels": levels, "success": success}
    return shown | ({"study": dict(module.STUDY)} if kind == "training" else {})


def analyses(as_json: Json = False) -> None:
    """List the methods: what each estimates or trains, whether it has a private form, what runs in the database."""
    from statfed.core.method import is_training, load_method, methods

    found = {key: load_method(key) for key in sorted(methods())}
    if as_json:
        emit_json(
            {
                "analyses": [
                    {
                        "id": key,
                        "title": m.TITLE,
                        "group": m.GROUP,
                        "training": is_training(key),
                        "private": hasattr(m, "budget"),
                        "pushes_down": m.PUSHES_DOWN,
                        "options": m.Options.model_json_schema(),
                    }
                    for key, m in found.items()
                ]
            }
        )
        return
    rows = table("Methods", "method", "group", "what", "private", "in the database")
    for key, m in sorted(found.items(), key=lambda item: (item[1].GROUP, item[0])):
        rows.add_row(key, m.GROUP, m.TITLE, "yes" if hasattr(m, "budget") else "no", m.PUSHES_DOWN)
    out.print(rows)
