"""What the coordinator sees of each holder, and how much of a holder's own figures can be read off it.

Messages are listened to where they arrive. What a holder sends under a protection is compared with what it sends in
the clear: a figure counts as read when some number in the view is that figure times a power of two (fixed point has
such a scale, common to an array). Bytes are not read as numbers; so nothing is found where figures travel packed or
compressed in bytes, and a share of 0 speaks for protections that send words or ciphertexts.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.progress import Progress
from statfed.server.engine import Deployment, R, Session
from statfed.server.grid import inprocess
from statfed.server.packets import packet_in

MOST = 400  # figures of one message that are looked for
SCALES = sorted(range(-4, 64), key=abs)
TOLERANCE = 1e-9
"""Relative; a whole number may be off by half of one besides, which is what rounding to fixed point does."""


@dataclass
class Listener:
    """An engine in memory that keeps what holders send. seen: by party, the arrays of its messages in order."""

    fault: inprocess.Fault = inprocess.no_fault
    seen: dict[str, list[list[NDArray[Any]]]] = field(default_factory=dict)

    def run(self, deployment: Deployment, drive: Callable[[Session], R], progress: Progress) -> R:
        """As the engine `inprocess`."""
        return inprocess.run(deployment, drive, progress, fault=self.fault, tap=self._listen)

    def _listen(self, party: str, _: Any, reply: Any) -> None:
        if reply.has_content():
            arrays = [item for item in packet_in(reply.content).values() if isinstance(item, np.ndarray)]
            if arrays:
                self.seen.setdefault(party, []).append(arrays)


def figures_in(arrays: Iterable[NDArray[Any]]) -> NDArray[np.float64]:
    """The different numbers of a contribution in the clear, without zeros, at most MOST."""
    flat = [np.asarray(array, np.float64).ravel() for array in arrays if array.dtype.kind in "fiu"]
    values = np.unique(np.abs(np.concatenate(flat))) if flat else np.empty(0)
    values = values[(values > 0) & np.isfinite(values)]
    thinned: NDArray[np.float64] = values[:: max(1, math.ceil(len(values) / MOST))]
    return thinned


def _words(array: NDArray[Any]) -> NDArray[np.float64]:
    """Absolute values of an array as a coordinator would read it: unsigned words are residues, so numbers with sign.

    None of an array of bytes, which holds keys and ciphertexts: among 256 values every small figure would be found.
    """
    flat = array.ravel()
    if flat.dtype.itemsize == 1:
        return np.empty(0)
    if flat.dtype.kind == "u":
        flat = flat.view(np.dtype(f"i{flat.dtype.itemsize}"))
    return np.sort(np.abs(flat.astype(np.float64))) if flat.dtype.kind in "fi" else np.empty(0)


def read_off(view: Iterable[NDArray[Any]], figures: NDArray[np.float64]) -> float:
    """Share of `figures` (positive) that stand in some array of the view, each at one scale of its own, 0 to 1."""
    read = np.zeros(len(figures), np.bool_)
    for array in view:
        words, half = _words(array), 0.5 if array.dtype.kind in "iu" else 0.0
        if len(words) and len(figures):
            read |= max((_there(words, figures * 2.0**scale, half) for scale in SCALES), key=np.count_nonzero)
    return float(read.mean()) if len(figures) else 0.0


def _there(words: NDArray[np.float64], wanted: NDArray[np.float64], half: float) -> NDArray[np.bool_]:
    """Which of the wanted numbers are among the words, which are in order, but for `half` and TOLERANCE."""
    slack = wanted * TOLERANCE + half
    place = np.searchsorted(words, wanted - slack)
    found = words[np.minimum(place, len(words) - 1)]
    return np.asarray((place < len(words)) & (found <= wanted + slack) & (wanted > half))


def holder_values(seen: Mapping[str, list[list[NDArray[Any]]]], clear: Mapping[str, list[list[NDArray[Any]]]]) -> float:
    """Share of the figures that holders sent in the clear which can be read off what they sent under a protection.

    clear: what the same computation shows under plain. Any message of a holder may show any of its figures.
    """
    found = []
    for party, messages in clear.items():
        view = [array for arrays in seen.get(party, []) for array in arrays]
        found += [read_off(view, figures) for figures in map(figures_in, messages) if len(figures)]
    return float(np.mean(found)) if found else 0.0


@dataclass
class Silence:
    """A fault: `party` answers `message - 1` messages and then nothing, as if it had been killed.

    got: messages to it.
    """

    party: str
    message: int
    got: int = 0

    def __call__(self, holder: str, _: Any) -> str | None:
        self.got += holder == self.party
        return "killed" if holder == self.party and self.happened else None

    @property
    def happened(self) -> bool:
        """Was it asked for anything that it no longer answered?"""
        return self.got >= self.message


def silent_from(party: str, message: int) -> Silence:
    """See `Silence`."""
    return Silence(party, message)
