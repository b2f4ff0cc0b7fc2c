"""What an agreement says of a linkage: what is matched and by which rules, who sends what to whom, how good it is."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from statfed.core.keyrules import CHECKS, RULES
from statfed.core.linkage import InPlace, Linking, asked, load_linkage
from statfed.core.linkkeys import KeyPart, read_key
from statfed.core.protection import named_protection
from statfed.core.result import Result
from statfed.core.section import Section
from statfed.core.terms import Terms
from statfed.federation.annex.flow import Flow, flow_of

WHAT = {
    "size": "the number of matched units",
    "totals": "figures over the matched",
    "pairs": "the pairs, at the holders named",
}


@dataclass(frozen=True)
class Piece:
    """One column of a key's part. use: key, block or salt; form: what becomes of a value; check: what has to hold."""

    use: str
    part: str
    column: str
    rule: str
    form: str
    check: str


@dataclass(frozen=True)
class Option:
    """One thing that the parties agree on beside the key."""

    name: str
    value: str
    about: str


@dataclass(frozen=True)
class Estimate:
    """One figure of a linkage's result. low, high: its limits, where it has some."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Linked:
    """A study's linkage. quality: what the linkage says of how good its links are; estimates: of a result, none before
    there is one; similar: are keys compared by likeness?"""

    name: str
    key: str
    reveal: str
    to: tuple[str, ...]
    minimum_frequency: int
    cap: int | None
    similar: bool
    third_parties: tuple[str, ...]
    pieces: tuple[Piece, ...]
    options: tuple[Option, ...]
    flow: Flow
    quality: tuple[str, ...] = ()
    estimates: tuple[Estimate, ...] = field(default=())


def linked_of(terms: Terms, result: Result | None = None) -> Linked | None:
    """What the annex says of a study's linkage, and of its result; None where it has none.

    Raises UsageError where the linkage does not suit the study, or is not installed.
    """
    place, linking = named_protection(terms.protection.name, terms.protection.options)
    if not isinstance(place, InPlace) or not isinstance(linking, Linking):
        return None
    module = load_linkage(terms.protection.name)
    read = asked(terms, linking, module)
    return Linked(
        name=terms.protection.name,
        key=linking.key,
        reveal=WHAT[linking.reveal],
        to=linking.to,
        minimum_frequency=linking.minimum_frequency,
        cap=linking.cap,
        similar=module.PARTED,
        third_parties=place.third_parties(linking),
        pieces=tuple(_pieces(terms, linking)),
        options=tuple(_options(module.agreed(read), linking)),
        flow=flow_of(terms, place, read),
        quality=tuple(getattr(module, "QUALITY", ())),
        estimates=tuple(_estimates(result)) if result else (),
    )


def _pieces(terms: Terms, linking: Linking) -> Iterator[Piece]:
    """The columns of the key, of blocks and of the salt: the same at every holder, as the study was read."""
    codebook = terms.codebook_of(terms.holders[0])
    written = {"key": linking.key, "block": linking.block, "salt": linking.salt}
    for use, text in written.items():
        for part in read_key(text, codebook, use) if text else ():
            yield from _of_part(use, part)


def _of_part(use: str, part: KeyPart) -> Iterator[Piece]:
    for piece in part.pieces:
        rule = piece.rule.name
        form = _first_line(RULES[rule].__doc__)
        width = f", filled up to {piece.rule.width} digits" if piece.rule.width else ""
        cut = (
            f", characters {piece.start or ''}:{piece.stop or ''}" if (piece.start, piece.stop) != (None, None) else ""
        )
        check = _first_line(CHECKS[rule].__doc__) if rule in CHECKS else ""
        yield Piece(use, part.name, piece.column, str(piece.rule), f"{form}{width}{cut}", check)


def _first_line(text: str | None) -> str:
    return (text or "").partition("\n")[0].strip().rstrip(".")


def _options(agreed: Section, linking: Linking) -> Iterator[Option]:
    """What the linkage's own agreement has beyond what the study says of every linkage, as far as it is plain."""
    said = set(type(linking).model_fields)
    for name, info in type(agreed).model_fields.items():
        value = getattr(agreed, name)
        plain = value is not None or {str, int, float} & set(get_args(info.annotation))
        if name not in said and isinstance(value, str | int | float | None) and value != "" and plain:
            yield Option(name, "as described" if value is None else str(value), info.description or "")


def _estimates(result: Result) -> Iterator[Estimate]:
    """Figures with limits among the rows of a table that is one row: `precision`, `precision_lower`, ..."""
    for rows in result.tables.values():
        if len(rows) != 1:
            continue
        row: Mapping[str, Any] = rows[0]
        for name, value in row.items():
            low, high = row.get(f"{name}_lower"), row.get(f"{name}_upper")
            single = not name.endswith(("_lower", "_upper")) and isinstance(value, int | float)
            if single and not isinstance(value, bool):
                yield Estimate(name.replace("_", " "), float(value), low, high)
