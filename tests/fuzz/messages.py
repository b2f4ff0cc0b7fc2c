"""Targets: messages of a hostile coordinator at a holder, and of a hostile holder at the coordinator.

What is sent is what was sent in runs that ended well, with something wrong in it: texts, records, arrays, packets,
who, when and what for. A holder's outcome is a reply, in words that hold no value of a record, no path and no
exception; the coordinator's is an error that names the party, or a figure.
"""

import io
import json
import math
import pickle
import random
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.common.serde_utils import metadata_to_proto
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from hypothesis import strategies as st

from statfed.client.flower import _flwr as holder_flwr
from statfed.client.flower.app import app
from statfed.client.flower.runner import PinnedRunner
from statfed.core import errors
from statfed.core.errors import EngineError, StatfedError
from statfed.core.pilot.bundle import bundle, bundle_digest
from statfed.server import _flwr as coordinator_flwr
from statfed.server._flwr import over_the_wire, set_source
from tests.fuzz.sessions import Recording, Sent, recorded, twin
from tests.fuzz.trial import Target
from tests.hostile import VALUES, blobs

SPEECH = (
    "\x1b[2J\x1b[1;31mdone\x1b]0;owned\x07",
    "<script>alert(1)</script><img src=x onerror=alert(2)>",
    "no\ncbs: all is well",
    "\u202egnp.exe\u2066",
    "\ud800",
    "x" * 3_000_000,
    "[red]markup[/red]",
    "\0\r\n\x85\u2028",
)
"""What a party says that a terminal, a page or a reader must not take at its word."""
KINDS = ("Refused", "UsageError", "EngineError", "LedgerCorrupt", "SystemExit", "KeyboardInterrupt", "os.system", "", 1)
EXACT = (0, 1, -1, 2**31, 2**62, 2**63 - 1, -(2**63))
ODD = (math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, -0.0)
SHAPES = ((10**12,), (-1,), (2**62, 2**62), (0,), (1,) * 40, (), (2**40, 0))


def _npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array), allow_pickle=True)
    return buffer.getvalue()


def _zip(names: Sequence[str], content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, content)
    return buffer.getvalue()


