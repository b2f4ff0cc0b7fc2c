"""`statfed identity`: a party's public key, and what the others write into their policies about it."""

import tomllib
from pathlib import Path
from typing import Annotated

import typer

from statfed.cli._output import Json, emit_json, out, say
from statfed.core import toml
from statfed.core.errors import UsageError

SECTIONS = {"policy.toml": "holder", "party.toml": "party"}


def identity(
    home: Annotated[Path, typer.Argument(help="The party's home folder; it is made when there is none.")],
    name: Annotated[
        str | None, typer.Option(help="The party's name, where no policy.toml or party.toml says it yet.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Create or show the identity of a data holder, a key holder or a compute node.

    The secret key stays in HOME/identity.key. Give the printed lines to every other party's administrator, who compares
    them with you outside this system (by telephone, say) and puts them into their own policy.toml or party.toml.
    """
    from statfed.core.identity import FILE, create_identity
    from statfed.core.section import NAME

    written = _written(home)
    if name and written and name != written:
        raise UsageError(f"--name: got {name}; the file in {home} says {written}")
    chosen = name or written
    if not chosen:
        raise UsageError(f"{home}: got neither policy.toml nor party.toml; want --name NAME")
    if not NAME.fullmatch(chosen):
        raise UsageError(f"--name: got {chosen!r}; want lower-case letters, digits and hyphens, 40 at most")
    there = (home / FILE).exists()
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = create_identity(home)
    except OSError as error:
        raise UsageError(f"{home}: got {error.strerror}; want a folder that this user can write to") from None
    parties = toml.dumps({"parties": {chosen: key}})
    if as_json:
        emit_json(
            {
                "name": chosen,
                "public_key": key,
                "created": not there,
                "file": str(home / FILE),
                "parties": parties,
            }
        )
        return
    say(f"{'found' if there else 'created'} {home / FILE}; it is secret and stays there")
    out.print(parties.rstrip(), highlight=False, markup=False, soft_wrap=True)


def _written(home: Path) -> str:
    """The name in a home folder's own file; empty when there is none."""
    for file, section in SECTIONS.items():
        if (home / file).exists():
            try:
                return str(tomllib.loads((home / file).read_text(encoding="utf-8"))[section]["name"])
            except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError):
                raise UsageError(f"{home / file}: got no readable [{section}] name; want one") from None
    return ""
