"""What can be known of a linkage's keys before units are matched: how holders store them, and how they are compared.

Nothing here looks at a value. Where one person has all data, as in a simulation, the types that columns are stored as
are looked at too: a number that is compared as it is with a text matches nothing where the text has leading zeros, and
no figure would say why. Across organisations codebooks have to be the same in type and rule, and are.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from statfed.client.data.tables import connect
from statfed.core.codebook import Codebook
from statfed.core.errors import UsageError
from statfed.core.linkage import Linking
from statfed.core.linkkeys import Piece, read_key

NAMES = frozenset(
    (
        *("name", "names", "surname", "forename", "firstname", "lastname", "fullname", "nome", "cognome", "naam"),
        *("achternaam", "voornaam", "nom", "prenom", "vorname", "nachname", "nombre", "apellido", "navn", "namn"),
    )
)
"""Words of a column's name by which it may have names of people or firms."""


def check_stored(linking: Linking, codebook: Codebook, sources: Mapping[str, str], base: Path) -> None:
    """Raises UsageError where a column that is compared as it is written, without anybody having said so, is stored as
    numbers by one holder and as texts by another."""
    for piece in _as_written(linking, codebook):
        kinds = {name: _kind(source, base, piece.column) for name, source in sources.items()}
        numbers, texts = (sorted(name for name in kinds if kinds[name] == kind) for kind in ("numbers", "texts"))
        if numbers and texts:
            column = piece.column
            raise UsageError(
                f"key: {column}: got numbers at {', '.join(numbers)} and texts at {', '.join(texts)}, compared as they "
                f"are written: 7 is not 007; want a rule that makes one of both, as {column}:digits(9) for nine "
                f"digits, or {column}:exact if they are written alike"
            )


def doubts_of_keys(linking: Linking, codebook: Codebook) -> tuple[str, ...]:
    """Columns of names that are compared as they are written, by a codebook that was drafted, in words."""
    found = {piece.column for piece in _as_written(linking, codebook) if _words(piece.column) & NAMES}
    return tuple(
        f"{name}: compared as it is written, capitals and accents included, since it was drafted as an identifier; "
        f"want {name}:name in the key if it has names"
        for name in sorted(found)
    )


def _as_written(linking: Linking, codebook: Codebook) -> Sequence[Piece]:
    """Pieces of a key that nobody has given a rule, of a type whose rule changes nothing."""
    written = linking.key.replace(",", "+").split("+")
    pieces = [piece for part in read_key(linking.key, codebook) for piece in part.pieces]
    return [
        piece
        for text, piece in zip(written, pieces, strict=True)
        if piece.rule.name == "exact" and codebook.columns[piece.column].key is None and not _ruled(text)
    ]


def _ruled(written: str) -> bool:
    """Does a piece of a key say its rule? The colon of a range is in brackets."""
    return ":" in written.partition("[")[0]


def _kind(source: str, base: Path, column: str) -> str:
    with connect(source, base) as opened:
        schema: Any = opened.expr.schema()
        if column not in schema:
            return ""
        return "numbers" if schema[column].is_numeric() else "texts" if schema[column].is_string() else ""


def _words(name: str) -> set[str]:
    return set(name.casefold().replace("-", "_").replace(" ", "_").split("_"))