class _Bomb:
    """What runs where a pickle is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("a pickle was loaded",))


BUNDLES = (
    b"",
    _zip(["../../evil.py", "/etc/evil", "pyproject.toml"], b"raise SystemExit"),
    _zip([f"bomb-{n}" for n in range(8)], bytes(4_000_000)),
    bundle() + b"\0",
)
DATA = (
    b"",
    _npy([1.0, math.nan, math.inf]),
    _npy(np.array([_Bomb()], object)),
    pickle.dumps(_Bomb()),
    _zip(["a.npy"], bytes(8_000_000)),
    b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (999999999999,), }" + b" " * 40 + b"\n",
    b"\x93NUMPY\x03\x00" + b"\xff" * 40,
)


# ------------------------------------------------------------------------------------------- what is wrong with it


def spoiled(message: Message, others: Sequence[Message], source: random.Random) -> Message:
    """A message with one to three things wrong in it. others: of which parts may stand in it."""
    made = twin(message)
    for _ in range(source.choice((1, 1, 1, 2, 3))):
        if made.has_content():
            source.choice(WRONGS)(made, source.choice(others), source)
    return made


def _text(made: Message, _other: Message, source: random.Random) -> None:
    """The JSON in it."""
    for record in made.content.config_records.values():
        for name, value in record.items():
            if isinstance(value, str):
                record[name] = _json(value, source)


def _json(text: str, source: random.Random) -> str:
    choice = source.random()
    if choice < 0.2:
        return source.choice(("[" * 100_000, '{"terms":' * 50_000, "", "null", "1" * 100_000, '{"version":1e400}'))
    if choice < 0.4:
        raw = list(blobs(text.encode(), 1, source.randrange(2**31)))[-1]
        return raw.decode("utf-8", "replace")
    if choice < 0.5:
        return text[:1] + text[1:].replace(",", ',"version":"0","holder":"x","holder":"y",', 1)
    try:
        table = json.loads(text)
    except (ValueError, RecursionError):  # spoiled before
        return text
    inner = list(_inner(table))
    here = source.choice(inner) if inner and choice < 0.8 else table
    if isinstance(here, dict) and here:
        key = source.choice(list(here))
        here[key] = source.choice((*VALUES, *EXACT, *SPEECH[:5]))
    return json.dumps(table).replace("Infinity", "1e400")


def _inner(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        yield value
        for below in value.values() if isinstance(value, dict) else value:
            yield from _inner(below)


def _step(made: Message, _other: Message, source: random.Random) -> None:
    """Another step, stage, run, number or size in a statement."""
    record = made.content.config_records.get("config", ConfigRecord())
    try:
        table = json.loads(str(record["statement"]))
        changes: Mapping[str, Sequence[Any]] = {
            "step": ("admit", "ask", "protect", "release"),
            "stage": ("keys", "share", "roster", "unmask", "open", "contribute", ""),
            "run": (f"fresh-{source.random()}", "x" * 80, "../../etc", "\ud800"),
            "round": (0, 1, 2, 2**70, -1),
            "done": (1, 10**9),
            "ask": ("means", "nothing", "\x1b[2J"),
            "share": (0.5, 2.0),
            "sizes": ({}, {"istat": 2**70}, dict.fromkeys(("istat", "cbs", "insee"), 2**39)),
        }
        for key in source.sample(sorted(changes), source.choice((1, 2))):
            table[key] = source.choice(changes[key])
        record["statement"] = json.dumps(table)
    except (KeyError, ValueError, TypeError, RecursionError):
        return


def _records(made: Message, other: Message, source: random.Random) -> None:
    """Records that are missing, of another kind, of another message, or too many."""
    content = made.content
    names = [*content, "config", "arrays", "packet", "packet-arrays", "facts"]
    name = source.choice(names)
    match source.randrange(6):
        case 0:
            content.pop(name, None)
        case 1:
            content[name] = MetricRecord({"statement": 1.5, "json": [1, 2, 3]})
        case 2:
            content[name] = ArrayRecord({"statement": _array(source)})
        case 3:
            content[name] = ConfigRecord(
                {"statement": source.choice(([1], b"x", 1, 1.5, True, ["a"])), "json": b"\xff"}
            )
        case 4:
            content.update(twin(other).content if other.has_content() else {})
        case _:
            content.update({f"more-{n}": ConfigRecord({"x": "y" * 1000}) for n in range(50)})


def _array(source: random.Random) -> Array:
    kinds = ("float64", "object", "int64", "uint8", "<U4", "complex128", "float16", "", "datetime64[s]")
    shape = source.choice((*SHAPES, (3,)))
    return Array(source.choice(kinds), shape, source.choice(("numpy.ndarray", "pickle", "")), source.choice(DATA))


def _arrays(made: Message, _other: Message, source: random.Random) -> None:
    """Arrays with other values, other types, other shapes, or that are none."""
    for record in made.content.array_records.values():
        for name, item in list(record.items()):
            choice = source.random()
            if choice < 0.35:
                record[name] = _array(source)
            elif choice < 0.5:
                record[name] = Array(item.dtype, source.choice(SHAPES), item.stype, item.data)
            elif choice < 0.65:
                raw = list(blobs(item.data, 1, source.randrange(2**31)))[-1]
                record[name] = Array(item.dtype, item.shape, item.stype, raw)
            elif choice < 0.95:
                record[name] = _changed(item, source)
            else:
                record[source.choice(("\x1b", "", "x" * 400, "../x"))] = record.pop(name)


def _changed(item: Array, source: random.Random) -> Array:
    try:
        return Array(_values(np.load(io.BytesIO(item.data)), source))
    except (ValueError, EOFError, OSError):  # spoiled before
        return item


def _values(array: Any, source: random.Random) -> Any:
    made = np.array(array)
    flat = made.reshape(-1)
    if not flat.size:
        return made
    place = source.randrange(flat.size)
    with np.errstate(all="ignore"):
        if np.issubdtype(made.dtype, np.floating):
            flat[place] = source.choice((*ODD, -1.0, 1e6, float(flat[place]) * 2 + 1))
        elif np.issubdtype(made.dtype, np.integer):
            info = np.iinfo(made.dtype)
            flat[place] = source.choice((info.max, info.min, 0, flat[place] ^ flat.dtype.type(1)))
    return made


def _packets(made: Message, other: Message, source: random.Random) -> None:
    """Bytes of a packet that are flipped, gone, another's or huge."""
    record = made.content.config_records.get("packet", ConfigRecord())
    theirs = other.content.config_records.get("packet", ConfigRecord()) if other.has_content() else {}
    for name, value in list(record.items()):
        choice = source.random()
        if choice < 0.5 and isinstance(value, bytes):
            record[name] = list(blobs(value, 1, source.randrange(2**31)))[-1]
        elif choice < 0.6:
            record[name] = b"\xff" * 1_000_000
        elif choice < 0.8 and name in theirs:
            record[name] = theirs[name]
        elif choice < 0.9:
            del record[name]
        else:
            record[name] = source.choice(("text", 1, 1.5, [b"x"]))


