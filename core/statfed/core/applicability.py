"""Whether a protection applies to a study, decided from data; if not, why, and the nearest choice that is allowed."""

from dataclasses import dataclass

from statfed.core.errors import UsageError
from statfed.core.protection import minimum_holders, read_protection
from statfed.core.query import Query
from statfed.core.study import Terms


@dataclass(frozen=True)
class Obstacle:
    """Why a combination does not apply, and what does: both are sentences for people."""

    reason: str
    instead: str

    def __str__(self) -> str:
        return f"{self.reason}; want {self.instead}"


def obstacles(terms: Terms | Query) -> tuple[Obstacle, ...]:
    """Everything that stands against a study's protection; none when it applies.

    Raises UsageError on an unknown protection or options that it does not have.
    """
    module, _ = read_protection(terms)
    name, requires = terms.protection.name, module.REQUIRES
    minimum_holders(terms, requires)
    found = []
    if terms.privacy is None and len(terms.holders) < requires.minimum_holders:
        found.append(
            Obstacle(
                f"protection {name}: got {len(terms.holders)} holders, and each could subtract its own part from an "
                "exact total",
                f"at least {requires.minimum_holders} holders, or differential privacy",
            )
        )
    return tuple(found)


def applicable(terms: Terms | Query) -> None:
    """Raises UsageError with every obstacle."""
    found = obstacles(terms)
    if found:
        raise UsageError("\n".join(map(str, found)))
