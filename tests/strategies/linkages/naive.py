"""The refused technique: both send hashes of their keys, and somebody joins them. It stands here to be attacked."""

import hashlib
from collections.abc import Iterable


def tags(keys: Iterable[str]) -> list[bytes]:
    """What each holder would send: SHA-256 of every key."""
    return [hashlib.sha256(key.encode()).digest() for key in keys]


def joined(one: Iterable[bytes], other: Iterable[bytes]) -> int:
    """The size of the join."""
    return len(set(one) & set(other))


def dictionary(sent: Iterable[bytes], guesses: Iterable[str]) -> set[str]:
    """Keys that whoever sees the tags recovers by trying every key that there can be."""
    seen = set(sent)
    return {guess for guess in guesses if tags([guess])[0] in seen}
