"""Three attacks with synthetic data alone: singling out, linkability, inference.

The definitions are those of Giomi et al. 2023 (Anonymeter, PoPETs 2023(2)), after the Article 29 Working Party's
opinion 05/2014. Every attack is made on records that the synthetic data were made from, and in the same way on fresh
records of the same population (control), which have nothing to fear from them: what is learnt of those is what is true
of everybody. Risk is the excess of the first over the second. A result is about these attacks by this many attempts,
and never a clearance: a better attacker may do more.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import UsageError
from statfed.core.synthetic.coded import Coded
from statfed.core.synthetic.features import gower_points, nearest
from statfed.core.synthetic.measured import Measured, attacked

TOLERANCE = 0.05
"""A guessed number is right within this, relative to the true one."""
_TRIES = 20  # draws of a predicate for each that is wanted


@dataclass(frozen=True)
class Predicate:
    """A condition on some columns: equal to a code, or a number at most or at least a value; missing is a value."""

    columns: tuple[str, ...]
    signs: tuple[str, ...]
    values: tuple[float, ...]

    def holds(self, table: Coded) -> NDArray[np.bool_]:
        """Which records fulfil it, (n,)."""
        found = np.ones(table.count, np.bool_)
        for name, sign, value in zip(self.columns, self.signs, self.values, strict=True):
            there = table.columns[name]
            if sign == "missing":
                found &= table.missing(name)
            elif sign == "=":
                found &= there == value
            else:
                found &= there <= value if sign == "<=" else there >= value
        return found


def singling_out(
    original: Coded,
    synthetic: Coded,
    control: Coded | None,
    rng: np.random.Generator,
    attempts: int = 500,
    columns: int = 3,
) -> Measured:
    """Share of predicates that are true of one synthetic record only and of exactly one original record.

    columns: of each predicate; 1: values that occur once in the synthetic data, extremes among them, column by column;
    more: the values of a synthetic record in columns drawn at random, numbers at most or at least its own by the side
    of the median that it is on, for which they fulfil it alone. naive: predicates of the same form made without the
    synthetic records' joint values (each column's from another record).
    """
    chosen = predicates(synthetic, rng, attempts, columns)
    size = original.count if control is None else min(original.count, control.count)
    target, other = original.drawn(size, rng), None if control is None else control.drawn(size, rng)
    blind = _multivariate(synthetic, columns, rng, together=False)
    naive = [alone(one, target) for one in islice(blind, attempts)]
    return attacked(
        "singling-out",
        np.array([alone(one, target) for one in chosen]),
        None if other is None else np.array([alone(one, other) for one in chosen]),
        float(np.mean(naive)) if naive else None,
        f"predicates of {columns} column{'s' if columns > 1 else ''}",
    )


def predicates(synthetic: Coded, rng: np.random.Generator, attempts: int, columns: int) -> list[Predicate]:
    """Those that one synthetic record fulfils alone, as `singling_out` tries them. Raises UsageError without any."""
    made = _univariate(synthetic, rng) if columns == 1 else _multivariate(synthetic, columns, rng, together=True)
    chosen = list(islice(made, attempts))
    if not chosen:
        raise UsageError("singling-out: got no predicate that one synthetic record fulfils alone; want more columns")
    return chosen


def alone(predicate: Predicate, table: Coded) -> bool:
    """Does exactly one record fulfil it?"""
    return int(predicate.holds(table).sum()) == 1


def _univariate(table: Coded, rng: np.random.Generator) -> Iterator[Predicate]:
    found = []
    for name in table.names:
        values = table.columns[name]
        known = values[~table.missing(name)]
        if int(table.missing(name).sum()) == 1:
            found.append(Predicate((name,), ("missing",), (0.0,)))
        there, times = np.unique(known, return_counts=True)
        found += [Predicate((name,), ("=",), (float(value),)) for value in there[times == 1]]
        if len(there) and not table.levelled(name):
            ends = (("<=", there[0], times[0]), (">=", there[-1], times[-1]))
            found += [Predicate((name,), (sign,), (float(value),)) for sign, value, count in ends if count == 1]
    for place in rng.permutation(len(found)):
        yield found[place]


def _multivariate(table: Coded, columns: int, rng: np.random.Generator, *, together: bool) -> Iterator[Predicate]:
    """together: values of one record, kept where that record alone fulfils the predicate."""
    if not 1 <= columns <= len(table.names):
        raise UsageError(f"columns: got {columns}; want 1 to {len(table.names)}")
    middle = {name: np.nanmedian(table.columns[name]) for name in table.names if not table.levelled(name)}
    for _ in range(_TRIES * 10_000):
        names = tuple(str(name) for name in rng.choice(table.names, columns, replace=False))
        records = rng.integers(table.count, size=1 if together else columns)
        signs, values = [], []
        for place, name in enumerate(names):
            record = int(records[0] if together else records[place])
            value = float(table.columns[name][record])
            if table.missing(name)[record]:
                signs.append("missing")
                value = 0.0
            elif table.levelled(name):
                signs.append("=")
            else:
                signs.append(">=" if value > middle[name] else "<=")
            values.append(value)
        predicate = Predicate(names, tuple(signs), tuple(values))
        if not together or alone(predicate, table):
            yield predicate


def linkability(
    original: Coded,
    synthetic: Coded,
    control: Coded | None,
    rng: np.random.Generator,
    halves: tuple[Sequence[str], Sequence[str]] | None = None,
    attempts: int = 1000,
    neighbours: int = 1,
) -> Measured:
    """Share of records whose two halves, known apart, lead to the same synthetic record.

    halves: the columns that two owners of parts of a record know; by default the columns dealt in turn. An attempt
    succeeds where the nearest synthetic records (Gower) of both halves, so many of each, have one in common. naive: two
    draws of so many at random.
    """
    first, second = halves or (original.names[::2], original.names[1::2])
    if set(first) & set(second) or not first or not second:
        raise UsageError("halves: got a column in both, or none; want two lists of columns without a common one")

    def hit(table: Coded) -> NDArray[np.bool_]:
        return linked(table.drawn(attempts, rng), synthetic, original, (first, second), neighbours, rng)

    naive = 1.0 - (1.0 - min(1.0, neighbours / synthetic.count)) ** neighbours
    about = f"{', '.join(first)} | {', '.join(second)}; {neighbours} nearest"
    return attacked("linkability", hit(original), None if control is None else hit(control), naive, about)


def linked(
    target: Coded,
    synthetic: Coded,
    reference: Coded,
    halves: tuple[Sequence[str], Sequence[str]],
    neighbours: int,
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """Of each attacked record: do its halves lead to a common synthetic record? reference: its ranges scale numbers."""
    found = []
    for names in halves:
        points = [gower_points(each.only(names), reference.only(names)) for each in (target, synthetic)]
        found.append(_nearest_jittered(points[0], points[1], neighbours, rng))
    return np.array(
        [bool(set(a) & set(b)) for a, b in zip(found[0].tolist(), found[1].tolist(), strict=True)], np.bool_
    )


def _nearest_jittered(
    points: NDArray[np.float32], among: NDArray[np.float32], k: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Places of the k nearest; of records at the same distance, which is drawn anew for each search: in a fixed order
    two halves that say little would lead to the same record by the order alone."""
    order = rng.permutation(len(among))
    _, places = nearest(points, among[order], k)
    return order[places]


