"""Who a party is: a long-term Ed25519 key (RFC 8032), and the public keys that it has pinned for the others.

A home folder holds `identity.key` (secret, mode 0600). The other parties' public keys stand in its policy under
[parties], where its organisation has put them after comparing them outside this system: keys never come from the
coordinator, so that it cannot take a party's place.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from statfed.core.errors import Refused, UsageError

FILE = "identity.key"


@dataclass(frozen=True)
class Identity:
    """A party's own key and the pinned public keys of the others: name to 64 hexadecimal digits."""

    name: str
    _key: Ed25519PrivateKey = field(repr=False)
    pins: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def ephemeral(cls, name: str, pins: Mapping[str, str] | None = None) -> "Identity":
        """A key that nobody has pinned yet and that is written nowhere."""
        return cls(name, Ed25519PrivateKey.generate(), dict(pins or {}))

    @property
    def public(self) -> str:
        """The public key, as it is pinned elsewhere."""
        return self._key.public_key().public_bytes_raw().hex()

    def sign(self, message: bytes) -> bytes:
        """64 bytes. `message` has to begin with what it is about, so that it means nothing elsewhere."""
        return self._key.sign(message)

    def certify(self, certificate: x509.CertificateBuilder) -> x509.Certificate:
        """A certificate signed by this key: no message that `sign` is given can be one, since those begin with what
        they are about."""
        return certificate.sign(self._key, None)

    def verify(self, name: str, message: bytes, signature: bytes) -> None:
        """Raises Refused when no key is pinned for `name`, or `signature` of `message` is not by that key."""
        pin = self.public if name == self.name else self.pins.get(name)
        if pin is None:
            raise Refused(f"identity: no public key pinned for {name}; want it under [parties] in policy.toml")
        try:
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(pin)).verify(signature, message)
        except (InvalidSignature, ValueError):
            raise Refused(f"identity: got a signature that is not by {name}'s pinned key") from None


def create_identity(home: Path) -> str:
    """The public key of the identity in `home`, which is made when there is none."""
    path = home / FILE
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(Ed25519PrivateKey.generate().private_bytes_raw().hex().encode() + b"\n")
    return load_identity(home, "", {}).public


def load_identity(home: Path, name: str, pins: Mapping[str, str]) -> Identity:
    """The identity in a home folder. Raises UsageError, in words that may travel, when it is missing or damaged."""
    try:
        key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex((home / FILE).read_text(encoding="ascii").strip()))
    except FileNotFoundError:
        raise UsageError(f"identity: no {FILE} in the home folder; want one, made by `statfed identity`") from None
    except (OSError, ValueError):
        raise UsageError(f"identity: {FILE} cannot be read; want 64 hexadecimal digits") from None
    return Identity(name, key, dict(pins))
