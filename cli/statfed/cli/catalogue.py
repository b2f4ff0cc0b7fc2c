"""`statfed scenarios` and `statfed analyses`: what there is."""

from typing import Annotated

import typer

from statfed.cli._output import Json, emit_json, out, table
from statfed.core.discovery import load, modules


def scenarios(
    name: Annotated[str | None, typer.Argument(help="Show one scenario and its default study.")] = None,
    as_json: Json = False,
) -> None:
    """List the reference scenarios: who takes part, what data, which protections apply."""
    package = "statfed.scenarios"
    found = {key: load(package, key, "scenario") for key in ([name] if name else sorted(modules(package)))}
    if as_json:
        documents = [
            {"id": key, **{field: getattr(m.ABOUT, field) for field in m.ABOUT.__dataclass_fields__}}
            | ({"study": dict(m.STUDY)} if name else {})
            for key, m in found.items()
        ]
        emit_json({"scenarios": documents})
        return
    if name:
        about = found[name].ABOUT
        out.print(f"[bold]{name}[/bold]: {about.title}\n\n{about.purpose}\n", highlight=False)
        for label in ("parties", "data", "partitioning", "source"):
            out.print(f"[bold]{label}[/bold]: {getattr(about, label)}", highlight=False)
        out.print(f"[bold]protections[/bold]: {', '.join(about.protections)}\n", highlight=False)
        out.print(f"Run it: statfed run {name}", highlight=False)
        return
    rows = table("Reference scenarios", "scenario", "who", "data", "partitioning", "protections")
    for key, m in found.items():
        about = m.ABOUT
        rows.add_row(key, about.parties, about.data, about.partitioning, ", ".join(about.protections))
    out.print(rows)


def analyses(as_json: Json = False) -> None:
    """List the analyses: what each estimates, whether it has a private form, what runs in the holder's database."""
    from statfed.core.analysis import PACKAGE

    found = {key: load(PACKAGE, key, "analysis") for key in sorted(modules(PACKAGE))}
    if as_json:
        emit_json(
            {
                "analyses": [
                    {
                        "id": key,
                        "title": m.TITLE,
                        "group": m.GROUP,
                        "private": hasattr(m, "private"),
                        "pushes_down": m.PUSHES_DOWN,
                        "options": m.Options.model_json_schema(),
                    }
                    for key, m in found.items()
                ]
            }
        )
        return
    rows = table("Analyses", "analysis", "group", "what", "private", "in the database")
    for key, m in sorted(found.items(), key=lambda item: (item[1].GROUP, item[0])):
        rows.add_row(key, m.GROUP, m.TITLE, "yes" if hasattr(m, "private") else "no", m.PUSHES_DOWN)
    out.print(rows)
