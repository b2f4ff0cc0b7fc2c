"""Risks of synthetic data made from a whole population: a register, a census.

There are no fresh records: everybody is among those that the data were made from. So membership is no secret and is not
measured; whoever is unique in the data is unique in the population; and no control says what of an inference is true of
everybody. Nor does it help to keep a part of the population apart before the fit: that measures another file, which is
not released. What is left are shares of the persons themselves, of all of them, with no interval: nobody was sampled,
and these figures pretend no larger population. Attacks whose attempts are drawn have the interval of that draw alone.
Source: How should we measure empirical risk when synthesizing population data?, arXiv 2606.13902; the measures are
those of Raab, Nowok and Dibben 2025 (repU, DiSCO, and their like in the original: UiO, Dorig), and of Taub et al. 2018.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from statfed.core.errors import UsageError
from statfed.core.synthetic import membership, targets
from statfed.core.synthetic.coded import Coded
from statfed.core.synthetic.measured import Measured

DRAWN = "interval of the drawn attempts alone"


def redrawn(original: Coded, count: int, rng: np.random.Generator) -> Coded:
    """So many records of the population, drawn with replacement: what a model that is right in everything would draw,
    and so what utility is compared with where there are no fresh records."""
    return original.take(rng.integers(original.count, size=count))


def replicated_uniques(original: Coded, synthetic: Coded, keys: Sequence[str]) -> Measured:
    """Share of all persons that are unique by their keys and stand as a unique in the synthetic data too (repU)."""
    found = targets.replicated(original, synthetic, original, keys)
    alone = targets.replicated(original, original, original, keys)
    note = f"unique in the population itself: {alone.mean():.3f}"
    return _share("replicated-uniques", float(found.mean()), original.count, ", ".join(keys), note)


def disclosive_correct(original: Coded, synthetic: Coded, keys: Sequence[str], target: str) -> Measured:
    """Share of all persons whose keys have one value of the target in the synthetic data, which is theirs and is not
    the commonest one (DiSCO, less what anybody would guess).

    note: the same with the commonest value, and of the original in the place of the synthetic data (Dorig).
    """
    _, right = targets.unanimous(original, synthetic, original, keys, target)
    itself, _ = targets.unanimous(original, original, original, keys, target)
    odd = targets.uncommon(original, target)
    note = f"with the commonest value {right.mean():.3f}; one value in the population itself {itself.mean():.3f}"
    about = f"{target} by {', '.join(keys)}"
    return _share("disco", float((right & odd).mean()), original.count, about, note)


def targeted_correct(original: Coded, synthetic: Coded, keys: Sequence[str], target: str) -> Measured:
    """Of all persons whose keys have one value of the target in the synthetic data, those whose own it is (TCAP)."""
    open_, right = targets.unanimous(original, synthetic, original, keys, target)
    n, about = int(open_.sum()), f"{target} by {', '.join(keys)}"
    if not n:
        return _share("tcap", 0.0, 0, about, "no keys with one value in the synthetic data")
    return _share("tcap", float(right.sum() / n), n, about, f"the commonest value: {_commonest(original, target):.3f}")


def _commonest(original: Coded, target: str) -> float:
    return float(1.0 - targets.uncommon(original, target).mean())


def copies(original: Coded, synthetic: Coded) -> Measured:
    """Share of synthetic records that are the record of one person alone, in all columns."""
    value = membership.copied(original, synthetic, original.names) / synthetic.count
    return _share("copies", value, synthetic.count, "all columns", "")


def drawn(attack: Measured) -> Measured:
    """An attack without control, which says what its interval is of."""
    return replace(attack, note="; ".join(filter(None, (attack.note, DRAWN))))


def refused(fresh: Coded | None) -> None:
    """Raises UsageError where fresh records are given: nobody outside a whole population is of it."""
    if fresh is not None:
        raise UsageError("population: got fresh records; want none: everybody is in a whole population")


def _share(name: str, value: float, n: int, about: str, note: str) -> Measured:
    return Measured(name, "risk", value, n=n, about=about, note=note)
