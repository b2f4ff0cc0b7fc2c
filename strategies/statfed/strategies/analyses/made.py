"""`made`: a masked autoregressive network trained by protected sums of clipped gradients, for synthetic data.

What the network is, and that a record changes the sum of gradients by at most the clipping norm, says `_made`. One ask
is one step: the sum of all records' gradients at the weights that come with it, and the numbers of records that are in
it and that are left out, since a value without a cell is missing. The step itself (Adam: Kingma and Ba 2015; the result
is the mean of the weights of the last quarter of the steps: Polyak and Juditsky 1992) is post-processing.

*With noise* this is DP-SGD (Abadi et al. 2016) with all records in every step: the sum of gradients is a part of L2
sensitivity `clip` (`Part.together`), to which core adds discrete Gaussian noise; all steps are one fixed budget. There
is no sampling of records: at the same epsilon and number of steps a sample has less noise and as much less signal, so
it saves time alone. Weights are a public array of an ask: the guarantee is for every model, whoever chose it.

*The clipping norm* changes what is trained where it is below the usual norm of a gradient: records then pull alike,
however rare they are, and the chances of a column go to its most frequent cell (the geometric median of its cells, not
their mean). Norms fall as the fit gets better.

*Without noise* sums of gradients are exact figures of single records for whoever chooses the weights, and no rule on
tables can judge them: the parts say of nothing what they are, so that no holder whose rules are on answers, and no
release that has rules is made.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from statfed.core.errors import Refused, UsageError
from statfed.core.method import Arrays, Ask, Coordination, Counts, Fixed, Model, Part, Product, Question, fixed, once
from statfed.core.result import Basis, Result, Row
from statfed.core.section import Section
from statfed.core.synthetic.coded import described
from statfed.core.table import Table
from statfed.strategies.analyses._classes import Axis, axis_of
from statfed.strategies.analyses._made import MOST_ENTRIES, MOST_RECORDS, Floats, Ints, Network, clipped_sum

TITLE = "A network of each column given those before it, by clipped gradients, for synthetic data"
GROUP = "Distributions"
PUSHES_DOWN = "all but the sums of gradients; embedded DuckDB streams"
LINKED = True
MOST_COLUMNS = 60
STEP = "step"
_START = 0
"""Of the weights at the first step, the same in every study: without noise the same records give the same network."""
_COUNTED = 0.01  # share of the numbers of records, against 1 of the gradients
_MOMENTS = (0.9, 0.999)  # of Adam, and as it has them
_SMALL = 1e-8
_LAST = 0.25  # of the steps, whose weights are averaged
_KEPT = 200_000_000  # cells of records that a holder keeps from one ask to the next


class Options(Section):
    """Options of made."""

    columns: tuple[str, ...] = Field(
        default=(), max_length=MOST_COLUMNS, description="columns in their order, each given those before; none: all"
    )
    classes: int = Field(default=100, ge=2, le=1000, description="about how many classes numbers and dates have")
    hidden: int = Field(default=16, ge=1, le=1024, description="units of a hidden layer")
    layers: int = Field(default=1, ge=1, le=4, description="hidden layers")
    direct: bool = Field(default=True, description="does a column also see those before it directly?")
    steps: int = Field(default=50, ge=1, le=5000, description="steps, each a sum over all records")
    rate: float = Field(default=0.1, gt=0, le=10, description="size of the first step; it falls to 0 evenly")
    clip: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description="L2 norm that a record's gradient is scaled to at most; none: by a rule on the number of columns",
    )


@once
def axes_of(question: Question[Options]) -> tuple[Axis, ...]:
    """The cells of every column, in their order. Raises UsageError where they are none."""
    names = question.options.columns or described(question.codebook)
    if not 1 <= len(names) <= MOST_COLUMNS or len({*names}) < len(names):
        raise UsageError(f"columns: got {len(names)} with levels or bounds; want 1 to {MOST_COLUMNS}, each once")
    return tuple(axis_of(question.codebook, name, question.options.classes) for name in names)


def network_of(axes: Sequence[Axis], options: Options) -> Network:
    """The network of these columns. Raises UsageError where it has too many parameters."""
    found = Network(tuple(axis.cells for axis in axes), options.hidden, options.layers, options.direct)
    if found.entries > MOST_ENTRIES:
        raise UsageError(
            f"made: got {found.entries:,} parameters; want at most {MOST_ENTRIES:,} (fewer classes or hidden units, or "
            "direct = false)"
        )
    return found


@once
def _network(question: Question[Options]) -> Network:
    return network_of(axes_of(question), question.options)


def clip_of(question: Question[Options]) -> float:
    """The clipping norm. By default about that of the gradient of a record of which no column is known: a column's
    slopes have a squared norm of about 1, and go to its bias and to what it sees: all columns before it directly, or
    hidden units of about that norm together."""
    count, given = len(axes_of(question)), question.options.clip
    seen = count * (count + 1) / 2 if question.options.direct else 2.0 * count
    return given if given is not None else float(np.sqrt(seen))


def columns(question: Question[Options]) -> tuple[str, ...]:
    _network(question)
    return tuple(axis.name for axis in axes_of(question))


def budget(question: Question[Options]) -> Fixed:
    return fixed(STEP, question.options.steps)


def parts(question: Question[Options], ask: Ask) -> Mapping[str, Part]:
    network, clip, private = _network(question), clip_of(question), question.privacy is not None
    if ask.name != STEP:
        raise UsageError(f"made: unknown ask: got {ask.name!r}; want {STEP}")
    _weights(question, ask)
    return {
        "gradient": Part(
            (network.entries,),
            clip,
            together=(float(np.sqrt(network.entries)), 1.0),
            what=Product() if private else None,
        ),
        "records": Part((2,), 1, integer=True, single=True, share=_COUNTED, what=Counts() if private else None),
    }


def _weights(question: Question[Options], ask: Ask) -> NDArray[np.float32]:
    """The weights of an ask; without any, those that training begins with. Raises UsageError on such as are none."""
    if not ask.arrays:
        return _network(question).first(_START)
    if set(ask.arrays) != {"weights"}:
        raise UsageError(f"made: got {', '.join(sorted(ask.arrays))} with an ask; want weights")
    found: NDArray[np.float32] = np.asarray(ask.arrays["weights"])
    _network(question).check(found)
    return found


def contribute(table: Table, question: Question[Options], ask: Ask) -> Arrays:
    """The clipped sum, and how many records are in it and are left out. Raises Refused where there are more than the
    guarantee is argued for."""
    network, weights, axes = _network(question), _weights(question, ask), axes_of(question)
    if table.size.records > MOST_RECORDS:
        raise Refused(f"made: got {table.size.records:,} records; want at most {MOST_RECORDS:,} at a holder")
    total, counts = np.zeros(network.entries), np.zeros(2, np.int64)
    for codes, lost in _codes(table, axes):
        total += clipped_sum(network, weights, codes, clip_of(question))
        counts += len(codes), lost
    return {"gradient": total, "records": counts}


def _codes(table: Table, axes: Sequence[Axis]) -> Iterator[tuple[Ints, int]]:
    """Cells of the records that have one in every column, (rows, columns) at a time, and how many have not."""
    kept = table.kept if table.kept is not None else {}
    if "codes" in kept:
        yield from kept["codes"]
        return
    held: list[tuple[Ints, int]] = []
    size = 0
    for block in table.batches({f"a{i}": axis.expr(table) for i, axis in enumerate(axes)}):
        there = ~np.isnan(block).any(axis=1)
        codes = block[there].astype(np.int64), int((~there).sum())
        size += block.size
        if size <= _KEPT:
            held.append(codes)
        yield codes
    if size <= _KEPT:
        kept["codes"] = held


def discloses(question: Question[Options], ask: Ask) -> Model:  # noqa: ARG001
    return Model(_network(question).entries, tuple(axis.name for axis in axes_of(question) if not axis.missing))


def follows(question: Question[Options], before: Sequence[Ask], ask: Ask) -> str:  # noqa: ARG001
    """A step comes after a step, and no more of them than the study has."""
    steps = question.options.steps
    return "" if len(before) < steps else f"got step {len(before) + 1}; want {steps}"


def coordinate(question: Question[Options]) -> Coordination:
    options, network = question.options, _network(question)
    weights = network.first(_START).astype(np.float64)
    moments: tuple[Floats, Floats] = np.zeros(network.entries), np.zeros(network.entries)
    counts, mean, averaged = np.zeros(2), np.zeros(network.entries), 0
    for step in range(1, options.steps + 1):
        total = yield Ask(STEP, {"weights": weights.astype(np.float32)})
        counts += np.asarray(total["records"], np.float64) / options.steps
        size = clip_of(question) * max(1.0, float(total["records"].sum()))
        slope = np.asarray(total["gradient"], np.float64) / size
        first, second = (
            by * old + (1.0 - by) * new
            for by, old, new in zip(_MOMENTS, moments, (slope, np.square(slope)), strict=True)
        )
        moments = first, second
        direction = first / (1.0 - _MOMENTS[0] ** step) / (np.sqrt(second / (1.0 - _MOMENTS[1] ** step)) + _SMALL)
        weights = weights - options.rate * (1.0 - (step - 1) / options.steps) * direction
        if step > (1.0 - _LAST) * options.steps or step == options.steps:
            mean, averaged = mean + weights, averaged + 1
    return _result(question, (mean / averaged).astype(np.float32), counts)


def _result(question: Question[Options], weights: NDArray[np.float32], counts: Floats) -> Result:
    rows: list[Row] = [{"entry": place, "value": float(value)} for place, value in enumerate(weights)]
    used, lost = (max(0, round(float(count))) for count in counts)
    basis = {"weights": Basis(keys=("entry",), observations=True, own=("value",))}
    return Result(
        "made",
        f"A network of {len(axes_of(question))} columns with {len(weights):,} weights",
        {"weights": rows},
        facts={"observations": used, "left_out": lost},
        notes=(
            "weights: in the order of the network's masks, then biases, as synthetic data of dp-generator take them",
        ),
        basis=basis if question.privacy else {},
        keys={"weights": ("entry",)},
        observations="observations" if question.privacy else None,
        numbers=("left_out",),
    )
