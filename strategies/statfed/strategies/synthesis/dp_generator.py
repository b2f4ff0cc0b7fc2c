"""`dp-generator`: a network that gives each column from those before it, trained by noisy sums of clipped gradients.

One study (analysis `made`) asks for as many sums of gradients as there are steps; records are drawn column by column.
The network has a likelihood that is computed, not bounded or played for: one network, one loss, which every step
lowers. A generative adversarial network learns from the data only through a second network that tells records apart,
has no loss that says how good it is, and loses rare levels (mode collapse); under noise on gradients those were behind
methods by margins in a comparison of private tabular data (Tao et al. 2022, arXiv 2112.09238). So this stands in for
them: what a network can do at such an epsilon.

Without epsilon the sums are exact: holders whose rules are on do not answer. The weights are then as confidential as
the records, since networks may keep rare ones (Carlini et al. 2019, "The secret sharer").

Sources: Germain et al. 2015 (MADE); Abadi et al. 2016 (DP-SGD). Values within a class are drawn evenly.
"""

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.codebook import Codebook
from statfed.core.errors import UsageError
from statfed.core.synthesis import Ask, Columns, Model, Private
from statfed.strategies.analyses import made
from statfed.strategies.analyses._classes import Axis
from statfed.strategies.analyses._made import MOST_ENTRIES, Network, Weights, drawn
from statfed.strategies.synthesis._axes import axes, axis_from, axis_json
from statfed.strategies.synthesis._axes import drawn as values_in

TITLE = "A network of each column given those before it, trained with DP-SGD (MADE)"
PRIVATE: Private = "possible"
EXTRA = ""
_AT_ONCE = 20_000  # records that are drawn at a time
_CELLS, _WIDEST = 100_000, (1024, 4)  # of a model's file: cells of all columns; hidden units and layers


class Options(made.Options):
    """Options of dp-generator."""


def fit(ask: Ask, codebook: Codebook, options: Options) -> Model:
    """The weights, from one study. Raises UsageError, before it asks, on columns and sizes that do not fit."""
    found = axes(codebook, options.classes, options.columns)
    network = made.network_of(tuple(found.values()), options)
    result = ask("made", **options.model_dump(exclude_defaults=True))
    rows = sorted(result.tables["weights"], key=lambda row: int(row["entry"] or 0))
    values = [row["value"] for row in rows]
    if len(values) != network.entries or any(value is None for value in values):
        raise UsageError(
            f"dp-generator: got {len(values)} weights, some withheld; want {network.entries} that are told"
        )
    weights = np.array(values, "<f4")
    return {
        "axes": {name: axis_json(axis) for name, axis in found.items()},
        "network": {"hidden": network.hidden, "layers": network.layers, "direct": network.direct},
        "weights": base64.b64encode(weights.tobytes()).decode(),
    }


def generate(model: Model, codebook: Codebook, count: int, rng: np.random.Generator) -> Columns:
    """Column by column, `_AT_ONCE` records at a time. Raises UsageError on a model that is none."""
    try:
        found, network, weights = _read(model, codebook)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, binascii.Error) as error:
        raise UsageError(
            f"model: got one that cannot be read ({type(error).__name__}); want one of dp-generator"
        ) from None
    blocks = list(_blocks(found, network, weights, codebook, count, rng))
    return {name: np.concatenate([block[name] for block in blocks]) for name in found}


def _blocks(
    found: Mapping[str, Axis],
    network: Network,
    weights: Weights,
    codebook: Codebook,
    count: int,
    rng: np.random.Generator,
) -> Iterator[dict[str, NDArray[Any]]]:
    for start in range(0, count, _AT_ONCE):
        codes = drawn(network, weights, min(_AT_ONCE, count - start), rng)
        yield {
            name: values_in(axis, codebook.columns[name], codes[:, place], rng)
            for place, (name, axis) in enumerate(found.items())
        }


def _read(model: Model, codebook: Codebook) -> tuple[dict[str, Axis], Network, Weights]:
    """Cells, network and weights of a model's file. Raises UsageError, and what comes of a document of another form."""
    told: Mapping[str, Mapping[str, Any]] = model["axes"]
    found = {name: axis_from(name, one) for name, one in told.items()}
    for name, axis in found.items():
        column = codebook.column(name)
        if axis.levels != column.levels or axis.cells < 1 or (axis.edges and not (np.diff(axis.edges) > 0).all()):
            raise UsageError(f"model: {name}: got other cells than the codebook's; want its levels, or rising edges")
    sizes = tuple(axis.cells for axis in found.values())
    hidden, layers, direct = (model["network"][key] for key in ("hidden", "layers", "direct"))
    sound = type(hidden) is int and type(layers) is int and type(direct) is bool
    if not sound or not 1 <= hidden <= _WIDEST[0] or not 1 <= layers <= _WIDEST[1]:
        raise UsageError("model: got a network of another size; want whole numbers within those that can be trained")
    if not 1 <= len(sizes) <= made.MOST_COLUMNS or sum(sizes) > _CELLS or any(axis.groups for axis in found.values()):
        raise UsageError(
            f"model: got {len(sizes)} columns, {sum(sizes)} cells; want columns of cells that can be trained"
        )
    network = Network(sizes, hidden, layers, direct)
    text = model["weights"]
    if not isinstance(text, str) or len(text) > 6 * MOST_ENTRIES:
        raise UsageError("model: got weights that are no text, or too long; want base64 of float32")
    raw = base64.b64decode(text, validate=True)
    if len(raw) % 4 or network.entries > MOST_ENTRIES:
        raise UsageError("model: got weights of another size; want float32 of the network's")
    return found, network, network.weights(np.frombuffer(raw, "<f4").astype(np.float32))
