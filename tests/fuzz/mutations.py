"""Inputs near to valid ones: bytes, texts and documents with a few things wrong, as hypothesis strategies."""

import copy
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from tests.awkward import texts
from tests.hostile import VALUES

Edits = Sequence[tuple[str, int, int, Any]]
_PIECES = (
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\0" * 9,
    b"'\"[{",
    b"9" * 400,
    b"\r",
    b'"',
    b"\n[x]\n",
    b"\x1a",
    b"1e400",
    b"",
)
_WORDS = (
    "1e400",
    "nan",
    "-1",
    "0",
    "true",
    "[",
    "]",
    "{",
    "}",
    '"',
    "'",
    "\\",
    "\n",
    "\0",
    "=",
    "~",
    ":",
    ",",
    "..",
    "é",
)
_LINES = ("", ",,,", '"', "sep=;", "Total,,", "[x]", "x = 1", "a.b.c = {}", "# note", "\x1a")


def blobs(*good: bytes) -> st.SearchStrategy[bytes]:
    """One of `good` with bits flipped, and parts cut, doubled, moved or put in."""
    edit = st.tuples(
        st.sampled_from(("flip", "flip", "cut", "double", "put", "end", "lines")),
        st.integers(0, 2**20),
        st.sampled_from((1, 1, 2, 8, 64)),
        st.sampled_from(_PIECES),
    )
    return st.builds(_blob, st.sampled_from(good), st.lists(edit, min_size=1, max_size=4))


def _blob(good: bytes, edits: Edits) -> bytes:
    made = bytearray(good)
    for what, place, length, piece in edits:
        at = place % (len(made) + 1)
        if what == "flip" and at < len(made):
            made[at] ^= 1 << (place % 8)
        elif what == "cut":
            del made[at : at + length]
        elif what == "double":
            made[at:at] = made[at : at + length]
        elif what == "put":
            made[at:at] = piece
        elif what == "end":
            del made[at:]
        elif what == "lines":
            lines = bytes(made).split(b"\n")
            line = lines[place % len(lines)]
            made = bytearray(b"\n".join([*lines[: place % len(lines)], *[line] * length, *lines]))
    return bytes(made)


def lines(*good: str) -> st.SearchStrategy[str]:
    """One of `good` with lines left out, doubled, swapped or put in, and words within them changed."""
    edit = st.tuples(
        st.sampled_from(("cut", "double", "swap", "put", "word", "sign")),
        st.integers(0, 2**20),
        st.integers(0, 2**20),
        st.sampled_from((*_LINES, *_WORDS)) | texts(),
    )
    return st.builds(_text, st.sampled_from(good), st.lists(edit, min_size=1, max_size=3))


def _text(good: str, edits: Edits) -> str:
    made = good.split("\n")
    for what, place, other, piece in edits:
        at = place % len(made)
        if what == "cut" and len(made) > 1:
            del made[at]
        elif what == "double":
            made.insert(at, made[at])
        elif what == "swap":
            there = other % len(made)
            made[at], made[there] = made[there], made[at]
        elif what == "put":
            made.insert(at, piece)
        elif what == "word":
            words = made[at].split(" ")
            words[other % len(words)] = piece
            made[at] = " ".join(words)
        elif what == "sign":
            where = other % (len(made[at]) + 1)
            made[at] = made[at][:where] + piece + made[at][where + 1 :]
    return "\n".join(made)


def words(*good: str) -> st.SearchStrategy[str]:
    """A short text such as an option's value: one of `good` as it is or changed, or any text."""
    return st.sampled_from(good) | lines(*good) | texts(max_size=30)


def documents(good: Any) -> st.SearchStrategy[Any]:
    """Copies of a document of mappings, lists and values in which one to three things are others, missing or added."""
    edit = st.tuples(
        st.sampled_from(("value", "value", "value", "cut", "copy", "name", "add")),
        st.integers(0, 2**20),
        st.integers(0, 2**20),
        st.sampled_from(VALUES) | st.integers() | st.floats() | texts(),
    )
    return st.builds(_document, st.just(good), st.lists(edit, min_size=1, max_size=3))


def _document(good: Any, edits: Edits) -> Any:
    made = copy.deepcopy(good)
    for what, place, other, value in edits:
        inner = _inner(made)
        here = inner[place % len(inner)]
        keys: list[Any] = list(here) if isinstance(here, dict) else list(range(len(here)))
        if not keys:
            continue
        key = keys[other % len(keys)]
        value = copy.deepcopy(value)  # else a later edit may put it into itself
        if what == "value":
            here[key] = value
        elif what == "cut":
            del here[key]
        elif what == "copy":
            here[key] = copy.deepcopy(inner[other % len(inner)])
        elif isinstance(here, dict):
            here[str(value)[:40]] = here.pop(key) if what == "name" else value
        else:
            here.append(value)
    return made


def _inner(value: Any) -> list[Any]:
    if not isinstance(value, dict | list):
        return []
    below = value.values() if isinstance(value, dict) else value
    return [value, *(found for one in below for found in _inner(one))]
