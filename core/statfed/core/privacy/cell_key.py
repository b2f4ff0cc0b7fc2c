"""Cell-key perturbation: noise that depends on nothing but the records in a cell, so that asking twice tells no more.

Every record has a key, uniform in [0, 1), drawn once and kept. The key of a cell is the sum of its records' keys
modulo 1; it is uniform as well and looks up the noise in a public table. Sums of keys in units of 2**-32 are whole
numbers that add up over holders, so they can be summed under any protection. Margins are perturbed by their own keys:
perturbed cells do not add up to perturbed margins.

A total of a value is perturbed by itself, with a key of its own that is a one-way function of the cell's: were it moved
along with the count, as many mean records more or less, the quotient of the two would be the exact mean, and two such
means of cells that differ by one record its value. Where the largest contribution is bounded the noise is a quarter to
three quarters of that bound, to either side, so that a contribution that is got as the difference of two totals is
never known to within a quarter of the largest one of either (the perturbation of largest contributors of the Australian
Bureau of Statistics, with a bound in place of the contributors, which do not leave the holders). Where it is not, as
for sums of weights, noise of the table times the mean contribution is added: this hides the mean, and a contribution
of a few mean ones, and no larger one.

Whoever chooses the record keys chooses the noise: keys are uniform and secret, in the column to which the holder's own
codebook gives the role record-key. Nothing here can see whether they are.

Source: Fraser and Wooton 2005; Marley and Leaver 2011, ISI World Congress; Giessing 2016, PSD, for the noise of
maximum entropy; the R package ptable computes the same tables. Thompson, Broadfoot and Elazar 2013, UNECE work session
on statistical data confidentiality, for totals.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import UsageError

Floats = NDArray[np.float64]
MODULUS = 2**32
"""Keys are summed in units of 1 / MODULUS; a cell of fewer than 2**31 records does not leave 64 bits."""


@dataclass(frozen=True)
class NoiseTable:
    """Probabilities of the noise on every count: row i is for count i, the last row for all greater counts.

    probability: (largest + forbidden + 1, 2 * largest + 1), of noise -largest ... largest. Each row has mean 0 and the
    stated variance, except row 0: an empty cell stays empty. Noise never makes a count negative.
    """

    largest: int
    variance: float
    forbidden: int
    probability: Floats

    @property
    def noise(self) -> NDArray[np.int64]:
        return np.arange(-self.largest, self.largest + 1)

    def look_up(self, counts: NDArray[np.int64], keys: Floats) -> NDArray[np.int64]:
        """Noise for cells with these counts and keys, same shape. Raises ValueError on a key outside [0, 1)."""
        counts, keys = np.asarray(counts, np.int64), np.asarray(keys, np.float64)
        if not ((keys >= 0) & (keys < 1)).all() or (counts < 0).any():
            raise ValueError("cell key: got keys outside [0, 1) or negative counts; want neither")
        row = np.minimum(counts, len(self.probability) - 1)
        reached = np.cumsum(self.probability, axis=1)[row]
        place = (keys[..., np.newaxis] >= reached[..., :-1] / reached[..., -1:]).sum(axis=-1)
        return np.asarray(place - self.largest, np.int64)

    def perturb(self, counts: NDArray[np.int64], keys: Floats) -> NDArray[np.int64]:
        """Perturbed counts, same shape."""
        return np.asarray(counts, np.int64) + self.look_up(counts, keys)


def own_keys(keys: Floats) -> Floats:
    """Keys of the totals of cells, in [0, 1), that nothing but the cells' keys tells; same shape."""
    whole = fixed_point(keys)
    made = [
        hashlib.blake2b(int(k).to_bytes(8, "big"), digest_size=7, person=b"statfed.total").digest() for k in whole.flat
    ]
    return np.array([int.from_bytes(one, "big") / 2**56 for one in made]).reshape(whole.shape)


