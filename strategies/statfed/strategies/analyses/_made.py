"""A masked autoregressive network over the cells of columns, and clipped sums of its per-record gradients.

One record is a cell of each of D columns, in their order. The network (MADE: Germain, Gregor, Murray and Larochelle
2015) gives for every column the log-probabilities of its cells, up to a constant, from the cells of the columns before
it alone: inputs are indicators of cells, hidden units have a degree m from 1 to D - 1 and see columns 1 to m, through
units of no higher degree, and the cells of column k see hidden units of degree below k and, directly, the cells of
columns before k. What a mask takes out is no parameter. So the loss of a record, minus the log-likelihood of its
cells, is the sum over columns of a cross-entropy, and exact: nothing has to be sampled or bounded to train on it.

Formal guarantee of `clipped_sum`: adding or removing one record changes it by at most C in L2 norm, C the clipping
norm, for every finite model, whoever chose it.

1. *A record's gradient is a function of its cells and of the model alone, to the last bit.* What cells contribute is
   gathered and added up column by column; activations, exponentials and slopes are elementwise; sums over the cells of
   a column, and those of squared norms, are running sums along a row, in its order; products with weights between
   layers round nothing (`statfed.strategies.learning.unrounded`). No number of one record enters that of another.
2. *Its norm is that of the numbers that are added up.* In a layer with slopes g and inputs a the gradient is g_i a_j
   where the mask lets i see j, and units are in the order of their degrees, so what i sees is a beginning of a. The
   squared norm is the sum over i of g_i^2 times that beginning's running sum of squares; of indicators this is the
   number of columns seen. Sums of numbers that are not negative err by their count times 2^-53, below 10^-10. A record
   is scaled to (1 - 10^-5) C at most, or left out where its norm is not finite.
3. *Sums* are taken in float64, `BLOCK` records and then blocks at a time: two of them, of n records, err by at most
   2 n (2048 + n / 1024) 2^-53 C together in L2 norm (Higham 2002, section 4.2), which is below 10^-6 C for a million
   records: less than the 10^-5 that scaling leaves.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import UsageError
from statfed.strategies.learning.unrounded import exponential, product

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
BLOCK = 1024
"""Records whose gradients are added up before they are added to the rest."""
MOST_ENTRIES, MOST_RECORDS = 250_000, 1_000_000
"""Parameters of a network, and records of one holder, for which the guarantee is argued."""
LARGEST = 1e3
"""A parameter of a model that a holder computes with. Trained ones stay far below."""
_LEFT = 1e-5  # of the clipping norm, for what is rounded


@dataclass(frozen=True)
class Network:
    """What a network is, without its weights: public. sizes: cells of each column; layers: hidden ones, of `hidden`
    units each; direct: do cells see the cells of earlier columns directly?"""

    sizes: tuple[int, ...]
    hidden: int
    layers: int = 1
    direct: bool = True

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Place of the first cell of each column among all cells, and their number."""
        return (0, *accumulate(self.sizes))

    @cached_property
    def columns(self) -> Ints:
        """The column of each cell, from 1 on, (cells,)."""
        return np.repeat(np.arange(1, len(self.sizes) + 1), self.sizes)

    @cached_property
    def degrees(self) -> Ints:
        """How many columns each hidden unit sees, (hidden,), ascending."""
        most = max(len(self.sizes) - 1, 1)
        return 1 + np.arange(self.hidden) * most // self.hidden

    @cached_property
    def masks(self) -> tuple[NDArray[np.bool_], ...]:
        """(outputs, inputs) of every matrix: into the first hidden layer, between hidden ones, into the cells, and from
        cells to cells where they are seen directly."""
        into = self.degrees[:, None] >= self.columns
        between = self.degrees[:, None] >= self.degrees
        out = self.columns[:, None] > self.degrees
        direct = [self.columns[:, None] > self.columns] if self.direct else []
        return (into, *[between] * (self.layers - 1), out, *direct)

    @cached_property
    def biases(self) -> tuple[int, ...]:
        """Entries of every bias: of hidden layers, and of the cells."""
        return (*[self.hidden] * self.layers, self.starts[-1])

    @cached_property
    def entries(self) -> int:
        """Number of parameters."""
        return sum(int(mask.sum()) for mask in self.masks) + sum(self.biases)

    def check(self, vector: NDArray[np.float32]) -> None:
        """Raises UsageError on parameters that are none of this network."""
        if vector.dtype != np.float32 or vector.shape != (self.entries,):
            raise UsageError(f"model: got {vector.dtype} of shape {vector.shape}; want ({self.entries},) of float32")
        if not (np.abs(vector) <= LARGEST).all():
            raise UsageError(f"model: got parameters that are not finite, or beyond {LARGEST:g}; want smaller ones")

    def weights(self, vector: NDArray[np.float32]) -> "Weights":
        """Matrices and biases, from one vector of what no mask takes out. Raises UsageError as `check` does."""
        self.check(vector)
        found, place = [], 0
        for mask in self.masks:
            matrix = np.zeros(mask.shape)
            matrix[mask] = vector[place : (place := place + int(mask.sum()))]
            found.append(matrix)
        ends = np.cumsum(self.biases)[:-1]
        return Weights(tuple(found), tuple(np.split(vector[place:].astype(np.float64), ends)))

    def flat(self, matrices: Sequence[Floats], biases: Sequence[Floats]) -> Floats:
        """One vector of what no mask takes out, (entries,)."""
        kept = [matrix[mask] for matrix, mask in zip(matrices, self.masks, strict=True)]
        return np.concatenate([*kept, *biases])

    def first(self, seed: int) -> NDArray[np.float32]:
        """The weights that training begins with: of no column on another, so that all cells are equally likely."""
        rng = np.random.default_rng(seed)
        matrices = [np.zeros(mask.shape) for mask in self.masks]
        for place in range(self.layers):
            seen = len(self.sizes) if place == 0 else self.hidden
            width = 1.0 / np.sqrt(seen) if place else 1.0 / np.sqrt(seen * self.hidden)
            matrices[place] = rng.normal(0.0, width, self.masks[place].shape)
        return self.flat(matrices, [np.zeros(size) for size in self.biases]).astype(np.float32)


