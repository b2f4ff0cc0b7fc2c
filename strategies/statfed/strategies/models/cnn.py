"""A small one-dimensional convolutional network on raw windows. On few records it is less accurate than `mlp`.

Only layers whose per-record gradients Opacus knows: convolution, group normalisation, linear.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from statfed.core.errors import UsageError
from statfed.core.records import WindowCodebook
from statfed.strategies.models.dense import no_text
from statfed.strategies.models.mlp import scaled

KERNEL = 9
STRIDE = 2


class _FrontEnd(nn.Module):
    def __init__(self, codebook: WindowCodebook) -> None:
        super().__init__()
        self.codebook = codebook

    def forward(self, windows: Tensor) -> Tensor:
        return scaled(windows, self.codebook)


def front_end(codebook: WindowCodebook) -> nn.Module:
    """The scaling as a module without parameters: `nn.Sequential(front_end, model)` classifies raw windows."""
    return _FrontEnd(codebook)


def prepare(windows: NDArray[np.floating], codebook: WindowCodebook) -> NDArray[np.float32]:
    """The inputs that `build`'s model is trained on: windows within the public bounds, in public scale units.

    windows: (records, channels, samples), private. Result: the same shape, private.
    """
    out: NDArray[np.float32] = scaled(torch.from_numpy(np.ascontiguousarray(windows, np.float32)), codebook).numpy()
    return out


def check(codebook: WindowCodebook) -> None:
    """Arrays: what is convolved is their order."""
    if codebook.samples == 1:
        names = ", ".join(channel.name for channel in codebook.channels)
        raise UsageError(f"model.name: got cnn for single values ({names}); want mlp, or features of type array")
    no_text(codebook, "cnn")


def build(codebook: WindowCodebook, hidden: int, seed: int) -> nn.Module:
    """Two convolutions of `hidden` channels, averaged over time, and a linear layer.

    Acts on prepared inputs (records, channels, samples); result (records, outputs), unnormalised. With 6 channels,
    7 classes and hidden 16 it has 3,319 parameters. The initial weights follow from `seed` alone; the process-wide
    random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv1d(len(codebook.channels), hidden, KERNEL, STRIDE, padding=KERNEL // 2),
            nn.ReLU(),
            nn.Conv1d(hidden, hidden, KERNEL, STRIDE, padding=KERNEL // 2),
            nn.ReLU(),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Linear(hidden, codebook.outputs),
        )
