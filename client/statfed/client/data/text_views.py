"""Text files as one table of the embedded engine: checked first, read the same way by two readers. Private.

`text_files.examine` says what records a file has; DuckDB reads them with that dialect, strictly, and has to find as
many, of as many bytes. What was examined is known for as long as the file does not change.

In a file with another delimiter than a comma, 1,5 and 1.000 have two readings. A column whose numbers all look so is
refused until the signs are stated.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from statfed.client.data.engine import Engine, identifier, literal
from statfed.client.data.identity import content, stamp
from statfed.client.data.lines import Fault
from statfed.client.data.listing import Listing
from statfed.client.data.reading import Reading
from statfed.client.data.text_files import Text, examine
from statfed.core.errors import UsageError
from statfed.core.table import Expr

_BUFFER = 32 * 2**20
_LINE = 2_000_000  # DuckDB's own
_SAMPLE = 2_000  # records
_NUMBER = r"[+-]?([0-9]+|[1-9][0-9]{0,2}([.][0-9]{3})+)(,[0-9]*)?|[+-]?[1-9][0-9]{0,2}(,[0-9]{3})+|[^0-9]*"
_SIGN = "[0-9][.,][0-9]|^,[0-9]|[0-9],$"
_KNOWN: dict[tuple[str, str, Reading], Text] = {}
_SOUND: set[tuple[object, ...]] = set()
_MOST = 4096


def open_texts(listing: Listing, reading: Reading, engine: Engine, shown: str) -> tuple[Expr, int]:
    """The records of all files as text, and their number. Raises UsageError that names file, line and cause."""
    found = [(file, _examined(listing, file, reading, shown)) for file in listing.files]
    first = found[0][1]
    for file, text in found[1:]:
        if text.names != first.names:
            names = f"{listing.name(file)}: got other columns than {listing.name(listing.files[0])} has"
            raise UsageError(f"{shown}: {names}; want the same names in the same order in all files")
    copies(listing, [text.counts.records for _, text in found], shown)
    groups: dict[Text, list[tuple[Path, Text]]] = {}
    for number, (file, text) in enumerate(found):
        link, text = _placed(listing, number, file, text, reading, engine, shown)
        groups.setdefault(_alike(text), []).append((link, text))
    key = tuple((str(file.resolve()), stamp(file)) for file in listing.files)
    selects = [
        _select(alike, [link for link, _ in links], max(t.counts.longest for _, t in links))
        for alike, links in groups.items()
    ]
    if (*key, reading) not in _SOUND:
        for select, links in zip(selects, groups.values(), strict=True):
            _verify(select, [text for _, text in links], engine, shown)
        if not reading.signs and any(text.delimiter != "," for _, text in found):
            _unambiguous(" union all ".join(selects), first.names, engine, shown)
        if len(_SOUND) > _MOST:
            _SOUND.clear()
        _SOUND.add((*key, reading))
    return engine.view(" union all ".join(selects)), sum(text.counts.records for _, text in found)


def copies(listing: Listing, records: Sequence[int], shown: str) -> None:
    """Refuse files of a folder that are copies of each other: their records would count twice."""
    sizes: dict[int, list[Path]] = {}
    for file, count in zip(listing.files, records, strict=True):
        if count:
            sizes.setdefault(file.stat().st_size, []).append(file)
    for alike in sizes.values():
        seen: dict[str, Path] = {}
        for file in alike if len(alike) > 1 else []:
            other = seen.setdefault(content(file), file)
            if other != file:
                pair = f"{listing.name(other)} and {listing.name(file)}"
                raise UsageError(f"{shown}: {pair} have the same content; want one of them, or records count twice")


def _examined(listing: Listing, file: Path, reading: Reading, shown: str) -> Text:
    key = (str(file.resolve()), stamp(file), reading)
    if key not in _KNOWN:
        _told(lambda: _KNOWN.__setitem__(key, examine(file, reading)), listing, file, shown)
        if len(_KNOWN) > _MOST:
            kept = _KNOWN[key]
            _KNOWN.clear()
            _KNOWN[key] = kept
    return _KNOWN[key]


def _told(act: Callable[[], object], listing: Listing, file: Path, shown: str) -> None:
    try:
        act()
    except Fault as fault:
        where = shown if listing.one else f"{shown}: {listing.name(file)}"
        raise UsageError(f"{where}: {fault}") from None


def _placed(
    listing: Listing, number: int, file: Path, text: Text, reading: Reading, engine: Engine, shown: str
) -> tuple[Path, Text]:
    """Where the engine reads the file, and what it is there: the file itself, or a copy in plain form."""
    if text.direct:
        return engine.link(file, f"{number}.csv.gz" if text.packed else f"{number}.csv"), text
    copy = engine.folder / "files" / f"{number}.csv"
    copy.parent.mkdir(exist_ok=True)
    with copy.open("xb") as target:
        _told(lambda: examine(file, reading, target.write), listing, file, shown)
    counts = replace(text.counts, paired=0, single=text.counts.records, blank=0)
    return copy, replace(text, counts=counts, direct=False, packed=False, header=False)


def _alike(text: Text) -> Text:
    """What files that one statement reads have in common."""
    counts = text.counts
    common = replace(
        counts, records=0, content=0, longest=0, inner=min(counts.inner, 1), paired=min(counts.paired, 1), single=0
    )
    return replace(text, counts=common, encoding="utf-8")


def _select(text: Text, files: Sequence[Path], longest: int) -> str:
    options = {
        "columns": "{" + ", ".join(f"'c{i}': 'VARCHAR'" for i in range(len(text.names))) + "}",
        "auto_detect": "false",
        "header": str(text.header).lower(),
        "delim": literal(text.delimiter),
        "quote": literal(text.quote),
        "escape": literal(text.quote),
        "comment": "''",
        "strict_mode": "true",
        "null_padding": "false",
        "ignore_errors": "false",
        "hive_partitioning": "false",
        "compression": "'gzip'" if text.packed else "'none'",
        "parallel": str(not text.counts.inner).lower(),
    }
    if not text.counts.paired:
        options["new_line"] = r"'\n'"
    if longest >= _LINE:
        options |= {"max_line_size": str(longest + 2), "buffer_size": str(max(_BUFFER, 2 * longest + 4))}
    names = ", ".join(f"c{i} as {identifier(name)}" for i, name in enumerate(text.names))
    told = ", ".join(f"{key} = {value}" for key, value in options.items())
    paths = ", ".join(literal(str(file)) for file in files)
    return f"select {names} from read_csv([{paths}], {told})"  # noqa: S608  # quoted


def _verify(select: str, texts: Sequence[Text], engine: Engine, shown: str) -> None:
    """The engine has to find the same records: as many, of as many bytes."""
    sizes = ", ".join(f"sum(strlen({identifier(name)}))" for name in texts[0].names)
    try:
        records, *found = engine.execute(f"select count(*), {sizes} from ({select})")[0]  # noqa: S608  # quoted
    except Exception:  # noqa: BLE001  # the engine's message may quote a line of the data
        raise UsageError(f"{shown}: DuckDB cannot read it, though its lines are sound; want it as Parquet") from None
    wanted = sum(text.counts.records for text in texts), sum(text.counts.content for text in texts)
    got = int(records), sum(int(size or 0) for size in found)
    if got != wanted:
        raise UsageError(
            f"{shown}: got {got[0]} records of {got[1]} bytes by one reader and {wanted[0]} of {wanted[1]} by another; "
            "want it as Parquet"
        )


def _unambiguous(select: str, names: Sequence[str], engine: Engine, shown: str) -> None:
    """No column may have numbers that are written with signs of two readings. Few records tell for most columns."""

    def suspects(some: Sequence[str], records: str, least: int) -> list[str]:
        texts = [f"trim({identifier(name)})" for name in some]
        asked = [
            f"count(*) filter (where not regexp_full_match({text}, {literal(_NUMBER)})), "
            f"count(*) filter (where regexp_matches({text}, {literal(_SIGN)}))"
            for text in texts
        ]
        found = engine.execute(f"select {', '.join(asked)} from ({records})")[0]  # noqa: S608  # quoted
        counts = zip(some, found[::2], found[1::2], strict=True)
        return [name for name, others, signs in counts if not others and signs >= least]

    likely = suspects(names, f"select * from ({select}) limit {_SAMPLE}", 0)  # noqa: S608  # quoted
    if likely and (found := suspects(likely, select, 1)):
        raise UsageError(
            f"{shown}: {', '.join(found)}: got numbers such as 1,5 or 1.000, which have two readings; want their signs "
            "stated: ?decimal=, and &thousands=. or ?decimal=. behind the name of the file"
        )
