"""Signed documents of a pilot: JSON that says its kind, who signed it, and what nobody can change unseen.

The signature (Ed25519, RFC 8032) is over the kind and the body in one canonical form, so that a document of one kind is
never one of another and white space does not matter. What a newer version has added is refused with that reason, not
ignored: it may be a restriction.
"""

import json
from pathlib import Path
from typing import Any, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import BaseModel, ValidationError

from statfed.core.errors import UsageError
from statfed.core.identity import Identity
from statfed.core.section import deep, describe

LARGEST = 4 * 2**20
"""Bytes of a document: thousands of participants."""
_FORMAT = "statfed.pilot.{}/{}"
_KEYS = {"format", "body", "key", "signature"}

M = TypeVar("M", bound=BaseModel)


def seal(kind: str, version: int, body: BaseModel, identity: Identity) -> str:
    """The document with this body, signed by `identity`."""
    form, content = _FORMAT.format(kind, version), body.model_dump(mode="json")
    signature = identity.sign(_message(form, content)).hex()
    document = {"format": form, "body": content, "key": identity.public, "signature": signature}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def unseal(text: str, kind: str, version: int, model: type[M], where: str) -> tuple[M, str]:
    """The body of a document and the public key that signed it, which the caller has to know or to show.

    Raises UsageError, beginning with `where`, for what is no such document, or was changed after it was signed.
    """
    if len(text.encode("utf-8", "surrogatepass")) > LARGEST:
        raise UsageError(f"{where}: got more than {LARGEST} bytes; want a document of a pilot")
    document = _parsed(text, where)
    form = document["format"]
    want = _FORMAT.format(kind, version)
    if form != want:
        newer = isinstance(form, str) and form.startswith(_FORMAT.format(kind, "")) and form != want
        hint = ": made by another version of statfed" if newer else ""
        raise UsageError(f"{where}: got format {str(form)[:80]!r}; want {want!r}{hint}")
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(document["key"]))
        key.verify(bytes.fromhex(document["signature"]), _message(form, document["body"]))
    except (InvalidSignature, ValueError, TypeError):
        raise UsageError(
            f"{where}: got a {kind} that does not fit its signature; want it as it was sent: it was edited or damaged"
        ) from None
    try:
        return model.model_validate(document["body"]), key.public_bytes_raw().hex()
    except ValidationError as error:
        raise UsageError(describe(error, where, f"what this version of statfed knows of a {kind}", model)) from None


def read_document(path: Path) -> str:
    """The text of a document's file. Raises UsageError where there is none, or it cannot be one."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise UsageError(f"{path}: got more than {LARGEST} bytes; want a document of a pilot")
        return content.decode("utf-8")
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; want a document of a pilot") from None
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) else "no text"
        raise UsageError(f"{path}: cannot be read ({what}); want a document of a pilot") from None


def _parsed(text: str, where: str) -> dict[str, Any]:
    """The outer table. Raises UsageError."""
    try:
        found = json.loads(text, object_pairs_hook=_once, parse_float=_no_number, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise UsageError(f"{where}: got no readable JSON; want a document of a pilot") from None
    if not isinstance(found, dict) or set(found) != _KEYS or not isinstance(found["body"], dict) or deep(found):
        raise UsageError(f"{where}: got other JSON; want a document of a pilot: {', '.join(sorted(_KEYS))}")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A table whose keys stand in it once: two readers never see two documents."""
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key twice")
    return table


def _no_number(text: str) -> Any:
    raise ValueError(f"got {text}; a document holds whole numbers alone, which have one form")


def _message(form: str, body: object) -> bytes:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"{form}\n{canonical}".encode("utf-8", "surrogatepass")
