"""The hidden join: shares of what matched units have, at parties that do not learn which of their units matched.

Every holder P shuffles its units by a secret uniformly random permutation s_P and pads them to the cap N that all have
agreed to, so that it has N rows. Its payload X_P (N, p), in that order, goes out in two halves: X_P - r_P to the
helper, and the seed of r_P to a *keeper*, one of the two computing parties that is not P. The helper, which has matched
the tags, makes N output rows: matches at random places, each of the other rows from what is left of every holder in
random order. To the keeper of P it sends the list l_P of the places in P's order, and the seed of a new mask t_P; to
the other computing party (X_P - r_P)[l_P] - t_P. The keeper holds r_P[l_P] + t_P: the two are shares of X_P[l_P]. As
dealer it also shares w, 1 on rows that are matches.

Why nobody learns who matched (semi-honest, the helper colludes with nobody, computing parties not with each other):

- A list is a permutation of all N places. Let a_P be the bijection from rows to P's units (padding included) that
  keys and the helper's coins make. The list is l_P = s_P o a_P, and s_P is uniform and independent of a_P: the helper
  chooses by tags, whose order tells nothing of s_P, and nobody else has seen it. So every l_P is a uniform permutation,
  *whatever matched and however many*, and the lists of several holders are independent of each other and of all a. The
  keeper of P is never P: who knows s_P does not see l_P.
- The other computing party sees (X_P - r_P)[l_P] - t_P, uniform since t_P is: also where it is P itself, which knows
  X_P and r_P. Shares of w at the two are uniform. What follows is arithmetic on shares (`_shares`).
- The helper sees tags, which are pseudorandom under a key that it lacks and look like padding (`_tags`), and X_P - r_P,
  uniform. It learns which places of the shuffled lists match, so how many: the holders' sizes are hidden in the cap.
  It never sees a key of a unit, a value, or what comes out.
- The coordinator sees lengths, all of which follow from the agreement, and what is opened to it.

Not claimed: anything against a helper that works with a holder (they find out who matched), or parties that deviate.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from statfed.core.randomness import Stream
from statfed.strategies.linkages._rounds import Letter
from statfed.strategies.linkages._shares import Value

SEED = 16
Words = NDArray[np.uint64]


@dataclass(frozen=True)
class Cast:
    """Who does what: the first two holders compute, and keep each other's masks; the first keeps those of a third."""

    holders: tuple[str, ...]
    helper: str

    @property
    def first(self) -> str:
        return self.holders[0]

    @property
    def second(self) -> str:
        return self.holders[1]

    def keeper(self, holder: str) -> str:
        return self.second if holder == self.first else self.first

    def other(self, holder: str) -> str:
        """The computing party that is not the keeper of this holder's masks."""
        return self.first if self.keeper(holder) == self.second else self.second


def seed() -> NDArray[np.uint8]:
    """A fresh key of a stream."""
    return np.frombuffer(os.urandom(SEED), np.uint8)


def stream_of(key: NDArray[np.uint8]) -> Stream:
    return Stream(key.tobytes())


def masked(columns: Iterable[Words], key: NDArray[np.uint8]) -> Iterator[Words]:
    """payload - r, with the r of this key, a column at a time: that is all there is of it in memory."""
    stream = stream_of(key)
    for column in columns:
        yield column - stream.words(len(column))


def kept(shape: tuple[int, int], rows: NDArray[np.int64], mask: NDArray[np.uint8], again: NDArray[np.uint8]) -> Value:
    """The keeper's share of (cap, columns): r[rows] + t."""
    first, second, share = stream_of(mask), stream_of(again), column_major(shape)
    for j in range(shape[1]):
        share[:, j] = first.words(shape[0])[rows]
        share[:, j] += second.words(shape[0])
    return Value(shape, share)


def remasked(columns: Iterable[Words], rows: NDArray[np.int64], again: NDArray[np.uint8]) -> Iterator[Words]:
    """What the helper sends to the other computing party: (X - r)[rows] - t, a column at a time."""
    return masked((column[rows] for column in columns), again)


def read(letter: Letter, shape: tuple[int, int]) -> Words:
    """(rows, columns) of a letter that has them a column at a time."""
    return letter.take(shape[::-1]).T


def column_major(shape: tuple[int, int]) -> Words:
    """Room for (rows, columns), each column in one piece: as they travel."""
    return np.empty(shape[::-1], np.uint64).T
