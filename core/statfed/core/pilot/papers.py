"""The two papers of a pilot: the request that a party makes of its keys, and the kit that the coordinator signs.

Keys are made where they are used and never leave. A request carries public keys and proves that its maker has the
secret ones. A kit is the same for all but for whom it is made out to: it names the hub, the authority behind the hub's
certificate, and every participant with its keys, which is what a party pins.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import AfterValidator, AwareDatetime, Field, StringConstraints, model_validator

from statfed.core.errors import UsageError
from statfed.core.identity import Identity
from statfed.core.pilot import PROTOCOL
from statfed.core.pilot.documents import seal, unseal
from statfed.core.pilot.words import words_of
from statfed.core.section import NAME, Section

VERSION = 1
"""Of both papers' form."""
Role = Literal["holder", "third-party"]
Name = Annotated[str, StringConstraints(pattern=f"^{NAME.pattern}$")]
PublicKey = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


def _node_key(text: str) -> str:
    try:
        key = load_pem_public_key(text.encode("ascii"))
    except ValueError:
        raise ValueError("got no public key in PEM; want one on the curve P-256") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("got another kind of key; want one on the curve P-256")
    return text


NodeKey = Annotated[str, StringConstraints(max_length=2000), AfterValidator(_node_key)]


class Request(Section):
    """What a party asks to be admitted with. proof: that it has the secret part of `node_key`, see `node_claim`."""

    name: Name
    role: Role
    identity: PublicKey
    node_key: NodeKey
    proof: Annotated[str, StringConstraints(pattern="^[0-9a-f]{2,200}$")]
    made: AwareDatetime
    protocol: int = Field(ge=1)

    @property
    def words(self) -> str:
        """What two people compare: name, role and both keys."""
        return words_of(self.name, self.role, self.identity, self.node_key)


class Participant(Section):
    """A party of the pilot, until when it is one, and the keys by which the others know it."""

    name: Name
    role: Role
    identity: PublicKey
    node_key: NodeKey
    until: AwareDatetime

    @property
    def words(self) -> str:
        """As those of its request."""
        return words_of(self.name, self.role, self.identity, self.node_key)


class Revoked(Section):
    """A key that is none of a party's any more, since when and why."""

    name: Name
    identity: PublicKey
    at: AwareDatetime
    reason: Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\p{C}]*$")]


class Roster(Section):
    """Who takes part. serial: grows with every change."""

    pilot: Name
    serial: int = Field(ge=0)
    participants: tuple[Participant, ...] = ()
    revoked: tuple[Revoked, ...] = ()

    @model_validator(mode="after")
    def _apart(self) -> "Roster":
        names = [one.name for one in self.participants]
        keys = [key for one in self.participants for key in (one.identity, one.node_key)]
        if len(set(names)) != len(names) or len(set(keys)) != len(keys):
            raise ValueError("got a name or a key twice; want a participant each, and its own keys")
        if {one.identity for one in self.revoked} & set(keys):
            raise ValueError("got a revoked key as a participant's; want a new one")
        return self

    def participant(self, name: str) -> Participant | None:
        """The participant of this name."""
        return next((one for one in self.participants if one.name == name), None)


class Kit(Section):
    """What the coordinator signs. party: whom it is made out to; address: the hub, HOST:PORT; authority: in PEM."""

    party: Name
    address: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.:\[\]-]+:[0-9]{1,5}$", max_length=300)]
    authority: Annotated[str, StringConstraints(max_length=4000)]
    issued: AwareDatetime
    protocol: int = Field(ge=1)
    roster: Roster


@dataclass(frozen=True)
class SignedKit:
    """A kit, the coordinator's public key, which signed it, and the document as it came."""

    kit: Kit
    coordinator: str
    text: str = field(repr=False)

    @property
    def words(self) -> str:
        """What two people compare: the pilot, the coordinator's key and the authority."""
        return words_of(self.kit.roster.pilot, self.coordinator, self.kit.authority)


def make_request(identity: Identity, role: Role, node: ec.EllipticCurvePrivateKey, node_key: str, at: datetime) -> str:
    """The request of a party that has these keys. node_key: the public part of `node`, in PEM."""
    proof = node.sign(node_claim(identity.name, identity.public), ec.ECDSA(hashes.SHA256())).hex()
    request = Request(
        name=identity.name,
        role=role,
        identity=identity.public,
        node_key=node_key,
        proof=proof,
        made=at,
        protocol=PROTOCOL,
    )
    return seal("request", VERSION, request, identity)


def read_request(text: str, where: str) -> Request:
    """A request whose maker has both secret keys. Raises UsageError."""
    request, key = unseal(text, "request", VERSION, Request, where)
    if key != request.identity:
        raise UsageError(f"{where}: got a request signed by another key than it names; want it as it was made")
    node = load_pem_public_key(request.node_key.encode("ascii"))
    try:
        if not isinstance(node, ec.EllipticCurvePublicKey):
            raise InvalidSignature
        node.verify(bytes.fromhex(request.proof), node_claim(request.name, key), ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        raise UsageError(f"{where}: got a node key without proof that its maker has it; want a new request") from None
    check_protocol(request.protocol, where)
    return request


def make_roster(roster: Roster, coordinator: Identity) -> str:
    """The roster, signed."""
    return seal("roster", VERSION, roster, coordinator)


def read_roster(text: str, where: str) -> tuple[Roster, str]:
    """A roster as it was signed, and by whom. Raises UsageError."""
    return unseal(text, "roster", VERSION, Roster, where)


def make_kit(kit: Kit, coordinator: Identity) -> str:
    """The kit, signed."""
    return seal("kit", VERSION, kit, coordinator)


def read_kit(text: str, where: str) -> SignedKit:
    """A kit as it was signed, and by which key, which is not known here to be the coordinator's. Raises UsageError."""
    kit, key = unseal(text, "kit", VERSION, Kit, where)
    check_protocol(kit.protocol, where)
    return SignedKit(kit, key, text)


def check_protocol(got: int, where: str) -> None:
    """Raise UsageError unless this installation speaks the protocol of a paper."""
    if got != PROTOCOL:
        raise UsageError(
            f"{where}: got protocol {got}; want {PROTOCOL}, which this version of statfed speaks: "
            f"{'upgrade statfed here' if got > PROTOCOL else 'its maker has to upgrade statfed'}"
        )


def node_claim(name: str, identity: str) -> bytes:
    """What a node key signs: it is this party's, and no other's can be put in its place."""
    return f"statfed.pilot.node/{VERSION}\n{name}\n{identity}".encode("ascii")
