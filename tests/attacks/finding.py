"""What an attack found, and the list of all attacks: who makes each, of what row of the audit, and which rule stops it.

An attack is a function of a `World`. It knows the target's quasi-identifiers and what it is told; it compares what it
believes in the end with the truth, which it uses for nothing else.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.attacks.world import World

Actor = Literal["analyst", "coordinator", "reader"]
CLOSE, SURE = 0.01, 0.9


@dataclass(frozen=True)
class Finding:
    """What an attacker believes of a value. got: None where it has no answer; width: of the value's public range;
    certainty: of a yes-or-no question."""

    got: float | None
    truth: float
    width: float
    certainty: float = 1.0

    @property
    def known(self) -> bool:
        """Within 1 % of the range; or true, with 90 % certainty."""
        return self.got is not None and abs(self.got - self.truth) <= CLOSE * self.width and self.certainty >= SURE


NOTHING = Finding(None, 0.0, 1.0)
FREE: dict[str, Any] = {
    "minimum_frequency": "off",
    "dominance_k": "off",
    "p_percent": "off",
    "residual_df": "off",
    "parameters_per_record": "off",
}
"""A holder's section of rules with all of them off."""


@dataclass(frozen=True)
class Attack:
    """One attack. row: of the audits; method: that carries it; rule: what holds it; people: are they persons or
    enterprises? policies: sections of the policies under which it is tried; former: does its control need holders as
    they once were? unreleased: are the rules of the release off in it? control: is
    there one? holders: so many have the population."""

    name: str
    row: str
    actor: Actor
    method: str
    rule: str
    run: Callable[[World], Finding]
    people: Literal["persons", "enterprises"] = "persons"
    policies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    former: bool = False
    unreleased: bool = False
    control: bool = True
    holders: int = 1


ATTACKS: dict[str, Attack] = {}


def attack(
    row: str, actor: Actor, method: str, rule: str, **more: Any
) -> Callable[[Callable[[World], Finding]], Callable[[World], Finding]]:
    """Enter a function into the list of attacks under its own name."""

    def entered(run: Callable[[World], Finding]) -> Callable[[World], Finding]:
        name = run.__name__
        ATTACKS[name] = Attack(name, row, actor, method, rule, run, **more)
        return run

    return entered
