"""Whether a protection applies to a study, decided from data; if not, why, and the nearest choices that are allowed.

A rule (`statfed.core.rules`) looks at a study and at what its protection says of itself (`Requirements`), and yields
what stands in the way with studies that might do instead. A choice is offered only where it clears its obstacle and
raises no other, by the same rules: what a refusal recommends is not refused in its turn, and whoever follows one choice
after another arrives at a study that applies.
"""

from dataclasses import dataclass

from statfed.core.discovery import modules
from statfed.core.errors import UsageError
from statfed.core.protection import PACKAGE, read_protection
from statfed.core.rules import EXTRAS, RULES, Choice, Finding, missing, pip, under
from statfed.core.terms import Terms

__all__ = [
    "EXTRAS",
    "Choice",
    "Obstacle",
    "allowed",
    "applicable",
    "missing",
    "obstacles",
    "pip",
]


@dataclass(frozen=True)
class Obstacle:
    """Why a combination does not apply, and what does: both are sentences for people."""

    reason: str
    choices: tuple[Choice, ...]

    @property
    def instead(self) -> str:
        """The choices in one text."""
        return ", or ".join(choice.text for choice in self.choices) or "another study: nothing installed allows this"

    def __str__(self) -> str:
        return f"{self.reason}; want {self.instead}"


def obstacles(terms: Terms) -> tuple[Obstacle, ...]:
    """Everything that stands against a study's protection; none when it applies.

    Raises UsageError on an unknown protection or options that it does not have.
    """
    found = _findings(terms)
    rules = {finding.rule for finding in found}

    def clears(choice: Choice, rule: str) -> bool:
        if choice.then is None:
            return True
        return choice.then != terms and {finding.rule for finding in _findings(choice.then)} <= rules - {rule}

    return tuple(Obstacle(one.reason, tuple(c for c in one.choices() if clears(c, one.rule))) for one in found)


def applicable(terms: Terms) -> None:
    """Raises UsageError with every obstacle."""
    found = obstacles(terms)
    if found:
        raise UsageError("\n".join(map(str, found)))


def allowed(terms: Terms) -> tuple[str, ...]:
    """Names of the installed protections, with their default options, under which the same study applies."""
    return tuple(name for name in sorted(modules(PACKAGE)) if not _findings(under(terms, name)))


def _findings(terms: Terms) -> list[Finding]:
    module, options = read_protection(terms)
    return [finding for rule in RULES for finding in rule(terms, module.REQUIRES, options)]
