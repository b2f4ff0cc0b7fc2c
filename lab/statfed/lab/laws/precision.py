"""The law of precision: under a protection in fixed point every figure of a method is that of the same study without
encoding, or the study is refused, however wide the bounds of the codebook are."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from statfed.core.codebook import Codebook, Column, make_codebook
from statfed.core.errors import Refused, StatfedError
from statfed.core.method import columns_read, read_question
from statfed.core.resolution import moved
from statfed.core.terms import Terms
from statfed.lab.laws.check import holds
from statfed.lab.laws.walk import finished

if TYPE_CHECKING:
    import pandas as pd

SAME = "same"
WIDER = (1.0, 1e8, 1e20)
"""How many times wider than the example's the bounds are."""


def wide(terms: Terms) -> bool:
    """Does a study read a number whose bounds can be wider?"""
    read, columns = columns_read(read_question(terms)[1]), terms.codebook.columns
    return any(_numeric(columns[name]) for name in read)


def _numeric(column: Column) -> bool:
    return column.type == "number" and column.bounds is not None and column.role is None


def widened(codebook: Codebook, times: float) -> Codebook:
    """The codebook with so much wider bounds of every number, below as well as above where they are not one-sided."""
    columns: dict[str, Any] = {}
    for name, column in codebook.columns.items():
        shown = column.model_dump(by_alias=True, exclude_defaults=True)
        if column.bounds is not None and _numeric(column):
            low, high = column.bounds
            columns[name] = shown | {"low": low * times if low < 0 else low, "high": high * times}
        else:
            columns[name] = shown
    whole = codebook.model_dump(by_alias=True, exclude_defaults=True)
    return make_codebook(whole | {"columns": columns})


def precise(terms: Terms, frames: "Sequence[pd.DataFrame]", wider: Sequence[float] = WIDER) -> Mapping[float, str]:
    """By width of the bounds, `SAME` or why it was refused.

    Raises Broken where a figure differs from that without encoding by more than a result may.
    """
    found = {}
    tables = dict(zip(terms.holders, frames, strict=True))
    for times in wider:
        study = terms.model_copy(update={"codebook": widened(terms.codebook, times)})
        try:
            want = finished(study, tables)
        except StatfedError as error:  # no figures without encoding: none to compare
            found[times] = str(error)
            continue
        try:
            got = finished(study, tables, encoded=True)
        except Refused as error:
            found[times] = str(error)
            continue
        off = moved(want, got)
        where = f"{off[0]} is off by {off[1]:.2g} of itself" if off else ""
        holds(off is None, f"bounds {times:g} times as wide: {where}; want the figure without encoding, or a refusal")
        found[times] = SAME
    return found
