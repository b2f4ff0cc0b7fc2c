"""One codebook of several drafts: in a simulation, or of own files. Across organisations no draft leaves.

Types and levels that differ are named with who has them and how to mend it. What a message quotes of a column are
levels of drafts, which whoever unites them has before their eyes, and no value of a record.
"""

import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from unicodedata import normalize

from statfed.client.data.drafting import MISSING_WORDS, text_length
from statfed.core import toml
from statfed.core.codebook import Codebook, Column, iso_of, make_codebook
from statfed.core.errors import UsageError

_SHOWN = 20  # levels and holders named in a message


def union(drafts: Sequence[Codebook], names: Sequence[str] = ()) -> Codebook:
    """One codebook that fits all who drafted, whatever their order: levels united and sorted, bounds widened.

    names: of the holders, for messages. Raises UsageError that lists every column whose types have nothing in common
    or whose levels are spelt in several ways, with each holder's.
    """
    if not drafts:
        raise UsageError("got no codebooks; want at least one")
    named = list(zip(names or [f"table {i}" for i in range(1, len(drafts) + 1)], drafts, strict=True))
    places: dict[str, int] = {}
    for one in drafts:
        for place, name in enumerate(one.columns):
            places[name] = min(place, places.get(name, place))
    united, conflicts = {}, []
    for name in sorted(places, key=lambda name: (places[name], name)):
        entries = {holder: one.columns[name] for holder, one in named if name in one.columns}
        columns = list(entries.values())
        known = [column for column in columns if not _unknown(column)]
        kind = _common_type(known or columns[:1])
        if kind is None:
            conflicts.append(_types_differ(name, entries))
        elif kind == "array" and len({column.length for column in known}) > 1:
            lengths = ", ".join(map(str, sorted({column.length or 0 for column in known})))
            conflicts.append(f"{name}: got arrays of {lengths} entries at different holders; want one length")
        elif kind == "category" and (found := _levels_differ(name, entries)):
            conflicts.append(found)
        else:
            united[name] = _united(kind, columns)
    if conflicts:
        raise UsageError("\n".join(conflicts))
    design = drafts[0].design.model_dump() if all(one.design == drafts[0].design for one in drafts) else {}
    return make_codebook({"title": _first(one.title for one in drafts), "columns": united, "design": design})


def check_stated(codebook: Codebook, types: Mapping[str, str], levels: Mapping[str, Sequence[str]]) -> None:
    """Raises UsageError where a type or levels are stated of a column that no draft has."""
    for option, stated in (("--type", types), ("--levels", levels)):
        for name in stated:
            codebook.column(name, option)


def doubts(codebook: Codebook, stated: Collection[str] = ()) -> list[str]:
    """What of a draft's levels somebody should look at: those that read like a missing value, and pairs of levels that
    differ in spelling alone. stated: columns whose levels somebody did state."""
    found = []
    for name, column in codebook.columns.items():
        if column.type != "category" or name in stated:
            continue
        words = [code for code in column.levels if code in MISSING_WORDS]
        if words:
            found.append(
                f"{name}: the level{'s' * (len(words) > 1)} {', '.join(words)} read{'s' * (len(words) == 1)} like a "
                f"missing value, and count{'s' * (len(words) == 1)} as a category; if that is meant, "
                f"{toml.line('missing', words)} in the codebook"
            )
        spelt: dict[str, list[str]] = {}
        for code in column.levels:
            spelt.setdefault(folded(code), []).append(code)
        found += [
            f"{name}: the levels {', '.join(same)} differ in spelling alone" for same in spelt.values() if same[1:]
        ]
    return found


def folded(code: str) -> str:
    """A code up to capital letters, width and composition of signs, blanks and leading zeros."""
    text = re.sub(r"[\s_-]+", " ", normalize("NFKC", code).casefold()).strip()
    return text.lstrip("0") or "0" if text.isdigit() else text


def _types_differ(name: str, entries: Mapping[str, Column]) -> str:
    by: dict[str, list[str]] = {}
    for holder, column in entries.items():
        if not _unknown(column):
            by.setdefault(column.type, []).append(holder)
    got = "; ".join(f"{kind} at {_listed(holders)}" for kind, holders in sorted(by.items()))
    kinds = " or ".join(f"--type {argument(f'{name}={kind}')}" for kind in sorted({*by, "category"} - {"id"}))
    return (
        f"{name}: got types {', '.join(sorted(by))} at different holders: {got}; want one: a codebook, or {kinds} "
        "(statfed codebook check then names the records that are not of it)"
    )


