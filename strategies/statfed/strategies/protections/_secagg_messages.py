"""What travels in the stages of secure aggregation, and the derivations that both sides share.

A packet is JSON in `body`, byte strings as hexadecimal digits, beside arrays for what is large. Every signature, digest
and derived key is over the run's agreement, its purpose and further facts (`Binding`), so that it means nothing
anywhere else.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, TypeVar

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray
from pydantic import Field, StringConstraints, ValidationError

from statfed.core.errors import EngineError, Refused, harmless
from statfed.core.identity import Identity
from statfed.core.protection import Agreement, Packet
from statfed.core.section import Section

Hex = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{2})*$")]
Hex32 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Hex33 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{66}$")]
Hex64 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]
Number = Annotated[int, Field(ge=1, lt=2**31)]


class Commitment(Section):
    """A member's word for the nonce that it will show. digest: SHA-256 of it, bound to name and setup."""

    digest: Hex32
    signature: Hex64


class Bundle(Section):
    """A member's public keys for one setup, signed.

    key: X25519, for pair keys (without dropout) or for encrypted shares (with); masks: one X25519 key a sum; seeds: a
    commitment to each sum's self-mask seed; nonce: what it had committed to; all empty where not needed.
    """

    key: Hex32
    masks: tuple[Hex32, ...] = ()
    seeds: tuple[Hex32, ...] = ()
    nonce: Hex = ""
    signature: Hex64


class Setup(Section):
    """Asks for commitments (stage `commit`) or keys (stage `keys`). commitments: of all members, with a ring."""

    setup: Number
    commitments: dict[str, Commitment] = Field(default_factory=dict)


class Share(Section):
    """Stage `share`: every member's keys. Answered by an array `shares`, uint8 (others among the keepers of one's
    secrets, bytes), in the order of their names."""

    setup: Number
    bundles: dict[str, Bundle]


class Upload(Section):
    """Stage `upload`, which carries the request. Answered by `words` and `Uploaded`.

    The first one of a setup brings, without dropout, `bundles` of all; with dropout, `members` (who sent shares) and an
    array `inbox`, uint8, what the neighbours among them had sent, in the order of their names.
    """

    setup: Number
    number: Number
    bundles: dict[str, Bundle] | None = None
    members: tuple[str, ...] | None = None


class Uploaded(Section):
    """Beside the masked words: digest of layout and request, for which the masks hold; with dropout, a signature of
    that and of the members that the masks are shared with."""

    request: Hex32
    signature: Hex = ""


class Roster(Section):
    """Stage `roster`: whose uploads arrived, each with its signature. Answered by `Signed`."""

    setup: Number
    number: Number
    survivors: dict[str, Hex64]


class Signed(Section):
    """A signature of a list of survivors."""

    signature: Hex64


class Unmask(Section):
    """Stage `unmask`: signatures, by name, of the list that the party itself signed. Answered by `Revealed`."""

    setup: Number
    number: Number
    signatures: dict[str, Hex64]


class Revealed(Section):
    """Shares by name of whom they are about. seeds: of survivors' self masks; masks: of dropped members' mask keys."""

    seeds: dict[str, Hex33]
    masks: dict[str, Hex33]


Kind = TypeVar("Kind", bound=Section)


def body(message: Section, **arrays: NDArray[Any]) -> Packet:
    """A packet."""
    return {"body": message.model_dump_json(exclude_defaults=True).encode(), **arrays}


def told_all(message: Section, names: Iterable[str]) -> dict[str, Packet]:
    """The same packet to everyone."""
    return dict.fromkeys(names, body(message))


def told(packet: Packet, kind: type[Kind]) -> Kind:
    """A party reads the coordinator's packet. Raises Refused on anything else than a `kind`."""
    try:
        return kind.model_validate_json(_text(packet))
    except ValidationError as error:
        raise Refused(f"secure-aggregation: got a packet that is no {kind.__name__}: {_keys(error)}") from None


