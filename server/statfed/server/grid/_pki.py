"""Throw-away keys for one local federation: a certificate authority, the server's certificate, a key per holder.

The authority's private key is never written. Other private keys are files of mode 0600 in a folder of mode 0700 that
the caller made, and `forget` removes them as soon as the processes have read them.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = timedelta(days=7)
CLOCK_SKEW = timedelta(minutes=5)


@dataclass(frozen=True)
class Keys:
    """Files of one federation. authority: public certificate of the authority, in PEM; node_keys by holder name."""

    authority: Path
    certificate: Path
    server_key: Path
    node_keys: Mapping[str, Path]
    node_public: Mapping[str, bytes]

    def forget(self) -> None:
        """Remove every private key from the disk."""
        for path in (self.server_key, *self.node_keys.values()):
            path.unlink(missing_ok=True)


def create(folder: Path, holders: Iterable[str]) -> Keys:
    """Make all keys of a federation in `folder`, which only its owner may enter.

    The server's certificate is valid for 127.0.0.1 and localhost; all keys are on the NIST curve P-256.
    """
    authority = ec.generate_private_key(ec.SECP256R1())
    server = ec.generate_private_key(ec.SECP256R1())
    issuer = _name("statfed local authority")
    root = (
        _certificate(issuer, issuer, authority.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(authority, hashes.SHA256())
    )
    loopback = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
    leaf = (
        _certificate(_name("superlink"), issuer, server.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(loopback, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
        .sign(authority, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    node_keys: dict[str, Path] = {}
    node_public: dict[str, bytes] = {}
    for index, holder in enumerate(holders):
        key = ec.generate_private_key(ec.SECP256R1())
        node_keys[holder] = _secret(folder / f"node-{index}", _private(key, serialization.PrivateFormat.OpenSSH))
        node_public[holder] = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    certificate, authority_file = folder / "server.pem", folder / "authority.pem"
    authority_file.write_bytes(root.public_bytes(pem))
    certificate.write_bytes(leaf.public_bytes(pem))
    server_key = _secret(folder / "server.key", _private(server, serialization.PrivateFormat.PKCS8))
    return Keys(authority_file, certificate, server_key, node_keys, node_public)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + LIFETIME)
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


def _private(key: ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _secret(path: Path, content: bytes) -> Path:
    """Write a new file that only its owner can read; it never exists with wider rights."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    return path