def _levels_differ(name: str, entries: Mapping[str, Column]) -> str:
    """What to say where holders spell the same level in several ways, none of them using two; else empty."""
    spelt: dict[str, dict[str, None]] = {}
    for column in entries.values():
        for code in column.categories:
            spelt.setdefault(folded(code), {})[code] = None
    several = {key: sorted(codes) for key, codes in spelt.items() if len(codes) > 1}
    apart = [
        codes
        for codes in several.values()
        if all(sum(code in column.categories for code in codes) < 2 for column in entries.values())
    ]
    if not apart:
        return ""
    mixed = {code for codes in apart for code in codes}
    shown = [
        f"{holder} has {_listed([code for code in column.categories if code in mixed])}"
        for holder, column in entries.items()
        if mixed & {*column.categories}
    ]
    pairs = ", ".join(" = ".join(codes) for codes in apart[:_SHOWN])
    levels = sorted({code for column in entries.values() for code in column.categories})
    listed = argument(f"{name}={','.join(levels)}") if len(levels) <= _SHOWN else f"{argument(name)}=A,B,..."
    return (
        f"levels differ between holders: {name}: {'; '.join(shown)}; want one spelling of {pairs} at every holder, or "
        f"--levels {listed} where they are different levels"
    )


def _listed(texts: Sequence[str]) -> str:
    return ", ".join(texts[:_SHOWN]) + (", ..." if len(texts) > _SHOWN else "")


def argument(text: str) -> str:
    """A word of a command line, quoted where the shell would read it otherwise."""
    return shlex.quote(text)


def _unknown(column: Column) -> bool:
    """Did its holder have no value at all?"""
    return column.type == "number" and column.bounds is None and not column.missing


def _common_type(columns: Sequence[Column]) -> str | None:
    kinds = {column.type for column in columns}
    if len(kinds) == 1:
        return columns[0].type
    if kinds <= {"integer", "number"}:
        return "number"
    if kinds == {"boolean", "integer"}:
        return "boolean" if all(c.bounds == (0.0, 1.0) for c in columns) else "integer"
    if kinds == {"boolean", "number"}:
        return "number"
    if "id" in kinds and kinds <= {"id", "category", "integer", "text"}:
        return "id"
    if kinds == {"category", "text"}:
        return "text"
    codes = {code for column in columns for code in column.categories}
    if kinds == {"category", "integer"} and all(re.fullmatch("0|-?[1-9][0-9]*", code) for code in codes):
        return "integer"
    return None


def _united(kind: str, columns: Sequence[Column]) -> dict[str, Any]:
    known = [column for column in columns if not _unknown(column)]
    made: dict[str, Any] = {
        "type": kind,
        "label": _first(column.label for column in columns),
        "unit": _first(column.unit for column in columns),
        "missing": sorted({code for column in columns for code in column.missing}, key=str),
        "required": any(column.required for column in columns),
        "role": _first(column.role or "" for column in columns) or None,
    }
    if kind in ("number", "integer", "date", "array"):
        ends = [_ends(column) for column in known]
        lows, highs = [low for low, _ in ends], [high for _, high in ends]
        made["low"] = min((x for x in lows if x is not None), default=None) if None not in lows else None
        made["high"] = max((x for x in highs if x is not None), default=None) if None not in highs else None
        if kind != "array":
            spikes = sorted({value for column in known for value in column.spikes})
            made["spikes"] = [iso_of(value) for value in spikes] if kind == "date" else spikes
        if kind == "date":
            made |= {end: iso_of(made[end]) for end in ("low", "high") if made[end] is not None}
        scales = {column.given_scale for column in known}
        made["scale"] = scales.pop() if len(scales) == 1 else None
    if kind == "array":
        made["length"] = known[0].length
    if kind == "text":
        made["length"] = max(column.length or text_length(max(map(len, column.levels))) for column in known)
    if kind == "category":
        codes = sorted({code for column in columns for code in column.categories})
        made["categories"] = {code: _first(c.categories.get(code, "") for c in columns) for code in codes}
        made["parents"] = {code: up for c in sorted(columns, key=repr) for code, up in c.parents.items()}
    return made


def _ends(column: Column) -> tuple[float | None, float | None]:
    if column.type == "category":  # whole numbers: see _common_type
        codes = [float(code) for code in column.categories]
        return min(codes), max(codes)
    return column.bounds if column.type == "boolean" and column.bounds else (column.low, column.high)


def _first(texts: Any) -> str:
    return min((text for text in texts if text), default="")