def heard(packet: Packet, kind: type[Kind], name: str) -> Kind:
    """The coordinator reads a party's packet. Raises EngineError naming the party."""
    try:
        return kind.model_validate_json(_text(packet))
    except ValidationError as error:
        raise EngineError(f"{name}: got a packet that is no {kind.__name__}: {_keys(error)}") from None


def array_in(packet: Packet, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any] | None:
    """An array of a packet, None unless it is there with this form."""
    found = packet.get(name)
    return found if isinstance(found, np.ndarray) and found.shape == shape and found.dtype == dtype else None


def _text(packet: Packet) -> bytes:
    found = packet.get("body")
    return found if isinstance(found, bytes) else b""


def _keys(error: ValidationError) -> str:
    return harmless(", ".join(sorted({str(e["loc"][0]) if e["loc"] else "body" for e in error.errors()})), 200)


class Binding:
    """Facts of one run in front of everything that is signed, hashed or derived."""

    def __init__(self, agreement: Agreement) -> None:
        self._context = cache(lambda purpose: agreement.context(f"secure-aggregation/{purpose}"))

    def __call__(self, purpose: str, *facts: object) -> bytes:
        """The run's context for `purpose`, then `facts` as JSON."""
        return self._context(purpose) + json.dumps(facts, separators=(",", ":"), sort_keys=True).encode()

    def digest(self, purpose: str, *facts: object) -> str:
        """SHA-256 of that, hexadecimal."""
        return hashlib.sha256(self(purpose, *facts)).hexdigest()


def bundle_facts(bundle: Bundle) -> dict[str, Any]:
    """What a bundle's signature and a session's digest cover."""
    return bundle.model_dump(exclude={"signature"})


def sign_bundle(identity: Identity, binding: Binding, setup: int, among: str, keys: Mapping[str, Any]) -> Bundle:
    """A party's own keys, signed. among: digest of the commitments that it has seen, empty without a ring."""
    unsigned = Bundle(**keys, signature="0" * 128)
    message = binding("bundle", setup, identity.name, among, bundle_facts(unsigned))
    return unsigned.model_copy(update={"signature": identity.sign(message).hex()})


def check_bundles(
    identity: Identity, binding: Binding, setup: int, among: str, bundles: Mapping[str, Bundle], own: Bundle | None
) -> None:
    """Raises Refused unless every bundle is signed by its owner's pinned key and one's own is unchanged."""
    if own is None or bundles.get(identity.name) != own:
        raise Refused("secure-aggregation: got keys without this party's own; want those that it made")
    for name, bundle in sorted(bundles.items()):
        message = binding("bundle", setup, name, among, bundle_facts(bundle))
        identity.verify(name, message, bytes.fromhex(bundle.signature))


def session_of(binding: Binding, setup: int, bundles: Mapping[str, Bundle]) -> str:
    """What stands for a setup's members and all their keys."""
    return binding.digest("session", setup, {name: bundle_facts(one) for name, one in bundles.items()})


def derive(secret: bytes, info: bytes) -> bytes:
    """32 bytes: HKDF-SHA-256 (RFC 5869) without salt."""
    return HKDF(SHA256(), 32, None, info).derive(secret)


def shared(own: X25519PrivateKey, other: str, name: str) -> bytes:
    """X25519 (RFC 7748) with the key of `name`. Raises Refused on a key of small order."""
    try:
        return own.exchange(X25519PublicKey.from_public_bytes(bytes.fromhex(other)))
    except ValueError:
        raise Refused(f"secure-aggregation: got a key of {name} that is no X25519 key; want one") from None


def public(key: X25519PrivateKey) -> str:
    """Its public half, hexadecimal."""
    return key.public_key().public_bytes_raw().hex()


def named(names: Sequence[str]) -> str:
    """Names in a message, at most ten."""
    return ", ".join([*names[:10], *(["..."] if len(names) > 10 else [])]) or "nobody"
