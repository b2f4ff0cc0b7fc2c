"""A party that holds no data and takes part in protections: a key holder, a compute node. Its home folder has
party.toml and identity.key, and nothing else.

It answers stages of the protections that its own file allows, and refuses runs over too few holders.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field, ValidationError

from statfed.client.guard.addresses import Direct
from statfed.client.guard.files import check_modes
from statfed.client.guard.policy import Approval, HolderName, Parties, load_policy
from statfed.client.pilot.permits import known, permit
from statfed.client.protecting import Protecting
from statfed.core import VERSION, toml
from statfed.core.discovery import LINKAGES, is_linkage, modules
from statfed.core.errors import EngineError, Refused, UsageError
from statfed.core.method import Arrays
from statfed.core.protection import PACKAGE as PROTECTIONS
from statfed.core.protection import Packet, load_protection
from statfed.core.section import Section, Strict, describe, read_toml
from statfed.core.statement import Present, Statement

FILE = "party.toml"
log = logging.getLogger("statfed.holder")


class PartyAllow(Strict):
    """What this party takes part in."""

    protections: tuple[str, ...] = Field(description="protections and linkages that it plays a part in")
    minimum_holders: int = Field(default=3, ge=1, description="fewest holders of a run that it takes part in")
    direct: bool = Field(default=False, description="may packets of linkages go to and from others directly?")
    third_parties: tuple[str, ...] = Field(
        default=(), description="in Flower apps: key holders and compute nodes that it trusts as a holder"
    )


class PartyPolicy(Section):
    """A validated party.toml."""

    party: HolderName
    allow: PartyAllow
    approval: Approval = Approval()
    direct: Direct = Direct()
    parties: Parties = Parties()


def load_party(path: Path) -> PartyPolicy:
    """Read and validate a party.toml. Raises UsageError naming the key, what was got and what is wanted."""
    try:
        return PartyPolicy.model_validate(read_toml(path, "party"))
    except ValidationError as error:
        raise UsageError(describe(error, str(path), "one of party, allow, approval, direct, parties")) from None


def approval_of(home: Path) -> Approval:
    """Who approves studies at a home, of a holder or of a third party. Raises UsageError where its file is wrong."""
    third = home / FILE
    return load_party(third).approval if third.exists() else load_policy(home / "policy.toml").approval


def played_by(name: str) -> tuple[str, ...]:
    """The protections that ask for a third party of this name, where a study does not name another one."""
    there = {one: load_protection(one) for one in sorted(modules(PROTECTIONS) | modules(LINKAGES))}
    return tuple(one for one, module in there.items() if name in module.third_parties(module.Options.model_construct()))


def write_party(home: Path, name: str, protections: Sequence[str]) -> Path:
    """Write a commented party.toml that `load_party` reads. Raises UsageError where none of `protections` has third
    parties, or the home has a file already that says otherwise."""
    there = {one: load_protection(one) for one in modules(PROTECTIONS) | modules(LINKAGES)}
    having = [one for one in sorted(there) if there[one].REQUIRES.third_parties]
    if not protections or set(protections) - set(having):
        raise UsageError(f"protection: got {', '.join(protections) or 'none'}; want some of {', '.join(having)}")
    fewest = 2 if all(map(is_linkage, protections)) else 3
    allow = PartyAllow(protections=tuple(protections), minimum_holders=fewest)
    policy = PartyPolicy(party=HolderName(name=name), allow=allow)
    path = home / FILE
    if path.exists():
        if load_party(path).party == policy.party:
            return path  # made again: what its people have changed is theirs
        raise UsageError(f"{path}: exists, of {load_party(path).party.name}; want a home of its own for {name}")
    fields = PartyAllow.model_fields
    lines = [
        "# What this party takes part in. It holds no data: a key holder, a compute node. Anything else is refused.",
        toml.header("party"),
        toml.line("name", name),
        "",
        toml.header("allow"),
        *(toml.line(key, getattr(allow, key), field.description or "") for key, field in fields.items()),
    ]
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    path.chmod(0o644)
    return path


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
        name, terms = policy.party.name, statement.terms
        if statement.step == "release":
            if not known(self.home, terms.digest()):
                raise Refused("release: this study was never decided on here; want one that was")
            self._protecting.close(statement.run)
            return ThirdPartyAnswer(Present(holder=name, stage="release", seconds=0.0))
        if statement.step != "protect":
            raise Refused(f"step: got {statement.step}; want protect: this party holds no data")
        now = datetime.now(UTC)
        permit(self.home, policy.approval, terms, terms.digest(), statement.run, statement.round, uses=True, now=now)
        protection = terms.protection.name
        if protection not in policy.allow.protections:
            raise Refused(f"protection: got {protection}; want {' or '.join(policy.allow.protections)}")
        if statement.round > statement.done + 1 and not self._protecting.knows(statement.run):
            raise EngineError(f"run {statement.run}: its secrets went with an earlier process; want another attempt")
        pins, direct = policy.parties.root, policy.direct if policy.allow.direct else None
        agreement, party = self._protecting.party(statement, name, pins, direct=direct)
        if agreement.minimum_holders < policy.allow.minimum_holders:
            raise Refused(
                f"holders: got a run over as few as {agreement.minimum_holders}; "
                f"want at least {policy.allow.minimum_holders}"
            )
        packet = self._protecting.received(statement.run, packet)
        present, reply = self._protecting.answer(statement, party, packet, name)
        return ThirdPartyAnswer(present, self._protecting.sent(statement.run, reply))
