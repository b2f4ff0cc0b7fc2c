"""Words of the command line that are one of several: what is said of one that is not."""

from typing import Any

import click
from typer.core import TyperGroup

from statfed.core.names import one_of


class Named(TyperGroup):
    """A group that says which of its commands was meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0] if args else ""
        if word and not word.startswith("-") and self.get_command(ctx, word) is None and not ctx.resilient_parsing:
            ctx.fail(f"No such command {word[:80]!r}; want {one_of(self.list_commands(ctx), word)}")
        return super().resolve_command(ctx, args)


class Choice(click.Choice[str]):
    """One of several words; says which was meant."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:  # noqa: ARG002
        return f"got {str(value)[:80]!r}; want {one_of(self.choices, value)}"