def inference(
    original: Coded,
    synthetic: Coded,
    control: Coded | None,
    rng: np.random.Generator,
    secret: str,
    known: Sequence[str] | None = None,
    attempts: int = 1000,
) -> Measured:
    """Share of records whose secret value is that of the nearest synthetic record by the columns that are known.

    A number counts as found within TOLERANCE of the true one. naive: the value of a synthetic record at random. known:
    by default all other columns. Records that miss the secret are not attacked.
    """
    beside = tuple(known if known is not None else (name for name in original.names if name != secret))
    if not beside or secret in beside or secret not in original.names:
        raise UsageError(f"inference: got secret {secret} and {len(beside)} known columns; want them apart, and some")

    def hit(table: Coded, guess: str) -> NDArray[np.bool_]:
        target = table.take(~table.missing(secret)).drawn(attempts, rng)
        if not target.count:
            raise UsageError(f"inference: got no records with a value of {secret}; want some")
        if guess == "nearest":
            return inferred(target, synthetic, original, secret, beside, rng)
        return _guessed(target, synthetic, secret, rng.integers(synthetic.count, size=target.count))

    return attacked(
        "inference",
        hit(original, "nearest"),
        None if control is None else hit(control, "nearest"),
        float(hit(original, "any").mean()),
        f"{secret} from {', '.join(beside) if len(beside) <= 6 else f'{len(beside)} columns'}",
    )


def inferred(
    target: Coded, synthetic: Coded, reference: Coded, secret: str, known: Sequence[str], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Of each attacked record: is its secret that of the nearest synthetic record by what is known?"""
    points = [gower_points(each.only(known), reference.only(known)) for each in (target, synthetic)]
    return _guessed(target, synthetic, secret, _nearest_jittered(points[0], points[1], 1, rng)[:, 0])


def _guessed(target: Coded, synthetic: Coded, secret: str, places: NDArray[np.int64]) -> NDArray[np.bool_]:
    truth, guess = target.columns[secret], synthetic.columns[secret][places]
    if target.levelled(secret):
        return np.asarray((truth == guess) & (truth >= 0), np.bool_)
    return np.asarray(np.abs(guess - truth) <= TOLERANCE * np.abs(truth), np.bool_)
