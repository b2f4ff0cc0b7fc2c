"""Logistic regression, or a small perceptron, on records of mixed features: numbers, ordered answers, indicators.

Each value is moved to the middle of its public bounds and divided by its public scale; no statistic of any data set is
used, so the sensitivity of everything computed from a record is what the clipping says. A codebook for this model has
a channel for each feature and one sample; more samples are more features.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from statfed.core.errors import UsageError
from statfed.core.records import LATIN_1, WindowCodebook


def features(windows: Tensor, codebook: WindowCodebook) -> Tensor:
    """Each value within its channel's bounds, less the middle of them, in scale units.

    windows: (records, channels, samples), private. Result: (records, channels * samples) float32.
    """

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=windows.device).reshape(1, -1, 1)

    low, high, scale = (column([getattr(c, key) for c in codebook.channels]) for key in ("low", "high", "scale"))
    return ((windows.float().clamp(low, high) - (low + high) / 2) / scale).flatten(1)


class _FrontEnd(nn.Module):
    def __init__(self, codebook: WindowCodebook) -> None:
        super().__init__()
        self.codebook = codebook

    def forward(self, windows: Tensor) -> Tensor:
        return features(windows, self.codebook)


def front_end(codebook: WindowCodebook) -> nn.Module:
    """`features` as a module without parameters: `nn.Sequential(front_end, model)` classifies raw windows."""
    return _FrontEnd(codebook)


def prepare(windows: NDArray[np.floating], codebook: WindowCodebook) -> NDArray[np.float32]:
    """The inputs that `build`'s model is trained on.

    windows: (records, channels, samples), private. Result: (records, channels * samples), private.
    """
    out: NDArray[np.float32] = features(torch.from_numpy(np.ascontiguousarray(windows, np.float32)), codebook).numpy()
    return out


def build(codebook: WindowCodebook, hidden: int, seed: int) -> nn.Module:
    """`head` on prepared inputs (records, channels * samples); result (records, outputs), unnormalised."""
    return head(len(codebook.channels) * codebook.samples, hidden, codebook.outputs, seed)


def no_text(codebook: WindowCodebook, model: str) -> None:
    """Raises UsageError where a channel is a text, whose codes are no amounts of anything."""
    for channel in codebook.channels:
        if channel.unit == LATIN_1:
            raise UsageError(f"model.name: got {model} for the text {channel.name}; want text, or other features")


def check(codebook: WindowCodebook) -> None:
    """Numbers, dates, truths, categories and arrays of them, not texts."""
    no_text(codebook, "dense")


def head(width: int, hidden: int, outputs: int, seed: int) -> nn.Sequential:
    """Logistic regression where `hidden` is 1, which as a layer would be of no use; else Linear-ReLU-Linear.

    The initial weights follow from `seed` alone; the process-wide random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if hidden == 1:
            return nn.Sequential(nn.Linear(width, outputs))
        return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