def perturbed_totals(
    totals: Floats, counts: NDArray[np.int64], keys: Floats, table: NoiseTable, largest: Floats | None
) -> Floats:
    """Totals of cells with noise of their own, same shape; an empty cell keeps its total.

    counts, keys: of the cells. largest: upper bounds of the largest contribution to each, None where there are none.
    """
    own = own_keys(keys)
    if largest is not None:
        side, far = np.where(own < 0.5, -1.0, 1.0), 2 * np.mod(own, 0.5)
        return np.asarray(totals + np.where(counts > 0, side * (0.25 + 0.5 * far) * largest, 0.0))
    mean = np.divide(totals, counts, out=np.zeros(totals.shape), where=counts > 0)
    return np.asarray(totals + mean * table.look_up(counts, own))


def noise_table(largest: int, variance: float | None = None, forbidden: int = 0) -> NoiseTable:
    """The table of maximum entropy with mean 0 and this variance.

    largest: greatest absolute noise. variance: by default 0.4 * largest. forbidden: no count from 1 to this one is
    ever shown. Raises UsageError when some count admits no such noise.
    """
    if largest < 1 or forbidden < 0 or forbidden > largest:
        raise UsageError(
            f"cell key: got largest noise {largest}, forbidden {forbidden}; want 0 <= forbidden <= largest"
        )
    asked = 0.4 * largest if variance is None else variance
    noise = np.arange(-largest, largest + 1)
    table = np.zeros((largest + forbidden + 1, len(noise)))
    table[0, largest] = 1.0
    for count in range(1, len(table)):
        shown = count + noise
        support = (shown == 0) | (shown > forbidden)
        table[count, support] = _maximum_entropy(noise[support].astype(float), asked, count)
    return NoiseTable(largest, asked, forbidden, table)


def cell_keys(sums: NDArray[np.int64]) -> Floats:
    """Keys of cells, in [0, 1), from the sums of their records' keys in units of 2**-32."""
    return np.asarray(np.mod(sums, MODULUS) / MODULUS, np.float64)


def fixed_point(keys: Floats) -> NDArray[np.int64]:
    """Record keys in [0, 1) as whole numbers of 2**-32, rounded down. Raises ValueError on others."""
    if not ((keys >= 0) & (keys < 1)).all():
        raise ValueError("record keys: got values outside [0, 1); want uniform ones in [0, 1)")
    return np.asarray(np.floor(keys * MODULUS), np.int64)


def _maximum_entropy(noise: Floats, variance: float, count: int) -> Floats:
    """Probabilities proportional to exp(a x + b x^2), with a and b such that the mean is 0 and the variance as asked.

    Newton's method on the convex dual log sum exp(a x + b (x^2 - variance)), with step halving.
    """
    low, high = _variances(noise)
    if not low < variance < high:
        raise UsageError(
            f"cell key: got variance {variance:g}; want more than {low:g} and less than {high:g} for a count of {count}"
        )
    features = np.column_stack([noise, noise**2 - variance])
    scale = np.abs(features).max(axis=0)
    features = features / scale

    def dual(weights: Floats) -> tuple[float, Floats]:
        exponent = features @ weights
        top = float(exponent.max())
        likely = np.exp(exponent - top)
        return top + math.log(float(likely.sum())), likely / likely.sum()

    weights = np.zeros(2)
    value, likely = dual(weights)
    for _ in range(500):
        gradient = features.T @ likely
        if np.abs(gradient).max() < 1e-13:
            break
        spread = (features.T * likely) @ features - np.outer(gradient, gradient)
        step = np.linalg.solve(spread + 1e-14 * np.eye(2), gradient)
        length = 1.0
        while length > 1e-10 and dual(weights - length * step)[0] > value + 1e-14:
            length /= 2
        weights = weights - length * step
        value, likely = dual(weights)
    return likely


def _variances(noise: Floats) -> tuple[float, float]:
    """Least and greatest variance of a distribution on `noise` with mean 0.

    With mean 0 on two points -a and b the variance is a * b; the extremes are two such points.
    """
    below, above = -noise[noise < 0], noise[noise > 0]
    if not len(below) or not len(above):
        return 0.0, 0.0
    least = 0.0 if (noise == 0).any() else float(below.min() * above.min())
    return least, float(below.max() * above.max())
