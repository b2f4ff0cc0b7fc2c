"""`dummy`: records that fit the codebook and tell nothing of anybody: no data are looked at.

Columns are independent and uniform over what the codebook allows. They serve to write and test programs, forms and
pipelines before access; what is worked out from them is meaningless. Nothing can be learnt from them that the codebook
does not say: so mind what it says, where bounds or categories were drafted from data.
"""

from collections.abc import Mapping

import numpy as np
from pydantic import Field

from statfed.core.codebook import Codebook
from statfed.core.section import Section
from statfed.core.synthesis import Ask, Columns, Model, Private
from statfed.strategies.synthesis._axes import axes, axis_from, axis_json, drawn

TITLE = "Dummy records from the codebook alone, for testing programs"
PRIVATE: Private = "no data"
EXTRA = ""


class Options(Section):
    """Options of dummy."""

    missing: float = Field(default=0.02, ge=0, lt=1, description="share of missing values, where they are allowed")


def fit(ask: Ask, codebook: Codebook, options: Options) -> Model:  # noqa: ARG001
    """The cells of every column, and how likely each is: public, as the codebook is."""
    return {
        "missing": options.missing,
        "axes": {name: axis_json(axis) for name, axis in axes(codebook, classes=1).items()},
    }


def generate(model: Model, codebook: Codebook, count: int, rng: np.random.Generator) -> Columns:
    """Independent uniform values; of units with their members only in slots that their size has."""
    slots = codebook.folded.slots if codebook.folded else {}
    told: Mapping[str, Mapping[str, object]] = model["axes"]
    found = {}
    for name, one in told.items():
        axis = axis_from(name, one)
        cells = rng.integers(axis.cells - axis.missing, size=count)
        if axis.missing and not (name in slots and codebook.columns[slots[name][0]].required):
            cells = np.where(rng.random(count) < model["missing"], axis.cells - 1, cells)
        found[name] = drawn(axis, codebook.columns[name], cells, rng)
    for name, (_, k) in slots.items():
        if codebook.folded and k > 1:
            gone = found[codebook.folded.size] < k
            found[name][gone] = -1 if codebook.columns[name].levels else np.nan
    return found
