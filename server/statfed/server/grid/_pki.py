"""Throw-away keys for one local federation: a certificate authority, the server's certificate, a key per holder.

The authority's private key is never written. Other private keys are files of mode 0600 in a folder of mode 0700 that
the caller made, and `forget` removes them as soon as the processes have read them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from statfed.core.pilot.certificates import (
    new_authority,
    new_key,
    node_pem,
    public_pem,
    server_certificate,
    server_pem,
)
from statfed.core.pilot.files import write_secret

LIFETIME = timedelta(days=7)


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

    The server's certificate is valid for 127.0.0.1 and localhost.
    """
    authority = new_authority("statfed local authority", LIFETIME)
    server = new_key()
    node_keys: dict[str, Path] = {}
    node_public: dict[str, bytes] = {}
    for index, holder in enumerate(holders):
        key = new_key()
        node_keys[holder] = write_secret(folder / f"node-{index}", node_pem(key))
        node_public[holder] = public_pem(key)
    certificate, authority_file = folder / "server.pem", folder / "authority.pem"
    authority_file.write_bytes(authority.pem)
    hosts = ("localhost", "127.0.0.1")
    certificate.write_bytes(server_certificate(authority, "superlink", hosts, server.public_key(), LIFETIME))
    server_key = write_secret(folder / "server.key", server_pem(server))
    return Keys(authority_file, certificate, server_key, node_keys, node_public)
