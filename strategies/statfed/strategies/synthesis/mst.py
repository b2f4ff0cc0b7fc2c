"""`mst`: records from a tree of pairs of columns, counted with noise: differentially private, and cheap.

One study (analysis `mst`) asks for all counts. The model is the distribution nearest to them whose columns depend on
each other along the tree; what no pair of the tree tells is lost. Values within a class are drawn evenly; bounds, 0
and spikes of the codebook are classes of their own.
Source: McKenna, Miklau and Sheldon 2021, Winning the NIST contest.
"""

import numpy as np

from statfed.core.codebook import Codebook
from statfed.core.synthesis import Ask, Columns, Model, Private
from statfed.strategies.analyses import mst as counts
from statfed.strategies.synthesis import _graphical

TITLE = "Private records from a tree of noisy pairs of columns (MST)"
PRIVATE: Private = "always"
EXTRA = ""


class Options(counts.Options):
    """Options of mst."""


def fit(ask: Ask, codebook: Codebook, options: Options) -> Model:
    """One private study, and the model nearest to its counts."""
    return _graphical.fit("mst", ask, codebook, options)


def generate(model: Model, codebook: Codebook, count: int, rng: np.random.Generator) -> Columns:
    """Draws along the model's tree."""
    return _graphical.generate(model, codebook, count, rng)
