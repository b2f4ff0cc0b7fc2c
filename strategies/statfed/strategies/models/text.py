"""Short texts to classes: hashed words and character n-grams, and a linear layer or a small perceptron on them.

A window is a text of at most `samples` characters: its Latin-1 codes, blanks at the end; several channels are several
texts of one record. The front end has no vocabulary: words and n-grams are hashed to a fixed number of features
(Weinberger et al. 2009, "Feature hashing for large scale multitask learning"), so no party has to tell another which
words its records have, and a record's features depend on that record alone.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from statfed.core.errors import UsageError
from statfed.core.records import LATIN_1, WindowCodebook
from statfed.strategies.models.dense import head

BITS = 10
FEATURES = 1 << BITS
"""Number of features: words and n-grams share them."""
GRAMS = (3, 4)
"""Lengths of character n-grams. They reach over one blank at either end of a word and never over two words."""
WORD = 2.0
"""Weight of a whole word; that of an n-gram is 1."""
LENGTH = 4.0
"""L2 norm of a record's features, so that a single one is of order 0.1 to 1: gradients have about this size."""
_BATCH = 2048
_STEP = np.uint64(0x100000001B3)  # odd, so that no character is forgotten
_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93))  # odd constants of multiplicative hashing
# A letter or digit as its lower-case code; everything else parts words.
_FOLDED = np.array([ord(c) if (c := chr(i).lower()).isalnum() and c.isascii() else 0 for i in range(256)], np.uint64)
_FOLDED[0xC0:] = [ord(chr(i).lower()) if chr(i).isalpha() else 0 for i in range(0xC0, 0x100)]


def letters(windows: NDArray[np.floating], codebook: WindowCodebook) -> NDArray[np.uint64]:
    """Folded codes of each record's texts, one after the other, 0 where words part.

    windows: (records, channels, samples), private. Result: (records, 1 + channels * (samples + 1)); first and last
    are 0.
    """
    low, high = (np.array([getattr(c, key) for c in codebook.channels])[:, None] for key in ("low", "high"))
    codes = np.rint(np.clip(windows, low, high)).astype(np.int64) & 0xFF
    count, channels, samples = codes.shape
    out = np.zeros((count, channels, samples + 1), np.uint64)
    out[:, :, :-1] = _FOLDED[codes]
    return np.concatenate([np.zeros((count, 1), np.uint64), out.reshape(count, channels * (samples + 1))], axis=1)


def words(text: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """A hash for each position, of the word up to there, and whether a word ends there; both (records, length)."""
    hashes = np.zeros_like(text)
    for place in range(1, text.shape[1]):
        letter = text[:, place]
        hashes[:, place] = np.where(letter > 0, hashes[:, place - 1] * _STEP + letter, 0)
    ends = np.zeros(text.shape, np.bool_)
    ends[:, :-1] = (text[:, :-1] > 0) & (text[:, 1:] == 0)
    return hashes, ends


def grams(text: NDArray[np.uint64], length: int) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """A hash for each start of an n-gram, and whether all but its ends are letters; (records, positions)."""
    positions = max(0, text.shape[1] - length + 1)
    hashes = np.zeros((len(text), positions), np.uint64)
    inside = np.ones(hashes.shape, np.bool_)
    for place in range(length):
        part = text[:, place : place + positions]
        hashes = hashes * _STEP + part
        if 0 < place < length - 1:
            inside &= part > 0
    return hashes, inside


def features(windows: NDArray[np.floating], codebook: WindowCodebook) -> NDArray[np.float32]:
    """Signed counts of words and n-grams by hash, each record scaled to L2 norm LENGTH; 0 for a text without letters.

    windows: (records, channels, samples), private, Latin-1 codes. Result: (records, FEATURES).
    """
    text = letters(windows, codebook)
    counts = np.zeros(len(text) * FEATURES)
    for salt, (hashes, there), weight in (
        (0, words(text), WORD),
        *((length, grams(text, length), 1.0) for length in GRAMS),
    ):
        rows = np.nonzero(there)[0]
        mixed = (hashes[there] + np.uint64(salt)) * _MIX[0]
        mixed = (mixed ^ (mixed >> np.uint64(32))) * _MIX[1]
        feature = (mixed >> np.uint64(64 - BITS)).astype(np.int64)
        sign = np.where(mixed >> np.uint64(63 - BITS) & np.uint64(1), weight, -weight)
        counts += np.bincount(rows * FEATURES + feature, sign, len(counts))
    table = counts.reshape(len(text), FEATURES)
    norms = np.sqrt(np.square(table).sum(1, keepdims=True))
    return (LENGTH * table / np.where(norms > 0, norms, 1.0)).astype(np.float32)


class _FrontEnd(nn.Module):
    def __init__(self, codebook: WindowCodebook) -> None:
        super().__init__()
        self.codebook = codebook

    def forward(self, windows: Tensor) -> Tensor:
        return torch.from_numpy(prepare(windows.detach().cpu().numpy(), self.codebook))


def front_end(codebook: WindowCodebook) -> nn.Module:
    """`features` as a module without parameters: `nn.Sequential(front_end, model)` classifies raw windows."""
    return _FrontEnd(codebook)


def prepare(windows: NDArray[np.floating], codebook: WindowCodebook) -> NDArray[np.float32]:
    """The inputs that `build`'s model is trained on: each record's features, computed once.

    windows: (records, channels, samples), private. Result: (records, FEATURES), private.
    """
    out = np.empty((len(windows), FEATURES), np.float32)
    for start in range(0, len(windows), _BATCH):
        out[start : start + _BATCH] = features(windows[start : start + _BATCH], codebook)
    return out


def check(codebook: WindowCodebook) -> None:
    """Texts, and nothing else."""
    for channel in codebook.channels:
        if channel.unit != LATIN_1:
            raise UsageError(f"model.name: got text for {channel.name}, which is none; want mlp, or texts alone")


def build(codebook: WindowCodebook, hidden: int, seed: int) -> nn.Module:
    """A linear layer where `hidden` is 1, else Linear-ReLU-Linear, on prepared inputs (records, FEATURES).

    Result (records, outputs), unnormalised. With 20 classes the linear one has 20,500 parameters.
    """
    return head(FEATURES, hidden, codebook.outputs, seed)
