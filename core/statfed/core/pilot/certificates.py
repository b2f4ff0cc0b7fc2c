"""X.509 as a federation needs it: an authority of its own, and certificates of the one server that holders call.

Keys are on the NIST curve P-256, which Flower asks of nodes. An authority signs servers alone (path length 0), and
every certificate says for which hosts it is.

On a direct line between two parties there is no authority: each end's identity key (Ed25519) vouches for a passing key
of its own, and what the other end trusts is made from the pinned public key alone.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from statfed.core.identity import Identity

CLOCK_SKEW = timedelta(minutes=5)
PEM = serialization.Encoding.PEM


@dataclass(frozen=True)
class Authority:
    """An authority's certificate and its secret key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        """The certificate, which is public."""
        return self.certificate.public_bytes(PEM)


def new_key() -> ec.EllipticCurvePrivateKey:
    """A secret key."""
    return ec.generate_private_key(ec.SECP256R1())


def new_authority(name: str, lifetime: timedelta) -> Authority:
    """An authority that vouches for itself."""
    key, issuer = new_key(), _name(name)
    made = (
        _certificate(issuer, issuer, key.public_key(), lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(made, key)


def server_certificate(
    authority: Authority, name: str, hosts: Sequence[str], key: ec.EllipticCurvePublicKey, lifetime: timedelta
) -> bytes:
    """The certificate, in PEM, of a server that is called by these hosts: names or addresses. It never outlives the
    authority's own."""
    root = authority.certificate
    leaf = (
        _certificate(_name(name), root.subject, key, lifetime, root.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_host(one) for one in hosts]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return leaf.public_bytes(PEM)


def public_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The public part of a key."""
    return key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def server_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A secret key as servers read it."""
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def node_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A secret key as Flower's nodes read it."""
    return key.private_bytes(PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())


def pinned_host(public: str) -> str:
    """The name that a certificate on a direct line is for: that of the identity key, and no host's (RFC 6761).

    public: 64 hexadecimal digits.
    """
    return f"{hashlib.sha256(bytes.fromhex(public)).hexdigest()[:32]}.statfed.invalid"


def pinned_anchor(public: str, lifetime: timedelta) -> bytes:
    """In PEM, what to trust of a direct line: certificates that the identity key `public` has signed, and nothing else.

    It is made from the pinned key. Nobody looks at its own signature, which is by a key that is thrown away: it is
    trusted because of where it stands.
    """
    name, key = _name(public), Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
    return (
        _certificate(name, name, key, lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(Ed25519PrivateKey.generate(), None)
        .public_bytes(PEM)
    )


def pinned_certificate(identity: Identity, key: ec.EllipticCurvePublicKey, lifetime: timedelta) -> bytes:
    """In PEM, the certificate of a passing key, signed by a party's identity key, for both ends of a line."""
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    host = pinned_host(identity.public)
    leaf = (
        _certificate(_name(host), _name(identity.public), key, lifetime)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(both), critical=False)
        .add_extension(x509.SubjectAlternativeName([_host(host)]), critical=False)
    )
    return identity.certify(leaf).public_bytes(PEM)


def is_pinned(certificate: bytes, public: str) -> bool:
    """Is a certificate, in PEM, signed by the identity key `public`, and for it?"""
    try:
        found = x509.load_pem_x509_certificate(certificate)
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(found.signature, found.tbs_certificate_bytes)
    except (ValueError, InvalidSignature, x509.ExtensionNotFound):
        return False
    return names.get_values_for_type(x509.DNSName) == [pinned_host(public)]


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey | Ed25519PublicKey,
    lifetime: timedelta,
    latest: datetime | None = None,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    end = now + lifetime
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(end if latest is None else min(end, latest))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