@dataclass(frozen=True)
class Weights:
    """Matrices (outputs, inputs), 0 where a mask takes out, and biases, as `Network.masks` has them."""

    matrices: tuple[Floats, ...]
    biases: tuple[Floats, ...]


def _gathered(network: Network, matrix: Floats, codes: Ints, *, beyond: bool) -> Floats:
    """What a record's cells contribute through a matrix from cells, (records, outputs). beyond: to the cells of later
    columns alone."""
    turned = np.ascontiguousarray(matrix.T)
    found = np.zeros((len(codes), len(matrix)))
    for column, start in enumerate(network.starts[:-1]):
        rest = network.starts[column + 1] if beyond else 0
        found[:, rest:] += turned[start + codes[:, column], rest:]
    return found


def activations(network: Network, weights: Weights, codes: Ints) -> list[Floats]:
    """What each hidden layer gives, (records, hidden) each."""
    found = [np.maximum(_gathered(network, weights.matrices[0], codes, beyond=False) + weights.biases[0], 0.0)]
    for layer in range(1, network.layers):
        found.append(np.maximum(product(found[-1], weights.matrices[layer].T) + weights.biases[layer], 0.0))
    return found


def _slopes(network: Network, weights: Weights, codes: Ints) -> tuple[list[Floats], Floats]:
    """What each hidden layer gives, and derivatives of each record's loss in its cells' values, (records, cells)."""
    active = activations(network, weights, codes)
    values = product(active[-1], weights.matrices[network.layers].T) + weights.biases[-1]
    if network.direct:
        values += _gathered(network, weights.matrices[-1], codes, beyond=True)
    blocks = list(zip(network.starts, network.starts[1:], strict=False))
    for start, end in blocks:
        values[:, start:end] -= values[:, start:end].max(axis=1, keepdims=True)
    slopes = exponential(values)
    for start, end in blocks:
        slopes[:, start:end] /= np.cumsum(slopes[:, start:end], axis=1)[:, -1:]
    for column, start in enumerate(network.starts[:-1]):
        slopes[np.arange(len(codes)), start + codes[:, column]] -= 1.0
    return active, slopes


