"""Which models a holder computes with: a check of every model that the coordinator sends, ahead of any data.

A model is public and may be made for a purpose: pairs of weights that differ in the last bit, sums that overflow, a
neuron that fires for one record. What bounds achieve: with every parameter at most PARAMETER and every layer's L2 norm
at most LAYER, an activation of layer l is at most LAYER^l (|x| + 1) for a record's inputs x, which stays finite in
float32 for eight layers; so no record is told from others by an overflow. What they do not achieve: that a model is an
honest one. That one record cannot move a private sum by more than stated is proved for every finite model
(`statfed.strategies.learning.clipping`); without differential privacy an update may tell single records whatever the
bounds are (Boenisch et al. 2023, "When the curious abandon honesty"; Fowl et al. 2022, "Robbing the Fed").

The decision rests on public numbers alone: it is the same at every holder and for all data.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import Refused
from statfed.core.method import Question, once
from statfed.strategies.learning.options import TrainingOptions
from statfed.strategies.learning.prepared import build

PARAMETER, LAYER = 1e3, 1e4
"""Largest absolute parameter, and largest L2 norm of a layer's weight or bias. Trained models stay far below."""


@once
def _layers(question: Question[TrainingOptions]) -> tuple[tuple[str, int], ...]:
    return tuple((name, p.numel()) for name, p in build(question).named_parameters())


def check_model(question: Question[TrainingOptions], vector: NDArray[Any]) -> None:
    """Raises Refused unless a model has the study's size, finite parameters and norms within the public bounds."""
    layers = _layers(question)
    wanted = sum(size for _, size in layers)
    if vector.dtype.kind != "f" or vector.shape != (wanted,):
        raise Refused(f"model: got parameters of shape {vector.shape} and type {vector.dtype}; want ({wanted},) floats")
    if not np.isfinite(vector).all():
        raise Refused("model: got values that are not finite; want finite numbers")
    ends = np.cumsum([size for _, size in layers])[:-1]
    for (name, _), part in zip(layers, np.split(vector.astype(np.float64), ends), strict=True):
        largest, norm = float(np.abs(part).max(initial=0.0)), float(np.linalg.norm(part))
        if largest > PARAMETER or norm > LAYER:
            raise Refused(
                f"model: layer {name}: got a largest parameter of {largest:.3g} and a norm of {norm:.3g}; want at most "
                f"{PARAMETER:g} and {LAYER:g}: a smaller learning rate, or an honest model"
            )
