"""The coordinator's folder of a pilot: its authority, the hub's certificate, who takes part, and everybody's kit.

    pilot.toml                      name, host and port: what its owner may read; [limits] of the hub
    identity.key                    the coordinator's key, which signs roster and kits
    authority/ authority.key .pem   of the hub's certificate; nobody else has to trust it
    hub/ server.key server.pem      renewed without a change for the parties
    roster.json                     signed: participants and revoked keys
    kits/NAME.kit                   what each party joins with, written anew at every change
    audit.jsonl                     signed: what was done here, sent and received

Nothing in it is a secret of another party: their keys never leave them.
"""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import Field, ValidationError

from statfed.core import toml
from statfed.core.errors import UsageError
from statfed.core.identity import Identity, create_identity, load_identity
from statfed.core.pilot import PROTOCOL
from statfed.core.pilot.audit import record
from statfed.core.pilot.certificates import (
    Authority,
    new_authority,
    new_key,
    server_certificate,
    server_pem,
)
from statfed.core.pilot.documents import read_document
from statfed.core.pilot.files import replace_file, write_secret
from statfed.core.pilot.papers import (
    Kit,
    Name,
    Participant,
    Request,
    Revoked,
    Roster,
    make_kit,
    make_roster,
    read_roster,
)
from statfed.core.section import Section, describe, read_toml
from statfed.core.turns import in_turn
from statfed.server.limits import Limits

FILE = "pilot.toml"
ROSTER = "roster.json"
AUTHORITY_DAYS = 5 * 365
SERVER_DAYS = 365
PARTICIPANT_DAYS = 365


class Settings(Section):
    """What pilot.toml says. also: further names or addresses by which parties call the hub."""

    name: Name
    host: str = Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9.:-]+$")
    port: int = Field(ge=1, le=65535)
    also: tuple[str, ...] = ()
    protocol: int = PROTOCOL

    @property
    def address(self) -> str:
        """HOST:PORT, as parties call it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Office:
    """An open folder of a pilot."""

    root: Path
    settings: Settings
    identity: Identity
    limits: Limits

    @property
    def roster(self) -> Roster:
        """Who takes part. Raises UsageError where the file was edited."""
        path = self.root / ROSTER
        roster, key = read_roster(read_document(path), str(path))
        if key != self.identity.public or roster.pilot != self.settings.name:
            raise UsageError(f"{path}: got a roster of another pilot or coordinator; want the one that was signed here")
        return roster

    @property
    def authority(self) -> Authority:
        """The pilot's own authority."""
        folder = self.root / "authority"
        try:
            certificate = x509.load_pem_x509_certificate((folder / "authority.pem").read_bytes())
            key = load_pem_private_key((folder / "authority.key").read_bytes(), None)
        except (OSError, ValueError) as error:
            what = error.strerror if isinstance(error, OSError) else "damaged"
            raise UsageError(f"{folder}: authority cannot be read ({what}); want it as `pilot init` made it") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise UsageError(f"{folder}: got a key that is not that of the certificate; want both from one backup")
        return Authority(certificate, key)

    def sign(self, request: Request, days: int = PARTICIPANT_DAYS) -> Path:
        """Admit a party, or renew it where it has the same keys, for so many days. Its kit; all others are written
        anew, since they name it. Raises UsageError where the name is another's or a key was revoked."""
        with self._alone():
            roster, until = self.roster, _now() + timedelta(days=days)
            if any(one.identity == request.identity for one in roster.revoked):
                raise UsageError(f"{request.name}: got a key that was revoked; want a request with new ones")
            there = roster.participant(request.name)
            if there and (there.identity, there.node_key, there.role) != (
                request.identity,
                request.node_key,
                request.role,
            ):
                raise UsageError(
                    f"{request.name}: got other keys or another role than it takes part with; "
                    f"want the same, or `statfed pilot revoke {request.name}` first"
                )
            made = Participant(
                name=request.name,
                role=request.role,
                identity=request.identity,
                node_key=request.node_key,
                until=until,
            )
            others = tuple(one for one in roster.participants if one.name != request.name)
            record(self.root, "signed", made.model_dump(mode="json"))
            self._publish(roster, (*others, made), roster.revoked)
        return self.kit(request.name)

    def revoke(self, name: str, reason: str) -> Participant:
        """Take a party's keys out; it takes part no more, and its keys never will again."""
        with self._alone():
            roster = self.roster
            found = roster.participant(name)
            if found is None:
                known = ", ".join(one.name for one in roster.participants) or "nobody"
                raise UsageError(f"participant: got {name}; want one of those taking part: {known}")
            gone = Revoked(name=name, identity=found.identity, at=_now(), reason=reason)
            record(self.root, "revoked", gone.model_dump(mode="json"))
            self._publish(
                roster, tuple(one for one in roster.participants if one.name != name), (*roster.revoked, gone)
            )
            self.kit(name).unlink(missing_ok=True)
        return found

    def renew(self, days: int = SERVER_DAYS) -> datetime:
        """A new key and certificate for the hub, under the same authority, so that no kit changes. Until when."""
        with self._alone():
            record(self.root, "renewed", {"days": days})
            return _certify(self.root, self.settings, self.authority, days)

    def kit(self, name: str) -> Path:
        """Where a party's kit is."""
        return self.root / "kits" / f"{name}.kit"

    def _publish(self, before: Roster, participants: Sequence[Participant], revoked: Sequence[Revoked]) -> None:
        """Sign the next roster, then every kit. A roster without its kits is mended by the next change or `sign`."""
        try:
            roster = Roster(
                pilot=before.pilot,
                serial=before.serial + 1,
                participants=tuple(sorted(participants, key=lambda one: one.name)),
                revoked=tuple(revoked),
            )
        except ValidationError as error:
            raise UsageError(describe(error, "roster", "a party each, and its own keys", Roster)) from None
        replace_file(self.root / ROSTER, make_roster(roster, self.identity))
        authority, at = self.authority.pem.decode("ascii"), _now()
        for one in roster.participants:
            kit = Kit(
                party=one.name,
                address=self.settings.address,
                authority=authority,
                issued=at,
                protocol=PROTOCOL,
                roster=roster,
            )
            replace_file(self.kit(one.name), make_kit(kit, self.identity))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the folder for one change."""
        with in_turn(self.root / FILE):
            yield


def create(root: Path, settings: Settings) -> Office:
    """Make a pilot's folder. Raises UsageError where there is one."""
    if root.exists() and any(root.iterdir()):
        raise UsageError(f"{root}: got a folder that is not empty; want a new one for a pilot")
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in ("authority", "hub", "kits"):
        (root / name).mkdir(mode=0o700)
    create_identity(root)
    authority = new_authority(f"statfed pilot {settings.name}", timedelta(days=AUTHORITY_DAYS))
    write_secret(root / "authority" / "authority.key", server_pem(authority.key))
    (root / "authority" / "authority.pem").write_bytes(authority.pem)
    _certify(root, settings, authority, SERVER_DAYS)
    identity = load_identity(root, "coordinator", {})
    replace_file(root / ROSTER, make_roster(Roster(pilot=settings.name, serial=0), identity))
    table: dict[str, Any] = settings.model_dump(mode="json")
    replace_file(root / FILE, "# The coordinator's folder of a pilot.\n" + toml.dumps({"pilot": table}))
    record(root, "created", {"address": settings.address, "protocol": settings.protocol})
    return open_office(root)


