"""Targets: papers of a pilot, damaged on the way or signed by somebody hostile."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import strategies as st
from pydantic import BaseModel

from statfed.core.errors import UsageError
from statfed.core.identity import Identity
from statfed.core.pilot.certificates import new_key, public_pem
from statfed.core.pilot.documents import read_document, seal
from statfed.core.pilot.papers import (
    VERSION,
    Kit,
    Participant,
    Revoked,
    Roster,
    make_kit,
    make_request,
    make_roster,
    read_kit,
    read_request,
    read_roster,
)
from statfed.core.pilot.proposals import Decision, Proposal, make_decision, make_proposal, read_decision, read_proposal
from statfed.core.section import NAME
from statfed.core.terms import Terms
from tests.fuzz.mutations import blobs, documents
from tests.fuzz.trial import Target

TERMS = {
    "method": "mean",
    "options": {"columns": ["age"]},
    "codebook": {"columns": {"age": {"type": "integer", "low": 0, "high": 120}}},
    "holders": ["istat", "cbs"],
    "seed": None,
}
NAMES = (
    *(
        "ist\u0430t",
        "ＩＳＴＡＴ",
        "istat\u200b",
        "istat\n",
        "İstat",
        "istat ",
        "",
        "-a",
        "a" * 41,
        "ISTAT",
        "cbs\u0301",
    ),
    *("../istat", "..", "a/b", "/etc/passwd", "a\\b", "~root", "a\0b", ".hidden", "CON:", "\x1b[2J", "\u202etatsi"),
)
"""Names that look like others, or that are no names of files."""


class _Anything:
    """Stands for a body that no model has made."""

    def __init__(self, body: object) -> None:
        self._body = body

    def model_dump(self, mode: str) -> object:
        return self._body


def resealed(kind: str, body: object, identity: Identity) -> str:
    """A document of any body, signed by somebody who signs anything."""
    made: Any = _Anything(body)
    return seal(kind, VERSION, made, identity)


def _signed(read: Callable[[str, str], object], kind: str, identity: Identity, body: object, _folder: Path) -> None:
    try:
        text = resealed(kind, body, identity)
    except (ValueError, TypeError, RecursionError):  # nobody can write it down
        raise UsageError("no document") from None
    _named(read(text, "paper"))


def _damaged(read: Callable[[str, str], object], raw: bytes, folder: Path) -> None:
    path = folder / "paper"
    path.write_bytes(raw)
    _named(read(read_document(path), "paper"))


def _named(paper: object) -> None:
    """Every name in what was read is one: it stands for a file and on a screen."""
    for key, value in _strings(paper):
        if key in ("name", "party", "pilot") and not NAME.fullmatch(value):
            raise AssertionError(f"a name that is none: {value!r}")
        if key in ("reason", "address", "title", "purpose", "by") and not value.isprintable():
            raise AssertionError(f"a {key} that is not printable: {value!r}")


def _strings(value: Any) -> list[tuple[str, str]]:
    for name in ("kit", "proposal", "decision"):
        if isinstance(getattr(value, name, None), BaseModel):
            return _strings(getattr(value, name))
    if isinstance(value, tuple):
        return [found for one in value if not isinstance(one, str) for found in _strings(one)]
    if hasattr(value, "model_dump"):
        return _strings(value.model_dump())
    found: list[tuple[str, str]] = []
    if isinstance(value, Mapping):
        for key, below in value.items():
            found += [(key, below)] if isinstance(below, str) else _strings(below)
    return found


def samples() -> dict[str, tuple[Callable[[str, str], object], dict[str, Any], str]]:
    """How each kind of paper is read, the body of a good one, and the document."""
    identity, node, now = signer(), new_key(), datetime.now(UTC).replace(microsecond=0)
    key = public_pem(node).decode("ascii")
    request = make_request(identity, "holder", node, key, now)
    one = Participant(name="istat", role="holder", identity="11" * 32, node_key=key, until=now + timedelta(days=9))
    gone = Revoked(name="cbs", identity="22" * 32, at=now, reason="left")
    roster = Roster(pilot="trade", serial=3, participants=(one,), revoked=(gone,))
    kit = Kit(party="istat", address="hub.example:8443", authority="PEM", issued=now, protocol=1, roster=roster)
    terms = Terms.model_validate(TERMS)
    proposal = Proposal(
        pilot="trade",
        number=7,
        title="Ages",
        purpose="a table",
        method="mean",
        parties=("cbs", "istat"),
        study="{}",
        terms=terms.model_dump_json(),
        digest=terms.digest(),
        runs=2,
        made=now,
        until=now + timedelta(days=9),
        protocol=1,
    )
    decision = Decision(
        pilot="trade",
        number=7,
        proposal="33" * 32,
        study=terms.digest(),
        party="istat",
        choice="approved",
        since=now,
        until=now + timedelta(days=9),
        runs=1,
        rounds=5,
        keys={"cbs": "22" * 32},
        at=now,
    )
    return {
        "proposal": (read_proposal, proposal.model_dump(mode="json"), make_proposal(proposal, identity).text),
        "decision": (read_decision, decision.model_dump(mode="json"), make_decision(decision, identity).text),
        "request": (read_request, json.loads(request)["body"], request),
        "roster": (read_roster, roster.model_dump(mode="json"), make_roster(roster, identity)),
        "kit": (read_kit, kit.model_dump(mode="json"), make_kit(kit, identity)),
    }


def signer() -> Identity:
    """The same at every run."""
    return Identity("istat", Ed25519PrivateKey.from_private_bytes(bytes(32)))


def targets(_folder: Path) -> tuple[Target, ...]:
    """Each kind of paper, damaged and signed."""
    found = []
    for kind, (read, body, text) in samples().items():
        raw = text.encode()
        bombs = (b"", b"[" * 100_000, raw[:-2] + b',"body":{}}', b" " * (5 * 2**20), b"\xff\xfe" + raw, raw * 2)
        found.append(Target(f"{kind} damaged", blobs(raw), partial(_damaged, read), bombs))
        names = st.sampled_from(NAMES).map(partial(_renamed, body))
        signed = documents(body) | names
        deep: Any = body | {"x": json.loads("[" * 400 + "]" * 400)}
        found.append(Target(f"{kind} signed", signed, partial(_signed, read, kind, signer()), (deep, [], None, {})))
    return tuple(found)


def _renamed(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A body in which every name is another."""

    def change(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: name if k in ("name", "party", "pilot") else change(v) for k, v in value.items()}
        return [change(one) for one in value] if isinstance(value, list) else value

    made: dict[str, Any] = change(dict(body))
    return made
