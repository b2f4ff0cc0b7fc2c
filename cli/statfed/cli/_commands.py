"""The commands of `statfed`: where each is, and its line in the help. A module is imported when its command is typed.

The help, its completion and a slip of the pen need names and lines alone, and so no more than these.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import click
import typer
from click.shell_completion import CompletionItem
from typer.core import TyperCommand
from typer.main import get_command_from_info, get_group_from_info
from typer.models import CommandInfo, TyperInfo

from statfed.cli._output import ReportingGroup

ASK, CHOOSE, KEEP, PILOT, EXTEND = (
    "Ask and train",
    "Choose a technique",
    "Look after data, runs and budgets",
    "Run a pilot across organisations",
    "Extend",
)


@dataclass(frozen=True)
class Place:
    """A command. name: of its module in `statfed.cli` and of what it is there, or both by a dot; help: its line;
    panel: the heading under which it is listed."""

    name: str
    help: str
    panel: str

    def load(self, command: str) -> click.Command:
        """The command: of a group, of a function, or of a function that makes one."""
        module, _, attribute = self.name.partition(".")
        found: Any = getattr(import_module(f"statfed.cli.{module}"), attribute or module)
        how: Any = {"pretty_exceptions_short": True, "rich_markup_mode": "rich"}
        if isinstance(found, typer.Typer):
            return get_group_from_info(TyperInfo(found, name=command), suggest_commands=False, **how)
        return found() if attribute == "command" else get_command_from_info(CommandInfo(command, callback=found), **how)


COMMANDS: Mapping[str, Place] = {
    "analyse": Place("analyse.app", "Analyse tables that stay with their holders.", ASK),
    "train": Place("train.app", "Train a model on tables that stay with their holders.", ASK),
    "predict": Place("predict", "Predict the target of new records, on this machine alone.", ASK),
    "link": Place("link.command", "Match units that several holders have, and analyse the matched.", ASK),
    "synth": Place("synth.app", "Make synthetic data, and measure what they are worth and what they risk.", ASK),
    "workshop": Place(
        "workshop.app",
        "Run a workshop on synthetic data: a task with generated records, marks for teams' files, a league table.",
        ASK,
    ),
    "run": Place(
        "run", "Run a study with simulated holders, and write runs/<id>/ with result.json and report.html.", ASK
    ),
    "recommend": Place(
        "recommend",
        "Rank the techniques for a case by rules over its facts and by what was measured in similar scenarios.",
        CHOOSE,
    ),
    "compare": Place(
        "compare",
        "Try every protection at every release level of a scenario, and report accuracy, privacy and cost.",
        CHOOSE,
    ),
    "scenarios": Place("catalogue.app", "The reference scenarios: cases of official statistics to compare.", CHOOSE),
    "analyses": Place(
        "catalogue.analyses",
        "List the methods: what each estimates or trains, whether it has a private form, what runs in the database.",
        CHOOSE,
    ),
    "protections": Place(
        "protections",
        "List the protections: what each trusts, needs and costs; and where noise can be added.",
        CHOOSE,
    ),
    "linkages": Place(
        "link.linkages",
        "List the linkages: ways of matching units, whom each trusts, and what may come out of it.",
        CHOOSE,
    ),
    "codebook": Place("codebook.app", "The codebook of a table: draft one, check data against it, show it.", KEEP),
    "data": Place("data.app", "Real data for the scenarios, hash checked and cached outside git.", KEEP),
    "runs": Place("runs.app", "List, show, export and remove past runs.", KEEP),
    "annex": Place(
        "annex",
        "Write a run's annexes: what it did, who learned what, and the questions that are left to the parties.",
        KEEP,
    ),
    "ledger": Place("ledger.app", "Privacy ledgers of data holders.", KEEP),
    "policy": Place("policy.app", "A holder's policy: begin one, check it, ask it about a study.", KEEP),
    "pilot": Place(
        "pilot.app", "Prepare a pilot across organisations: authority, requests, kits, words to compare.", PILOT
    ),
    "identity": Place(
        "identity", "Create or show the identity of a data holder, a key holder or a compute node.", PILOT
    ),
    "coordinator": Place("coordinator.app", "The hub of a pilot, which its parties call: start, stop, status.", PILOT),
    "holder": Place("holder.app", "A party of a pilot: start it; read at home why it refused.", PILOT),
    "doctor": Place(
        "doctor", "Check keys, certificates, clock and connection of a pilot, as a party or as the coordinator.", PILOT
    ),
    "study": Place(
        "study.app",
        "Studies of a pilot: proposed by the coordinator, decided by each party, run as approved.",
        PILOT,
    ),
    "status": Place(
        "status",
        "Say what goes on in a pilot: who is connected, what is asked and decided, what runs, what is left of a "
        "budget.",
        PILOT,
    ),
    "stop": Place(
        "status.stop",
        "Stop the run of a study, which `statfed resume` goes on with; without a number, stop the hub.",
        PILOT,
    ),
    "resume": Place(
        "status.resume",
        "Go on with the last interrupted run of a study, after its last finished sum: none is paid for twice.",
        PILOT,
    ),
    "logs": Place(
        "status.logs",
        "Show what was recorded of a study here, in order: proposed, decided, sent, received, answered.",
        PILOT,
    ),
    "audit": Place(
        "audit.app",
        "Signed logs of a pilot, at the coordinator and at each party: verify, show, export, accept.",
        PILOT,
    ),
    "plugin": Place(
        "plugin.app", "Protections, methods, models, scenarios and sources of other packages (docs/plugins.md).", EXTEND
    ),
}


class Commands(ReportingGroup):
    """All commands, each imported when it is typed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        return _line(cmd_name, place) if ctx.meta.get(_LISTING) else place.load(cmd_name)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        ctx.meta[_LISTING] = True
        super().format_help(ctx, formatter)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        ctx.meta[_LISTING] = True
        return super().shell_complete(ctx, incomplete)


_LISTING = "statfed.listing"


def _line(name: str, place: Place) -> click.Command:
    return TyperCommand(name, help=place.help, rich_help_panel=place.panel, rich_markup_mode="rich")