def open_office(root: Path) -> Office:
    """Open a pilot's folder. Raises UsageError where there is none, or it is not its owner's alone."""
    path = root / FILE
    table = read_toml(path, "pilot")
    try:
        settings = Settings.model_validate(table.get("pilot"))
    except ValidationError as error:
        raise UsageError(describe(error, f"{path}: pilot", ", ".join(Settings.model_fields), Settings)) from None
    try:
        limits = Limits.model_validate(table.get("limits", {}))
    except ValidationError as error:
        raise UsageError(describe(error, f"{path}: limits", ", ".join(Limits.model_fields), Limits)) from None
    if settings.protocol != PROTOCOL:
        raise UsageError(f"{path}: got protocol {settings.protocol}; want {PROTOCOL}, which this statfed speaks")
    for folder in (root, root / "authority", root / "hub", root / "kits"):
        if folder.exists() and (mode := folder.stat().st_mode & 0o777) & 0o022:
            raise UsageError(f"{folder}: got mode {mode:04o}, open to others; want: chmod go-w {folder}")
    for secret in (root / "identity.key", root / "authority" / "authority.key", root / "hub" / "server.key"):
        if secret.exists() and (mode := secret.stat().st_mode & 0o777) & 0o077:
            raise UsageError(f"{secret}: got mode {mode:04o}, open to others; want: chmod 600 {secret}")
    return Office(root, settings, load_identity(root, "coordinator", {}), limits)


def _certify(root: Path, settings: Settings, authority: Authority, days: int) -> datetime:
    """A new key and certificate of the hub, both or neither where a running hub looks: the certificate is last."""
    key = new_key()
    hosts = tuple(dict.fromkeys((settings.host, *settings.also, "localhost", "127.0.0.1")))
    pem = server_certificate(authority, settings.name, hosts, key.public_key(), timedelta(days=days))
    draft = write_secret(root / "hub" / f".{secrets.token_hex(4)}.key", server_pem(key))
    draft.replace(root / "hub" / "server.key")
    replace_file(root / "hub" / "server.pem", pem.decode("ascii"))
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