def clipped_sum(network: Network, vector: NDArray[np.float32], codes: Ints, norm: float) -> Floats:
    """Sum of the records' gradients, each scaled to L2 norm at most `norm`, (entries,).

    codes: (records, columns), the cell of each, all of them there; private, as is the result. L2 sensitivity to one
    record: `norm`; every entry of a record's gradient is within it too. Raises UsageError on a model that is none.
    """
    weights = network.weights(vector)
    matrices, biases = [np.zeros(mask.shape) for mask in network.masks], [np.zeros(size) for size in network.biases]
    for start in range(0, len(codes), BLOCK):
        for total, part in zip([*matrices, *biases], _block(network, weights, codes[start : start + BLOCK], norm)):  # noqa: B905
            total += part
    return network.flat(matrices, biases)


def _block(network: Network, weights: Weights, codes: Ints, norm: float) -> Iterator[Floats]:
    """Clipped sums over a block: of every matrix, then of every bias."""
    active, slopes = _slopes(network, weights, codes)
    found = [slopes]
    for layer in range(network.layers, 0, -1):
        back = product(found[0], weights.matrices[layer])
        found.insert(0, np.where(active[layer - 1] > 0.0, back, 0.0))
    factors = _factors(network, active, found, norm)[:, None]
    scaled = [slope * factors for slope in found]
    cells = np.zeros((len(codes), network.starts[-1]))
    for column, start in enumerate(network.starts[:-1]):
        cells[np.arange(len(codes)), start + codes[:, column]] = 1.0
    yield scaled[0].T @ cells
    for slope, before in zip(scaled[1:], active, strict=True):
        yield slope.T @ before
    if network.direct:
        yield scaled[-1].T @ cells
    yield from (slope.sum(axis=0) for slope in scaled)


def _factors(network: Network, active: Sequence[Floats], slopes: Sequence[Floats], norm: float) -> Floats:
    """What each record is multiplied by, (records,); slopes: of hidden layers, and of the cells."""
    seen = (network.columns - 1 if network.direct else 0) + 1.0  # columns that a cell sees directly, and its bias
    first, cells = np.square(slopes[0]) * (network.degrees + 1.0), np.square(slopes[-1]) * seen
    total = _last(np.asarray(first, np.float64)) + _last(np.asarray(cells, np.float64))
    for place, (before, slope) in enumerate(zip(active, slopes[1:], strict=True), 1):
        ends = network.masks[place].sum(axis=1)
        running = np.concatenate([np.zeros((len(before), 1)), np.cumsum(np.square(before), axis=1)], axis=1)
        bias = 0.0 if place == network.layers else 1.0
        total += _last(np.square(slope) * (running[:, ends] + bias))
    size = np.sqrt(total)
    wanted = (1.0 - _LEFT) * norm
    return np.where(np.isfinite(size), wanted / np.maximum(np.where(np.isfinite(size), size, 1.0), wanted), 0.0)


def _last(values: Floats) -> Floats:
    """The sum of each row, in its order."""
    found: Floats = np.cumsum(values, axis=1)[:, -1]
    return found


def drawn(network: Network, weights: Weights, count: int, rng: np.random.Generator) -> Ints:
    """Cells of so many records, (count, columns): column by column, each given those before it."""
    codes = np.zeros((count, len(network.sizes)), np.int64)
    for column, (start, end) in enumerate(zip(network.starts, network.starts[1:], strict=False)):
        values = np.broadcast_to(weights.biases[-1][start:end], (count, end - start)).copy()
        for earlier, place in enumerate(network.starts[:column] if network.direct else ()):
            values += weights.matrices[-1][start:end].T[place + codes[:, earlier]]
        if column:  # units that see no later column than those that were drawn; others have no weight here
            last = activations(network, weights, codes)[-1]
            values += last @ weights.matrices[network.layers][start:end].T
        chance = np.cumsum(np.exp(values - values.max(axis=1, keepdims=True)), axis=1)
        codes[:, column] = (chance < rng.random((count, 1)) * chance[:, -1:]).sum(axis=1)
    return codes