def _times(made: Message, _other: Message, source: random.Random) -> None:
    """Metadata: times, numbers and a type that are none."""
    facts = vars(made.metadata)
    facts["_ttl"] = source.choice((0.0, -1.0, 1e300, math.nan, math.inf))
    facts["_created_at"] = source.choice((0.0, 1e300, math.nan))
    facts["_message_type"] = source.choice(("query.admit", "query.ask", "train", "evaluate", "query.x"))
    facts["_group_id"] = source.choice(("", "x" * 10_000))


WRONGS: tuple[Callable[[Message, Message, random.Random], None], ...] = (
    *(_text, _text, _step, _step, _records, _arrays, _arrays, _packets, _packets, _times),
)


# --------------------------------------------------------------------------------- a hostile coordinator at a holder


def _asked(kept: Sequence[Sent], root: str, given: tuple[int, int], _folder: Path) -> None:
    """What a holder answers to a spoiled message, through its runner."""
    place, seed = given
    source, one = random.Random(seed), kept[place % len(kept)]
    others = [other.message for other in source.sample(kept, min(8, len(kept)))]
    message = twin(one.message) if source.random() < 0.1 else spoiled(one.message, others, source)
    if source.random() < 0.03:
        message = _failed(one.message, source)
    shipped = source.choice(BUNDLES) if source.random() < 0.05 else bundle()
    answered(message, shipped, one.home if source.random() < 0.9 else source.choice(kept).home, root)


def answered(message: Message, shipped: bytes, home: Path, root: str) -> Message:
    """The reply of the home's pinned runner. Raises what it reports; AssertionError on what must never come back."""
    runner = PinnedRunner(None, app, home, bundle_digest(), 0.05)  # type: ignore[arg-type]  # it takes no tasks here
    context = Context(1, message.metadata.dst_node_id, {}, RecordDict(), {})
    reply = runner.answer(message, context, shipped)
    if not isinstance(reply, Message):
        raise AssertionError(f"got {type(reply).__name__}; want a message")
    if shipped != bundle() and not (reply.has_error() and "bundle refused" in str(reply.error.reason)):
        raise AssertionError("another bundle was answered")
    arrived = over_the_wire(reply)
    if not arrived.has_error():
        return arrived
    said = str(arrived.error.reason)
    for bad in (root, "Traceback", "site-packages", "Error:", ".py"):
        if bad in said:
            raise AssertionError(f"an error that tells {bad!r}: {said[:300]}")
    try:
        table = json.loads(said)
    except ValueError:
        raise EngineError(said) from None
    raise errors.BY_NAME[table["kind"]](table["message"])


def _failed(message: Message, source: random.Random) -> Message:
    """An error in place of content."""
    return Message(Error(source.choice((0, 1, 200, 2**31 - 1)), _reason(source)), reply_to=message)


def _reason(source: random.Random) -> str:
    said = source.choice(SPEECH)
    if source.random() < 0.5:
        return said
    return json.dumps({"kind": source.choice(KINDS), "message": said, "more": 1})


# --------------------------------------------------------------------------------- a hostile holder at the coordinator


_NAMELESS = ("total: ", "a node that is no party", "want a new run")
"""Of errors that cannot name a party: the protection hides whose contribution it is, or no party is at that node."""


@dataclass(frozen=True)
class Lie:
    """What one party's replies become. party: whose; number: of its reply that is another; seed: which."""

    party: str
    number: int
    seed: int


def lied(recording: Recording, lie: Lie) -> Any:
    """The tables that come of a run in which a party lies. Raises what the coordinator tells of it; AssertionError on
    what must not be."""
    source, node, count = random.Random(lie.seed), recording.nodes[lie.party], 0
    mine = [one.reply for one in recording.sent if one.party == lie.party]
    theirs = [one.reply for one in recording.sent]

    def change(replies: Sequence[Message]) -> Iterator[Message]:
        nonlocal count
        for reply in replies:
            if reply.metadata.src_node_id != node:
                yield reply
                continue
            count += 1
            yield from _instead(reply, mine, theirs, source) if count == lie.number else (reply,)

    try:
        result = recording.again(change).result
    except StatfedError as error:
        said = str(error)
        if not any(one in said for one in (lie.party, *_NAMELESS)):
            raise AssertionError(f"an error that does not name {lie.party}: {said[:300]}") from None
        if not all(one.isprintable() or one == "\n" for one in said):
            raise AssertionError(f"an error that is not printable: {said[:300]!r}") from None
        if any(
            line and not line.startswith((" ", *recording.nodes, "1 of 3 holders", "2 of 3 holders", "ask "))
            for line in said.split("\n")[1:]
        ):
            raise AssertionError(f"an error in which a party speaks for others: {said[:300]!r}") from None
        raise
    return {name: [dict(row) for row in rows] for name, rows in result.tables.items()}


