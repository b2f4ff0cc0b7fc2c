"""Membership: can it be told from synthetic data whether a record was among those that they were made from?

Attacked are *rare* records: those far from all others, whose membership is not hidden in a crowd. A mean over all
records hides what happens to them: with 2 % of the rare records copied verbatim the mean distance to the closest record
hardly moves, while their own membership can be read off.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import UsageError
from statfed.core.synthetic.coded import Coded, joined
from statfed.core.synthetic.features import gower_points, nearest
from statfed.core.synthetic.measured import Measured, auc, of_auc, succeeded

RARE = 0.05
"""Share of records that count as rare."""
FEWEST = 20
"""Rare records of both sides at least."""


def rarity(table: Coded, population: Coded, neighbours: int = 5) -> NDArray[np.float64]:
    """How far each record is from its nearest others of a population that it is in, (n,): Gower's distance times the
    number of columns, mean over so many neighbours beside itself."""
    points, among = gower_points(table, population), gower_points(population, population)
    distances, _ = nearest(points, among, neighbours + 1)
    return np.asarray(distances[:, 1:].mean(axis=1))


def membership(
    original: Coded,
    synthetic: Coded,
    fresh: Coded,
    rng: np.random.Generator,
    rare: float = RARE,
    attempts: int = 4000,
) -> Measured:
    """Area under the ROC curve of telling members from fresh records of the same population, among the rare ones.

    Fresh records are halved: one half are attacked beside the members, the other half tells how near records of the
    population are anyway. The score is the logarithm of the distance to the nearest of that half less that to the
    nearest synthetic record (Gower's distance; a density ratio in the sense of van Breugel et al. 2023, by nearest
    neighbours). .5: no better than a coin. rare: share of records, by distance from the others of the population.
    Without fresh records nothing can be said. Raises UsageError where fewer than FEWEST rare ones are on either side.
    """
    score, inside = rare_scores(original, synthetic, fresh, rng, rare, attempts)
    if min(int(inside.sum()), int((~inside).sum())) < FEWEST:
        looked = 2 * min(original.count, fresh.count // 2, attempts)
        wanted = round(4 * FEWEST / rare)  # half are attacked; twice FEWEST of each kind, as chance deals them
        raise UsageError(
            f"membership: got {len(inside)} rare records of {looked}; want at least {FEWEST} members and "
            f"{FEWEST} others among them: about {wanted:,} fresh records and as many original ones"
        )
    value, error = auc(score[inside], score[~inside])
    return of_auc("membership", "risk", value, error, len(inside), f"the {rare:.0%} rarest records")


def rare_scores(
    original: Coded, synthetic: Coded, fresh: Coded, rng: np.random.Generator, rare: float = RARE, attempts: int = 4000
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Of the rare records among those attacked: the score of `membership`, and whether it is a member; (rare,) each."""
    size = min(original.count, fresh.count // 2, attempts)
    if not size:
        return np.empty(0), np.empty(0, np.bool_)
    mixed = fresh.drawn(fresh.count, rng)
    members, others, known = (
        original.drawn(size, rng),
        mixed.take(np.arange(size)),
        mixed.take(np.arange(size, mixed.count)),
    )
    both = joined(members, others)
    far = rarity(both, both)
    chosen = far >= np.quantile(far, 1.0 - rare)
    inside = (np.arange(2 * size) < size)[chosen]
    points = gower_points(both.take(chosen), original)
    to_synthetic, to_known = (nearest(points, gower_points(each, original))[0][:, 0] for each in (synthetic, known))
    least = 1e-6 * len(original.names)
    return np.log(to_known + least) - np.log(to_synthetic + least), np.asarray(inside, np.bool_)


def copies(original: Coded, synthetic: Coded, fresh: Coded | None, rng: np.random.Generator) -> Measured:
    """Share of synthetic records that are equal to an original record in all columns, among those that are rare there.

    Rare is an original record that no other equals. Its baseline is the same of fresh records in the place of the
    original ones: with few columns records are equal by chance.
    """
    size = original.count if fresh is None else min(original.count, fresh.count)

    def equal(table: Coded) -> tuple[int, int]:
        return copied(table.drawn(size, rng), synthetic, original.names), synthetic.count

    return succeeded("copies", equal(original), None if fresh is None else equal(fresh), None, "all columns")


def copied(table: Coded, synthetic: Coded, names: Sequence[str]) -> int:
    """The number of synthetic records that equal, in all of these columns, a record that no other of the table does."""
    points = [np.column_stack([each.columns[name] for name in names]) for each in (table, synthetic)]
    filled = [np.nan_to_num(each.astype(np.float64), nan=-np.pi) for each in points]
    _, group, times = np.unique(filled[0], axis=0, return_inverse=True, return_counts=True)
    single = {row.tobytes() for row in filled[0][times[group.ravel()] == 1]}
    return sum(row.tobytes() in single for row in filled[1])
