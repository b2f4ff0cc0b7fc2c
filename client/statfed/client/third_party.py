"""A party that holds no data and takes part in protections: a key holder, a compute node. Its home folder has
party.toml and identity.key, and nothing else.

It answers stages of the protections that its own file allows, and refuses runs over too few holders.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from statfed.client.guard.files import check_modes
from statfed.client.guard.policy import HolderName, Parties
from statfed.client.protecting import Protecting
from statfed.core import VERSION
from statfed.core.errors import Refused, UsageError
from statfed.core.method import Arrays
from statfed.core.protection import Packet
from statfed.core.section import Section, Strict, describe, read_toml
from statfed.core.statement import Present, Statement

FILE = "party.toml"
log = logging.getLogger("statfed.holder")


class PartyAllow(Strict):
    """What this party takes part in."""

    protections: tuple[str, ...] = Field(description="protections that it plays a part in")
    minimum_holders: int = Field(default=3, ge=1, description="fewest holders of a run that it takes part in")
    third_parties: tuple[str, ...] = Field(
        default=(), description="in Flower apps: key holders and compute nodes that it trusts as a holder"
    )


class PartyPolicy(Section):
    """A validated party.toml."""

    party: HolderName
    allow: PartyAllow
    parties: Parties = Parties()


def load_party(path: Path) -> PartyPolicy:
    """Read and validate a party.toml. Raises UsageError naming the key, what was got and what is wanted."""
    try:
        return PartyPolicy.model_validate(read_toml(path, "party"))
    except ValidationError as error:
        raise UsageError(describe(error, str(path), "one of party, allow, parties")) from None


@dataclass(frozen=True)
class ThirdPartyAnswer:
    """What goes back: public facts and the protection's packet."""

    facts: Present
    packet: Packet | None = None


class ThirdParty:
    """One third party with its home folder."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._protecting = Protecting(home)

    def answer(self, text: str, arrays: Arrays, packet: Packet) -> ThirdPartyAnswer:  # noqa: ARG002
        """Answer one statement. Raises Refused or UsageError with a public message, and then nothing leaves."""
        statement = Statement.parse(text, VERSION)
        try:
            check_modes(self.home)
            policy = load_party(self.home / FILE)
        except UsageError as error:
            log.error("party: %s", error)
            raise Refused("this party's file cannot be read; its own log says why") from None
        name = policy.party.name
        if statement.step == "release":
            self._protecting.close(statement.run)
            return ThirdPartyAnswer(Present(holder=name, stage="release", seconds=0.0))
        if statement.step != "protect":
            raise Refused(f"step: got {statement.step}; want protect: this party holds no data")
        protection = statement.terms.protection.name
        if protection not in policy.allow.protections:
            raise Refused(f"protection: got {protection}; want {' or '.join(policy.allow.protections)}")
        agreement, party = self._protecting.party(statement, name, policy.parties.root)
        if agreement.minimum_holders < policy.allow.minimum_holders:
            raise Refused(
                f"holders: got a run over as few as {agreement.minimum_holders}; "
                f"want at least {policy.allow.minimum_holders}"
            )
        return ThirdPartyAnswer(*self._protecting.answer(statement, party, packet, name))