def _instead(
    reply: Message, mine: Sequence[Message], theirs: Sequence[Message], source: random.Random
) -> Sequence[Message]:
    choice = source.random()
    if choice < 0.6:
        return [spoiled(reply, theirs, source)]
    if choice < 0.75:
        failed = twin(reply)
        vars(failed)["_content"], vars(failed)["_error"] = None, Error(source.choice((0, 1, 200, 201)), _reason(source))
        return [failed]
    if choice < 0.8:
        return [reply, twin(reply)]
    if choice < 0.85:
        return []
    if choice < 0.9:
        other = twin(source.choice(theirs))
        set_source(other, source.choice((reply.metadata.src_node_id, 2**63, 1)))
        return [other]
    if choice < 0.95:
        return [twin(source.choice(mine))]
    return [_sized(reply, source)]


def _sized(reply: Message, source: random.Random) -> Message:
    """Facts with other numbers of records."""
    made = twin(reply)
    if not made.has_content() or "facts" not in made.content.config_records:
        return made
    table = json.loads(str(made.content.config_records["facts"]["json"]))
    for key in ("size", "persons", "round", "seconds", "epsilon"):
        if key in table:
            table[key] = source.choice((*EXACT, 2**40, 10**30, 1.5, "1"))
    made.content.config_records["facts"]["json"] = json.dumps(table)
    return made


def _lied(recordings: Sequence[Recording], given: tuple[int, int, int], _folder: Path) -> None:
    which, number, seed = given
    recording = recordings[which % len(recordings)]
    party = sorted(recording.nodes)[number % len(recording.nodes)]
    replies = sum(one.party == party for one in recording.sent)
    lied(recording, Lie(party, 1 + (number // 7) % replies, seed))


# ------------------------------------------------------------------------------------------------- objects of messages


def objects_of(message: Message) -> dict[str, bytes]:
    """A message as Flower carries it."""
    return {name: item.deflate() for name, item in get_all_nested_objects(message).items()}


def pieces(message: Message, times: int) -> tuple[str, dict[str, bytes]]:
    """A message whose array names its one piece so many times; its id and objects."""
    content = RecordDict({"arrays": ArrayRecord({"a": Array(np.zeros(100_000))})})
    made = Message(content, message.metadata.dst_node_id, message.metadata.message_type)
    objects = objects_of(made)
    for name, raw in objects.items():
        head, _, body = raw.partition(b"\0")
        if head.startswith(b"Array "):
            table = json.loads(body)
            table["arraychunk_ids"] = [0] * times
            body = json.dumps(table).encode()
            objects[name] = b" ".join([*head.split(b" ")[:2], str(len(body)).encode()]) + b"\0" + body
    return made.object_id, objects


def _arrived(kept: Sequence[Message], given: tuple[int, int], _folder: Path) -> None:
    """What both ends make of objects that are not as they were sent."""
    place, seed = given
    source = random.Random(seed)
    message = kept[place % len(kept)]
    name, objects = message.object_id, objects_of(message)
    if source.random() < 0.1:
        name, objects = pieces(message, source.choice((10**4, 30_000, 10**6)))
    else:
        for one in source.sample(sorted(objects), min(len(objects), source.choice((1, 1, 3)))):
            objects[one] = list(blobs(objects[one], 1, source.randrange(2**31)))[-1]
    vars(message.metadata)["_message_id"] = name
    here = coordinator_flwr.arrived(message.metadata, dict(objects))
    there = holder_flwr.arrived(metadata_to_proto(message.metadata), dict(objects))
    if here.metadata.src_node_id != message.metadata.src_node_id or there.metadata.run_id != message.metadata.run_id:
        raise AssertionError("a message that says whose it is")
    if here.has_error():
        raise EngineError(str(here.error.reason))


def targets(folder: Path) -> tuple[Target, ...]:
    """folder: where the recorded runs live."""
    recordings = recorded(folder)
    kept = [one for recording in recordings for one in recording.sent]
    replayed = [one for one in recordings if one.study.terms.protection.name != "homomorphic-encryption"]
    numbers = st.integers(0, 2**31)
    spoken = [one.message for one in kept] + [one.reply for one in kept]
    return (
        Target(
            "messages to a holder",
            st.tuples(numbers, numbers),
            partial(_asked, kept, str(folder)),
            counted=False,
        ),
        Target(
            "replies of a holder",
            st.tuples(numbers, numbers, numbers),
            partial(_lied, replayed),
            counted=False,
        ),
        Target("objects of messages", st.tuples(numbers, numbers), partial(_arrived, spoken), counted=False),
    )
