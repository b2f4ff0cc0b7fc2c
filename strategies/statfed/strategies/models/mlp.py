"""A small perceptron on fixed features of windows, or on single values as they are scaled.

Few parameters, so it stays accurate under differential privacy.
The front end has no parameter and uses no statistic of any data set: only the codebook's public bounds and scales
and constants of this file. Each record's features depend on that record alone, so the sensitivity of everything
computed from them to one record is what the clipping says.
"""

from itertools import combinations, pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from statfed.core.records import WindowCodebook
from statfed.strategies.models import dense

FLOOR = 1e-2
"""Variance (in squared public scale units) that is told apart from none."""
BANDS = 9
"""Frequency bands per channel, at most; geometric, without the zero frequency."""
SLOW = 7
"""Lowest frequencies, in bins, whose phase is compared between channels."""
HANN_GAIN = (8.0 / 3.0) ** 0.5
"""Restores the power that a Hann window takes away."""
_BATCH = 1024


def scaled(windows: Tensor, codebook: WindowCodebook) -> Tensor:
    """Windows within the codebook's bounds (values outside are moved to the bound), divided by its scales.

    windows: (records, channels, samples), private. Result: the same shape, float32.
    """

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=windows.device).reshape(1, -1, 1)

    low, high, scale = (column([getattr(c, key) for c in codebook.channels]) for key in ("low", "high", "scale"))
    return windows.float().clamp(low, high) / scale


def edges(samples: int) -> list[int]:
    """First bin of each frequency band and the end of the last, ascending.

    >>> edges(128)
    [1, 2, 3, 4, 6, 10, 16, 26, 41, 65]
    """
    end = samples // 2 + 1
    return sorted({max(1, round(end ** (i / BANDS))) for i in range(BANDS + 1)})


def vectors(codebook: WindowCodebook) -> list[list[int]]:
    """Channels that are the axes of one vector: neighbours named `<stem>_x`, `<stem>_y`, `<stem>_z`."""
    names = [channel.name for channel in codebook.channels]
    starts = [i for i, name in enumerate(names) if name.endswith("_x")]
    return [[i, i + 1, i + 2] for i in starts if names[i : i + 3] == [names[i][:-1] + axis for axis in "xyz"]]


def features(windows: Tensor, codebook: WindowCodebook) -> Tensor:
    """Fixed features of each window: moments, extremes, spectrum, correlation, phase, and size of vectors.

    windows: (records, channels, samples), private, in the codebook's units. Result: (records, features) float32,
    finite for finite windows, of order one. Six channels of 128 samples give 119 features. Of windows of one sample
    the features are the values themselves, as model `dense` scales them.
    """
    if codebook.samples == 1:
        return dense.features(windows, codebook)
    x = scaled(windows, codebook)
    mean = x.mean(2)
    centred = x - mean.unsqueeze(2)
    variance = centred.square().mean(2)
    shape = centred / (variance + FLOOR).sqrt().unsqueeze(2)
    first, second = torch.triu_indices(x.shape[1], x.shape[1], 1)
    parts = [
        3.0 * torch.tanh(0.75 * mean),
        0.5 * torch.log(variance + FLOOR) + 1.0,
        torch.tanh(0.5 * shape.pow(4).mean(2) - 1.0),
        torch.tanh(0.3 * x.amin(2)),
        torch.tanh(0.3 * x.amax(2)),
        *_band_levels(centred),
        2.0 * (shape[:, first] * shape[:, second]).mean(2),
        2.0 * _quadrature(shape, first, second),
        *_sizes(x, vectors(codebook)),
    ]
    return torch.cat(parts, 1)


def _band_levels(centred: Tensor) -> list[Tensor]:
    """Log power of each frequency band under a Hann window: one (records, channels) a band."""
    samples = centred.shape[2]
    taper = torch.hann_window(samples, device=centred.device) * HANN_GAIN
    power = torch.fft.rfft(centred * taper, norm="ortho").abs().square() * (2.0 / samples)
    bands = (power[:, :, a:b].sum(2) for a, b in pairwise(edges(samples)))
    return [0.25 * torch.log(band + FLOOR * FLOOR) + 1.0 for band in bands]


def _quadrature(shape: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Correlation of channel pairs a quarter of a period apart, over slow movement: the sense of a rotation."""
    samples = shape.shape[2]
    slow = torch.fft.rfft(shape, norm="ortho")[:, :, 1 : SLOW + 1]
    crossed: Tensor = slow[:, first] * slow[:, second].conj()
    return crossed.imag.sum(2) * (2.0 / samples)


def _sizes(x: Tensor, triples: list[list[int]]) -> list[Tensor]:
    """Mean and spread of each vector's length, and how the lengths of two vectors go together; (records, 1) each."""
    parts, lengths = [], []
    for triple in triples:
        length = x[:, triple].square().sum(1).sqrt()
        mean = length.mean(1, keepdim=True)
        spread = (length - mean).square().mean(1, keepdim=True)
        parts += [torch.log(mean + 0.03) + 0.5, 0.5 * torch.log(spread + FLOOR * FLOOR) + 1.0]
        lengths.append((length - mean) / (spread + FLOOR).sqrt())
    for one, other in combinations(lengths, 2):
        parts.append(2.0 * (one * other).mean(1, keepdim=True))
    return parts


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
    """The inputs that `build`'s model is trained on: each record's features, computed once.

    windows: (records, channels, samples), private. Result: (records, features), private.
    """
    out = np.empty((len(windows), width(codebook)), np.float32)
    with torch.no_grad():
        for start in range(0, len(windows), _BATCH):
            part = torch.from_numpy(np.ascontiguousarray(windows[start : start + _BATCH], np.float32))
            out[start : start + _BATCH] = features(part, codebook).numpy()
    return out


def width(codebook: WindowCodebook) -> int:
    """Number of features of one record."""
    return features(torch.zeros(1, len(codebook.channels), codebook.samples), codebook).shape[1]


def check(codebook: WindowCodebook) -> None:
    """Numbers, dates, truths, categories and arrays of them, not texts."""
    dense.no_text(codebook, "mlp")


def build(codebook: WindowCodebook, hidden: int, seed: int) -> nn.Module:
    """Linear-ReLU-Linear on prepared inputs (records, features), linear where `hidden` is 1; result (records, outputs),
    unnormalised.

    The initial weights follow from `seed` alone; the process-wide random state is left as it was.
    """
    return dense.head(width(codebook), hidden, codebook.outputs, seed)
