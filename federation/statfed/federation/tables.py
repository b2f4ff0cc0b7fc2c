"""What tells that a holder's table was there before: its holder's name, where the data lie, and what they hold."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from statfed.client.data.identity import content, identity


def known_tables(sources: Mapping[str, str], holders: Sequence[str]) -> dict[str, frozenset[str]]:
    """By holder, hashes of all that its table is known by, none of which changes with the number of its records alone.

    sources: by holder, empty or absent where data are not on this machine, or drawn. Each tells by itself: a table that
    has grown has its holder's name and its path, a copy its content. Raises OSError on reading a file.
    """
    found: dict[str, frozenset[str]] = {}
    for holder in holders:
        source = sources.get(holder)
        keys = identity(source, Path.cwd(), content).keys if source else frozenset[str]()
        named = {f"holder:{holder}", *keys}
        found[holder] = frozenset(
            hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:16] for key in named
        )
    return found
