"""`aim`: as `mst`, and in several rounds more pairs of columns, those where a model of all counts so far is worst.

After the tree each round fits the model to everything that was told, and counts the pairs whose coarse counts are
farthest from it, less what their noise explains and less the noise that the new counts will have; only such as leave
every clique of the model few cells. Rounds end when the budget is spent, or no pair is left that fits: what is left of
the budget then stays with the holders. How that is private, and sources: `_structure`.

AIM of McKenna et al. 2022 selects by the exponential mechanism, anneals the budget and has margins of three columns
too; here pairs are chosen by noisy counts, all alike in noise.
"""

from pydantic import Field

from statfed.core.method import Coordination, Question
from statfed.strategies.analyses import _structure
from statfed.strategies.analyses._structure import Pair, Told, expected_noise, largest, tree_of
from statfed.strategies.analyses._structure import budget as budget
from statfed.strategies.analyses._structure import columns as columns
from statfed.strategies.analyses._structure import contribute as contribute
from statfed.strategies.analyses._structure import discloses as discloses
from statfed.strategies.analyses._structure import parts as parts

TITLE = "Noisy counts of pairs of columns, chosen in rounds where a model is worst, for private synthetic data"
GROUP = "Distributions"
PUSHES_DOWN = "all but the count of cells; embedded DuckDB streams"
LINKED = True


class Options(_structure.Options):
    """Options of aim."""

    more: int | None = Field(
        default=None, ge=0, le=200, description="pairs beyond the tree; none: three for every four columns"
    )
    rounds: int = Field(default=3, ge=1, le=20, description="rounds in which they are chosen")
    clique: int = Field(default=20_000, ge=64, le=1_000_000, description="most cells of a clique of the model")


def coordinate(question: Question[Options]) -> Coordination:
    options, count = question.options, len(columns(question))
    most = count * (count - 1) // 2
    wanted = min(most, count - 1 + (3 * count // 4 if options.more is None else options.more))
    told = yield from _structure.begun(question, wanted)
    if told.pairs:
        each = options.shares[2] / wanted
        tree = _structure.spanning(told)
        ask = _structure.chosen_ask(told, tree, each * len(tree))
        told = _structure.with_chosen(told, _structure.counted(ask, (yield ask)))
        for left in range(options.rounds, 0, -1):
            some = -(-(wanted - len(told.chosen)) // left)
            pairs = _worst(question, told, some) if some > 0 else []
            if not pairs:
                break
            ask = _structure.chosen_ask(told, pairs, each * len(pairs))
            told = _structure.with_chosen(told, _structure.counted(ask, (yield ask)))
    return _structure.result(question, told, f"Counts of {len(told.chosen)} pairs of columns")


def _worst(question: Question[Options], told: Told, count: int) -> list[Pair]:
    """Pairs that the model is worst at, at most so many, the worst first."""
    _, noise = next(iter(told.chosen.values()))
    modelled, sizes = _structure.modelled(told), told.sizes
    off = {
        pair: told.dependent(pair, modelled[pair]) - expected_noise(noise, sizes[pair[0]] * sizes[pair[1]])
        for pair in modelled
    }
    found: list[Pair] = []
    for pair in sorted(off, key=lambda pair: (-off[pair], pair)):
        if len(found) == count:
            break
        if largest(tree_of(told, [*found, pair])) <= question.options.clique:
            found.append(pair)
    return found
