"""`aim`: records from pairs of columns that were counted with noise in rounds: the private default.

One study (analysis `aim`) asks for all counts. The model is the distribution of largest entropy, or nearly, among those
nearest to them: log-linear, on a junction tree. Values within a class are drawn evenly; bounds, 0
and spikes of the codebook are classes of their own.
Source: McKenna, Mullins, Sheldon and Miklau 2022, AIM.
"""

import numpy as np

from statfed.core.codebook import Codebook
from statfed.core.synthesis import Ask, Columns, Model, Private
from statfed.strategies.analyses import aim as counts
from statfed.strategies.synthesis import _graphical

TITLE = "Private records from noisy pairs of columns, chosen where the model is worst (AIM)"
PRIVATE: Private = "always"
EXTRA = ""


class Options(counts.Options):
    """Options of aim."""


def fit(ask: Ask, codebook: Codebook, options: Options) -> Model:
    """One private study, and the model nearest to its counts."""
    return _graphical.fit("aim", ask, codebook, options)


def generate(model: Model, codebook: Codebook, count: int, rng: np.random.Generator) -> Columns:
    """Draws along the model's tree."""
    return _graphical.generate(model, codebook, count, rng)
