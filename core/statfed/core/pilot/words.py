"""Fingerprints that two people can compare by telephone.

Eighty bits of a SHA-256 digest as five pronounceable quintuplets of letters, 16 bits each, consonants and vowels in
turn (Wilkerson 2009, arXiv:0901.4016). Whoever wants another key or certificate to have the same words has to find a
second preimage of 80 bits.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence

from statfed.core.errors import UsageError

_CONSONANTS, _VOWELS = "bdfghjklmnprstvz", "aiou"
_WORDS = 5


def words_of(*parts: str) -> str:
    """The words of what the parts say, in their order.

    >>> words_of("istat", "ab" * 32)
    'tohos-hovul-hikug-mutud-vituh'
    """
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode("utf-8")
        digest.update(len(content).to_bytes(8, "big") + content)
    found = digest.digest()
    return "-".join(_word(int.from_bytes(found[2 * place : 2 * place + 2], "big")) for place in range(_WORDS))


def same_words(given: str, wanted: str) -> bool:
    """Are these the words, however they are separated and whatever their case?

    >>> same_words("Tohos hovul, hikug mutud vituh", "tohos-hovul-hikug-mutud-vituh")
    True
    """
    return re.findall("[a-z]+", given.lower()) == wanted.split("-")


def confirm(wanted: Mapping[str, str], given: Sequence[str]) -> None:
    """Raise UsageError unless the words given are those wanted, by whose they are: all of them and no others."""
    missing = [name for name, want in wanted.items() if not any(same_words(one, want) for one in given)]
    strange = sum(not any(same_words(one, want) for want in wanted.values()) for one in given)
    if missing or strange:
        whose = ", ".join(missing) or "nobody else"
        raise UsageError(
            f"words: got none that fit {whose}, and {strange} that fit nobody; want those that each organisation reads "
            "out: where they differ, somebody has put other keys in between"
        )


def _word(number: int) -> str:
    return (
        _CONSONANTS[number >> 12]
        + _VOWELS[number >> 10 & 3]
        + _CONSONANTS[number >> 6 & 15]
        + _VOWELS[number >> 4 & 3]
        + _CONSONANTS[number & 15]
    )
