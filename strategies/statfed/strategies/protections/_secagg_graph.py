"""Who masks with whom, and who keeps shares of whose secrets.

Everybody with everybody, or a Harary graph on a random ring (Bell et al. 2020, section 3): each member with the
`width` before and the `width` after it. The ring is ordered by a hash of nonces that all members committed to before
any was shown, so nobody chooses it, and every member computes it itself.

Let c colluders be fixed before the ring is drawn, and let the coordinator choose who "dropped out" afterwards, knowing
the ring. Two numbers, found from exact hypergeometric tails (as in Bell et al. 2020, lemmas 3.6 to 3.10), hold for all
members and all setups of a run except with probability 2^-40:

- `quorum` q: no `width` members in a row hold q colluders. Members refuse to sign a list of survivors of which some
  `width` in a row hold fewer than q; so of each such row one survivor is honest. Then neighbouring honest survivors on
  the ring are at most `width` apart and joined by an edge: the graph of honest survivors is connected, whatever list
  the coordinator makes up. With the masks of a connected graph unknown, only the sum over it is determined
  (Bonawitz et al. 2017, lemma 6.1; Bell et al. 2020, lemma 3.4).
- `threshold` t of the shares: nobody's neighbours hold t colluders, so colluders alone never restore a secret.

The width is the smallest with which a ring survives, except with probability 2^-20, as many losses at random as the
session may lose at all. With a complete graph the threshold is the fewest holders of a sum, and c is at most what the
signed list of survivors withstands.
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import UsageError

SETUPS = 256  # most in one run: a coordinator that does not like a ring may not draw many
COMPLETE = 32  # holders up to which everybody masks with everybody by default
_SECURE, _LIVE = 40, 20  # bits


@dataclass(frozen=True)
class Graph:
    """A graph over `ring`, in its order. width: neighbours to either side, 0 for everybody; quorum, threshold: above.

    minimum: fewest survivors of a sum.
    """

    ring: tuple[str, ...]
    minimum: int
    threshold: int
    width: int = 0
    quorum: int = 0

    @cached_property
    def places(self) -> dict[str, int]:
        """Every member's number, from 1: its place on the ring and its abscissa in secret sharing."""
        return {name: i for i, name in enumerate(self.ring, 1)}

    def neighbours(self, name: str) -> tuple[str, ...]:
        """Sorted, without `name`."""
        if not self.width:
            return tuple(sorted(set(self.ring) - {name}))
        here, size = self.places[name] - 1, len(self.ring)
        steps = [*range(-self.width, 0), *range(1, self.width + 1)]
        return tuple(sorted({self.ring[(here + step) % size] for step in steps}))

    def keepers(self, name: str) -> tuple[str, ...]:
        """Who has a share of the secrets of `name`: its neighbours and itself, sorted."""
        return tuple(sorted((*self.neighbours(name), name)))

    def obstacle(self, survivors: Collection[str]) -> str:
        """What stands against a sum over `survivors`, in public words; empty if nothing does."""
        kept = set(survivors)
        if len(kept) != len(survivors) or not kept <= set(self.ring):
            return "got a name twice or one that is no member; want members"
        if len(kept) < self.minimum:
            return f"got {len(kept)}; want at least {self.minimum}"
        if self.width:
            there = np.array([name in kept for name in self.ring], np.int64)
            row = np.concatenate([[0], np.cumsum(np.concatenate([there, there[: self.width]]))])
            fewest = int((row[self.width : -1] - row[: len(there)]).min())
            if fewest < self.quorum:
                return f"got {fewest} of some {self.width} in a row on the ring; want at least {self.quorum}"
        return ""


@dataclass(frozen=True)
class Shape:
    """What graphs a run has. holders: of the run; minimum: fewest survivors of a sum; colluders: most on a ring.

    neighbours: at least so many each, None for as many as it takes.
    """

    holders: int
    minimum: int
    colluders: int
    neighbours: int | None = None

    @property
    def rings(self) -> bool:
        """Whether members draw a ring; else everybody masks with everybody. Raises UsageError like `width`."""
        asked = self.neighbours is not None or self.holders > COMPLETE
        return asked and self.width(self.holders) > 0

    def width(self, members: int) -> int:
        """Neighbours to either side on a ring of `members`, 0 for everybody.

        Raises UsageError when `neighbours` are too few.
        """
        least = least_width(members, self.minimum, self.colluders)
        if self.neighbours is not None and least and self.neighbours < 2 * least:
            raise UsageError(
                f"neighbours: got {self.neighbours}; want at least {2 * least} for {members} holders of whom "
                f"{self.colluders} may collude and {members - self.minimum} may drop out"
            )
        width = least if self.neighbours is None else (self.neighbours + 1) // 2
        return width if least and 2 * width < members - 1 else 0

    def draw(self, names: Collection[str], seed: bytes) -> Graph:
        """The graph of a session of `names`. seed: randomness that nobody chose, empty without a ring."""
        width = self.width(len(names)) if self.rings else 0
        if not width:
            return Graph(tuple(sorted(names)), self.minimum, self.minimum)
        ring = tuple(sorted(names, key=lambda name: hashlib.sha256(seed + name.encode()).digest()))
        quorum, threshold = _bounds(len(names), self.colluders, width)
        return Graph(ring, self.minimum, threshold, width, quorum)


@lru_cache(maxsize=256)
def least_width(members: int, minimum: int, colluders: int) -> int:
    """The smallest safe and lively width, 0 when only a complete graph is.

    members: on the ring; minimum: fewest survivors of a sum; colluders: most that the coordinator has among them.
    """
    for width in range(1, (members - 1) // 2):
        quorum, threshold = _bounds(members, colluders, width)
        if quorum > width or threshold > 2 * quorum:
            continue
        lost = _tail(members, members - minimum, width)
        if members * lost[width - quorum + 1] <= 2.0**-_LIVE:
            return width
    return 0


def _bounds(members: int, colluders: int, width: int) -> tuple[int, int]:
    """quorum and threshold. Each gets half of the failure probability, over all members and setups."""
    allowed = 2.0 ** -(_SECURE + 1) / (members * SETUPS)
    quorum = int(np.argmax(_tail(members, colluders, width) <= allowed))
    threshold = int(np.argmax(_tail(members - 1, colluders, 2 * width) <= allowed))
    return quorum, max(threshold, 1)


def _tail(population: int, marked: int, drawn: int) -> NDArray[np.float64]:
    """P(at least j of `drawn` out of `population` are `marked`), (drawn + 2,), j = 0 to drawn + 1."""
    log = _log_factorials(population)
    hits = np.arange(max(0, drawn - (population - marked)), min(drawn, marked) + 1)

    def choose(n: int, k: NDArray[np.int64] | int) -> NDArray[np.float64]:
        return np.asarray(log[n] - log[k] - log[n - np.asarray(k)])

    mass = np.zeros(drawn + 2)
    mass[hits] = np.exp(choose(marked, hits) + choose(population - marked, drawn - hits) - choose(population, drawn))
    return np.asarray(np.cumsum(mass[::-1])[::-1])


@lru_cache(maxsize=8)
def _log_factorials(most: int) -> NDArray[np.float64]:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, most + 1, dtype=np.float64)))])


def default_colluders(holders: int, minimum: int) -> int:
    """Colluders that a session is sized for: fewer than a third, and no more than the signed list withstands."""
    return max(0, min((holders - 1) // 3, 2 * minimum - holders - 1))
