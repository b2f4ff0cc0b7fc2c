"""How a party becomes part of a pilot: it makes its keys, joins with the kit it was sent, and pins the others.

    identity.key node.key    secret, made here, never sent
    pilot.request            what was sent to the coordinator
    pilot.kit                the kit as the coordinator signed it: nobody edits it
    pilot.toml               this party's own: whose kits it takes, and the keys that it has accepted of the others

The coordinator is not trusted with identities. Whatever the kit names is shown as words, which people compare with each
organisation outside this system before it is pinned. Only removals need nobody: who is revoked or left out is unpinned.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from pydantic import AwareDatetime, ValidationError

from statfed.client.guard.policy import Parties
from statfed.core import toml
from statfed.core.errors import UsageError
from statfed.core.identity import create_identity, load_identity
from statfed.core.pilot.audit import Fact, record
from statfed.core.pilot.certificates import new_key, node_pem, public_pem
from statfed.core.pilot.documents import read_document
from statfed.core.pilot.files import replace_file, write_secret
from statfed.core.pilot.papers import (
    Name,
    Participant,
    PublicKey,
    Request,
    Role,
    SignedKit,
    make_request,
    read_kit,
    read_request,
)
from statfed.core.section import Section, describe, read_toml

NODE_KEY, REQUEST, KIT, OWN = "node.key", "pilot.request", "pilot.kit", "pilot.toml"


class Joined(Section):
    """What pilot.toml says: the pilot, this party in it, and the coordinator whose kits it takes."""

    name: Name
    party: Name
    coordinator: PublicKey
    authority: str
    serial: int
    since: AwareDatetime


class Own(Section):
    """This party's own file of a pilot."""

    pilot: Joined
    parties: Parties = Parties()


@dataclass(frozen=True)
class Change:
    """What a kit would change here. first: no kit was joined with before; added: to be accepted by a person;
    replaced: those of the added that were pinned with another key; removed: no longer participants."""

    signed: SignedKit
    first: bool
    added: tuple[Participant, ...]
    replaced: tuple[str, ...]
    removed: tuple[str, ...]

    def to_compare(self) -> dict[str, str]:
        """Words that somebody has to compare, by whose they are."""
        coordinator = {"coordinator": self.signed.words} if self.first else {}
        return coordinator | {one.name: one.words for one in self.added}


def request(home: Path, name: str, role: Role) -> Request:
    """Make the keys of a party, where it has none, and its request in HOME/pilot.request."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    create_identity(home)
    path = home / NODE_KEY
    if not path.exists():
        write_secret(path, node_pem(new_key()))
    node = node_key(path)
    identity = load_identity(home, name, {})
    now = datetime.now(UTC).replace(microsecond=0)
    text = make_request(identity, role, node, public_pem(node).decode("ascii"), now)
    replace_file(home / REQUEST, text)
    record(home, "requested", {"name": name, "request": hashlib.sha256(text.encode()).hexdigest()})
    return read_request(text, str(home / REQUEST))


def look(home: Path, kit: Path) -> Change:
    """What joining with a kit would change. Raises UsageError where it is not for this party, or not to be trusted."""
    signed, where = read_kit(read_document(kit), str(kit)), str(kit)
    roster = signed.kit.roster
    me, own = roster.participant(signed.kit.party), standing(home)
    identity = load_identity(home, signed.kit.party, {})
    node = public_pem(node_key(home / NODE_KEY)).decode("ascii")
    if me is None or me.identity != identity.public or me.node_key != node:
        raise UsageError(
            f"{where}: got a kit made out to {signed.kit.party} with other keys than those in {home}; want the one "
            "that answers this home's own request"
        )
    if own is None:
        others = tuple(one for one in roster.participants if one.name != me.name)
        return Change(signed, True, others, (), ())
    joined = own.pilot
    for what, got, want in (
        ("pilot", roster.pilot, joined.name),
        ("party", me.name, joined.party),
        ("coordinator's key", signed.coordinator, joined.coordinator),
        ("authority", signed.kit.authority, joined.authority),
    ):
        if got != want:
            raise UsageError(
                f"{where}: got another {what} than this home joined with; want the same, or a new home: "
                "ask the coordinator by another way than this kit came"
            )
    if roster.serial < joined.serial:
        raise UsageError(
            f"{where}: got roster {roster.serial}, older than {joined.serial}, which this home has; want the newest "
            "kit: an old one brings back what was revoked"
        )
    pins = own.parties.root
    added = tuple(one for one in roster.participants if one.name != me.name and pins.get(one.name) != one.identity)
    gone = tuple(sorted(name for name in pins if roster.participant(name) is None))
    replaced = tuple(one.name for one in added if one.name in pins)
    return Change(signed, False, added, replaced, gone)


def join(home: Path, change: Change) -> Own:
    """Take the kit and pin what it names. The caller has had the words compared."""
    signed = change.signed
    roster, party = signed.kit.roster, signed.kit.party
    own = Own(
        pilot=Joined(
            name=roster.pilot,
            party=party,
            coordinator=signed.coordinator,
            authority=signed.kit.authority,
            serial=roster.serial,
            since=signed.kit.issued,
        ),
        parties=Parties({one.name: one.identity for one in roster.participants if one.name != party}),
    )
    head = "# This party's part in a pilot, written by `statfed pilot join`: whom it trusts as whom.\n"
    replace_file(home / KIT, signed.text)
    replace_file(home / OWN, head + toml.dumps(own.model_dump(mode="json")))
    facts: dict[str, Fact] = {"serial": roster.serial, "coordinator": signed.coordinator, "parties": own.parties.root}
    record(home, "joined", facts | {"kit": hashlib.sha256(signed.text.encode()).hexdigest()})
    return own


def standing(home: Path) -> Own | None:
    """This party's own file of a pilot; None where it has joined none. Raises UsageError where it cannot be read."""
    path = home / OWN
    if not path.exists():
        return None
    try:
        return Own.model_validate(read_toml(path, "pilot"))
    except ValidationError as error:
        raise UsageError(describe(error, str(path), "what `statfed pilot join` writes", Own)) from None


def coordinator_of(home: Path) -> str | None:
    """The public key of the coordinator whose kits this party takes; None where it has joined no pilot."""
    own = standing(home)
    return None if own is None else own.pilot.coordinator


def pinned(home: Path, policy: Mapping[str, str]) -> dict[str, str]:
    """Public keys of the others, by name: those of the pilot and those that the party's own file has besides.

    Raises UsageError where both have a party, with other keys: one of them is wrong, and which is for people to find.
    """
    own = standing(home)
    joined = {} if own is None else own.parties.root
    if differing := sorted(name for name in joined.keys() & policy.keys() if joined[name] != policy[name]):
        raise UsageError(
            f"{', '.join(differing)}: got one key under [parties] of the policy and another from the pilot; want one: "
            "compare words with that organisation"
        )
    return joined | dict(policy)


def node_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The secret key in a file. Raises UsageError where there is none."""
    try:
        key = load_ssh_private_key(path.read_bytes(), None)
    except FileNotFoundError:
        raise UsageError(f"{path}: no node key; want one, made by `statfed pilot request`") from None
    except (OSError, ValueError):
        raise UsageError(f"{path}: cannot be read; want the node key that `statfed pilot request` made") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UsageError(f"{path}: got another kind of key; want one on the curve P-256")
    return key
