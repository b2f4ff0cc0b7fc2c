"""What a message says of a name that is not among those there are: which there are, and which was meant."""

from collections.abc import Iterable
from difflib import get_close_matches

SHOWN = 30
"""Names that a message lists; of more it says how many there are."""
_LIKE = 0.65
"""Least share of common characters (`difflib.SequenceMatcher.ratio`)."""
_LONGEST = 80
"""Characters of a name that is compared with others: a longer one is no slip of the pen."""


def nearest(got: object, known: Iterable[str]) -> str:
    """The name that `got` is nearly, or nothing.

    >>> nearest("Secure_agregation", ["plain", "secure-aggregation"])
    'secure-aggregation'
    >>> nearest("xyz", ["plain", "secure-aggregation"])
    ''
    """
    if not isinstance(got, str) or not 0 < len(got) <= _LONGEST:
        return ""
    plain = {_plain(name): name for name in known if len(name) <= _LONGEST}
    near = get_close_matches(_plain(got), plain, 1, _LIKE)
    return plain[near[0]] if near else ""


def one_of(known: Iterable[str], got: object = None) -> str:
    """The end of a message: which names there are, and which of them `got` is nearly.

    >>> one_of(["mean", "total"], "maen")
    'one of mean, total (did you mean mean?)'
    """
    names = list(known)
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return f"one of {', '.join(names[:SHOWN])}{more}{meant(got, names)}"


def meant(got: object, known: Iterable[str]) -> str:
    """` (did you mean NAME?)`, or nothing."""
    near = nearest(got, known)
    return f" (did you mean {near}?)" if near else ""


def _plain(name: str) -> str:
    return name.casefold().replace("_", "-").replace(" ", "-")
