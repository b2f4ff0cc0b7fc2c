"""Seeded mutations of what parsers read: well-formed documents with one thing wrong, and broken bytes."""

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

MARK = "hunter2"
"""Stands for a value that no message may repeat."""
_DEEP = "[" * 100_000
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**63,
    10**400,
    1e308,
    float("inf"),
    float("nan"),
    "",
    MARK,
    MARK * 50,
    "\ud800",
    "a\0b",
    "é" * 300,
    "../../etc",
    [],
    [[]],
    [MARK],
    {},
    {MARK: MARK},
    {"": None},
)


def documents(good: Any, count: int, seed: int = 1) -> Iterator[Any]:
    """Copies of a document of mappings, lists and values in which one thing is another, missing, moved or added."""
    rng = random.Random(seed)
    for _ in range(count):
        made = copy.deepcopy(good)
        holders = list(_inner(made))
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            inner = rng.choice(holders)
            keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
            if not keys:
                continue
            key = rng.choice(keys)
            what = rng.random()
            if what < 0.6:
                inner[key] = rng.choice(VALUES)
            elif what < 0.75:
                del inner[key]
            elif what < 0.9:
                inner[key] = copy.deepcopy(rng.choice(holders))
            elif isinstance(inner, dict):
                inner[rng.choice((MARK, "", "__class__", "é"))] = inner.pop(key)
            else:
                inner.append(rng.choice(VALUES))
        yield made


def texts(good: Any, count: int, seed: int = 1) -> Iterator[str]:
    """JSON of mutated documents, and JSON that is broken, huge in a number or nested deeply."""
    yield from (_DEEP, '{"version":' + _DEEP, "", "null", "[]", '"x"', "1e400", "{}", "NaN", "\ud800", '{"a":1e400}')
    for made in documents(good, count, seed):
        yield json.dumps(made).replace("Infinity", "1e400")
    for raw in blobs(json.dumps(good).encode(), count // 2, seed):
        yield raw.decode("utf-8", "replace")


def blobs(good: bytes, count: int, seed: int = 1) -> Iterator[bytes]:
    """Bytes with flipped, cut, doubled and inserted parts."""
    rng = random.Random(seed)
    yield from (b"", b"\0", good[:1], good[: len(good) // 2], good + good)
    for _ in range(count):
        made = bytearray(good)
        for _ in range(rng.choice((1, 1, 2, 5))):
            at = rng.randrange(len(made) + 1)
            to = min(len(made), at + rng.choice((1, 1, 4, 40)))
            what = rng.random()
            if what < 0.4 and at < len(made):
                made[at] ^= 1 << rng.randrange(8)
            elif what < 0.6:
                del made[at:to]
            elif what < 0.8:
                made[at:at] = made[at:to]
            else:
                made[at:to] = rng.choice((b"\xff\xfe", b"1e400", b"\0" * 9, b"'\"[{", b"9" * 400, b"=", b"\n[x]\n"))
        yield bytes(made)


def _inner(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        yield value
        for below in value.values() if isinstance(value, dict) else value:
            yield from _inner(below)
